//! What `/v1/messages` asks for: vLLM makes a chat of it.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{Api, Ask, Extra, Fields, Prompt};
use crate::engine::errors::ErrorAnswer;
use crate::engine::text;

/// Claude Code's own first part of a system prompt: another one with each request, so vLLM leaves it out.
const BILLING: &str = "x-anthropic-billing-header";

impl Fields<'_> {
    pub(super) fn messages(&self) -> Result<Ask, ErrorAnswer> {
        let prompt = self.conversation()?;
        match self.whole("max_tokens")? {
            None => return Err(self.missing("max_tokens")),
            Some(asked) if asked < 1 => {
                let message = "max_tokens must be positive";
                return Err(self.refused("max_tokens", &asked.to_string(), message));
            }
            Some(_) => {}
        }
        self.check_model()?;
        self.check_sampling()?;
        let stream = self.boolean("stream")?.unwrap_or(false);
        Ok(Ask {
            api: Api::Messages,
            stream,
            include_usage: stream,
            continuous_usage: stream,
            return_token_ids: false,
            n: 1,
            max_tokens: self.max_tokens(Api::Chat, prompt.context.length)?,
            min_tokens: 0,
            ignore_eos: false,
            stop: self.stop("stop_sequences")?,
            prompts: vec![prompt],
            extra: Extra::None,
        })
    }

    /// `system` and `messages`, as one chat.
    pub(in crate::engine) fn conversation(&self) -> Result<Prompt, ErrorAnswer> {
        match self.get("model") {
            None => return Err(self.missing("model")),
            Some(Value::String(model)) if model.is_empty() => {
                return Err(self.refused("model", "", "Model is required"));
            }
            Some(_) => {}
        }
        let messages = match self.get("messages") {
            None => return Err(self.missing("messages")),
            Some(Value::Array(messages)) => messages,
            Some(_) => return Err(self.wrong_type("messages", "list")),
        };
        let mut turns = Vec::with_capacity(messages.len() + 1);
        match self.get("system") {
            None => {}
            Some(Value::String(system)) => turns.push(("system", Cow::from(system.as_str()))),
            Some(Value::Array(parts)) => {
                let parts = parts.iter().filter_map(|part| part.get("text")?.as_str());
                let system: String = parts.filter(|part| !part.starts_with(BILLING)).collect();
                turns.push(("system", system.into()));
            }
            Some(_) => return Err(self.wrong_type("system", "string")),
        }
        for (at, message) in messages.iter().enumerate() {
            let role = match message.get("role").and_then(Value::as_str) {
                Some(role @ ("user" | "assistant" | "system")) => role,
                Some(role) => return Err(self.wrong_role(at, role)),
                None => {
                    let others = message.as_object().map_or(0, Map::len);
                    return Err(self.missing_in(&format!("messages.{at}.role"), others));
                }
            };
            match message.get("content") {
                Some(content @ (Value::String(_) | Value::Array(_))) => {
                    turns.push((role, blocks(content)));
                }
                Some(_) => {
                    return Err(self.wrong_type(&format!("messages.{at}.content"), "string"));
                }
                None => {
                    let others = message.as_object().map_or(0, Map::len);
                    return Err(self.missing_in(&format!("messages.{at}.content"), others));
                }
            }
        }
        let turns = turns
            .iter()
            .filter(|(role, text)| *role != "system" || !text.is_empty())
            .map(|(role, text)| (*role, text.as_ref()));
        Ok(Prompt::rendered(false, |token| {
            text::render_chat(turns, true, token);
        }))
    }

    fn wrong_role(&self, at: usize, role: &str) -> ErrorAnswer {
        let detail = format!(
            "{{'type': 'literal_error', 'loc': 'body.messages.{at}.role', 'msg': \"Input should be 'user', \
             'assistant' or 'system'\", 'input': '{role}', 'ctx': {{'expected': \"'user', 'assistant' or 'system'\"}}}}"
        );
        let param = format!("body.messages.{at}.role");
        ErrorAnswer::validation(self.script.flavour, &detail, &param)
    }
}

/// The text of content blocks, results of tools included.
fn blocks(content: &Value) -> Cow<'_, str> {
    let Value::Array(blocks) = content else {
        return content.as_str().unwrap_or_default().into();
    };
    let texts = blocks.iter().map(|block| match block.get("content") {
        Some(result) => super::content(Some(result)),
        None => block
            .get("text")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .into(),
    });
    texts.collect::<String>().into()
}
