//! Upstream connections are used again, for as long and as many as configured.

use std::time::Duration;

use crate::support::{
    Client, Engine, Fault, Gateway, Puppet, Script, Then, chat, engine, engine_with, get, pool,
    until,
};

/// No probe and no question but the first, and no connection that is kept to see whether it is there, so that
/// connections can be counted.
async fn counted(engine: &Engine, more: &str) -> Gateway {
    let keys = "engine: openai, health: { interval: 1h }";
    let pool = pool(&[format!("\"{}\"", engine.authority())], keys);
    Gateway::start(&format!("{pool}\n{more}")).await
}

fn used(engine: &Engine) -> u64 {
    engine.accepts() - 2
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_carries_all_that_comes_in_turn() {
    let engine = engine().await;
    let gateway = counted(&engine, "expose: [GET /version]").await;
    let mut client = Client::connect(gateway.address).await;
    for n in 0..50 {
        assert_eq!(client.ask(&chat(n % 3 == 0)).await.status, 200);
        assert_eq!(client.ask(&get("/version")).await.status, 200);
    }
    assert_eq!(used(&engine), 1);
    let series = |state| {
        let endpoint = engine.authority();
        format!(
            "sluicegate_upstream_connections_total{{endpoint=\"{endpoint}\",pool=\"default\",state=\"{state}\"}}"
        )
    };
    gateway.wait_for_metric(&series("new"), 1.0).await;
    gateway.wait_for_metric(&series("reused"), 99.0).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_every_worker_share_the_connections() {
    let engine = engine().await;
    let gateway = counted(&engine, "").await;
    for _ in 0..30 {
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
        gateway.quiet().await;
    }
    assert_eq!(used(&engine), 1);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_idle_for_too_long_is_not_used_again() {
    let engine = engine().await;
    let gateway = counted(&engine, "keepalive: { idle: 50ms }").await;
    let mut client = Client::connect(gateway.address).await;
    for expected in 1..=3 {
        assert_eq!(client.ask(&chat(false)).await.status, 200);
        assert_eq!(client.ask(&chat(false)).await.status, 200);
        assert_eq!(used(&engine), expected);
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    // And it is closed without a request to find it out.
    until("idle connections to be swept", || engine.connections() == 0).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_cap_are_closed() {
    for (cap, left) in [(0, 0), (2, 2)] {
        let engine = engine().await;
        engine.hold();
        let gateway = counted(&engine, &format!("keepalive: {{ connections: {cap} }}")).await;
        let mut clients = Vec::new();
        for _ in 0..5 {
            let mut client = Client::connect(gateway.address).await;
            client.send(chat(false).bytes()).await;
            clients.push(client);
        }
        engine.wait_for_arrivals(5).await;
        assert_eq!(used(&engine), 5);
        engine.release();
        for mut client in clients {
            assert_eq!(client.answer().await.status, 200);
        }
        gateway.quiet().await;
        until("the rest to be closed", || engine.connections() == left).await;
        assert_eq!(gateway.endpoint(0).idle.len(), left);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_says_close_is_believed() {
    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let puppet = Puppet::answering(answer, Then::Keep).await;
    let yaml = format!("endpoints: [\"{}\"]\nexpose: [/thing]", puppet.authority());
    let gateway = Gateway::start(&yaml).await;
    let mut client = Client::connect(gateway.address).await;
    for _ in 0..3 {
        let answer = client.ask(&get("/thing")).await;
        assert!(answer.keeps_alive(), "that is between the engine and us");
    }
    assert_eq!(puppet.accepts() - puppet.probes(), 3);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_small_pieces_leaves_a_good_connection() {
    for size in [1, 3, 100] {
        let fault = Some(Fault::Split { size });
        let engine = engine_with(Script {
            fault,
            tokens: 4,
            ..Script::default()
        })
        .await;
        let gateway = counted(&engine, "").await;
        let mut client = Client::connect(gateway.address).await;
        for stream in [true, false, true] {
            let answer = client.ask(&chat(stream)).await;
            assert!(answer.status == 200 && answer.keeps_alive());
        }
        assert_eq!(used(&engine), 1, "{size}");
        gateway.finish().await;
    }
}
