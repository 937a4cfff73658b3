//! What one event means, by the dialect of its stream.

use std::fmt;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::Dialect;
use super::super::usage::{Counts, Lenient, Usage};
use super::{ErrorEvent, fault};

/// Whether an answer in one piece says that the engine gave it up (a `finish_reason` of "abort" or "error"): SDKs
/// take it for a whole one.
pub fn gave_up(dialect: Dialect, body: &[u8]) -> bool {
    static REASONS: LazyLock<[Finder<'static>; 2]> =
        LazyLock::new(|| [Finder::new("\"abort\""), Finder::new("\"error\"")]);
    // In a text the quotes would be escaped: hardly an answer is parsed for nothing.
    matches!(dialect, Dialect::Chat | Dialect::Completions)
        && REASONS.iter().any(|reason| reason.find(body).is_some())
        && serde_json::from_slice::<Choices>(body).is_ok_and(|answer| {
            let mut choices = answer.choices.iter().flatten();
            choices.any(|choice| choice.finish_reason == Reason::GaveUp)
        })
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Content,
    /// A frame around content, or a ping.
    Nothing,
    /// The dialect's last event.
    Done,
    /// The engine gave up; the event may bring content as well.
    Abort {
        content: bool,
    },
    Error(Box<ErrorEvent>),
    /// The dialect's last event, and it says that the answer failed.
    FailedAnswer(Box<ErrorEvent>),
}

/// Knows the dialect, and which choices of the answer have finished.
#[derive(Debug)]
pub(super) struct Reader {
    dialect: Dialect,
    /// One bit a choice, by its index; choices beyond 63 share the last.
    known: u64,
    finished: u64,
    /// How many of them there are to be.
    expected: u32,
    /// Every event is parsed: each may bring a count of tokens.
    reads_each: bool,
    /// The engine's count of tokens so far.
    usage: Option<Usage>,
    /// The event read last brought that count and nothing else.
    only_counts: bool,
}

impl Reader {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            known: 0,
            finished: 0,
            expected: 1,
            reads_each: false,
            usage: None,
            only_counts: false,
        }
    }

    /// See [`super::SseScanner::expect`].
    pub(super) fn expect(&mut self, choices: u64) {
        self.expected = u32::try_from(choices).unwrap_or(u32::MAX).min(u64::BITS);
    }

    /// From now on every event is parsed for its count of tokens (`continuous_usage_stats`).
    pub(super) fn read_each(&mut self) {
        self.reads_each = true;
    }

    /// No choice has finished, and of content nothing but that it came is to be known.
    pub(super) fn looks_for_ends_only(&self) -> bool {
        self.finished == 0 && !self.reads_each
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// The event read last is the one that `include_usage` adds: a count of tokens and no choice.
    pub(super) fn only_counts(&self) -> bool {
        self.only_counts
    }

    /// The same, told once: what has no data is not read, and must not be taken for it.
    pub(super) fn take_only_counts(&mut self) -> bool {
        std::mem::take(&mut self.only_counts)
    }

    fn count(&mut self, counts: Option<Usage>) {
        if let Some(counts) = counts {
            self.usage.get_or_insert_default().update(counts);
        }
    }

    /// Every choice that is to come or showed up has given its reason to stop.
    pub(super) fn all_finished(&self) -> bool {
        let is_enough = self.finished != 0 && self.finished.count_ones() >= self.expected;
        is_enough && self.known & !self.finished == 0
    }

    pub(super) fn has_known_end(&self) -> bool {
        self.dialect != Dialect::Other
    }

    /// `started`: content has come before, so that only what ends or fails the answer matters.
    pub(super) fn read(&mut self, name: Option<&[u8]>, data: &[u8], started: bool) -> Meaning {
        self.only_counts = false;
        if name == Some(b"ping") {
            return Meaning::Nothing;
        }
        if data.first() == Some(&b'[') && data.trim_ascii_end() == b"[DONE]" {
            return Meaning::Done;
        }
        if let Some(error) = fault::find(name, data) {
            return Meaning::Error(Box::new(error));
        }
        match self.dialect {
            Dialect::Chat | Dialect::Completions => self.choices(data, started),
            Dialect::Messages => self.messages(name, data, started),
            Dialect::Responses => self.responses(name, data, started),
            Dialect::Other => Meaning::Content,
        }
    }

    fn choices(&mut self, data: &[u8], started: bool) -> Meaning {
        if started && self.finished == 0 && !self.reads_each && !names_finish_reason(data) {
            return Meaning::Content;
        }
        let Ok(event) = serde_json::from_slice::<Choices>(data) else {
            return unreadable(data);
        };
        if let Some(counts) = &event.usage.0 {
            self.count(Some(counts.usage()));
            self.only_counts = event.choices.as_ref().is_none_or(Vec::is_empty);
        }
        let (mut content, mut abort) = (started, false);
        for choice in event.choices.iter().flatten() {
            content |= choice.has_content();
            match choice.finish_reason {
                Reason::None => self.known |= bit(choice.index),
                Reason::GaveUp => abort = true,
                Reason::Finished => {
                    self.finish(choice.index);
                    content = true;
                }
            }
        }
        match (abort, content) {
            (true, content) => Meaning::Abort { content },
            (false, true) => Meaning::Content,
            (false, false) => Meaning::Nothing,
        }
    }

    fn finish(&mut self, index: u32) {
        self.known |= bit(index);
        self.finished |= bit(index);
    }

    fn messages(&mut self, name: Option<&[u8]>, data: &[u8], started: bool) -> Meaning {
        let parse = || serde_json::from_slice::<MessagesEvent>(data);
        let kind = Kind::of(name, data);
        match kind.as_bytes() {
            b"message_start" => {
                // Of the answer nothing has been counted yet, whatever number stands there.
                self.count(Usage::of_json(data).map(|usage| Usage {
                    completion: None,
                    ..usage
                }));
                Meaning::Nothing
            }
            b"content_block_stop" | b"ping" => Meaning::Nothing,
            // vLLM ends a message that it has given up as if it were whole, but for the reason.
            b"message_stop" if self.finished == 0 => Meaning::Abort { content: false },
            b"message_stop" => Meaning::Done,
            b"content_block_delta" if started => Meaning::Content,
            b"content_block_delta" => parse().map_or_else(
                |_| unreadable(data),
                |event| {
                    if event.delta.has_content() {
                        Meaning::Content
                    } else {
                        Meaning::Nothing
                    }
                },
            ),
            b"content_block_start" => parse().map_or_else(
                |_| unreadable(data),
                |event| {
                    if event.content_block.has_content() {
                        Meaning::Content
                    } else {
                        Meaning::Nothing
                    }
                },
            ),
            b"message_delta" => {
                self.count(Usage::of_json(data));
                match parse().map(|event| event.delta.stop_reason) {
                    Ok(Reason::None) => Meaning::Nothing,
                    Ok(Reason::GaveUp) => Meaning::Abort { content: false },
                    Ok(Reason::Finished) => {
                        self.finish(0);
                        Meaning::Content
                    }
                    Err(_) => unreadable(data),
                }
            }
            _ => unreadable(data),
        }
    }

    fn responses(&mut self, name: Option<&[u8]>, data: &[u8], started: bool) -> Meaning {
        let kind = Kind::of(name, data);
        if matches!(
            kind.as_bytes(),
            b"response.completed"
                | b"response.incomplete"
                | b"response.cancelled"
                | b"response.failed"
        ) {
            self.count(Usage::of_json(data));
        }
        responses(kind.as_bytes(), data, started)
    }
}

