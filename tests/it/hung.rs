//! Engines that accept requests and answer their health check while nothing comes of it; and how one that was out
//! proves that it serves again.

use std::time::{Duration, Instant};

use sluicegate::pool::State;

use crate::support::{
    Client, Engine, Flavour, Gateway, Puppet, Script, chat, engine, engine_with, get, in_turn,
    pool, until,
};

const STALL: Duration = Duration::from_secs(2);
/// Probes are no help: `/health` of a hung engine answers 200.
const HEALTH: &str = "health: { interval: 50ms, timeout: 500ms, eject_for: 500ms, stall: 2s }";

/// An engine that goes on for as long as any of these tests takes.
fn endless() -> Script {
    Script {
        tokens: 100_000,
        itl: Duration::from_millis(5),
        ..Script::default()
    }
}

/// The requests that are the gateway's own.
fn canaries(engine: &Engine) -> usize {
    let inferences = engine.inferences();
    let own = |agent: Option<&str>| agent == Some("sluicegate");
    let canaries = (inferences.iter()).filter(|request| own(request.header("user-agent")));
    canaries.count()
}

async fn begun(gateway: &Gateway) -> Client {
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    assert_eq!(client.head().await.status, 200);
    client.body_until("delta").await;
    client
}

async fn assert_found(script: Script) {
    let (hung, other) = (engine_with(script.clone()).await, engine().await);
    let gateway = Gateway::start(&in_turn(&hung.authority(), &other.authority(), HEALTH)).await;
    until("the engine to be known", || {
        gateway.endpoint(0).engine().is_some()
    })
    .await;
    let mut started = begun(&gateway).await;
    hung.freeze();
    let frozen = Instant::now();
    // It gets its head at once, as every stream of vLLM does, and no event.
    let address = gateway.address;
    let unstarted = tokio::spawn(async move { crate::support::ask(address, &chat(true)).await });
    gateway.wait_for_state(0, &["ejected"]).await;
    let took = frozen.elapsed();
    assert!(took >= STALL && took <= 2 * STALL, "{took:?}");
    let series = format!(
        "sluicegate_ejections_total{{endpoint=\"{}\",pool=\"default\",reason=\"hung\"}}",
        hung.authority()
    );
    assert_eq!(gateway.metric(&series), 1.0);
    assert_eq!(canaries(&hung), 1);
    let unstarted = unstarted.await.unwrap();
    assert_eq!(unstarted.status, 200);
    assert!(unstarted.text().ends_with("data: [DONE]\n\n"));
    // Whether it is cut or goes on elsewhere: it does not wait.
    started.rest().await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    hung.release();
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_engine_is_ejected_and_its_requests_move_on() {
    assert_found(endless()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comments_are_no_progress() {
    assert_found(Script {
        comments: Some(Duration::from_millis(50)),
        ..endless()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sglang_is_found_too() {
    assert_found(Script {
        flavour: Flavour::Sglang,
        ..endless()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_goes_on_with_others_does_not_hang() {
    let (busy, other) = (engine_with(endless()).await, engine().await);
    let health = "health: { interval: 50ms, stall: 200ms }";
    let gateway = Gateway::start(&in_turn(&busy.authority(), &other.authority(), health)).await;
    until("the engine to be known", || {
        gateway.endpoint(0).engine().is_some()
    })
    .await;
    let flowing = begun(&gateway).await;
    busy.hold();
    // Its prompt takes long.
    let mut waiting = Client::connect(gateway.address).await;
    waiting.send(chat(true).bytes()).await;
    busy.wait_for_arrivals(1).await;
    assert!(waiting.is_silent_for(Duration::from_secs(1)).await);
    assert_eq!((gateway.state(0), canaries(&busy)), ("up", 0));
    busy.release();
    assert_eq!(waiting.head().await.status, 200);
    drop((flowing, waiting));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_endpoint_stays_and_goes_on_when_it_can() {
    let alone = engine_with(Script {
        tokens: 200,
        itl: Duration::from_millis(1),
        ..Script::default()
    })
    .await;
    let health = "health: { interval: 50ms, stall: 200ms }";
    let gateway = Gateway::start(&pool(&[format!("\"{}\"", alone.authority())], health)).await;
    until("the engine to be known", || {
        gateway.endpoint(0).engine().is_some()
    })
    .await;
    let mut client = begun(&gateway).await;
    alone.freeze();
    until("canaries", || canaries(&alone) >= 3).await;
    assert_eq!(gateway.state(0), "up");
    alone.release();
    let (rest, _) = client.rest().await;
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_is_let_back_in_when_it_answers_a_canary() {
    let (node, other) = (engine_with(endless()).await, engine().await);
    let gateway = Gateway::start(&in_turn(&node.authority(), &other.authority(), HEALTH)).await;
    until("the engine to be known", || {
        gateway.endpoint(0).engine().is_some()
    })
    .await;
    let mut started = begun(&gateway).await;
    node.freeze();
    gateway.wait_for_state(0, &["ejected"]).await;
    started.rest().await;
    // Its probes are good all the while.
    gateway.wait_for_state(0, &["down"]).await;
    let reason = gateway
        .endpoint(0)
        .status(tokio::time::Instant::now())
        .reason;
    assert_eq!(reason.map(|reason| reason.as_str()), Some("probe_canary"));
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    node.release();
    gateway.wait_for_state(0, &["up", "ramping"]).await;
    node.clear_requests();
    drop(begun(&gateway).await);
    assert_eq!((node.inferences().len(), canaries(&node)), (1, 0));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_without_completions_is_let_back_in() {
    let vectors = Script {
        embeddings: Some(8),
        ..Script::default()
    };
    let (node, other) = (engine_with(vectors).await, engine().await);
    let gateway = Gateway::start(&in_turn(&node.authority(), &other.authority(), HEALTH)).await;
    until("the engine to be known", || {
        gateway.endpoint(0).engine().is_some()
    })
    .await;
    node.stop().await;
    gateway.wait_for_state(0, &["down"]).await;
    node.clear_requests();
    node.restart().await.unwrap();
    gateway.wait_for_state(0, &["up", "ramping"]).await;
    let posts = |request: &crate::support::Recorded| request.method == "POST";
    let posts: Vec<_> = node.requests().into_iter().filter(posts).collect();
    let targets: Vec<_> = posts.iter().map(|request| &*request.target).collect();
    assert_eq!(targets, ["/v1/completions"]);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_others_keep_busy_is_let_back_in() {
    let (node, other) = (
        engine_with(Script {
            max_running: Some(1),
            ..endless()
        })
        .await,
        engine().await,
    );
    let health = "health: { interval: 50ms, stall: 400ms, eject_after: 1, eject_for: 100ms }";
    let gateway = Gateway::start(&in_turn(&node.authority(), &other.authority(), health)).await;
    until("the engine to be known", || {
        gateway.endpoint(0).engine().is_some()
    })
    .await;
    let mut others = Client::connect(node.addr()).await;
    others.send(chat(true).bytes()).await;
    assert_eq!(others.head().await.status, 200);
    node.fail_next(1, crate::support::Fault::Status(500));
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    assert_eq!(gateway.state(0), "ejected");
    gateway.wait_for_state(0, &["up", "ramping"]).await;
    drop(others);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_asked_of_what_is_no_vllm_and_no_sglang() {
    let mut node = Puppet::start().await;
    node.serve(r#"{"data":[{"id":"gpt","owned_by":"somebody"}]}"#);
    let other = engine().await;
    let health = "health: { interval: 20ms, stall: 100ms, eject_after: 1, eject_for: 100ms }";
    let gateway = Gateway::start(&in_turn(&node.authority(), &other.authority(), health)).await;
    until("the engine to be known", || {
        gateway.endpoint(0).engine().is_some()
    })
    .await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(false).bytes()).await;
    let held = node.next().await;
    assert!(client.is_silent_for(Duration::from_millis(500)).await);
    assert_eq!(gateway.state(0), "up");
    held.reset();
    assert_eq!(client.answer().await.status, 200);
    gateway.wait_for_state(0, &["up", "ramping"]).await;
    assert_eq!(node.requests().len(), 1);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_say_how_loaded_they_are() {
    let script = Script {
        flavour: Flavour::Sglang,
        ..endless()
    };
    let (vllm, sglang) = (engine_with(endless()).await, engine_with(script).await);
    let endpoints = [&vllm, &sglang].map(|engine| format!("\"{}\"", engine.authority()));
    let keys = "policy: round_robin, health: { stall: 200ms }";
    let gateway = Gateway::start(&pool(&endpoints, keys)).await;
    let clients = [begun(&gateway).await, begun(&gateway).await];
    let loads = || [0, 1].map(|index| gateway.endpoint(index).report.get());
    until("both to have said it", || {
        loads()
            .iter()
            .flatten()
            .filter(|report| report.load.running == Some(1))
            .count()
            == 2
    })
    .await;
    let shown = crate::support::ask(gateway.admin, &get("/endpoints")).await;
    for endpoint in shown.json().as_array().unwrap() {
        let load = &endpoint["load"];
        assert_eq!((&load["running"], &load["waiting"]), (&1.into(), &0.into()));
        assert!(load["generation_tokens"].as_u64().unwrap() > 0, "{load}");
        assert!(load["prompt_tokens"].as_u64().unwrap() > 0, "{load}");
        assert!(load["age_ms"].as_u64().unwrap() < 5000, "{load}");
    }
    drop(clients);
    until("both to be idle", || {
        loads()
            .iter()
            .flatten()
            .filter(|report| report.load.running == Some(0))
            .count()
            == 2
    })
    .await;
    let states = [0, 1].map(|index| {
        gateway
            .endpoint(index)
            .status(tokio::time::Instant::now())
            .state
    });
    assert_eq!(states, [State::Up; 2]);
    gateway.finish().await;
}
