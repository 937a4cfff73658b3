//! How the stream of a request may go on, and what the next engine is asked.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::super::Dialect;
use super::super::request::{CARRIED, Edit, Onward, Peeked, STOP, TEMPERATURE, TOP_K};
use super::kept::Kept;

/// What vLLM makes of a completion that does not say how long.
const DEFAULT_COMPLETION: u64 = 16;
/// Most bytes of the carried members. A stream has a copy of them until it ends.
const MOST_CARRIED: usize = 64 * 1024;

/// How the stream of one request may go on.
#[derive(Debug, Clone)]
pub struct Plan {
    pub dialect: Dialect,
    /// By token ids.
    pub by_ids: bool,
    /// By the text that the client has.
    pub by_text: bool,
    /// Characters that the engine holds back, because they may begin a stop string.
    pub(super) hold: usize,
    /// The engine draws the tokens, so that the same ids may be followed by others.
    pub(super) is_sampled: bool,
    /// The client is to get a count of tokens at the end.
    pub(super) wants_usage: bool,
    /// The carried members, each behind a comma.
    carried: Bytes,
    max_tokens: Option<u64>,
    min_tokens: u64,
}

/// The answer has as many tokens as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NothingLeft;

impl Plan {
    /// Whether a stream of `asked` may be able to go on.
    pub fn allows(asked: &Peeked, dialect: Dialect) -> bool {
        is_allowed(asked, dialect)
    }

    /// Whether a stream of `asked` can go on by token ids.
    pub fn allows_ids(asked: &Peeked, dialect: Dialect) -> bool {
        let onward = &asked.onward;
        let carried = onward.carried.iter().flatten();
        is_allowed(asked, dialect)
            && !onward.may_call_tools
            && !onward.has_media
            && carried.map(Range::len).sum::<usize>() <= MOST_CARRIED
    }

    /// How the stream of `asked`, whose body is `pieces`, may go on; `None` if it cannot.
    pub fn of(asked: &Peeked, dialect: Dialect, pieces: &[Bytes]) -> Option<Self> {
        if !is_allowed(asked, dialect) {
            return None;
        }
        let onward = &asked.onward;
        let longest = match &onward.carried[STOP] {
            Some(range) if range.len() > MOST_CARRIED => return None,
            Some(range) => longest_stop(&cut(pieces, range.clone()))?,
            None => 0,
        };
        let by_ids = Self::allows_ids(asked, dialect);
        let by_text = longest == 0;
        // By text the request's own body is sent again.
        let carried = match by_ids {
            true => carried(onward, pieces),
            false => Bytes::new(),
        };
        (by_ids || by_text).then(|| Self {
            dialect,
            by_ids,
            by_text,
            hold: longest.saturating_sub(1),
            is_sampled: by_ids && !is_greedy(onward, pieces),
            wants_usage: matches!(asked.include_usage, Some((true, _))),
            carried,
            max_tokens: asked.max_tokens,
            min_tokens: onward.min_tokens.unwrap_or(0),
        })
    }

    /// The same of a stream whose engine was not asked for ids; `None` where it cannot go on without.
    pub fn without_ids(self) -> Option<Self> {
        self.by_text.then(|| Self {
            by_ids: false,
            carried: Bytes::new(),
            ..self
        })
    }

    /// Bytes it takes.
    pub fn memory(&self) -> usize {
        self.carried.len()
    }

    /// How many more tokens the answer may have, where the request says so.
    fn left(&self, produced: u64) -> Option<u64> {
        let default = (self.dialect == Dialect::Completions).then_some(DEFAULT_COMPLETION);
        let asked = self.max_tokens.or(default)?;
        Some(asked.saturating_sub(produced))
    }

    /// How many tokens may still be made behind the ids of `kept`; `None` where nobody knows. `max_model_len`: of prompt
    /// and answer together.
    pub fn room(&self, kept: &Kept, max_model_len: Option<u64>) -> Option<u64> {
        let room = max_model_len.map(|most| most.saturating_sub(kept.ids().len() as u64));
        match (self.left(kept.produced()), room) {
            (None, None) => None,
            (left, room) => Some(left.unwrap_or(u64::MAX).min(room.unwrap_or(u64::MAX))),
        }
    }

    /// The body of `POST /v1/completions` by which another engine goes on. `model`: as it calls the model; `left` as
    /// [`Self::room`] has it.
    pub fn by_ids(&self, kept: &Kept, model: Option<&str>, left: u64) -> Bytes {
        let ids = kept.ids();
        let produced = kept.produced();
        let mut body = Vec::with_capacity(7 * ids.len() + self.carried.len() + 256);
        body.push(b'{');
        if let Some(model) = model {
            body.extend_from_slice(b"\"model\":");
            body.extend_from_slice(&json(model));
            body.push(b',');
        }
        body.extend_from_slice(b"\"prompt\":");
        body.extend_from_slice(&json(ids));
        body.extend_from_slice(format!(",\"max_tokens\":{left}").as_bytes());
        let least = self.min_tokens.saturating_sub(produced).min(left);
        if least > 0 {
            body.extend_from_slice(format!(",\"min_tokens\":{least}").as_bytes());
        }
        body.extend_from_slice(
            b",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"return_token_ids\":true",
        );
        body.extend_from_slice(&self.carried);
        body.push(b'}');
        body.into()
    }

