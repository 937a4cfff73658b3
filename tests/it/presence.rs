//! Engines that go without a word, and are found within a second although nobody asks them anything.

use std::time::{Duration, Instant};

use crate::support::{
    Client, Death, Engine, Gateway, Puppet, Script, chat, engine, engine_with, in_turn, sse_head,
    until,
};

/// The probes find nothing in time.
const SELDOM: &str = "health: { interval: 1h }";
const SOON: Duration = Duration::from_secs(1);

async fn known(gateway: &Gateway, engines: &[&Engine]) {
    for (index, engine) in engines.iter().enumerate() {
        until("the engine to be known, and watched", || {
            gateway.endpoint(index).engine().is_some() && engine.connections() > 0
        })
        .await;
    }
}

/// Two slow engines that the gateway knows, and a client whose stream has begun on the first.
async fn streaming() -> (Gateway, [Engine; 2], Client) {
    let slow = || Script {
        itl: Duration::from_millis(10),
        tokens: 100,
        ..Script::default()
    };
    let engines = [engine_with(slow()).await, engine_with(slow()).await];
    let [node, other] = &engines;
    let gateway = Gateway::start(&in_turn(&node.authority(), &other.authority(), SELDOM)).await;
    known(&gateway, &[node, other]).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    assert_eq!(client.head().await.status, 200);
    client.body_until("delta").await;
    (gateway, engines, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_dies_while_it_has_nothing_to_do_is_out_at_once() {
    for death in [Death::Close, Death::Reset, Death::Freeze] {
        let (node, other) = (engine().await, engine().await);
        let gateway = Gateway::start(&in_turn(&node.authority(), &other.authority(), SELDOM)).await;
        known(&gateway, &[&node, &other]).await;
        let killed = Instant::now();
        node.kill(death).await;
        gateway.wait_for_state(0, &["down"]).await;
        assert!(killed.elapsed() < SOON, "{death:?} {:?}", killed.elapsed());
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
        assert_eq!(gateway.retries("connect_refused"), 0.0);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_stream_goes_on_though_no_request_comes() {
    let (gateway, [node, _other], mut client) = streaming().await;
    let killed = Instant::now();
    node.kill(Death::Freeze).await;
    gateway.wait_for_state(0, &["down"]).await;
    assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
    let (body, _) = client.rest().await;
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    gateway.finish().await;
}

/// Of one that is kept no connection the silence itself is the sign.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_asked_whether_anybody_is_there() {
    let (mut node, other) = (Puppet::start().await, engine().await);
    let yaml = in_turn(&node.authority(), &other.authority(), SELDOM);
    let gateway = Gateway::start(&yaml).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    let mut exchange = node.next().await;
    exchange.write(sse_head()).await;
    // Busy, however long, is not gone.
    tokio::time::sleep(SOON + SOON / 2).await;
    assert_eq!((gateway.state(0), gateway.faults(0)), ("up", 0));
    let killed = Instant::now();
    node.refuse().await;
    gateway.wait_for_state(0, &["down"]).await;
    assert!(killed.elapsed() < SOON + SOON / 2, "{:?}", killed.elapsed());
    let answer = client.answer().await;
    assert!(answer.text().ends_with("data: [DONE]\n\n"));
    drop(exchange);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_has_left_the_file_is_watched_until_its_last_stream_ends() {
    let (gateway, [node, other], mut client) = streaming().await;
    let other = other.authority();
    let yaml = format!("pools: {{ default: {{ endpoints: [\"{other}\"], {SELDOM} }} }}");
    gateway.reload(&yaml).await;
    node.kill(Death::Freeze).await;
    let (body, _) = client.rest().await;
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    until("the node to be forgotten", || {
        gateway.shared().snapshot.load().all_endpoints().count() == 1
    })
    .await;
    gateway.finish().await;
}
