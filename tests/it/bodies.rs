//! Request bodies arrive byte for byte, however they are framed, and also on the second endpoint after
//! the first refused or had read everything and reset.

use loadtest::engine::text;
use serde_json::json;

use crate::support::{
    Client, End, Engine, Gateway, H2, Puppet, Recorded, Request, Then, engine, get, h2_post, noise,
    padded, post, until,
};

const PATH: &str = "/v1/chat/completions";
const SIZES: [usize; 6] = [0, 1, 65_535, 65_536, 65_537, 1 << 20];
const LARGEST: usize = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    H1Sized,
    H1Chunked,
    H2Sized,
    H2Unsized,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Answers,
    Refuses,
    /// Reads the whole request, then resets.
    Resets,
}

/// A valid chat of exactly so many bytes; what is too short for one is noise.
fn body_of(size: usize) -> Vec<u8> {
    let message = json!([{ "role": "user", "content": "" }]);
    let empty = json!({ "model": "DeepSeek-R1", "messages": message }).to_string();
    let Some(length) = size.checked_sub(empty.len()) else {
        return noise(size, 7);
    };
    let letters: String = noise(length, 7)
        .iter()
        .map(|byte| char::from(b'!' + byte % 90))
        .collect();
    let content = letters.replace(['"', '\\'], "-");
    empty
        .replace(r#""content":"""#, &format!(r#""content":"{content}""#))
        .into_bytes()
}

/// Sends `body` and gives the answer's status.
async fn send(gateway: &Gateway, sent: Sent, body: &[u8], content_type: &str) -> u16 {
    let field = format!("Content-Type: {content_type}");
    let h1 = || -> Request { post(PATH, body).field(&field) };
    match sent {
        Sent::H1Sized => gateway.ask(&h1()).await.status,
        Sent::H1Chunked => gateway.ask(&h1().chunked(10_007)).await.status,
        Sent::H2Sized | Sent::H2Unsized => {
            let mut request = h2_post(PATH, body.len(), sent == Sent::H2Sized);
            request
                .headers_mut()
                .insert("content-type", content_type.parse().unwrap());
            H2::connect(gateway).await.ask(request, body).await.status()
        }
    }
}

fn assert_received(received: &Recorded, body: &[u8]) {
    assert!(received.complete);
    assert_eq!(received.body_len, body.len());
    assert_eq!(received.body_hash, text::hash(body));
    assert_eq!(
        received.header_all("content-length"),
        [body.len().to_string()]
    );
    assert_eq!(received.header("transfer-encoding"), None);
}

async fn deliver(sent: Sent, first: First, body: &[u8], content_type: &str) {
    let is_json = content_type == "application/json" && body.len() > 1;
    let good: Engine = engine().await;
    let bad = Puppet::answering("", Then::Reset);
    let mut bad = bad.await;
    let endpoints = match first {
        First::Answers => format!("endpoints: [\"{}\"]", good.authority()),
        First::Refuses | First::Resets => format!(
            "endpoints: [\"{}\", {{ url: \"{}\", backup: true }}]",
            bad.authority(),
            good.authority()
        ),
    };
    // What is no JSON passes nginx, and us when we stand in for it.
    let all = if is_json { "" } else { "\nexpose: all" };
    let gateway = Gateway::with_tls(&format!("{endpoints}{all}")).await;
    if first == First::Refuses {
        bad.refuse().await;
    }
    let status = send(&gateway, sent, body, content_type).await;
    // What is no JSON the engine itself refuses, when it has read all of it.
    assert_eq!(
        status,
        if is_json { 200 } else { 400 },
        "{sent:?} {first:?} {}",
        body.len()
    );
    let received = good.inferences();
    assert_eq!(received.len(), 1);
    assert_received(&received[0], body);
    match first {
        First::Answers => {}
        First::Refuses => assert_eq!(gateway.retries("connect_refused"), 1.0),
        First::Resets => {
            let requests = bad.requests();
            assert_eq!(requests.len(), 1);
            assert!(
                requests[0].1 == body,
                "the engine that reset had other bytes"
            );
            assert_eq!(gateway.retries("connection_lost"), 1.0);
        }
    }
    gateway.finish().await;
}

async fn deliver_all_sizes(sent: Sent, first: First) {
    for size in SIZES {
        deliver(sent, first, &body_of(size), "application/json").await;
    }
}

macro_rules! bodies {
    ($($name:ident: $sent:ident, $first:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            deliver_all_sizes(Sent::$sent, First::$first).await;
        }
    )*};
}

