//! Puts the name that a client knows a model by in the place of the engine's own (`rename_response`).

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;

/// From the engine's name to the client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    from: String,
    /// As a JSON string, quotes included.
    to: Bytes,
}

impl Rename {
    /// `None` where both are the same.
    pub fn new(from: &str, to: &str) -> Option<Self> {
        let json = serde_json::to_string(to).ok()?;
        (from != to).then(|| Self {
            from: from.to_owned(),
            to: json.into(),
        })
    }

    /// Replaces the value of every `model` in `json` that is the engine's name: one JSON text, or whole
    /// events of them. Shares the memory of `json` where there is none.
    pub fn apply(&self, json: &Bytes) -> Bytes {
        // Inside a JSON string the quotes would be escaped: a hit is a key, or a whole value without a colon.
        static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(r#""model""#));
        let mut renamed = BytesMut::new();
        let mut copied = 0;
        for at in KEY.find_iter(json) {
            let Some((start, end)) = self.value_behind(json, at + KEY.needle().len()) else {
                continue;
            };
            if renamed.is_empty() {
                renamed.reserve(json.len() + self.to.len());
            }
            renamed.extend_from_slice(&json[copied..start]);
            renamed.extend_from_slice(&self.to);
            copied = end;
        }
        if copied == 0 {
            return json.clone();
        }
        renamed.extend_from_slice(&json[copied..]);
        renamed.freeze()
    }

    /// Where the string behind a key at `at` lies, if it is the engine's name.
    fn value_behind(&self, json: &[u8], at: usize) -> Option<(usize, usize)> {
        let after_key = json[at..].trim_ascii_start();
        let value = after_key.strip_prefix(b":")?.trim_ascii_start();
        let length = string_length(value)?;
        // An escaped name is the same name.
        let name: String = serde_json::from_slice(&value[..length]).ok()?;
        let start = json.len() - value.len();
        (name == self.from).then_some((start, start + length))
    }
}

/// The length of the JSON string that `text` begins with, quotes included.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut at = text.starts_with(b"\"").then_some(1)?;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(json: &str) -> String {
        let rename = Rename::new("deepseek-ai/R1", "r\"1").unwrap();
        String::from_utf8(
            rename
                .apply(&Bytes::copy_from_slice(json.as_bytes()))
                .to_vec(),
        )
        .unwrap()
    }

    #[test]
    fn only_the_engines_name_is_replaced_and_only_where_a_model_stands() {
        for (answer, expected) in [
            (r#"{"model":"deepseek-ai/R1"}"#, r#"{"model":"r\"1"}"#),
            (
                r#"data: {"model" : "deepseek-ai\/R1","x":1}"#,
                r#"data: {"model" : "r\"1","x":1}"#,
            ),
            (
                r#"{"response":{"model":"deepseek-ai/R1"},"model":"deepseek-ai/R1"}"#,
                r#"{"response":{"model":"r\"1"},"model":"r\"1"}"#,
            ),
        ] {
            assert_eq!(renamed(answer), expected);
        }
        for same in [
            r#"{"model":"other"}"#,
            r#"{"model":null,"object":"model"}"#,
            r#"{"content":"\"model\":\"deepseek-ai/R1\""}"#,
            r#"{"x":"model","y":"deepseek-ai/R1"}"#,
            r#"{"model":"deepseek-ai/R1"#,
            r#"{"model":"deepseek-ai/R1\"#,
            r#"{"model""#,
            "",
        ] {
            assert_eq!(renamed(same), same);
        }
        assert_eq!(Rename::new("a", "a"), None);
    }
}
