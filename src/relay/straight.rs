//! The middle of an answer straight from the engine's socket to the client's.
//!
//! A token costs one read and one send, and little else: it is read, looked at, framed and sent within one
//! poll and without a copy. That is possible where nothing but chunks stands between the answer and the
//! socket: HTTP/1.1 without TLS. All that is not one whole event after the other goes through the session.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use pingora::{Error, ErrorType};
use pingora_proxy::Session;
use tokio::time::{Instant, Sleep, sleep};

use crate::admission::Permit;
use crate::listener::{Bell, ClientIo};
use crate::openai::continuation::Alike;
use crate::openai::sse::Seen;
use crate::pool::{EndpointState, Fault, Lease};
use crate::telemetry::metrics::Intervals;
use crate::upstream::lent::FRONT;
use crate::upstream::{Came, Connection, Lent, ReadError};

use super::events::Events;
use super::incoming;
use super::respond::{self, Framing};
use super::suspect::DYING;

/// A call for the stream to leave its endpoint.
type Recall<'a> = Pin<Box<dyn Future<Output = Fault> + Send + 'a>>;

/// Ready with the reason when the stream is called away.
async fn called(lease: &Lease) -> Fault {
    let why = lease.recalled().await;
    if why == Fault::ConnectRefused && lease.state.in_flight() == 1 {
        // The engine may be dying of the stream, whose connection is the next to go then: that is the reason.
        Box::pin(sleep(DYING)).await;
    }
    why
}

/// How long an engine's silence is borne, and until when if it goes on.
#[derive(Debug, Clone, Copy)]
pub struct Borne {
    timeout: Duration,
    deadline: Instant,
}

impl Borne {
    pub fn new(timeout: Duration, now: Instant) -> Self {
        Self {
            timeout,
            deadline: now + timeout,
        }
    }

    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

/// How long an engine may be silent, and whether it is worth waiting for. The timer is armed once and looked at
/// again when it fires, in place of a new one for every piece.
pub struct Patience<'a> {
    borne: &'a mut Borne,
    alarm: Pin<&'a mut Sleep>,
    lease: &'a Lease,
    /// Its endpoint's, at hand for every piece.
    engine: &'a EndpointState,
    /// The next one.
    recall: Recall<'a>,
    /// Between the content events so far.
    intervals: Intervals,
    last_content: Option<Instant>,
    meter: Option<Meter<'a>>,
}

/// What a stream costs its key while it goes on: by its events, each of which has a token or more. Its charge on
/// entry may be far less than it comes to.
pub struct Meter<'a> {
    permit: &'a mut Permit,
    tokens: u64,
    /// When the key is told again.
    next: u64,
}

impl<'a> Meter<'a> {
    /// Tokens between two looks at the key's account.
    const STEP: u64 = 256;

    /// `None` where the key's tokens are not limited. `prompt`: what the prompt is taken to have cost.
    pub fn new(permit: Option<&'a mut Permit>, prompt: u64) -> Option<Self> {
        let permit = permit.filter(|permit| permit.is_charged())?;
        Some(Self {
            permit,
            tokens: prompt,
            next: prompt + Self::STEP,
        })
    }

    fn count(&mut self, content_events: u32, now: Instant) {
        self.tokens += u64::from(content_events);
        if self.tokens >= self.next {
            self.next = self.tokens + Self::STEP;
            self.permit.note(self.tokens, now);
        }
    }
}

impl<'a> Patience<'a> {
    /// `alarm` is to fire at the deadline of `borne`. `so_far`: the times between the content events that came
    /// before, and when the last one did.
    pub fn new(
        borne: &'a mut Borne,
        alarm: Pin<&'a mut Sleep>,
        lease: &'a Lease,
        (intervals, last_content): (Intervals, Option<Instant>),
        meter: Option<Meter<'a>>,
    ) -> Self {
        Self {
            borne,
            alarm,
            lease,
            engine: &lease.endpoint().state,
            recall: Box::pin(called(lease)),
            intervals,
            last_content,
            meter,
        }
    }

    pub fn timeout(&self) -> Duration {
        self.borne.timeout
    }

    /// The times between the content events that came, and when the last one did.
    pub fn into_intervals(self) -> (Intervals, Option<Instant>) {
        (self.intervals, self.last_content)
    }

