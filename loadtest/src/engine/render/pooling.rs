//! Embeddings, scores and rankings.
//!
//! A text's vector is the sum of its tokens' vectors, so that texts which share words are alike, and the same text
//! has the same vector on every engine.

use serde_json::{Value, json};

use super::{Dialect, Usage, Whole};
use crate::engine::http::now;
use crate::engine::request::{Api, Pooling, Prompt};
use crate::engine::text;

/// Length of the vectors behind scores.
const LIKENESS: usize = 64;

pub(super) struct Numbers {
    api: Api,
    kind: Kind,
    id: String,
    /// As JSON.
    model: String,
}

enum Kind {
    Embeddings { dimensions: usize, base64: bool },
    Scores(Vec<(usize, usize)>),
    Ranking(Vec<String>, usize),
}

impl Numbers {
    pub(super) fn new(api: Api, pooling: &Pooling, model: &str, request: &str) -> Self {
        let (kind, prefix) = match pooling {
            Pooling::Embeddings { dimensions, base64 } => {
                let (dimensions, base64) = (*dimensions, *base64);
                (Kind::Embeddings { dimensions, base64 }, "embd")
            }
            Pooling::Scores { pairs } => (Kind::Scores(pairs.clone()), "score"),
            Pooling::Ranking { documents, top } => {
                (Kind::Ranking(documents.clone(), *top), "score")
            }
        };
        Self {
            api,
            kind,
            id: Value::from(format!("{prefix}-{request}")).to_string(),
            model: Value::from(model).to_string(),
        }
    }

    fn data(&self, prompts: &[Prompt]) -> Vec<String> {
        match &self.kind {
            Kind::Embeddings { dimensions, base64 } => {
                let one = |(index, prompt): (usize, &Prompt)| {
                    let vector = vector(&prompt.ids, *dimensions);
                    let value = if *base64 {
                        let bytes: Vec<u8> = vector
                            .iter()
                            .flat_map(|value| value.to_le_bytes())
                            .collect();
                        Value::from(encode_base64(&bytes))
                    } else {
                        json!(vector)
                    };
                    format!(r#"{{"index":{index},"object":"embedding","embedding":{value}}}"#)
                };
                prompts.iter().enumerate().map(one).collect()
            }
            Kind::Scores(pairs) => {
                let score = |(index, pair): (usize, &(usize, usize))| {
                    let score = json!(likeness(prompts.get(pair.0), prompts.get(pair.1)));
                    format!(r#"{{"index":{index},"object":"score","score":{score}}}"#)
                };
                pairs.iter().enumerate().map(score).collect()
            }
            Kind::Ranking(documents, top) => {
                let score = |index| likeness(prompts.first(), prompts.get(index + 1));
                let mut ranked: Vec<_> = documents
                    .iter()
                    .enumerate()
                    .map(|(index, text)| (score(index), index, text))
                    .collect();
                ranked.sort_by(|one, other| other.0.total_cmp(&one.0));
                let result = |(score, index, text): &(f32, usize, &String)| {
                    let (score, text) = (json!(score), json!(text));
                    format!(
                        r#"{{"index":{index},"document":{{"text":{text},"multi_modal":null}},"relevance_score":{score}}}"#
                    )
                };
                ranked.iter().take(*top).map(result).collect()
            }
        }
    }
}

impl Dialect for Numbers {
    fn body(&mut self, _answers: &[Whole], prompts: &[Prompt], usage: Usage) -> Vec<u8> {
        let data = self.data(prompts).join(",");
        let (id, model, tokens) = (&self.id, &self.model, usage.prompt);
        match self.api {
            Api::Rerank => format!(
                r#"{{"id":{id},"model":{model},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}},"results":[{data}]}}"#
            ),
            _ => format!(
                r#"{{"id":{id},"object":"list","created":{},"model":{model},"data":[{data}],"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens},"completion_tokens":0,"prompt_tokens_details":null,"completion_tokens_details":null}}}}"#,
                now()
            ),
        }
        .into_bytes()
    }
}

/// A unit vector for these tokens.
fn vector(ids: &[u32], dimensions: usize) -> Vec<f32> {
    let mut sum = vec![0.0_f32; dimensions];
    for id in ids {
        for (at, value) in sum.iter_mut().enumerate() {
            let mut seed = [0; 12];
            seed[..4].copy_from_slice(&id.to_le_bytes());
            seed[4..].copy_from_slice(&(at as u64).to_le_bytes());
            // The top 24 bits, from -1 to 1.
            *value += (text::hash(&seed) >> 40) as f32 / 8_388_608.0 - 1.0;
        }
    }
    let length = sum.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        sum.iter_mut().for_each(|value| *value /= length);
    }
    sum
}

fn likeness(one: Option<&Prompt>, other: Option<&Prompt>) -> f32 {
    let of = |prompt: Option<&Prompt>| vector(prompt.map_or(&[], |prompt| &prompt.ids), LIKENESS);
    of(one)
        .iter()
        .zip(of(other))
        .map(|(one, other)| one * other)
        .sum()
}

/// Base64 with padding (RFC 4648, section 4).
fn encode_base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let six = (bits >> (18 - 6 * at)) as usize & 63;
            out.push(if at > three.len() {
                '='
            } else {
                char::from(ALPHABET[six])
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode_base64(bytes.as_bytes()), encoded);
        }
    }

    #[test]
    fn vectors_have_length_one_and_those_of_like_texts_are_near() {
        let (same, near, far) = (
            [100, 101, 102, 103],
            [100, 101, 102, 110],
            [200, 201, 202, 203],
        );
        let of = |ids: &[u32]| vector(ids, 256);
        let dot = |ids: &[u32]| -> f32 { of(&same).iter().zip(of(ids)).map(|(a, b)| a * b).sum() };
        assert!((dot(&same) - 1.0).abs() < 1e-4);
        assert!(
            dot(&near) > 0.5 && dot(&far) < 0.5,
            "{} {}",
            dot(&near),
            dot(&far)
        );
    }
}
