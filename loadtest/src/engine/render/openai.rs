//! Chat and completions.

use serde_json::Value;

use super::{Dialect, Usage, Whole, number, string};
use crate::engine::errors::error_event;
use crate::engine::generation::{Finish, Step};
use crate::engine::request::{Api, Ask, Prompt};
use crate::engine::script::{EngineError, Flavour};

const FINGERPRINT: &str = "vllm-0.32.0-1a248562";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Chat,
    Completions,
}

/// What all events of one answer share, rendered once, and what is shown in them.
#[derive(Debug)]
pub(super) struct OpenAi {
    kind: Kind,
    flavour: Flavour,
    id: String,
    created: u64,
    /// As a JSON string.
    model: String,
    return_token_ids: bool,
    include_usage: bool,
    continuous_usage: bool,
    prompt_tokens_details: bool,
    prompt_tokens: usize,
    /// `data: ` and all of an event's fields before `choices`' content.
    prefix: String,
}

impl OpenAi {
    /// `request` is the request's id, from the client or made here.
    pub(super) fn new(
        ask: &Ask,
        flavour: Flavour,
        model: &str,
        request: &str,
        created: u64,
        details: bool,
    ) -> Self {
        let (kind, id, object) = if ask.api == Api::Completions {
            let id = format!("cmpl-{request}");
            (Kind::Completions, id, "text_completion")
        } else {
            let id = format!("chatcmpl-{request}");
            (Kind::Chat, id, "chat.completion.chunk")
        };
        let model = Value::from(model).to_string();
        let prefix = format!(
            r#"data: {{"id":{},"object":"{object}","created":{created},"model":{model},"choices":["#,
            Value::from(id.as_str())
        );
        Self {
            kind,
            flavour,
            id,
            created,
            model,
            return_token_ids: ask.return_token_ids,
            include_usage: ask.include_usage,
            continuous_usage: ask.continuous_usage,
            prompt_tokens_details: details,
            prompt_tokens: ask.prompt_tokens(),
            prefix,
        }
    }

