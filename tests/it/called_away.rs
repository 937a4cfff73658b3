//! Streams whose endpoint calls them away: it drains, or refuses connects, and may serve them all the same.

use std::time::Duration;

use serde_json::json;
use sluicegate::pool::{Fault, ProbeFailure};
use tokio::time::Instant;

use crate::continuing::{KEYS, chat};
use crate::support::{
    Client, End, Exchange, Gateway, Puppet, Script, Then, engine_with, in_turn, post, sse_head,
    until,
};

const REFUSAL: &str =
    "HTTP/1.1 400 X\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";

fn event(delta: &str, finish: &str) -> String {
    format!(
        r#"{{"id":"c","object":"chat.completion.chunk","created":7,"model":"DeepSeek-R1","choices":[{{"index":0,"delta":{{{delta}}},"finish_reason":{finish}}}]}}"#
    )
}

async fn say(exchange: &mut Exchange, text: &str) {
    let delta = format!(r#""content":"{text}""#);
    exchange.event(&event(&delta, "null")).await;
}

async fn end(exchange: &mut Exchange) {
    exchange.event(&event("", "\"stop\"")).await;
    exchange.event("[DONE]").await;
    exchange.last_chunk().await;
}

/// A stream of the first endpoint whose client has got `text`.
async fn begun(gateway: &Gateway, first: &mut Puppet, text: &str) -> (Client, Exchange) {
    let mut client = Client::connect(gateway.address).await;
    let request = post("/v1/chat/completions", chat(&json!({})).to_string());
    client.send(request.bytes()).await;
    let mut exchange = first.next().await;
    exchange.write(sse_head()).await;
    let role = event(r#""role":"assistant","content":"""#, "null");
    exchange.event(&role).await;
    say(&mut exchange, text).await;
    client.head().await;
    client.body_until(text).await;
    (client, exchange)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_nobody_takes_stays_where_it_is() {
    let drain = |gateway: &Gateway| {
        gateway.endpoint(0).drain(Instant::now());
    };
    let refuse = |gateway: &Gateway| {
        let refused = Err(ProbeFailure::Refused);
        gateway.endpoint(0).probed(refused, Instant::now());
    };
    for call_away in [drain, refuse] {
        let slow = Script {
            itl: Duration::from_millis(10),
            tokens: 300,
            ..Script::default()
        };
        let first = engine_with(slow).await;
        // Whatever it is asked for, it refuses.
        let second = Puppet::answering(REFUSAL, Then::Keep).await;
        let keys = format!("{KEYS}, drain_timeout: 100ms");
        let gateway =
            Gateway::start(&in_turn(&first.authority(), &second.authority(), &keys)).await;
        let mut client = Client::connect(gateway.address).await;
        let ask = chat(&json!({ "max_tokens": 300 })).to_string();
        client.send(post("/v1/chat/completions", ask).bytes()).await;
        client.head().await;
        client.body_until("content").await;
        call_away(&gateway);
        until("the other to be asked", || !second.requests().is_empty()).await;
        let (body, _) = client.rest().await;
        let text = String::from_utf8(body).unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        assert!(!text.contains("\"error\""), "{text}");
        assert_eq!(first.settled().await.completed(), 1);
        for result in ["ids", "text", "failed", "refused"] {
            assert_eq!(gateway.continuations(result), 0.0, "{result}");
        }
        gateway.finish().await;
    }
}

/// Calls that come to nothing give its engine no more time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_is_given_up_however_often_it_is_called_away() {
    let mut first = Puppet::start().await;
    let second = Puppet::answering(REFUSAL, Then::Keep).await;
    let keys = format!("{KEYS}, timeouts: {{ read: 500ms }}");
    let gateway = Gateway::start(&in_turn(&first.authority(), &second.authority(), &keys)).await;
    let (mut client, exchange) = begun(&gateway, &mut first, "So far").await;
    let endpoint = gateway.endpoint(0);
    let caller = tokio::spawn(async move {
        loop {
            endpoint.recall(Fault::Drained);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (body, end) = client.rest().await;
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains("\"error\"") && end == End::Closed, "{text}");
    assert_eq!(gateway.continuations("failed"), 1.0);
    caller.abort();
    drop(exchange);
    gateway.finish().await;
}

/// An engine that takes long to read it all gets a stream that is silent anyway, and none that flows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_flows_is_not_kept_waiting() {
    let (mut first, mut second) = (Puppet::start().await, Puppet::start().await);
    let urls = in_turn(&first.authority(), &second.authority(), KEYS);
    let gateway = Gateway::start(&urls).await;
    let (mut flowing, mut exchange) = begun(&gateway, &mut first, "It flows").await;
    let (mut silent, frozen) = begun(&gateway, &mut first, "It waits").await;
    gateway.endpoint(0).recall(Fault::ConnectRefused);
    let (mut one, mut other) = (second.next().await, second.next().await);
    say(&mut exchange, " on").await;
    flowing.body_until(" on").await;
    let is_one = tokio::select! {
        () = one.gone() => true,
        () = other.gone() => false,
    };
    end(&mut exchange).await;
    flowing.body_until("[DONE]").await;
    let mut for_silent = if is_one { other } else { one };
    for_silent.write(sse_head()).await;
    say(&mut for_silent, " no longer").await;
    end(&mut for_silent).await;
    let body = silent.body_until("[DONE]").await;
    assert!(body.contains(" no longer"), "{body}");
    assert_eq!(silent.rest().await.1, End::Framed);
    assert_eq!(gateway.continuations("text"), 1.0);
    drop((frozen, exchange));
    gateway.finish().await;
}

/// What it says while another is asked, in vain, is not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_stays_is_whole() {
    let (mut first, mut second) = (Puppet::start().await, Puppet::start().await);
    let urls = in_turn(&first.authority(), &second.authority(), KEYS);
    let gateway = Gateway::start(&urls).await;
    let (mut client, mut exchange) = begun(&gateway, &mut first, "one").await;
    gateway.endpoint(0).recall(Fault::Drained);
    let asked = second.next().await;
    say(&mut exchange, "two").await;
    say(&mut exchange, "three").await;
    asked.answer_json("{}").await;
    client.body_until("three").await;
    say(&mut exchange, "four").await;
    end(&mut exchange).await;
    let body = client.body_until("[DONE]").await;
    assert!(body.contains("four"), "{body}");
    assert_eq!(client.rest().await.1, End::Framed);
    gateway.finish().await;
}
