//! Error events: how engines say, inside a 200, that an answer failed.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::Value;

use super::ErrorEvent;
use crate::openai::error;

/// The error an event carries, if it is one: named `error`, or with an `error` at the top of its
/// JSON (vLLM, OpenAI, Anthropic), or flat with `"object":"error"` (SGLang).
pub(super) fn find(name: Option<&[u8]>, data: &[u8]) -> Option<ErrorEvent> {
    static WORD: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(r#""error""#));
    let named = name == Some(b"error");
    // In a JSON string the quotes would be escaped: a hit is a key or a whole value.
    if !named && WORD.find(data).is_none() {
        return None;
    }
    let probe = match serde_json::from_slice::<Probe>(data) {
        Ok(probe) if named || probe.is_error() => probe,
        Err(_) if named => return Some(unreadable(data)),
        _ => return None,
    };
    let status = probe.status();
    Some(ErrorEvent {
        status,
        overloaded: is_overload(status, probe.message()),
        body: Bytes::copy_from_slice(data),
    })
}

/// The error of a `response.failed` event, dressed as the body of an answer.
pub(super) fn of_failed_response(data: &[u8]) -> ErrorEvent {
    let event: Value = serde_json::from_slice(data).unwrap_or_default();
    let failure = &event["response"]["error"];
    let status = status_of_value(&failure["code"]).or_else(|| status_of_value(&failure["type"]));
    let message = failure["message"]
        .as_str()
        .unwrap_or("The inference server failed.");
    let body = error::body(message, "server_error", None, failure["code"].clone());
    ErrorEvent {
        status,
        overloaded: is_overload(status, message),
        body,
    }
}

fn unreadable(data: &[u8]) -> ErrorEvent {
    let body = error::body(&error::echo(data), "server_error", None, Value::Null);
    ErrorEvent {
        status: None,
        overloaded: false,
        body,
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Probe {
    error: Value,
    object: Value,
    r#type: Value,
    code: Value,
    status: Value,
    status_code: Value,
    message: Value,
}

impl Probe {
    fn is_error(&self) -> bool {
        let says = match &self.error {
            Value::Null => false,
            Value::Bool(failed) => *failed,
            Value::String(message) => !message.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Number(_) => true,
        };
        says || self.object == "error" || self.r#type == "error"
    }

    fn status(&self) -> Option<u16> {
        // Numbers before words, the nested before the flat form.
        let nested = |key: &str| self.error.get(key).unwrap_or(&Value::Null);
        let (code, kind) = (nested("code"), nested("type"));
        [
            code,
            nested("status"),
            nested("status_code"),
            &self.code,
            &self.status,
            &self.status_code,
        ]
        .into_iter()
        .find_map(number)
        .or_else(|| {
            [code, kind, &self.code, &self.r#type]
                .into_iter()
                .find_map(status_of_value)
        })
    }

    fn message(&self) -> &str {
        let nested = self.error.get("message").and_then(Value::as_str);
        nested
            .or(self.error.as_str())
            .or(self.message.as_str())
            .unwrap_or_default()
    }
}

/// An error status as a number or a numeric string.
fn number(value: &Value) -> Option<u16> {
    let number = match value {
        Value::Number(number) => u16::try_from(number.as_u64()?).ok()?,
        Value::String(digits) => digits.parse().ok()?,
        _ => return None,
    };
    (400..600).contains(&number).then_some(number)
}

/// An error status by the names OpenAI, Anthropic, vLLM and SGLang give to `type` and `code`.
fn status_of_value(value: &Value) -> Option<u16> {
    number(value).or_else(|| {
        Some(match value.as_str()? {
            "invalid_request_error"
            | "BadRequestError"
            | "Bad Request"
            | "BadRequest"
            | "invalid_prompt" => 400,
            "authentication_error" => 401,
            "permission_error" => 403,
            "not_found_error" | "NotFoundError" => 404,
            "request_too_large" => 413,
            "rate_limit_error" | "rate_limit_exceeded" => 429,
            "api_error"
            | "server_error"
            | "internal_error"
            | "internal_server_error"
            | "InternalServerError" => 500,
            "Service Unavailable" | "service_unavailable" | "ServiceUnavailableError" => 503,
            "timeout_error" => 504,
            "overloaded_error" => 529,
            _ => return None,
        })
    })
}

fn is_overload(status: Option<u16>, message: &str) -> bool {
    match status {
        Some(status) => matches!(status, 429 | 503 | 529),
        None => message.contains("queue is full") || message.contains("currently busy"),
    }
}