fn responses(kind: &[u8], data: &[u8], started: bool) -> Meaning {
    match kind {
        b"response.created" | b"response.in_progress" | b"response.queued" => Meaning::Nothing,
        b"response.completed" | b"response.incomplete" | b"response.cancelled" => Meaning::Done,
        b"response.failed" => Meaning::FailedAnswer(Box::new(fault::of_failed_response(data))),
        _ if started => Meaning::Content,
        b"response.content_part.added"
        | b"response.reasoning_part.added"
        | b"response.reasoning_summary_part.added" => Meaning::Nothing,
        b"response.output_item.added" => match serde_json::from_slice::<ResponsesEvent>(data) {
            Ok(event) if event.item.is_frame() => Meaning::Nothing,
            _ => Meaning::Content,
        },
        kind if kind.ends_with(b".delta") => match serde_json::from_slice::<ResponsesEvent>(data) {
            Ok(event) if !event.delta.0 => Meaning::Nothing,
            _ => Meaning::Content,
        },
        _ => unreadable(data),
    }
}

/// An event we cannot place is something the client gets to see, so it is content; one that is
/// empty is not.
fn unreadable(data: &[u8]) -> Meaning {
    if data.is_empty() {
        Meaning::Nothing
    } else {
        Meaning::Content
    }
}

