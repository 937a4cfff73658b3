//! `OpenAI`'s responses: a numbered event for each step of the answer, and the response itself in some of them.

use std::io::Write as _;
use std::sync::Arc;

use serde_json::Value;

use super::{Dialect, Usage, Whole};
use crate::engine::generation::{Finish, Step};
use crate::engine::http::now;
use crate::engine::request::{Echo, Prompt, Response};
use crate::engine::script::Script;
use crate::engine::shared::Shared;
use crate::engine::store::{Kept, Status};

/// A response without its output.
#[derive(Debug, Clone)]
pub(in crate::engine) struct Form {
    pub id: String,
    created: u64,
    /// As JSON.
    model: String,
    echo: Echo,
}

impl Form {
    pub(in crate::engine) fn new(shared: &Shared, script: &Script, echo: &Echo) -> Self {
        Self {
            id: format!("resp_{}", shared.new_id()),
            created: now(),
            model: Value::from(script.model.as_str()).to_string(),
            echo: echo.clone(),
        }
    }

    /// The response as JSON; `output` is the items in their brackets.
    pub(in crate::engine) fn json(
        &self,
        status: Status,
        output: &str,
        usage: Option<Usage>,
    ) -> String {
        let incomplete = if status == Status::Incomplete {
            r#"{"reason":"max_output_tokens"}"#
        } else {
            "null"
        };
        let usage = usage.map_or("null".to_owned(), |usage| {
            let Usage { prompt, completion } = usage;
            format!(
                r#"{{"input_tokens":{prompt},"input_tokens_details":{{"cached_tokens":0,"cache_write_tokens":0,"input_tokens_per_turn":[],"cached_tokens_per_turn":[]}},"output_tokens":{completion},"output_tokens_details":{{"reasoning_tokens":0,"tool_output_tokens":0,"output_tokens_per_turn":[],"tool_output_tokens_per_turn":[]}},"total_tokens":{}}}"#,
                prompt + completion
            )
        });
        let Echo {
            before_model,
            after_output,
            after_status,
            after_usage,
        } = &self.echo;
        format!(
            r#"{{"id":"{}","created_at":{},"incomplete_details":{incomplete},{before_model},"model":{},"object":"response","output":{output},{after_output},"status":"{}",{after_status},"usage":{usage},{after_usage}}}"#,
            self.id,
            self.created,
            self.model,
            status.word()
        )
    }
}

/// The one item of an output.
pub(in crate::engine) fn message(id: &str, text: &str) -> String {
    let content = if text.is_empty() {
        String::new()
    } else {
        part(text, "null")
    };
    item(id, &content, "completed")
}

fn item(id: &str, content: &str, status: &str) -> String {
    format!(
        r#"{{"id":"{id}","content":[{content}],"role":"assistant","status":"{status}","type":"message","phase":null}}"#
    )
}

fn part(text: &str, logprobs: &str) -> String {
    let text = Value::from(text);
    format!(r#"{{"annotations":[],"text":{text},"type":"output_text","logprobs":{logprobs}}}"#)
}

pub(super) struct Responses {
    form: Form,
    item: String,
    shared: Arc<Shared>,
    /// What was said to the model, where the response is kept.
    turns: Option<Vec<(String, String)>>,
    sequence: usize,
    text: String,
    finish: Option<Finish>,
}

impl Responses {
    pub(super) fn new(form: Form, shared: &Arc<Shared>, response: &Response) -> Self {
        Self {
            form,
            item: format!("msg_{}", shared.new_id()),
            shared: Arc::clone(shared),
            turns: response.keep.then(|| response.turns.clone()),
            sequence: 0,
            text: String::new(),
            finish: None,
        }
    }

    /// An event; `before` and `after` are its fields around the sequence number.
    fn event(&mut self, out: &mut Vec<u8>, kind: &str, before: &str, after: &str) {
        // Writing to a Vec cannot fail.
        _ = write!(
            out,
            "event: response.{kind}\ndata: {{{before},\"sequence_number\":{}{after},\"type\":\"response.{kind}\"}}\n\n",
            self.sequence
        );
        self.sequence += 1;
    }

    /// `text` is the answer so far, or all of it.
    fn settle(&mut self, output: String, usage: Usage) -> String {
        let status = Status::of(self.finish.as_ref());
        let json = self.form.json(status, &output, Some(usage));
        if let Some(turns) = self.turns.take() {
            self.shared.responses.keep(Kept {
                form: self.form.clone(),
                status,
                output,
                usage: Some(usage),
                turns,
                said: std::mem::take(&mut self.text),
                job: None,
            });
        }
        json
    }
}

impl Dialect for Responses {
    fn at_once(&mut self, out: &mut Vec<u8>) {
        let response = self.form.json(Status::InProgress, "[]", None);
        let response = format!("\"response\":{response}");
        self.event(out, "created", &response, "");
        self.event(out, "in_progress", &response, "");
    }

    fn token(
        &mut self,
        out: &mut Vec<u8>,
        _index: usize,
        step: &Step,
        _usage: Usage,
        _prompt_ids: Option<&[u32]>,
    ) {
        if step.finish.is_some() {
            self.finish.clone_from(&step.finish);
        }
        if step.text.is_empty() {
            return;
        }
        let id = self.item.clone();
        if self.text.is_empty() {
            let added = item(&id, "", "in_progress");
            let added = format!("\"item\":{added},\"output_index\":0");
            self.event(out, "output_item.added", &added, "");
            let part = part("", "[]");
            let added = format!(
                "\"content_index\":0,\"item_id\":\"{id}\",\"output_index\":0,\"part\":{part}"
            );
            self.event(out, "content_part.added", &added, "");
        }
        self.text.push_str(&step.text);
        let delta = format!(
            r#""content_index":0,"delta":{},"item_id":"{id}","logprobs":[],"output_index":0"#,
            Value::from(step.text.as_str())
        );
        self.event(out, "output_text.delta", &delta, "");
    }

    fn finish(&mut self, out: &mut Vec<u8>, usage: Usage) {
        let mut output = "[]".to_owned();
        if !self.text.is_empty() {
            let (id, text) = (self.item.clone(), std::mem::take(&mut self.text));
            let done =
                format!(r#""content_index":0,"item_id":"{id}","logprobs":[],"output_index":0"#);
            let after = format!(",\"text\":{}", Value::from(text.as_str()));
            self.event(out, "output_text.done", &done, &after);
            let part = part(&text, "null");
            let done =
                format!(r#""content_index":0,"item_id":"{id}","output_index":0,"part":{part}"#);
            self.event(out, "content_part.done", &done, "");
            let done = message(&id, &text);
            output = format!("[{done}]");
            let done = format!("\"item\":{done},\"output_index\":0");
            self.event(out, "output_item.done", &done, "");
            self.text = text;
        }
        let response = self.settle(output, usage);
        // Whatever ended the answer: vLLM knows no response.incomplete, and an aborted one counts as completed.
        self.event(out, "completed", &format!("\"response\":{response}"), "");
    }

    fn body(&mut self, answers: &[Whole], _prompts: &[Prompt], usage: Usage) -> Vec<u8> {
        if let Some(answer) = answers.first() {
            self.text.clone_from(&answer.text);
            self.finish.clone_from(&answer.finish);
        }
        let output = format!("[{}]", message(&self.item, &self.text));
        self.settle(output, usage).into_bytes()
    }
}
