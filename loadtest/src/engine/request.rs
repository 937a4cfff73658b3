//! What a request body asks for, judged as vLLM judges it.

use serde_json::{Map, Value};

use super::errors::ErrorAnswer;
use super::script::Script;
use super::text::{self, Context};

/// Which of the two generating paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Completions,
}

/// A valid request.
#[derive(Debug)]
pub(super) struct Ask {
    pub api: Api,
    pub stream: bool,
    pub include_usage: bool,
    pub continuous_usage: bool,
    pub return_token_ids: bool,
    /// Several for a batch of plain prompts.
    pub prompts: Vec<Prompt>,
    /// Answers to each prompt.
    pub n: usize,
    pub max_tokens: usize,
    pub min_tokens: usize,
    pub ignore_eos: bool,
    pub stop: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Prompt {
    pub context: Context,
    /// Kept only to be shown.
    pub ids: Vec<u32>,
    /// The text of a prompt that ends inside a character: vLLM's detokenizer says it all again then.
    pub repeated: Vec<u8>,
}

impl Ask {
    /// Reads a body; the error is the answer.
    pub(super) fn parse(
        api: Api,
        script: &Script,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Self, ErrorAnswer> {
        let flavour = script.flavour;
        let media_type = content_type
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            return Err(ErrorAnswer::media_type(flavour));
        }
        let fields = match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => {
                let detail = "{'type': 'model_attributes_type', 'loc': 'body', 'msg': 'Input should be a valid \
                              dictionary or object to extract fields from'}";
                return Err(ErrorAnswer::validation(flavour, detail, "body"));
            }
            Err(error) => {
                let at = error.column().saturating_sub(1);
                let detail = format!(
                    "{{'type': 'json_invalid', 'loc': 'body.{at}', 'msg': 'JSON decode error', 'input': '<dict of 0 \
                     items>', 'ctx': {{'error': 'Expecting value'}}}}"
                );
                return Err(ErrorAnswer::validation(
                    flavour,
                    &detail,
                    &format!("body.{at}"),
                ));
            }
        };
        Fields {
            fields: &fields,
            script,
        }
        .ask(api)
    }

    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompts
            .iter()
            .map(|prompt| prompt.context.length)
            .sum()
    }
}

pub(super) struct Fields<'a> {
    pub fields: &'a Map<String, Value>,
    pub script: &'a Script,
}

