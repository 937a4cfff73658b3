//! Endpoints out of use on purpose: who may order it, what becomes of requests, and the way back.

use serde_json::{Value, json};
use sluicegate::pool::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::support::{
    Answer, Client, End, Gateway, Puppet, Request, Script, TempDir, Then, ask, chat, engine,
    engine_with, get, in_turn, pool, post, until,
};

const KEYS: &str = "keys: [{ name: master, key: master-secret-of-ours, admin: true }, { name: team, key: secret-of-the-team }]";
const QUICK: &str = "health: { interval: 20ms, timeout: 60ms }";

/// An order as `sluicegate drain` sends it over TCP.
fn order(node: &str, action: &str) -> Request {
    post(&format!("/endpoints/{node}/{action}"), "")
        .field("X-Sluicegate-Admin: 1")
        .field("Authorization: Bearer master-secret-of-ours")
        .field("Host: localhost")
}

fn asking(stream: bool) -> Request {
    chat(stream).field("Authorization: Bearer secret-of-the-team")
}

async fn row(gateway: &Gateway, index: usize) -> Value {
    ask(gateway.admin, &get("/endpoints")).await.json()[index].clone()
}

fn refusal(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_endpoint_finishes_what_it_has_and_gets_nothing_new() {
    let (node, other) = (engine().await, engine().await);
    let yaml = in_turn(&node.authority(), &other.authority(), QUICK);
    let gateway = Gateway::start(&format!("{yaml}\n{KEYS}")).await;
    node.hold();
    let mut stream = Client::connect(gateway.address).await;
    stream.send(asking(true).bytes()).await;
    node.wait_for_arrivals(1).await;

    let answer = ask(gateway.admin, &order(&node.authority(), "drain")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = answer.json();
    assert_eq!(shown.as_array().unwrap().len(), 1);
    let pick =
        |row: &Value| ["endpoint", "state", "reason", "in_flight"].map(|key| row[key].clone());
    let expected = [
        json!(node.authority()),
        json!("draining"),
        json!("by command"),
        json!(1),
    ];
    assert_eq!(pick(&shown[0]), expected);
    assert_eq!(pick(&row(&gateway, 0).await), expected);
    let labels = format!("{{endpoint=\"{}\",pool=\"default\"}}", node.authority());
    let sample = |name: &str| gateway.metric(&format!("sluicegate_endpoint_{name}{labels}"));
    assert_eq!((sample("up"), sample("draining")), (0.0, 1.0));

    for _ in 0..3 {
        assert_eq!(gateway.ask(&asking(false)).await.status, 200);
    }
    assert_eq!(other.settled().await.completed(), 3);
    node.release();
    let answer = stream.answer().await;
    assert_eq!((answer.status, answer.end), (200, End::Framed));
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    gateway.quiet().await;
    assert_eq!(row(&gateway, 0).await["in_flight"], 0);

    let answer = ask(gateway.admin, &order(&node.authority(), "undrain")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    gateway.wait_for_state(0, &["ramping", "up"]).await;
    // It may have been asked for a token before it was let in.
    let before = node.settled().await.completed();
    assert_eq!(gateway.ask(&asking(false)).await.status, 200);
    assert_eq!(node.settled().await.completed(), before + 1);
    assert_eq!((sample("up"), sample("draining")), (1.0, 0.0));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_endpoint_drains_too_and_the_pool_is_not_ready() {
    let node = engine().await;
    let yaml = pool(&[format!("\"{}\"", node.authority())], QUICK);
    let gateway = Gateway::start(&format!("{yaml}\n{KEYS}")).await;
    ask(gateway.admin, &order(&node.authority(), "drain")).await;
    let answer = gateway.ask(&asking(false)).await;
    assert_eq!(refusal(&answer), (503, "no_endpoint_available".to_owned()));
    assert_eq!(gateway.ask(&get("/ready")).await.status, 503);
    assert_eq!(node.inferences().len(), 0);
    ask(gateway.admin, &order(&node.authority(), "undrain")).await;
    // Nobody has probed it yet, but it is all there is.
    assert_eq!(gateway.ask(&asking(false)).await.status, 200);
    gateway.wait_for_state(0, &["ramping", "up"]).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undrained_endpoint_is_probed_before_it_is_used() {
    let (node, other) = (
        Puppet::answering("HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n{}", Then::Keep).await,
        engine().await,
    );
    let yaml = in_turn(&node.authority(), &other.authority(), QUICK);
    let gateway = Gateway::start(&format!("{yaml}\n{KEYS}")).await;
    ask(gateway.admin, &order(&node.authority(), "drain")).await;
    node.set_health(503);
    ask(gateway.admin, &order(&node.authority(), "undrain")).await;
    until("a failed probe", || {
        let status = gateway.endpoint(0).status(tokio::time::Instant::now());
        status.why().is_some_and(|why| why == "probe: answered 503")
    })
    .await;
    assert_eq!(gateway.state(0), "down");
    assert_eq!(gateway.ask(&asking(false)).await.status, 200);
    assert_eq!(node.requests().len(), 0);
    node.set_health(200);
    gateway.wait_for_state(0, &["ramping", "up"]).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_on_a_draining_endpoint_is_no_fault_of_its() {
    let (mut node, other) = (Puppet::start().await, engine().await);
    let yaml = in_turn(
        &node.authority(),
        &other.authority(),
        "health: { eject_after: 1 }",
    );
    let gateway = Gateway::start(&format!("{yaml}\n{KEYS}")).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(asking(false).bytes()).await;
    let exchange = node.next().await;
    ask(gateway.admin, &order(&node.authority(), "drain")).await;
    exchange.reset();
    assert_eq!(client.answer().await.status, 200, "the other answers");
    assert_eq!((gateway.faults(0), gateway.state(0)), (0, "draining"));
    let ejections = gateway.shared().metrics.render();
    assert!(
        !ejections.contains("sluicegate_ejections_total{"),
        "{ejections}"
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_by_command_outlives_a_reload() {
    let (node, other) = (engine().await, engine().await);
    let yaml = in_turn(&node.authority(), &other.authority(), QUICK);
    let gateway = Gateway::start(&format!("{yaml}\n{KEYS}")).await;
    ask(gateway.admin, &order(&node.authority(), "drain")).await;
    let since = row(&gateway, 0).await["since"].clone();
    let other_policy = in_turn(&node.authority(), &other.authority(), "policy: round_robin");
    gateway.reload(&format!("{other_policy}\n{KEYS}")).await;
    let shown = row(&gateway, 0).await;
    assert_eq!(
        (&shown["state"], &shown["since"]),
        (&json!("draining"), &since)
    );
    assert_eq!(gateway.ask(&asking(false)).await.status, 200);
    assert_eq!(node.inferences().len(), 0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_drains_and_no_order_undoes_it() {
    let (node, other) = (engine().await, engine().await);
    let with = |drain: bool| {
        let first = format!("{{ url: \"{}\", drain: {drain} }}", node.authority());
        let yaml = pool(&[first, format!("\"{}\"", other.authority())], QUICK);
        format!("{yaml}\n{KEYS}")
    };
    let gateway = Gateway::start(&with(true)).await;
    assert_eq!(row(&gateway, 0).await["reason"], "by the configuration");
    for _ in 0..4 {
        assert_eq!(gateway.ask(&asking(false)).await.status, 200);
    }
    assert_eq!(node.inferences().len(), 0);
    let answer = ask(gateway.admin, &order(&node.authority(), "undrain")).await;
    assert_eq!(refusal(&answer), (409, "still_drained".to_owned()));
    assert!(answer.text().contains("drain: true"));
    ask(gateway.admin, &order(&node.authority(), "drain")).await;
    let both = "by command and by the configuration";
    assert_eq!(row(&gateway, 0).await["reason"], both);

    let diff = gateway.try_reload(&with(false)).await.unwrap();
    assert!(diff.contains("drain true -> false"), "{diff}");
    assert_eq!(row(&gateway, 0).await["reason"], "by command");
    ask(gateway.admin, &order(&node.authority(), "undrain")).await;
    gateway.wait_for_state(0, &["ramping", "up"]).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pools_word_is_enough_for_all_that_have_the_endpoint() {
    let (node, other) = (engine().await, engine().await);
    let (one, two) = (node.authority(), other.authority());
    let gateway = Gateway::start(&format!(
        "pools:\n  a: {{ endpoints: [\"{one}\", \"{two}\"] }}\n  b: {{ endpoints: [{{ url: \"{one}\", drain: true }}, \"{two}\"] }}\n\
         models: {{ m: {{ pool: a }}, n: {{ pool: b }} }}"
    ))
    .await;
    let list = ask(gateway.admin, &get("/endpoints")).await.json();
    let states = [0, 1, 2, 3].map(|index| list[index]["state"].clone());
    assert_eq!(states, ["draining", "up", "draining", "up"]);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_left_the_file_is_shown_until_its_last_request_ends() {
    let script = Script {
        tokens: 3,
        ..Script::default()
    };
    let (node, other) = (engine_with(script).await, engine().await);
    let gateway = Gateway::start(&in_turn(&node.authority(), &other.authority(), QUICK)).await;
    node.hold();
    let mut stream = Client::connect(gateway.address).await;
    stream.send(chat(true).bytes()).await;
    node.wait_for_arrivals(1).await;
    let alone = pool(&[format!("\"{}\"", other.authority())], QUICK);
    gateway.reload(&alone).await;
    let shown = row(&gateway, 1).await;
    assert_eq!(shown["endpoint"], json!(node.authority()));
    assert_eq!(
        (&shown["pool"], &shown["in_flight"]),
        (&Value::Null, &json!(1))
    );
    assert_eq!(shown["state"], "draining");
    assert_eq!(shown["reason"], "removed from the configuration");
    node.release();
    assert_eq!(stream.answer().await.status, 200);
    gateway.quiet().await;
    assert_eq!(row(&gateway, 1).await, Value::Null);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_an_operator_gives_orders_over_tcp() {
    let node = Puppet::answering("HTTP/1.1 204 X\r\n\r\n", Then::Keep).await;
    let yaml = format!("endpoints: [\"{}\"]", node.authority());
    let gateway = Gateway::start(&format!("{yaml}\n{KEYS}")).await;
    let path = format!("/endpoints/{}/drain", node.authority());
    let header = "X-Sluicegate-Admin: 1";
    let master = "Authorization: Bearer master-secret-of-ours";
    let local = "Host: localhost:9180";
    for (fields, expected) in [
        (&[local, master][..], (403, "not_allowed_here")),
        (&[local, header], (401, "invalid_api_key")),
        (
            &[local, header, "Authorization: Bearer nobody-s-key"],
            (401, "invalid_api_key"),
        ),
        (
            &[local, header, "Authorization: Bearer secret-of-the-team"],
            (403, "not_allowed_here"),
        ),
        (
            &[local, header, master, "Origin: http://localhost:9180"],
            (403, "not_allowed_here"),
        ),
        (
            &[local, header, master, "Origin: null"],
            (403, "not_allowed_here"),
        ),
        // DNS rebinding: the page's own name leads here.
        (
            &["Host: evil.example:9180", header, master],
            (403, "not_allowed_here"),
        ),
    ] {
        let request = fields
            .iter()
            .fold(post(&path, ""), |request, field| request.field(field));
        let answer = ask(gateway.admin, &request).await;
        let expected = (expected.0, expected.1.to_owned());
        assert_eq!(refusal(&answer), expected, "{fields:?}: {}", answer.text());
        assert_eq!(gateway.state(0), "up", "{fields:?}");
    }
    let wrong = ask(gateway.admin, &get(&path)).await;
    assert_eq!((wrong.status, wrong.field("allow")), (405, Some("POST")));
    // Where clients come in there is no such path.
    assert_eq!(
        gateway.ask(&order(&node.authority(), "drain")).await.status,
        404
    );
    assert_eq!(gateway.state(0), "up");
    let plain = [
        "Host: 127.0.0.1",
        header,
        "x-api-key: master-secret-of-ours",
    ];
    let request = plain
        .iter()
        .fold(post(&path, ""), |request, field| request.field(field));
    assert_eq!(ask(gateway.admin, &request).await.status, 200);
    assert_eq!(gateway.state(0), "draining");
    // The order of before is no other now.
    assert_eq!(ask(gateway.admin, &request).await.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_orders_come_over_the_unix_socket_alone() {
    let directory = TempDir::new();
    let socket = directory.file("admin.sock");
    let node = Puppet::answering("HTTP/1.1 204 X\r\n\r\n", Then::Keep).await;
    let gateway = Gateway::start(&format!(
        "endpoints: [\"{}\"]\nadmin: [127.0.0.1:0, \"unix:{}\"]",
        node.authority(),
        socket.display()
    ))
    .await;
    let answer = ask(gateway.admin, &order(&node.authority(), "drain")).await;
    assert_eq!(refusal(&answer), (403, "not_allowed_here".to_owned()));
    assert!(answer.text().contains("unix socket"), "{}", answer.text());

    let over_unix = async |request: Request| {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let request = request.field("Connection: close").bytes();
        stream.write_all(&request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let path = format!("/endpoints/{}/drain", node.authority());
    let page = over_unix(post(&path, "").field("Origin: null")).await;
    assert!(page.starts_with("HTTP/1.1 403 "), "{page}");
    let answer = over_unix(post(&path, "")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(gateway.state(0), "draining");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_endpoint_is_answered_with_near_names() {
    let node = Puppet::answering("HTTP/1.1 204 X\r\n\r\n", Then::Keep).await;
    let yaml = format!("endpoints: [\"{}\"]", node.authority());
    let gateway = Gateway::start(&format!("{yaml}\n{KEYS}")).await;
    let off_by_one = node.authority().replacen("127", "128", 1);
    for near in [off_by_one.as_str(), "127.0.0.1"] {
        let answer = ask(gateway.admin, &order(near, "drain")).await;
        assert_eq!(refusal(&answer), (404, "endpoint_not_found".to_owned()));
        assert!(
            answer.text().contains(&format!("`{}`?", node.authority())),
            "{}",
            answer.text()
        );
    }
    let answer = ask(gateway.admin, &order("elsewhere", "undrain")).await;
    assert!(
        answer.text().contains("GET /endpoints"),
        "{}",
        answer.text()
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_with_several_addresses_drains_whole_or_in_part() {
    let node = engine().await;
    let port = node.authority().rsplit(':').next().unwrap().to_owned();
    let gateway = Gateway::start(&format!("endpoints: [\"many.invalid:{port}\"]\n{KEYS}")).await;
    let mut resolved = sluicegate::snapshot::Resolved::default();
    let number: u16 = port.parse().unwrap();
    let addresses = [[127, 0, 0, 1], [127, 0, 0, 2]].map(|ip| (ip, number).into());
    resolved.insert("many.invalid", number, addresses.to_vec());
    gateway.shared().snapshot.readdress(&resolved).unwrap();
    let states = async || {
        let list = ask(gateway.admin, &get("/endpoints")).await.json();
        [0, 1].map(|index| list[index]["state"] == "draining")
    };
    let name = format!("many.invalid:{port}");
    ask(gateway.admin, &order(&format!("{name}@127.0.0.2"), "drain")).await;
    assert_eq!(states().await, [false, true]);
    let answer = ask(gateway.admin, &order(&name, "drain")).await;
    assert_eq!(answer.json().as_array().unwrap().len(), 2);
    assert_eq!(states().await, [true, true]);
    ask(gateway.admin, &order(&name, "undrain")).await;
    assert_eq!(states().await, [false, false]);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_a_process_to_come_would_not_know_of_is_refused() {
    let node = engine().await;
    let yaml = pool(&[format!("\"{}\"", node.authority())], QUICK);
    let gateway = Gateway::start(&format!("{yaml}\n{KEYS}")).await;
    let drain = order(&node.authority(), "drain");
    assert!(gateway.server().hand_over_orders().is_empty());
    let answer = ask(gateway.admin, &drain).await;
    assert_eq!(refusal(&answer), (503, "upgrade_under_way".to_owned()));
    assert!(answer.field("retry-after").is_some());
    assert_eq!(gateway.state(0), "up");
    // Nobody has taken over.
    gateway.server().take_orders();
    assert_eq!(ask(gateway.admin, &drain).await.status, 200);
    assert_eq!(gateway.state(0), "draining");
    assert_eq!(gateway.server().hand_over_orders().len(), 1);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_whose_time_is_over_moves_what_another_takes_at_once_and_nothing_else() {
    let (node, other) = (engine().await, engine().await);
    let one_place = format!(
        "{{ url: \"{}\", backup: true, max_in_flight: 1 }}",
        other.authority()
    );
    let endpoints = [format!("\"{}\"", node.authority()), one_place];
    let gateway = Gateway::start(&pool(&endpoints, "queue: null")).await;
    node.hold();
    other.hold();
    let mut clients = Vec::new();
    for n in 0..3 {
        let mut client = Client::connect(gateway.address).await;
        client.send(chat(n % 2 == 0).bytes()).await;
        clients.push(client);
    }
    node.wait_for_arrivals(3).await;
    let state = gateway.endpoint(0);
    state.drain(Instant::now());
    for _ in 0..2 {
        state.recall(Fault::Drained);
        other.wait_for_arrivals(1).await;
        until("one to have left", || state.in_flight() == 2).await;
        assert_eq!(gateway.ask(&chat(false)).await.status, 503);
    }
    until("the node to be told", || node.left() == 1).await;
    assert_eq!(gateway.retries("drained"), 1.0);
    node.release();
    other.release();
    for client in &mut clients {
        let answer = client.answer().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let done = (
        node.settled().await.completed(),
        other.settled().await.completed(),
    );
    assert_eq!(done, (2, 1));
    gateway.finish().await;
}
