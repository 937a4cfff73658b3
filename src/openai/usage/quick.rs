//! The counts of an answer whose `usage` is laid out as every engine lays it out, without reading the rest of it.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use memchr::{memchr, memchr2};

use super::{Count, Counts, Details, Lenient, MOST};

/// What looking for a `usage` came to.
#[derive(Debug)]
pub(super) enum Sought {
    /// The counts of the outermost object.
    Counts(Counts),
    /// No object of the answer has counts.
    None,
    /// To be read in full.
    Unknown,
}

/// Looks for the last `"usage"`. Behind a quotation mark that is not escaped it is a key or a value, never a part of a
/// text; and it is a key of the outermost object if what comes after its value closes one object and no more.
///
/// `json` is taken to be valid JSON up to that key: an engine that sends something else decides about its own counts.
pub(super) fn seek(json: &[u8]) -> Sought {
    static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));
    static META_INFO: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"meta_info\""));
    // Forwards, which is several bytes at a time; backwards is not.
    let Some(at) = USAGE.find_iter(json).last() else {
        // SGLang's name for it.
        return match META_INFO.find(json) {
            Some(_) => Sought::Unknown,
            None => Sought::None,
        };
    };
    let mut cursor = Cursor(json.get(at + 7..).unwrap_or_default());
    let counts = cursor.next(b':').and_then(|()| cursor.counts());
    match counts {
        Some(counts) if cursor.closes_one() => Sought::Counts(counts),
        _ => Sought::Unknown,
    }
}

