//! `/v1/models`: an engine's list read, and the gateway's own written.
//!
//! Of an engine's list nothing is passed on but names, owner and context length: `root` and `parent`
//! hold paths of the node, `permission` says nothing, and `created` is the time of the request.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

/// `created` of every model, LiteLLM's: engines have none that stays, and an answer should be the same after
/// a restart and on another gateway.
pub const CREATED: u64 = 1_677_610_602;
/// The same, as Anthropic writes it.
const CREATED_AT: &str = "2023-02-28T18:56:42Z";

/// Models taken of one list.
const MOST: usize = 1024;
/// In bytes; what a configuration may name as well.
const LONGEST_NAME: usize = 256;

/// What an engine says that it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// In the engine's order, each name once.
    pub models: Vec<Listed>,
}

impl Catalog {
    /// The most tokens of prompt and answer of the model called so; without a name, of the only one.
    pub fn max_model_len(&self, model: Option<&str>) -> Option<u64> {
        let found = match model {
            Some(name) => self.models.iter().find(|listed| &*listed.id == name),
            None => self.models.first().filter(|_| self.models.len() == 1),
        };
        found?.max_model_len
    }
}

/// One model of an engine's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub id: Arc<str>,
    pub owned_by: Option<Arc<str>>,
    /// Tokens of prompt and answer together.
    pub max_model_len: Option<u64>,
}

/// Why an answer is no list of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Odd {
    NotJson,
    /// No `{"data":[…]}`.
    NotAList,
    /// There are entries, and none can be read.
    NoModel,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJson => "the answer is not JSON",
            Self::NotAList => "the answer is no list of models",
            Self::NoModel => "no model in the answer can be read",
        })
    }
}

impl Catalog {
    /// Reads an engine's answer. Entries without a fit name are passed over, and so is what comes after the
    /// first 1024.
    ///
    /// # Errors
    /// It is no list of models.
    pub fn parse(answer: &[u8]) -> Result<Self, Odd> {
        let answer: Value = serde_json::from_slice(answer).map_err(|_| Odd::NotJson)?;
        let entries = answer.get("data").and_then(Value::as_array);
        let entries = entries.ok_or(Odd::NotAList)?;
        let mut models: Vec<Listed> = Vec::new();
        for entry in entries.iter().take(MOST) {
            let Some(model) = Listed::read(entry) else {
                continue;
            };
            if !models.iter().any(|known| known.id == model.id) {
                models.push(model);
            }
        }
        if models.is_empty() && !entries.is_empty() {
            return Err(Odd::NoModel);
        }
        Ok(Self { models })
    }

    /// Whether a model is owned by `owner`: vLLM and SGLang sign theirs so.
    pub fn is_signed(&self, owner: &str) -> bool {
        let mut owners = self.models.iter().map(|model| model.owned_by.as_deref());
        owners.any(|by| by == Some(owner))
    }

    /// The names, in the engine's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.iter().map(|model| &*model.id)
    }
}

impl Listed {
    fn read(entry: &Value) -> Option<Self> {
        let text = |key| fit(entry.get(key)?.as_str()?);
        Some(Self {
            id: text("id")?,
            owned_by: text("owned_by"),
            max_model_len: entry.get("max_model_len").and_then(Value::as_u64),
        })
    }
}

fn fit(text: &str) -> Option<Arc<str>> {
    let fits = (1..=LONGEST_NAME).contains(&text.len()) && !text.contains(char::is_control);
    fits.then(|| Arc::from(text))
}

/// A model as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    pub id: &'a str,
    pub owned_by: &'a str,
    pub max_model_len: Option<u64>,
}

/// Whose form an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    OpenAi,
    /// For clients that send `anthropic-version`.
    Anthropic,
}

/// The answer to `GET /v1/models`, `application/json`.
pub fn list(entries: &[Entry<'_>], form: Form) -> Bytes {
    #[derive(Serialize)]
    struct List<T> {
        object: &'static str,
        data: Vec<T>,
    }
    #[derive(Serialize)]
    struct Page<'a> {
        data: Vec<AnthropicModel<'a>>,
        has_more: bool,
        first_id: Option<&'a str>,
        last_id: Option<&'a str>,
    }
    match form {
        Form::OpenAi => json(&List {
            object: "list",
            data: entries.iter().map(OpenAiModel::from).collect(),
        }),
        Form::Anthropic => json(&Page {
            data: entries.iter().map(AnthropicModel::from).collect(),
            has_more: false,
            first_id: entries.first().map(|entry| entry.id),
            last_id: entries.last().map(|entry| entry.id),
        }),
    }
}

/// The answer to `GET /v1/models/{id}`, `application/json`.
pub fn one(entry: &Entry<'_>, form: Form) -> Bytes {
    match form {
        Form::OpenAi => json(&OpenAiModel::from(entry)),
        Form::Anthropic => json(&AnthropicModel::from(entry)),
    }
}

#[derive(Serialize)]
struct OpenAiModel<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_model_len: Option<u64>,
}

impl<'a> From<&Entry<'a>> for OpenAiModel<'a> {
    fn from(entry: &Entry<'a>) -> Self {
        Self {
            id: entry.id,
            object: "model",
            created: CREATED,
            owned_by: entry.owned_by,
            max_model_len: entry.max_model_len,
        }
    }
}

#[derive(Serialize)]
struct AnthropicModel<'a> {
    r#type: &'static str,
    id: &'a str,
    display_name: &'a str,
    created_at: &'static str,
}

impl<'a> From<&Entry<'a>> for AnthropicModel<'a> {
    fn from(entry: &Entry<'a>) -> Self {
        Self {
            r#type: "model",
            id: entry.id,
            display_name: entry.id,
            created_at: CREATED_AT,
        }
    }
}

fn json(value: &impl Serialize) -> Bytes {
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

#[cfg(test)]
mod tests;