    /// The engine went on, with so many content events.
    pub fn progressed(&mut self, content_events: u32) {
        let now = Instant::now();
        self.borne.deadline = now + self.borne.timeout;
        self.engine.progressed(now);
        if let Some(meter) = &mut self.meter {
            meter.count(content_events, now);
        }
        if content_events > 0
            && let Some(last) = self.last_content.replace(now)
        {
            let gap = now.saturating_duration_since(last);
            self.intervals.note(gap, content_events);
        }
    }

    /// From now on silence is borne for this long at most, counted from now.
    pub fn shorten(&mut self, timeout: Duration) {
        let Borne {
            timeout: so_far,
            deadline,
        } = &mut *self.borne;
        *so_far = timeout.min(*so_far);
        *deadline = (Instant::now() + *so_far).min(*deadline);
        self.alarm.as_mut().reset(*deadline);
    }

    /// Ready when it has not gone on for too long, or has been recalled.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Lost> {
        if let Poll::Ready(why) = self.recall.as_mut().poll(cx) {
            // The stream may stay all the same, and then hears the next one as well.
            self.recall = Box::pin(called(self.lease));
            return Poll::Ready(Lost::Recalled(why));
        }
        loop {
            ready!(self.alarm.as_mut().poll(cx));
            if Instant::now() >= self.borne.deadline {
                return Poll::Ready(Lost::Silent);
            }
            self.alarm.as_mut().reset(self.borne.deadline);
        }
    }
}

/// Why an engine is not waited for any longer.
#[derive(Debug, Clone, Copy)]
pub enum Lost {
    /// It was silent for too long.
    Silent,
    /// Somebody knows that it will not go on.
    Recalled(Fault),
}

/// How many content events a piece brought, if it is progress: for a stream of events only data is, because
/// engines send comments while they hang.
pub fn progress(seen: &Seen) -> Option<u32> {
    (seen.data_events > 0 || seen.overflow).then_some(seen.content_events)
}

/// What the session is needed for.
pub enum Next {
    /// The piece is to be written. What `Seen` is there for was read already.
    Piece(Bytes, Option<Box<Seen>>),
    /// The engine's body has ended.
    End,
    Broken(ReadError),
    Lost(Lost),
    /// The client has sent something or has left.
    Heard,
    /// The client cannot be written to.
    Left(Box<Error>),
}

/// The client's socket, if an answer with this framing can be sent past the session.
pub fn socket(session: &Session, framing: Framing) -> Option<&ClientIo> {
    let chunked = framing == Framing::Open && session.req_header().version == Version::HTTP_11;
    incoming::socket_of(session.as_downstream()).filter(|_| chunked)
}

/// Passes events on for as long as nothing else happens.
pub async fn pass(
    socket: &ClientIo,
    connection: &mut Connection,
    mut events: Option<&mut Events>,
    patience: &mut Patience<'_>,
    bell: &mut Bell,
    bytes_out: &mut u64,
    send_timeout: Duration,
) -> Next {
    // The session may have polled what the bell is for with the task's own waker.
    bell.ring();
    loop {
        let stop = poll_fn(|cx| {
            let mut stop = None;
            // Polled until it is pending, so that the engine's socket wakes the task. The bell does so for
            // all else, and is looked at afterwards: what rings it now is seen now or in the next poll.
            loop {
                let came = connection.poll_lend(cx, |lent, is_last| {
                    let sent = send_one(socket, lent, is_last, events.as_deref_mut(), &mut stop);
                    *bytes_out += sent.bytes as u64;
                    sent.progress
                });
                let Poll::Ready(came) = came else { break };
                match came {
                    Ok(Came::Taken(progress)) => {
                        if let Some(content_events) = progress {
                            patience.progressed(content_events);
                        }
                    }
                    Ok(Came::Kept(piece)) => stop = Some(Stop::Next(Next::Piece(piece, None))),
                    Ok(Came::End) => stop = Some(Stop::Next(Next::End)),
                    Err(e) => stop = Some(Stop::Next(Next::Broken(e))),
                }
                if let Some(stop) = stop {
                    return Poll::Ready(stop);
                }
            }
            let Some(mut cx) = bell.has_rung(cx) else {
                return Poll::Pending;
            };
            if socket.poll_heard(&mut cx).is_ready() {
                return Poll::Ready(Stop::Next(Next::Heard));
            }
            let lost = patience.poll_ended(&mut cx);
            lost.map(|lost| Stop::Next(Next::Lost(lost)))
        })
        .await;
        match stop {
            Stop::Next(next) => return next,
            Stop::Full(rest) => {
                let sent = async { send(socket, &rest).await.map_err(left) };
                if let Err(e) = respond::in_time(send_timeout, sent).await {
                    return Next::Left(e);
                }
            }
        }
    }
}

