//! Which calls the public listeners let through to the engines.
//!
//! Engines leave their administration (weights, caches, profiling, pausing) on the port that
//! serves inference, so what is not in the table below or in the configuration's `expose` is not there.
//! Matching is on the raw path, up to `?`, and only on paths that every HTTP stack reads alike:
//! a path that could mean another one after decoding or normalising is never exposed.

use std::borrow::Cow;

use super::Dialect::{self, Chat, Completions, Messages, Other, Responses};
use crate::config::{Expose, ExtraPath};

/// What becomes of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Exposed(Call),
    NotExposed,
    /// The path is known, the method is not one of its own; holds the value of `Allow`.
    MethodNotAllowed(Cow<'static, str>),
}

/// What is known of a call before its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// It may be sent again although an engine may have begun it: inference computes, it does not
    /// change anything; other calls by RFC 9110 §9.2.2.
    pub repeatable: bool,
    pub dialect: Dialect,
    /// Goes before the path on its way to the engine: `/v1` where the client used the short form
    /// that LiteLLM also serves and engines do not, else empty. Always empty for `expose: all`.
    pub prefix: &'static str,
    /// Answered by the gateway, not by an engine; `None` for all calls with `expose: all`.
    pub own: Option<Own>,
    pub body: BodyKind,
    /// A client may make a WebSocket of it (RFC 6455).
    pub websocket: bool,
}

impl Call {
    /// It asks for an answer that an engine has kept: its tokens were counted when it was made.
    pub fn is_for_kept_answer(self) -> bool {
        self.dialect == Responses && self.body == BodyKind::Any
    }
}

/// What a call's body is, and so whether it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// None, or anything: it passes unread.
    Any,
    /// A JSON object.
    Json,
    /// `multipart/form-data`.
    Form,
}

/// A call that the gateway answers itself, for those who may make inference calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// The list of models.
    Models,
    /// One of them: see [`model_of`].
    Model,
}

/// The name in the path of [`Own::Model`], decoded once; `None` where it is not UTF-8.
pub fn model_of(raw_path: &[u8]) -> Option<String> {
    let raw = MODEL_PATHS
        .iter()
        .find_map(|before| raw_path.strip_prefix(before.as_bytes()))?;
    let mut name = [0; LONGEST_NAME];
    let length = decode(raw, &mut name)?;
    String::from_utf8(name[..length].to_vec()).ok()
}

/// The id in the path of a response that an engine keeps; `None` for any other path.
pub fn response_of(raw_path: &[u8]) -> Option<&str> {
    let id = raw_path.strip_prefix(b"/v1/responses/")?;
    let id = id.strip_suffix(b"/cancel").unwrap_or(id);
    std::str::from_utf8(id).ok()
}

/// Judges a call by its method and its raw path (the bytes up to `?`, undecoded).
pub fn lookup(expose: &Expose, method: &str, raw_path: &[u8]) -> Verdict {
    let row = TABLE.iter().find(|row| row.shape.matches(raw_path));
    let by_table = row.filter(|row| row.methods.has(method));
    match expose {
        Expose::All => Verdict::Exposed(match by_table {
            Some(row) => Call {
                prefix: "",
                own: None,
                ..row.call()
            },
            None => unlisted(method),
        }),
        Expose::Inference { extra } => match by_table {
            Some(row) => Verdict::Exposed(row.call()),
            None => by_configuration(extra, row, method, raw_path),
        },
    }
}

