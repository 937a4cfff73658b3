//! What a request body asks for, judged as vLLM judges it.

mod chat;
mod messages;
mod pooling;
mod responses;

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::errors::ErrorAnswer;
use super::script::Script;
use super::store::Store;
use super::text::Context;

pub(super) use pooling::Pooling;
pub(super) use responses::{Echo, Response};

/// Whose requests and answers they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Completions,
    /// Anthropic's `/v1/messages`.
    Messages,
    /// `OpenAI`'s `/v1/responses`.
    Responses,
    Embeddings,
    Score,
    Rerank,
}

impl Api {
    /// The error as this API has it.
    pub(super) fn error(self, error: ErrorAnswer) -> ErrorAnswer {
        match self {
            Self::Messages => error.in_messages(),
            _ => error,
        }
    }

    /// Whether its whole answers carry the load report that a client asks for.
    pub(super) fn reports_load(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }
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
    pub extra: Extra,
}

/// What only some APIs ask for.
#[derive(Debug)]
pub(super) enum Extra {
    None,
    Response(Box<Response>),
    Pooling(Pooling),
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
    /// Reads a body; the error is the answer. `store` is where a response that goes on from another finds it.
    pub(super) fn parse(
        api: Api,
        script: &Script,
        store: &Store,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<Self, ErrorAnswer> {
        let fields = object(script, content_type, body)?;
        let fields = Fields {
            fields: &fields,
            script,
        };
        let ask = match api {
            Api::Chat | Api::Completions => fields.generation(api),
            Api::Messages => fields.messages(),
            Api::Responses => fields.response(store),
            Api::Embeddings => fields.embeddings(),
            Api::Score => fields.scores(),
            Api::Rerank => fields.ranking(),
        };
        ask.map_err(|error| api.error(error))
    }

    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompts
            .iter()
            .map(|prompt| prompt.context.length)
            .sum()
    }
}

/// Reads a body that must be a JSON object.
pub(super) fn object(
    script: &Script,
    content_type: Option<&str>,
    body: &[u8],
) -> Result<Map<String, Value>, ErrorAnswer> {
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
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => {
            let detail = "{'type': 'model_attributes_type', 'loc': 'body', 'msg': 'Input should be a valid dictionary \
                          or object to extract fields from'}";
            Err(ErrorAnswer::validation(flavour, detail, "body"))
        }
        Err(error) => {
            let at = error.column().saturating_sub(1);
            let detail = format!(
                "{{'type': 'json_invalid', 'loc': 'body.{at}', 'msg': 'JSON decode error', 'input': '<dict of 0 \
                 items>', 'ctx': {{'error': 'Expecting value'}}}}"
            );
            Err(ErrorAnswer::validation(
                flavour,
                &detail,
                &format!("body.{at}"),
            ))
        }
    }
}

pub(super) struct Fields<'a> {
    pub fields: &'a Map<String, Value>,
    pub script: &'a Script,
}

impl<'a> Fields<'a> {
    pub(super) fn check_model(&self) -> Result<(), ErrorAnswer> {
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

    /// Whether a prompt of so many tokens leaves room for an answer.
    fn check_length(&self, prompt: usize) -> Result<(), ErrorAnswer> {
        let model = self.script.max_model_len;
        if prompt < model {
            return Ok(());
        }
        let message = format!(
            "This model's maximum context length is {model} tokens. However, your request has {prompt} input tokens. \
             Please reduce the length of the input messages."
        );
        Err(self.bad(&message, Some("input_tokens")))
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

    fn text(&self, name: &str) -> Result<Option<&'a str>, ErrorAnswer> {
        self.get(name)
            .map(|value| {
                value
                    .as_str()
                    .ok_or_else(|| self.wrong_type(name, "string"))
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
        self.missing_in(name, self.fields.len())
    }

    /// A field that an object of so many others lacks; `name` is its path in the body.
    fn missing_in(&self, name: &str, others: usize) -> ErrorAnswer {
        let detail = format!(
            "{{'type': 'missing', 'loc': 'body.{name}', 'msg': 'Field required', 'input': '<dict of {others} items>'}}"
        );
        ErrorAnswer::validation(self.script.flavour, &detail, &format!("body.{name}"))
    }

    /// A value that a validator of the schema refuses.
    fn refused(&self, name: &str, input: &str, message: &str) -> ErrorAnswer {
        let detail = format!(
            "{{'type': 'value_error', 'loc': 'body.{name}', 'msg': 'Value error, {message}', 'input': '{input}', 'ctx': \
             {{'error': ValueError('{message}')}}}}"
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
    /// The tokens that `render` gives.
    fn rendered(keep: bool, render: impl FnOnce(&mut dyn FnMut(u32))) -> Self {
        let mut prompt = Self::default();
        render(&mut |id| prompt.push(id, keep));
        prompt
    }

    fn push(&mut self, id: u32, keep: bool) {
        self.context.push(id);
        if keep {
            self.ids.push(id);
        }
    }
}

/// The text of a message: a string, or the text parts of a list.
fn content(value: Option<&Value>) -> Cow<'_, str> {
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
            &Store::default(),
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