impl<'a> Fields<'a> {
    fn ask(&self, api: Api) -> Result<Ask, ErrorAnswer> {
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
            Api::Chat => vec![self.chat(return_token_ids)?],
            Api::Completions => self.prompts(return_token_ids)?,
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
            stop: self.stop()?,
            prompts,
        })
    }

    fn check_model(&self) -> Result<(), ErrorAnswer> {
        match self.get("model") {
            None => Ok(()),
            Some(Value::String(model)) if model.is_empty() || *model == self.script.model => Ok(()),
            Some(Value::String(model)) => Err(ErrorAnswer::unknown_model(
                self.script.flavour,
                model,
                &self.script.model,
            )),
            Some(_) => Err(self.wrong_type("model", "string")),
        }
    }

    fn check_sampling(&self) -> Result<(), ErrorAnswer> {
        if let Some(n) = self.whole("n")?
            && n < 1
        {
            return Err(self.bad(&format!("n must be at least 1, got {n}."), Some("n")));
        }
        if let Some(temperature) = self.get("temperature") {
            let value = temperature
                .as_f64()
                .ok_or_else(|| self.wrong_type("temperature", "number"))?;
            if !(0.0..=2.0).contains(&value) {
                let message = format!("temperature must be in [0, 2], got {value:?}.");
                return Err(self.bad(&message, Some("temperature")));
            }
        }
        Ok(())
    }

    /// As vLLM: longer than the model is an error alone, but clipped together with the prompt.
    fn max_tokens(&self, api: Api, prompt: usize) -> Result<usize, ErrorAnswer> {
        let model = self.script.max_model_len;
        if prompt >= model {
            let message = format!(
                "This model's maximum context length is {model} tokens. However, your request has {prompt} input \
                 tokens. Please reduce the length of the input messages."
            );
            return Err(self.bad(&message, Some("input_tokens")));
        }
        let asked = match api {
            Api::Chat => self
                .whole("max_completion_tokens")?
                .or(self.whole("max_tokens")?),
            Api::Completions => Some(self.whole("max_tokens")?.unwrap_or(16)),
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

    fn stop(&self) -> Result<Vec<String>, ErrorAnswer> {
        match self.get("stop") {
            None => Ok(Vec::new()),
            Some(Value::String(one)) => Ok(vec![one.clone()]),
            Some(Value::Array(several)) => several
                .iter()
                .map(|one| {
                    one.as_str()
                        .map(str::to_owned)
                        .ok_or_else(|| self.wrong_type("stop", "string"))
                })
                .collect(),
            Some(_) => Err(self.wrong_type("stop", "string")),
        }
    }

    pub(super) fn chat(&self, keep: bool) -> Result<Prompt, ErrorAnswer> {
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

    fn ids(&self, items: &[Value], keep: bool) -> Result<Prompt, ErrorAnswer> {
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

    /// A field that is there and not null.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn boolean(&self, name: &str) -> Result<Option<bool>, ErrorAnswer> {
        self.get(name)
            .map(|value| {
                value
                    .as_bool()
                    .ok_or_else(|| self.wrong_type(name, "boolean"))
            })
            .transpose()
    }

    fn whole(&self, name: &str) -> Result<Option<i64>, ErrorAnswer> {
        self.get(name)
            .map(|value| {
                value
                    .as_i64()
                    .ok_or_else(|| self.wrong_type(name, "integer"))
            })
            .transpose()
    }

    fn bad(&self, message: &str, param: Option<&str>) -> ErrorAnswer {
        ErrorAnswer::bad_request(self.script.flavour, message, param)
    }

    pub(super) fn missing(&self, name: &str) -> ErrorAnswer {
        let detail = format!(
            "{{'type': 'missing', 'loc': 'body.{name}', 'msg': 'Field required', 'input': '<dict of {} items>'}}",
            self.fields.len()
        );
        ErrorAnswer::validation(self.script.flavour, &detail, &format!("body.{name}"))
    }

    fn wrong_type(&self, name: &str, expected: &str) -> ErrorAnswer {
        let detail = format!(
            "{{'type': '{expected}_type', 'loc': 'body.{name}', 'msg': 'Input should be a valid {expected}'}}"
        );
        ErrorAnswer::validation(self.script.flavour, &detail, &format!("body.{name}"))
    }
}

impl Prompt {
    fn push(&mut self, id: u32, keep: bool) {
        self.context.push(id);
        if keep {
            self.ids.push(id);
        }
    }
}

/// The text of a message: a string, or the text parts of a list.
fn content(value: Option<&Value>) -> std::borrow::Cow<'_, str> {
    match value {
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| part.get("text")?.as_str())
            .collect::<String>()
            .into(),
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(api: Api, body: &str) -> Result<Ask, ErrorAnswer> {
        let script = Script {
            max_model_len: 8192,
            ..Script::default()
        };
        Ask::parse(
            api,
            &script,
            Some("application/json; charset=utf-8"),
            body.as_bytes(),
        )
    }

    #[test]
    fn requests_are_judged_as_vllm_judges_them() {
        let chat = |fields: &str| {
            ask(
                Api::Chat,
                &format!(r#"{{"messages":[{{"role":"user","content":"x"}}]{fields}}}"#),
            )
        };
        assert_eq!(chat(r#","model":"nope""#).unwrap_err().status, 404);
        assert!(chat(r#","unknown":1,"priority":3"#).is_ok());
        for refused in [
            r#","n":0"#,
            r#","temperature":9"#,
            r#","max_tokens":0"#,
            r#","max_tokens":-1"#,
            r#","max_tokens":8193"#,
            r#","stream_options":{"include_usage":true}"#,
            r#","continue_final_message":true"#,
        ] {
            let error = chat(refused).unwrap_err();
            assert!(
                error.status == 400 && error.body.contains("BadRequestError"),
                "{refused}: {error:?}"
            );
        }
        for invalid in ["[]", "{", "{}", r#"{"messages":"x"}"#] {
            let error = ask(Api::Chat, invalid).unwrap_err();
            assert!(
                error.status == 400 && error.body.contains(r#""type":"Bad Request""#),
                "{invalid}: {error:?}"
            );
        }
        assert_eq!(chat(r#","max_tokens":8192"#).unwrap().max_tokens, 8192 - 4);
    }

    #[test]
    fn a_prompt_may_be_text_ids_or_a_batch_of_either() {
        let prompts = |prompt: &str| {
            ask(Api::Completions, &format!(r#"{{"prompt":{prompt}}}"#))
                .unwrap()
                .prompts
                .len()
        };
        assert_eq!(prompts(r#""x""#), 1);
        assert_eq!(prompts("[1,100,3]"), 1);
        assert_eq!(prompts(r#"["x","y"]"#), 2);
        assert_eq!(prompts("[[1,100,3],[1,102,3]]"), 2);
        let error = ask(Api::Completions, r#"{"prompt":[1,4000000000]}"#).unwrap_err();
        assert_eq!(error.status, 400);
    }
}
