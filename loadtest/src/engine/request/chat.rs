//! What `/v1/chat/completions` and `/v1/completions` ask for.

use serde_json::Value;

use super::{Api, Ask, Extra, Fields, Prompt, content};
use crate::engine::errors::ErrorAnswer;
use crate::engine::text;

impl Fields<'_> {
    /// A chat, or one or several prompts to complete.
    pub(super) fn generation(&self, api: Api) -> Result<Ask, ErrorAnswer> {
        self.check_model()?;
        let stream = self.boolean("stream")?.unwrap_or(false);
        let options = self.get("stream_options");
        if options.is_some() && !stream {
            let message = "Stream options can only be defined when `stream=True`.";
            return Err(self.bad(message, Some("stream_options")));
        }
        let option = |name| {
            options
                .and_then(|o| o.get(name))
                .and_then(Value::as_bool)
                .unwrap_or(false)
        };
        let return_token_ids = self.boolean("return_token_ids")?.unwrap_or(false);
        let prompts = match api {
            Api::Completions => self.prompts(return_token_ids)?,
            _ => vec![self.chat(return_token_ids)?],
        };
        self.check_sampling()?;
        let longest = prompts
            .iter()
            .map(|prompt| prompt.context.length)
            .max()
            .unwrap_or(0);
        Ok(Ask {
            api,
            stream,
            include_usage: option("include_usage"),
            continuous_usage: option("include_usage") && option("continuous_usage_stats"),
            return_token_ids,
            n: self.whole("n")?.unwrap_or(1) as usize,
            max_tokens: self.max_tokens(api, longest)?,
            min_tokens: self.whole("min_tokens")?.unwrap_or(0).max(0) as usize,
            ignore_eos: self.boolean("ignore_eos")?.unwrap_or(false),
            stop: self.stop("stop")?,
            prompts,
            extra: Extra::None,
        })
    }

    /// As vLLM: longer than the model is an error alone, but clipped together with the prompt.
    pub(super) fn max_tokens(&self, api: Api, prompt: usize) -> Result<usize, ErrorAnswer> {
        let model = self.script.max_model_len;
        self.check_length(prompt)?;
        let asked = match api {
            Api::Completions => Some(self.whole("max_tokens")?.unwrap_or(16)),
            _ => self
                .whole("max_completion_tokens")?
                .or(self.whole("max_tokens")?),
        };
        match asked {
            None => Ok(model - prompt),
            Some(asked) if asked < 1 => Err(self.bad(
                &format!("max_tokens must be at least 1, got {asked}."),
                Some("max_tokens"),
            )),
            Some(asked) if asked as usize > model => {
                let message =
                    format!("max_tokens={asked} cannot be greater than max_model_len={model}.");
                Err(self.bad(&message, Some("max_tokens")))
            }
            Some(asked) => Ok((asked as usize).min(model - prompt)),
        }
    }

    pub(super) fn stop(&self, name: &str) -> Result<Vec<String>, ErrorAnswer> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(Value::String(one)) => Ok(vec![one.clone()]),
            Some(Value::Array(several)) => several
                .iter()
                .map(|one| {
                    one.as_str()
                        .map(str::to_owned)
                        .ok_or_else(|| self.wrong_type(name, "string"))
                })
                .collect(),
            Some(_) => Err(self.wrong_type(name, "string")),
        }
    }

    pub(in crate::engine) fn chat(&self, keep: bool) -> Result<Prompt, ErrorAnswer> {
        let messages = match self.get("messages") {
            None => return Err(self.missing("messages")),
            Some(Value::Array(messages)) => messages,
            Some(_) => return Err(self.wrong_type("messages", "list")),
        };
        let go_on = self.boolean("continue_final_message")?.unwrap_or(false);
        if go_on && self.boolean("add_generation_prompt")?.unwrap_or(true) {
            let message =
                "Cannot set both `continue_final_message` and `add_generation_prompt` to True.";
            return Err(self.bad(message, None));
        }
        let mut turns = Vec::with_capacity(messages.len());
        for message in messages {
            let role = message
                .get("role")
                .and_then(Value::as_str)
                .ok_or_else(|| self.missing("messages.0.role"))?;
            turns.push((role, content(message.get("content"))));
        }
        let mut prompt = Prompt::default();
        let turns = turns
            .iter()
            .map(|(role, content)| (*role, content.as_ref()));
        text::render_chat(turns, !go_on, |id| prompt.push(id, keep));
        Ok(prompt)
    }

    fn prompts(&self, keep: bool) -> Result<Vec<Prompt>, ErrorAnswer> {
        let of_text = |text: &str| {
            let mut prompt = Prompt::default();
            text::render_prompt(text, |id| prompt.push(id, keep));
            prompt
        };
        match self.get("prompt") {
            None => Err(self.missing("prompt")),
            Some(Value::String(text)) => Ok(vec![of_text(text)]),
            Some(Value::Array(items)) if items.first().is_some_and(Value::is_u64) => {
                Ok(vec![self.ids(items, keep)?])
            }
            Some(Value::Array(items)) if !items.is_empty() => items
                .iter()
                .map(|item| match item {
                    Value::String(text) => Ok(of_text(text)),
                    Value::Array(ids) => self.ids(ids, keep),
                    _ => Err(self.wrong_type("prompt", "string")),
                })
                .collect(),
            Some(_) => Err(self.wrong_type("prompt", "string")),
        }
    }

    pub(super) fn ids(&self, items: &[Value], keep: bool) -> Result<Prompt, ErrorAnswer> {
        let mut prompt = Prompt::default();
        let mut ids = Vec::with_capacity(items.len());
        for item in items {
            let id = item
                .as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| self.wrong_type("prompt", "int"))?;
            if !text::is_known(id) {
                return Err(self.bad(&format!("Token id {id} is out of vocabulary"), None));
            }
            ids.push(id);
            prompt.push(id, keep);
        }
        if prompt.context.in_character() {
            ids.iter()
                .for_each(|id| text::decode(*id, &mut prompt.repeated));
        }
        Ok(prompt)
    }
}
