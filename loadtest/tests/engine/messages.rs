//! `/v1/messages`, as Anthropic's SDK reads it.

use loadtest::engine::{Cut, Death, Engine, EngineError, Fault, Script};
use serde_json::json;

use std::time::Duration;

use crate::client::{Ended, body, exchange, json, named_events, post_to, read, send};

const ASKED: &str = r#"{"max_tokens":100,"messages":[{"role":"user","content":"hello"}],"model":"DeepSeek-R1","stream":STREAM}"#;

fn messages(stream: bool) -> String {
    let stream = if stream { "true" } else { "false" };
    post_to("/v1/messages", &ASKED.replace("STREAM", stream))
}

async fn engine(tokens: usize) -> Engine {
    let script = Script {
        tokens,
        whole_characters: true,
        ..Script::default()
    };
    Engine::start(script).await.unwrap()
}

#[tokio::test]
async fn a_message_is_the_same_whole_and_streamed() {
    let engine = engine(8).await;
    let (status, whole) = json(&engine, &messages(false)).await;
    assert_eq!(status, 200);
    let (answer, ended) = exchange(&engine, &messages(true)).await;
    assert_eq!(ended, Ended::Open);
    assert!(answer.ends_with("\n\n\r\n0\r\n\r\n") && !answer.contains("[DONE]"));
    let events = named_events(&answer);
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    let mut expected = vec!["message_start", "content_block_start"];
    expected.extend(["content_block_delta"; 8]);
    expected.extend(["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(names, expected);
    let text: String = events
        .iter()
        .filter_map(|(_, data)| data["delta"]["text"].as_str())
        .collect();
    assert_eq!(whole["content"], json!([{"type": "text", "text": text}]));
    let start = &events[0].1["message"];
    assert_eq!(
        (&start["type"], &start["role"], &start["content"]),
        (&json!("message"), &json!("assistant"), &json!([]))
    );
    assert_eq!(
        start["usage"],
        json!({"input_tokens": 5, "output_tokens": 0})
    );
    let end = &events[events.len() - 2].1;
    assert_eq!(end["delta"]["stop_reason"], "end_turn");
    assert_eq!(end["usage"], json!({"input_tokens": 5, "output_tokens": 9}));
    assert_eq!(
        (&whole["stop_reason"], &whole["usage"]),
        (&end["delta"]["stop_reason"], &end["usage"])
    );
    let paths: Vec<_> = engine
        .inferences()
        .into_iter()
        .map(|request| request.target)
        .collect();
    assert_eq!(paths, ["/v1/messages", "/v1/messages"]);
    assert_eq!(engine.settled().await.completed(), 2);
}

#[tokio::test]
async fn an_answer_says_why_it_ended() {
    let engine = engine(8).await;
    let ask = async |fields: &str| {
        let asked = ASKED.replace("\"stream\":STREAM", fields);
        json(&engine, &post_to("/v1/messages", &asked)).await.1
    };
    let whole = ask("\"stream\":false").await;
    let text = whole["content"][0]["text"].as_str().unwrap();
    let word = text.split(' ').nth(3).unwrap();
    let stopped = ask(&format!("\"stop_sequences\":[{}]", json!(word))).await;
    assert_eq!(
        (&stopped["stop_reason"], &stopped["stop_sequence"]),
        (&json!("stop_sequence"), &json!(word))
    );
    let short = ASKED.replace("100", "3").replace("STREAM", "false");
    let (_, short) = json(&engine, &post_to("/v1/messages", &short)).await;
    assert_eq!(short["stop_reason"], "max_tokens");
    assert_eq!(short["usage"]["output_tokens"], 3);
}

#[tokio::test]
async fn system_and_content_may_be_text_or_parts() {
    let engine = engine(4).await;
    let ask = async |system: &str, content: &str| {
        let body = format!(
            r#"{{"model":"DeepSeek-R1","max_tokens":9,"system":{system},"messages":[{{"role":"user","content":{content}}}]}}"#
        );
        let (status, counted) = json(&engine, &post_to("/v1/messages/count_tokens", &body)).await;
        assert_eq!(status, 200);
        let (_, answer) = json(&engine, &post_to("/v1/messages", &body)).await;
        assert_eq!(counted["input_tokens"], answer["usage"]["input_tokens"]);
        answer["content"].clone()
    };
    let plain = ask("\"be kind\"", "\"hello\"").await;
    let parts = ask(
        r#"[{"type":"text","text":"x-anthropic-billing-header: 1"},{"type":"text","text":"be kind"}]"#,
        r#"[{"type":"text","text":"hello"}]"#,
    )
    .await;
    assert_eq!(plain, parts);
    assert_ne!(plain, ask("\"be brief\"", "\"hello\"").await);
    assert_eq!(engine.inferences().len(), 3, "counting is no inference");
}

#[tokio::test]
async fn faults_end_a_stream_of_messages_as_vllm_ends_it() {
    let engine = engine(8).await;
    let fail = async |fault: Fault, stream: bool| {
        engine.fail_next(1, fault);
        exchange(&engine, &messages(stream)).await
    };
    let deltas = |answer: &str| answer.matches("event: content_block_delta").count();
    let cut = |how| Fault::Cut { after: 3, how };
    let (answer, ended) = fail(cut(Cut::Close), true).await;
    assert!(deltas(&answer) == 3 && ended == Ended::Fin && !answer.ends_with("0\r\n\r\n"));
    let (answer, ended) = fail(cut(Cut::InEvent), true).await;
    assert!(deltas(&answer) == 4 && ended == Ended::Fin && !answer.ends_with("\n\n\r\n"));
    let (answer, ended) = fail(cut(Cut::Silence), true).await;
    assert!(deltas(&answer) == 3 && ended == Ended::Open && !answer.contains("message_stop"));
    let dead = EngineError::CoreDead;
    let (answer, ended) = fail(
        Fault::Error {
            after: 3,
            error: dead,
        },
        true,
    )
    .await;
    let events = named_events(&answer);
    let (name, error) = events.last().unwrap();
    assert!(name == "error" && deltas(&answer) == 3 && ended == Ended::Open);
    assert_eq!(error["error"]["type"], "internal_error");
    assert!(!answer.contains("message_stop") && answer.ends_with("0\r\n\r\n"));
    let busy = EngineError::Busy;
    let (answer, _) = fail(
        Fault::Error {
            after: 0,
            error: busy,
        },
        true,
    )
    .await;
    let events = named_events(&answer);
    assert!(
        events.len() == 1
            && events[0].1["error"]["message"]
                .as_str()
                .unwrap()
                .contains("503")
    );
    let (answer, _) = fail(
        Fault::Error {
            after: 0,
            error: busy,
        },
        false,
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 503 "));
    assert!(body(&answer).starts_with(r#"{"type":"error","error":{"type":"Service Unavailable","#));
    let (answer, _) = fail(Fault::Abort { after: 2 }, true).await;
    let events = named_events(&answer);
    let (_, end) = &events[events.len() - 2];
    assert!(deltas(&answer) == 2 && end["delta"]["stop_reason"].is_null());
    assert_eq!(events.last().unwrap().0, "message_stop");
}

#[tokio::test]
async fn a_dying_engine_ends_messages_too() {
    for (death, last, ended) in [
        (Death::Close, "content_block_delta", Ended::Fin),
        (Death::Freeze, "content_block_delta", Ended::Open),
        (Death::Abort, "message_stop", Ended::Fin),
        (Death::Error, "error", Ended::Fin),
    ] {
        let script = Script {
            tokens: 1000,
            itl: Duration::from_millis(5),
            ..Script::default()
        };
        let engine = Engine::start(script).await.unwrap();
        let mut stream = send(&engine, &messages(true)).await;
        engine.wait_for_arrivals(1).await;
        while engine.tokens() < 3 {
            tokio::task::yield_now().await;
        }
        engine.kill(death).await;
        let (answer, how) = read(&mut stream).await;
        let name = answer.rsplit("event: ").next().unwrap();
        assert_eq!(how, ended, "{death:?}");
        assert!(name.starts_with(last), "{death:?}: {answer}");
    }
}
