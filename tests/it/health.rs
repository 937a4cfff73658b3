//! Endpoints go out and come back: by probes, by faults, by what their names resolve to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use loadtest::engine::Listen;
use sluicegate::snapshot::Resolved;

use crate::support::{
    Certificate, Client, Engine, Fault, Gateway, Health, Puppet, Script, TempDir, Then, TlsNode,
    chat, engine, engine_with, get, in_turn, pool, until,
};

const QUICK: &str =
    "health: { interval: 20ms, timeout: 60ms, fall: 2, rise: 2, eject_after: 3, eject_for: 150ms }";

fn script(health: Health) -> Script {
    Script {
        health,
        ..Script::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_take_an_endpoint_out_and_let_it_back_in() {
    for sick in [Health::Status(503), Health::Silent] {
        let (node, other) = (engine().await, engine().await);
        let gateway = Gateway::start(&in_turn(&node.authority(), &other.authority(), QUICK)).await;
        assert_eq!(gateway.state(0), "up");
        node.set(script(sick));
        gateway.wait_for_state(0, &["down"]).await;
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
        assert_eq!(
            (
                node.settled().await.completed(),
                other.settled().await.completed()
            ),
            (0, 1),
            "{sick:?}"
        );
        node.set(script(Health::Ok));
        gateway.wait_for_state(0, &["up", "ramping"]).await;
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
        assert_eq!(
            (
                node.settled().await.completed(),
                other.settled().await.completed()
            ),
            (2, 1),
            "with the canary, {sick:?}"
        );
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fall_and_rise_count_probes() {
    let node = Puppet::answering("HTTP/1.1 204 X\r\n\r\n", Then::Keep).await;
    let health = "health: { interval: 20ms, timeout: 60ms, fall: 4, rise: 3 }";
    let gateway = Gateway::start(&pool(&[format!("\"{}\"", node.authority())], health)).await;
    until("a good probe", || node.probes() >= 2).await;
    node.set_health(500);
    let before = node.probes();
    gateway.wait_for_state(0, &["down"]).await;
    // One may have been under way when the health changed.
    let failed = node.probes() - before;
    assert!((4..=6).contains(&failed), "{failed}");
    node.set_health(200);
    let before = node.probes();
    gateway.wait_for_state(0, &["up", "ramping"]).await;
    let good = node.probes() - before;
    assert!((3..=5).contains(&good), "{good}");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_sick_at_the_start_gets_no_request() {
    let (sick, good) = (
        engine_with(script(Health::Status(503))).await,
        engine().await,
    );
    let gateway = Gateway::start(&in_turn(&sick.authority(), &good.authority(), "")).await;
    assert_eq!(gateway.state(0), "down");
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    assert_eq!(sick.inferences().len(), 0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_started_again_is_used_again() {
    let (node, other) = (engine().await, engine().await);
    let gateway = Gateway::start(&in_turn(&node.authority(), &other.authority(), QUICK)).await;
    node.stop().await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    assert_eq!(gateway.state(0), "down", "a refused connect is enough");
    node.restart().await.unwrap();
    gateway.wait_for_state(0, &["up", "ramping"]).await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    let with_the_canary = 2;
    assert_eq!(node.settled().await.completed(), with_the_canary);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_in_a_row_eject_and_a_probe_after_the_time_lets_back_in() {
    let (node, other) = (engine().await, engine().await);
    let gateway = Gateway::start(&in_turn(&node.authority(), &other.authority(), QUICK)).await;
    // A good answer in between forgives.
    for fault in [Fault::Status(500), Fault::Status(502)] {
        node.fail_next(1, fault);
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    }
    assert_eq!(gateway.faults(0), 2);
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    assert_eq!((gateway.faults(0), gateway.state(0)), (0, "up"));
    node.clear_requests();
    node.fail_next(3, Fault::Status(500));
    for _ in 0..3 {
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    }
    assert_eq!(gateway.state(0), "ejected");
    let series = format!(
        "sluicegate_ejections_total{{endpoint=\"{}\",pool=\"default\",reason=\"status_500\"}}",
        node.authority()
    );
    assert_eq!(gateway.metric(&series), 1.0);
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    assert_eq!(
        node.inferences().len(),
        3,
        "none while it is ejected, though its probes are good"
    );
    gateway.wait_for_state(0, &["up", "ramping"]).await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    let with_the_canary = 5;
    assert_eq!(node.inferences().len(), with_the_canary);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_are_out_but_accept_connections_one_is_used_all_the_same() {
    let engines = [
        engine_with(script(Health::Status(500))).await,
        engine_with(script(Health::Status(500))).await,
    ];
    let endpoints = engines.each_ref().map(|e| format!("\"{}\"", e.authority()));
    let gateway = Gateway::start(&pool(&endpoints, "")).await;
    assert_eq!((gateway.state(0), gateway.state(1)), ("down", "down"));
    for _ in 0..5 {
        assert_eq!(gateway.ask(&chat(true)).await.status, 200);
    }
    assert_eq!(gateway.ask(&get("/ready")).await.status, 503);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_panic_failed_probes_are_better_than_failed_requests() {
    let (unhealthy, failing) = (engine().await, engine().await);
    let health = "health: { interval: 20ms, fall: 1, eject_after: 2, eject_for: 1h }";
    let endpoints = [&unhealthy, &failing].map(|e| format!("\"{}\"", e.authority()));
    let gateway =
        Gateway::start(&pool(&endpoints, &format!("{health}, policy: round_robin"))).await;
    failing.fail_next(2, Fault::CloseOnBody);
    for _ in 0..4 {
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    }
    assert_eq!(gateway.state(1), "ejected");
    unhealthy.set(script(Health::Status(500)));
    gateway.wait_for_state(0, &["down"]).await;
    let before = (
        unhealthy.settled().await.completed(),
        failing.settled().await.completed(),
    );
    for _ in 0..4 {
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    }
    assert_eq!(
        (
            unhealthy.settled().await.completed(),
            failing.settled().await.completed()
        ),
        (before.0 + 4, before.1)
    );
    gateway.finish().await;
}

/// Busy is not dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_probe_does_not_count_while_bytes_flow() {
    let flowing = Script {
        itl: Duration::from_millis(2),
        tokens: 100_000,
        ..Script::default()
    };
    let node = engine_with(flowing.clone()).await;
    let health = "health: { interval: 300ms, fall: 1 }";
    let gateway = Gateway::start(&pool(&[format!("\"{}\"", node.authority())], health)).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    client.head().await;
    let asked = |node: &Engine| {
        node.requests()
            .iter()
            .filter(|r| r.target == "/health")
            .count()
    };
    node.set(Script {
        health: Health::Status(500),
        ..flowing
    });
    let before = asked(&node);
    while asked(&node) < before + 3 {
        client.piece().await.unwrap();
    }
    assert_eq!(gateway.state(0), "up");
    drop(client);
    gateway.wait_for_state(0, &["down"]).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_is_a_get_of_the_path_with_the_endpoints_key() {
    let node = engine().await;
    let yaml = format!(
        "pools: {{ default: {{ endpoints: [{{ url: \"{}\", api_key: sk-e }}], health: {{ path: /ping }} }} }}",
        node.authority()
    );
    let gateway = Gateway::start(&yaml).await;
    let requests = node.requests();
    let probe = requests.iter().find(|r| r.target == "/ping").unwrap();
    assert_eq!(probe.method, "GET");
    assert_eq!(probe.header("authorization"), Some("Bearer sk-e"));
    assert_eq!(probe.header("host"), Some(node.authority().as_str()));
    assert_eq!(probe.header("connection"), Some("close"));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_on_a_unix_socket_serves_and_moves_like_any() {
    let directory = TempDir::new();
    let path = directory.file("engine.sock");
    let local = engine_with(Script {
        listen: Listen::Unix(path.clone()),
        ..Script::default()
    })
    .await;
    let other = engine().await;
    let url = format!("unix:{}", path.display());
    let gateway = Gateway::start(&in_turn(&url, &other.authority(), QUICK)).await;
    for stream in [false, true] {
        assert_eq!(gateway.ask(&chat(stream)).await.status, 200);
    }
    assert_eq!(
        (
            local.settled().await.completed(),
            other.settled().await.completed()
        ),
        (2, 0)
    );
    local.stop().await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    assert_eq!(
        (gateway.state(0), other.settled().await.completed()),
        ("down", 1)
    );
    local.restart().await.unwrap();
    gateway.wait_for_state(0, &["up", "ramping"]).await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    let with_the_canary = 4;
    assert_eq!(local.settled().await.completed(), with_the_canary);
    gateway.finish().await;
}

/// Two engines on the same port of two addresses.
async fn on_two_addresses() -> (Engine, Engine) {
    loop {
        let first = engine().await;
        let second = SocketAddr::new([127, 0, 0, 2].into(), first.addr().port());
        let script = Script {
            listen: Listen::Tcp(second),
            ..Script::default()
        };
        // The port may be taken there.
        if let Ok(second) = Engine::start(script).await {
            return (first, second);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_with_several_addresses_is_several_endpoints() {
    let (first, second) = on_two_addresses().await;
    let port = first.addr().port();
    let yaml = pool(&[format!("localhost:{port}")], "policy: round_robin");
    let gateway = Gateway::start(&yaml).await;
    let name = |index: usize| {
        let snapshot = gateway.shared().snapshot.load();
        snapshot.pools[0]
            .endpoints
            .get(index)
            .map(|endpoint| endpoint.name.to_string())
    };
    // localhost may have ::1 too, where nobody listens.
    let resolve = |addresses: &[[u8; 4]]| {
        let mut resolved = Resolved::default();
        let of_port = |address: &[u8; 4]| SocketAddr::new((*address).into(), port);
        resolved.insert("localhost", port, addresses.iter().map(of_port).collect());
        let snapshot = gateway.shared().snapshot.load_full();
        gateway
            .shared()
            .snapshot
            .apply(Arc::clone(&snapshot.config), &resolved)
            .unwrap();
    };
    resolve(&[[127, 0, 0, 1], [127, 0, 0, 2]]);
    assert_eq!(name(0), Some(format!("localhost:{port}@127.0.0.1")));
    assert_eq!(name(1), Some(format!("localhost:{port}@127.0.0.2")));
    for _ in 0..4 {
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    }
    assert_eq!(
        (
            first.settled().await.completed(),
            second.settled().await.completed()
        ),
        (2, 2)
    );
    assert!(
        first
            .inferences()
            .iter()
            .all(|r| r.header("host") == Some("gateway.example"))
    );
    // The node moves: the old address is left, the new one has a name without it.
    resolve(&[[127, 0, 0, 2]]);
    assert_eq!(
        (name(0), name(1)),
        (Some(format!("localhost:{port}")), None)
    );
    for _ in 0..3 {
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    }
    assert_eq!(
        (
            first.settled().await.completed(),
            second.settled().await.completed()
        ),
        (2, 5)
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_does_not_resolve_is_down_and_stops_nobody() {
    let good = engine().await;
    let gateway = Gateway::start(&in_turn("nowhere.invalid:8000", &good.authority(), "")).await;
    assert_eq!(gateway.state(0), "down");
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_https_endpoint_must_show_a_certificate_that_is_trusted() {
    let certificate = Certificate::new();
    let node = TlsNode::start(&certificate).await;
    let directory = TempDir::new();
    std::fs::write(directory.file("ca.pem"), certificate.pem()).unwrap();
    let ca = directory.file("ca.pem");
    for (tls, status) in [
        (format!("tls: {{ ca: {} }}", ca.display()), 200),
        (
            format!("tls: {{ ca: {}, server_name: localhost }}", ca.display()),
            200,
        ),
        (
            format!(
                "tls: {{ ca: {}, server_name: other.example }}",
                ca.display()
            ),
            503,
        ),
        ("tls: { verify: false }".to_owned(), 200),
        (String::new(), 503),
    ] {
        let endpoint = format!("\"https://{}\"", node.authority());
        let gateway = Gateway::start(&pool(&[endpoint], &tls)).await;
        let answer = gateway.ask(&chat(false)).await;
        let is_refused = matches!(answer.status, 502 | 503);
        assert!(
            if status == 200 {
                answer.status == 200
            } else {
                is_refused
            },
            "{tls}: {}",
            answer.status
        );
        gateway.finish().await;
    }
}
