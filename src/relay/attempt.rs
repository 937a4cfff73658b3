//! One try of a request on one endpoint: send, wait, and hold what comes until it may be shown.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::Limits;
use crate::openai::sse::{ErrorEvent, gave_up};
use crate::openai::{BodyKind, Call, Dialect, Rename};
use crate::pool::{Fault, Lease};
use crate::telemetry::metrics::EndpointMetrics;
use crate::upstream::{ConnectError, Connection, HeadLimits, ReadError, RequestKind, ResponseHead};

use super::events::{Events, Failed, Passed, UsageAsked};
use super::memory::{BodyMemory, Charge, Holder};
use super::suspect::DYING;

/// Most fields of an engine's head; hyper and nginx allow about as many.
const HEAD_FIELDS: usize = 256;

/// What a try needs to know of the request.
#[derive(Clone, Copy)]
pub struct Exchange<'a> {
    pub call: Call,
    pub kind: RequestKind,
    pub body: &'a [Bytes],
    pub limits: &'a Limits,
    pub memory: &'a Arc<BodyMemory>,
    /// Whose memory a held answer takes.
    pub holder: Option<&'a Holder>,
    /// Whose wish the count of tokens in a stream is.
    pub usage: UsageAsked,
    /// Gives the model the name that the client used.
    pub rename: Option<&'a Rename>,
    /// A stream may go on elsewhere, so that an error of its engine is not its last word.
    pub may_go_on: bool,
    /// How many choices a stream is to have.
    pub choices: u64,
    /// The one endpoint that can answer; `None`: any.
    pub only: Option<usize>,
}

/// An answer that has begun well: the next thing is to show it.
pub struct Answer {
    pub connection: Connection,
    pub head: ResponseHead,
    /// Body bytes that came with it, or while it was held.
    pub held: Vec<Bytes>,
    /// For `held`.
    pub charge: Charge,
    /// Every byte of the body is in `held`.
    pub is_whole: bool,
    /// Present for a stream of events.
    pub events: Option<Events>,
    /// The engine's own end of a stream that failed behind its first content.
    pub failed: Option<Failed>,
    /// When the first content event was seen.
    pub first_content: Option<Instant>,
    pub connect: Option<Duration>,
    pub sent_at: Instant,
    /// The model has another name in it than the engine gave it.
    pub is_renamed: bool,
}

impl Answer {
    /// From here on WebSocket is spoken.
    pub fn is_switched(&self) -> bool {
        self.head.status == 101
    }
}

/// Why a try came to nothing, with nothing shown to the client.
pub enum Failure {
    /// No byte of the request left us.
    NotSent { fault: Fault, detail: String },
    /// The backlog of a Unix socket is full: busy, not broken.
    Busy,
    /// The engine may have begun to work on it.
    Sent { fault: Fault, detail: String },
    /// A stream whose first event is an error, or ends before any content.
    Event(ErrorEvent),
    /// The endpoint will not answer it, as whoever recalled it knows: see [`crate::pool::EndpointState::recall`].
    Recalled(Fault),
}

impl Failure {
    /// In one word, as metrics have it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotSent { fault, .. } | Self::Sent { fault, .. } | Self::Recalled(fault) => {
                fault.reason()
            }
            Self::Busy => "busy",
            Self::Event(_) => Fault::ErrorEvent.reason(),
        }
    }
}

/// Sends the request on a connection of the lease's endpoint and waits until the answer may be shown.
/// A pooled connection that turns out to be dead is replaced by a fresh one, once. A call that may not
/// be repeated is not risked on one: when it dies nobody can tell whether the request was read.
///
/// `has_next`: asked when a drain recalls it, whether there is a place for it elsewhere; without one it stays.
pub async fn attempt(
    lease: &Lease,
    exchange: &Exchange<'_>,
    head: &[u8],
    metrics: &EndpointMetrics,
    has_next: &mut (dyn FnMut() -> bool + Send),
) -> Result<Answer, Failure> {
    let result = tokio::select! {
        biased;
        result = on_endpoint(lease, exchange, head, metrics) => result,
        why = recalled(lease, exchange, has_next), if exchange.call.repeatable => Err(Failure::Recalled(why)),
    };
    if result.is_ok() {
        lease.answered();
    }
    result
}