fn by_configuration(
    extra: &[ExtraPath],
    row: Option<&Row>,
    method: &str,
    raw_path: &[u8],
) -> Verdict {
    if !is_plain(raw_path) {
        return Verdict::NotExposed;
    }
    let mut others = extra
        .iter()
        .filter(|entry| covers(entry, raw_path))
        .peekable();
    if others.peek().is_none() {
        return match row {
            Some(row) => Verdict::MethodNotAllowed(Cow::Borrowed(row.methods.allow())),
            None => Verdict::NotExposed,
        };
    }
    let mut allow = row.map_or_else(String::new, |row| row.methods.allow().to_owned());
    for entry in others {
        match entry.method.as_deref() {
            None => return Verdict::Exposed(unlisted(method)),
            Some(known) if known == method || (known == "GET" && method == "HEAD") => {
                return Verdict::Exposed(unlisted(method));
            }
            Some(known) if !allow.split(", ").any(|listed| listed == known) => {
                if !allow.is_empty() {
                    allow.push_str(", ");
                }
                allow.push_str(known);
            }
            Some(_) => {}
        }
    }
    Verdict::MethodNotAllowed(Cow::Owned(allow))
}

fn covers(entry: &ExtraPath, raw_path: &[u8]) -> bool {
    if entry.prefix {
        raw_path.starts_with(entry.path.as_bytes())
    } else {
        raw_path == entry.path.as_bytes()
    }
}

/// A call that is let through without being known.
fn unlisted(method: &str) -> Call {
    Call {
        repeatable: matches!(
            method,
            "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"
        ),
        dialect: Dialect::Other,
        prefix: "",
        own: None,
        body: BodyKind::Any,
        websocket: false,
    }
}

struct Row {
    methods: Methods,
    shape: Shape,
    dialect: Dialect,
    prefix: &'static str,
    own: Option<Own>,
    body: BodyKind,
    websocket: bool,
}

impl Row {
    fn call(&self) -> Call {
        Call {
            repeatable: true,
            dialect: self.dialect,
            prefix: self.prefix,
            own: self.own,
            body: self.body,
            websocket: self.websocket,
        }
    }
}

#[derive(Clone, Copy)]
enum Methods {
    /// And HEAD.
    Get,
    Post,
}

impl Methods {
    fn has(self, method: &str) -> bool {
        match self {
            Self::Get => matches!(method, "GET" | "HEAD"),
            Self::Post => method == "POST",
        }
    }

    fn allow(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
        }
    }
}

enum Shape {
    Is(&'static str),
    /// The first string, one plain segment, the second string.
    Id(&'static str, &'static str),
    /// The string and a model's name, which may hold `%` and `/`.
    Model(&'static str),
}

impl Shape {
    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Is(whole) => path == whole.as_bytes(),
            Self::Id(before, after) => path
                .strip_prefix(before.as_bytes())
                .and_then(|rest| rest.strip_suffix(after.as_bytes()))
                .is_some_and(|id| !id.contains(&b'/') && is_plain(path) && !id.is_empty()),
            Self::Model(before) => path
                .strip_prefix(before.as_bytes())
                .is_some_and(is_model_name),
        }
    }
}

use Methods::{Get, Post};
use Shape::{Id, Is, Model};

const fn row(methods: Methods, shape: Shape, dialect: Dialect) -> Row {
    Row {
        methods,
        shape,
        dialect,
        prefix: "",
        own: None,
        body: match methods {
            Get => BodyKind::Any,
            Post => BodyKind::Json,
        },
        websocket: false,
    }
}

/// A call whose body is a form with a file in it, or nothing.
const fn with_body(body: BodyKind, row: Row) -> Row {
    Row { body, ..row }
}

/// A path where frames follow the handshake in place of an answer.
const fn websocket(row: Row) -> Row {
    Row {
        websocket: true,
        ..row
    }
}

/// A short form of LiteLLM's: the engine is asked for `/v1` + the path.
const fn short(methods: Methods, shape: Shape, dialect: Dialect) -> Row {
    Row {
        prefix: "/v1",
        ..row(methods, shape, dialect)
    }
}

const fn own(shape: Shape, own: Own) -> Row {
    Row {
        own: Some(own),
        ..row(Get, shape, Other)
    }
}

/// What a model's name follows.
const MODEL_PATHS: [&str; 2] = ["/v1/models/", "/models/"];
/// Of a model in a path, decoded, in bytes.
const LONGEST_NAME: usize = 512;

