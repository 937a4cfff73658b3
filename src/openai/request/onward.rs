//! Whether the stream that a request asks for could go on at another engine, and what that one must be told.
//!
//! An allow-list: a key that is not known to be safe stands in the way, unless its value is one that says nothing.

use std::ops::Range;

use super::value::Raw;

/// What a request says of going on elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Onward {
    /// Something in it makes any other engine's answer another one.
    pub is_barred: bool,
    /// Where the one prompt stands, its quotes included.
    pub prompt: Option<Range<usize>>,
    /// Where the list of messages stands, its brackets included; `None` where it is empty.
    pub messages: Option<Range<usize>>,
    /// A message has images, sounds or whatever is no text, which ids alone do not give.
    pub has_media: bool,
    /// There are tools, and the model may choose to call one.
    pub may_call_tools: bool,
    pub min_tokens: Option<u64>,
    /// It gave `max_completion_tokens`, or `max_tokens`.
    pub max_completion_tokens: bool,
    pub max_tokens: bool,
    /// Where the values of [`CARRIED`] stand.
    pub carried: [Option<Range<usize>>; CARRIED.len()],
}

/// Keys that the engine which goes on is told as they are.
pub const CARRIED: [&str; 10] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "user",
    "repetition_penalty",
    "logit_bias",
    "ignore_eos",
    "stop",
];

/// Where [`CARRIED`] has `temperature`.
pub const TEMPERATURE: usize = 0;
/// Where [`CARRIED`] has `top_k`.
pub const TOP_K: usize = 2;
/// Where [`CARRIED`] has `stop`.
pub const STOP: usize = 9;
/// Where [`CARRIED`] has `user`.
pub(super) const USER: u8 = 5;

/// A key that matters for going on, and for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// An index into [`CARRIED`].
    Carried(u8),
    Prompt,
    Messages,
    Tools,
    ToolChoice,
    MinTokens,
    ResponseFormat,
    ResponseFormatType,
    /// The content of a message.
    Content,
    PartType,
    /// A member of a part of a message's content that says more than a text.
    PartOther,
    /// Safe at any value.
    Harmless,
    /// Safe at 0.
    Zero,
    /// Safe at `false`.
    Off,
    /// Safe at null.
    Unknown,
}

impl Key {
    /// Its value's end matters.
    pub fn spans(self) -> bool {
        matches!(self, Self::Carried(_) | Self::Messages | Self::Tools)
    }
}

/// What is known before the whole object was read.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    found: Onward,
    has_tools: bool,
    calls_none: bool,
}

impl Reading {
    /// Takes a value; of an array or object only where it begins.
    pub fn set(&mut self, key: Key, raw: Raw<'_>, at: Range<usize>) {
        let found = &mut self.found;
        let is_null = matches!(raw, Raw::Null);
        match key {
            Key::Carried(index) => {
                // Nobody needs to be told a user whose name is longer than any.
                let is_too_long = index == USER && matches!(raw, Raw::Text(None));
                let is_whole = !matches!(raw, Raw::Array | Raw::Object | Raw::Null) && !is_too_long;
                if let Some(slot) = found.carried.get_mut(usize::from(index)) {
                    *slot = is_whole.then_some(at);
                }
            }
            Key::Prompt => {
                found.is_barred |= !matches!(raw, Raw::Text(_));
                found.prompt = Some(at);
            }
            Key::Messages => found.is_barred |= !matches!(raw, Raw::Array),
            Key::Tools => found.is_barred |= !is_null && !matches!(raw, Raw::Array),
            Key::ToolChoice => match raw {
                Raw::Null => {}
                Raw::Text(Some(b"auto")) => self.calls_none = false,
                Raw::Text(Some(b"none")) => self.calls_none = true,
                // A grammar, which would begin anew.
                _ => found.is_barred = true,
            },
            Key::MinTokens => match super::value::amount("min_tokens", raw, &at) {
                Ok(tokens) => found.min_tokens = tokens,
                Err(_) => found.is_barred = true,
            },
            // Its members decide.
            Key::ResponseFormat => found.is_barred |= !is_null && !matches!(raw, Raw::Object),
            Key::ResponseFormatType => {
                found.is_barred |= !matches!(raw, Raw::Text(Some(b"text")));
            }
            Key::PartType => found.has_media |= !matches!(raw, Raw::Text(Some(b"text"))),
            Key::PartOther => found.has_media |= !is_null,
            Key::Harmless | Key::Content => {}
            Key::Zero => found.is_barred |= !is_null && !is_zero(raw),
            Key::Off => found.is_barred |= !is_null && !matches!(raw, Raw::False),
            Key::Unknown => found.is_barred |= !is_null,
        }
    }

    /// An array or object has ended.
    pub fn end(&mut self, key: Key, range: Range<usize>, is_empty: bool) {
        match key {
            Key::Carried(index) => {
                if let Some(slot) = self.found.carried.get_mut(usize::from(index)) {
                    *slot = Some(range);
                }
            }
            Key::Messages => self.found.messages = (!is_empty).then_some(range),
            Key::Tools => self.has_tools = !is_empty,
            _ => {}
        }
    }

    pub fn bar(&mut self) {
        self.found.is_barred = true;
    }

    pub fn limited(&mut self, completion: bool, plain: bool) {
        self.found.max_completion_tokens = completion;
        self.found.max_tokens = plain;
    }

    pub fn finish(mut self) -> Onward {
        self.found.may_call_tools = self.has_tools && !self.calls_none;
        self.found
    }
}

fn is_zero(raw: Raw<'_>) -> bool {
    let Raw::Number(Some(number)) = raw else {
        return false;
    };
    let number = std::str::from_utf8(number).ok();
    number.and_then(|number| number.parse().ok()) == Some(0.0_f64)
}
