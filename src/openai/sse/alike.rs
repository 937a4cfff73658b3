//! Events that differ in a token's text alone.
//!
//! Nearly all events of a stream are the one before with another text in the same place. What that one was
//! found to be, they are as well, and comparing them costs a tenth of searching them.

use memchr::memmem;

/// What the text of a token is in, in every dialect.
const KEYS: [&[u8]; 10] = [
    br#""content":""#,
    br#""content": ""#,
    br#""text":""#,
    br#""text": ""#,
    br#""reasoning_content":""#,
    br#""reasoning_content": ""#,
    br#""reasoning":""#,
    br#""reasoning": ""#,
    br#""thinking":""#,
    br#""thinking": ""#,
];
/// Longest event that is remembered, in bytes: more would be felt in the memory of a stream.
const LONGEST: usize = 1024;
/// Events in a row that were learned in vain: in such a stream something else changes as well (a sequence number,
/// log probabilities).
const TRIES: u8 = 8;

/// An event, without its text.
#[derive(Debug, Default)]
pub(super) struct Alike {
    event: Vec<u8>,
    /// Where in it the text was; 0 if there is no event.
    text_at: usize,
    tries: u8,
}

impl Alike {
    /// The length of the event that `bytes` begin with, if it is the one learned but for its text.
    ///
    /// The text has neither quotes nor backslashes, so that it is inside the string in which the other text
    /// was, and nothing else than that string's value differs.
    pub(super) fn length(&mut self, bytes: &[u8]) -> Option<usize> {
        let (before, after) = self.event.split_at_checked(self.text_at)?;
        if before.is_empty() {
            return None;
        }
        let text = text_length(bytes.strip_prefix(before)?)?;
        let length = before.len() + text + after.len();
        if !bytes[before.len() + text..].starts_with(after) {
            return None;
        }
        self.tries = 0;
        Some(length)
    }

    /// Remembers an event that was found to be content, its blank line included.
    pub(super) fn learn(&mut self, event: &[u8]) {
        if self.tries == TRIES || event.len() > LONGEST {
            return;
        }
        self.tries += 1;
        let text_at = KEYS
            .iter()
            .filter_map(|key| Some(memmem::rfind(event, key)? + key.len()))
            .max();
        let text = text_at.and_then(|at| text_length(&event[at..]));
        if let (Some(at), Some(text)) = (text_at, text) {
            self.event.clear();
            self.event.extend_from_slice(&event[..at]);
            self.event.extend_from_slice(&event[at + text..]);
            self.text_at = at;
        }
        if self.tries == TRIES {
            *self = Self {
                tries: TRIES,
                ..Self::default()
            };
        }
    }
}

/// The length of the text that `bytes` begin with, up to the quote that ends its string.
fn text_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes
        .iter()
        .position(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\r'))?;
    (bytes[end] == b'"').then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> String {
        format!("data: {{\"delta\":{{\"role\":\"a\",\"content\":\"{text}\"}},\"end\":null}}\n\n")
    }

    fn learned(text: &str) -> Alike {
        let mut alike = Alike::default();
        alike.learn(event(text).as_bytes());
        alike
    }

    #[test]
    fn another_text_is_alike() {
        for (one, other) in [("a", "b"), ("a", ""), ("", " tokens"), ("a", "ä{}[]:,'")] {
            let other = event(other);
            let both = format!("{other}{}", event("next"));
            assert_eq!(learned(one).length(both.as_bytes()), Some(other.len()));
        }
    }

    #[test]
    fn anything_else_is_not() {
        for other in [
            event("a\\n"),
            event("a\nb"),
            event("a\",\"error\":\"b"),
            event("b").replace("null", "1"),
            event("b").replace("role", "rule"),
            event("b").replace("\n\n", "\n"),
            event("b")[..20].to_owned(),
            String::new(),
        ] {
            assert_eq!(learned("a").length(other.as_bytes()), None, "{other}");
        }
        assert_eq!(Alike::default().length(event("a").as_bytes()), None);
    }

    #[test]
    fn an_event_without_a_text_or_too_long_is_not_learned() {
        for other in [
            "data: {\"contents\":\"a\"}\n\n".to_owned(),
            "data: {\"content\":null}\n\n".to_owned(),
            event("a\\n"),
            event(&"a".repeat(LONGEST)),
        ] {
            let mut alike = Alike::default();
            alike.learn(other.as_bytes());
            assert_eq!(alike.length(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn where_more_than_the_text_changes_nothing_is_learned_any_more() {
        let numbered = |n: u32| event("a").replace("null", &n.to_string());
        let mut alike = Alike::default();
        for n in 0..20 {
            assert_eq!(alike.length(numbered(n).as_bytes()), None);
            alike.learn(numbered(n).as_bytes());
        }
        assert_eq!(alike.length(numbered(19).as_bytes()), None);
        assert_eq!(alike.event.capacity(), 0);
    }
}