enum Stop {
    Next(Next),
    /// The client's socket is full; this is to be sent first.
    Full(Bytes),
}

/// What of a piece is settled.
#[derive(Default)]
struct Sent {
    /// Of payload.
    bytes: usize,
    /// Content events, if the engine went on.
    progress: Option<u32>,
}

impl Sent {
    fn content(bytes: usize, events: u32) -> Self {
        Self {
            bytes,
            progress: Some(events),
        }
    }
}

/// Sends one piece, or says in `stop` what is to be done with it.
fn send_one(
    socket: &ClientIo,
    lent: Lent<'_>,
    is_last: bool,
    mut events: Option<&mut Events>,
    stop: &mut Option<Stop>,
) -> Sent {
    if !is_last
        && !socket.has_gathered()
        && let Some(events) = events.as_deref_mut()
    {
        match alike(&lent, events) {
            Alike::No => {}
            Alike::AsTheyAre(content) => {
                let bytes = lent.payload().len();
                send_chunk(socket, lent.into_chunk(), stop);
                return Sent::content(bytes, content);
            }
            Alike::Rewritten(content) => {
                let bytes = REWRITTEN.with_borrow_mut(|room| send_rewritten(socket, room, stop));
                return Sent::content(bytes, content);
            }
        }
    }
    let bytes = lent.payload().len();
    let mut progress = Some(0);
    // The last bytes leave together with the end of the answer, which the session writes.
    let mut for_session = is_last || socket.has_gathered();
    let mut seen = None;
    if let Some(events) = events {
        let read = events.read(lent.payload());
        progress = self::progress(&read);
        for_session |= !events.is_plain(&read);
        if for_session {
            seen = Some(read);
        }
    }
    if for_session {
        let piece = Bytes::copy_from_slice(lent.payload());
        let next = Next::Piece(piece, seen.map(Box::new));
        *stop = Some(Stop::Next(next));
        return Sent::default();
    }
    send_chunk(socket, lent.into_chunk(), stop);
    Sent { bytes, progress }
}

thread_local! {
    /// Room for what is sent in the place of what came.
    static REWRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Whether the piece is one that the client gets without its being read.
fn alike(lent: &Lent<'_>, events: &mut Events) -> Alike {
    if events.continuable().is_none() {
        return Alike::No;
    }
    REWRITTEN.with_borrow_mut(|room| {
        room.clear();
        room.resize(FRONT, 0);
        events.take_alike(lent.payload(), room)
    })
}

/// Sends what was written behind the front room as one chunk; gives the bytes of it.
fn send_rewritten(socket: &ClientIo, room: &mut Vec<u8>, stop: &mut Option<Stop>) -> usize {
    let end = room.len();
    if end > FRONT {
        room.extend_from_slice(b"\r\n");
        send_chunk(socket, Lent::new(room, FRONT..end).into_chunk(), stop);
    }
    end - FRONT
}

fn send_chunk(socket: &ClientIo, chunk: &[u8], stop: &mut Option<Stop>) {
    let taken = match socket.try_send_past(chunk) {
        Ok(taken) => taken,
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
        Err(e) => {
            *stop = Some(Stop::Next(Next::Left(left(e))));
            return;
        }
    };
    if taken < chunk.len() {
        *stop = Some(Stop::Full(Bytes::copy_from_slice(&chunk[taken..])));
    }
}

/// Sends what a socket that was full has not taken.
async fn send(socket: &ClientIo, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        poll_fn(|cx| socket.poll_sendable(cx)).await?;
        match socket.try_send_past(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => rest = &rest[sent..],
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn left(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::WriteError, "while writing body", error)
}
