//! Every answer's tokens are counted, also where the client did not ask, and it sees only what it asked for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Client, Engine, Gateway, Puppet, Script, Then, engine, engine_with, post, until,
};

const TOKENS: &str = "sluicegate_tokens_total{kind=\"KIND\",model=\"other\",pool=\"default\"}";

fn tokens(gateway: &Gateway, kind: &str) -> f64 {
    gateway.metric(&TOKENS.replace("KIND", kind))
}

async fn one(script: Script) -> (Engine, Gateway) {
    let engine = engine_with(script).await;
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", engine.authority())).await;
    (engine, gateway)
}

fn body(more: &Value) -> String {
    let mut body = json!({ "messages": [{ "role": "user", "content": "Say something." }], "model": "DeepSeek-R1" });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body.to_string()
}

/// What the engine got, as JSON.
fn received(engine: &Engine) -> Value {
    let inferences = engine.inferences();
    let body = inferences.last().unwrap().body.clone().unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_counted_and_the_client_sees_what_it_asked_for() {
    for (path, asked) in [
        ("/v1/chat/completions", json!({})),
        ("/v1/chat/completions", json!({ "stream_options": null })),
        ("/v1/chat/completions", json!({ "stream_options": {} })),
        (
            "/v1/chat/completions",
            json!({ "stream_options": { "include_usage": false } }),
        ),
        (
            "/v1/chat/completions",
            json!({ "stream_options": { "include_usage": false, "continuous_usage_stats": true } }),
        ),
        (
            "/v1/completions",
            json!({ "prompt": "Say something.", "stream_options": { "continuous_usage_stats": true } }),
        ),
        (
            "/v1/chat/completions",
            json!({ "stream_options": { "include_usage": true } }),
        ),
        ("/v1/completions", json!({ "prompt": "Say something." })),
    ] {
        let (engine, gateway) = one(Script::default()).await;
        let mut request = asked.clone();
        request["stream"] = true.into();
        let answer = gateway.ask(&post(path, body(&request))).await;
        assert_eq!(answer.status, 200, "{asked}");
        let text = String::from_utf8(answer.body).unwrap();
        assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
        let wants = asked["stream_options"]["include_usage"] == true;
        assert_eq!(text.contains("\"usage\""), wants, "{asked}: {text}");
        assert_eq!(received(&engine)["stream_options"]["include_usage"], true);
        gateway.quiet().await;
        // What the engine gives where nobody says how much.
        let most = if path == "/v1/completions" {
            16.0
        } else {
            17.0
        };
        assert_eq!(tokens(&gateway, "completion"), most, "{asked}");
        assert!(tokens(&gateway, "prompt") >= 3.0);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_client_asked_for_passes_byte_for_byte() {
    let (engine, gateway) = one(Script::default()).await;
    let stream = json!({ "stream": true, "stream_options": { "include_usage": true } });
    for sent in [body(&stream), body(&json!({ "stream": false }))] {
        gateway.ask(&post("/v1/chat/completions", &*sent)).await;
        let inferences = engine.inferences();
        assert_eq!(
            inferences.last().unwrap().body.as_deref(),
            Some(sent.as_bytes())
        );
    }
    gateway.finish().await;
    // `expose: all` is nginx: nothing is asked for.
    let engine = engine_with(Script::default()).await;
    let all = format!("endpoints: [\"{}\"]\nexpose: all", engine.authority());
    let gateway = Gateway::start(&all).await;
    let sent = body(&json!({ "stream": true }));
    gateway.ask(&post("/v1/chat/completions", &*sent)).await;
    assert_eq!(
        engine.inferences()[0].body.as_deref(),
        Some(sent.as_bytes())
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_answers_are_counted_in_every_shape() {
    let cached =
        r#"{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":3}}"#;
    let responses =
        r#"{"input_tokens":9,"output_tokens":4,"input_tokens_details":{"cached_tokens":3}}"#;
    let anthropic = r#"{"input_tokens":6,"output_tokens":4,"cache_read_input_tokens":3}"#;
    for (path, usage) in [
        ("/v1/chat/completions", cached),
        ("/v1/completions", cached),
        ("/v1/embeddings", cached),
        ("/v1/responses", responses),
        ("/v1/messages", anthropic),
    ] {
        let answer = format!("{{\"id\":\"x\",\"usage\":{usage}}}");
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        let puppet = Puppet::answering(&head, Then::Keep).await;
        let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", puppet.authority())).await;
        let shown = gateway.ask(&post(path, body(&json!({})))).await;
        assert_eq!(shown.body, answer.as_bytes());
        gateway.quiet().await;
        let counted = ["prompt", "completion", "cached"].map(|kind| tokens(&gateway, kind));
        assert_eq!(counted, [9.0, 4.0, 3.0], "{path}");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_the_client_left_is_counted_as_far_as_it_came() {
    for (asked, exact) in [
        (json!({}), false),
        (
            json!({ "include_usage": true, "continuous_usage_stats": true }),
            true,
        ),
    ] {
        let slow = Script {
            itl: Duration::from_secs(20),
            ..Script::default()
        };
        let (engine, gateway) = one(slow).await;
        let request = body(&json!({ "stream": true, "stream_options": asked }));
        let mut client = Client::connect(gateway.address).await;
        client
            .send(post("/v1/chat/completions", request).bytes())
            .await;
        client.head().await;
        client.body_until("\"content\":\" ").await;
        drop(client);
        until("the engine to be told", || engine.in_flight() == 0).await;
        gateway.quiet().await;
        gateway
            .wait_for_metric(&TOKENS.replace("KIND", "completion"), 1.0)
            .await;
        assert_eq!(tokens(&gateway, "prompt") > 0.0, exact);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_between_events_are_counted_for_streams_alone() {
    let steady = Script {
        itl: Duration::from_millis(5),
        ..Script::default()
    };
    let (_engine, gateway) = one(steady).await;
    let labels = "{model=\"other\",pool=\"default\"}";
    let count = |family: &str| gateway.metric(&format!("sluicegate_{family}_count{labels}"));
    gateway
        .ask(&post("/v1/chat/completions", body(&json!({}))))
        .await;
    gateway.quiet().await;
    assert_eq!((count("e2el_seconds"), count("itl_seconds")), (1.0, 0.0));
    let stream = body(&json!({ "stream": true }));
    gateway.ask(&post("/v1/chat/completions", stream)).await;
    gateway.quiet().await;
    assert_eq!(count("e2el_seconds"), 2.0);
    assert_eq!(count("ttft_seconds"), 1.0);
    assert_eq!(count("tpot_seconds"), 1.0);
    assert!(count("itl_seconds") >= 14.0, "{}", count("itl_seconds"));
    let sum = gateway.metric(&format!("sluicegate_itl_seconds_sum{labels}"));
    assert!((0.05..5.0).contains(&sum), "{sum}");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_that_are_none_do_no_harm() {
    for usage in ["-1", "\"many\"", "null", "1e300", "[]"] {
        let answer =
            format!("{{\"usage\":{{\"prompt_tokens\":{usage},\"completion_tokens\":{usage}}}}}");
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        let puppet = Puppet::answering(&head, Then::Keep).await;
        let gateway = Gateway::start(&format!("endpoints: [\"{}\"]", puppet.authority())).await;
        let shown = gateway
            .ask(&post("/v1/chat/completions", body(&json!({}))))
            .await;
        assert_eq!((shown.status, shown.body), (200, answer.into_bytes()));
        gateway.quiet().await;
        assert_eq!(tokens(&gateway, "prompt"), 0.0);
        gateway.finish().await;
    }
    drop(engine().await);
}
