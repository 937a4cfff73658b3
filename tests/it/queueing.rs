//! The queue of a pool whose endpoints are all at their cap: who is served when, and who is sent away.

use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::{
    Answer, Client, Engine, Exchange, Gateway, H2, H2End, Health, Puppet, Request, Script, ask,
    chat, chat_body, engine, engine_with, get, h2_answer, h2_post, pool, until,
};

const DEPTH: &str = "sluicegate_queue_depth{pool=\"default\"}";
const WAITED: &str = "sluicegate_queue_wait_seconds_count{pool=\"default\"}";
const ONE: &str = r#"{"choices":[{"index":0,"message":{"content":"a"}}]}"#;

fn url(authority: &str) -> String {
    format!("\"{authority}\"")
}

fn of(puppets: &[&Puppet], keys: &str) -> String {
    let urls: Vec<_> = puppets.iter().map(|one| url(&one.authority())).collect();
    pool(&urls, keys)
}

fn named(name: &str) -> Request {
    chat(false).field(&format!("X-Request-Id: {name}"))
}

/// Sends a request and waits until so many are in the queue.
async fn queue(gateway: &Gateway, request: &Request, depth: usize) -> Client {
    let mut client = Client::connect(gateway.address).await;
    client.send(request.bytes()).await;
    wait_for_depth(gateway, depth).await;
    client
}

async fn wait_for_depth(gateway: &Gateway, depth: usize) {
    gateway.wait_for_metric(DEPTH, depth as f64).await;
}

/// The next request that the engine gets, and its name.
async fn next(puppet: &mut Puppet) -> (Exchange, String) {
    let exchange = puppet.next().await;
    let (head, _) = puppet.requests().pop().unwrap();
    let field = head
        .lines()
        .find_map(|line| line.strip_prefix("X-Request-Id: "));
    (exchange, field.unwrap().to_owned())
}

