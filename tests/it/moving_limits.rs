//! How often a request may move, and what the client gets when it may no more.

use crate::support::{
    Engine, EngineError, Fault, Gateway, Puppet, QueueFull, Script, Then, ask, chat, engine,
    engine_with, get, in_turn, pool,
};

async fn failing(status: u16) -> Engine {
    engine_with(Script {
        fault: Some(Fault::Status(status)),
        ..Script::default()
    })
    .await
}

fn urls(engines: &[Engine]) -> Vec<String> {
    engines
        .iter()
        .map(|engine| format!("\"{}\"", engine.authority()))
        .collect()
}

fn asked(engines: &[Engine]) -> usize {
    engines.iter().map(|engine| engine.inferences().len()).sum()
}

const EXHAUSTED: &str = "sluicegate_retry_budget_exhausted_total{pool=\"default\"}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_bound_the_tries_of_a_request() {
    let mut engines = Vec::new();
    for _ in 0..6 {
        engines.push(failing(500).await);
    }
    for (keys, tries) in [
        ("retries: 0", 1),
        ("retries: 1", 2),
        ("", 4),
        ("retries: 10", 6),
    ] {
        engines.iter().for_each(Engine::clear_requests);
        let gateway = Gateway::start(&pool(&urls(&engines), keys)).await;
        assert_eq!(gateway.ask(&chat(false)).await.status, 500, "{keys}");
        assert_eq!(asked(&engines), tries, "{keys}");
        assert!(
            engines.iter().all(|engine| engine.inferences().len() <= 1),
            "none is asked twice"
        );
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_answer_of_an_engine_is_passed_on_to_the_byte() {
    let (first, last) = (failing(500).await, failing(504).await);
    let gateway = Gateway::start(&in_turn(&first.authority(), &last.authority(), "")).await;
    let direct = ask(last.addr(), &chat(false)).await;
    for stream in [false, true] {
        let answer = gateway.ask(&chat(stream)).await;
        assert_eq!((answer.status, answer.text()), (504, direct.text()));
        assert_eq!(answer.field("content-type"), Some("application/json"));
        assert!(answer.keeps_alive());
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_failed_is_better_than_none() {
    let answering = failing(503).await;
    let mut refusing = Puppet::start().await;
    let gateway = Gateway::start(&in_turn(&answering.authority(), &refusing.authority(), "")).await;
    refusing.refuse().await;
    let answer = gateway.ask(&chat(false)).await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("currently busy"),
        "{}",
        answer.text()
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_event_that_is_the_last_word_becomes_a_proper_status() {
    for (error, status) in [
        (EngineError::CoreDead, 500),
        (EngineError::ShuttingDown, 500),
        (EngineError::Busy, 503),
    ] {
        let fault = Some(Fault::Error { after: 0, error });
        let engine = engine_with(Script {
            fault,
            ..Script::default()
        })
        .await;
        let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
        let answer = gateway.ask(&chat(true)).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.field("content-type"), Some("application/json"));
        assert_eq!(answer.json()["error"]["code"], status);
        assert!(answer.keeps_alive());
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_queues_everywhere_are_told_to_the_client() {
    for queue_full in [QueueFull::Status, QueueFull::Event] {
        let busy = Script {
            max_running: Some(0),
            max_queued: Some(0),
            queue_full,
            ..Script::default()
        };
        let engines = [engine_with(busy.clone()).await, engine_with(busy).await];
        let gateway = Gateway::start(&pool(&urls(&engines), "")).await;
        for stream in [false, true] {
            let answer = gateway.ask(&chat(stream)).await;
            assert_eq!(answer.status, 503);
            assert!(
                answer.text().contains("currently busy"),
                "{}",
                answer.text()
            );
        }
        assert_eq!((gateway.faults(0), gateway.faults(1)), (0, 0));
        assert_eq!((gateway.state(0), gateway.state(1)), ("up", "up"));
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_5xx_that_no_other_engine_disproves_is_nobodys_fault() {
    let engines = [failing(500).await, failing(500).await];
    let gateway = Gateway::start(&pool(&urls(&engines), "")).await;
    for _ in 0..5 {
        assert_eq!(gateway.ask(&chat(false)).await.status, 500);
    }
    assert_eq!((gateway.state(0), gateway.state(1)), ("up", "up"));
    assert_eq!(asked(&engines), 10);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_loses_every_connection_is_a_502() {
    let reset = Puppet::answering("", Then::Reset).await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", reset.authority())).await;
    for stream in [false, true] {
        let answer = gateway.ask(&chat(stream)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (502, "upstream_failed")
        );
        assert!(!answer.text().contains("127.0.0.1"), "no address is shown");
        assert!(answer.keeps_alive());
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spent_budget_ends_retries_but_not_requests() {
    let engines = [failing(500).await, engine().await];
    let keys = "retry_budget: { ratio: 0, min_per_second: 0 }";
    let gateway = Gateway::start(&in_turn(
        &engines[0].authority(),
        &engines[1].authority(),
        keys,
    ))
    .await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 500);
    assert_eq!(
        (engines[1].completed(), gateway.metric(EXHAUSTED)),
        (0, 1.0)
    );
    // Another try after a refused connect repeats nothing and costs nothing.
    engines[0].stop().await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_pay_for_retries() {
    let engines = [failing(500).await, engine().await];
    let keys = "retry_budget: { ratio: 0.5, min_per_second: 0 }, health: { eject_after: 1000 }";
    let gateway = Gateway::start(&in_turn(
        &engines[0].authority(),
        &engines[1].authority(),
        keys,
    ))
    .await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(gateway.ask(&chat(false)).await.status);
    }
    assert_eq!(statuses, [500, 200, 500, 200, 500, 200, 500, 200]);
    assert_eq!(gateway.metric(EXHAUSTED), 4.0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_is_moved_as_well() {
    let (lost, good) = (Puppet::answering("", Then::Reset).await, engine().await);
    let yaml = in_turn(&lost.authority(), &good.authority(), "");
    let gateway = Gateway::start(&format!("{yaml}\nexpose: [GET /version]")).await;
    let answer = gateway.ask(&get("/version")).await;
    assert_eq!((answer.status, lost.requests().len()), (200, 1));
    assert!(answer.json()["version"].is_string());
    gateway.finish().await;
}
