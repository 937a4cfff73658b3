//! The errors the gateway itself answers with, as OpenAI's JSON.
//!
//! A message says what to do about it. None holds an address of an engine; the log line does.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use super::Dialect;

/// How much of what a client sent is shown back to it, in characters.
pub const ECHO_LIMIT: usize = 128;

/// An error of the gateway's own; each variant is one row of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// 400: the request says something the gateway cannot act on.
    InvalidValue { param: Option<&'static str>, problem: Cow<'static, str> },
    /// 403: `key` is the configuration's list that would have to hold the client's `address`.
    NotAllowedHere { address: IpAddr, key: &'static str },
    /// 404: not in the allow-list of paths.
    PathNotExposed { method: String, path: String },
    /// 405: `allow` is the value of the `Allow` field.
    MethodNotAllowed { method: String, allow: Cow<'static, str> },
    /// 408: the request did not arrive whole in time.
    RequestTimeout,
    /// 413: `limit` in bytes.
    RequestTooLarge { limit: usize },
    /// 431: `limit` in bytes.
    HeaderTooLarge { limit: usize },
    /// 500: a bug of ours.
    Internal,
    /// 502: every engine that was asked failed.
    UpstreamFailed,
    /// 503: every endpoint is at its `max_in_flight`.
    Overloaded { retry_after: Duration },
    /// 503 `overloaded` too: the bodies held together reach `limits.body_memory`.
    OutOfBodyMemory { retry_after: Duration },
    /// 503: no endpoint is up.
    NoEndpointAvailable { retry_after: Duration },
    /// 504: the engine was silent for `after`.
    UpstreamTimeout { after: Duration },
}

impl ApiError {
    /// A path the allow-list does not have; at most [`ECHO_LIMIT`] characters of it are kept.
    pub fn path_not_exposed(method: &str, raw_path: &[u8]) -> Self {
        Self::PathNotExposed { method: echo(method.as_bytes()), path: echo(raw_path) }
    }

    pub fn method_not_allowed(method: &str, allow: Cow<'static, str>) -> Self {
        Self::MethodNotAllowed { method: echo(method.as_bytes()), allow }
    }

    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidValue { .. } => 400,
            Self::NotAllowedHere { .. } => 403,
            Self::PathNotExposed { .. } => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::RequestTimeout => 408,
            Self::RequestTooLarge { .. } => 413,
            Self::HeaderTooLarge { .. } => 431,
            Self::Internal => 500,
            Self::UpstreamFailed => 502,
            Self::Overloaded { .. } | Self::OutOfBodyMemory { .. } | Self::NoEndpointAvailable { .. } => 503,
            Self::UpstreamTimeout { .. } => 504,
        }
    }

    /// OpenAI's `type`.
    pub fn kind(&self) -> &'static str {
        match self.status() {
            403 => "permission_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// OpenAI's `code`; also the `reason` of `sluicegate_refused_total`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidValue { .. } => "invalid_value",
            Self::NotAllowedHere { .. } => "not_allowed_here",
            Self::PathNotExposed { .. } => "path_not_exposed",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::RequestTooLarge { .. } => "request_too_large",
            Self::HeaderTooLarge { .. } => "header_too_large",
            Self::Internal => "internal_error",
            Self::UpstreamFailed => "upstream_failed",
            Self::Overloaded { .. } | Self::OutOfBodyMemory { .. } => "overloaded",
            Self::NoEndpointAvailable { .. } => "no_endpoint_available",
            Self::UpstreamTimeout { .. } => "upstream_timeout",
        }
    }

    /// OpenAI's `param`.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::InvalidValue { param, .. } => *param,
            _ => None,
        }
    }

    /// The value of `Retry-After`, in whole seconds, at least 1.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Overloaded { retry_after }
            | Self::OutOfBodyMemory { retry_after }
            | Self::NoEndpointAvailable { retry_after } => {
                Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)).map(|s| s.max(1))
            }
            _ => None,
        }
    }

    /// The value of `Allow` (RFC 9110 §15.5.6).
    pub fn allow(&self) -> Option<&str> {
        match self {
            Self::MethodNotAllowed { allow, .. } => Some(allow),
            _ => None,
        }
    }

    /// The body of a JSON answer: `{"error":{"message","type","param","code"}}`.
    pub fn body(&self) -> Bytes {
        Bytes::from(json!({ "error": self.object() }).to_string())
    }

    /// The same as the last event of a stream that had begun. The connection is to be cut after
    /// it: both SDKs take a clean end for a complete answer.
    pub fn event(&self, dialect: Dialect) -> Bytes {
        let event = match dialect {
            Dialect::Messages => {
                let error = json!({ "type": "api_error", "message": self.to_string() });
                format!("event: error\ndata: {}\n\n", json!({ "type": "error", "error": error }))
            }
            // Typed readers look for the flat fields, OpenAI's SDK for `error`.
            Dialect::Responses => {
                let data = json!({
                    "type": "error", "code": self.code(), "message": self.to_string(), "param": self.param(),
                    "error": self.object(),
                });
                format!("event: error\ndata: {data}\n\n")
            }
            Dialect::Chat | Dialect::Completions | Dialect::Other => {
                format!("data: {}\n\n", json!({ "error": self.object() }))
            }
        };
        Bytes::from(event)
    }

    fn object(&self) -> Value {
        json!({
            "message": self.to_string(), "type": self.kind(), "param": self.param(), "code": self.code(),
        })
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidValue { problem, .. } => f.write_str(problem),
            Self::NotAllowedHere { address, key } => write!(
                f,
                "{address} may not read this. Add the address to `{key}` in the gateway's configuration, \
                 or ask the admin listener."
            ),
            Self::PathNotExposed { method, path } => write!(
                f,
                "{method} {path} is not exposed. Check the path; if it is meant to be reached, add it to \
                 `expose` in the gateway's configuration."
            ),
            Self::MethodNotAllowed { method, allow } => {
                write!(f, "{method} is not allowed for this path. Use {allow}.")
            }
            Self::RequestTimeout => f.write_str("The request did not arrive in time. Send it again."),
            Self::RequestTooLarge { limit } => write!(
                f,
                "The request body is larger than {limit} bytes. Send a shorter one, or raise `limits.body` in \
                 the gateway's configuration."
            ),
            Self::HeaderTooLarge { limit } => write!(
                f,
                "The request's header fields are larger than {limit} bytes. Send fewer or shorter ones, or raise \
                 `limits.header` in the gateway's configuration."
            ),
            Self::Internal => {
                f.write_str("The gateway failed. Send the request again; if it fails again, report the request's id.")
            }
            Self::UpstreamFailed => {
                f.write_str("The inference servers that were asked failed. Send the request again.")
            }
            Self::Overloaded { .. } => f.write_str(
                "All inference servers are busy. Send the request again after the time given in Retry-After.",
            ),
            Self::OutOfBodyMemory { .. } => f.write_str(
                "The gateway holds as many requests as `limits.body_memory` allows. Send the request again after \
                 the time given in Retry-After.",
            ),
            Self::NoEndpointAvailable { .. } => f.write_str(
                "No inference server is available. Send the request again after the time given in Retry-After.",
            ),
            Self::UpstreamTimeout { after } => write!(
                f,
                "The inference server sent nothing for {after:?}. Send the request again, or raise `timeouts` in \
                 the gateway's configuration."
            ),
        }
    }
}

