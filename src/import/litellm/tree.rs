//! A place in a file and what stands there.

use crate::config::parse::{Entry, Node, Position, Value};
use crate::config::{is_variable, shown};
use crate::import::yaml::Yaml;

use super::source::File;

/// A value, by the key or the number that it has.
#[derive(Clone)]
pub(super) struct Field<'a> {
    pub file: &'a File,
    /// Of its key.
    pub at: Position,
    /// As `model_list[0].litellm_params.model`.
    pub path: String,
    /// Empty for an item of a list.
    pub key: &'a str,
    pub node: &'a Node,
}

/// A text that may come from the environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Word {
    Text(String),
    /// `os.environ/NAME`.
    Variable(String),
}

impl Word {
    pub fn yaml(&self) -> Yaml {
        match self {
            Self::Text(text) => Yaml::text(text),
            Self::Variable(name) => Yaml::Variable(name.clone()),
        }
    }
}

impl<'a> Field<'a> {
    /// `FILE:LINE`
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.name, self.at.line)
    }

    fn entry(&self, entry: &'a Entry) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self {
            file: self.file,
            at: entry.at,
            path: format!("{}{dot}{}", self.path, shown(&entry.key)),
            key: &entry.key,
            node: &entry.node,
        }
    }

    /// The values of a mapping; none of anything else.
    pub fn entries(&self) -> Vec<Self> {
        match &self.node.value {
            Value::Map(entries) => entries.iter().map(|entry| self.entry(entry)).collect(),
            _ => Vec::new(),
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> Vec<Self> {
        let Value::List(items) = &self.node.value else {
            return Vec::new();
        };
        (items.iter().enumerate())
            .map(|(number, node)| Self {
                file: self.file,
                at: node.at,
                path: format!("{}[{number}]", self.path),
                key: "",
                node,
            })
            .collect()
    }

    /// The value at a key of a mapping; none where nothing or null is written.
    pub fn get(&self, key: &str) -> Option<Self> {
        let Value::Map(entries) = &self.node.value else {
            return None;
        };
        let entry = entries.iter().find(|entry| *entry.key == *key)?;
        Some(self.entry(entry)).filter(Self::is_given)
    }

    /// Whether it holds anything. LiteLLM takes null for what is not written.
    pub fn is_given(&self) -> bool {
        !(self.node.is_null() || self.node.is_empty())
    }

    pub fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// A scalar as it is written.
    pub fn scalar(&self) -> Option<&'a str> {
        match &self.node.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// A text, or the variable that holds it.
    pub fn word(&self) -> Option<Word> {
        let text = self.scalar()?;
        match text.strip_prefix("os.environ/") {
            Some(name) if is_variable(name) => Some(Word::Variable(name.to_owned())),
            Some(_) => None,
            None => Some(Word::Text(text.to_owned())),
        }
    }

    /// A number that is not negative.
    pub fn number(&self) -> Option<f64> {
        let number: f64 = self.scalar()?.trim().replace('_', "").parse().ok()?;
        (number.is_finite() && number >= 0.0).then_some(number)
    }

    /// A whole number that is not negative.
    pub fn count(&self) -> Option<u64> {
        const LARGEST: f64 = 1e15;
        let number = self.number()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole, positive and no more than LARGEST"
        )]
        (number.fract() == 0.0 && number <= LARGEST).then_some(number as u64)
    }

    /// A truth value as YAML 1.1 has them.
    pub fn flag(&self) -> Option<bool> {
        match self.scalar()?.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        }
    }
}
