//! The smallest of requests, to see whether an engine still answers any: a completion of one token.
//!
//! Whoever asks what it serves, or how it is, hears from the front end alone; that goes on answering while the engine
//! behind it hangs.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use tokio::time::Instant;

use crate::config::Engine;
use crate::engine;
use crate::pool::EndpointState;
use crate::upstream::ConnectError;

use super::request::{self, Failure, Question};

/// No canary may take longer.
const LONGEST: Duration = Duration::from_secs(10);
/// Of its answer, in bytes; one token needs a few hundred.
const LONGEST_ANSWER: usize = 64 << 10;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// An answer. A 4xx is one too: nobody else has a model of that name, or makes vectors of it.
    Alive,
    /// Its queue is full: it is busy, or hangs behind a full queue.
    Full,
    /// Any other status.
    Fails(u16),
    /// Nothing, or the end of the connection.
    Silent,
    /// Nothing listens there.
    Refused,
    /// It could not be sent for a reason that says nothing of the engine.
    NotSent,
}

/// Sends a canary.
#[async_trait]
pub trait Canary: Send + Sync + 'static {
    /// Has its sign by `deadline`; after that it is dropped, and silence the sign.
    async fn send(&self, endpoint: &EndpointState, deadline: Instant) -> Sign;
}

/// How long an answer is waited for: one that stalls for `stall` is to be out before that has passed twice.
pub fn patience(stall: Duration) -> Duration {
    LONGEST.min(stall / 2)
}

/// Whether an endpoint may be asked: one that may be billed by the request, or by somebody else, is not.
pub fn may_be_sent(endpoint: &EndpointState) -> bool {
    matches!(endpoint.engine(), Some(Engine::Vllm | Engine::Sglang))
}

/// POST on a fresh connection.
#[derive(Debug, Default, Clone, Copy)]
pub struct HttpCanary;

#[async_trait]
impl Canary for HttpCanary {
    async fn send(&self, endpoint: &EndpointState, deadline: Instant) -> Sign {
        let body = body(endpoint);
        let question = Question {
            path: "/v1/completions",
            accept: "application/json",
            json: Some(&body),
        };
        let reply = match request::ask(endpoint, question, deadline).await {
            Ok(reply) => reply,
            Err(failure) => return sign_of(&failure),
        };
        let status = reply.head.status;
        let mut answer = Vec::new();
        let read = reply.read(LONGEST_ANSWER, |piece| answer.extend_from_slice(piece));
        let read = read.await;
        match (status, read) {
            // 501: it makes no completions, and says so.
            (400..=499 | 501, _) | (_, Err(Failure::TooLong(_))) => Sign::Alive,
            (_, Err(failure)) => sign_of(&failure),
            (200..=299, Ok(())) => Sign::Alive,
            (_, Ok(())) if engine::says_queue_is_full(status, &answer) => Sign::Full,
            (_, Ok(())) => Sign::Fails(status),
        }
    }
}

/// Asks for the model it named first: base models come before their adapters.
fn body(endpoint: &EndpointState) -> Bytes {
    let catalog = endpoint.catalog.get();
    let mut body = json!({ "prompt": "1", "max_tokens": 1, "temperature": 0 });
    if let Some(model) = catalog
        .as_deref()
        .and_then(|catalog| catalog.names().next())
    {
        body["model"] = model.into();
    }
    Bytes::from(body.to_string())
}

fn sign_of(failure: &Failure) -> Sign {
    match failure {
        Failure::Connect(ConnectError::Refused) => Sign::Refused,
        Failure::Unsendable(_)
        | Failure::Connect(
            ConnectError::Busy
            | ConnectError::Unreachable(_)
            | ConnectError::Tls(_)
            | ConnectError::Io(_),
        ) => Sign::NotSent,
        Failure::Connect(ConnectError::TimedOut) | Failure::Read(_) | Failure::TimedOut => {
            Sign::Silent
        }
        Failure::Status(status) => Sign::Fails(*status),
        Failure::TooLong(_) | Failure::Odd(_) => Sign::Alive,
    }
}

#[cfg(test)]
mod tests;
