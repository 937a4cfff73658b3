//! Every limit, and what happens beyond it.

use std::time::Duration;

use crate::support::{
    Answer, Client, End, Engine, Gateway, H2, Puppet, Then, chat, chat_body, engine, get,
    h2_answer, h2_post, padded, post, sse_head, until,
};

async fn with(limits: &str) -> (Engine, Gateway) {
    let engine = engine().await;
    let yaml = format!(
        "endpoints: [\"{}\"]\nlimits: {{ {limits} }}",
        engine.authority()
    );
    (engine, Gateway::with_tls(&yaml).await)
}

/// Opens a connection and shows that it is served.
async fn served(gateway: &Gateway, source: &str) -> Client {
    let mut client = Client::connect_from(source, gateway.address).await;
    assert_eq!(client.ask(&get("/ready")).await.status, 200);
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_are_closed_and_counted() {
    let (_engine, gateway) = with("connections: 3").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(served(&gateway, "127.0.0.1").await);
    }
    for n in 1..=3 {
        assert_eq!(
            Client::connect(gateway.address).await.ended().await,
            End::Closed
        );
        let refused = "sluicegate_refused_total{reason=\"connections\"}";
        gateway.wait_for_metric(refused, f64::from(n)).await;
    }
    // One that goes makes room for another.
    open.pop();
    until("room", || {
        gateway.shared().metrics.connection_counts.now().active == 2
    })
    .await;
    served(&gateway, "127.0.0.1").await;
    let now = gateway.shared().metrics.connection_counts.now();
    assert_eq!((now.accepts, now.handled), (7, 4));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_per_client_count_each_address_by_itself() {
    let (_engine, gateway) = with("connections_per_client: 2").await;
    let mut open = vec![
        served(&gateway, "127.0.0.1").await,
        served(&gateway, "127.0.0.1").await,
    ];
    assert_eq!(
        Client::connect(gateway.address).await.ended().await,
        End::Closed
    );
    let refused = "sluicegate_refused_total{reason=\"connections_per_client\"}";
    gateway.wait_for_metric(refused, 1.0).await;
    open.push(served(&gateway, "127.0.0.2").await);
    open.remove(0);
    until("room", || {
        gateway.shared().metrics.connection_counts.now().active == 2
    })
    .await;
    served(&gateway, "127.0.0.1").await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_beyond_the_limit_is_a_431() {
    let (engine, gateway) = with("header: 2KiB").await;
    let fits = "a".repeat(1500);
    assert_eq!(
        gateway
            .ask(&chat(false).field(&format!("X-Fits: {fits}")))
            .await
            .status,
        200
    );
    let long_field = chat(false).field(&format!("X-Long: {}", "a".repeat(2048)));
    let mut many_fields = chat(false);
    for n in 0..100 {
        many_fields = many_fields.field(&format!("X-Field-{n}: {}", "a".repeat(20)));
    }
    let long_target = post(&format!("/v1/completions?{}", "a".repeat(2048)), "{}");
    for request in [long_field, many_fields, long_target] {
        let answer = gateway.ask(&request).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (431, "header_too_large")
        );
    }
    let mut request = h2_post("/v1/completions", 2, true);
    request
        .headers_mut()
        .insert("x-long", "a".repeat(2048).parse().unwrap());
    let answer = H2::connect(&gateway).await.ask(request, b"{}").await;
    assert_eq!(
        (answer.status(), answer.code().as_str()),
        (431, "header_too_large")
    );
    assert_eq!(engine.inferences().len(), 1);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_the_limit_passes_and_one_byte_more_is_a_413() {
    let (engine, gateway) = with("body: 64KiB").await;
    for chunk in [None, Some(1000)] {
        for (length, status) in [(65_536, 400), (65_537, 413)] {
            engine.clear_requests();
            let request = post("/v1/completions", padded(length));
            let request = chunk.map_or(request.clone(), |size| request.chunked(size));
            let answer = gateway.ask(&request).await;
            assert_eq!(answer.status, status);
            assert_eq!(engine.inferences().len(), usize::from(status == 400));
        }
    }
    for declared in [true, false] {
        let body = padded(65_537);
        let request = h2_post("/v1/completions", body.len(), declared);
        let answer = H2::connect(&gateway).await.ask(request, &body).await;
        assert_eq!(
            (answer.status(), answer.code().as_str()),
            (413, "request_too_large")
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_readable_although_the_body_is_still_being_sent() {
    let (_engine, gateway) = with("body: 64KiB").await;
    for chunked in [false, true] {
        for length in [200_000, 1_000_000] {
            let request = post("/v1/completions", padded(length));
            let request = if chunked {
                request.chunked(3_000)
            } else {
                request
            };
            let mut client = Client::connect(gateway.address).await;
            // All of it, before the answer is looked at: an RST would have taken the answer.
            client.send(request.bytes()).await;
            let answer = client.answer().await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (413, "request_too_large")
            );
            assert_eq!(answer.field("connection"), Some("close"));
            assert_eq!(client.ended().await, End::Closed);
        }
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_comes_before_the_body_and_ends_the_connection_in_time() {
    let (_engine, gateway) = with("body: 64KiB").await;
    let mut client = Client::connect(gateway.address).await;
    client
        .send(post("/v1/completions", padded(10_000_000)).head())
        .await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 413);
    let begun = std::time::Instant::now();
    // Sends on without end, as one that does not look at answers.
    while client.try_send([b' '; 16_384]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(
            begun.elapsed() < Duration::from_secs(5),
            "the gateway reads on and on"
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_refusal_closes_only_where_a_body_is_left() {
    let (_engine, gateway) = with("body: 64KiB").await;
    let answer = gateway.ask(&post("/nothing", "")).await;
    assert!(answer.status == 404 && answer.keeps_alive());
    let answer = gateway.ask(&post("/nothing", "{}")).await;
    assert_eq!(
        (answer.status, answer.field("connection")),
        (404, Some("close"))
    );
    let (answer, mut stream) = H2::connect(&gateway)
        .await
        .open(h2_post("/nothing", 100, true), false)
        .await;
    let _ = stream.send_data("{".into(), false);
    assert_eq!(h2_answer(answer).await.status(), 404);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_no_json_is_not_waited_for() {
    let (engine, gateway) = with("").await;
    for begun in ["{\"model\":]", "[", "{\"messages\":[{\"role\" 7"] {
        let mut client = Client::connect(gateway.address).await;
        let request = post("/v1/chat/completions", "").field("Content-Length: 1000000");
        client
            .send([&request.head()[..], begun.as_bytes()].concat())
            .await;
        let answer = client.answer().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_json"),
            "{begun}"
        );
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(client.ended().await, End::Closed);
    }
    // Where nothing is left of it the connection serves on.
    let mut client = Client::connect(gateway.address).await;
    assert_eq!(
        client.ask(&post("/v1/chat/completions", "{]")).await.status,
        400
    );
    assert_eq!(client.ask(&crate::support::chat(false)).await.status, 200);
    assert_eq!(engine.inferences().len(), 1);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_may_hold_half_of_the_memory_and_all_together_the_whole() {
    let limits = "body_memory: 1MiB, body: 512KiB, answer: 512KiB, event: 512KiB";
    let (engine, gateway) = with(limits).await;
    let ask = |length: usize| post("/v1/completions", padded(length));
    let refused = |answer: &Answer| {
        assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
        assert_eq!(answer.field("retry-after"), Some("1"));
    };
    let mut held = Vec::new();
    for source in ["127.0.0.1", "127.0.0.2"] {
        let mut client = Client::connect_from(source, gateway.address).await;
        let bytes = ask(450_000).bytes();
        client.send(&bytes[..bytes.len() - 1]).await;
        held.push(client);
    }
    let total = || gateway.shared().body_memory.total();
    until("both to be held", || total() == 2 * 449_999).await;
    assert_eq!(gateway.metric("sluicegate_body_bytes"), 899_998.0);
    let mut third = Client::connect_from("127.0.0.3", gateway.address).await;
    refused(&third.ask(&ask(300_000)).await);
    refused(&gateway.ask(&ask(100_000)).await);
    for client in &mut held {
        client.send("}").await;
        assert_eq!(client.answer().await.status, 400);
    }
    gateway.quiet().await;
    assert_eq!(gateway.ask(&ask(500_000)).await.status, 400);
    assert_eq!(engine.inferences().len(), 3);
    gateway.finish().await;
}

/// Answers are held so that they can be asked for again; without memory for that they pass as they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_answers_are_charged_and_pass_when_there_is_no_memory() {
    let mut puppet = Puppet::start().await;
    let yaml = format!(
        "endpoints: [\"{}\"]\nlimits: {{ body: 512KiB, body_memory: 1MiB, answer: 256KiB, event: 64KiB }}",
        puppet.authority()
    );
    let gateway = Gateway::start(&yaml).await;
    let mut others = Vec::new();
    for source in ["127.0.0.2", "127.0.0.3"] {
        let mut client = Client::connect_from(source, gateway.address).await;
        let bytes = post("/v1/completions", padded(450_000)).bytes();
        client.send(&bytes[..bytes.len() - 1]).await;
        others.push(client);
    }
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(false).bytes()).await;
    let mut exchange = puppet.next().await;
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 200000\r\n\r\n";
    exchange.write(head).await;
    exchange.write("a".repeat(50_000)).await;
    let total = || gateway.shared().body_memory.total();
    let bodies = 2 * 449_999 + chat_body(false).len();
    until("the answer to be held", || total() == bodies + 50_000).await;
    assert!(client.is_silent_for(Duration::from_millis(20)).await);
    exchange.write("a".repeat(100_000)).await;
    assert_eq!(client.head().await.status, 200);
    exchange.write("a".repeat(50_000)).await;
    let (body, end) = client.rest().await;
    assert_eq!((body.len(), end), (200_000, End::Framed));
    until("its memory to be given back", || total() == 2 * 449_999).await;
    drop(others);
    until("all of it", || total() == 0).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engines_head_beyond_the_limit_is_a_502() {
    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Long: {}\r\ncontent-length: 0\r\n\r\n",
        "a".repeat(3000)
    );
    let puppet = Puppet::answering(head, Then::Keep).await;
    for (limit, status) in [("2KiB", 502), ("4KiB", 200)] {
        let yaml = format!(
            "endpoints: [\"{}\"]\nlimits: {{ response_header: {limit} }}",
            puppet.authority()
        );
        let gateway = Gateway::start(&yaml).await;
        assert_eq!(gateway.ask(&chat(false)).await.status, status);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_beyond_the_limit_passes_unscanned() {
    let event = format!("data: {}\n\n", "x".repeat(10_000));
    let wire = format!("{}{:x}\r\n{event}\r\n0\r\n\r\n", sse_head(), event.len());
    let puppet = Puppet::answering(wire, Then::Keep).await;
    let yaml = format!(
        "endpoints: [\"{}\"]\nlimits: {{ event: 4KiB }}",
        puppet.authority()
    );
    let gateway = Gateway::start(&yaml).await;
    let answer = gateway.ask(&chat(true)).await;
    assert_eq!(
        (answer.status, answer.text(), answer.end),
        (200, event.as_str(), End::Framed)
    );
    gateway.finish().await;
}
