//! Responses that an engine keeps: their ids lead to that engine, and only with the key they were made with.

use serde_json::{Value, json};

use crate::support::{Answer, Engine, Gateway, Request, Script, engine_with, get, pool, post};

async fn keeping() -> Engine {
    engine_with(Script {
        responses_store: true,
        ..Script::default()
    })
    .await
}

fn ask(more: &Value) -> Request {
    let mut body = json!({ "model": "DeepSeek-R1", "input": "Say something." });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    post("/v1/responses", body.to_string())
}

fn id(answer: &Answer) -> String {
    assert_eq!(
        answer.status,
        200,
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    let text = String::from_utf8(answer.body.clone()).unwrap();
    let json = match text.split_once("data: ") {
        Some((_, first)) => {
            let event: Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
            event["response"].clone()
        }
        None => serde_json::from_str(&text).unwrap(),
    };
    json["id"].as_str().unwrap().to_owned()
}

fn code(answer: &Answer) -> (u16, Value) {
    let error: Value = serde_json::from_slice(&answer.body).unwrap();
    (answer.status, error["error"]["code"].clone())
}

fn not_found() -> (u16, Value) {
    (404, "response_not_found".into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follow_ups_go_to_the_engine_that_made_the_response() {
    let engines = [keeping().await, keeping().await, keeping().await];
    let endpoints = engines
        .each_ref()
        .map(|engine| format!("\"{}\"", engine.authority()));
    let gateway = Gateway::start(&pool(&endpoints, "policy: round_robin")).await;
    for stream in [false, true] {
        for _ in 0..4 {
            let first = id(&gateway.ask(&ask(&json!({ "stream": stream }))).await);
            let next = ask(&json!({ "previous_response_id": first }));
            let second = id(&gateway.ask(&next).await);
            for known in [&first, &second] {
                let kept = gateway.ask(&get(&format!("/v1/responses/{known}"))).await;
                assert_eq!(&id(&kept), known);
            }
        }
    }
    let unknown = ask(&json!({ "previous_response_id": "resp_unknown" }));
    assert_eq!(code(&gateway.ask(&unknown).await), not_found());
    for request in [
        get("/v1/responses/resp_unknown"),
        post("/v1/responses/resp_unknown/cancel", ""),
    ] {
        assert_eq!(code(&gateway.ask(&request).await), not_found());
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_reaches_anothers_response() {
    let engine = keeping().await;
    let keys =
        "keys: [{ name: a, key: sk-a-0123456789abcdef }, { name: b, key: sk-b-0123456789abcdef }]";
    let gateway = Gateway::start(&format!("endpoints: [\"{}\"]\n{keys}", engine.authority())).await;
    let with = |request: Request, key: &str| {
        request.field(&format!("Authorization: Bearer sk-{key}-0123456789abcdef"))
    };
    let made = id(&gateway.ask(&with(ask(&json!({})), "a")).await);
    let asked = get(&format!("/v1/responses/{made}"));
    assert_eq!(id(&gateway.ask(&with(asked.clone(), "a")).await), made);
    assert_eq!(code(&gateway.ask(&with(asked, "b")).await), not_found());
    let next = ask(&json!({ "previous_response_id": made }));
    assert_eq!(code(&gateway.ask(&with(next, "b")).await), not_found());
    gateway.finish().await;
}
