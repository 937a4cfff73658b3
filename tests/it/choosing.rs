//! Which endpoint a request goes to. Engines are held, so that every count is exact.

use crate::support::{Answer, Client, Engine, Gateway, Request, chat, engine, get, pool, until};

/// Requests in the air, each on a connection of its own.
struct Air<'a> {
    gateway: &'a Gateway,
    clients: Vec<Client>,
}

impl<'a> Air<'a> {
    fn new(gateway: &'a Gateway) -> Self {
        Self {
            gateway,
            clients: Vec::new(),
        }
    }

    /// Sends one more and waits until an engine has it.
    async fn send(&mut self, engines: &[Engine]) {
        let before: usize = engines.iter().map(Engine::in_flight).sum();
        let mut client = Client::connect(self.gateway.address).await;
        client.send(chat(false).bytes()).await;
        self.clients.push(client);
        until("an arrival", || {
            engines.iter().map(Engine::in_flight).sum::<usize>() > before
        })
        .await;
    }

    async fn land(self, engines: &[Engine]) -> Vec<Answer> {
        for engine in engines {
            engine.release();
        }
        let mut answers = Vec::new();
        for mut client in self.clients {
            answers.push(client.answer().await);
        }
        answers
    }
}

async fn held(count: usize) -> Vec<Engine> {
    let mut engines = Vec::new();
    for _ in 0..count {
        let engine = engine().await;
        engine.hold();
        engines.push(engine);
    }
    engines
}

fn urls(engines: &[Engine]) -> Vec<String> {
    engines
        .iter()
        .map(|engine| format!("\"{}\"", engine.authority()))
        .collect()
}

fn counts(engines: &[Engine]) -> Vec<usize> {
    engines.iter().map(Engine::in_flight).collect()
}

fn with(engine: &Engine, keys: &str) -> String {
    format!("{{ url: \"{}\", {keys} }}", engine.authority())
}

