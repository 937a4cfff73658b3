//! The paths the gateway answers itself, and who may read them.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Answer, Client, Engine, Gateway, H2, Puppet, Request, TempDir, Then, ask, chat, engine, get,
    h2_post, in_turn, pool, post, until,
};

async fn gateway(more: &str) -> (Puppet, Gateway) {
    let puppet = Puppet::answering("HTTP/1.1 204 X\r\n\r\n", Then::Keep).await;
    let yaml = format!("endpoints: [\"{}\"]\n{more}", puppet.authority());
    let gateway = Gateway::start(&yaml).await;
    (puppet, gateway)
}

async fn from(source: &str, gateway: &Gateway, request: &Request) -> Answer {
    Client::connect_from(source, gateway.address)
        .await
        .ask(request)
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_the_guides() {
    let (_puppet, gateway) = gateway("").await;
    let mut client = Client::connect_from("127.0.0.9", gateway.address).await;
    for request in [
        get("/health"),
        get("/health?x=1"),
        get("/health").field("Accept: */*"),
    ] {
        let answer = client.ask(&request).await;
        assert_eq!((answer.status, answer.text()), (200, "healthy\n"));
        assert_eq!(answer.all("content-type"), ["text/plain"]);
        assert_eq!(answer.field("server"), Some("sluicegate"));
        assert!(answer.keeps_alive());
    }
    let head = client.ask(&get("/health").method("HEAD")).await;
    assert_eq!(
        (head.status, head.field("content-length")),
        (200, Some("8"))
    );
    assert!(head.keeps_alive());
    let answer = client.ask(&post("/health", "")).await;
    assert_eq!(
        (answer.status, answer.field("allow")),
        (405, Some("GET, HEAD"))
    );
    for path in ["/health/", "/healthz", "/%68ealth"] {
        assert_eq!(gateway.ask(&get(path)).await.status, 404, "{path}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_speaks_litellms_json_to_those_who_may_read_it() {
    let (up, down) = (engine().await, engine().await);
    let keys = "health: { interval: 20ms }";
    let gateway = Gateway::start(&in_turn(&up.authority(), &down.authority(), keys)).await;
    down.stop().await;
    gateway.wait_for_state(1, &["down"]).await;
    let request = get("/health").field("Accept: application/json");
    let answer = gateway.ask(&request).await;
    let entry = |e: &Engine| json!({ "model": "openai/DeepSeek-R1", "api_base": format!("{}/v1", e.url()) });
    let expected = json!({
        "healthy_endpoints": [entry(&up)], "unhealthy_endpoints": [entry(&down)],
        "healthy_count": 1, "unhealthy_count": 1,
    });
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(answer.field("content-type"), Some("application/json"));
    gateway
        .reload(&format!(
            "endpoints: [\"{}\"]\nstatus_allow: [127.0.0.1/32]",
            up.authority()
        ))
        .await;
    let refused = from("127.0.0.2", &gateway, &request).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "not_allowed_here")
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_says_whether_requests_have_somewhere_to_go() {
    let node = engine().await;
    let yaml = pool(
        &[format!("\"{}\"", node.authority())],
        "health: { interval: 20ms }",
    );
    let gateway = Gateway::start(&yaml).await;
    for path in ["/ready", "/health/readiness"] {
        assert_eq!(from("127.0.0.9", &gateway, &get(path)).await.status, 200);
    }
    node.stop().await;
    gateway.wait_for_state(0, &["down"]).await;
    for path in ["/ready", "/health/readiness"] {
        let answer = gateway.ask(&get(path)).await;
        assert_eq!(answer.status, 503);
        assert!(answer.keeps_alive());
    }
    for path in ["/health", "/health/liveliness", "/health/liveness"] {
        assert_eq!(gateway.ask(&get(path)).await.status, 200);
    }
    node.restart().await.unwrap();
    gateway.wait_for_state(0, &["up", "ramping"]).await;
    assert_eq!(gateway.ask(&get("/ready")).await.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stub_status_is_nginxs_to_the_byte() {
    let node = engine().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", node.authority())).await;
    let answer = gateway.ask(&get("/stub_status")).await;
    assert_eq!(
        answer.text(),
        "Active connections: 1 \nserver accepts handled requests\n 1 1 1 \nReading: 0 Writing: 1 Waiting: 0 \n"
    );
    assert_eq!(answer.field("content-type"), Some("text/plain"));
    until("the first to be gone", || {
        gateway.shared().metrics.connection_counts.now().active == 0
    })
    .await;
    // Two silent, one idle, one inside its head, one that waits for an engine.
    node.hold();
    let silent = [
        Client::connect(gateway.address).await,
        Client::connect(gateway.address).await,
    ];
    let mut idle = Client::connect(gateway.address).await;
    assert_eq!(idle.ask(&get("/health")).await.status, 200);
    let mut reading = Client::connect(gateway.address).await;
    reading.send("GET / HT").await;
    let mut writing = Client::connect(gateway.address).await;
    writing.send(chat(false).bytes()).await;
    node.wait_for_arrivals(1).await;
    until("the head to be read", || {
        let now = gateway.shared().metrics.connection_counts.now();
        (now.reading, now.waiting) == (1, 3)
    })
    .await;
    assert_eq!(
        gateway.ask(&get("/stub_status")).await.text(),
        "Active connections: 6 \nserver accepts handled requests\n 7 7 4 \nReading: 1 Writing: 2 Waiting: 3 \n"
    );
    node.release();
    assert_eq!(writing.answer().await.status, 200);
    drop(silent);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_is_for_those_who_are_listed() {
    let (_puppet, gateway) = gateway("status_allow: [127.0.0.1/32]").await;
    for path in ["/stub_status", "/metrics"] {
        assert_eq!(from("127.0.0.1", &gateway, &get(path)).await.status, 200);
        let answer = from("127.0.0.2", &gateway, &get(path)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "not_allowed_here")
        );
        assert_eq!(answer.json()["error"]["type"], "permission_error");
        let message = answer.text();
        assert!(
            message.contains("127.0.0.2") && message.contains("status_allow"),
            "{message}"
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_may_say_that_he_is_another() {
    let (_puppet, gateway) = gateway("").await;
    for field in [
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-For:",
        "Forwarded: for=127.0.0.1",
        "X-Real-IP: 127.0.0.1",
    ] {
        let answer = gateway.ask(&get("/metrics").field(field)).await;
        assert_eq!(answer.status, 403, "{field}");
        let message = answer.text();
        assert!(
            message.contains("127.0.0.1") && message.contains("trusted_proxies"),
            "{message}"
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_trusted_proxy_its_client_counts() {
    let (_puppet, gateway) =
        gateway("trusted_proxies: [127.0.0.1/32]\nstatus_allow: [10.1.0.0/16]").await;
    for (forwarded, status) in [
        ("10.1.2.3", 200),
        ("198.51.100.7, 10.1.2.3", 200),
        ("10.1.2.3, 127.0.0.1", 200),
        ("10.1.2.3, 198.51.100.7", 403),
        ("::ffff:10.1.2.3", 200),
        ("10.2.0.1", 403),
        ("unknown", 403),
    ] {
        let request = get("/stub_status").field(&format!("X-Forwarded-For: {forwarded}"));
        assert_eq!(gateway.ask(&request).await.status, status, "{forwarded}");
    }
    // Not listed himself.
    assert_eq!(gateway.ask(&get("/stub_status")).await.status, 403);
    // Another peer is no proxy of ours, whatever he says.
    let request = get("/stub_status").field("X-Forwarded-For: 10.1.2.3");
    assert_eq!(from("127.0.0.2", &gateway, &request).await.status, 403);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_shows_all_of_it_and_relays_nothing() {
    let (_puppet, gateway) = gateway("status_allow: [192.0.2.1/32]").await;
    for path in [
        "/health",
        "/ready",
        "/stub_status",
        "/metrics",
        "/endpoints",
    ] {
        assert_eq!(ask(gateway.admin, &get(path)).await.status, 200, "{path}");
    }
    assert_eq!(ask(gateway.admin, &chat(false)).await.status, 404);
    let answer = gateway.ask(&get("/endpoints")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (404, "path_not_exposed")
    );
    // Its own connections are not among those of clients.
    let counts = gateway.shared().metrics.connection_counts.now();
    assert_eq!((counts.accepts, counts.requests), (1, 1));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_shown_with_their_state() {
    let (busy, dead) = (engine().await, engine().await);
    let yaml = format!(
        "pools: {{ default: {{ endpoints: [{{ url: \"{}\", weight: 3, max_in_flight: 7 }}, \
         {{ url: \"{}\", backup: true }}] }} }}",
        busy.authority(),
        dead.authority()
    );
    dead.stop().await;
    let gateway = Gateway::start(&yaml).await;
    busy.hold();
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    busy.wait_for_arrivals(1).await;
    let list = ask(gateway.admin, &get("/endpoints")).await.json();
    let [first, second] = list.as_array().unwrap().as_slice() else {
        panic!("{list}")
    };
    let pick = |of: &serde_json::Value| {
        [
            "pool",
            "endpoint",
            "url",
            "state",
            "in_flight",
            "weight",
            "max_in_flight",
            "backup",
        ]
        .map(|key| of[key].clone())
    };
    let expected = [
        json!("default"),
        json!(busy.authority()),
        json!(busy.url()),
        json!("up"),
        json!(1),
        json!(3),
        json!(7),
        json!(false),
    ];
    assert_eq!(pick(first), expected);
    assert_eq!(
        (&first["reason"], first["next_probe_ms"].is_u64()),
        (&json!(null), true)
    );
    assert_eq!(
        (&second["state"], &second["backup"]),
        (&json!("down"), &json!(true))
    );
    assert_eq!(second["reason"], "probe: connect refused");
    assert!(second["since"].as_str().unwrap().ends_with('Z'));
    busy.release();
    assert_eq!(client.answer().await.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listens_on_a_unix_socket_too() {
    let directory = TempDir::new();
    let path = directory.file("admin.sock");
    let (_puppet, gateway) = gateway(&format!(
        "admin: [127.0.0.1:0, \"unix:{}\"]",
        path.display()
    ))
    .await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(&get("/endpoints").field("Connection: close").bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o660
    );
    gateway.finish().await;
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_paths_are_answered_over_h2_and_http_10() {
    let node = engine().await;
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", node.authority())).await;
    let request = http::Request::get("https://gateway.example/health")
        .body(())
        .unwrap();
    let mut h2 = H2::connect(&gateway).await;
    assert_eq!(h2.ask(request, b"").await.text(), "healthy\n");
    let refused = h2.ask(h2_post("/flush_cache", 2, true), b"{}").await;
    assert_eq!(
        (refused.status(), refused.code().as_str()),
        (404, "path_not_exposed")
    );
    let old = gateway
        .ask(&get("/health").version("HTTP/1.0").without_host())
        .await;
    assert_eq!(
        (old.text(), old.field("content-length")),
        ("healthy\n", Some("8"))
    );
    gateway.finish().await;
}
