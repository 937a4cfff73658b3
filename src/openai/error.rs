//! The errors the gateway itself answers with, as OpenAI's JSON.
//!
//! A message says what to do about it. None holds an address of an engine; the log line does.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::Dialect;

/// How much of what a client sent is shown back to it, in characters.
pub const ECHO_LIMIT: usize = 128;

/// An error of the gateway's own; each variant is one row of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApiError {
    /// 400: the request says something the gateway cannot act on.
    InvalidValue {
        param: Option<&'static str>,
        problem: Cow<'static, str>,
    },
    /// 403: `key` is the configuration's list that would have to hold the client's `address`.
    NotAllowedHere { address: IpAddr, key: &'static str },
    /// 404: not in the allow-list of paths.
    PathNotExposed { method: String, path: String },
    /// 405: `allow` is the value of the `Allow` field.
    MethodNotAllowed {
        method: String,
        allow: Cow<'static, str>,
    },
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
    /// 400 about no field in particular; `problem` says what to do.
    pub fn invalid(problem: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidValue {
            param: None,
            problem: problem.into(),
        }
    }

    /// A path the allow-list does not have; at most [`ECHO_LIMIT`] characters of it are kept.
    pub fn path_not_exposed(method: &str, raw_path: &[u8]) -> Self {
        Self::PathNotExposed {
            method: echo(method.as_bytes()),
            path: echo(raw_path),
        }
    }

    pub fn method_not_allowed(method: &str, allow: Cow<'static, str>) -> Self {
        Self::MethodNotAllowed {
            method: echo(method.as_bytes()),
            allow,
        }
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
            Self::Overloaded { .. }
            | Self::OutOfBodyMemory { .. }
            | Self::NoEndpointAvailable { .. } => 503,
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
                Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0))
                    .map(|s| s.max(1))
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
        body(
            &self.to_string(),
            self.kind(),
            self.param(),
            self.code().into(),
        )
    }

    /// The same as the last event of a stream that had begun. The connection is to be cut after
    /// it: both SDKs take a clean end for a complete answer.
    pub fn event(&self, dialect: Dialect) -> Bytes {
        let message = self.to_string();
        let (name, data) = match dialect {
            Dialect::Messages => {
                let error = Anthropic {
                    r#type: "api_error",
                    message: &message,
                };
                (
                    "event: error\n",
                    to_json(&Typed {
                        r#type: "error",
                        error,
                        flat: None,
                    }),
                )
            }
            // Typed readers look for the flat fields, OpenAI's SDK for `error`.
            Dialect::Responses => {
                let error = self.object(&message);
                let flat = Some(self.object(&message).flat());
                (
                    "event: error\n",
                    to_json(&Typed {
                        r#type: "error",
                        error,
                        flat,
                    }),
                )
            }
            Dialect::Chat | Dialect::Completions | Dialect::Other => (
                "",
                to_json(&Envelope {
                    error: self.object(&message),
                }),
            ),
        };
        Bytes::from(format!("{name}data: {data}\n\n"))
    }

    fn object<'a>(&self, message: &'a str) -> Object<'a> {
        Object {
            message,
            r#type: self.kind(),
            param: self.param(),
            code: self.code().into(),
        }
    }
}

/// `{"error":{"message","type","param","code"}}`, for an error that is not of our own making too.
pub(super) fn body(message: &str, kind: &str, param: Option<&str>, code: Value) -> Bytes {
    Bytes::from(to_json(&Envelope {
        error: Object {
            message,
            r#type: kind,
            param,
            code,
        },
    }))
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers are JSON")
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Object<'a>,
}

#[derive(Serialize)]
struct Object<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Value,
}

/// Anthropic's envelope, and OpenAI's of responses.
#[derive(Serialize)]
struct Typed<'a, E> {
    r#type: &'a str,
    #[serde(flatten)]
    flat: Option<Flat<'a>>,
    error: E,
}

#[derive(Serialize)]
struct Anthropic<'a> {
    r#type: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
struct Flat<'a> {
    code: Value,
    message: &'a str,
    param: Option<&'a str>,
}

impl<'a> Object<'a> {
    fn flat(self) -> Flat<'a> {
        Flat {
            code: self.code,
            message: self.message,
            param: self.param,
        }
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
            // Engines have no such path, and nothing would be gained by exposing theirs.
            Self::PathNotExposed { method, path } if path == "/endpoints" => write!(
                f,
                "{method} {path} is answered on the `admin` listener alone. Ask there."
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
    String::from_utf8_lossy(head)
        .chars()
        .take(ECHO_LIMIT)
        .collect()
}

#[cfg(test)]
mod tests;