async fn ask_in_turn(gateway: &Gateway, engines: &[Engine], requests: usize) -> Vec<usize> {
    let mut turns = Vec::new();
    for _ in 0..requests {
        let before: Vec<_> = engines.iter().map(Engine::completed).collect();
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
        for engine in engines {
            engine.settled().await;
        }
        let answered = engines
            .iter()
            .zip(before)
            .position(|(engine, n)| engine.completed() > n);
        turns.push(answered.unwrap());
    }
    turns
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn least_inflight_keeps_counts_level() {
    let engines = held(3).await;
    let gateway = Gateway::start(&pool(&urls(&engines), "")).await;
    let mut air = Air::new(&gateway);
    for round in 1..=4 {
        for _ in 0..3 {
            air.send(&engines).await;
        }
        assert_eq!(counts(&engines), [round; 3]);
        for index in 0..3 {
            assert_eq!(gateway.endpoint(index).in_flight() as usize, round);
        }
    }
    assert!(
        air.land(&engines)
            .await
            .iter()
            .all(|answer| answer.status == 200)
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn least_inflight_goes_where_a_request_has_just_ended() {
    let engines = held(2).await;
    let gateway = Gateway::start(&pool(&urls(&engines), "")).await;
    let mut air = Air::new(&gateway);
    for _ in 0..6 {
        air.send(&engines).await;
    }
    engines[1].release();
    until("the second to be idle", || {
        gateway.endpoint(1).in_flight() == 0 && engines[1].in_flight() == 0
    })
    .await;
    engines[1].hold();
    for free in 1..=3 {
        air.send(&engines).await;
        assert_eq!(counts(&engines), [3, free]);
    }
    assert_eq!(air.land(&engines).await.len(), 9);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn least_inflight_breaks_ties_for_nobody() {
    let engines = [engine().await, engine().await];
    let gateway = Gateway::start(&pool(&urls(&engines), "")).await;
    let turns = ask_in_turn(&gateway, &engines, 64).await;
    let first = turns.iter().filter(|turn| **turn == 0).count();
    // All on one side comes once in 2^63.
    assert!((1..64).contains(&first), "{first} of 64");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_share_out_what_is_in_flight() {
    let engines = held(2).await;
    let endpoints = [
        with(&engines[0], "weight: 3"),
        with(&engines[1], "weight: 1"),
    ];
    let gateway = Gateway::start(&pool(&endpoints, "")).await;
    let mut air = Air::new(&gateway);
    for round in 1..=3 {
        for _ in 0..4 {
            air.send(&engines).await;
        }
        assert_eq!(counts(&engines), [3 * round, round]);
    }
    air.land(&engines).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_waits_until_no_other_is_left() {
    let engines = held(2).await;
    let endpoints = [
        with(&engines[0], "max_in_flight: 2"),
        with(&engines[1], "backup: true"),
    ];
    let gateway = Gateway::start(&pool(&endpoints, "")).await;
    let mut air = Air::new(&gateway);
    for expected in [[1, 0], [2, 0], [2, 1], [2, 2]] {
        air.send(&engines).await;
        assert_eq!(counts(&engines), expected);
    }
    air.land(&engines).await;
    engines[0].stop().await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    assert_eq!(engines[1].settled().await.completed(), 3);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_at_their_cap_without_a_queue_is_overloaded_at_once() {
    for policy in ["least_inflight", "round_robin"] {
        let engines = held(2).await;
        let endpoints = [
            urls(&engines)[0].clone(),
            with(&engines[1], "max_in_flight: 1"),
        ];
        let keys = format!("max_in_flight: 2, queue: null, policy: {policy}");
        let gateway = Gateway::start(&pool(&endpoints, &keys)).await;
        let mut air = Air::new(&gateway);
        for _ in 0..3 {
            air.send(&engines).await;
        }
        assert_eq!(counts(&engines), [2, 1]);
        let answer = gateway.ask(&chat(false)).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
        assert_eq!(answer.field("retry-after"), Some("1"));
        assert!(answer.keeps_alive());
        gateway
            .wait_for_metric("sluicegate_refused_total{reason=\"overloaded\"}", 1.0)
            .await;
        assert!(
            air.land(&engines)
                .await
                .iter()
                .all(|answer| answer.status == 200)
        );
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_robin_takes_turns() {
    let engines = [engine().await, engine().await, engine().await];
    let gateway = Gateway::start(&pool(&urls(&engines), "policy: round_robin")).await;
    let turns = ask_in_turn(&gateway, &engines, 9).await;
    for three in turns.windows(3) {
        let mut three = three.to_vec();
        three.sort_unstable();
        assert_eq!(three, [0, 1, 2], "{turns:?}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_robin_is_smooth_by_weight() {
    let engines = [engine().await, engine().await];
    let endpoints = [with(&engines[0], "weight: 3"), urls(&engines)[1].clone()];
    let gateway = Gateway::start(&pool(&endpoints, "policy: round_robin")).await;
    let turns = ask_in_turn(&gateway, &engines, 16).await;
    for four in turns.windows(4) {
        assert_eq!(
            four.iter().filter(|turn| **turn == 1).count(),
            1,
            "{turns:?}"
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_in_two_pools_or_reloaded_keeps_its_count() {
    let engines = held(2).await;
    let gateway = Gateway::start(&pool(&urls(&engines)[..1], "")).await;
    let mut air = Air::new(&gateway);
    for _ in 0..3 {
        air.send(&engines).await;
    }
    gateway.reload(&pool(&urls(&engines), "")).await;
    for added in 1..=3 {
        air.send(&engines).await;
        assert_eq!(counts(&engines), [3, added]);
    }
    // The old one leaves the configuration with three requests in hand, and comes back with them.
    gateway.reload(&pool(&urls(&engines)[1..], "")).await;
    air.send(&engines).await;
    assert_eq!(counts(&engines), [3, 4]);
    gateway.reload(&pool(&urls(&engines), "")).await;
    air.send(&engines).await;
    assert_eq!(counts(&engines), [4, 4]);
    assert!(
        air.land(&engines)
            .await
            .iter()
            .all(|answer| answer.status == 200)
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_calls_are_counted_and_spread_as_well() {
    let engines = [engine().await, engine().await];
    let yaml = pool(&urls(&engines), "policy: round_robin");
    let gateway = Gateway::start(&format!("{yaml}\nexpose: [GET /version]")).await;
    let version: Request = get("/version");
    for _ in 0..4 {
        assert_eq!(gateway.ask(&version).await.status, 200);
    }
    for engine in &engines {
        let asked = engine
            .requests()
            .iter()
            .filter(|r| r.target == "/version")
            .count();
        assert_eq!(asked, 2);
    }
    gateway.finish().await;
}
