//! A request that kills the engines it is sent to reaches two of them and no third.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use sluicegate::pool::ProbeFailure;
use tokio::task::JoinHandle;

use crate::support::{
    Answer, Client, Engine, Exchange, Gateway, Puppet, Request, Script, Then, chat, chat_body,
    engine_with, get, in_turn, pool, post, until,
};

const SUSPECTS: &str = "sluicegate_suspects_total{pool=\"default\"}";
const ONE: &str = r#"{"choices":[{"index":0,"message":{"content":"a"}}]}"#;

fn poison(stream: bool) -> Request {
    let body = chat_body(stream).replace("Say something.", "poison");
    post("/v1/chat/completions", body)
}

fn assert_condemned(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (502, "upstream_failed")
    );
    assert_eq!(answer.field("x-should-retry"), Some("false"));
    assert!(answer.text().contains("died"), "{}", answer.text());
}

/// An engine whose process dies as soon as it has the poison, and answers all else.
struct Mortal {
    authority: String,
    /// How often it got the poison.
    killed: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Mortal {
    async fn start() -> Self {
        let mut puppet = Puppet::start().await;
        let (authority, killed) = (puppet.authority(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&killed);
        let task = tokio::spawn(async move {
            loop {
                let exchange = puppet.next().await;
                let (_, body) = puppet.requests().pop().unwrap();
                if memchr::memmem::find(&body, b"poison").is_none() {
                    exchange.answer_json(ONE).await;
                    continue;
                }
                count.fetch_add(1, Relaxed);
                puppet.refuse().await;
                exchange.reset();
            }
        });
        Self {
            authority,
            killed,
            task,
        }
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn mortals(count: usize) -> Vec<Mortal> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(Mortal::start().await);
    }
    all
}

fn urls(mortals: &[Mortal]) -> Vec<String> {
    let each = mortals.iter().map(|one| format!("\"{}\"", one.authority));
    each.collect()
}

fn killed(mortals: &[Mortal]) -> usize {
    mortals.iter().map(|one| one.killed.load(Relaxed)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_third_engine_lives() {
    for stream in [false, true] {
        let mortals = mortals(3).await;
        let gateway = Gateway::start(&pool(&urls(&mortals), "policy: round_robin")).await;
        // On fresh connections, and on ones that were kept.
        for _ in 0..if stream { 6 } else { 0 } {
            assert_eq!(gateway.ask(&chat(false)).await.status, 200);
        }
        assert_condemned(&gateway.ask(&poison(stream)).await);
        assert_eq!(killed(&mortals), 2);
        gateway.wait_for_metric(SUSPECTS, 1.0).await;
        // It is known again, and nothing else is refused.
        assert_condemned(&gateway.ask(&poison(stream)).await);
        assert_eq!(killed(&mortals), 2);
        assert_eq!(gateway.metric(SUSPECTS), 1.0);
        gateway
            .wait_for_metric("sluicegate_refused_total{reason=\"upstream_failed\"}", 1.0)
            .await;
        assert_eq!(gateway.ask(&chat(false)).await.status, 200);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_tries_again_is_the_same_request() {
    let mortals = mortals(3).await;
    let gateway = Gateway::start(&pool(&urls(&mortals), "retries: 0")).await;
    let first = gateway.ask(&poison(false)).await;
    assert_eq!((first.status, first.field("x-should-retry")), (502, None));
    assert_condemned(&gateway.ask(&poison(false)).await);
    assert_condemned(&gateway.ask(&poison(false)).await);
    assert_eq!(killed(&mortals), 2);
    gateway.finish().await;
}

/// What is asked every few seconds is in flight whenever an engine is taken down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_engine_has_answered_since_killed_none() {
    let quick = Script {
        tokens: 2,
        ..Script::default()
    };
    let (mortals, immortal) = (mortals(2).await, engine_with(quick).await);
    let [first, second] = [&mortals[0], &mortals[1]].map(|one| format!("\"{}\"", one.authority));
    let urls = [first, format!("\"{}\"", immortal.authority()), second];
    let gateway = Gateway::start(&pool(&urls, "policy: round_robin")).await;
    for _ in 0..4 {
        assert_eq!(gateway.ask(&poison(false)).await.status, 200);
    }
    assert_eq!(killed(&mortals), 2);
    assert_eq!(gateway.metric(SUSPECTS), 0.0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn engines_that_lose_a_connection_and_live_are_nobodys_victims() {
    let mut puppets = [
        Puppet::start().await,
        Puppet::start().await,
        Puppet::start().await,
    ];
    let urls = puppets
        .each_ref()
        .map(|one| format!("\"{}\"", one.authority()));
    let gateway = Gateway::start(&pool(&urls, "policy: round_robin")).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(poison(false).bytes()).await;
    for _ in 0..2 {
        // A dead process refuses connects; this one takes them.
        next_of(&mut puppets).await.reset();
    }
    next_of(&mut puppets).await.answer_json(ONE).await;
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(gateway.metric(SUSPECTS), 0.0);
    gateway.finish().await;
}

async fn next_of(puppets: &mut [Puppet; 3]) -> Exchange {
    let [a, b, c] = puppets;
    tokio::select! {
        exchange = a.next() => exchange,
        exchange = b.next() => exchange,
        exchange = c.next() => exchange,
    }
}

/// Clients of which each has sent one of these.
async fn waiting(gateway: &Gateway, requests: [Request; 2]) -> Vec<Client> {
    let mut clients = Vec::new();
    for request in requests {
        let mut client = Client::connect(gateway.address).await;
        client.send(request.bytes()).await;
        clients.push(client);
    }
    clients
}

/// They are told that it failed, and may ask again.
async fn nobody_is_suspect(gateway: Gateway, mut clients: Vec<Client>) {
    for client in &mut clients {
        let answer = client.answer().await;
        assert!(answer.status >= 500, "{}", answer.status);
        assert_eq!(answer.field("x-should-retry"), None);
    }
    assert_eq!(gateway.metric(SUSPECTS), 0.0);
    gateway.finish().await;
}

/// Two requests wait at each engine that dies: nobody knows of which it did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_not_alone_is_not_suspect() {
    let engines = [start().await, start().await];
    for engine in &engines {
        engine.hold();
    }
    let [first, second] = engines.each_ref().map(Engine::authority);
    let gateway = Gateway::start(&in_turn(&first, &second, "")).await;
    let clients = waiting(&gateway, [poison(false), poison(false)]).await;
    for engine in &engines {
        until("both to be there", || engine.in_flight() == 2).await;
        engine.stop().await;
    }
    nobody_is_suspect(gateway, clients).await;
}

/// Nor where the other is a request without a body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_a_body_waits_for_its_answer_too() {
    let mut puppets = [Puppet::start().await, Puppet::start().await];
    let [first, second] = puppets.each_ref().map(Puppet::authority);
    let yaml = in_turn(&first, &second, "");
    let gateway = Gateway::start(&format!("{yaml}\nexpose: [GET /own]")).await;
    let clients = waiting(&gateway, [get("/own"), poison(false)]).await;
    for puppet in &mut puppets {
        let exchanges = [puppet.next().await, puppet.next().await];
        puppet.refuse().await;
        for exchange in exchanges {
            exchange.reset();
        }
    }
    nobody_is_suspect(gateway, clients).await;
}

/// And it is known by no body: what it has killed is not held against others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_body_the_third_engine_lives_and_others_are_not_refused() {
    let mut puppets = [Puppet::start().await, Puppet::start().await];
    let well = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let third = Puppet::answering(well, Then::Keep).await;
    let [one, two] = puppets
        .each_ref()
        .map(|one| format!("\"{}\"", one.authority()));
    let last = format!("{{ url: \"{}\", backup: true }}", third.authority());
    let yaml = pool(&[one, two, last], "policy: round_robin");
    let gateway = Gateway::start(&format!("{yaml}\nexpose: [GET /own]")).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(get("/own").bytes()).await;
    let mut dead = None;
    for _ in 0..2 {
        let [a, b] = &mut puppets;
        let (exchange, index) = tokio::select! {
            exchange = a.next(), if dead != Some(0) => (exchange, 0),
            exchange = b.next(), if dead != Some(1) => (exchange, 1),
        };
        dead = Some(index);
        puppets[index].refuse().await;
        exchange.reset();
    }
    assert_condemned(&client.answer().await);
    assert_eq!(third.requests().len(), 0);
    assert_eq!(gateway.ask(&get("/own")).await.status, 200);
    gateway.finish().await;
}

async fn start() -> Engine {
    let script = Script {
        ttft: Duration::from_millis(30),
        itl: Duration::from_millis(10),
        tokens: 150,
        record: 64,
        record_body: 4096,
        ..Script::default()
    };
    engine_with(script).await
}

fn has_poison(engine: &Engine) -> bool {
    let mut asked = engine.inferences().into_iter();
    asked.any(|one| memchr::memmem::find(&one.body.unwrap_or_default(), b"poison").is_some())
}

/// However many streams are open where the poison comes, and whichever connection is lost first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_go_on_where_the_poison_does_not_come() {
    let engines = Arc::new([start().await, start().await, start().await]);
    let urls = engines
        .each_ref()
        .map(|one| format!("\"{}\"", one.authority()));
    let gateway = Gateway::start(&pool(&urls, "")).await;
    let mut streams = Vec::new();
    for _ in 0..6 {
        let mut client = Client::connect(gateway.address).await;
        client.send(chat(true).bytes()).await;
        client.head().await;
        client.piece().await.unwrap();
        streams.push(client);
    }
    let killers: Vec<_> = (0..3)
        .map(|index| {
            let engines = Arc::clone(&engines);
            tokio::spawn(async move {
                until("the poison", || has_poison(&engines[index])).await;
                engines[index].stop().await;
            })
        })
        .collect();
    assert_condemned(&gateway.ask(&poison(true)).await);
    let alive: Vec<&Engine> = engines.iter().filter(|one| !has_poison(one)).collect();
    assert_eq!(alive.len(), 1);
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    let mut whole = 0;
    for client in &mut streams {
        let (body, _) = client.rest().await;
        whole += usize::from(body.ends_with(b"data: [DONE]\n\n"));
    }
    assert!(whole >= 2, "{whole} of the streams came to their end");
    for killer in killers {
        killer.abort();
    }
    gateway.finish().await;
}

/// The endpoint is known to refuse connects before the connection of the request is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_death_that_is_known_sooner_than_felt_counts() {
    let mut puppets = [Puppet::start().await, Puppet::start().await];
    let third = start().await;
    let urls = [
        puppets[0].authority(),
        puppets[1].authority(),
        third.authority(),
    ];
    let [one, two, three] = urls.map(|url| format!("\"{url}\""));
    let last = format!("{{ url: {three}, backup: true }}");
    let gateway = Gateway::start(&pool(&[one, two, last], "policy: round_robin")).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(poison(true).bytes()).await;
    let mut dead = None;
    for _ in 0..2 {
        let [a, b] = &mut puppets;
        let (exchange, index) = tokio::select! {
            exchange = a.next(), if dead != Some(0) => (exchange, 0),
            exchange = b.next(), if dead != Some(1) => (exchange, 1),
        };
        dead = Some(index);
        puppets[index].refuse().await;
        // As a probe finds it.
        let at = tokio::time::Instant::now();
        let endpoint = gateway.endpoint(index);
        endpoint.probed(Err(ProbeFailure::Refused), at);
        tokio::time::sleep(Duration::from_millis(10)).await;
        exchange.reset();
    }
    assert_condemned(&client.answer().await);
    assert_eq!(third.inferences().len(), 0);
    gateway.finish().await;
}

async fn begun(gateway: &Gateway) -> Client {
    let mut client = Client::connect(gateway.address).await;
    client.send(poison(true).bytes()).await;
    client.head().await;
    client.piece().await.unwrap();
    client
}

/// Kills whichever of the engines has a request, until `deaths` have died.
async fn kill(engines: &[Engine], deaths: usize) {
    let mut dead = Vec::new();
    for _ in 0..deaths {
        let mut victim = None;
        until("an engine with the stream", || {
            let mut alive = (0..engines.len()).filter(|index| !dead.contains(index));
            victim = alive.find(|index| engines[*index].in_flight() > 0);
            victim.is_some()
        })
        .await;
        let victim = victim.unwrap();
        dead.push(victim);
        engines[victim].stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_kills_two_engines_alone_goes_to_no_third() {
    let engines = [start().await, start().await, start().await];
    let urls = engines
        .each_ref()
        .map(|one| format!("\"{}\"", one.authority()));
    let gateway = Gateway::start(&pool(&urls, "")).await;
    let mut client = begun(&gateway).await;
    kill(&engines, 2).await;
    let (body, _) = client.rest().await;
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains("\"error\""), "{text}");
    assert_eq!(gateway.metric(SUSPECTS), 1.0);
    assert_eq!(gateway.continuations("failed"), 1.0);
    let asked = engines.iter().filter(|one| !one.inferences().is_empty());
    assert_eq!(asked.count(), 2);
    // Nothing is held against another request of the same words.
    assert_eq!(gateway.ask(&poison(false)).await.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_go_together_are_nobodys_fault() {
    let engines = [start().await, start().await, start().await];
    let [one, two, three] = engines
        .each_ref()
        .map(|one| format!("\"{}\"", one.authority()));
    let backup = |url: String| format!("{{ url: {url}, backup: true }}");
    let gateway = Gateway::start(&pool(&[one, backup(two), backup(three)], "")).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(begun(&gateway).await);
    }
    engines[0].stop().await;
    let left = || engines[1].in_flight() + engines[2].in_flight();
    until("them to go on", || left() == 5).await;
    for client in &mut clients {
        let (body, _) = client.rest().await;
        assert!(body.ends_with(b"data: [DONE]\n\n"));
    }
    assert_eq!(gateway.metric(SUSPECTS), 0.0);
    gateway.finish().await;
}