/// A drain leaves alone what only this endpoint can answer, and what no other takes at once.
async fn recalled(
    lease: &Lease,
    exchange: &Exchange<'_>,
    has_next: &mut (dyn FnMut() -> bool + Send),
) -> Fault {
    loop {
        match lease.recalled().await {
            Fault::Drained if exchange.only.is_some() || !has_next() => {}
            Fault::ConnectRefused if lease.state.waits_for_one() => {
                // The engine may be dying of the request, whose connection is the next to go then: that is the reason.
                Box::pin(sleep(DYING)).await;
                return Fault::ConnectRefused;
            }
            why => return why,
        }
    }
}

async fn on_endpoint(
    lease: &Lease,
    exchange: &Exchange<'_>,
    head: &[u8],
    metrics: &EndpointMetrics,
) -> Result<Answer, Failure> {
    let idle = lease.pool().keepalive.idle;
    let take = || lease.state.idle.take(Instant::now(), idle);
    if let Some(connection) = exchange.call.repeatable.then(take).flatten() {
        metrics.connections_reused.inc();
        match run(lease, exchange, head, connection, None).await {
            Err(Stopped::Stale) => lease.lost(),
            Err(Stopped::Failed(failure)) => return Err(failure),
            Ok(answer) => return Ok(answer),
        }
    }
    let begun = Instant::now();
    let endpoint = lease.endpoint();
    let connection = Connection::connect(&endpoint.state.target, lease.pool().timeouts.connect)
        .await
        .map_err(|e| connect_failure(&e))?;
    metrics.connections_new.inc();
    match run(lease, exchange, head, connection, Some(begun.elapsed())).await {
        Ok(answer) => Ok(answer),
        Err(Stopped::Failed(failure)) => Err(failure),
        Err(Stopped::Stale) => Err(Failure::Sent {
            fault: Fault::ConnectionLost,
            detail: "the engine closed the connection without an answer".into(),
        }),
    }
}

enum Stopped {
    /// A reused connection on which nothing at all came back.
    Stale,
    Failed(Failure),
}

impl Stopped {
    fn sent(fault: Fault, detail: &dyn ToString) -> Self {
        Self::Failed(Failure::Sent {
            fault,
            detail: detail.to_string(),
        })
    }
}

async fn run(
    lease: &Lease,
    exchange: &Exchange<'_>,
    request: &[u8],
    mut connection: Connection,
    connect: Option<Duration>,
) -> Result<Answer, Stopped> {
    let timeouts = &lease.pool().timeouts;
    connection.expect(exchange.kind);
    let head_limits = HeadLimits {
        bytes: exchange.limits.response_header,
        fields: HEAD_FIELDS,
    };
    let sending = connection.send_within(request, exchange.body, timeouts.send);
    let sent = match sending.await {
        Some(sent) => sent,
        None => {
            return Err(Stopped::sent(
                Fault::SendTimedOut,
                &"sending the request timed out",
            ));
        }
    };
    let sent_at = Instant::now();
    let deadline = sent_at + timeouts.first_byte;
    let head = match timeout_at(deadline, connection.read_head(head_limits)).await {
        Err(_elapsed) => {
            return Err(Stopped::sent(
                Fault::FirstByteTimedOut,
                &"no answer within first_byte",
            ));
        }
        // An engine may answer (413) and close before it has read everything: the answer counts.
        Ok(Ok(head)) => head,
        Ok(Err(e)) => {
            let is_lost = fault_of(&e) == Fault::ConnectionLost;
            if is_lost && connection.is_reused() && !connection.received_any() {
                return Err(Stopped::Stale);
            }
            return Err(match sent {
                // The write failed first: its error is the one to tell.
                Err(write) if is_lost => Stopped::sent(Fault::ConnectionLost, &write),
                _ => e.into(),
            });
        }
    };
    lease.endpoint().state.answered(sent_at);
    let mut answer = Answer {
        connection,
        head,
        held: Vec::new(),
        charge: Charge::new(exchange.memory, exchange.holder.cloned()),
        is_whole: false,
        events: None,
        failed: None,
        first_content: None,
        connect,
        sent_at,
        is_renamed: false,
    };
    let status = answer.head.status;
    if (200..300).contains(&status) && is_readable_stream(exchange, &answer) {
        hold_until_content(lease, exchange, &mut answer, deadline).await?;
        answer.is_renamed = exchange.rename.is_some();
    } else if !answer.is_switched() && must_be_whole(exchange, &answer) {
        hold_until_whole(lease, exchange, &mut answer, timeouts.read).await?;
        if (200..300).contains(&status) && was_given_up(exchange, &answer) {
            return Err(Stopped::sent(
                Fault::ErrorEvent,
                &"the engine aborted the request and answered what it had",
            ));
        }
        if let (true, Some(rename)) = (answer.is_whole, exchange.rename) {
            answer.held = vec![rename.apply(&joined(&answer.held))];
            answer.is_renamed = true;
        }
    } else if let Some(piece) = answer.connection.buffered_body()? {
        answer.held.push(piece);
        answer.is_whole = answer.connection.body_is_done();
    } else {
        answer.is_whole = answer.connection.body_is_done();
    }
    Ok(answer)
}

