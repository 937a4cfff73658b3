//! `/v1/responses`, as `OpenAI`'s SDK reads it.

use std::time::Duration;

use loadtest::engine::{Cut, Death, Engine, EngineError, Fault, Script};
use serde_json::{Value, json};

use crate::client::{Ended, exchange, json, named_events, post_to, read, send};

fn create(fields: &str) -> String {
    let body = format!(r#"{{"model":"DeepSeek-R1","input":"hello"{fields}}}"#);
    post_to("/v1/responses", &body)
}

fn get(id: &Value) -> String {
    let id = id.as_str().unwrap();
    format!("GET /v1/responses/{id} HTTP/1.1\r\nHost: e\r\n\r\n")
}

fn cancel(id: &Value) -> String {
    let id = id.as_str().unwrap();
    format!("POST /v1/responses/{id}/cancel HTTP/1.1\r\nHost: e\r\nContent-Length: 0\r\n\r\n")
}

async fn engine(responses_store: bool) -> Engine {
    let script = Script {
        tokens: 8,
        whole_characters: true,
        responses_store,
        ..Script::default()
    };
    Engine::start(script).await.unwrap()
}

#[tokio::test]
async fn a_response_is_the_same_whole_and_streamed() {
    let engine = engine(false).await;
    let (status, whole) = json(&engine, &create("")).await;
    assert_eq!(status, 200);
    assert!(whole["id"].as_str().unwrap().starts_with("resp_"));
    let (answer, _) = exchange(&engine, &create(r#","stream":true"#)).await;
    assert!(answer.ends_with("0\r\n\r\n") && !answer.contains("[DONE]"));
    let events = named_events(&answer);
    let names: Vec<_> = events
        .iter()
        .map(|(name, _)| name.strip_prefix("response.").unwrap())
        .collect();
    let mut expected = vec![
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
    ];
    expected.extend(["output_text.delta"; 8]);
    expected.extend([
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]);
    assert_eq!(names, expected);
    for (number, (_, data)) in events.iter().enumerate() {
        assert_eq!(data["sequence_number"], number);
    }
    let text: String = events
        .iter()
        .filter_map(|(_, data)| data["delta"].as_str())
        .collect();
    let done = &events.last().unwrap().1["response"];
    for response in [&whole, done] {
        assert_eq!(response["output"][0]["content"][0]["text"], text.as_str());
        assert_eq!(response["status"], "completed");
        let usage = &response["usage"];
        assert_eq!(
            [
                &usage["input_tokens"],
                &usage["output_tokens"],
                &usage["total_tokens"]
            ],
            [5, 9, 14]
        );
    }
    assert_eq!(events[0].1["response"]["id"], done["id"]);
    assert_eq!(engine.inferences().len(), 2);
}

#[tokio::test]
async fn a_response_at_its_length_is_incomplete_but_its_last_event_is_completed() {
    let engine = engine(false).await;
    let (answer, _) = exchange(&engine, &create(r#","stream":true,"max_output_tokens":3"#)).await;
    let events = named_events(&answer);
    let (name, data) = events.last().unwrap();
    assert_eq!(name, "response.completed");
    assert_eq!(data["response"]["status"], "incomplete");
    assert_eq!(
        data["response"]["incomplete_details"],
        json!({"reason": "max_output_tokens"})
    );
}

#[tokio::test]
async fn the_first_events_come_before_the_engine_begins() {
    let engine = engine(false).await;
    engine.hold();
    let (answer, ended) = exchange(&engine, &create(r#","stream":true"#)).await;
    assert_eq!(ended, Ended::Open);
    assert!(answer.contains("event: response.in_progress"));
    assert!(!answer.contains("output_item.added"));
}

#[tokio::test]
async fn without_the_store_no_response_is_known() {
    let engine = engine(false).await;
    let (_, made) = json(&engine, &create("")).await;
    let id = &made["id"];
    let not_found = json!({"error": {
        "message": format!("Response with id '{}' not found.", id.as_str().unwrap()),
        "type": "invalid_request_error",
        "param": "response_id",
        "code": 404,
    }});
    let goes_on = create(&format!(r#","previous_response_id":{id}"#));
    for request in [get(id), cancel(id), goes_on] {
        assert_eq!(json(&engine, &request).await, (404, not_found.clone()));
    }
    let (status, refused) = json(&engine, &create(r#","background":true"#)).await;
    assert_eq!(
        (status, &refused["error"]["param"]),
        (400, &json!("background"))
    );
}

#[tokio::test]
async fn a_response_goes_on_from_another_of_the_same_engine() {
    let engine = engine(true).await;
    let (_, first) = json(&engine, &create(r#","instructions":"be kind""#)).await;
    let (_, kept) = json(&engine, &get(&first["id"])).await;
    assert_eq!(kept, first);
    let fields = format!(r#","previous_response_id":{}"#, first["id"]);
    let (_, second) = json(&engine, &create(&fields)).await;
    assert_eq!(second["previous_response_id"], first["id"]);
    let said = first["output"][0]["content"][0]["text"].clone();
    // The same conversation, told in full: instructions are not handed on.
    let told = json!({"model": "DeepSeek-R1", "input": [
        {"role": "user", "content": "hello"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": said}]},
        {"role": "user", "content": [{"type": "input_text", "text": "hello"}]},
    ]});
    let (_, told) = json(&engine, &post_to("/v1/responses", &told.to_string())).await;
    assert_eq!(told["usage"], second["usage"]);
    assert_eq!(
        told["output"][0]["content"][0]["text"],
        second["output"][0]["content"][0]["text"]
    );
    let (streamed, _) = exchange(&engine, &create(r#","stream":true"#)).await;
    let streamed = named_events(&streamed).pop().unwrap().1["response"].clone();
    assert_eq!(json(&engine, &get(&streamed["id"])).await, (200, streamed));
    let unkept = json(&engine, &create(r#","store":false"#)).await.1;
    assert_eq!(json(&engine, &get(&unkept["id"])).await.0, 404);
    engine.kill(Death::Close).await;
    engine.restart().await.unwrap();
    assert_eq!(
        json(&engine, &get(&first["id"])).await.0,
        404,
        "its memory is gone"
    );
}

#[tokio::test]
async fn a_response_in_the_background_is_asked_for_until_it_is_there() {
    let engine = engine(true).await;
    engine.hold();
    let (status, queued) = json(&engine, &create(r#","background":true"#)).await;
    assert_eq!((status, &queued["status"]), (200, &json!("queued")));
    assert_eq!(engine.in_flight(), 1);
    let (_, other) = json(&engine, &create(r#","background":true"#)).await;
    let (status, cancelled) = json(&engine, &cancel(&other["id"])).await;
    assert_eq!((status, &cancelled["status"]), (200, &json!("cancelled")));
    assert!(engine.wait_for_in_flight(1, Duration::from_secs(1)).await);
    engine.release();
    assert_eq!(engine.settled().await.in_flight(), 0);
    let (_, done) = json(&engine, &get(&queued["id"])).await;
    assert_eq!(
        (&done["status"], &done["usage"]["output_tokens"]),
        (&json!("completed"), &json!(9))
    );
    assert_eq!(
        json(&engine, &get(&other["id"])).await.1["status"],
        "cancelled"
    );
    let (status, _) = json(&engine, &cancel(&queued["id"])).await;
    assert_eq!(status, 400, "it is made already");
}

#[tokio::test]
async fn faults_end_a_stream_of_responses_as_vllm_ends_it() {
    let engine = engine(false).await;
    let fail = async |fault: Fault| {
        engine.fail_next(1, fault);
        exchange(&engine, &create(r#","stream":true"#)).await
    };
    let deltas = |answer: &str| answer.matches("event: response.output_text.delta").count();
    for how in [Cut::Close, Cut::Silence] {
        let (answer, ended) = fail(Fault::Cut { after: 3, how }).await;
        let end = if how == Cut::Close {
            Ended::Fin
        } else {
            Ended::Open
        };
        assert!(deltas(&answer) == 3 && ended == end, "{how:?}");
    }
    // There is no event for an error: the connection closes inside the answer.
    let error = EngineError::CoreDead;
    let (answer, ended) = fail(Fault::Error { after: 3, error }).await;
    assert!(deltas(&answer) == 3 && ended == Ended::Fin);
    assert!(answer.ends_with("}\n\n\r\n") && !answer.contains("EngineCore"));
    let (answer, ended) = fail(Fault::Error { after: 0, error }).await;
    assert!(answer.contains("response.in_progress") && ended == Ended::Fin);
    let (answer, _) = fail(Fault::Abort { after: 3 }).await;
    let events = named_events(&answer);
    let (name, data) = events.last().unwrap();
    assert!(deltas(&answer) == 3 && name == "response.completed");
    assert_eq!(data["response"]["status"], "completed");
}

#[tokio::test]
async fn a_dying_engine_ends_responses_too() {
    for (death, last) in [
        (Death::Close, "response.output_text.delta"),
        (Death::Error, "response.output_text.delta"),
        (Death::Abort, "response.completed"),
    ] {
        let script = Script {
            tokens: 1000,
            itl: Duration::from_millis(5),
            ..Script::default()
        };
        let engine = Engine::start(script).await.unwrap();
        let mut stream = send(&engine, &create(r#","stream":true"#)).await;
        while engine.tokens() < 3 {
            tokio::task::yield_now().await;
        }
        engine.kill(death).await;
        let (answer, ended) = read(&mut stream).await;
        let name = answer.rsplit("event: ").next().unwrap();
        assert_eq!(ended, Ended::Fin, "{death:?}");
        assert!(name.starts_with(last), "{death:?}: {answer}");
    }
}
