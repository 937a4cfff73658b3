//! The decoder on a socket: one connection to an engine, one exchange at a time.
//!
//! A connection owns no buffer. A read goes into a scratch that all connections of a thread share,
//! within one synchronous poll; what is payload is copied out of it once.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::connect::{Transport, connect};
use super::decoder::{Decoder, Event, HeadLimits, RequestKind};
use super::error::{ConnectError, ReadError};
use super::idle_pool;
use super::lent::{BACK, FRONT, Lent};
use super::response_head::ResponseHead;
use super::target::Target;
use super::tunnel::Tunnel;

/// Bytes of one read, and so the largest piece of a body.
const SCRATCH: usize = 64 * 1024;
/// Pieces of one vectored write.
const PIECES: usize = 16;

thread_local! {
    static READ_INTO: RefCell<Vec<u8>> = RefCell::new(vec![0; FRONT + SCRATCH + BACK]);
}

/// A connection to an endpoint.
///
/// Every future here can be dropped at any point. A dropped read loses nothing and can be begun
/// again; a dropped `send` leaves a connection that is good for reading an early answer only. Waits
/// have no limit of their own.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    decoder: Decoder,
    phase: Phase,
    reused: bool,
    received_any: bool,
    /// The worker whose runtime polls it.
    place: usize,
    /// Read, but not asked for yet.
    head: Option<ResponseHead>,
    /// Payload read, but not asked for yet.
    payload: Bytes,
}

/// The next piece of a body; see [`Connection::poll_lend`].
#[derive(Debug)]
pub enum Came<T> {
    /// Lent, and taken.
    Taken(T),
    /// It was here already.
    Kept(Bytes),
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Begun, and not known to have ended.
    Sending,
    Sent,
}

impl Connection {
    /// Opens a connection. TCP has NODELAY and keepalive set; a TLS handshake counts against
    /// `timeout`.
    pub async fn connect(target: &Target, timeout: Duration) -> Result<Connection, ConnectError> {
        Ok(Connection {
            transport: connect(target, timeout).await?,
            decoder: Decoder::new(RequestKind::default(), HeadLimits::default()),
            phase: Phase::Idle,
            reused: false,
            received_any: false,
            place: idle_pool::place(),
            head: None,
            payload: Bytes::new(),
        })
    }

    /// Whether another exchange took place before this one. Such a connection may have been closed
    /// by the peer at the moment it was picked: see [`received_any`](Self::received_any).
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// The worker whose runtime polls it.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// Sends a request, in one vectored write if the socket takes it.
    ///
    /// A failure does not mean that there is no answer. An engine may refuse a request before it has
    /// read all of it (401, 413, 429); so may one that does not read on at all, which is noticed
    /// while the write blocks. Read the head after a failure: it tells.
    pub async fn send(&mut self, head: &[u8], body: &[Bytes]) -> io::Result<()> {
        let sent = self.send_within(head, body, Duration::MAX).await;
        sent.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }

