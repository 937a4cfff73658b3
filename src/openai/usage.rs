//! How many tokens an answer cost, by the engine's own count.
//!
//! Four shapes: OpenAI's `usage` (`prompt_tokens`, `completion_tokens`,
//! `prompt_tokens_details.cached_tokens`), that of its responses (`input_tokens`, `output_tokens`,
//! `input_tokens_details.cached_tokens`, within `response` in an event), and Anthropic's
//! (`input_tokens` without what came out of the cache, `cache_read_input_tokens`,
//! `cache_creation_input_tokens`, `output_tokens`; within `message` in the first event), and that of
//! SGLang's `/generate` (`meta_info`, one for each answer of a list). A count that is negative, no
//! number, or larger than any engine's context counts as not given.

mod quick;

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use quick::Sought;

/// Beyond any engine's context; what says more is no count.
const MOST: u64 = 1 << 32;

/// Token counts of one answer, as far as the engine gave them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt, those out of the engine's cache included.
    pub prompt: Option<u64>,
    pub completion: Option<u64>,
    /// Those of `prompt` that the engine had in its cache.
    pub cached: Option<u64>,
}

impl Usage {
    /// Of a whole JSON answer, or of the data of one event; `None` where it gives no count.
    pub fn of_json(json: &[u8]) -> Option<Usage> {
        if json.trim_ascii_start().starts_with(b"[") {
            let answers: Vec<Answer> = serde_json::from_slice(json).ok()?;
            let counts = answers.into_iter().filter_map(Answer::usage);
            return counts.reduce(Self::plus);
        }
        match quick::seek(json) {
            Sought::Counts(counts) => Some(counts.usage()).filter(|usage| !usage.is_empty()),
            Sought::None => None,
            Sought::Unknown => serde_json::from_slice::<Answer>(json).ok()?.usage(),
        }
    }

