//! Another configuration under load: no request is lost, no stream is cut, nothing is forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::support::{
    Certificate, Client, End, Engine, Gateway, H2, Puppet, Script, chat, engine, engine_with, get,
    h2_post, in_turn, padded, pool, post, until,
};

const RELOADS: usize = 100;

/// A configuration of some of the engines, with weights that differ each time.
fn epoch(engines: &[Engine], n: usize) -> String {
    let chosen = engines
        .iter()
        .enumerate()
        .filter(|(index, _)| !(n + index).is_multiple_of(3));
    let endpoints: Vec<_> = chosen
        .map(|(index, engine)| {
            format!(
                "{{ url: \"{}\", weight: {} }}",
                engine.authority(),
                1 + (n * 7 + index) % 5
            )
        })
        .collect();
    let policy = ["least_inflight", "round_robin"][n % 2];
    pool(
        &endpoints,
        &format!("policy: {policy}, health: {{ interval: 50ms }}"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_lose_nothing() {
    let script = Script {
        itl: Duration::from_millis(1),
        tokens: 60,
        ..Script::default()
    };
    let mut engines = Vec::new();
    for _ in 0..4 {
        engines.push(engine_with(script.clone()).await);
    }
    let gateway = Gateway::with_tls(&epoch(&engines, 1)).await;
    let (over, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let mut clients = JoinSet::new();
    for n in 0..8 {
        let (over, answered, address) = (Arc::clone(&over), Arc::clone(&answered), gateway.address);
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            while !over.load(Relaxed) {
                let stream = n % 2 == 0;
                let answer = client.ask(&chat(stream)).await;
                assert_eq!(
                    (answer.status, answer.end),
                    (200, End::Framed),
                    "{}",
                    answer.text()
                );
                assert!(
                    !stream || answer.text().ends_with("data: [DONE]\n\n"),
                    "{}",
                    answer.text()
                );
                answered.fetch_add(1, Relaxed);
            }
        });
    }
    for n in 2..RELOADS + 2 {
        gateway.reload(&epoch(&engines, n)).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    over.store(true, Relaxed);
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    assert!(answered.load(Relaxed) >= 50, "{answered:?} answers");
    assert_eq!(
        gateway.metric("sluicegate_config_epoch"),
        (RELOADS + 1) as f64
    );
    gateway.quiet().await;
    assert!(
        engines
            .iter()
            .all(|engine| engine.in_flight() == 0 && engine.left() == 0)
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_outlives_the_endpoint_it_comes_from() {
    let (old, new) = (engine().await, engine().await);
    old.hold();
    let gateway = Gateway::start(&pool(&[format!("\"{}\"", old.authority())], "")).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    old.wait_for_arrivals(1).await;
    gateway
        .reload(&pool(&[format!("\"{}\"", new.authority())], ""))
        .await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    assert_eq!(new.settled().await.completed(), 1);
    old.release();
    assert!(client.answer().await.text().ends_with("data: [DONE]\n\n"));
    assert_eq!((old.settled().await.completed(), old.left()), (1, 0));
    gateway.finish().await;
}

/// One pool of nobody but this one, which has a key of its own.
fn alone(authority: &str) -> String {
    pool(&[format!("{{ url: \"{authority}\", api_key: k3y }}")], "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_still_sends_its_body_is_answered_by_what_a_reload_brings() {
    let (old, new) = (engine().await, engine().await);
    let gateway = Gateway::start(&pool(&[format!("\"{}\"", old.authority())], "")).await;
    let request = chat(false).field("Authorization: Bearer mine").bytes();
    let (begin, end) = request.split_at(request.len() - 5);
    let mut client = Client::connect(gateway.address).await;
    client.send(begin).await;
    let held = || gateway.shared().body_memory.total() > 0;
    until("a part of the body", held).await;
    gateway.reload(&alone(&new.authority())).await;
    client.send(end).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let received = new.inferences();
    assert_eq!(received[0].header_all("authorization"), ["Bearer k3y"]);
    assert_eq!(old.inferences().len(), 0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_loses_its_engine_after_a_reload_is_answered_by_what_that_brought() {
    let (mut old, new) = (Puppet::start().await, engine().await);
    let gateway = Gateway::start(&pool(&[format!("\"{}\"", old.authority())], "")).await;
    let mut client = Client::connect(gateway.address).await;
    client
        .send(chat(true).field("Authorization: Bearer mine").bytes())
        .await;
    let exchange = old.next().await;
    gateway.reload(&alone(&new.authority())).await;
    exchange.reset();
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.end), (200, End::Framed));
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(gateway.retries("connection_lost"), 1.0);
    let received = new.inferences();
    assert_eq!(received[0].header_all("authorization"), ["Bearer k3y"]);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_and_timeouts_take_effect_for_the_next_request() {
    let engine = engine().await;
    let endpoints = format!("endpoints: [\"{}\"]", engine.authority());
    let gateway = Gateway::start(&endpoints).await;
    let mut client = Client::connect(gateway.address).await;
    let large = post("/v1/completions", padded(5_000));
    assert_eq!(client.ask(&large).await.status, 400);
    gateway
        .reload(&format!(
            "{endpoints}\nlimits: {{ body: 4KiB }}\nexpose: all"
        ))
        .await;
    assert_eq!(client.ask(&get("/version")).await.status, 200);
    assert_eq!(client.ask(&large).await.status, 413);
    gateway.finish().await;
}

async fn shown(gateway: &Gateway, certificate: &Certificate) -> bool {
    let (address, _) = gateway.tls.as_ref().unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(certificate.client(&[]))
        .connect(name, stream)
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_shown_from_the_next_handshake_on() {
    let engine = engine().await;
    let endpoints = format!("endpoints: [\"{}\"]", engine.authority());
    let gateway = Gateway::with_tls(&endpoints).await;
    let (_, old) = gateway.tls.as_ref().unwrap();
    let mut open = H2::connect(&gateway).await;
    let new = Certificate::new();
    assert!(shown(&gateway, old).await && !shown(&gateway, &new).await);
    std::fs::write(gateway.directory().join("certificate.pem"), new.pem()).unwrap();
    std::fs::write(gateway.directory().join("key.pem"), new.key_pem()).unwrap();
    gateway.reload(&endpoints).await;
    assert!(!shown(&gateway, old).await && shown(&gateway, &new).await);
    // A connection of before goes on.
    let answer = open.ask(h2_post("/v1/completions", 2, true), b"{}").await;
    assert_eq!(answer.status(), 400);
    gateway.finish().await;
}

/// A listener that is no longer in the file runs on until a restart, and must not let its certificate expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_left_the_file_still_takes_a_new_certificate() {
    let engine = engine().await;
    let endpoints = format!("endpoints: [\"{}\"]", engine.authority());
    let gateway = Gateway::with_tls(&endpoints).await;
    let file = |name| gateway.directory().join(name);
    let without = format!("{endpoints}\nlisten: 127.0.0.1:0");
    for _ in 0..2 {
        let new = Certificate::new();
        std::fs::write(file("certificate.pem"), new.pem()).unwrap();
        std::fs::write(file("key.pem"), new.key_pem()).unwrap();
        gateway.reload(&without).await;
        assert!(shown(&gateway, &new).await);
    }
    std::fs::remove_file(file("key.pem")).unwrap();
    gateway.reload(&without).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_cannot_be_read_changes_nothing() {
    let engine = engine().await;
    let endpoints = format!("endpoints: [\"{}\"]", engine.authority());
    let gateway = Gateway::with_tls(&endpoints).await;
    std::fs::write(gateway.directory().join("key.pem"), "no key").unwrap();
    let refused = gateway
        .try_reload(&format!("{endpoints}\nexpose: all"))
        .await;
    assert!(refused.unwrap_err().contains("key.pem"));
    assert_eq!(
        gateway.ask(&get("/version")).await.status,
        404,
        "all or nothing"
    );
    assert!(shown(&gateway, &gateway.tls.as_ref().unwrap().1).await);
    let failed = gateway.metric("sluicegate_config_reloads_total{result=\"failure\"}");
    assert_eq!(
        (failed, gateway.metric("sluicegate_config_epoch")),
        (1.0, 1.0)
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_does_not_come_back_with_the_requests_it_still_had() {
    let engine = engine().await;
    let endpoints = format!("endpoints: [\"{}\"]", engine.authority());
    let first = format!(
        "{endpoints}\nmodels: {{ old: {{ upstream_model: DeepSeek-R1 }}, \"*\": {{}} }}\nkeys: \
         [{{ name: old, key: sk-old-0123456789abcdef }}, {{ name: last, key: sk-last-0123456789abcdef }}]"
    );
    let gateway = Gateway::start(&first).await;
    let request = |model: &str, key: &str| {
        let body = format!(
            "{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}]}}"
        );
        let key = format!("Authorization: Bearer sk-{key}-0123456789abcdef");
        post("/v1/chat/completions", body).field(&key)
    };
    assert_eq!(
        gateway.ask(&request("DeepSeek-R1", "last")).await.status,
        200
    );
    let shown = |what: &str| gateway.shared().metrics.render().contains(what);
    until("the key to be counted", || shown("key=\"last\"")).await;
    engine.hold();
    let mut client = Client::connect(gateway.address).await;
    client.send(request("old", "old").bytes()).await;
    engine.wait_for_arrivals(1).await;
    // Both are in the snapshot in between, and nobody uses them there.
    gateway.reload(&first).await;
    let second = format!("{endpoints}\nkeys: [{{ name: new, key: sk-new-0123456789abcdef }}]");
    gateway.reload(&second).await;
    until("the last key to be forgotten", || !shown("key=\"last\"")).await;
    engine.release();
    assert_eq!(client.answer().await.status, 200);
    gateway.quiet().await;
    assert!(!shown("\"old\""));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_and_pools_that_are_gone_are_shown_no_more_however_long_nobody_used_them() {
    for keeps_pool in [true, false] {
        let (mut old, new) = (Puppet::start().await, engine().await);
        let first = in_turn(&old.authority(), &new.authority(), "");
        let gateway = Gateway::start(&first).await;
        let mut client = Client::connect(gateway.address).await;
        client.send(chat(false).bytes()).await;
        old.next().await.answer_json("{}").await;
        assert_eq!(client.answer().await.status, 200);
        let endpoint = format!("endpoint=\"{}\"", old.authority());
        let gone = match keeps_pool {
            true => endpoint.as_str(),
            false => "pool=\"default\"",
        };
        let shown = |what: &str| gateway.shared().metrics.render().contains(what);
        let counted = || shown("sluicegate_requests_total{code=\"200\"");
        until("the request to be counted", counted).await;
        client.send(chat(false).bytes()).await;
        let exchange = old.next().await;
        // Nobody uses it in the snapshot in between.
        gateway.reload(&first).await;
        let name = if keeps_pool { "default" } else { "other" };
        let second = format!(
            "pools: {{ {name}: {{ endpoints: [\"{}\"] }} }}",
            new.authority()
        );
        gateway.reload(&second).await;
        until("the series to be forgotten", || !shown(gone)).await;
        // What it still had ends as nothing did before: passed on, or sent again elsewhere.
        let (answered, status) = if keeps_pool { (404, 404) } else { (500, 200) };
        let answer = format!("HTTP/1.1 {answered} X\r\ncontent-length: 2\r\n\r\n{{}}");
        exchange.answer(answer).await;
        assert_eq!(client.answer().await.status, status);
        gateway.quiet().await;
        assert!(!shown(gone), "{}", gateway.shared().metrics.render());
        gateway.finish().await;
    }
}