/// A stream of events that can be read: not compressed, and with a body.
fn is_readable_stream(exchange: &Exchange<'_>, answer: &Answer) -> bool {
    let is_plain = answer
        .head
        .get("content-encoding")
        .is_none_or(|coding| coding.eq_ignore_ascii_case(b"identity"));
    answer.head.content_type_is_event_stream()
        && is_plain
        && exchange.kind != RequestKind::Head
        && answer.head.status != 204
}

/// Statuses by which an engine says that it failed, and for which another is asked.
pub fn is_engine_failure(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

/// What an answer that cannot be read any further says of the endpoint.
pub fn fault_of(error: &ReadError) -> Fault {
    match error {
        ReadError::Closed | ReadError::Reset | ReadError::Io(_) => Fault::ConnectionLost,
        ReadError::Malformed(_) | ReadError::HeadTooLarge => Fault::BadResponse,
    }
}

/// Small answers of inference calls are held until they are whole, so that an engine that dies in the
/// middle of one costs a retry and not an answer. So are failures, which may be moved.
fn must_be_whole(exchange: &Exchange<'_>, answer: &Answer) -> bool {
    const JSON: &[u8] = b"application/json";
    let is_failure = is_engine_failure(answer.head.status);
    let is_json = answer
        .head
        .get("content-type")
        .and_then(|value| value.get(..JSON.len()))
        .is_some_and(|media_type| media_type.eq_ignore_ascii_case(JSON));
    let fits = answer
        .connection
        .content_length()
        .is_none_or(|length| length <= exchange.limits.answer as u64);
    fits && exchange.call.repeatable
        && (is_failure || (is_json && exchange.call.body == BodyKind::Json))
}

/// An engine that ends may answer 200 with what it had so far.
fn was_given_up(exchange: &Exchange<'_>, answer: &Answer) -> bool {
    let dialect = exchange.call.dialect;
    match answer.held.as_slice() {
        _ if !answer.is_whole => false,
        [piece] => gave_up(dialect, piece),
        pieces => gave_up(dialect, &joined(pieces)),
    }
}

async fn hold_until_whole(
    lease: &Lease,
    exchange: &Exchange<'_>,
    answer: &mut Answer,
    read_timeout: Duration,
) -> Result<(), Stopped> {
    let mut held = 0;
    // Engines refuse requests while they hang, and answer those that need no model.
    let is_progress =
        (200..300).contains(&answer.head.status) && exchange.call.dialect != Dialect::Other;
    loop {
        if answer.connection.body_is_done() {
            answer.is_whole = true;
            return Ok(());
        }
        let piece = match answer.connection.buffered_body()? {
            Some(piece) => Some(piece),
            None => match timeout(read_timeout, answer.connection.read_body()).await {
                Ok(piece) => piece?,
                Err(_elapsed) => {
                    return Err(Stopped::sent(
                        Fault::ReadTimedOut,
                        &"the answer stopped coming",
                    ));
                }
            },
        };
        let Some(piece) = piece else {
            answer.is_whole = true;
            return Ok(());
        };
        let (engine, now) = (&lease.endpoint().state, Instant::now());
        match is_progress {
            true => engine.progressed(now),
            false => engine.answered(now),
        }
        held += piece.len();
        let is_charged = answer.charge.add(piece.len(), exchange.limits.body_memory);
        answer.held.push(piece);
        // What cannot be held is shown as it comes, and can only be cut.
        if held > exchange.limits.answer || !is_charged {
            return Ok(());
        }
    }
}

/// A stream has started when its first content event has come: engines send the head before they have
/// even admitted the request.
async fn hold_until_content(
    lease: &Lease,
    exchange: &Exchange<'_>,
    answer: &mut Answer,
    deadline: Instant,
) -> Result<(), Stopped> {
    let mut events = Events::new(
        exchange.call.dialect,
        exchange.limits.event,
        exchange.usage,
        exchange.rename.cloned(),
    );
    events.expect(exchange.choices);
    if exchange.may_go_on {
        events.hold_last_word();
    }
    let mut held = 0;
    loop {
        let piece = match answer.connection.buffered_body()? {
            Some(piece) => Some(piece),
            None if answer.connection.body_is_done() => None,
            None => match timeout_at(deadline, answer.connection.read_body()).await {
                Ok(piece) => piece?,
                Err(_elapsed) => {
                    return Err(Stopped::sent(
                        Fault::FirstByteTimedOut,
                        &"no content event within first_byte",
                    ));
                }
            },
        };
        let Some(piece) = piece else {
            return Err(Stopped::sent(
                Fault::ConnectionLost,
                &"the stream ended before its first content event",
            ));
        };
        held += piece.len();
        let is_charged = answer.charge.add(piece.len(), exchange.limits.body_memory);
        let Passed {
            seen,
            shown,
            failed,
        } = events.take(piece);
        if !shown.is_empty() {
            answer.held.push(shown);
        }
        if let (Some(error), false) = (&seen.error, seen.content_events > 0) {
            return Err(Stopped::Failed(Failure::Event(error.clone())));
        }
        if seen.aborted && seen.content_events <= 1 && !seen.ended {
            return Err(Stopped::sent(
                Fault::ErrorEvent,
                &"the engine aborted the request before its first content event",
            ));
        }
        // What cannot be held is shown as it comes, and can only be cut.
        if seen.started || held > exchange.limits.event || !is_charged {
            let now = Instant::now();
            lease.endpoint().state.progressed(now);
            answer.first_content = Some(now);
            answer.failed = failed;
            answer.events = Some(events);
            answer.is_whole = answer.connection.body_is_done();
            return Ok(());
        }
    }
}

impl From<ReadError> for Stopped {
    fn from(error: ReadError) -> Self {
        Stopped::sent(fault_of(&error), &error)
    }
}

fn connect_failure(error: &ConnectError) -> Failure {
    let fault = match error {
        ConnectError::Busy => return Failure::Busy,
        ConnectError::Refused => Fault::ConnectRefused,
        ConnectError::TimedOut => Fault::ConnectTimedOut,
        ConnectError::Unreachable(_) => Fault::Unreachable,
        ConnectError::Tls(_) | ConnectError::Io(_) => Fault::ConnectFailed,
    };
    Failure::NotSent {
        fault,
        detail: error.to_string(),
    }
}

/// The pieces of a whole answer as one.
pub fn joined(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [] => Bytes::new(),
        [one] => one.clone(),
        many => {
            let mut all = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
            for piece in many {
                all.extend_from_slice(piece);
            }
            all.freeze()
        }
    }
}

#[cfg(test)]
mod tests;
