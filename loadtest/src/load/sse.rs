//! Reading a stream of events, and holding its text against what the simulated engine says.

use serde::Deserialize;

use crate::engine::text::{self, Context};

/// Cuts bytes into events.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    buffer: Vec<u8>,
}

impl Splitter {
    /// Calls `event` with the data of each event that is whole now; comments are skipped.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut event: impl FnMut(&[u8])) {
        // Nearly always one whole event, which needs no copy.
        let mut rest = bytes;
        if !self.buffer.is_empty() {
            self.buffer.extend_from_slice(bytes);
            let whole = std::mem::take(&mut self.buffer);
            self.feed(&whole, event);
            return;
        }
        while let Some(end) = memchr::memmem::find(rest, b"\n\n") {
            if let Some(data) = rest[..end].strip_prefix(b"data: ") {
                event(data);
            }
            rest = &rest[end + 2..];
        }
        self.buffer.extend_from_slice(rest);
    }

    /// Whether the stream ended inside an event.
    pub(crate) fn is_inside_event(&self) -> bool {
        !self.buffer.is_empty()
    }
}

/// What an event of either generating path can say, as far as a client looks.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Event {
    #[serde(default)]
    pub choices: Vec<Choice>,
    pub error: Option<serde_json::Value>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Choice {
    #[serde(default)]
    pub index: usize,
    pub delta: Option<Content>,
    pub message: Option<Content>,
    pub text: Option<String>,
    pub finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Content {
    pub content: Option<String>,
}

impl Choice {
    pub(crate) fn text(&self) -> &str {
        let content = self
            .delta
            .as_ref()
            .or(self.message.as_ref())
            .and_then(|content| content.content.as_deref());
        content.or(self.text.as_deref()).unwrap_or_default()
    }
}

/// Holds the text of an answer against the one its prompt must have.
#[derive(Debug)]
pub(crate) struct Verifier {
    context: Context,
    /// Expected and not yet seen.
    expected: Vec<u8>,
    /// Tokens seen so far.
    pub tokens: usize,
}

impl Verifier {
    pub(crate) fn new(context: Context) -> Self {
        Self {
            context,
            expected: Vec::new(),
            tokens: 0,
        }
    }

    /// Takes the next piece of the answer; false when it is not what the engine says.
    pub(crate) fn is_right(&mut self, text: &str) -> bool {
        while self.expected.len() < text.len() {
            let id = self.context.next();
            text::decode(id, &mut self.expected);
            self.context.push(id);
            self.tokens += 1;
        }
        if !self.expected.starts_with(text.as_bytes()) {
            return false;
        }
        self.expected.drain(..text.len());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let wire = b"data: one\n\n: comment\n\ndata: two\n\ndata: [DONE]\n\n";
        for step in 1..wire.len() {
            let (mut splitter, mut found) = (Splitter::default(), Vec::new());
            for piece in wire.chunks(step) {
                splitter.feed(piece, |data| {
                    found.push(String::from_utf8(data.to_vec()).unwrap())
                });
            }
            assert_eq!(found, ["one", "two", "[DONE]"]);
            assert!(!splitter.is_inside_event());
        }
        let mut splitter = Splitter::default();
        splitter.feed(b"data: half", |_| panic!("no event yet"));
        assert!(splitter.is_inside_event());
    }

    #[test]
    fn a_wrong_a_missing_and_a_doubled_piece_are_noticed() {
        let prompt = || Context::chat([("user", "x")]);
        let whole = text::answer(prompt(), 50);
        let words: Vec<_> = whole.split_inclusive(' ').collect();
        let right = |words: &[&str]| {
            let mut verifier = Verifier::new(prompt());
            words.iter().all(|word| verifier.is_right(word))
        };
        assert!(right(&words));
        assert!(!right(&words[1..]));
        assert!(!right(&[&words[..5], &words[6..]].concat()));
        assert!(!right(&[&words[..5], &words[4..]].concat()));
    }
}
