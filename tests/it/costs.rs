//! What a request cost its key, where no count of the engine's came with the answer, or more than one.

use serde_json::json;
use tokio::time::Instant;

use crate::support::{Client, Gateway, Puppet, Request, Then, get, post, sse_head, until};

/// A minute of it; a second brings a hundred back.
const LIMIT: u64 = 6000;
/// What may have come back while a test ran.
const REFILLED: u64 = 1000;
const KEY: &str = "Authorization: Bearer sk-limited-0123456789abcdef";

async fn before(engine: &Puppet) -> Gateway {
    with_limits(engine, "").await
}

async fn with_limits(engine: &Puppet, limits: &str) -> Gateway {
    let key = format!(
        "{{ name: limited, key: sk-limited-0123456789abcdef, tokens_per_minute: {LIMIT} }}"
    );
    Gateway::start(&format!(
        "endpoints: [\"{}\"]\nkeys: [{key}]\n{limits}",
        engine.authority()
    ))
    .await
}

fn remaining(gateway: &Gateway) -> u64 {
    let snapshot = gateway.shared().snapshot.load();
    let tenant = snapshot.keyring.as_ref().unwrap().tenants().next().unwrap();
    tenant.rate(Instant::now()).tokens.unwrap().remaining
}

fn chat(more: &serde_json::Value) -> serde_json::Value {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "Hi" }] });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn asked(path: &str, body: &serde_json::Value) -> Request {
    post(path, body.to_string()).field(KEY)
}

fn json_answer(body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_counted_costs_what_it_might_have() {
    let long = format!(
        "{{\"x\":\"{}\",\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":2}}}}",
        "x".repeat(1 << 20)
    );
    let background = r#"{"id":"resp_1","status":"queued","usage":null}"#;
    for (path, answer, limit) in [
        ("/v1/chat/completions", &*long, "max_tokens"),
        ("/v1/responses", background, "max_output_tokens"),
    ] {
        let puppet = Puppet::answering(json_answer(answer), Then::Keep).await;
        let gateway = before(&puppet).await;
        let request = chat(&json!({ limit: 4000 }));
        let shown = gateway.ask(&asked(path, &request)).await;
        assert_eq!((shown.status, shown.body.len()), (200, answer.len()));
        gateway.quiet().await;
        assert!(remaining(&gateway) < LIMIT - 4000 + REFILLED, "{path}");
        gateway.finish().await;
    }
}

/// Whether or not the prompt was counted before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_could_not_be_read_to_its_end_costs_what_it_might_have() {
    let long = "x".repeat(8192);
    let chat_event = json!({ "choices": [{ "index": 0, "delta": { "content": "a" } }] });
    let start =
        r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":0}}}"#;
    let delta = r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}"#;
    let (chat_event, done) = (chat_event.to_string(), "[DONE]");
    let stop = r#"{"type":"message_stop"}"#;
    for (path, events) in [
        ("/v1/chat/completions", [&*chat_event, &long, done]),
        ("/v1/messages", [start, &long, stop]),
        ("/v1/messages", [delta, &long, stop]),
    ] {
        let mut puppet = Puppet::start().await;
        let gateway = with_limits(&puppet, "limits: { event: 4KiB }").await;
        let request = chat(&json!({ "stream": true, "max_tokens": 4000 }));
        let mut client = Client::connect(gateway.address).await;
        client.send(asked(path, &request).bytes()).await;
        let mut exchange = puppet.next().await;
        exchange.write(sse_head()).await;
        for event in events {
            exchange.event(event).await;
        }
        exchange.last_chunk().await;
        assert_eq!(client.answer().await.status, 200);
        gateway.quiet().await;
        assert!(remaining(&gateway) < LIMIT - 4000 + REFILLED, "{path}");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_sglangs_generate_counts_is_charged() {
    let answer = r#"[{"text":"a","meta_info":{"prompt_tokens":1000,"completion_tokens":1000,"cached_tokens":0}},
        {"text":"b","meta_info":{"prompt_tokens":1000,"completion_tokens":1000,"cached_tokens":0}}]"#;
    let mut puppet = Puppet::start().await;
    let gateway = before(&puppet).await;
    let request = asked(
        "/generate",
        &json!({ "text": "Hi", "sampling_params": { "max_new_tokens": 3000 } }),
    );
    let mut client = Client::connect(gateway.address).await;
    client.send(request.bytes()).await;
    let exchange = puppet.next().await;
    assert!(remaining(&gateway) < LIMIT - 3000 + REFILLED);
    exchange.answer(json_answer(answer)).await;
    assert_eq!(client.answer().await.status, 200);
    gateway.quiet().await;
    assert!(remaining(&gateway) < LIMIT - 4000 + REFILLED);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_before_the_answer_pays_for_the_prompt() {
    let mut puppet = Puppet::start().await;
    let gateway = before(&puppet).await;
    let prompt = "word ".repeat(3_200);
    let request =
        chat(&json!({ "messages": [{ "role": "user", "content": prompt }], "max_tokens": 16 }));
    let mut client = Client::connect(gateway.address).await;
    client
        .send(asked("/v1/chat/completions", &request).bytes())
        .await;
    let mut exchange = puppet.next().await;
    drop(client);
    exchange.gone().await;
    gateway.quiet().await;
    assert!(remaining(&gateway) < LIMIT - 4000 + REFILLED);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_left_before_its_end_is_counted_by_its_events() {
    let mut puppet = Puppet::start().await;
    let gateway = before(&puppet).await;
    let request = chat(&json!({ "stream": true, "max_tokens": 100 }));
    let mut client = Client::connect(gateway.address).await;
    client.send(asked("/v1/messages", &request).bytes()).await;
    let mut exchange = puppet.next().await;
    exchange.write(sse_head()).await;
    exchange
        .event(
            r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":0}}}"#,
        )
        .await;
    for text in ["one", "two", "three"] {
        let delta = json!({ "type": "content_block_delta", "delta": { "type": "text_delta", "text": text } });
        exchange.event(&delta.to_string()).await;
    }
    client.head().await;
    client.body_until("three").await;
    drop(client);
    exchange.gone().await;
    gateway.quiet().await;
    let tokens = |kind: &str| {
        gateway.metric(&format!(
            "sluicegate_key_tokens_total{{key=\"limited\",kind=\"{kind}\"}}"
        ))
    };
    until("the request to be counted", || tokens("prompt") > 0.0).await;
    assert_eq!((tokens("prompt"), tokens("completion")), (9.0, 3.0));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_counted_once_however_often_it_is_read() {
    let answer =
        r#"{"id":"resp_1","object":"response","usage":{"input_tokens":9,"output_tokens":4}}"#;
    let puppet = Puppet::answering(json_answer(answer), Then::Keep).await;
    let gateway = before(&puppet).await;
    let made = asked("/v1/responses", &json!({ "model": "m", "input": "Hi" }));
    assert_eq!(gateway.ask(&made).await.status, 200);
    for _ in 0..3 {
        let kept = gateway.ask(&get("/v1/responses/resp_1").field(KEY)).await;
        assert_eq!(kept.body, answer.as_bytes());
    }
    gateway.quiet().await;
    let requests = "sluicegate_key_requests_total{key=\"limited\",result=\"complete\"}";
    gateway.wait_for_metric(requests, 4.0).await;
    let completion = "sluicegate_key_tokens_total{key=\"limited\",kind=\"completion\"}";
    assert_eq!(gateway.metric(completion), 4.0);
    gateway.finish().await;
}
