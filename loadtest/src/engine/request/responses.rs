//! What `/v1/responses` asks for.

use serde_json::Value;

use super::{Api, Ask, Extra, Fields, Prompt, content};
use crate::engine::errors::ErrorAnswer;
use crate::engine::store::Store;
use crate::engine::text;

/// What only a response has.
#[derive(Debug)]
pub(in crate::engine) struct Response {
    pub echo: Echo,
    /// `(role, content)` of all that was said to the model: what a next response goes on from.
    pub turns: Vec<(String, String)>,
    /// Whether it is kept: asked for, and switched on.
    pub keep: bool,
    /// Made after its answer, which says `queued`.
    pub background: bool,
}

/// Fields of the request that its response repeats, as JSON, in the order of vLLM's response: what stands between
/// the fields that the engine fills in.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Echo {
    pub before_model: String,
    pub after_output: String,
    pub after_status: String,
    pub after_usage: String,
}

impl Fields<'_> {
    pub(super) fn response(&self, store: &Store) -> Result<Ask, ErrorAnswer> {
        let new = self.input()?;
        let background = self.boolean("background")?.unwrap_or(false);
        let stored = self.boolean("store")?.unwrap_or(true);
        if background && !stored {
            let message = "background can only be used when `store` is true (parameter=background)";
            return Err(self.bad(message, Some("background")));
        }
        self.check_model()?;
        if background && !self.script.responses_store {
            return Err(self.no_background());
        }
        let mut turns = Vec::new();
        if let Some(instructions) = self.text("instructions")? {
            turns.push(("system".to_owned(), instructions.to_owned()));
        }
        if let Some(previous) = self.text("previous_response_id")? {
            let before = store.conversation(previous);
            turns.extend(
                before.ok_or_else(|| ErrorAnswer::no_response(self.script.flavour, previous))?,
            );
        }
        turns.extend(new);
        let said = turns
            .iter()
            .map(|(role, content)| (role.as_str(), content.as_str()));
        let prompt = Prompt::rendered(false, |token| text::render_chat(said, true, token));
        self.check_length(prompt.context.length)?;
        self.check_sampling()?;
        let max_tokens = self.max_output_tokens(prompt.context.length)?;
        let stream = self.boolean("stream")?.unwrap_or(false);
        let response = Response {
            echo: self.echo(max_tokens, background)?,
            turns,
            keep: stored && self.script.responses_store,
            background: background && !stream,
        };
        Ok(Ask {
            api: Api::Responses,
            stream,
            include_usage: true,
            continuous_usage: false,
            return_token_ids: false,
            n: 1,
            max_tokens,
            min_tokens: 0,
            ignore_eos: self.boolean("ignore_eos")?.unwrap_or(false),
            stop: self.stop("stop")?,
            prompts: vec![prompt],
            extra: Extra::Response(Box::new(response)),
        })
    }

    /// `input` as `(role, content)`.
    fn input(&self) -> Result<Vec<(String, String)>, ErrorAnswer> {
        let items = match self.get("input") {
            None => return Err(self.missing("input")),
            Some(Value::String(text)) => return Ok(vec![("user".to_owned(), text.clone())]),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(self.wrong_type("input", "string")),
        };
        let turns = items.iter().map(|item| {
            let said = |field| content(item.get(field)).into_owned();
            match (item.get("role"), item.get("type").and_then(Value::as_str)) {
                (Some(Value::String(role)), _) => Ok((role.clone(), said("content"))),
                (None, Some("function_call_output")) => Ok(("tool".to_owned(), said("output"))),
                (None, Some("function_call" | "reasoning")) => {
                    Ok(("assistant".to_owned(), said("arguments")))
                }
                _ => Err(self.wrong_type("input", "string")),
            }
        });
        turns.collect()
    }

    fn max_output_tokens(&self, prompt: usize) -> Result<usize, ErrorAnswer> {
        let model = self.script.max_model_len;
        match self.whole("max_output_tokens")? {
            None => Ok(model - prompt),
            Some(asked) if asked < 1 => {
                let message = format!("max_tokens must be at least 1, got {asked}.");
                Err(self.bad(&message, Some("max_tokens")))
            }
            Some(asked) if asked as usize > model => {
                let message = format!(
                    "max_output_tokens={asked} cannot be greater than max_model_len={model}. Please request fewer \
                     output tokens. (parameter=max_output_tokens, value={asked})"
                );
                Err(self.bad(&message, Some("max_output_tokens")))
            }
            Some(asked) => Ok((asked as usize).min(model - prompt)),
        }
    }

    fn no_background(&self) -> ErrorAnswer {
        let message = "This vLLM engine does not support `store=True` and therefore does not support the background \
                       mode. To enable these features, set the environment variable \
                       `VLLM_ENABLE_RESPONSES_API_STORE=1` when launching the vLLM server.";
        let (flavour, kind) = (self.script.flavour, "invalid_request_error");
        ErrorAnswer::api(flavour, 400, kind, message, Some("background"))
    }

    fn echo(&self, max_tokens: usize, background: bool) -> Result<Echo, ErrorAnswer> {
        let given = |name: &str, default: &str| {
            self.get(name)
                .map_or_else(|| default.to_owned(), Value::to_string)
        };
        let number = |name: &str, default: f64| match self.get(name) {
            None => Ok(Value::from(default).to_string()),
            Some(value) => value
                .as_f64()
                .map(|value| Value::from(value).to_string())
                .ok_or_else(|| self.wrong_type(name, "number")),
        };
        let has_tools = self
            .get("tools")
            .and_then(Value::as_array)
            .is_some_and(|tools| !tools.is_empty());
        let tool_choice = if has_tools {
            given("tool_choice", "\"auto\"")
        } else {
            "\"none\"".to_owned()
        };
        Ok(Echo {
            before_model: format!(
                r#""instructions":{},"metadata":{}"#,
                given("instructions", "null"),
                given("metadata", "null")
            ),
            after_output: format!(
                r#""parallel_tool_calls":{},"temperature":{},"tool_choice":{tool_choice},"tools":{},"top_p":{},"background":{background},"max_output_tokens":{max_tokens},"max_tool_calls":{},"previous_response_id":{},"prompt":null,"reasoning":{},"service_tier":{}"#,
                given("parallel_tool_calls", "true"),
                number("temperature", 1.0)?,
                given("tools", "[]"),
                number("top_p", 1.0)?,
                given("max_tool_calls", "null"),
                given("previous_response_id", "null"),
                given("reasoning", "null"),
                given("service_tier", "\"auto\""),
            ),
            after_status: format!(
                r#""text":{},"top_logprobs":null,"truncation":{}"#,
                given("text", "null"),
                given("truncation", "\"disabled\"")
            ),
            after_usage: format!(
                r#""user":{},"presence_penalty":{},"frequency_penalty":{},"kv_transfer_params":null,"ec_transfer_params":null,"input_messages":null,"output_messages":null"#,
                given("user", "null"),
                number("presence_penalty", 0.0)?,
                number("frequency_penalty", 0.0)?,
            ),
        })
    }
}
