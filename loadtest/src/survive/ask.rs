//! What a client asks for, and what it must get to the byte.

use serde_json::{Value, json};

use crate::compare::gateway::Caller;
use crate::engine::text::{self, Context};
use crate::load::prompt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Completions,
}

impl Api {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
        }
    }
}

/// A request, and the one right answer to it.
#[derive(Debug)]
pub(super) struct Ask {
    pub api: Api,
    pub body: String,
    pub stream: bool,
    pub expected: Expected,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub text: String,
    pub finish: &'static str,
    /// Of the usage event, where one is asked for.
    pub completion_tokens: Option<u64>,
}

impl Ask {
    /// The `number`th stream: chat and completions, with and without `max_tokens`, with and without usage, over
    /// `tokens` at most, which is where the engines end an answer that nothing else ends.
    pub(super) fn stream(number: u64, caller: Caller, tokens: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(number);
        let api = match number % 4 {
            3 => Api::Completions,
            _ => Api::Chat,
        };
        // Those of completions default to 16.
        let limit = (api == Api::Completions || !number.is_multiple_of(5))
            .then(|| random.usize(tokens.div_ceil(4)..=tokens.max(1)));
        Self::new(
            number,
            caller,
            api,
            limit,
            tokens,
            true,
            number.is_multiple_of(3),
        )
    }

    /// A few tokens in one piece.
    pub(super) fn short(number: u64, caller: Caller) -> Self {
        Self::new(number, caller, Api::Completions, Some(2), 2, false, true)
    }

    fn new(
        number: u64,
        caller: Caller,
        api: Api,
        limit: Option<usize>,
        tokens: usize,
        stream: bool,
        usage: bool,
    ) -> Self {
        let prompt = prompt(number, 40 + number as usize % 200);
        let (mut body, context) = match api {
            Api::Chat => (
                json!({ "messages": [{ "role": "user", "content": prompt }] }),
                Context::chat([("user", prompt.as_str())]),
            ),
            Api::Completions => (
                json!({ "prompt": prompt }),
                Context::prompt(prompt.as_str()),
            ),
        };
        body["model"] = json!(caller.model);
        body["stream"] = json!(stream);
        body["temperature"] = json!(0);
        let limit = limit.map(|limit| whole(context.clone(), limit));
        if let Some(limit) = limit {
            body["max_tokens"] = json!(limit);
        }
        if stream && usage {
            body["stream_options"] = json!({ "include_usage": true });
        }
        let mut expected = expected(context, limit, tokens);
        expected.completion_tokens = expected.completion_tokens.filter(|_| usage);
        Self {
            api,
            body: Value::to_string(&body),
            stream,
            expected,
        }
    }
}

/// So many tokens, or one more where the last character would not be whole.
fn whole(mut context: Context, mut tokens: usize) -> usize {
    for _ in 0..tokens {
        context.push(context.next());
    }
    if context.in_character() {
        tokens += 1;
    }
    tokens
}

/// What an engine whose answers end after `tokens` says in this context.
fn expected(context: Context, limit: Option<usize>, tokens: usize) -> Expected {
    let end = whole(context.clone(), tokens);
    let (count, finish, completion_tokens) = match limit {
        Some(limit) if limit <= end => (limit, "length", limit),
        // The end-of-sequence token is one of them.
        _ => (end, "stop", end + 1),
    };
    Expected {
        text: text::answer(context, count),
        finish,
        completion_tokens: Some(completion_tokens as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_ends_with_a_whole_character_and_its_tokens_are_known() {
        let context = || Context::chat([("user", "Hi")]);
        for tokens in 1..200 {
            let count = whole(context(), tokens);
            assert!(count == tokens || count == tokens + 1);
            assert_eq!(whole(context(), count), count);
            let all = expected(context(), None, tokens);
            assert_eq!(
                (all.finish, all.completion_tokens),
                ("stop", Some(count as u64 + 1))
            );
            let part = expected(context(), Some(count), 300);
            assert_eq!(
                (part.finish, part.completion_tokens),
                ("length", Some(count as u64))
            );
            assert_eq!(part.text, all.text);
        }
    }
}
