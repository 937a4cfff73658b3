//! `/v1/embeddings`, `/score` and `/rerank` of an embedding model.

use std::time::Duration;

use loadtest::engine::{Engine, EngineError, Fault, Script};
use serde_json::{Value, json};

use crate::client::{CHAT, exchange, json, post, post_to};

async fn engine() -> Engine {
    let script = Script {
        embeddings: Some(16),
        ..Script::default()
    };
    Engine::start(script).await.unwrap()
}

fn vector(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap();
    values.iter().map(|value| value.as_f64().unwrap()).collect()
}

#[tokio::test]
async fn a_text_has_the_same_vector_on_every_engine_and_in_every_form() {
    let (one, other) = (engine().await, engine().await);
    let embed = |fields: &str| post_to("/v1/embeddings", &format!("{{\"input\":{fields}}}"));
    let (status, answer) = json(&one, &embed(r#"["a cat","a dog"]"#)).await;
    assert_eq!((status, &answer["object"]), (200, &json!("list")));
    assert_eq!(answer["data"][1]["index"], 1);
    let cat = vector(&answer["data"][0]["embedding"]);
    assert_eq!(cat.len(), 16);
    assert!((cat.iter().map(|value| value * value).sum::<f64>() - 1.0).abs() < 1e-5);
    assert_ne!(cat, vector(&answer["data"][1]["embedding"]));
    let usage = &answer["usage"];
    assert_eq!(usage["prompt_tokens"], usage["total_tokens"]);
    assert!(usage["prompt_tokens"].as_u64() > Some(4));
    let (_, again) = json(&other, &embed(r#""a cat""#)).await;
    assert_eq!(again["data"][0], answer["data"][0]);
    let (_, base64) = json(&other, &embed(r#""a cat","encoding_format":"base64""#)).await;
    let base64 = base64["data"][0]["embedding"].as_str().unwrap().len();
    assert_eq!(base64, (16_usize * 4).div_ceil(3) * 4);
    let (_, short) = json(&one, &embed(r#""a cat","dimensions":4"#)).await;
    assert_eq!(vector(&short["data"][0]["embedding"]).len(), 4);
    for refused in [
        r#""x","dimensions":17"#,
        "[]",
        "5",
        r#""x","encoding_format":"bits""#,
    ] {
        assert_eq!(json(&one, &embed(refused)).await.0, 400, "{refused}");
    }
}

#[tokio::test]
async fn what_shares_words_scores_and_ranks_higher() {
    let engine = engine().await;
    let body =
        r#"{"queries":"the gateway picks","documents":["nothing here","the gateway picks one"]}"#;
    for path in ["/score", "/v1/score"] {
        let (status, scores) = json(&engine, &post_to(path, body)).await;
        let score = |at: usize| scores["data"][at]["score"].as_f64().unwrap();
        assert!(status == 200 && score(0) < score(1), "{scores}");
        assert!(scores["usage"]["total_tokens"].as_u64() > Some(5));
    }
    let body = body.replace("queries", "query");
    for path in ["/rerank", "/v1/rerank", "/v2/rerank"] {
        let (status, ranking) = json(&engine, &post_to(path, &body)).await;
        assert_eq!(status, 200);
        let results = ranking["results"].as_array().unwrap();
        assert_eq!((results.len(), &results[0]["index"]), (2, &json!(1)));
        assert_eq!(results[0]["document"]["text"], "the gateway picks one");
    }
    let top = body.replacen('{', "{\"top_n\":1,", 1);
    let (_, ranking) = json(&engine, &post_to("/rerank", &top)).await;
    assert_eq!(ranking["results"].as_array().unwrap().len(), 1);
    let uneven = r#"{"text_1":["a","b"],"text_2":["a","b","c"]}"#;
    assert_eq!(json(&engine, &post_to("/score", uneven)).await.0, 400);
}

#[tokio::test]
async fn a_model_makes_text_or_vectors() {
    let (text, vectors) = (
        Engine::start(Script::default()).await.unwrap(),
        engine().await,
    );
    let not_found = (404, json!({"detail": "Not Found"}));
    for path in ["/v1/embeddings", "/score", "/rerank"] {
        let request = post_to(path, r#"{"input":"x"}"#);
        assert_eq!(json(&text, &request).await, not_found, "{path}");
    }
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/messages",
        "/v1/responses",
    ] {
        let request = post_to(path, r#"{"input":"x"}"#);
        assert_eq!(json(&vectors, &request).await, not_found, "{path}");
    }
    text.fail_next(1, Fault::Status(500));
    _ = json(&text, &post_to("/v1/embeddings", "{}")).await;
    let asked = post(&CHAT.replace("STREAM", "false"));
    assert_eq!(
        json(&text, &asked).await.0,
        500,
        "a path that is not there takes no fault"
    );
}

#[tokio::test]
async fn embeddings_wait_fail_and_are_counted_as_chats_are() {
    let engine = engine().await;
    let embed = post_to("/v1/embeddings", r#"{"input":"x"}"#);
    let error = EngineError::Busy;
    engine.fail_next(1, Fault::Error { after: 0, error });
    assert_eq!(json(&engine, &embed).await.0, 503);
    engine.fail_next(1, Fault::CloseOnBody);
    assert_eq!(exchange(&engine, &embed).await.0, "");
    engine.hold();
    assert_eq!(exchange(&engine, &embed).await.0, "");
    assert!(engine.wait_for_in_flight(0, Duration::from_secs(1)).await);
    engine.release();
    assert_eq!(json(&engine, &embed).await.0, 200);
    assert_eq!(engine.inferences().len(), 4);
    assert_eq!((engine.left(), engine.tokens()), (1, 0));
}
