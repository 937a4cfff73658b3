//! Events that differ in a token's text and its ids alone.
//!
//! Nearly all events of a stream do; comparing them with one that was read costs a tenth of reading them.

use std::ops::Range;

use super::chunk::Text;

/// Longest event that is remembered, without its text and ids, in bytes.
const LONGEST: usize = 1024;

/// An event, in the pieces around its text and its ids.
#[derive(Debug, Default)]
pub(super) struct Pattern {
    before: Vec<u8>,
    between: Vec<u8>,
    after: Vec<u8>,
    has_ids: bool,
}

/// What a piece of the stream came to that was compared with an event read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alike {
    /// Nothing was taken: it has to be read.
    No,
    /// So many content events, to be shown as they are.
    AsTheyAre(u32),
    /// So many content events, to be shown as they were written out.
    Rewritten(u32),
}

/// One event that is alike.
pub(super) struct Found<'a> {
    pub text: &'a [u8],
    /// Without brackets; empty where ids are not looked for.
    pub ids: &'a [u8],
    pub length: usize,
}

impl Pattern {
    /// Remembers an event in which nothing changes but `text`, and with `has_ids` the list at `ids`.
    pub fn learn(&mut self, event: &[u8], text: Text<'_>, ids: &Range<usize>, has_ids: bool) {
        self.forget();
        if event.len() - text.raw.len() > LONGEST || !event.ends_with(b"}\n\n") {
            return;
        }
        let text_end = text.at + text.raw.len();
        if has_ids && ids.start < text_end {
            return;
        }
        let (before, rest) = (&event[..text.at], &event[text_end..]);
        let (between, after) = match has_ids {
            true => (&event[text_end..=ids.start], &event[ids.end - 1..]),
            false => (&rest[..0], rest),
        };
        self.before.extend_from_slice(before);
        self.between.extend_from_slice(between);
        self.after.extend_from_slice(after);
        self.has_ids = has_ids;
    }

    pub fn forget(&mut self) {
        self.before.clear();
        self.between.clear();
        self.after.clear();
    }

    /// The event that `bytes` begin with, if it is the one learned but for its text and ids.
    pub fn find<'a>(&self, bytes: &'a [u8]) -> Option<Found<'a>> {
        if self.before.is_empty() {
            return None;
        }
        let rest = bytes.strip_prefix(self.before.as_slice())?;
        let (text, rest) = rest.split_at(text_length(rest)?);
        let (ids, rest) = if self.has_ids {
            let rest = rest.strip_prefix(self.between.as_slice())?;
            let is_other = |byte: &u8| !matches!(byte, b'0'..=b'9' | b',');
            rest.split_at(rest.iter().position(is_other)?)
        } else {
            (&rest[..0], rest)
        };
        let rest = rest.strip_prefix(self.after.as_slice())?;
        Some(Found {
            text,
            ids,
            length: bytes.len() - rest.len(),
        })
    }

    /// Writes an event that was found, without its ids.
    pub fn write(&self, found: &Found<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        out.extend_from_slice(found.text);
        if self.has_ids {
            // Both have one bracket too many.
            out.extend_from_slice(&self.between[..self.between.len() - 1]);
            out.extend_from_slice(b"null");
            out.extend_from_slice(&self.after[1..]);
        } else {
            out.extend_from_slice(&self.after);
        }
    }
}

/// The length of the text that `bytes` begin with, up to the quote that ends its string.
fn text_length(bytes: &[u8]) -> Option<usize> {
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | b'\n' | b'\r');
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(is_special)?;
        match bytes[at] {
            b'"' => return Some(at),
            b'\\' if !matches!(bytes.get(at + 1)?, b'\n' | b'\r') => at += 2,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunk::Chunk;
    use super::*;

    fn event(text: &str, ids: &str) -> String {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null,\"token_ids\":{ids}}}]}}\n\n"
        )
    }

    fn learned(has_ids: bool) -> Pattern {
        let event = event("a", "[12]");
        let mut pattern = Pattern::default();
        let chunk = Chunk::read(event.as_bytes(), 6).unwrap();
        let choice = &chunk.choice;
        let text = choice.shown().unwrap();
        pattern.learn(event.as_bytes(), text, &choice.token_ids_at, has_ids);
        pattern
    }

    #[test]
    fn another_text_and_other_ids_are_alike() {
        let pattern = learned(true);
        for text in ["", " é{}", r"\n\\", r#"\"token_ids\":[1]"#] {
            let both = event(text, "[7,8]") + "data: x\n\n";
            let found = pattern.find(both.as_bytes()).unwrap();
            assert_eq!((found.text, found.ids), (text.as_bytes(), &b"7,8"[..]));
            assert_eq!(found.length, both.len() - 9);
            let mut out = Vec::new();
            pattern.write(&found, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), event(text, "null"));
        }
    }

    #[test]
    fn anything_else_is_not() {
        let pattern = learned(true);
        for other in [
            event("a", "null"),
            event("a", "[1, 2]"),
            event("a", "[1]").replace("null", "\"stop\""),
            event("a", "[1]").replace("}]", "},{}]"),
            event("a", "[1]")[..30].to_owned(),
        ] {
            assert!(pattern.find(other.as_bytes()).is_none(), "{other}");
        }
        assert!(
            Pattern::default()
                .find(event("a", "[1]").as_bytes())
                .is_none()
        );
    }

    #[test]
    fn without_ids_the_text_alone_may_differ() {
        let pattern = learned(false);
        let other = event("b", "[12]");
        assert_eq!(pattern.find(other.as_bytes()).unwrap().text, b"b");
        assert!(pattern.find(event("b", "[13]").as_bytes()).is_none());
    }
}