    /// The changes of the request's own body by which another engine goes on from the text.
    pub fn by_text(&self, asked: &Peeked, kept: &Kept) -> Result<Vec<Edit>, NothingLeft> {
        let mut edits = Vec::new();
        let mut behind = BytesMut::new();
        let text = kept.text();
        if self.dialect == Dialect::Chat {
            behind.extend_from_slice(
                b",\"continue_final_message\":true,\"add_generation_prompt\":false",
            );
            if let Some(messages) = &asked.onward.messages {
                let message = [
                    &b",{\"role\":\"assistant\",\"content\":\""[..],
                    text,
                    b"\"}",
                ];
                edits.push(Edit::before(messages.end - 1, message.concat()));
            }
        } else if let Some(prompt) = &asked.onward.prompt {
            edits.push(Edit::before(prompt.end - 1, text.to_vec()));
        }
        let produced = kept.produced();
        if let Some(left) = self.left(produced) {
            if left == 0 {
                return Err(NothingLeft);
            }
            // A key that stands twice counts where it stands last.
            let onward = &asked.onward;
            let names = [
                ("max_completion_tokens", onward.max_completion_tokens),
                (
                    "max_tokens",
                    onward.max_tokens || !onward.max_completion_tokens,
                ),
            ];
            for (name, _) in names.iter().filter(|(_, is_given)| *is_given) {
                behind.extend_from_slice(format!(",\"{name}\":{left}").as_bytes());
            }
        }
        if self.min_tokens > 0 {
            let least = self.min_tokens.saturating_sub(produced);
            behind.extend_from_slice(format!(",\"min_tokens\":{least}").as_bytes());
        }
        if !behind.is_empty() {
            edits.push(Edit::before(asked.object.end - 1, behind.freeze()));
        }
        Ok(edits)
    }
}

fn is_allowed(asked: &Peeked, dialect: Dialect) -> bool {
    let Onward {
        is_barred,
        prompt,
        messages,
        ..
    } = &asked.onward;
    let has_its_prompt = match dialect {
        Dialect::Chat => messages.is_some() && prompt.is_none(),
        Dialect::Completions => prompt.is_some() && messages.is_none(),
        Dialect::Messages | Dialect::Responses | Dialect::Other => false,
    };
    asked.stream == Some(true) && !is_barred && has_its_prompt
}

/// The members that the next engine is told as they are.
fn carried(onward: &Onward, pieces: &[Bytes]) -> Bytes {
    let mut carried = BytesMut::new();
    for (name, range) in CARRIED.iter().zip(&onward.carried) {
        if let Some(range) = range {
            carried.extend_from_slice(b",\"");
            carried.extend_from_slice(name.as_bytes());
            carried.extend_from_slice(b"\":");
            carried.extend_from_slice(&cut(pieces, range.clone()));
        }
    }
    carried.freeze()
}

/// Whether the likeliest token is taken every time: `temperature` 0 or `top_k` 1.
fn is_greedy(onward: &Onward, pieces: &[Bytes]) -> bool {
    let number = |index: usize| -> Option<f64> {
        let value = cut(pieces, onward.carried[index].clone()?);
        std::str::from_utf8(&value).ok()?.parse().ok()
    };
    number(TEMPERATURE) == Some(0.0) || number(TOP_K) == Some(1.0)
}

/// The characters of the longest stop string; `None` where they are none.
fn longest_stop(json: &[u8]) -> Option<usize> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Stop {
        One(String),
        Several(Vec<String>),
    }
    let stop = match serde_json::from_slice(json).ok()? {
        Stop::One(one) => vec![one],
        Stop::Several(several) => several,
    };
    Some(
        stop.iter()
            .map(|one| one.chars().count())
            .max()
            .unwrap_or(0),
    )
}

fn json(value: &(impl serde::Serialize + ?Sized)) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The bytes at `range` of a body in pieces.
fn cut(pieces: &[Bytes], range: Range<usize>) -> Cow<'_, [u8]> {
    let mut before = 0;
    let mut found = Vec::new();
    for piece in pieces {
        let end = before + piece.len();
        if range.start >= before && range.end <= end {
            return Cow::Borrowed(&piece[range.start - before..range.end - before]);
        }
        let from = range.start.clamp(before, end) - before;
        let to = range.end.clamp(before, end) - before;
        found.extend_from_slice(&piece[from..to]);
        before = end;
    }
    Cow::Owned(found)
}