fn bit(index: u32) -> u64 {
    1 << index.min(63)
}

/// A cheap look for a `finish_reason` that is not null. Inside a JSON string the quotes would be
/// escaped, so that a hit is nearly always a key; it is parsed to be sure.
fn names_finish_reason(data: &[u8]) -> bool {
    static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(r#""finish_reason""#));
    let after_key = |at: usize| data[at + KEY.needle().len()..].trim_ascii_start();
    KEY.find_iter(data).any(|at| {
        after_key(at)
            .strip_prefix(b":")
            .is_some_and(|value| !value.trim_ascii_start().starts_with(b"null"))
    })
}

/// What an event calls itself: by its `event:` line, which SDKs go by, else by its JSON `type`.
enum Kind<'a> {
    Name(&'a [u8]),
    Type(String),
}

impl<'a> Kind<'a> {
    fn of(name: Option<&'a [u8]>, data: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Typed {
            r#type: String,
        }
        match name {
            Some(name) => Self::Name(name),
            None => Self::Type(
                serde_json::from_slice::<Typed>(data).map_or_else(|_| String::new(), |t| t.r#type),
            ),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Name(name) => name,
            Self::Type(kind) => kind.as_bytes(),
        }
    }
}

#[derive(Deserialize)]
struct Choices {
    choices: Option<Vec<Choice>>,
    #[serde(default)]
    usage: Lenient<Counts>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    delta: Option<Delta>,
    #[serde(default)]
    text: Filled,
    #[serde(default)]
    finish_reason: Reason,
}

impl Choice {
    fn has_content(&self) -> bool {
        self.text.0 || self.delta.as_ref().is_some_and(Delta::has_content)
    }
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Delta {
    content: Filled,
    reasoning: Filled,
    reasoning_content: Filled,
    refusal: Filled,
    tool_calls: Filled,
    function_call: Filled,
    audio: Filled,
}

impl Delta {
    fn has_content(&self) -> bool {
        self.content.0
            || self.reasoning.0
            || self.reasoning_content.0
            || self.refusal.0
            || self.tool_calls.0
            || self.function_call.0
            || self.audio.0
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MessagesEvent {
    delta: Block,
    content_block: Block,
}

/// A `content_block` or a `delta` of Anthropic's.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Block {
    text: Filled,
    thinking: Filled,
    partial_json: Filled,
    signature: Filled,
    /// Of a tool.
    name: Filled,
    stop_reason: Reason,
}

impl Block {
    fn has_content(&self) -> bool {
        self.text.0 || self.thinking.0 || self.partial_json.0 || self.signature.0 || self.name.0
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ResponsesEvent {
    delta: Filled,
    item: Item,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Item {
    r#type: String,
}

impl Item {
    /// The item's content follows; calls of tools show something at once.
    fn is_frame(&self) -> bool {
        matches!(self.r#type.as_str(), "message" | "reasoning")
    }
}

/// Whether a value holds anything: not null, `""`, `[]` or `{}`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Filled(bool);

/// A `finish_reason` or `stop_reason`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Reason {
    #[default]
    None,
    /// "abort" or "error".
    GaveUp,
    Finished,
}

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let reason = deserializer.deserialize_any(AnyValue)?;
        Ok(Self(reason != Reason::None))
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// Takes any value without keeping it.
struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Reason;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, value: &str) -> Result<Reason, E> {
        Ok(match value {
            "" => Reason::None,
            "abort" | "error" => Reason::GaveUp,
            _ => Reason::Finished,
        })
    }

    fn visit_unit<E>(self) -> Result<Reason, E> {
        Ok(Reason::None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Reason, E> {
        Ok(Reason::Finished)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Reason, E> {
        Ok(Reason::Finished)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Reason, E> {
        Ok(Reason::Finished)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Reason, E> {
        Ok(Reason::Finished)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Reason, A::Error> {
        let mut reason = Reason::None;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            reason = Reason::Finished;
        }
        Ok(reason)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Reason, A::Error> {
        let mut reason = Reason::None;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            reason = Reason::Finished;
        }
        Ok(reason)
    }
}