    /// As [`send`](Self::send), for as long as the peer takes something within each `patience`; `None` when
    /// it no longer does.
    pub async fn send_within(
        &mut self,
        head: &[u8],
        body: &[Bytes],
        patience: Duration,
    ) -> Option<io::Result<()>> {
        if self.phase != Phase::Idle {
            return Some(Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the connection is in an exchange",
            )));
        }
        self.phase = Phase::Sending;
        let mut unsent = Unsent {
            head,
            body,
            piece: 0,
            offset: 0,
        };
        // Nothing is armed unless the write has to wait.
        let mut alarm = pin!(sleep(patience));
        let mut reached = (0, 0);
        let sent = poll_fn(|cx| {
            let sent = match unsent.poll_send(cx, &mut self.transport) {
                Poll::Pending => self.poll_early_answer(cx).map(Err),
                sent => sent,
            };
            if sent.is_ready() {
                return sent.map(Some);
            }
            let place = (unsent.piece, unsent.offset);
            if std::mem::replace(&mut reached, place) != place {
                alarm.set(sleep(patience));
            }
            alarm.as_mut().poll(cx).map(|()| None)
        })
        .await?;
        if sent.is_ok() {
            self.phase = Phase::Sent;
        }
        Some(sent)
    }

    /// Says what kind of request this exchange is. To be called before [`send`](Self::send), if at
    /// all; the default is [`RequestKind::Other`].
    pub fn expect(&mut self, request: RequestKind) {
        self.decoder.set_request(request);
    }

    /// Waits for the final head. Up to eight interim ones (1xx) are skipped; 101 is one that is refused, but as
    /// the answer to a [`RequestKind::WebSocket`], when it is the final one.
    pub async fn read_head(&mut self, limits: HeadLimits) -> Result<ResponseHead, ReadError> {
        self.decoder.set_limits(limits);
        poll_fn(|cx| {
            loop {
                if let Some(head) = self.head.take() {
                    return Poll::Ready(Ok(head));
                }
                if let Some(error) = self.decoder.failure() {
                    return Poll::Ready(Err(error.into()));
                }
                ready!(self.poll_receive(cx))?;
            }
        })
        .await
    }

    /// Waits for the next piece of the body: all payload of one read, at most 64 KiB, chunk framing
    /// taken out. `None` at the end.
    pub async fn read_body(&mut self) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|cx| {
            loop {
                if let Some(piece) = self.buffered_body()? {
                    return Poll::Ready(Ok(Some(piece)));
                }
                if self.decoder.is_done() {
                    return Poll::Ready(Ok(None));
                }
                ready!(self.poll_receive(cx))?;
            }
        })
        .await
    }

    /// Waits until more of the body has come, which is kept for the next read, or until none will: whether some has.
    pub async fn readable(&mut self) -> bool {
        poll_fn(|cx| {
            while self.payload.is_empty() {
                let is_over = self.decoder.is_done() || self.decoder.failure().is_some();
                if is_over || ready!(self.poll_receive(cx)).is_err() {
                    return Poll::Ready(false);
                }
            }
            Poll::Ready(true)
        })
        .await
    }

    /// As [`read_body`](Self::read_body), in one poll and without a copy: `take` is lent what was read, and told
    /// whether [`body_is_done`](Self::body_is_done) with it. It is not called when a piece is here already.
    pub fn poll_lend<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Lent<'_>, bool) -> T,
    ) -> Poll<Result<Came<T>, ReadError>> {
        loop {
            if let Some(piece) = self.buffered_body()? {
                return Poll::Ready(Ok(Came::Kept(piece)));
            }
            if self.decoder.is_done() {
                return Poll::Ready(Ok(Came::End));
            }
            let taken = ready!(self.poll_read_with(cx, |connection, lent| {
                take(lent, connection.body_is_done())
            }))?;
            if let Some(taken) = taken {
                return Poll::Ready(Ok(Came::Taken(taken)));
            }
        }
    }

    /// Payload that is here already because it came in the same read as the head; no syscall. `None`
    /// does not mean the end.
    pub fn buffered_body(&mut self) -> Result<Option<Bytes>, ReadError> {
        if !self.payload.is_empty() {
            return Ok(Some(std::mem::take(&mut self.payload)));
        }
        match self.decoder.failure() {
            Some(error) => Err(error.into()),
            None => Ok(None),
        }
    }

    /// The whole answer has been handed out.
    pub fn body_is_done(&self) -> bool {
        self.decoder.is_done() && self.payload.is_empty() && self.head.is_none()
    }

    /// The Content-Length of the answer, once its head was read; also where no body follows it.
    pub fn content_length(&self) -> Option<u64> {
        self.decoder.content_length()
    }

    /// Whether any byte came back in this exchange. A *reused* connection that failed without one
    /// was closed while idle, and the request may be tried on a fresh one.
    pub fn received_any(&self) -> bool {
        self.received_any
    }

    /// Whether another exchange may follow: the request was sent whole, the answer was complete and
    /// delimited by itself, the peer keeps the connection and sent nothing after the end.
    pub fn reusable(&self) -> bool {
        self.phase == Phase::Sent && self.body_is_done() && self.decoder.is_reusable()
    }

    /// Makes a reusable connection ready for the next exchange.
    pub(super) fn renew(&mut self) {
        self.decoder = Decoder::new(RequestKind::default(), HeadLimits::default());
        self.phase = Phase::Idle;
        self.reused = true;
        self.received_any = false;
    }

    /// The bare transport, once the answer that allows it has been read to what is here of it.
    pub fn into_tunnel(self) -> Tunnel {
        Tunnel::new(self.transport)
    }

    /// Waits, between two exchanges, until the peer closes or speaks out of turn: there can be no further one then.
    pub async fn ended(&mut self) {
        poll_fn(|cx| self.transport.poll_read(cx, &mut [0]).map(|_| ())).await;
    }

    /// Whether the peer has neither closed nor spoken out of turn.
    pub(super) fn is_silent(&mut self) -> bool {
        self.transport.is_silent()
    }

    /// Reads once, waiting if need be, and decodes what came. The decoder remembers its failures, so
    /// they are reported after the payload that came before them.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        self.poll_read_with(cx, |connection, lent| {
            connection.payload = Bytes::copy_from_slice(lent.payload());
        })
        .map_ok(|_| ())
    }

    /// Reads once; what came is decoded, and its payload, if any, given to `take`.
    fn poll_read_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Self, Lent<'_>) -> T,
    ) -> Poll<Result<Option<T>, ReadError>> {
        READ_INTO.with_borrow_mut(|buffer| {
            let read = ready!(
                self.transport
                    .poll_read(cx, &mut buffer[FRONT..FRONT + SCRATCH])
            )?;
            if read == 0 {
                let ended = self.decoder.end_of_input().map(|()| None);
                return Poll::Ready(ended.map_err(ReadError::from));
            }
            self.received_any = true;
            let payload = self.absorb(&mut buffer[FRONT..FRONT + read]);
            if payload.is_empty() {
                return Poll::Ready(Ok(None));
            }
            let payload = FRONT + payload.start..FRONT + payload.end;
            Poll::Ready(Ok(Some(take(self, Lent::new(buffer, payload)))))
        })
    }

    /// Decodes what was read. Returns where the payload is, its parts moved together.
    fn absorb(&mut self, bytes: &mut [u8]) -> Range<usize> {
        let (mut at, mut payload) = (0, 0..0);
        while let Ok((used, event)) = self.decoder.decode(&bytes[at..]) {
            match event {
                Event::Head(head) => self.head = Some(head),
                Event::Data(range) => join(bytes, &mut payload, at + range.start..at + range.end),
                Event::More | Event::End => break,
            }
            at += used;
        }
        payload
    }

    /// Ready with the reason to stop sending once the peer has answered or gone. Interim answers
    /// are no reason.
    fn poll_early_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            match ready!(self.poll_receive(cx)) {
                Ok(()) if self.head.is_none() && self.decoder.failure().is_none() => {}
                Ok(()) => {
                    let reason = "the peer answered before it had read the request";
                    return Poll::Ready(io::Error::new(io::ErrorKind::BrokenPipe, reason));
                }
                Err(ReadError::Io(error)) => return Poll::Ready(error),
                Err(error) => {
                    return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionReset, error));
                }
            }
        }
    }
}

