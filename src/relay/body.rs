//! The request's body: read whole before an engine is chosen, so that it can be sent again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use pingora::protocols::http::ServerSession;

use crate::config::Limits;
use crate::openai::ApiError;

use super::incoming::Incoming;

/// Bodies up to this size are charged to the total only: one client's share is not worth a lock then.
const SMALL_BODY: usize = 64 * 1024;
/// Pieces below this size are put together.
const PIECE: usize = 16 * 1024;
/// One client may hold this part of `limits.body_memory`.
const CLIENT_SHARE: usize = 2;
/// What the client is told to wait when bodies fill their memory.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// After a refusal: how much of the rest is read, so that the answer is not lost to an RST.
pub const DRAIN_BYTES: usize = 1024 * 1024;
/// After a refusal: how long the rest is read.
pub const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A whole body, in the pieces it came in.
#[derive(Debug, Default)]
pub struct Body {
    pub pieces: Vec<Bytes>,
    pub len: usize,
    /// Small pieces, to be put together: each `Bytes` of its own costs far more than a few bytes.
    tail: BytesMut,
    charge: Option<Charge>,
}

/// Why a body could not be read.
#[derive(Debug)]
pub enum BodyError {
    Refused(ApiError),
    /// The client left in the middle.
    ClientLeft,
}

/// The memory of all bodies held, and of each client that holds much.
#[derive(Debug, Default)]
pub struct BodyMemory {
    total: AtomicUsize,
    by_client: Mutex<HashMap<IpAddr, usize>>,
}

/// Bytes charged to [`BodyMemory`]; given back when dropped.
#[derive(Debug)]
struct Charge {
    memory: Arc<BodyMemory>,
    client: Option<IpAddr>,
    bytes: usize,
    client_bytes: usize,
}

impl Body {
    /// Reads until the end of the body. `declared` is its Content-Length, already within the limit.
    pub async fn read(
        incoming: &mut Incoming,
        session: &mut ServerSession,
        declared: Option<u64>,
        limits: &Limits,
        timeout: Duration,
        memory: &Arc<BodyMemory>,
        client: Option<IpAddr>,
    ) -> Result<Body, BodyError> {
        let mut body = Body::default();
        while let Some(piece) = incoming.next(session, timeout).await? {
            if !piece.is_empty() {
                body.push(piece, declared, limits, memory, client)?;
            }
        }
        body.close_tail();
        Ok(body)
    }

    fn push(
        &mut self,
        piece: Bytes,
        declared: Option<u64>,
        limits: &Limits,
        memory: &Arc<BodyMemory>,
        client: Option<IpAddr>,
    ) -> Result<(), BodyError> {
        if self.len + piece.len() > limits.body {
            return Err(BodyError::Refused(ApiError::RequestTooLarge {
                limit: limits.body,
            }));
        }
        let charge = self
            .charge
            .get_or_insert_with(|| Charge::new(memory, client));
        if !charge.add(piece.len(), limits.body_memory) {
            return Err(BodyError::Refused(ApiError::OutOfBodyMemory {
                retry_after: RETRY_AFTER,
            }));
        }
        self.len += piece.len();
        if piece.len() >= PIECE {
            self.close_tail();
            self.pieces.push(piece);
        } else if self.pieces.is_empty()
            && self.tail.is_empty()
            && declared == Some(piece.len() as u64)
        {
            self.pieces.push(piece);
        } else {
            self.tail.extend_from_slice(&piece);
            if self.tail.len() >= PIECE {
                self.close_tail();
            }
        }
        Ok(())
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(std::mem::take(&mut self.tail).freeze());
        }
    }

    /// Gives the memory back and keeps the length.
    pub fn release(&mut self) {
        *self = Body {
            len: self.len,
            ..Body::default()
        };
    }
}

impl BodyMemory {
    /// Bytes held by all requests.
    pub fn total(&self) -> usize {
        self.total.load(Relaxed)
    }
}

impl Charge {
    fn new(memory: &Arc<BodyMemory>, client: Option<IpAddr>) -> Self {
        Self {
            memory: Arc::clone(memory),
            client,
            bytes: 0,
            client_bytes: 0,
        }
    }

    /// False when the total or the client's share would pass its limit.
    fn add(&mut self, bytes: usize, limit: usize) -> bool {
        if self.memory.total.fetch_add(bytes, Relaxed) + bytes > limit {
            self.memory.total.fetch_sub(bytes, Relaxed);
            return false;
        }
        self.bytes += bytes;
        let is_ample = self.memory.total.load(Relaxed) < limit / 4;
        if self.bytes <= SMALL_BODY && is_ample {
            return true;
        }
        let Some(client) = self.client else {
            return true;
        };
        let owed = self.bytes - self.client_bytes;
        let mut by_client = self.memory.by_client.lock();
        let held = by_client.entry(client).or_insert(0);
        if *held + owed > limit / CLIENT_SHARE {
            if *held == 0 {
                by_client.remove(&client);
            }
            return false;
        }
        *held += owed;
        self.client_bytes = self.bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.total.fetch_sub(self.bytes, Relaxed);
        if let (Some(client), true) = (self.client, self.client_bytes > 0) {
            let mut by_client = self.memory.by_client.lock();
            if let Some(held) = by_client.get_mut(&client) {
                *held -= self.client_bytes;
                if *held == 0 {
                    by_client.remove(&client);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_given_back_when_dropped() {
        let memory = Arc::new(BodyMemory::default());
        let mut charge = Charge::new(&memory, Some(IpAddr::from([10, 0, 0, 1])));
        assert!(charge.add(SMALL_BODY, 1 << 20));
        assert!(charge.add(10, 1 << 20));
        assert_eq!(memory.total(), SMALL_BODY + 10);
        drop(charge);
        assert_eq!(memory.total(), 0);
        assert!(memory.by_client.lock().is_empty());
    }

    #[test]
    fn one_client_may_hold_half_and_all_together_the_whole() {
        let memory = Arc::new(BodyMemory::default());
        let limit = 400_000;
        let mut one = Charge::new(&memory, Some(IpAddr::from([10, 0, 0, 1])));
        assert!(one.add(200_000, limit));
        assert!(!one.add(1, limit));
        let mut other = Charge::new(&memory, Some(IpAddr::from([10, 0, 0, 2])));
        assert!(other.add(199_000, limit));
        let mut third = Charge::new(&memory, Some(IpAddr::from([10, 0, 0, 3])));
        assert!(!third.add(2_000, limit));
        drop((one, other, third));
        assert_eq!(memory.total(), 0);
    }
}