/// What is not read yet.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn peek(&mut self) -> Option<u8> {
        while let [b' ' | b'\n' | b'\r' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
        self.0.first().copied()
    }

    fn skip(&mut self, bytes: usize) {
        self.0 = self.0.get(bytes..).unwrap_or_default();
    }

    fn next(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.skip(1))
    }

    /// A string without escapes.
    fn key(&mut self) -> Option<&'a [u8]> {
        self.next(b'"')?;
        let end = memchr2(b'"', b'\\', self.0)?;
        let (key, rest) = self.0.split_at_checked(end)?;
        if rest.first() != Some(&b'"') {
            return None;
        }
        self.skip(end + 1);
        self.next(b':')?;
        Some(key)
    }

    /// The members of an object, each of which is taken by `take`.
    fn members(&mut self, mut take: impl FnMut(&mut Self, &'a [u8]) -> Option<()>) -> Option<()> {
        self.next(b'{')?;
        if self.next(b'}').is_some() {
            return Some(());
        }
        loop {
            let key = self.key()?;
            take(self, key)?;
            match self.peek()? {
                b',' => self.skip(1),
                b'}' => {
                    self.skip(1);
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// A number of tokens, or null.
    fn count(&mut self) -> Option<Count> {
        match self.peek()? {
            b'n' => {
                let rest = self.0.strip_prefix(b"null")?;
                self.0 = rest;
                return Some(Count(None));
            }
            b'1'..=b'9' => {}
            // Also of "00", which what comes next refuses.
            b'0' => {
                self.skip(1);
                return Some(Count(Some(0)));
            }
            _ => return None,
        }
        let mut number = 0;
        let mut digits = 0;
        while let [digit @ b'0'..=b'9', rest @ ..] = self.0 {
            number = number * 10 + u64::from(digit - b'0');
            digits += 1;
            if digits > 12 {
                return None;
            }
            self.0 = rest;
        }
        Some(Count((number <= MOST).then_some(number)))
    }

    fn details(&mut self) -> Option<Lenient<Details>> {
        if self.peek()? != b'{' {
            self.count()?;
            return Some(Lenient(None));
        }
        let mut details = Details::default();
        self.members(|cursor, key| {
            let count = cursor.count()?;
            if key == b"cached_tokens" {
                details.cached_tokens = count;
            }
            Some(())
        })?;
        Some(Lenient(Some(details)))
    }

    fn counts(&mut self) -> Option<Counts> {
        let mut counts = Counts::default();
        self.members(|cursor, key| {
            let count = match key {
                b"prompt_tokens_details" => {
                    counts.prompt_tokens_details = cursor.details()?;
                    return Some(());
                }
                b"input_tokens_details" => {
                    counts.input_tokens_details = cursor.details()?;
                    return Some(());
                }
                _ if cursor.peek()? == b'{' => return cursor.details().map(drop),
                b"prompt_tokens" => &mut counts.prompt_tokens,
                b"completion_tokens" => &mut counts.completion_tokens,
                b"input_tokens" => &mut counts.input_tokens,
                b"output_tokens" => &mut counts.output_tokens,
                b"cached_tokens" => &mut counts.cached_tokens,
                b"cache_read_input_tokens" => &mut counts.cache_read_input_tokens,
                b"cache_creation_input_tokens" => &mut counts.cache_creation_input_tokens,
                _ => return cursor.count().map(drop),
            };
            *count = cursor.count()?;
            Some(())
        })?;
        Some(counts)
    }

    /// Whether the rest closes the one object it is in, and is nothing after that.
    fn closes_one(&mut self) -> bool {
        let mut open = 1_usize;
        while let Some(byte) = self.peek() {
            self.skip(1);
            match byte {
                b'{' | b'[' => open += 1,
                b'}' | b']' => {
                    open -= 1;
                    if open == 0 {
                        return byte == b'}' && self.peek().is_none();
                    }
                }
                b'"' if !self.skip_text() => return false,
                _ => {}
            }
        }
        false
    }

    /// The rest of a string; whether it ends.
    fn skip_text(&mut self) -> bool {
        while let Some(at) = memchr(b'"', self.0) {
            let escapes = self.0.get(..at).unwrap_or_default();
            let slashes = escapes
                .iter()
                .rev()
                .take_while(|byte| **byte == b'\\')
                .count();
            self.skip(at + 1);
            if slashes.is_multiple_of(2) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::{Answer, Usage};
    use super::*;

    fn in_full(json: &[u8]) -> Option<Usage> {
        serde_json::from_slice::<Answer>(json).ok()?.usage()
    }

    #[test]
    fn what_engines_send_is_found_without_reading_the_rest() {
        for json in [
            r#"{"id":"c","choices":[{"text":"\"usage\": {"}],"usage":{"prompt_tokens":4,"total_tokens":16,"completion_tokens":12,"prompt_tokens_details":{"cached_tokens":1,"created_cache_tokens":0}},"prompt_logprobs":null,"kv_transfer_params":{"a":["}",{}]}}"#,
            r#" {"usage" : { "input_tokens" : 5 , "output_tokens":0,"input_tokens_details":null } } "#,
            r#"{"usage":{}}"#,
        ] {
            let Sought::Counts(counts) = seek(json.as_bytes()) else {
                panic!("{json}");
            };
            let found = Some(counts.usage()).filter(|usage| !usage.is_empty());
            assert_eq!(found, in_full(json.as_bytes()), "{json}");
        }
        let none = r#"{"choices":[{"delta":{"content":"usage \"usage\" meta_info"}}]}"#;
        assert!(matches!(seek(none.as_bytes()), Sought::None));
    }

    #[test]
    fn what_is_laid_out_otherwise_is_left_to_a_whole_reading() {
        for json in [
            r#"{"metadata":{"usage":{"prompt_tokens":1}}}"#,
            r#"{"usage":{"prompt_tokens":1}},"#,
            r#"[{"usage":{"prompt_tokens":1}}]"#,
            r#"{"usage":{"prompt_tokens":1.5}}"#,
            r#"{"usage":{"prompt_tokens":-1}}"#,
            r#"{"usage":{"prompt_tokens":1e3}}"#,
            r#"{"usage":{"prompt_tokens":01}}"#,
            r#"{"usage":{"prompt_tokens":"1"}}"#,
            r#"{"usage":{"prompt_tokens":[1]}}"#,
            r#"{"usage":{"prompt\u005ftokens":1}}"#,
            r#"{"usage":{"a":{"b":{}}}}"#,
            r#"{"usage":null}"#,
            r#"{"usage":{"prompt_tokens":99999999999999999999}}"#,
            r#"{"usage":{"prompt_tokens":1},"a":"}"#,
            r#"{"usage":{"prompt_tokens":1}"#,
            r#"{"usage":{"prompt_tokens":1]}"#,
            r#"{"a":"usage"}"#,
            r#"{"text":"a","meta_info":{"prompt_tokens":4}}"#,
            r#""usage""#,
        ] {
            assert!(matches!(seek(json.as_bytes()), Sought::Unknown), "{json}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            (0_u64..1 << 34).prop_map(Value::from),
            any::<f32>().prop_map(Value::from),
            Just(json!("usage")),
            "[\"\\\\{}a:,\\[\\]]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let key = prop::sample::select(vec![
                "usage",
                "response",
                "message",
                "prompt_tokens",
                "completion_tokens",
                "prompt_tokens_details",
                "cached_tokens",
                "input_tokens",
                "meta_info",
                "x\"",
            ]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map(key, inner, 0..4).prop_map(|map| {
                    map.into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect()
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Where it answers, it answers as a whole reading does.
        #[test]
        fn it_never_differs_from_a_whole_reading(value in value(), pretty in any::<bool>()) {
            // Lists are answers one by one, before it is asked.
            prop_assume!(!value.is_array());
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            let whole = in_full(text.as_bytes());
            match seek(text.as_bytes()) {
                Sought::Counts(counts) => {
                    prop_assert_eq!(Some(counts.usage()).filter(|usage| !usage.is_empty()), whole);
                }
                Sought::None => prop_assert_eq!(None, whole),
                Sought::Unknown => {}
            }
        }
    }
}
