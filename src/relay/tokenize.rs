//! The token ids of a text, as an engine has them.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;

use crate::pool::Endpoint;
use crate::upstream::{Connection, HeadLimits, RequestHead};

/// An engine that works answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest answer, in bytes; the text is that of a few tokens.
const LONGEST: usize = 64 * 1024;

#[derive(Deserialize)]
struct Tokens {
    tokens: Vec<u32>,
}

/// Asks vLLM's `/tokenize`. `None` where it does not answer in time, or not so.
pub async fn tokenize(endpoint: &Endpoint, model: Option<&str>, text: &str) -> Option<Vec<u32>> {
    let mut body = json!({ "prompt": text, "add_special_tokens": false });
    if let Some(model) = model {
        body["model"] = model.into();
    }
    let body = Bytes::from(body.to_string());
    let mut head = RequestHead::start(Vec::new(), "POST", b"/tokenize").ok()?;
    head.field("Host", &endpoint.state.target.authority).ok()?;
    head.field("User-Agent", "sluicegate").ok()?;
    head.field("Content-Type", "application/json").ok()?;
    head.field("Connection", "close").ok()?;
    if let Some(key) = &endpoint.api_key {
        let bearer = format!("Bearer {}", key.reveal());
        head.field("Authorization", bearer).ok()?;
    }
    let head = head.finish(Some(body.len() as u64));
    timeout(PATIENCE, ask(endpoint, &head, body)).await.ok()?
}

async fn ask(endpoint: &Endpoint, head: &[u8], body: Bytes) -> Option<Vec<u32>> {
    let target = &endpoint.state.target;
    let mut connection = Connection::connect(target, PATIENCE).await.ok()?;
    connection.send(head, &[body]).await.ok()?;
    let head = connection.read_head(HeadLimits::default()).await.ok()?;
    let mut answer = Vec::new();
    while let Some(piece) = connection.read_body().await.ok()? {
        if answer.len() + piece.len() > LONGEST {
            return None;
        }
        answer.extend_from_slice(&piece);
    }
    let tokens: Tokens = serde_json::from_slice(&answer).ok()?;
    (head.status == 200 && !tokens.tokens.is_empty()).then_some(tokens.tokens)
}