/// The inference paths of OpenAI's and Anthropic's APIs, vLLM and SGLang; the busiest first.
const TABLE: &[Row] = &[
    row(Post, Is("/v1/chat/completions"), Chat),
    row(Post, Is("/v1/completions"), Completions),
    row(Post, Is("/v1/messages"), Messages),
    row(Post, Is("/v1/responses"), Responses),
    row(Post, Is("/v1/embeddings"), Other),
    own(Is("/v1/models"), Own::Models),
    short(Post, Is("/chat/completions"), Chat),
    short(Post, Is("/completions"), Completions),
    short(Post, Is("/embeddings"), Other),
    own(Is("/models"), Own::Models),
    own(Model(MODEL_PATHS[0]), Own::Model),
    own(Model(MODEL_PATHS[1]), Own::Model),
    row(Post, Is("/v1/messages/count_tokens"), Other),
    row(Get, Id("/v1/responses/", ""), Responses),
    with_body(
        BodyKind::Any,
        row(Post, Id("/v1/responses/", "/cancel"), Other),
    ),
    row(Post, Is("/v1/score"), Other),
    row(Post, Is("/score"), Other),
    row(Post, Is("/v1/rerank"), Other),
    row(Post, Is("/v2/rerank"), Other),
    row(Post, Is("/rerank"), Other),
    with_body(
        BodyKind::Form,
        row(Post, Is("/v1/audio/transcriptions"), Other),
    ),
    with_body(
        BodyKind::Form,
        row(Post, Is("/v1/audio/translations"), Other),
    ),
    row(Post, Is("/v1/audio/speech"), Other),
    websocket(row(Get, Is("/v1/realtime"), Other)),
    websocket(short(Get, Is("/realtime"), Other)),
    row(Post, Is("/tokenize"), Other),
    row(Post, Is("/v1/tokenize"), Other),
    row(Post, Is("/detokenize"), Other),
    row(Post, Is("/v1/detokenize"), Other),
    row(Post, Is("/generate"), Other),
];

/// Every HTTP stack reads this path as the same one: it starts with `/`, holds only RFC 3986's
/// `pchar` without `%` and `;`, and no empty, `.` or `..` segment (one `/` may end it).
fn is_plain(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"/") else {
        return false;
    };
    rest.iter().all(|&byte| byte == b'/' || is_plain_byte(byte)) && !has_odd_segment(rest)
}

fn is_plain_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

/// An empty segment (but for the last), `.` or `..`.
fn has_odd_segment(path: &[u8]) -> bool {
    let mut segments = path.split(|&byte| byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if matches!(segment, b"." | b"..") || (segment.is_empty() && !last) {
            return true;
        }
    }
    false
}

/// A model's name as it may stand in a path: decoded once it holds no control, `%`, `\`, `?`, `#`
/// or `;` and no odd segment, so that nothing between here and the engine can climb out of it.
fn is_model_name(raw: &[u8]) -> bool {
    let mut name = [0; LONGEST_NAME];
    let Some(length) = decode(raw, &mut name) else {
        return false;
    };
    let name = &name[..length];
    !name.is_empty()
        && !name.ends_with(b"/")
        && !has_odd_segment(name)
        && !name
            .iter()
            .any(|byte| byte.is_ascii_control() || b"%\\?#;".contains(byte))
}

/// Percent-decodes once; `None` for a raw byte that is not plain, a bad escape or too long a name.
fn decode(raw: &[u8], into: &mut [u8]) -> Option<usize> {
    let mut rest = raw;
    let mut length = 0;
    while let Some((&byte, tail)) = rest.split_first() {
        let (decoded, tail) = match byte {
            b'%' => (hex(*tail.first()?)? << 4 | hex(*tail.get(1)?)?, &tail[2..]),
            _ if byte == b'/' || is_plain_byte(byte) => (byte, tail),
            _ => return None,
        };
        *into.get_mut(length)? = decoded;
        length += 1;
        rest = tail;
    }
    Some(length)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests;
