//! What `/v1/embeddings`, `/v1/score` and `/rerank` ask for: numbers about texts, no text.

use serde_json::Value;

use super::{Api, Ask, Extra, Fields, Prompt, content};
use crate::engine::errors::ErrorAnswer;
use crate::engine::text;

/// What is made of the prompts.
#[derive(Debug)]
pub(in crate::engine) enum Pooling {
    /// A vector of each, of this length.
    Embeddings { dimensions: usize, base64: bool },
    /// The likeness of each pair of prompts, by their positions.
    Scores { pairs: Vec<(usize, usize)> },
    /// The likeness of the first prompt to each of these, which follow it; the best `top` are shown.
    Ranking { documents: Vec<String>, top: usize },
}

/// The names under which the two sides of a score may come.
const SIDES: &[(&str, &str)] = &[
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
    ("text_1", "text_2"),
];

impl Fields<'_> {
    pub(super) fn embeddings(&self) -> Result<Ask, ErrorAnswer> {
        self.check_model()?;
        let length = self.script.embeddings.unwrap_or(0);
        let dimensions = match self.whole("dimensions")? {
            None => length,
            Some(asked) if asked >= 1 && asked as usize <= length => asked as usize,
            Some(asked) => {
                let message = format!("dimensions must be between 1 and {length}, got {asked}.");
                return Err(self.bad(&message, Some("dimensions")));
            }
        };
        let base64 = match self.text("encoding_format")? {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => return Err(self.wrong_type("encoding_format", "string")),
        };
        let prompts = match (self.get("input"), self.get("messages")) {
            (Some(Value::String(text)), _) => vec![of_text(text)],
            (Some(Value::Array(items)), _) if items.first().is_some_and(Value::is_u64) => {
                vec![self.ids(items, true)?]
            }
            (Some(Value::Array(items)), _) if !items.is_empty() => {
                let prompts = items.iter().map(|item| match item {
                    Value::String(text) => Ok(of_text(text)),
                    Value::Array(ids) => self.ids(ids, true),
                    _ => Err(self.wrong_type("input", "string")),
                });
                prompts.collect::<Result<_, _>>()?
            }
            (Some(_), _) => return Err(self.wrong_type("input", "string")),
            (None, Some(_)) => vec![self.chat(true)?],
            (None, None) => return Err(self.missing("input")),
        };
        let pooling = Pooling::Embeddings { dimensions, base64 };
        self.pooled(Api::Embeddings, prompts, pooling)
    }

    pub(super) fn scores(&self) -> Result<Ask, ErrorAnswer> {
        self.check_model()?;
        let sides = SIDES
            .iter()
            .find(|(one, other)| self.get(one).is_some() && self.get(other).is_some());
        let (one, other) = sides.ok_or_else(|| self.missing("queries"))?;
        let (one, other) = (self.texts(one)?, self.texts(other)?);
        if one.len() != other.len() && one.len() != 1 {
            let message = "Input lengths must be either 1:1, 1:N or N:N";
            return Err(self.bad(message, None));
        }
        let pair = |at| (if one.len() == 1 { 0 } else { at }, one.len() + at);
        let pairs = (0..other.len()).map(pair).collect();
        let prompts = one.iter().chain(&other).map(|text| of_text(text)).collect();
        self.pooled(Api::Score, prompts, Pooling::Scores { pairs })
    }

    pub(super) fn ranking(&self) -> Result<Ask, ErrorAnswer> {
        self.check_model()?;
        let query = self.texts("query")?;
        let documents = self.texts("documents")?;
        let top = match self.whole("top_n")?.unwrap_or(0) {
            0 => documents.len(),
            top => usize::try_from(top).map_err(|_| self.wrong_type("top_n", "integer"))?,
        };
        let prompts = query.iter().take(1).chain(&documents);
        let prompts = prompts.map(|text| of_text(text)).collect();
        self.pooled(Api::Rerank, prompts, Pooling::Ranking { documents, top })
    }

    /// A text or several, each a string or an object with content.
    fn texts(&self, name: &str) -> Result<Vec<String>, ErrorAnswer> {
        let text = |value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Object(fields) => Ok(content(fields.get("content")).into_owned()),
            _ => Err(self.wrong_type(name, "string")),
        };
        match self.get(name) {
            None => Err(self.missing(name)),
            Some(Value::Array(several)) if several.is_empty() => {
                Err(self.bad("At least one text element must be given", None))
            }
            Some(Value::Array(several)) => several.iter().map(text).collect(),
            Some(one) => Ok(vec![text(one)?]),
        }
    }

    fn pooled(&self, api: Api, prompts: Vec<Prompt>, pooling: Pooling) -> Result<Ask, ErrorAnswer> {
        let longest = prompts.iter().map(|prompt| prompt.context.length).max();
        self.check_length(longest.unwrap_or(0))?;
        Ok(Ask {
            api,
            stream: false,
            include_usage: true,
            continuous_usage: false,
            return_token_ids: false,
            // No token is generated.
            n: 0,
            max_tokens: 0,
            min_tokens: 0,
            ignore_eos: false,
            stop: Vec::new(),
            prompts,
            extra: Extra::Pooling(pooling),
        })
    }
}

fn of_text(text: &str) -> Prompt {
    Prompt::rendered(true, |token| {
        token(text::BOS);
        text::tokenize(text.as_bytes(), token);
    })
}
