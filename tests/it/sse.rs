//! Streams of events pass as they come: each on its own, at once, the first together with the head.

use crate::support::{
    Client, End, Gateway, H2, H2End, Puppet, Script, Then, ask, chat, chat_body, engine_with,
    h2_post, sse_head, within,
};

fn token(text: &str) -> String {
    format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#)
}

const LAST: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

async fn puppet() -> (Puppet, Gateway) {
    let puppet = Puppet::start().await;
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", puppet.authority())).await;
    (puppet, gateway)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_passes_before_the_next_is_made() {
    let (mut puppet, gateway) = puppet().await;
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let mut client = Client::connect(gateway.address).await;
        client.send(chat(true).version(version).bytes()).await;
        let mut exchange = puppet.next().await;
        exchange.write(sse_head()).await;
        for n in 0..50 {
            let event = token(&n.to_string());
            exchange.event(&event).await;
            if n == 0 {
                let head = client.head().await;
                assert_eq!(
                    head.field("content-type"),
                    Some("text/event-stream; charset=utf-8")
                );
                assert_eq!(head.field("content-length"), None);
                let chunked = (version == "HTTP/1.1").then_some("chunked");
                assert_eq!(head.field("transfer-encoding"), chunked);
            }
            // The event as it was made, in a chunk of its own, before anything else is sent.
            let piece = client.piece().await.unwrap().unwrap();
            assert_eq!(
                String::from_utf8(piece).unwrap(),
                format!("data: {event}\n\n")
            );
        }
        exchange.event(LAST).await;
        exchange.event("[DONE]").await;
        exchange.answer("0\r\n\r\n").await;
        let (rest, end) = client.rest().await;
        assert_eq!(
            String::from_utf8(rest).unwrap(),
            format!("data: {LAST}\n\ndata: [DONE]\n\n")
        );
        assert_eq!(
            end,
            if version == "HTTP/1.1" {
                End::Framed
            } else {
                End::Closed
            }
        );
    }
    assert_eq!(
        puppet.accepts() - puppet.probes(),
        1,
        "a stream that ended well leaves a good connection"
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_passes_over_h2_before_the_next_is_made() {
    let (mut puppet, gateway) = puppet().await;
    let body = chat_body(true);
    let mut h2 = H2::connect(&gateway).await;
    let request = h2_post("/v1/chat/completions", body.len(), true);
    let (answer, mut stream) = h2.open(request, false).await;
    stream.send_data(body.into(), true).unwrap();
    let mut exchange = puppet.next().await;
    exchange.write(sse_head()).await;
    exchange.event(&token("0")).await;
    let (parts, mut stream) = within("a head", answer).await.unwrap().into_parts();
    assert_eq!(
        parts.headers["content-type"],
        "text/event-stream; charset=utf-8"
    );
    for n in 0..50 {
        let data = within("an event", stream.data()).await.unwrap().unwrap();
        assert_eq!(data, format!("data: {}\n\n", token(&n.to_string())));
        exchange.event(&token(&(n + 1).to_string())).await;
    }
    exchange.event(LAST).await;
    exchange.event("[DONE]").await;
    exchange.answer("0\r\n\r\n").await;
    let mut rest = Vec::new();
    while let Some(data) = within("the end", stream.data()).await {
        rest.extend_from_slice(&data.unwrap());
    }
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
    gateway.finish().await;
}

/// Two sends would sooner or later be seen by two reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_and_first_event_are_one_segment() {
    let (mut puppet, gateway) = puppet().await;
    for _ in 0..100 {
        let mut client = Client::connect(gateway.address).await;
        client.send(chat(true).bytes()).await;
        let mut exchange = puppet.next().await;
        exchange.write(sse_head()).await;
        exchange.event(&token("first")).await;
        let bytes = String::from_utf8(client.read_once().await).unwrap();
        assert!(
            bytes.starts_with("HTTP/1.1 200 OK\r\n") && bytes.contains("first"),
            "{bytes}"
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_shown_before_the_first_content() {
    let (mut puppet, gateway) = puppet().await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    let mut exchange = puppet.next().await;
    exchange.write(sse_head()).await;
    let role = r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
    let comment = ": keep-alive\n\n";
    exchange.event(role).await;
    exchange
        .write(format!("{:x}\r\n{comment}\r\n", comment.len()))
        .await;
    assert!(
        client
            .is_silent_for(std::time::Duration::from_millis(50))
            .await
    );
    exchange.event(&token("now")).await;
    client.head().await;
    // What was held comes first, and all of it.
    let held = format!("data: {role}\n\n{comment}data: {}\n\n", token("now"));
    assert_eq!(
        client
            .body_until("now\"},\"finish_reason\":null}]}\n\n")
            .await,
        held
    );
    exchange.event(LAST).await;
    exchange.last_chunk().await;
    assert_eq!(client.rest().await.1, End::Framed);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_in_pieces_passes_once_it_is_whole() {
    let (mut puppet, gateway) = puppet().await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    let mut exchange = puppet.next().await;
    exchange.write(sse_head()).await;
    exchange.event(&token("first")).await;
    client.head().await;
    client.piece().await.unwrap();
    let event = format!("data: {}\n\n", token("in pieces"));
    for piece in event.as_bytes().chunks(7) {
        exchange.write(format!("{:x}\r\n", piece.len())).await;
        exchange.write(piece).await;
        exchange.write("\r\n").await;
    }
    let mut passed = Vec::new();
    while passed.len() < event.len() {
        passed.extend(client.piece().await.unwrap().unwrap());
    }
    assert_eq!(passed, event.as_bytes());
    exchange.event(LAST).await;
    exchange.last_chunk().await;
    assert_eq!(client.rest().await.1, End::Framed);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_falls_behind_gets_every_byte() {
    let (mut puppet, gateway) = puppet().await;
    let mut client = Client::slow_reader(gateway.address).await;
    client.send(chat(true).bytes()).await;
    let mut exchange = puppet.next().await;
    exchange.write(sse_head()).await;
    exchange.event(&token("first")).await;
    client.head().await;
    let first = client.piece().await.unwrap().unwrap();
    // Far more than the sockets between hold, in events of many sizes.
    let sent: Vec<_> = (0..3000)
        .map(|n| token(&format!("{n}{}", "x".repeat(n % 5000))))
        .collect();
    let expected: String = sent
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    let writing = tokio::spawn(async move {
        for event in &sent {
            exchange.event(event).await;
        }
        exchange.event(LAST).await;
        exchange.last_chunk().await;
    });
    let (rest, end) = client.rest().await;
    writing.await.unwrap();
    assert_eq!(end, End::Framed);
    assert_eq!(first, format!("data: {}\n\n", token("first")).as_bytes());
    assert!(rest == format!("{expected}data: {LAST}\n\n").as_bytes());
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_pass_while_the_clients_next_request_waits() {
    let (mut puppet, gateway) = puppet().await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    for request in 0..3 {
        let mut exchange = puppet.next().await;
        exchange.write(sse_head()).await;
        for n in 0..20 {
            let event = token(&n.to_string());
            exchange.event(&event).await;
            if n == 0 {
                client.head().await;
            }
            let piece = client.piece().await.unwrap().unwrap();
            assert_eq!(piece, format!("data: {event}\n\n").as_bytes());
            if n == 5 && request < 2 {
                client.send(chat(true).bytes()).await;
            }
        }
        exchange.event(LAST).await;
        exchange.answer("0\r\n\r\n").await;
        assert_eq!(client.rest().await.1, End::Framed);
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_events_in_one_segment_pass_unchanged() {
    let events: String = (0..200)
        .map(|n| format!("data: {}\n\n", token(&n.to_string())))
        .collect();
    let body = format!("{events}data: {LAST}\n\ndata: [DONE]\n\n");
    let wire = format!("{}{:x}\r\n{body}\r\n0\r\n\r\n", sse_head(), body.len());
    let puppet = Puppet::answering(wire, Then::Keep).await;
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", puppet.authority())).await;
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        assert_eq!(gateway.ask(&chat(true).version(version)).await.text(), body);
    }
    let mut h2 = H2::connect(&gateway).await;
    let answer = h2
        .ask(h2_post("/v1/chat/completions", 2, true), b"{}")
        .await;
    assert_eq!((answer.text(), answer.end), (body.as_str(), H2End::Whole));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engines_stream_passes_unchanged_over_every_protocol() {
    let engine = engine_with(Script {
        tokens: 300,
        ..Script::default()
    })
    .await;
    let gateway = Gateway::with_tls(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let request = chat(true).field("X-Request-Id: same");
    let direct = ask(engine.addr(), &request).await;
    let masked = |text: &str| {
        let at = text.find("\"created\":").unwrap();
        let created = &text[at..at + 20];
        text.replace(created, "")
    };
    let expected = masked(direct.text());
    assert!(expected.len() > 30_000);
    for version in ["HTTP/1.1", "HTTP/1.0"] {
        let answer = gateway.ask(&request.clone().version(version)).await;
        assert_eq!(masked(answer.text()), expected);
    }
    let body = chat_body(true);
    let mut asked = h2_post("/v1/chat/completions", body.len(), false);
    asked
        .headers_mut()
        .insert("x-request-id", "same".parse().unwrap());
    let answer = H2::connect(&gateway)
        .await
        .ask(asked, body.as_bytes())
        .await;
    assert_eq!(
        (masked(answer.text()), answer.end),
        (expected, H2End::Whole)
    );
    gateway.finish().await;
}
