//! Clients that take too long, each timeout by itself.

use std::time::{Duration, Instant};

use crate::support::{
    Client, End, Engine, Gateway, H2, Puppet, Request, chat, chat_body, engine, get, h2_answer,
    h2_post, sse_head, within,
};

const SHORT: Duration = Duration::from_millis(150);

fn assert_short(begun: Instant, what: &str) {
    let elapsed = begun.elapsed();
    assert!(
        elapsed >= SHORT * 9 / 10 && elapsed < SHORT * 8,
        "{what}: {elapsed:?}"
    );
}

async fn with(client: &str) -> (Engine, Gateway) {
    let engine = engine().await;
    let yaml = format!(
        "endpoints: [\"{}\"]\nclient: {{ {client} }}",
        engine.authority()
    );
    (engine, Gateway::with_tls(&yaml).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_says_nothing_is_closed() {
    let (_engine, gateway) = with("header_timeout: 150ms").await;
    let mut client = Client::connect(gateway.address).await;
    let begun = Instant::now();
    assert_eq!(client.ended().await, End::Closed);
    assert_short(begun, "silence");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_trickles_is_closed_without_a_word() {
    let (engine, gateway) = with("header_timeout: 150ms").await;
    let mut client = Client::connect(gateway.address).await;
    let begun = Instant::now();
    let head = chat(false).head();
    let mut bytes = head.iter().cycle();
    // One byte at a time, so that a timer of reads would never fire.
    while client.try_send([*bytes.next().unwrap()]).await.is_ok() && begun.elapsed() < SHORT * 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_short(begun, "a head byte by byte");
    assert_eq!(
        engine
            .requests()
            .iter()
            .filter(|r| r.header("user-agent") != Some("sluicegate"))
            .count(),
        0
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_head_of_a_connection_has_the_same_time() {
    let (_engine, gateway) = with("header_timeout: 150ms, idle_timeout: 10s").await;
    let mut client = Client::connect(gateway.address).await;
    assert_eq!(client.ask(&chat(false)).await.status, 200);
    // Idle for longer than a head may take.
    assert!(client.is_silent_for(SHORT * 2).await);
    client.send("POST /v1/chat/comp").await;
    let begun = Instant::now();
    assert_eq!(client.ended().await, End::Closed);
    assert_short(begun, "the second head");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed() {
    let (_engine, gateway) = with("idle_timeout: 150ms").await;
    let requests: [Request; 3] = [chat(false), chat(true), get("/health")];
    for request in requests {
        let mut client = Client::connect(gateway.address).await;
        assert_eq!(client.ask(&request).await.status, 200);
        let begun = Instant::now();
        assert_eq!(client.ended().await, End::Closed);
        assert_short(begun, "idle");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_h2_connection_is_closed_and_a_busy_one_is_not() {
    let (engine, gateway) = with("idle_timeout: 150ms, header_timeout: 150ms").await;
    engine.hold();
    let mut h2 = H2::connect(&gateway).await;
    let body = chat_body(true);
    let request = h2_post("/v1/chat/completions", body.len(), true);
    let (answer, mut stream) = h2.open(request, false).await;
    stream.send_data(body.into(), true).unwrap();
    engine.wait_for_arrivals(1).await;
    tokio::time::sleep(SHORT * 3).await;
    engine.release();
    assert!(h2_answer(answer).await.text().ends_with("data: [DONE]\n\n"));
    let begun = Instant::now();
    h2.closed().await;
    assert_short(begun, "idle h2");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stops_is_a_408() {
    let (engine, gateway) = with("body_timeout: 150ms").await;
    for request in [chat(false), chat(false).chunked(10)] {
        let mut client = Client::connect(gateway.address).await;
        let bytes = request.bytes();
        client.send(&bytes[..bytes.len() - 10]).await;
        let begun = Instant::now();
        let answer = client.answer().await;
        assert_short(begun, "body");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (408, "request_timeout")
        );
        assert_eq!(answer.field("connection"), Some("close"));
    }
    let (answer, mut stream) = H2::connect(&gateway)
        .await
        .open(h2_post("/v1/chat/completions", 100, false), false)
        .await;
    stream.send_data("{".into(), false).unwrap();
    let answer = h2_answer(answer).await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (408, "request_timeout")
    );
    assert_eq!(engine.inferences().len(), 0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_trickles_is_let_through() {
    let (engine, gateway) = with("body_timeout: 150ms").await;
    let mut client = Client::connect(gateway.address).await;
    let request = chat(false);
    client.send(request.head()).await;
    for piece in request.framed_body().chunks(10) {
        tokio::time::sleep(Duration::from_millis(30)).await;
        client.send(piece).await;
    }
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(engine.inferences().len(), 1);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_frees_the_endpoint() {
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let mut puppet = Puppet::start().await;
        let yaml = format!(
            "endpoints: [\"{}\"]\nclient: {{ send_timeout: 150ms }}",
            puppet.authority()
        );
        let gateway = Gateway::start(&yaml).await;
        let mut client = Client::slow_reader(gateway.address).await;
        client.send(chat(true).version(version).bytes()).await;
        let mut exchange = puppet.next().await;
        exchange.write(sse_head()).await;
        let event = format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}},\"finish_reason\":null}}]}}\n\n",
            "x".repeat(4000)
        );
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        exchange.flood(chunk.as_bytes()).await;
        within("the lease to be given back", gateway.quiet()).await;
        assert_eq!(gateway.faults(0), 0, "it is not the engine's fault");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_h2_client_that_does_not_read_frees_the_endpoint() {
    let mut puppet = Puppet::start().await;
    let yaml = format!(
        "endpoints: [\"{}\"]\nclient: {{ send_timeout: 150ms }}",
        puppet.authority()
    );
    let gateway = Gateway::with_tls(&yaml).await;
    let mut h2 = H2::connect(&gateway).await;
    let (answer, mut stream) = h2
        .open(h2_post("/v1/chat/completions", 2, true), false)
        .await;
    stream.send_data("{}".into(), true).unwrap();
    let mut exchange = puppet.next().await;
    exchange.write(sse_head()).await;
    let event = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}},\"finish_reason\":null}}]}}\n\n",
        "x".repeat(4000)
    );
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    // The stream's window fills, and nobody opens it again.
    exchange.flood(chunk.as_bytes()).await;
    within("the lease to be given back", gateway.quiet()).await;
    drop(answer);
    gateway.finish().await;
}