/// Appends `more` to `payload`, moving it down over the framing between the two.
fn join(bytes: &mut [u8], payload: &mut Range<usize>, more: Range<usize>) {
    if payload.start == payload.end {
        *payload = more;
    } else {
        let len = more.len();
        if more.start != payload.end {
            bytes.copy_within(more, payload.end);
        }
        payload.end += len;
    }
}

/// What is left to send of a head and the pieces of a body.
struct Unsent<'a> {
    head: &'a [u8],
    body: &'a [Bytes],
    /// 0 is the head, n the n-th piece of the body.
    piece: usize,
    /// Bytes of that piece that are sent.
    offset: usize,
}

impl<'a> Unsent<'a> {
    /// Ready when everything, flush included, has been sent.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        transport: &mut Transport,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let filled = self.fill(&mut pieces);
            if filled == 0 {
                return transport.poll_flush(cx);
            }
            match ready!(transport.poll_write_vectored(cx, &pieces[..filled]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.advance(sent),
            }
        }
    }

    fn fill(&self, into: &mut [IoSlice<'a>; PIECES]) -> usize {
        let mut filled = 0;
        let mut offset = self.offset;
        for index in self.piece..=self.body.len() {
            let rest = &self.at(index)[offset..];
            offset = 0;
            if rest.is_empty() {
                continue;
            }
            into[filled] = IoSlice::new(rest);
            filled += 1;
            if filled == PIECES {
                break;
            }
        }
        filled
    }

    fn advance(&mut self, mut sent: usize) {
        while sent > 0 && self.piece <= self.body.len() {
            let rest = self.at(self.piece).len() - self.offset;
            if sent < rest {
                self.offset += sent;
                return;
            }
            sent -= rest;
            self.piece += 1;
            self.offset = 0;
        }
    }

    fn at(&self, index: usize) -> &'a [u8] {
        if index == 0 {
            self.head
        } else {
            &self.body[index - 1]
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