bodies! {
    a_sized_h1_body_arrives: H1Sized, Answers;
    a_chunked_h1_body_arrives: H1Chunked, Answers;
    a_sized_h2_body_arrives: H2Sized, Answers;
    an_unsized_h2_body_arrives: H2Unsized, Answers;
    a_sized_h1_body_arrives_elsewhere_after_a_refusal: H1Sized, Refuses;
    a_chunked_h1_body_arrives_elsewhere_after_a_refusal: H1Chunked, Refuses;
    a_sized_h2_body_arrives_elsewhere_after_a_refusal: H2Sized, Refuses;
    an_unsized_h2_body_arrives_elsewhere_after_a_refusal: H2Unsized, Refuses;
    a_sized_h1_body_arrives_elsewhere_after_a_reset: H1Sized, Resets;
    a_chunked_h1_body_arrives_elsewhere_after_a_reset: H1Chunked, Resets;
    a_sized_h2_body_arrives_elsewhere_after_a_reset: H2Sized, Resets;
    an_unsized_h2_body_arrives_elsewhere_after_a_reset: H2Unsized, Resets;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_body_arrives_over_h1_after_a_reset() {
    let body = noise(LARGEST, 11);
    deliver(
        Sent::H1Sized,
        First::Resets,
        &body,
        "application/octet-stream",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_body_arrives_over_h2_after_a_refusal() {
    let body = noise(LARGEST, 12);
    deliver(
        Sent::H2Unsized,
        First::Refuses,
        &body,
        "application/octet-stream",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_in_chunks_of_one_byte_arrives() {
    let engine = engine().await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    let body = body_of(5_000);
    let answer = gateway.ask(&post(PATH, &*body).chunked(1)).await;
    assert_eq!(answer.status, 200);
    assert_received(&engine.inferences()[0], &body);
    gateway.finish().await;
}

/// Requests of every framing back to back on one connection, in writes that respect no boundary between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_on_one_connection_keep_to_themselves() {
    let engine = engine().await;
    let gateway = Gateway::start(&format!(
        "endpoints: [\"{}\"]\nexpose: all",
        engine.authority()
    ))
    .await;
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..8 {
        let mut wire = Vec::new();
        let mut bodies = Vec::new();
        for _ in 0..6 {
            let length = [0, 1, 5_000, 70_000, 300_000][random.usize(..5)];
            let body = body_of(length);
            // A `%` in its path makes a head of which nobody knows how long it came.
            let path = [PATH, "/v1/chat/completions?a=%20"][random.usize(..2)];
            let request = post(path, &*body);
            wire.extend(match random.usize(..3) {
                0 => request.chunked(1 + random.usize(..9_000)).bytes(),
                1 => request.field("Content-Type: text/plain").bytes(),
                _ => request.bytes(),
            });
            bodies.push(body);
        }
        let before = engine.inferences().len();
        let mut client = Client::connect(gateway.address).await;
        let mut rest = &wire[..];
        while !rest.is_empty() {
            let length = [1, 300, 4_096, 90_000, 500_000][random.usize(..5)].min(rest.len());
            let (now, later) = rest.split_at(length);
            client.send(now).await;
            rest = later;
            tokio::task::yield_now().await;
        }
        for _ in &bodies {
            client.answer().await;
        }
        let received = engine.inferences();
        assert_eq!(received.len() - before, bodies.len(), "round {round}");
        for (received, body) in received[before..].iter().zip(&bodies) {
            assert_received(received, body);
        }
    }
    gateway.finish().await;
}

/// What is refused in the middle of a body is answered, and what is left of the body is no request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_of_a_refused_body_is_never_a_request() {
    let engine = engine().await;
    let yaml = format!(
        "endpoints: [\"{}\"]\nlimits: {{ body: 512KiB, body_memory: 1MiB, answer: 64KiB, event: 64KiB }}",
        engine.authority()
    );
    let gateway = Gateway::start(&yaml).await;
    let mut holding = Client::connect(gateway.address).await;
    let held = post(PATH, padded(450_000)).bytes();
    holding.send(&held[..held.len() - 1]).await;
    let total = || gateway.shared().body_memory.total();
    until("a body to be held", || total() == 449_999).await;
    let smuggled = get("/v1/models").bytes();
    let requests: Vec<u8> = smuggled.iter().copied().cycle().take(400_000).collect();
    let body = [&b"{\"x\":\""[..], &requests].concat();
    let mut client = Client::connect(gateway.address).await;
    client.send(post(PATH, &*body).bytes()).await;
    assert_eq!(
        client.answer().await.status,
        503,
        "one client may hold half"
    );
    assert_eq!(client.ended().await, End::Closed);
    let mut client = Client::connect(gateway.address).await;
    client.send(post(PATH, &*requests).bytes()).await;
    assert_eq!(client.answer().await.status, 400, "it is no JSON");
    assert_eq!(client.ended().await, End::Closed);
    assert_eq!(engine.inferences().len(), 0);
    drop(holding);
    gateway.finish().await;
}
