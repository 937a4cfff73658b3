//! What the tests stand on: a gateway in this process, clients and engines on raw sockets.

mod certificate;
mod client;
mod cutter;
mod files;
mod gateway;
mod http2;
mod puppet;
mod request;
mod tls_node;
mod websocket;

use std::future::Future;
use std::time::Duration;

pub use certificate::Certificate;
pub use client::{Answer, Client, End, ask};
pub use cutter::{CutBy, Cutter, raw_answer};
pub use files::TempDir;
pub use gateway::{Gateway, in_turn, pool};
pub use http2::{H2, H2End, answer as h2_answer, h2_post};
pub use puppet::{Exchange, Puppet, Then, sse_head};
pub use request::{Request, chat, chat_body, get, post};
pub use tls_node::TlsNode;
pub use websocket::{Opcode, WebSocket, handshake};

pub use loadtest::engine::{
    Cut, Death, Engine, EngineError, Fault, Flavour, Health, QueueFull, Recorded, Script,
};

/// Longer than anything here takes, short enough to see a hang for what it is.
const LIMIT: Duration = Duration::from_secs(10);

/// Waits for `future`, but not for ever.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what} took longer than {LIMIT:?}"),
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// An engine that answers at once.
pub async fn engine() -> Engine {
    engine_with(Script::default()).await
}

pub async fn engine_with(script: Script) -> Engine {
    Engine::start(script).await.expect("an engine starts")
}

/// So many bytes that no framing could be mistaken in, the same for the same `seed`.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; length];
    rng.fill(&mut bytes);
    bytes
}

/// A JSON object of exactly so many bytes, at least 2, that no engine can make sense of.
pub fn padded(length: usize) -> Vec<u8> {
    let mut bytes = vec![b' '; length];
    bytes[0] = b'{';
    bytes[length - 1] = b'}';
    bytes
}

/// The same of letters in a string, so that no framing could be mistaken in it, the same for the same
/// `seed`; at least 8 bytes.
pub fn letters(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = b"{\"x\":\"".to_vec();
    let room = length - bytes.len() - 2;
    bytes.extend(noise(room, seed).iter().map(|byte| b'A' + byte % 26));
    bytes.extend(b"\"}");
    bytes
}
