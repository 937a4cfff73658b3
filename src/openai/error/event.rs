//! An engine's own error as an event, for a stream whose head has gone before the engine said anything.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Dialect, anthropic_kind_of, echo, kind_of, to_json};

/// The `body` that an engine answered with, as the last event of a stream in this dialect: its own error object where
/// it has one. `status` fills in what it does not say. The connection is to be cut after it.
pub fn passed_on(dialect: Dialect, status: u16, body: &[u8]) -> Bytes {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let (name, data) = match dialect {
        Dialect::Messages => ("event: error\n", anthropic(&said, status)),
        Dialect::Responses => {
            let error = openai(&said, status);
            let flat = json!({
                "type": "error",
                "code": error["code"],
                "message": error["message"],
                "param": error["param"],
                "error": error,
            });
            ("event: error\n", flat)
        }
        Dialect::Chat | Dialect::Completions | Dialect::Other => {
            ("", json!({ "error": openai(&said, status) }))
        }
    };
    Bytes::from(format!("{name}data: {}\n\n", to_json(&data)))
}

/// OpenAI's error object. SGLang's errors, and vLLM's of old, are flat.
fn openai(said: &Value, status: u16) -> Value {
    let is_flat = said["object"] == "error";
    let own = match &said["error"] {
        Value::Object(own) => Some(own),
        _ => said.as_object().filter(|_| is_flat),
    };
    let mut error = own.cloned().unwrap_or_default();
    error.remove("object");
    for (key, value) in [
        ("message", message(said, status).into()),
        ("type", kind_of(status).into()),
        ("param", Value::Null),
        ("code", status.into()),
    ] {
        error.entry(key).or_insert(value);
    }
    error.into()
}

/// Anthropic's envelope.
fn anthropic(said: &Value, status: u16) -> Value {
    if said["type"] == "error" && said["error"]["type"].is_string() {
        return said.clone();
    }
    let error = json!({ "type": anthropic_kind_of(status), "message": message(said, status) });
    json!({ "type": "error", "error": error })
}

fn message(said: &Value, status: u16) -> String {
    let detail = &said["detail"];
    let places = [
        &said["error"]["message"],
        &said["error"],
        &said["message"],
        detail,
    ];
    let mut texts = places.into_iter().filter_map(Value::as_str);
    match texts.find(|text| !text.is_empty()) {
        Some(text) => text.to_owned(),
        // FastAPI's list of what is wrong with a body.
        None if detail.is_array() => echo(detail.to_string().as_bytes()),
        None => format!("The inference server answered {status}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VLLM: &str =
        r#"{"error":{"message":"too long","type":"BadRequestError","param":"prompt","code":400}}"#;
    const SGLANG: &str =
        "{\"object\":\"error\",\n \"message\":\"too long\",\"type\":\"Bad Request\",\"code\":400}";
    const ANTHROPIC: &str =
        r#"{"type":"error","error":{"type":"invalid_request_error","message":"too long"}}"#;

    /// The name and the data of the one event that it is.
    fn event(dialect: Dialect, status: u16, body: &str) -> (String, Value) {
        let event = passed_on(dialect, status, body.as_bytes());
        let event = std::str::from_utf8(&event).unwrap();
        let lines = event.strip_suffix("\n\n").unwrap();
        let (name, data) = lines.split_once("data: ").unwrap();
        assert!(!data.contains('\n'), "{data}");
        (name.to_owned(), serde_json::from_str(data).unwrap())
    }

    #[test]
    fn an_openai_stream_ends_with_the_engines_own_object() {
        for dialect in [Dialect::Chat, Dialect::Completions, Dialect::Other] {
            let vllm: Value = serde_json::from_str(VLLM).unwrap();
            assert_eq!(event(dialect, 400, VLLM), (String::new(), vllm));
            let flat =
                json!({ "message": "too long", "type": "Bad Request", "param": null, "code": 400 });
            assert_eq!(event(dialect, 400, SGLANG).1, json!({ "error": flat }));
        }
    }

    #[test]
    fn a_message_ends_with_anthropics_envelope() {
        for (status, body, kind) in [
            (400, VLLM, "invalid_request_error"),
            (400, SGLANG, "invalid_request_error"),
            (400, ANTHROPIC, "invalid_request_error"),
            (503, VLLM, "overloaded_error"),
            (500, VLLM, "api_error"),
        ] {
            let (name, data) = event(Dialect::Messages, status, body);
            let error = json!({ "type": kind, "message": "too long" });
            assert_eq!(name, "event: error\n");
            assert_eq!(data, json!({ "type": "error", "error": error }), "{body}");
        }
    }

    #[test]
    fn a_response_has_both_forms() {
        let (name, data) = event(Dialect::Responses, 400, VLLM);
        assert_eq!((&*name, &data["type"]), ("event: error\n", &json!("error")));
        for key in ["message", "param", "code"] {
            assert_eq!(data[key], data["error"][key]);
        }
        assert_eq!(data["message"], "too long");
    }

    #[test]
    fn what_has_no_error_in_it_is_told_by_its_status() {
        for (body, message) in [
            ("<html>", "The inference server answered 502."),
            ("", "The inference server answered 502."),
            ("[1]", "The inference server answered 502."),
            (r#"{"error":""}"#, "The inference server answered 502."),
            (r#"{"error":"no GPU"}"#, "no GPU"),
            (r#"{"detail":"Not Found"}"#, "Not Found"),
            (r#"{"detail":[{"loc":["body"]}]}"#, r#"[{"loc":["body"]}]"#),
        ] {
            let error =
                json!({ "message": message, "type": "server_error", "param": null, "code": 502 });
            assert_eq!(event(Dialect::Chat, 502, body).1, json!({ "error": error }));
        }
    }
}