    /// The event that opens each choice of a chat, sent with its first token.
    fn role_event(&self, out: &mut Vec<u8>, index: usize, prompt_ids: &[u32]) {
        self.open(out, index);
        match self.flavour {
            Flavour::Vllm => {
                out.extend_from_slice(
                    br#","delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]"#,
                );
                if self.continuous_usage {
                    self.usage(out, Usage { prompt: self.prompt_tokens, completion: 0 });
                }
                out.extend_from_slice(br#","prompt_token_ids":"#);
                self.ids(out, prompt_ids);
                out.extend_from_slice(br#","prompt_text":null"#);
            }
            Flavour::Sglang => out.extend_from_slice(
                br#","delta":{"role":"assistant","content":"","reasoning_content":null,"tool_calls":null},"logprobs":null,"finish_reason":null,"matched_stop":null}],"usage":null"#,
            ),
        }
        out.extend_from_slice(b"}\n\n");
    }

    /// Whether a token without text gets an event of its own.
    fn shows(&self, step: &Step) -> bool {
        self.kind == Kind::Completions
            || self.return_token_ids
            || step.finish.is_some()
            || !step.text.is_empty()
    }

    /// The event of one token. `prompt_ids` go into the first event of a completion.
    fn token_event(
        &self,
        out: &mut Vec<u8>,
        index: usize,
        step: &Step,
        usage: Usage,
        prompt_ids: Option<&[u32]>,
    ) {
        self.open(out, index);
        match self.kind {
            Kind::Chat => {
                let by_eos = matches!(step.finish, Some(Finish::Stop(None)));
                if self.flavour == Flavour::Vllm
                    && step.text.is_empty()
                    && (by_eos || step.finish.is_none())
                {
                    out.extend_from_slice(br#","delta":{},"logprobs":null,"#);
                } else {
                    out.extend_from_slice(br#","delta":{"content":"#);
                    string(out, &step.text);
                    out.extend_from_slice(br#"},"logprobs":null,"#);
                }
                finish_reason(out, step);
                if step.finish.is_some() && self.flavour == Flavour::Vllm {
                    stop_reason(out, step);
                }
            }
            Kind::Completions => {
                out.extend_from_slice(br#","text":"#);
                string(out, &step.text);
                out.extend_from_slice(br#","logprobs":null,"#);
                finish_reason(out, step);
                if self.flavour == Flavour::Vllm {
                    stop_reason(out, step);
                    out.extend_from_slice(br#","prompt_token_ids":"#);
                    self.ids(out, prompt_ids.unwrap_or_default());
                }
            }
        }
        match self.flavour {
            Flavour::Vllm => {
                out.extend_from_slice(br#","token_ids":"#);
                let ids = std::slice::from_ref(&step.id);
                self.ids(
                    out,
                    if step.finish == Some(Finish::Abort) {
                        &[]
                    } else {
                        ids
                    },
                );
                out.extend_from_slice(b"}]");
                if self.continuous_usage {
                    self.usage(out, usage);
                }
                if step.finish.is_some() && !self.include_usage {
                    _ = std::io::Write::write_fmt(
                        out,
                        format_args!(r#","system_fingerprint":"{FINGERPRINT}""#),
                    );
                }
            }
            Flavour::Sglang => {
                out.extend_from_slice(br#","matched_stop":null}],"usage":null"#);
            }
        }
        out.extend_from_slice(b"}\n\n");
    }

    /// The last event before `[DONE]` where the client asked for it.
    fn usage_event(&self, out: &mut Vec<u8>, usage: Usage) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.push(b']');
        _ = std::io::Write::write_fmt(
            out,
            format_args!(
                r#","usage":{{"prompt_tokens":{},"total_tokens":{},"completion_tokens":{}"#,
                usage.prompt,
                usage.prompt + usage.completion,
                usage.completion
            ),
        );
        if self.prompt_tokens_details {
            out.extend_from_slice(self.details().as_bytes());
        }
        out.push(b'}');
        if self.flavour == Flavour::Vllm {
            _ = std::io::Write::write_fmt(
                out,
                format_args!(r#","system_fingerprint":"{FINGERPRINT}""#),
            );
        }
        out.extend_from_slice(b"}\n\n");
    }

    fn details(&self) -> &'static str {
        match self.kind {
            Kind::Chat => {
                r#","prompt_tokens_details":{"cached_tokens":0,"created_cache_tokens":0}"#
            }
            Kind::Completions => r#","prompt_tokens_details":{"cached_tokens":0}"#,
        }
    }

    fn open(&self, out: &mut Vec<u8>, index: usize) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(br#"{"index":"#);
        number(out, index);
    }

    fn ids(&self, out: &mut Vec<u8>, ids: &[u32]) {
        if !self.return_token_ids || ids.is_empty() {
            out.extend_from_slice(b"null");
            return;
        }
        for (position, id) in ids.iter().enumerate() {
            out.push(if position == 0 { b'[' } else { b',' });
            number(out, *id as usize);
        }
        out.push(b']');
    }

    /// Usage inside an event. Chat has a null here that completions lack.
    fn usage(&self, out: &mut Vec<u8>, usage: Usage) {
        _ = std::io::Write::write_fmt(
            out,
            format_args!(
                r#","usage":{{"prompt_tokens":{},"total_tokens":{},"completion_tokens":{}"#,
                usage.prompt,
                usage.prompt + usage.completion,
                usage.completion
            ),
        );
        if self.kind == Kind::Chat {
            out.extend_from_slice(br#","completion_tokens_details":null"#);
        }
        out.push(b'}');
    }

    /// The body of an answer that is not streamed.
    fn whole_body(&self, choices: &[Whole], prompt_ids: &[&[u32]], usage: Usage) -> Vec<u8> {
        let object = match self.kind {
            Kind::Chat => "chat.completion",
            Kind::Completions => "text_completion",
        };
        let mut out = format!(
            r#"{{"id":{},"object":"{object}","created":{},"model":{},"choices":["#,
            Value::from(self.id.as_str()),
            self.created,
            self.model
        )
        .into_bytes();
        for (index, choice) in choices.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let prompt = prompt_ids[index * prompt_ids.len() / choices.len().max(1)];
            self.whole_choice(&mut out, index, choice, prompt);
        }
        let Usage { prompt, completion } = usage;
        let total = prompt + completion;
        let details = if self.prompt_tokens_details {
            self.details()
        } else {
            r#","prompt_tokens_details":null"#
        };
        let usage = format!(
            r#"{{"prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{completion}{details}"#
        );
        let mut shared = Vec::new();
        self.ids(&mut shared, prompt_ids.first().copied().unwrap_or_default());
        let shared = String::from_utf8_lossy(&shared);
        out.extend_from_slice(
            match (self.flavour, self.kind) {
                (Flavour::Sglang, _) => format!(r#"],"usage":{usage}}},"metadata":{{"weight_version":"default"}}}}"#),
                (Flavour::Vllm, Kind::Chat) => format!(
                    r#"],"service_tier":null,"system_fingerprint":"{FINGERPRINT}","usage":{usage},"completion_tokens_details":null}},"prompt_logprobs":null,"prompt_token_ids":{shared},"prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}}"#
                ),
                (Flavour::Vllm, Kind::Completions) => format!(
                    r#"],"service_tier":null,"system_fingerprint":"{FINGERPRINT}","usage":{usage},"completion_tokens_details":null}},"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}}"#
                ),
            }
            .as_bytes(),
        );
        out
    }

    fn whole_choice(&self, out: &mut Vec<u8>, index: usize, choice: &Whole, prompt_ids: &[u32]) {
        let text = Value::from(choice.text.as_str());
        let finish = choice.finish.as_ref().map_or("null".to_owned(), |finish| {
            format!("\"{}\"", finish.reason())
        });
        let stop = match &choice.finish {
            Some(Finish::Stop(Some(stop))) => Value::from(stop.as_str()).to_string(),
            _ => "null".to_owned(),
        };
        let (mut ids, mut prompt) = (Vec::new(), Vec::new());
        self.ids(&mut ids, &choice.ids);
        self.ids(&mut prompt, prompt_ids);
        let (ids, prompt) = (
            String::from_utf8_lossy(&ids),
            String::from_utf8_lossy(&prompt),
        );
        out.extend_from_slice(
            match (self.flavour, self.kind) {
                (Flavour::Vllm, Kind::Chat) => format!(
                    r#"{{"index":{index},"message":{{"role":"assistant","content":{text},"refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null}},"logprobs":null,"finish_reason":{finish},"stop_reason":{stop},"token_ids":{ids},"routed_experts":null}}"#
                ),
                (Flavour::Vllm, Kind::Completions) => format!(
                    r#"{{"index":{index},"text":{text},"logprobs":null,"finish_reason":{finish},"stop_reason":{stop},"token_ids":{ids},"prompt_logprobs":null,"prompt_token_ids":{prompt},"routed_experts":null}}"#
                ),
                (Flavour::Sglang, Kind::Chat) => format!(
                    r#"{{"index":{index},"message":{{"role":"assistant","content":{text},"reasoning_content":null,"tool_calls":null}},"logprobs":null,"finish_reason":{finish},"matched_stop":{stop}}}"#
                ),
                (Flavour::Sglang, Kind::Completions) => format!(
                    r#"{{"index":{index},"text":{text},"logprobs":null,"finish_reason":{finish},"matched_stop":{stop}}}"#
                ),
            }
            .as_bytes(),
        );
    }
}

fn finish_reason(out: &mut Vec<u8>, step: &Step) {
    out.extend_from_slice(br#""finish_reason":"#);
    match &step.finish {
        None => out.extend_from_slice(b"null"),
        Some(finish) => string(out, finish.reason()),
    }
}

fn stop_reason(out: &mut Vec<u8>, step: &Step) {
    out.extend_from_slice(br#","stop_reason":"#);
    match &step.finish {
        Some(Finish::Stop(Some(stop))) => string(out, stop),
        _ => out.extend_from_slice(b"null"),
    }
}

impl Dialect for OpenAi {
    fn open(&mut self, out: &mut Vec<u8>, ask: &Ask) {
        if self.kind == Kind::Chat {
            let ids = ask.prompts.first().map_or(&[][..], |prompt| &prompt.ids);
            (0..ask.n).for_each(|index| self.role_event(out, index, ids));
        }
    }

    fn token(
        &mut self,
        out: &mut Vec<u8>,
        index: usize,
        step: &Step,
        usage: Usage,
        prompt_ids: Option<&[u32]>,
    ) {
        if self.shows(step) {
            self.token_event(out, index, step, usage, prompt_ids);
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>, usage: Usage) {
        if self.include_usage {
            self.usage_event(out, usage);
        }
        out.extend_from_slice(DONE);
    }

    fn error(&mut self, out: &mut Vec<u8>, error: EngineError) -> bool {
        out.extend_from_slice(error_event(error).as_bytes());
        out.extend_from_slice(DONE);
        true
    }

    fn body(&mut self, answers: &[Whole], prompts: &[Prompt], usage: Usage) -> Vec<u8> {
        let prompt_ids: Vec<_> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        self.whole_body(answers, &prompt_ids, usage)
    }
}

const DONE: &[u8] = b"data: [DONE]\n\n";