impl std::error::Error for ApiError {}

/// At most [`ECHO_LIMIT`] characters of what a client sent, with what is not UTF-8 replaced.
pub fn echo(input: &[u8]) -> String {
    // A character has at most 4 bytes, so the rest need not be looked at.
    let head = &input[..input.len().min(ECHO_LIMIT * 4)];
    String::from_utf8_lossy(head).chars().take(ECHO_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_error() -> Vec<ApiError> {
        let retry_after = Duration::from_millis(1500);
        vec![
            ApiError::InvalidValue { param: Some("n"), problem: "n must be at most 16".into() },
            ApiError::NotAllowedHere { address: IpAddr::from([10, 0, 0, 7]), key: "status_allow" },
            ApiError::path_not_exposed("POST", b"/flush_cache"),
            ApiError::method_not_allowed("GET", "POST".into()),
            ApiError::RequestTimeout,
            ApiError::RequestTooLarge { limit: 64 << 20 },
            ApiError::HeaderTooLarge { limit: 64 << 10 },
            ApiError::Internal,
            ApiError::UpstreamFailed,
            ApiError::Overloaded { retry_after },
            ApiError::OutOfBodyMemory { retry_after },
            ApiError::NoEndpointAvailable { retry_after: Duration::ZERO },
            ApiError::UpstreamTimeout { after: Duration::from_secs(300) },
        ]
    }

    #[test]
    fn the_rows_are_the_contract() {
        let rows: Vec<_> = every_error().iter().map(|e| (e.status(), e.kind(), e.code(), e.retry_after())).collect();
        assert_eq!(
            rows,
            [
                (400, "invalid_request_error", "invalid_value", None),
                (403, "permission_error", "not_allowed_here", None),
                (404, "invalid_request_error", "path_not_exposed", None),
                (405, "invalid_request_error", "method_not_allowed", None),
                (408, "invalid_request_error", "request_timeout", None),
                (413, "invalid_request_error", "request_too_large", None),
                (431, "invalid_request_error", "header_too_large", None),
                (500, "server_error", "internal_error", None),
                (502, "server_error", "upstream_failed", None),
                (503, "server_error", "overloaded", Some(2)),
                (503, "server_error", "overloaded", Some(2)),
                (503, "server_error", "no_endpoint_available", Some(1)),
                (504, "server_error", "upstream_timeout", None),
            ]
        );
    }

    #[test]
    fn a_body_has_openais_four_fields() {
        for error in every_error() {
            let body: Value = serde_json::from_slice(&error.body()).unwrap();
            let object = body["error"].as_object().unwrap();
            assert_eq!(object.len(), 4);
            assert_eq!(object["message"], error.to_string());
            assert_eq!(object["code"], error.code());
            assert_eq!(object["type"], error.kind());
            assert_eq!(object["param"], json!(error.param()));
        }
    }

    #[test]
    fn a_404_names_the_key_that_would_expose_the_path() {
        let error = ApiError::path_not_exposed("GET", b"/metrics/x");
        assert!(error.to_string().contains("`expose`") && error.to_string().contains("/metrics/x"));
    }

    #[test]
    fn what_a_client_sent_is_cut_and_escaped() {
        let path = [b"/\"\\\x01\xff".as_slice(), "é".repeat(100_000).as_bytes()].concat();
        let error = ApiError::path_not_exposed(&"M".repeat(1000), &path);
        let ApiError::PathNotExposed { method, path } = &error else { unreachable!() };
        assert_eq!((method.chars().count(), path.chars().count()), (128, 128));
        let body: Value = serde_json::from_slice(&error.body()).unwrap();
        assert!(body["error"]["message"].as_str().unwrap().contains("/\"\\\u{1}\u{fffd}é"));
    }

    #[test]
    fn an_event_is_in_the_dialect_of_its_stream() {
        let event = |dialect| String::from_utf8(ApiError::UpstreamFailed.event(dialect).to_vec()).unwrap();
        assert!(event(Dialect::Chat).starts_with("data: {\"error\":{"));
        let messages = event(Dialect::Messages);
        assert!(messages.starts_with("event: error\ndata: {"));
        let data: Value = serde_json::from_str(messages.split_once("data: ").unwrap().1).unwrap();
        assert_eq!((&data["type"], &data["error"]["type"]), (&json!("error"), &json!("api_error")));
        let responses = event(Dialect::Responses);
        let data: Value = serde_json::from_str(responses.split_once("data: ").unwrap().1).unwrap();
        assert_eq!((&data["code"], &data["error"]["code"]), (&json!("upstream_failed"), &json!("upstream_failed")));
        for dialect in [Dialect::Chat, Dialect::Completions, Dialect::Messages, Dialect::Responses, Dialect::Other] {
            assert!(event(dialect).ends_with("}\n\n") && event(dialect).matches('\n').count() <= 3);
        }
    }
}