    /// Of two answers together.
    fn plus(self, other: Usage) -> Usage {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.saturating_add(other)),
            (one, other) => one.or(other),
        };
        Usage {
            prompt: sum(self.prompt, other.prompt),
            completion: sum(self.completion, other.completion),
            cached: sum(self.cached, other.cached),
        }
    }

    /// Takes what `later` knows; the counts of a stream grow from event to event.
    pub fn update(&mut self, later: Usage) {
        self.prompt = later.prompt.or(self.prompt);
        self.completion = later.completion.or(self.completion);
        self.cached = later.cached.or(self.cached);
    }

    fn is_empty(self) -> bool {
        self == Usage::default()
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Answer {
    usage: Lenient<Counts>,
    /// Around the answer in the events of responses.
    response: Lenient<Inner>,
    /// Around it in Anthropic's first event.
    message: Lenient<Inner>,
    meta_info: Lenient<Counts>,
}

impl Answer {
    fn usage(self) -> Option<Usage> {
        let within = || self.response.0.or(self.message.0)?.usage.0;
        let counts = self.usage.0.or_else(within).or(self.meta_info.0)?;
        Some(counts.usage()).filter(|usage| !usage.is_empty())
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Inner {
    usage: Lenient<Counts>,
}

/// The `usage` of an answer or an event.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Counts {
    prompt_tokens: Count,
    completion_tokens: Count,
    prompt_tokens_details: Lenient<Details>,
    input_tokens: Count,
    output_tokens: Count,
    /// Of `meta_info`.
    cached_tokens: Count,
    input_tokens_details: Lenient<Details>,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
}

impl Counts {
    pub(super) fn usage(&self) -> Usage {
        let details =
            |details: &Lenient<Details>| details.0.as_ref().and_then(|d| d.cached_tokens.0);
        let read = self.cache_read_input_tokens.0;
        let around = read.unwrap_or(0) + self.cache_creation_input_tokens.0.unwrap_or(0);
        Usage {
            prompt: self
                .prompt_tokens
                .0
                .or_else(|| self.input_tokens.0.map(|fresh| fresh + around)),
            completion: self.completion_tokens.0.or(self.output_tokens.0),
            cached: details(&self.prompt_tokens_details)
                .or_else(|| details(&self.input_tokens_details))
                .or(read)
                .or(self.cached_tokens.0),
        }
    }
}

/// A count of tokens; anything else is none.
#[derive(Debug, Default, Clone, Copy)]
struct Count(Option<u64>);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_u64<E>(self, count: u64) -> Result<Count, E> {
                Ok(Count((count <= MOST).then_some(count)))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Count, E> {
                Ok(Count(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Count, E> {
                Ok(Count(None))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Count, E> {
                Ok(Count(None))
            }
            fn visit_str<E>(self, _: &str) -> Result<Count, E> {
                Ok(Count(None))
            }
            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Count, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Count(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Count(None))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// An object of that shape; any other value is none.
#[derive(Debug)]
pub(super) struct Lenient<T>(pub(super) Option<T>);

impl<T> Default for Lenient<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Any<T> {
            type Value = Lenient<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Lenient<T>, A::Error> {
                let of_map = serde::de::value::MapAccessDeserializer::new(map);
                T::deserialize(of_map).map(|value| Lenient(Some(value)))
            }
            fn visit_u64<E>(self, _: u64) -> Result<Lenient<T>, E> {
                Ok(Lenient(None))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Lenient<T>, E> {
                Ok(Lenient(None))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Lenient<T>, E> {
                Ok(Lenient(None))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Lenient<T>, E> {
                Ok(Lenient(None))
            }
            fn visit_str<E>(self, _: &str) -> Result<Lenient<T>, E> {
                Ok(Lenient(None))
            }
            fn visit_unit<E>(self) -> Result<Lenient<T>, E> {
                Ok(Lenient(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Lenient<T>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Lenient(None))
            }
        }
        deserializer.deserialize_any(Any(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(prompt: u64, completion: u64, cached: u64) -> Option<Usage> {
        Some(Usage {
            prompt: Some(prompt),
            completion: Some(completion),
            cached: Some(cached),
        })
    }

    #[test]
    fn four_apis_four_shapes() {
        let chat = br#"{"id":"c","choices":[],"usage":{"prompt_tokens":4,"total_tokens":16,"completion_tokens":12,
            "prompt_tokens_details":{"cached_tokens":1,"created_cache_tokens":0}}}"#;
        assert_eq!(Usage::of_json(chat), usage(4, 12, 1));
        let responses = br#"{"type":"response.completed","response":{"usage":{"input_tokens":5,"output_tokens":7,
            "input_tokens_details":{"cached_tokens":2}}}}"#;
        assert_eq!(Usage::of_json(responses), usage(5, 7, 2));
        let start =
            br#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":1,
            "cache_read_input_tokens":6,"cache_creation_input_tokens":2}}}"#;
        assert_eq!(Usage::of_json(start), usage(11, 1, 6));
        let generated = br#"{"text":"a","meta_info":{"id":"x","finish_reason":{"type":"stop"},"prompt_tokens":4,
            "completion_tokens":2,"cached_tokens":1}}"#;
        assert_eq!(Usage::of_json(generated), usage(4, 2, 1));
        let several = [b" [", &generated[..], b",", &generated[..], b"]"].concat();
        assert_eq!(Usage::of_json(&several), usage(8, 4, 2));
        assert_eq!(Usage::of_json(b"[]"), None);
        assert_eq!(Usage::of_json(b"[1]"), None);
    }

    #[test]
    fn what_is_no_count_counts_as_not_given() {
        for value in [
            "-1",
            "1e3",
            "\"7\"",
            "null",
            "[1]",
            "{}",
            "true",
            "18446744073709551615",
            "99999999999999999999",
        ] {
            let json =
                format!("{{\"usage\":{{\"prompt_tokens\":{value},\"completion_tokens\":2}}}}");
            let expected = Usage {
                completion: Some(2),
                ..Usage::default()
            };
            assert_eq!(Usage::of_json(json.as_bytes()), Some(expected), "{value}");
        }
        for value in [
            "null",
            "[]",
            "7",
            "\"x\"",
            "{}",
            "{\"prompt_tokens\":-1}",
            "false",
            "0.5",
        ] {
            let json = format!("{{\"usage\":{value}}}");
            assert_eq!(Usage::of_json(json.as_bytes()), None, "{value}");
        }
        assert_eq!(Usage::of_json(b"{\"usage\":{\"prompt_tokens\":4"), None);
        assert_eq!(Usage::of_json(b""), None);
        // What a client can make an engine repeat does not stand where counts stand.
        let echo = br#"{"metadata":{"usage":{"prompt_tokens":0}},"usage":{"prompt_tokens":4}}"#;
        assert_eq!(Usage::of_json(echo).and_then(|usage| usage.prompt), Some(4));
    }

    #[test]
    fn later_counts_replace_earlier_ones() {
        let mut all = Usage {
            prompt: Some(4),
            completion: Some(1),
            cached: None,
        };
        all.update(Usage {
            completion: Some(9),
            ..Usage::default()
        });
        assert_eq!(
            all,
            Usage {
                prompt: Some(4),
                completion: Some(9),
                cached: None
            }
        );
    }
}
