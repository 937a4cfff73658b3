//! What a request's body says: read once, while it arrives, and never built anew.

use std::sync::Arc;

use http::HeaderMap;
use http::header;

use crate::openai::query::{self, QueryModel};
use crate::openai::request::{BodyFault, Edit, Peeked, Scanner, multipart};
use crate::openai::{ApiError, BodyKind, Call, Dialect};

use super::request::ModelInQuery;

/// Charged against a key for an answer whose length the client did not bound.
const DEFAULT_ANSWER: u64 = 1024;

/// Charged at most for the prompt of a form: its length is that of a sound.
const DEFAULT_FORM: u64 = 1024;

/// Reads a body piece by piece.
pub struct Reader {
    kind: Kind,
    /// What cannot be read passes.
    is_lenient: bool,
}

#[derive(Default)]
enum Kind {
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
        let reader = |kind| Self {
            kind,
            is_lenient: lenient,
        };
        if call.body == BodyKind::Any {
            return Ok(reader(Kind::Unread));
        }
        if is_coded(headers) {
            return match lenient {
                true => Ok(reader(Kind::Unread)),
                false => Err(ApiError::invalid(
                    "the body is compressed, which inference servers do not read; send it without Content-Encoding",
                )),
            };
        }
        Ok(reader(match call.body {
            BodyKind::Any => Kind::Unread,
            BodyKind::Json => Kind::Json(Box::default()),
            BodyKind::Form => {
                let content_type = headers.get(header::CONTENT_TYPE);
                let content_type = content_type.map_or(&b""[..], |value| value.as_bytes());
                match multipart::Scanner::new(content_type) {
                    Some(Ok(scanner)) => Kind::Form(Box::new(scanner)),
                    Some(Err(fault)) if !lenient => return Err(refusal(&fault)),
                    _ => Kind::Unread,
                }
            }
        }))
    }

    pub fn feed(&mut self, piece: &[u8]) {
        match &mut self.kind {
            Kind::Unread => {}
            Kind::Json(scanner) => scanner.feed(piece),
            Kind::Form(scanner) => scanner.feed(piece),
        }
    }

    /// Why the rest of the body does not matter any more.
    pub fn refusal(&self) -> Option<ApiError> {
        let fault = match &self.kind {
            Kind::Unread => None,
            Kind::Json(scanner) => scanner.fault(),
            Kind::Form(scanner) => scanner.fault(),
        };
        fault
            .filter(|_| !self.is_lenient)
            .map(|fault| refusal(&fault))
    }

    /// The body is complete.
    pub fn finish(self) -> Result<Asked, ApiError> {
        let read = match self.kind {
            Kind::Unread => return Ok(Asked::Unread),
            Kind::Json(scanner) => scanner.finish().map(|read| Asked::Json(Box::new(read))),
            Kind::Form(scanner) => scanner.finish().map(|read| Asked::Form(Box::new(read))),
        };
        match read {
            Ok(asked) => Ok(asked),
            Err(_) if self.is_lenient => Ok(Asked::Unread),
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

    /// How many choices a streamed answer is to have.
    pub fn choices(&self, dialect: Dialect) -> u64 {
        match (self.json(), dialect) {
            (Some(read), Dialect::Chat) => read.completions,
            (Some(read), Dialect::Completions) => read.completions.saturating_mul(read.prompts),
            _ => 1,
        }
    }

    /// Tokens that the prompt may cost: a quarter of its bytes, and for a picture or a sound as many at most as
    /// it takes to see or hear a usual one.
    pub fn prompt_cost(&self, body_len: usize) -> u64 {
        let bytes = |not_text: usize| body_len.saturating_sub(not_text) as u64 / 4;
        match self {
            Self::Json(read) => bytes(read.encoded),
            Self::Form(_) => bytes(0).min(DEFAULT_FORM),
            Self::Unread | Self::Query(_) => bytes(0),
        }
    }

    /// Tokens that the request may cost: its prompt's, and as many as its answers may have.
    /// `generates`: there is an answer also where the client does not say how long.
    pub fn cost(&self, body_len: usize, generates: bool) -> u64 {
        let prompt = self.prompt_cost(body_len);
        let Some(read) = self.json() else {
            return prompt;
        };
        // SGLang's `/generate` says how much it wants, too.
        let by_default = if generates { DEFAULT_ANSWER } else { 0 };
        let answer = read.max_tokens.unwrap_or(by_default);
        let answers = read.completions.saturating_mul(read.prompts);
        prompt.saturating_add(answer.saturating_mul(answers))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_costs_its_text_its_pictures_and_each_of_its_answers() {
        let read = Peeked {
            completions: 2,
            prompts: 3,
            encoded: 4_000_000,
            max_tokens: Some(100),
            ..Peeked::default()
        };
        let asked = Asked::Json(Box::new(read));
        assert_eq!(asked.prompt_cost(4_000_400), 100);
        assert_eq!(asked.cost(4_000_400, true), 100 + 600);
        let unbounded = Asked::Json(Box::new(Peeked {
            completions: 1,
            prompts: 1,
            ..Peeked::default()
        }));
        assert_eq!(unbounded.cost(40, true), 10 + 1024);
        assert_eq!(unbounded.cost(40, false), 10);
        // A song is no book.
        let form = Asked::Form(Box::default());
        assert_eq!(
            (form.cost(400, false), form.cost(4 << 20, false)),
            (100, 1024)
        );
        assert_eq!(Asked::Unread.cost(0, true), 0);
    }
}
