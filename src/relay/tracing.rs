//! What a request's trace is told, where the request passes.

use std::time::SystemTime;

use http::HeaderMap;
use tokio::time::Instant;

use crate::openai::{BodyKind, Call, Dialect};
use crate::pool::Endpoint;
use crate::server::Shared;
use crate::snapshot::Snapshot;
use crate::telemetry::tracing::Trace;

use super::attempt::{Answer, Failure, is_engine_failure};
use super::ctx::RequestCtx;
use super::peek::Asked;

/// What becomes of the client's `traceparent` and `tracestate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContextFields {
    /// They pass as they came.
    Pass,
    /// Each try gets a `traceparent` of its own.
    Own { keeps_state: bool },
}

impl ContextFields {
    pub fn of(ctx: &RequestCtx) -> Self {
        match &ctx.trace {
            None => Self::Pass,
            Some(trace) => Self::Own {
                keeps_state: trace.keeps_state,
            },
        }
    }

    pub fn drops(self, name: &str) -> bool {
        match self {
            Self::Pass => false,
            Self::Own { keeps_state } => {
                name == "traceparent" || (name == "tracestate" && !keeps_state)
            }
        }
    }
}

/// Where spans are wanted, takes the request into a trace.
pub fn begin(shared: &Shared, snapshot: &Snapshot, headers: &HeaderMap, ctx: &mut RequestCtx) {
    if snapshot.config.tracing.otlp.is_none() {
        return;
    }
    let Some(tracer) = shared.tracer() else {
        return;
    };
    let (began, rng) = (SystemTime::now(), super::thread_rng());
    ctx.trace = Trace::begin(&tracer, headers, began, ctx.started, rng);
    if let Some(trace) = &mut ctx.trace
        && ctx.connection.as_ref().is_some_and(|c| c.tls)
    {
        trace.over_tls();
    }
}

/// The body has been read.
pub fn asked(ctx: &mut RequestCtx, call: Call, path: &[u8], asked: &Asked) {
    if let Some(trace) = &mut ctx.trace {
        trace.asks(operation(call, path), provider(call, path), asked.model());
    }
}

/// `gen_ai.operation.name`, of its well-known values.
fn operation(call: Call, path: &[u8]) -> Option<&'static str> {
    // A response that is only looked up, or cancelled, is none.
    if call.body != BodyKind::Json {
        return None;
    }
    match call.dialect {
        Dialect::Chat | Dialect::Messages | Dialect::Responses => Some("chat"),
        Dialect::Completions => Some("text_completion"),
        Dialect::Other if path.ends_with(b"/embeddings") => Some("embeddings"),
        Dialect::Other => None,
    }
}

/// `gen_ai.provider.name` says whose API is spoken, not who answers.
fn provider(call: Call, path: &[u8]) -> Option<&'static str> {
    operation(call, path).map(|_| match call.dialect {
        Dialect::Messages => "anthropic",
        _ => "openai",
    })
}

/// A try begins; returns its `traceparent`.
pub fn attempt(ctx: &mut RequestCtx, endpoint: &Endpoint, now: Instant) -> Option<String> {
    let trace = ctx.trace.as_mut()?;
    Some(trace.attempt(&endpoint.name, &endpoint.state.target, now))
}

/// What came of it.
pub fn attempted(ctx: &mut RequestCtx, result: &Result<Box<Answer>, Failure>, now: Instant) {
    let Some(trace) = &mut ctx.trace else {
        return;
    };
    match result {
        Ok(answer) => {
            let status = answer.head.status;
            trace.answered(status, answer.connect);
            if answer.is_whole && is_engine_failure(status) {
                trace.failed(status.to_string(), now);
            }
        }
        Err(failure) => trace.failed(failure.reason(), now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Expose;
    use crate::openai::{Verdict, paths};

    #[test]
    fn operations_have_the_names_of_the_conventions() {
        let expose = Expose::Inference { extra: Vec::new() };
        for (path, expected) in [
            ("/v1/chat/completions", Some(("chat", "openai"))),
            ("/chat/completions", Some(("chat", "openai"))),
            ("/v1/completions", Some(("text_completion", "openai"))),
            ("/v1/messages", Some(("chat", "anthropic"))),
            ("/v1/responses", Some(("chat", "openai"))),
            ("/v1/embeddings", Some(("embeddings", "openai"))),
            ("/v1/rerank", None),
        ] {
            let path = path.as_bytes();
            let Verdict::Exposed(call) = paths::lookup(&expose, "POST", path) else {
                panic!("{path:?} is exposed");
            };
            let said = operation(call, path).zip(provider(call, path));
            assert_eq!(said, expected);
        }
    }
}
