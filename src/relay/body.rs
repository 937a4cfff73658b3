//! The request's body: read whole before an engine is chosen, so that it can be sent again.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::protocols::http::ServerSession;

use crate::config::Limits;
use crate::openai::ApiError;

use super::incoming::Incoming;
use super::memory::{BodyMemory, Charge, Holder};
use super::peek::Reader;

/// Pieces below this size are put together.
const PIECE: usize = 16 * 1024;
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

impl Body {
    #[expect(
        clippy::too_many_arguments,
        reason = "what bounds a body comes from many places"
    )]
    /// Reads until the end of the body, `reader` with it. `declared` is its Content-Length, already within the limit.
    pub async fn read(
        incoming: &mut Incoming,
        session: &mut ServerSession,
        declared: Option<u64>,
        limits: &Limits,
        timeout: Duration,
        memory: &Arc<BodyMemory>,
        holder: Option<&Holder>,
        reader: &mut Reader,
    ) -> Result<Body, BodyError> {
        let mut body = Body::default();
        while let Some(piece) = incoming.next(session, timeout).await? {
            if !piece.is_empty() {
                reader.feed(&piece);
                body.push(piece, declared, limits, memory, holder)?;
                // What is still to come would not mend it.
                if let Some(refusal) = reader.refusal()
                    && incoming.is_unread(session)
                {
                    return Err(BodyError::Refused(refusal));
                }
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
        holder: Option<&Holder>,
    ) -> Result<(), BodyError> {
        if self.len + piece.len() > limits.body {
            return Err(BodyError::Refused(ApiError::RequestTooLarge {
                limit: limits.body,
            }));
        }
        let charge = self
            .charge
            .get_or_insert_with(|| Charge::new(memory, holder.cloned()));
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
