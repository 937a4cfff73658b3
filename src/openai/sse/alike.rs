//! Events that differ in a token's text alone.
//!
//! Nearly all events of a stream are the one before with another text in the same place. What that one was
//! found to be, they are as well, and comparing them costs a tenth of searching them.

use memchr::memmem;

/// What the text of a token is called, in every dialect.
const NAMES: [&[u8]; 5] = [
    b"content",
    b"text",
    b"reasoning_content",
    b"reasoning",
    b"thinking",
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
    /// The text ends where its string does, so that nothing else than that string's value differs.
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
        if let Some(at) = text_at(event)
            && let Some(text) = text_length(&event[at..])
        {
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

/// Where the text of an event begins: behind the quote that opens the last string with one of the [`NAMES`]. In
/// a string that quotes another event the names would end with a backslash.
fn text_at(event: &[u8]) -> Option<usize> {
    let colons = memmem::find_iter(event, b"\":");
    let texts = colons.filter_map(|name_end| {
        let name = event[..name_end].rsplit(|&byte| byte == b'"').next()?;
        let value = &event[name_end + 2..];
        let space = usize::from(value.first() == Some(&b' '));
        let is_text = value.get(space) == Some(&b'"') && NAMES.contains(&name);
        is_text.then_some(name_end + 2 + space + 1)
    });
    texts.last()
}

/// The length of the text that `bytes` begin with, up to the quote that ends its string; `None` if that does not
/// come, or not in the same line.
fn text_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\n' | b'\r' => return None,
            b'\\' if matches!(bytes.get(at + 1)?, b'\n' | b'\r') => return None,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
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
        let texts = [
            "",
            "a",
            " tokens",
            "ä{}[]:,'",
            r"\n",
            r"\\",
            r#"\"error\":\"\\"#,
        ];
        for (one, other) in texts.into_iter().zip(texts.into_iter().rev()) {
            let other = event(other);
            let both = format!("{other}{}", event("next"));
            assert_eq!(learned(one).length(both.as_bytes()), Some(other.len()));
        }
    }

    #[test]
    fn anything_else_is_not() {
        for other in [
            event("a\\"),
            event("a\nb"),
            event("a\\\nb"),
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
            event("a\nb"),
            "data: \"{\\\"content\\\":\\\"a\\\"}\"\n\n".to_owned(),
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
