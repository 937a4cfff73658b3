//! The model that a query names, as OpenAI's realtime API has it (`?model=`). Pure.
//!
//! A query is read as engines read it (WHATWG's `application/x-www-form-urlencoded`): names and values are
//! percent-decoded once, and `+` is a blank. Nothing but the value is ever changed.

use std::ops::Range;

/// The parameter's name.
const MODEL: &[u8] = b"model";
/// Longest name of a model, decoded, in bytes.
const LONGEST: usize = 512;

/// The value of `model` in a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryModel {
    /// Decoded; never empty.
    pub value: String,
    /// Where it stands in the query, as it was sent.
    pub range: Range<usize>,
}

/// Reads the model of `query`, the bytes behind the `?`. `None`: it names none, or an empty one.
///
/// # Errors
/// What is wrong, and how to mend it.
pub fn model_of(query: &[u8]) -> Result<Option<QueryModel>, &'static str> {
    let mut found = None;
    let mut at = 0;
    for parameter in query.split(|byte| *byte == b'&') {
        let start = at;
        at += parameter.len() + 1;
        let equals = memchr::memchr(b'=', parameter);
        let (name, value) = parameter.split_at(equals.unwrap_or(parameter.len()));
        if !is_model(name) {
            continue;
        }
        let value = value.get(1..).unwrap_or_default();
        if found.replace((start + name.len() + 1, value)).is_some() {
            return Err("the query names `model` more than once; name it once");
        }
    }
    let Some((start, raw)) = found.filter(|(_, raw)| !raw.is_empty()) else {
        return Ok(None);
    };
    Ok(Some(QueryModel {
        value: decoded(raw)?,
        range: start..start + raw.len(),
    }))
}

/// `name` as a value in a query: all but RFC 3986's unreserved characters is percent-encoded.
pub fn encode(name: &str) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = Vec::with_capacity(name.len() + 8);
    for &byte in name.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte);
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
        }
    }
    out
}

/// Whether an engine would take `raw` for `model`.
fn is_model(raw: &[u8]) -> bool {
    // Of one escape for each byte at most.
    raw.len() <= 3 * MODEL.len() && Decode(raw).eq(MODEL.iter().map(|byte| Some(*byte)))
}

fn decoded(raw: &[u8]) -> Result<String, &'static str> {
    let mut value = Vec::with_capacity(raw.len().min(LONGEST));
    for byte in Decode(raw) {
        let byte = byte.ok_or("`model` in the query holds a `%` that begins no escape")?;
        if value.len() == LONGEST {
            return Err("`model` in the query is longer than 512 bytes");
        }
        value.push(byte);
    }
    String::from_utf8(value).map_err(|_| "`model` in the query is not UTF-8")
}

/// The bytes of a percent-encoded text; `None` in place of a `%` that begins no escape, which is the last.
struct Decode<'a>(&'a [u8]);

impl Iterator for Decode<'_> {
    type Item = Option<u8>;

    fn next(&mut self) -> Option<Option<u8>> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(match first {
            b'+' => Some(b' '),
            b'%' => {
                let byte = escape(rest);
                self.0 = rest.get(2..).filter(|_| byte.is_some()).unwrap_or_default();
                byte
            }
            _ => Some(first),
        })
    }
}

fn escape(digits: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn model(query: &str) -> Option<String> {
        model_of(query.as_bytes()).unwrap().map(|model| {
            assert!(!model.range.is_empty());
            model.value
        })
    }

    #[test]
    fn the_model_is_found_wherever_it_stands_and_however_it_is_written() {
        for (query, expected) in [
            ("model=gpt", Some("gpt")),
            ("a=1&model=gpt&b", Some("gpt")),
            (
                "model=deepseek-ai%2FDeepSeek-R1",
                Some("deepseek-ai/DeepSeek-R1"),
            ),
            (
                "model=deepseek-ai/DeepSeek-R1",
                Some("deepseek-ai/DeepSeek-R1"),
            ),
            ("model=a+b%20c", Some("a b c")),
            ("%6dode%6C=x", Some("x")),
            ("model=a=b", Some("a=b")),
            ("model=%C3%A9", Some("é")),
            ("", None),
            ("model", None),
            ("model=", None),
            ("Model=x", None),
            ("models=x&mode=l", None),
            ("&&=&model%=x", None),
            ("xmodel=y", None),
        ] {
            assert_eq!(model(query).as_deref(), expected, "{query}");
        }
    }

    #[test]
    fn what_engines_could_read_in_another_way_is_refused() {
        for (query, problem) in [
            ("model=a&model=b", "more than once"),
            ("model=a&%6dodel=b", "more than once"),
            ("model=&model=b", "more than once"),
            ("model=%", "begins no escape"),
            ("model=a%2", "begins no escape"),
            ("model=%zz", "begins no escape"),
            ("model=%FF", "not UTF-8"),
            (&format!("model={}", "x".repeat(513)), "longer than 512"),
        ] {
            let error = model_of(query.as_bytes()).unwrap_err();
            assert!(error.contains(problem), "{query}: {error}");
        }
        let longest = format!("model={}", "x".repeat(512));
        assert_eq!(model(&longest).map(|model| model.len()), Some(512));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_name_that_is_put_into_a_query_is_read_out_again(
            before in "[a-z=%+&]{0,8}",
            name in any::<String>().prop_filter("a name", |name| !name.is_empty() && name.len() <= 512),
        ) {
            let query = [b"model=", &encode(&name)[..]].concat();
            prop_assert_eq!(model_of(&query).unwrap().map(|model| model.value), Some(name));
            // Nothing is done to what is not understood.
            let _ = model_of(before.as_bytes());
        }
    }
}
