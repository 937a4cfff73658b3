//! Answers as bytes: the events and the bodies of each API.

mod messages;
mod openai;
mod pooling;
mod responses;

use std::sync::Arc;

use super::generation::{Finish, Step};
use super::http::now;
use super::request::{Ask, Extra, Prompt};
use super::script::{EngineError, Script};
use super::shared::Shared;

pub(super) use responses::{Form, message};

/// How one API writes an answer. Each event ends in a blank line, and no event has another.
pub(super) trait Dialect: Send {
    /// Events that come with the head, before the request is even admitted.
    fn at_once(&mut self, _out: &mut Vec<u8>) {}

    /// Events that come with the first token, before its own.
    fn open(&mut self, _out: &mut Vec<u8>, _ask: &Ask) {}

    /// The events of one token, if it has any. `prompt_ids` go into the first event of a completion.
    fn token(
        &mut self,
        _out: &mut Vec<u8>,
        _index: usize,
        _step: &Step,
        _usage: Usage,
        _prompt_ids: Option<&[u32]>,
    ) {
    }

    /// The events after the last token.
    fn finish(&mut self, _out: &mut Vec<u8>, _usage: Usage) {}

    /// The events of a failure inside a stream. False: there are none, and the connection closes inside the answer.
    fn error(&mut self, _out: &mut Vec<u8>, _error: EngineError) -> bool {
        false
    }

    /// The body of an answer that is not streamed.
    fn body(&mut self, answers: &[Whole], prompts: &[Prompt], usage: Usage) -> Vec<u8>;
}

/// Token counts of one answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub prompt: usize,
    pub completion: usize,
}

/// One finished answer of a body that is not streamed.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub text: String,
    pub ids: Vec<u32>,
    pub finish: Option<Finish>,
}

/// The dialect of a request; `id` is the request's, from the client or made here.
pub(super) fn dialect(
    ask: &Ask,
    script: &Script,
    shared: &Arc<Shared>,
    id: &str,
) -> Box<dyn Dialect> {
    match &ask.extra {
        Extra::Response(response) => Box::new(responses::Responses::new(
            Form::new(shared, script, &response.echo),
            shared,
            response,
        )),
        Extra::Pooling(pooling) => {
            Box::new(pooling::Numbers::new(ask.api, pooling, &script.model, id))
        }
        Extra::None if ask.api == super::request::Api::Messages => {
            let details = script.prompt_tokens_details;
            Box::new(messages::Messages::new(&script.model, id, details))
        }
        Extra::None => Box::new(openai::OpenAi::new(
            ask,
            script.flavour,
            &script.model,
            id,
            now(),
            script.prompt_tokens_details,
        )),
    }
}

/// Appends a JSON string.
fn string(out: &mut Vec<u8>, text: &str) {
    // Writing to a Vec cannot fail.
    _ = serde_json::to_writer(out, text);
}

fn number(out: &mut Vec<u8>, value: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

pub(super) const COMMENT: &[u8] = b": keep-alive\n\n";
