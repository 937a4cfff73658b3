//! Anthropic's messages, as vLLM makes them of its chat: no `ping`, no `[DONE]`, the id of a chat.

use std::io::Write as _;

use serde_json::{Value, json};

use super::{Dialect, Usage, Whole, string};
use crate::engine::errors::messages_error_event;
use crate::engine::generation::{Finish, Step};
use crate::engine::request::{Ask, Prompt};
use crate::engine::script::EngineError;

#[derive(Debug)]
pub(super) struct Messages {
    /// `"id":…,"type":"message","role":"assistant","content":`, and the model as JSON.
    start: String,
    model: String,
    /// Whether usage says what came from the cache.
    details: bool,
    /// The content block is open.
    open: bool,
    finish: Option<Finish>,
}

impl Messages {
    pub(super) fn new(model: &str, request: &str, details: bool) -> Self {
        let id = Value::from(format!("chatcmpl-{request}"));
        Self {
            start: format!(r#""id":{id},"type":"message","role":"assistant","content":"#),
            model: Value::from(model).to_string(),
            details,
            open: false,
            finish: None,
        }
    }

    fn usage(&self, usage: Usage) -> String {
        let details = if self.details {
            r#","cache_creation_input_tokens":0,"cache_read_input_tokens":0"#
        } else {
            ""
        };
        format!(
            r#"{{"input_tokens":{},"output_tokens":{}{details}}}"#,
            usage.prompt, usage.completion
        )
    }
}

/// `stop_reason` and `stop_sequence`. An aborted answer has no reason.
fn reason(finish: Option<&Finish>) -> (Value, Value) {
    match finish {
        Some(Finish::Length) => (json!("max_tokens"), Value::Null),
        Some(Finish::Stop(Some(stop))) => (json!("stop_sequence"), json!(stop)),
        Some(Finish::Stop(None)) => (json!("end_turn"), Value::Null),
        Some(Finish::Abort) | None => (Value::Null, Value::Null),
    }
}

impl Dialect for Messages {
    fn open(&mut self, out: &mut Vec<u8>, ask: &Ask) {
        // Writing to a Vec cannot fail, here and below.
        _ = write!(
            out,
            "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{{}[],\"model\":{},\
             \"stop_reason\":null,\"stop_sequence\":null,\"usage\":{{\"input_tokens\":{},\"output_tokens\":0}}}}}}\n\n",
            self.start,
            self.model,
            ask.prompt_tokens()
        );
    }

    fn token(
        &mut self,
        out: &mut Vec<u8>,
        _index: usize,
        step: &Step,
        _usage: Usage,
        _prompt_ids: Option<&[u32]>,
    ) {
        if !step.text.is_empty() {
            if !std::mem::replace(&mut self.open, true) {
                out.extend_from_slice(
                    b"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"content_block\":\
                      {\"type\":\"text\",\"text\":\"\"},\"index\":0}\n\n",
                );
            }
            out.extend_from_slice(
                b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":\
                  {\"type\":\"text_delta\",\"text\":",
            );
            string(out, &step.text);
            out.extend_from_slice(b"},\"index\":0}\n\n");
        }
        if step.finish.is_some() {
            self.finish.clone_from(&step.finish);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>, usage: Usage) {
        if std::mem::take(&mut self.open) {
            out.extend_from_slice(
                b"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
            );
        }
        let (reason, sequence) = reason(self.finish.as_ref());
        _ = write!(
            out,
            "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":{reason},\
             \"stop_sequence\":{sequence}}},\"usage\":{}}}\n\n\
             event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n",
            self.usage(usage)
        );
    }

    fn error(&mut self, out: &mut Vec<u8>, error: EngineError) -> bool {
        out.extend_from_slice(messages_error_event(error).as_bytes());
        true
    }

    fn body(&mut self, answers: &[Whole], _prompts: &[Prompt], usage: Usage) -> Vec<u8> {
        let answer = answers.first();
        let text = Value::from(answer.map_or("", |answer| answer.text.as_str()));
        let (reason, sequence) = reason(answer.and_then(|answer| answer.finish.as_ref()));
        // What is null is left out of a whole message.
        let of = |name: &str, value: Value| match value {
            Value::Null => String::new(),
            value => format!(r#","{name}":{value}"#),
        };
        format!(
            r#"{{{}[{{"type":"text","text":{text}}}],"model":{}{}{},"usage":{}}}"#,
            self.start,
            self.model,
            of("stop_reason", reason),
            of("stop_sequence", sequence),
            self.usage(usage)
        )
        .into_bytes()
    }
}
