//! The errors the gateway itself answers with, as OpenAI's JSON.
//!
//! A message says what to do about it. None holds an address of an engine; the log line does.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::Dialect;

mod event;
mod message;

pub use event::passed_on;

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
    /// 400: `problem` says what is wrong with the body, and where.
    InvalidJson { problem: Cow<'static, str> },
    /// 400: where a model must be named.
    MissingModel,
    /// 401: there is none, or nobody has it.
    InvalidApiKey { presented: bool },
    /// 403: the key is not for `model`; `None` = the request names none, which takes a key for all.
    ModelNotAllowed { model: Option<String> },
    /// 403: `key` is the configuration's list that would have to hold the client's `address`.
    NotAllowedHere { address: IpAddr, key: &'static str },
    /// 404: `suggestions` are names that the client may use, the nearest first.
    ModelNotFound {
        model: String,
        suggestions: Vec<String>,
    },
    /// 404: no engine has made this response, or not for this key.
    ResponseNotFound { id: String },
    /// 403: whoever asks may not change the gateway's state, or not in this way.
    OrderRefused { problem: &'static str },
    /// 404: no pool has an endpoint of this name; `suggestions` are names that there are.
    EndpointNotFound {
        name: String,
        suggestions: Vec<String>,
    },
    /// 409: the configuration drains it, which no order undoes.
    StillDrained { endpoint: String },
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
    /// 429: the key has used up what it may.
    RateLimitExceeded {
        limit: RateLimit,
        retry_after: Duration,
    },
    /// 500: a bug of ours.
    Internal,
    /// 502: every engine that was asked failed.
    UpstreamFailed,
    /// 502: the engines that got it died of it.
    SuspectRequest,
    /// 502: a stream was promised, and the engine answered with something else.
    NotAStream,
    /// 503: every endpoint is at its `max_in_flight`, and the request cannot wait for a place, or any longer.
    Overloaded { retry_after: Duration },
    /// 503 `overloaded` too: the bodies held together reach `limits.body_memory`.
    OutOfBodyMemory { retry_after: Duration },
    /// 503: no endpoint is up.
    NoEndpointAvailable { retry_after: Duration },
    /// 503: another process is about to take over, and would not know of the order.
    UpgradeUnderWay { retry_after: Duration },
    /// 504: the engine was silent for `after`.
    UpstreamTimeout { after: Duration },
}

/// A limit of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateLimit {
    /// A minute.
    Requests(u64),
    /// A minute.
    Tokens(u64),
    /// Requests at the same time.
    InFlight(u32),
    /// One request counts for more tokens than there are in a minute: it would never be taken.
    OneRequest { limit: u64, asked: u64 },
}

impl ApiError {
    /// 400 about no field in particular; `problem` says what to do.
    pub fn invalid(problem: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidValue {
            param: None,
            problem: problem.into(),
        }
    }

    /// 400: more completions than `limits.n`; `n` may also be called `best_of` or the like.
    pub fn too_many_completions(asked: u64, limit: u64) -> Self {
        Self::InvalidValue {
            param: Some("n"),
            problem: format!(
                "The request asks for {asked} completions, and one request may ask for {limit}. Ask for fewer, or \
                 raise `limits.n` in the gateway's configuration."
            )
            .into(),
        }
    }

    /// 400: `field` is not for clients.
    pub fn steering_field(field: &'static str) -> Self {
        Self::InvalidValue {
            param: Some(field),
            problem: format!(
                "`{field}` steers the inference server's insides, which clients may not. Leave it out."
            )
            .into(),
        }
    }

    /// At most [`ECHO_LIMIT`] characters of `model` are kept.
    pub fn model_not_found(model: &str, suggestions: Vec<String>) -> Self {
        Self::ModelNotFound {
            model: echo(model.as_bytes()),
            suggestions,
        }
    }

    /// At most [`ECHO_LIMIT`] characters of `model` are kept; `None` = the request names none.
    pub fn model_not_allowed(model: Option<&str>) -> Self {
        Self::ModelNotAllowed {
            model: model.map(|model| echo(model.as_bytes())),
        }
    }

    /// At most [`ECHO_LIMIT`] characters of `id` are kept.
    pub fn response_not_found(id: &str) -> Self {
        Self::ResponseNotFound {
            id: echo(id.as_bytes()),
        }
    }

    /// At most [`ECHO_LIMIT`] characters of `name` are kept.
    pub fn endpoint_not_found(name: &str, suggestions: Vec<String>) -> Self {
        Self::EndpointNotFound {
            name: echo(name.as_bytes()),
            suggestions,
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
            Self::InvalidValue { .. } | Self::InvalidJson { .. } | Self::MissingModel => 400,
            Self::InvalidApiKey { .. } => 401,
            Self::ModelNotAllowed { .. }
            | Self::NotAllowedHere { .. }
            | Self::OrderRefused { .. } => 403,
            Self::ModelNotFound { .. }
            | Self::ResponseNotFound { .. }
            | Self::EndpointNotFound { .. }
            | Self::PathNotExposed { .. } => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::RequestTimeout => 408,
            Self::StillDrained { .. } => 409,
            Self::RequestTooLarge { .. } => 413,
            Self::RateLimitExceeded { .. } => 429,
            Self::HeaderTooLarge { .. } => 431,
            Self::Internal => 500,
            Self::UpstreamFailed | Self::SuspectRequest | Self::NotAStream => 502,
            Self::Overloaded { .. }
            | Self::OutOfBodyMemory { .. }
            | Self::NoEndpointAvailable { .. }
            | Self::UpgradeUnderWay { .. } => 503,
            Self::UpstreamTimeout { .. } => 504,
        }
    }

    /// OpenAI's `type`.
    pub fn kind(&self) -> &'static str {
        kind_of(self.status())
    }

    /// OpenAI's `code`; also the `reason` of `sluicegate_refused_total`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidValue { .. } => "invalid_value",
            Self::InvalidJson { .. } => "invalid_json",
            Self::MissingModel => "missing_model",
            Self::InvalidApiKey { .. } => "invalid_api_key",
            Self::ModelNotAllowed { .. } => "model_not_allowed",
            Self::ModelNotFound { .. } => "model_not_found",
            Self::ResponseNotFound { .. } => "response_not_found",
            Self::RateLimitExceeded { .. } => "rate_limit_exceeded",
            Self::NotAllowedHere { .. } | Self::OrderRefused { .. } => "not_allowed_here",
            Self::EndpointNotFound { .. } => "endpoint_not_found",
            Self::StillDrained { .. } => "still_drained",
            Self::PathNotExposed { .. } => "path_not_exposed",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::RequestTooLarge { .. } => "request_too_large",
            Self::HeaderTooLarge { .. } => "header_too_large",
            Self::Internal => "internal_error",
            Self::UpstreamFailed | Self::SuspectRequest | Self::NotAStream => "upstream_failed",
            Self::Overloaded { .. } | Self::OutOfBodyMemory { .. } => "overloaded",
            Self::NoEndpointAvailable { .. } => "no_endpoint_available",
            Self::UpgradeUnderWay { .. } => "upgrade_under_way",
            Self::UpstreamTimeout { .. } => "upstream_timeout",
        }
    }

    /// OpenAI's `param`.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::InvalidValue { param, .. } => *param,
            Self::ResponseNotFound { .. } => Some("response_id"),
            Self::MissingModel | Self::ModelNotAllowed { .. } | Self::ModelNotFound { .. } => {
                Some("model")
            }
            _ => None,
        }
    }

    /// The value of `Retry-After`, in whole seconds, at least 1.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::RateLimitExceeded {
                limit: RateLimit::OneRequest { .. },
                ..
            } => None,
            Self::RateLimitExceeded { retry_after, .. }
            | Self::Overloaded { retry_after }
            | Self::OutOfBodyMemory { retry_after }
            | Self::NoEndpointAvailable { retry_after }
            | Self::UpgradeUnderWay { retry_after } => {
                Some(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0))
                    .map(|s| s.max(1))
            }
            _ => None,
        }
    }

    /// Whether it must not be sent again, although its status would make SDKs do so: `x-should-retry: false`.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::SuspectRequest)
    }

    /// The value of `Allow` (RFC 9110 §15.5.6).
    pub fn allow(&self) -> Option<&str> {
        match self {
            Self::MethodNotAllowed { allow, .. } => Some(allow),
            _ => None,
        }
    }

    /// The value of `WWW-Authenticate` (RFC 9110 §15.5.2, RFC 6750 §3), which a 401 must have.
    pub fn www_authenticate(&self) -> Option<&'static str> {
        match self {
            Self::InvalidApiKey { presented: false } => Some("Bearer"),
            Self::InvalidApiKey { presented: true } => Some("Bearer error=\"invalid_token\""),
            _ => None,
        }
    }

    /// The body of a JSON answer: OpenAI's `{"error":{"message","type","param","code"}}`, or Anthropic's
    /// `{"type":"error","error":{"type","message"}}`.
    pub fn body(&self, dialect: Dialect) -> Bytes {
        let message = self.to_string();
        Bytes::from(match dialect {
            Dialect::Messages => self.anthropic(&message),
            _ => to_json(&Envelope {
                error: self.object(&message),
            }),
        })
    }

    fn anthropic(&self, message: &str) -> String {
        to_json(&Typed {
            r#type: "error",
            error: Anthropic {
                r#type: anthropic_kind_of(self.status()),
                message,
            },
            flat: None,
        })
    }

    /// The same as the last event of a stream that had begun. The connection is to be cut after
    /// it: both SDKs take a clean end for a complete answer.
    pub fn event(&self, dialect: Dialect) -> Bytes {
        let message = self.to_string();
        let (name, data) = match dialect {
            Dialect::Messages => ("event: error\n", self.anthropic(&message)),
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

/// OpenAI's `type` of an error with this status.
fn kind_of(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

/// Anthropic's.
fn anthropic_kind_of(status: u16) -> &'static str {
    match status {
        404 => "not_found_error",
        413 => "request_too_large",
        503 | 529 => "overloaded_error",
        500.. => "api_error",
        _ => kind_of(status),
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
