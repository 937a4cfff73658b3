//! What a request's body says: read once, while it arrives, and never built anew.

use std::sync::Arc;

use http::HeaderMap;
use http::header;

use crate::openai::request::{BodyFault, Edit, Peeked, Scanner, multipart};
use crate::openai::query::{self, QueryModel};
use crate::openai::{ApiError, BodyKind, Call};

use super::request::ModelInQuery;

/// Charged against a key for an answer whose length the client did not bound.
const DEFAULT_ANSWER: u64 = 1024;

/// Reads a body piece by piece.
#[derive(Default)]
pub enum Reader {
    /// It is not for us to read.
    #[default]
    Unread,
    Json(Box<Scanner>),
    Form(Box<multipart::Scanner>),
}

/// What was read of a body; nothing where it is not for us to read.
#[derive(Default)]
pub enum Asked {
    #[default]
    Unread,
    Json(Box<Peeked>),
    Form(Box<multipart::Form>),
    /// It has no body, and names its model in its query.
    Query(QueryModel),
}

impl Reader {
    /// `lenient`: what cannot be read passes (`expose: all`).
    pub fn of(call: Call, headers: &HeaderMap, lenient: bool) -> Result<Self, ApiError> {
        if call.body == BodyKind::Any {
            return Ok(Self::Unread);
        }
        if is_coded(headers) {
            return match lenient {
                true => Ok(Self::Unread),
                false => Err(ApiError::invalid(
                    "the body is compressed, which inference servers do not read; send it without Content-Encoding",
                )),
            };
        }
        Ok(match call.body {
            BodyKind::Any => Self::Unread,
            BodyKind::Json => Self::Json(Box::default()),
            BodyKind::Form => {
                let content_type = headers.get(header::CONTENT_TYPE);
                let content_type = content_type.map_or(&b""[..], |value| value.as_bytes());
                match multipart::Scanner::new(content_type) {
                    Some(Ok(scanner)) => Self::Form(Box::new(scanner)),
                    Some(Err(fault)) if !lenient => return Err(refusal(&fault)),
                    _ => Self::Unread,
                }
            }
        })
    }

    pub fn feed(&mut self, piece: &[u8]) {
        match self {
            Self::Unread => {}
            Self::Json(scanner) => scanner.feed(piece),
            Self::Form(scanner) => scanner.feed(piece),
        }
    }

    /// The body is complete.
    pub fn finish(self, lenient: bool) -> Result<Asked, ApiError> {
        let read = match self {
            Self::Unread => return Ok(Asked::Unread),
            Self::Json(scanner) => scanner.finish().map(|read| Asked::Json(Box::new(read))),
            Self::Form(scanner) => scanner.finish().map(|read| Asked::Form(Box::new(read))),
        };
        match read {
            Ok(asked) => Ok(asked),
            Err(_) if lenient => Ok(Asked::Unread),
            Err(fault) => Err(refusal(&fault)),
        }
    }
}

impl Asked {
    /// What the query of a WebSocket's handshake says.
    pub fn of_query(query: &[u8]) -> Result<Self, ApiError> {
        match query::model_of(query) {
            Ok(Some(model)) => Ok(Self::Query(model)),
            Ok(None) => Ok(Self::Unread),
            Err(problem) => Err(ApiError::InvalidValue {
                param: Some("model"),
                problem: problem.into(),
            }),
        }
    }

    /// The model where the query names it, and what the engines call it.
    pub fn in_query<'a>(&'a self, upstream: Option<&'a Arc<str>>) -> Option<ModelInQuery<'a>> {
        match self {
            Self::Query(model) => Some(ModelInQuery { model, upstream }),
            _ => None,
        }
    }

    pub fn is_unread(&self) -> bool {
        matches!(self, Self::Unread)
    }

    pub fn model(&self) -> Option<&str> {
        match self {
            Self::Unread => None,
            Self::Json(read) => read.model.as_ref().map(|model| &*model.value),
            Self::Form(read) => read.model.as_ref().map(|model| &*model.value),
            Self::Query(model) => Some(&model.value),
        }
    }

    /// The change that calls the model by this name; `None` where the body names none.
    pub fn rename(&self, to: &str) -> Option<Edit> {
        match self {
            Self::Unread | Self::Query(_) => None,
            Self::Json(read) => read.rename(to),
            Self::Form(read) => read.rename(to),
        }
    }

    /// The first field that steers an engine's insides.
    pub fn steering(&self) -> Option<&'static str> {
        match self {
            Self::Unread | Self::Query(_) => None,
            Self::Json(read) => read.steering,
            Self::Form(read) => read.steering,
        }
    }

    pub fn json(&self) -> Option<&Peeked> {
        match self {
            Self::Json(read) => Some(read),
            Self::Unread | Self::Form(_) | Self::Query(_) => None,
        }
    }

    /// Tokens that the request may cost: a quarter of its bytes, and as many as the answer may have.
    /// `generates`: there is an answer also where the client does not say how long.
    pub fn cost(&self, body_len: usize, generates: bool) -> u64 {
        let prompt = body_len as u64 / 4;
        let Some(read) = self.json() else {
            return prompt;
        };
        // SGLang's `/generate` says how much it wants, too.
        let by_default = if generates { DEFAULT_ANSWER } else { 0 };
        let answer = read.max_tokens.unwrap_or(by_default);
        prompt.saturating_add(answer.saturating_mul(read.completions))
    }
}

fn is_coded(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::CONTENT_ENCODING).iter();
    codings.into_iter().any(|coding| {
        let coding = coding.as_bytes().trim_ascii();
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
    })
}

/// A body that cannot be acted on, as the client is told.
fn refusal(fault: &BodyFault) -> ApiError {
    let problem = fault.to_string().into();
    match fault.code() {
        "invalid_json" => ApiError::InvalidJson { problem },
        _ => ApiError::InvalidValue {
            param: fault.param(),
            problem,
        },
    }
}
