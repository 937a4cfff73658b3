//! What happens when an engine takes too long, each timeout by itself.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    Client, Cut, End, Exchange, Fault, Gateway, Puppet, Script, chat, engine, engine_with, get,
    in_turn, padded, pool, post, sse_head, until,
};

const SHORT: Duration = Duration::from_millis(150);
const TOKEN: &str = r#"{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}"#;

/// That `begun` was about `SHORT` ago. What began it may have happened a moment before we saw it.
fn assert_short(begun: Instant, what: &str) {
    let elapsed = begun.elapsed();
    assert!(
        elapsed >= SHORT * 3 / 4 && elapsed < SHORT * 8,
        "{what}: {elapsed:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_that_gets_no_answer_moves_the_request() {
    let (mut silent, good) = (Puppet::start().await, engine().await);
    let yaml = in_turn(
        &silent.authority(),
        &good.authority(),
        "timeouts: { connect: 150ms }",
    );
    let gateway = Gateway::start(&yaml).await;
    silent.swallow_connects().await;
    let begun = Instant::now();
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    assert_short(begun, "connect");
    assert_eq!(
        (gateway.retries("connect_timeout"), gateway.faults(0)),
        (1.0, 1)
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_that_gets_no_answer_anywhere_is_a_504() {
    let mut silent = Puppet::start().await;
    let endpoint = format!("\"{}\"", silent.authority());
    let gateway = Gateway::start(&pool(&[endpoint], "timeouts: { connect: 150ms }")).await;
    silent.swallow_connects().await;
    let answer = gateway.ask(&chat(false)).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (504, "upstream_timeout")
    );
    assert!(answer.keeps_alive());
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_first_byte_moves_the_request() {
    let silent = engine_with(Script {
        fault: Some(Fault::Silence),
        ..Script::default()
    })
    .await;
    // Its streams have a head, and comments, and never a token.
    let frozen = engine_with(Script {
        comments: Some(Duration::from_millis(20)),
        ..Script::default()
    })
    .await;
    frozen.freeze();
    let good = engine().await;
    for bad in [&silent, &frozen] {
        let keys = "timeouts: { first_byte: 150ms }";
        let gateway = Gateway::start(&in_turn(&bad.authority(), &good.authority(), keys)).await;
        let begun = Instant::now();
        assert_eq!(gateway.ask(&chat(true)).await.status, 200);
        assert_short(begun, "first_byte");
        assert_eq!(
            (gateway.retries("first_byte_timeout"), gateway.faults(0)),
            (1.0, 1)
        );
        until("the engine to be told", || bad.in_flight() == 0).await;
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_first_byte_anywhere_is_a_504() {
    let silent = engine_with(Script {
        fault: Some(Fault::Silence),
        ..Script::default()
    })
    .await;
    let endpoint = format!("\"{}\"", silent.authority());
    let gateway = Gateway::start(&pool(&[endpoint], "timeouts: { first_byte: 150ms }")).await;
    for stream in [false, true] {
        let answer = gateway.ask(&chat(stream)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (504, "upstream_timeout")
        );
        assert!(answer.text().contains("150ms"), "{}", answer.text());
        assert!(answer.keeps_alive());
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_head_is_no_first_byte() {
    let gap = Duration::from_millis(10);
    let slow = engine_with(Script {
        fault: Some(Fault::SlowHead { gap }),
        ..Script::default()
    })
    .await;
    let good = engine().await;
    let keys = "timeouts: { first_byte: 150ms }";
    let gateway = Gateway::start(&in_turn(&slow.authority(), &good.authority(), keys)).await;
    assert_eq!(gateway.ask(&chat(false)).await.status, 200);
    assert_eq!(gateway.retries("first_byte_timeout"), 1.0);
    gateway.finish().await;
}

/// A stream of which the first event came, in the hands of the test.
async fn streaming(keys: &str) -> (Puppet, Gateway, Client, Exchange) {
    let mut puppet = Puppet::start().await;
    let gateway = Gateway::start(&pool(&[format!("\"{}\"", puppet.authority())], keys)).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(chat(true).bytes()).await;
    let mut exchange = puppet.next().await;
    exchange.write(sse_head()).await;
    exchange.event(TOKEN).await;
    client.head().await;
    client.piece().await.unwrap();
    (puppet, gateway, client, exchange)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_between_events_ends_the_stream_and_frees_the_engine() {
    let (_puppet, gateway, mut client, mut exchange) = streaming("timeouts: { read: 150ms }").await;
    let begun = Instant::now();
    let (rest, end) = client.rest().await;
    assert_short(begun, "read");
    let rest = String::from_utf8(rest).unwrap();
    assert!(
        rest.contains("\"code\":\"upstream_timeout\"") && end == End::Closed,
        "{rest}"
    );
    exchange.gone().await;
    assert_eq!(gateway.faults(0), 1);
    gateway.finish().await;
}

/// An event in pieces goes another way than one that is whole; the time runs on both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_behind_an_event_in_pieces_ends_the_stream() {
    let (_puppet, gateway, mut client, mut exchange) = streaming("timeouts: { read: 150ms }").await;
    exchange.write("6\r\ndata: \r\n").await;
    exchange
        .write(format!("{:x}\r\n{TOKEN}\n\n\r\n", TOKEN.len() + 2))
        .await;
    client.piece().await.unwrap();
    let begun = Instant::now();
    let (rest, end) = client.rest().await;
    assert_short(begun, "read");
    let rest = String::from_utf8(rest).unwrap();
    assert!(
        rest.contains("\"code\":\"upstream_timeout\"") && end == End::Closed,
        "{rest}"
    );
    exchange.gone().await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comments_are_no_progress() {
    let (_puppet, gateway, mut client, mut exchange) = streaming("timeouts: { read: 150ms }").await;
    let commenting = tokio::spawn(async move {
        // Until the gateway has closed.
        while exchange.try_write("e\r\n: keep-alive\n\n\r\n").await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let begun = Instant::now();
    let (rest, end) = client.rest().await;
    assert_short(begun, "read");
    let rest = String::from_utf8(rest).unwrap();
    assert!(
        rest.contains(": keep-alive\n\n") && rest.contains("\"code\":\"upstream_timeout\""),
        "{rest}"
    );
    assert_eq!(end, End::Closed);
    commenting.await.unwrap();
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_progress() {
    let (_puppet, gateway, mut client, mut exchange) = streaming("timeouts: { read: 150ms }").await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        exchange.event(TOKEN).await;
        client.piece().await.unwrap();
    }
    exchange.event("[DONE]").await;
    exchange.last_chunk().await;
    assert_eq!(client.rest().await.1, End::Framed);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_answer_that_stops_is_asked_for_again() {
    let fault = Some(Fault::Cut {
        after: 40,
        how: Cut::Silence,
    });
    let (stuck, good) = (
        engine_with(Script {
            fault,
            ..Script::default()
        })
        .await,
        engine().await,
    );
    let keys = "timeouts: { read: 150ms }";
    let gateway = Gateway::start(&in_turn(&stuck.authority(), &good.authority(), keys)).await;
    let answer = gateway.ask(&chat(false)).await;
    assert_eq!(answer.json()["choices"][0]["finish_reason"], "stop");
    assert_eq!(gateway.retries("read_timeout"), 1.0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_other_answer_that_stops_is_cut() {
    let mut puppet = Puppet::start().await;
    let yaml = pool(
        &[format!("\"{}\"", puppet.authority())],
        "timeouts: { read: 150ms }",
    );
    let gateway = Gateway::start(&format!("{yaml}\nexpose: [/thing]")).await;
    let mut client = Client::connect(gateway.address).await;
    client.send(get("/thing").bytes()).await;
    let mut exchange = puppet.next().await;
    exchange
        .write("HTTP/1.1 200 OK\r\ncontent-type: text/x\r\ncontent-length: 10\r\n\r\nabc")
        .await;
    client.head().await;
    let (body, end) = client.rest().await;
    assert_eq!((body.as_slice(), end), (&b"abc"[..], End::Closed));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_does_not_read_is_given_up() {
    let (deaf, good) = (Puppet::start().await, engine().await);
    let keys = "timeouts: { send: 150ms }";
    let gateway = Gateway::start(&in_turn(&deaf.authority(), &good.authority(), keys)).await;
    deaf.stop_reading();
    let body = padded(16 << 20);
    let begun = Instant::now();
    // The good engine refuses blanks, which passes.
    assert_eq!(
        gateway.ask(&post("/v1/completions", body)).await.status,
        400
    );
    assert!(begun.elapsed() >= SHORT);
    assert_eq!(gateway.retries("send_timeout"), 1.0);
    gateway.finish().await;
}

/// Takes a request a piece at a time, and answers it with 400.
async fn read_slowly(mut stream: TcpStream) {
    let (mut piece, mut read, mut whole) = (vec![0; 256 << 10], 0, 0);
    while whole == 0 || read < whole {
        match stream.read(&mut piece).await {
            Ok(more @ 1..) => read += more,
            _ => return,
        }
        if piece.starts_with(b"GET /health") {
            break;
        }
        if let Some(head) = piece.windows(4).position(|four| four == b"\r\n\r\n") {
            whole = whole.max(head + 4 + SLOW_BODY);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = if whole == 0 { "200 OK" } else { "400 X" };
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let _ = stream.write_all(answer.as_bytes()).await;
}

const SLOW_BODY: usize = 16 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_reads_slowly_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(read_slowly(stream));
        }
    });
    let yaml = pool(&[format!("\"{authority}\"")], "timeouts: { send: 500ms }");
    let gateway = Gateway::start(&yaml).await;
    let begun = Instant::now();
    let answer = gateway
        .ask(&post("/v1/completions", padded(SLOW_BODY)))
        .await;
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!((answer.status, answer.text()), (400, ""));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_before_the_whole_request_counts() {
    let early = Puppet::start().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", early.authority())).await;
    early.answer_heads();
    let mut client = Client::connect(gateway.address).await;
    let request = post("/v1/completions", padded(16 << 20));
    client.send(request.bytes()).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.text()), (413, "large"));
    gateway.finish().await;
}