fn refusal(answer: &Answer) -> (u16, String, Option<u64>) {
    let retry_after = answer
        .field("retry-after")
        .map(|value| value.parse().unwrap());
    (answer.status, answer.code(), retry_after)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_come_first_served() {
    for policy in ["least_inflight", "round_robin"] {
        let mut engine = Puppet::start().await;
        let keys = format!("max_in_flight: 1, policy: {policy}");
        let gateway = Gateway::start(&of(&[&engine], &keys)).await;
        let mut first = Client::connect(gateway.address).await;
        first.send(named("r-0").bytes()).await;
        let (mut held, _) = next(&mut engine).await;
        let mut clients = Vec::new();
        for n in 1..=4 {
            clients.push(queue(&gateway, &named(&format!("r-{n}")), n).await);
        }
        let list = ask(gateway.admin, &get("/endpoints")).await.json();
        assert_eq!(
            (&list[0]["queued"], &list[0]["in_flight"]),
            (&4.into(), &1.into())
        );
        for n in 1..=4 {
            held.answer_json(ONE).await;
            let name;
            (held, name) = next(&mut engine).await;
            assert_eq!(name, format!("r-{n}"));
            assert_eq!(gateway.metric(DEPTH), (4 - n) as f64);
        }
        held.answer_json(ONE).await;
        for client in clients.iter_mut().chain([&mut first]) {
            assert_eq!(client.answer().await.status, 200);
        }
        gateway.wait_for_metric(WAITED, 4.0).await;
        assert_eq!(gateway.faults(0), 0);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_its_size_and_its_timeout_a_request_is_sent_away() {
    let mut engine = Puppet::start().await;
    let keys = "max_in_flight: 1, queue: { size: 2, timeout: 700ms }";
    let gateway = Gateway::start(&of(&[&engine], keys)).await;
    let mut first = Client::connect(gateway.address).await;
    first.send(named("r-0").bytes()).await;
    let held = engine.next().await;
    let mut waiting = Vec::new();
    for n in 1..=2 {
        waiting.push(queue(&gateway, &named(&format!("r-{n}")), n).await);
    }
    let begun = std::time::Instant::now();
    let full = gateway.ask(&chat(false)).await;
    assert_eq!(refusal(&full), (503, "overloaded".to_owned(), Some(1)));
    assert!(
        begun.elapsed() < Duration::from_millis(600),
        "{:?}",
        begun.elapsed()
    );
    assert!(full.keeps_alive());
    for client in &mut waiting {
        let late = client.answer().await;
        assert_eq!(refusal(&late), (503, "overloaded".to_owned(), Some(1)));
        assert!(late.keeps_alive());
    }
    gateway
        .wait_for_metric("sluicegate_refused_total{reason=\"overloaded\"}", 3.0)
        .await;
    gateway.wait_for_metric(WAITED, 2.0).await;
    wait_for_depth(&gateway, 0).await;
    held.answer_json(ONE).await;
    assert_eq!(first.answer().await.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waiting_took_is_told() {
    let mut engine = Puppet::start().await;
    let yaml = of(&[&engine], "max_in_flight: 1");
    let gateway = Gateway::start(&format!(
        "{yaml}\naccess_log: {{ path: access.log, format: json }}"
    ))
    .await;
    let mut first = Client::connect(gateway.address).await;
    first.send(chat(false).bytes()).await;
    let held = engine.next().await;
    let request = named("r-1").field("X-Sluicegate-Timing: 1");
    let mut second = queue(&gateway, &request, 1).await;
    tokio::time::sleep(Duration::from_millis(120)).await;
    held.answer_json(ONE).await;
    engine.next().await.answer_json(ONE).await;
    let answer = second.answer().await;
    let timing = answer.field("server-timing").unwrap().to_owned();
    let milliseconds: f64 = timing
        .strip_prefix("queue;dur=")
        .and_then(|rest| rest.split(',').next())
        .unwrap()
        .parse()
        .unwrap();
    assert!(milliseconds >= 119.0, "{timing}");
    assert_eq!(first.answer().await.status, 200);
    let path = gateway.directory().join("access.log");
    let mut lines = Vec::new();
    until("two lines", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        lines = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        lines.len() == 2
    })
    .await;
    lines.sort_by_key(|line: &Value| line["queue_ms"].is_f64());
    assert_eq!(lines[0]["queue_ms"], Value::Null);
    assert!(
        lines[1]["queue_ms"].as_f64().unwrap() >= 119.0,
        "{}",
        lines[1]
    );
    // It is nothing of ours that the engine was full.
    assert!(
        lines[1]["overhead_us"].as_u64().unwrap() < 100_000,
        "{}",
        lines[1]
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_the_queue_holds_nobody_up() {
    let mut engine = Puppet::start().await;
    let gateway = Gateway::with_tls(&of(&[&engine], "max_in_flight: 1")).await;
    let mut first = Client::connect(gateway.address).await;
    first.send(named("r-0").bytes()).await;
    let held = engine.next().await;
    let fin = queue(&gateway, &named("fin"), 1).await;
    let reset = queue(&gateway, &named("reset"), 2).await;
    let mut half_close = queue(&gateway, &named("half-close"), 3).await;
    let mut h2 = H2::connect(&gateway).await;
    let body = chat_body(true);
    let request = h2_post("/v1/chat/completions", body.len(), true);
    let (answer, mut stream) = h2.open(request, false).await;
    stream.send_data(body.into(), true).unwrap();
    wait_for_depth(&gateway, 4).await;
    let mut last = queue(&gateway, &named("last"), 5).await;
    drop(fin);
    wait_for_depth(&gateway, 4).await;
    reset.reset();
    wait_for_depth(&gateway, 3).await;
    half_close.half_close().await;
    wait_for_depth(&gateway, 2).await;
    stream.send_reset(h2::Reason::CANCEL);
    wait_for_depth(&gateway, 1).await;
    drop(answer);
    held.answer_json(ONE).await;
    let (exchange, name) = next(&mut engine).await;
    assert_eq!(name, "last");
    exchange.answer_json(ONE).await;
    assert_eq!(last.answer().await.status, 200);
    assert_eq!(first.answer().await.status, 200);
    let left = "sluicegate_requests_total{code=\"499\",endpoint=\"none\",pool=\"default\"}";
    gateway.wait_for_metric(left, 4.0).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_h2_wait_as_well() {
    let engine = engine().await;
    engine.hold();
    let gateway = Gateway::with_tls(&pool(&[url(&engine.authority())], "max_in_flight: 1")).await;
    let mut h2 = H2::connect(&gateway).await;
    let mut answers = Vec::new();
    for n in 0..3 {
        let body = chat_body(true);
        let request = h2_post("/v1/chat/completions", body.len(), true);
        let (answer, mut stream) = h2.open(request, false).await;
        stream.send_data(body.into(), true).unwrap();
        answers.push((answer, stream));
        wait_for_depth(&gateway, n).await;
        engine.wait_for_arrivals(1).await;
    }
    engine.release();
    for (answer, _stream) in answers {
        let answer = h2_answer(answer).await;
        assert_eq!(answer.end, H2End::Whole);
        assert!(answer.text().ends_with("data: [DONE]\n\n"));
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_serves_the_queue_by_what_it_brings() {
    let (mut old, mut new) = (Puppet::start().await, Puppet::start().await);
    let gateway = Gateway::start(&of(&[&old], "max_in_flight: 1")).await;
    let mut clients = vec![Client::connect(gateway.address).await];
    clients[0].send(named("r-0").bytes()).await;
    let (mut held, _) = next(&mut old).await;
    for n in 1..=4 {
        clients.push(queue(&gateway, &named(&format!("r-{n}")), n).await);
    }
    // Another endpoint, with a key of its own.
    let with_key = format!("{{ url: \"{}\", api_key: k3y }}", new.authority());
    let both = [with_key.clone(), url(&old.authority())];
    gateway.reload(&pool(&both, "max_in_flight: 1")).await;
    let (on_new, name) = next(&mut new).await;
    assert_eq!(name, "r-1");
    let (head, _) = new.requests().pop().unwrap();
    assert_eq!(head.matches("Authorization: ").count(), 1, "{head}");
    assert!(head.contains("Authorization: Bearer k3y\r\n"), "{head}");
    wait_for_depth(&gateway, 3).await;
    // A higher cap.
    gateway.reload(&pool(&both, "max_in_flight: 2")).await;
    let mut names = vec![next(&mut new).await, next(&mut old).await];
    names.sort_by(|(_, a), (_, b)| a.cmp(b));
    assert_eq!((&*names[0].1, &*names[1].1), ("r-2", "r-3"));
    wait_for_depth(&gateway, 1).await;
    // The first endpoint goes: what it frees is nobody's any more.
    gateway.reload(&pool(&[with_key], "max_in_flight: 2")).await;
    held.write("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        .await;
    assert_eq!(clients.remove(0).answer().await.status, 200);
    assert_eq!(gateway.metric(DEPTH), 1.0);
    on_new.answer_json(ONE).await;
    let (last, name) = next(&mut new).await;
    assert_eq!(name, "r-4");
    last.answer_json(ONE).await;
    for (exchange, _) in names {
        exchange.answer_json(ONE).await;
    }
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pools_that_share_a_node_serve_each_others_queues() {
    let mut engine = Puppet::start().await;
    let one = format!(
        "{{ endpoints: [\"{}\"], max_in_flight: 1 }}",
        engine.authority()
    );
    let yaml = format!(
        "pools: {{ a: {one}, b: {one} }}\nmodels: {{ DeepSeek-R1: {{ pool: a }}, other: {{ pool: b }} }}"
    );
    let gateway = Gateway::start(&yaml).await;
    let mut first = Client::connect(gateway.address).await;
    first.send(named("r-0").bytes()).await;
    let held = engine.next().await;
    let other = chat_body(false).replace("DeepSeek-R1", "other");
    let mut second = Client::connect(gateway.address).await;
    second
        .send(crate::support::post("/v1/chat/completions", other).bytes())
        .await;
    gateway
        .wait_for_metric("sluicegate_queue_depth{pool=\"b\"}", 1.0)
        .await;
    held.answer_json(ONE).await;
    engine.next().await.answer_json(ONE).await;
    for client in [&mut first, &mut second] {
        assert_eq!(client.answer().await.status, 200);
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_back_serves_the_queue() {
    let sick = Script {
        health: Health::Status(500),
        ..Script::default()
    };
    let (busy, away) = (engine().await, engine_with(sick).await);
    busy.hold();
    let urls = [url(&busy.authority()), url(&away.authority())];
    let keys = "max_in_flight: 1, health: { interval: 50ms, rise: 1 }";
    let gateway = Gateway::start(&pool(&urls, keys)).await;
    gateway.wait_for_state(1, &["down"]).await;
    let mut first = Client::connect(gateway.address).await;
    first.send(chat(false).bytes()).await;
    busy.wait_for_arrivals(1).await;
    let mut second = queue(&gateway, &chat(true), 1).await;
    away.set(Script::default());
    assert_eq!(second.answer().await.status, 200);
    let answered = "sluicegate_requests_total{code=\"200\",endpoint=\"AWAY\",pool=\"default\"}";
    gateway
        .wait_for_metric(&answered.replace("AWAY", &away.authority()), 1.0)
        .await;
    busy.release();
    assert_eq!(first.answer().await.status, 200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_every_node_is_down_nobody_waits_for_the_timeout() {
    let mut engine = Puppet::start().await;
    let keys = "max_in_flight: 1, retries: 0, health: { interval: 50ms }";
    let gateway = Gateway::start(&of(&[&engine], keys)).await;
    let mut first = Client::connect(gateway.address).await;
    first.send(chat(true).bytes()).await;
    let held = engine.next().await;
    let mut waiting = Vec::new();
    for n in 1..=3 {
        waiting.push(queue(&gateway, &chat(true), n).await);
    }
    engine.refuse().await;
    for client in &mut waiting {
        let answer = client.answer().await;
        assert_eq!(
            refusal(&answer),
            (503, "no_endpoint_available".to_owned(), Some(1))
        );
    }
    assert_eq!(first.answer().await.status, 503);
    drop(held);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_moved_waits_for_its_second_endpoint() {
    let (mut one, mut two) = (Puppet::start().await, Puppet::start().await);
    let gateway = Gateway::start(&of(&[&one, &two], "max_in_flight: 1")).await;
    let mut clients = Vec::new();
    for name in ["r-0", "r-1"] {
        let mut client = Client::connect(gateway.address).await;
        client.send(named(name).bytes()).await;
        clients.push(client);
    }
    let (on_one, name) = next(&mut one).await;
    let (on_two, other) = next(&mut two).await;
    // The place it gives up is free: whoever comes may have it, but for itself.
    on_one.reset();
    wait_for_depth(&gateway, 1).await;
    let mut third = Client::connect(gateway.address).await;
    third.send(named("r-2").bytes()).await;
    let (on_one, third_name) = next(&mut one).await;
    assert_eq!(third_name, "r-2");
    on_two.answer_json(ONE).await;
    let (again, again_name) = next(&mut two).await;
    assert_eq!((again_name.as_str(), name == other), (name.as_str(), false));
    again.answer_json(ONE).await;
    on_one.answer_json(ONE).await;
    for client in clients.iter_mut().chain([&mut third]) {
        assert_eq!(client.answer().await.status, 200);
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stops_serves_its_queue_first() {
    let engine = engine().await;
    engine.hold();
    let gateway = Gateway::start(&pool(&[url(&engine.authority())], "max_in_flight: 1")).await;
    let mut first = Client::connect(gateway.address).await;
    first.send(chat(true).bytes()).await;
    engine.wait_for_arrivals(1).await;
    let mut second = queue(&gateway, &chat(true), 1).await;
    let drained = gateway.server().drain(Duration::from_secs(8));
    let clients = async {
        until("the drain to begin", || gateway.shared().is_draining()).await;
        engine.release();
        for client in [&mut first, &mut second] {
            let answer = client.answer().await;
            assert_eq!(answer.status, 200);
            assert!(answer.text().ends_with("data: [DONE]\n\n"));
        }
    };
    let (drained, ()) = tokio::join!(drained, clients);
    assert!(drained);
    gateway.finish().await;
}

/// Clients that wait for their answer, among others that leave at any moment, queued or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_among_clients_that_leave() {
    let script = Script {
        ttft: Duration::from_millis(1),
        itl: Duration::from_micros(200),
        tokens: 4,
        record: 16,
        ..Script::default()
    };
    let engines: [Engine; 2] = [engine_with(script.clone()).await, engine_with(script).await];
    let urls: Vec<_> = engines.iter().map(|one| url(&one.authority())).collect();
    let gateway = std::sync::Arc::new(
        Gateway::start(&pool(
            &urls,
            "max_in_flight: 2, queue: { size: 1000, timeout: 9s }",
        ))
        .await,
    );
    let mut rng = fastrand::Rng::with_seed(7);
    let mut tasks = JoinSet::new();
    for n in 0..600 {
        while tasks.len() >= 60 {
            tasks.join_next().await.unwrap().unwrap();
        }
        let gateway = std::sync::Arc::clone(&gateway);
        let moment = Duration::from_micros(rng.u64(0..20_000));
        let how = rng.u32(0..4);
        tasks.spawn(async move {
            let mut client = Client::connect(gateway.address).await;
            client.send(chat(n % 2 == 0).bytes()).await;
            if how == 0 {
                let answer = client.answer().await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                return;
            }
            tokio::time::sleep(moment).await;
            if how == 1 {
                client.reset();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    gateway.quiet().await;
    assert_eq!(gateway.metric(DEPTH), 0.0);
    assert!(gateway.metric(WAITED) > 0.0, "nobody had to wait");
    for engine in &engines {
        until("the engines to be idle", || engine.in_flight() == 0).await;
    }
    assert_eq!(gateway.ask(&chat(true)).await.status, 200);
    std::sync::Arc::into_inner(gateway).unwrap().finish().await;
}
