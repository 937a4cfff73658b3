//! Where the bytes of a request's body come from.
//!
//! Pingora's session reads them into a buffer of 64 KiB that lives as long as the request, and copies each
//! piece out of it. So a body of known length over plain HTTP/1 that has not come with its head is read past
//! the session: the session is told that the body is as long as what it has of it already, and the rest is
//! taken from the socket, into memory that goes on to the engine as it is.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, header};
use pingora::protocols::http::ServerSession;
use pingora::{Error, ErrorType};

use crate::listener::{ClientIo, Connection};

use super::body::BodyError;
use crate::openai::ApiError;

/// Least and most memory asked for at once; between them twice what came the last time, so that a length that
/// is only claimed costs little.
const FIRST_PIECE: usize = 64 * 1024;
const LAST_PIECE: usize = 256 * 1024;

/// The body that follows a head, and how much of it was taken.
#[derive(Debug, Default)]
pub struct Incoming {
    /// The whole length, when the session gives only the beginning of it.
    past_session: Option<usize>,
    through_session: usize,
    got: usize,
    /// Of the last piece.
    last: usize,
}

impl Incoming {
    /// `declared` is the body's Content-Length. Called before anything else asks the session for the body.
    pub fn new(
        session: &mut ServerSession,
        connection: Option<&Connection>,
        declared: Option<usize>,
    ) -> Self {
        let past_session = match (declared, connection) {
            (Some(declared), Some(connection)) if socket_of(session).is_some() => {
                shorten(session, connection.ahead(), declared)
            }
            _ => None,
        };
        Self {
            past_session,
            ..Self::default()
        }
    }

    /// The next piece; `None` at the end. `timeout` is between two reads.
    pub async fn next(
        &mut self,
        session: &mut ServerSession,
        timeout: Duration,
    ) -> Result<Option<Bytes>, BodyError> {
        let piece = match self.past_session {
            Some(length) if session.is_body_done() => {
                let left = length.saturating_sub(self.got);
                if left == 0 {
                    return Ok(None);
                }
                let wanted = left.min((2 * self.last).clamp(FIRST_PIECE, LAST_PIECE));
                Some(read_past(session, wanted, timeout).await?)
            }
            _ => {
                let piece = through_session(session, timeout).await?;
                let length = piece.as_ref().map_or(0, Bytes::len);
                self.through_session += length;
                piece
            }
        };
        self.last = piece.as_ref().map_or(0, Bytes::len);
        self.got += self.last;
        Ok(piece)
    }

    /// Bytes of the body that the session gave.
    pub fn through_session(&self) -> usize {
        self.through_session
    }

    /// Whether some of the body was not taken.
    pub fn is_unread(&self, session: &mut ServerSession) -> bool {
        !session.is_body_done() || self.past_session.is_some_and(|length| length > self.got)
    }
}

/// Tells the session that the body is as long as what it may hold of it, which is at most `ahead`. Returns
/// the whole length if there is more.
fn shorten(session: &mut ServerSession, ahead: usize, declared: usize) -> Option<usize> {
    if declared <= ahead {
        return None;
    }
    let request = session.req_header_mut();
    if request
        .headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .count()
        != 1
    {
        return None;
    }
    let told = request.headers.get(header::CONTENT_LENGTH)?.clone();
    request
        .insert_header(header::CONTENT_LENGTH, HeaderValue::from(ahead))
        .ok()?;
    // From here on the session goes by that length.
    session.is_body_done();
    session
        .req_header_mut()
        .insert_header(header::CONTENT_LENGTH, told)
        .ok()?;
    Some(declared)
}

async fn through_session(
    session: &mut ServerSession,
    timeout: Duration,
) -> Result<Option<Bytes>, BodyError> {
    // h1 has a timer of its own, made only when a read blocks; h2 has none.
    let is_http2 = session.is_http2();
    session.set_read_timeout(Some(timeout));
    let read = session.read_request_body();
    let piece = if is_http2 {
        tokio::time::timeout(timeout, read)
            .await
            .unwrap_or_else(|_elapsed| Err(Error::new(ErrorType::ReadTimedout)))
    } else {
        read.await
    };
    piece.map_err(|e| classify(e.etype()))
}

async fn read_past(
    session: &ServerSession,
    wanted: usize,
    timeout: Duration,
) -> Result<Bytes, BodyError> {
    let socket = socket_of(session).ok_or(BodyError::ClientLeft)?;
    // A client that sends fast must not keep the thread from others.
    tokio::task::consume_budget().await;
    let mut piece = BytesMut::with_capacity(wanted);
    loop {
        match socket.try_read_past(&mut (&mut piece).limit(wanted)) {
            Ok(0) => return Err(BodyError::ClientLeft),
            // Memory that was asked for and not filled would be held, and charged to nobody.
            Ok(filled) if filled < wanted / 2 => return Ok(Bytes::copy_from_slice(&piece)),
            Ok(_) => return Ok(piece.freeze()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(BodyError::ClientLeft),
        }
        match tokio::time::timeout(timeout, socket.readable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(BodyError::ClientLeft),
            Err(_elapsed) => return Err(BodyError::Refused(ApiError::RequestTimeout)),
        }
    }
}

/// The client's socket, where nothing stands between it and HTTP/1.
pub fn socket_of(session: &ServerSession) -> Option<&ClientIo> {
    match session {
        ServerSession::H1(session) => (**session.stream()).as_any().downcast_ref(),
        _ => None,
    }
}

fn classify(error: &ErrorType) -> BodyError {
    match error {
        ErrorType::ReadTimedout => BodyError::Refused(ApiError::RequestTimeout),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::H2Error => {
            BodyError::ClientLeft
        }
        _ => BodyError::Refused(ApiError::invalid(
            "the request body is not well framed; check its chunk sizes",
        )),
    }
}
