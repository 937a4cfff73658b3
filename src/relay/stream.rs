//! Showing an answer: head, what was held, and every byte as it comes, to one of the ends of [`conclude`].

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use pingora::Result;
use pingora_proxy::Session;
use tokio::time::{Instant, sleep_until};

use crate::listener::{Bell, Writes};
use crate::openai::sse::Ending;
use crate::openai::{Call, Dialect, Usage};
use crate::pool::{EndpointState, Fault, Lease};
use crate::upstream::{Connection, ReadError};

use super::attempt::{Answer, fault_of, joined};
use super::conclude::{self, conclude};
use super::continuing::Onward;
use super::ctx::RequestCtx;
use super::events::{Events, Failed};
use super::heartbeat;
use super::respond::{self, Framing};
use super::straight::{self, Borne, Lost, Meter, Next, Patience};
use super::turn::{self, Turn};

/// How the client's socket takes what is written in the course of an answer.
struct Pace {
    client: Option<Arc<crate::listener::Connection>>,
    /// Between head and end.
    between: Writes,
    framing: Framing,
}

impl Pace {
    fn of(session: &Session, ctx: &RequestCtx, framing: Framing) -> Self {
        Self {
            // All requests of an h2 connection share its socket, and h2 has flushes of its own.
            client: ctx.connection.clone().filter(|_| !session.is_http2()),
            between: match framing {
                Framing::Length(_) => Writes::Prompt,
                _ => Writes::Gathered,
            },
            framing,
        }
    }

    fn set(&self, writes: Writes) {
        if let Some(client) = &self.client {
            client.set_writes(writes);
        }
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.set(Writes::Gathered);
    }
}

/// Why a stream that was being shown did not come to its own end.
pub enum Broken {
    Upstream {
        fault: Fault,
        detail: String,
    },
    /// The engine said so itself, in an event that the client has.
    Told {
        by_client: bool,
    },
    /// The engine that went on gave another answer than the client has seen.
    Diverged,
    Client(Box<pingora::Error>),
}

pub type Shown = std::result::Result<(), Broken>;

impl From<Failed> for Broken {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Error { by_client } => Self::Told { by_client },
            Failed::Abort => Self::Upstream {
                fault: Fault::ErrorEvent,
                detail: "the engine aborted the request".into(),
            },
        }
    }
}

/// Passes the answer to the client. `Err` ends the client's connection uncleanly. `onward`: what a stream needs to
/// go on elsewhere when it breaks.
pub async fn pass(
    session: &mut Session,
    ctx: &mut RequestCtx,
    answer: Box<Answer>,
    lease: Lease,
    dialect: Dialect,
    mut onward: Option<Box<Onward<'_>>>,
) -> Result<()> {
    if ctx.has_head && answer.events.is_none() {
        return Box::pin(heartbeat::pass_other(session, ctx, answer, lease)).await;
    }
    let Answer {
        connection,
        head,
        mut held,
        mut is_whole,
        mut events,
        mut failed,
        first_content,
        is_renamed,
        charge,
        ..
    } = *answer;
    if let Some(events) = &mut events {
        held = turn::begin(&mut onward, &lease, events, held);
    }
    let is_head = session.req_header().method == http::Method::HEAD;
    let framing = framing(
        &head,
        &connection,
        is_head,
        is_whole,
        events.is_some(),
        &held,
    );
    ctx.is_stream = Some(events.is_some());
    ctx.status = Some(head.status);
    if events.is_some() {
        ctx.ttft = first_content.map(|at| at - ctx.started);
        ctx.last_content = first_content;
    }
    let mut response = None;
    if !ctx.has_head {
        let response = response.insert(respond::relayed_head(&head, session, framing, ctx)?);
        if is_renamed {
            respond::forget_digests(response);
        }
    }
    let is_kept = ctx.call.is_some_and(Call::is_for_kept_answer);
    if events.is_none() && is_whole && head.status < 300 && !is_kept {
        ctx.tokens.usage = Usage::of_json(&joined(&held)).unwrap_or_default();
    }
    let pace = Pace::of(session, ctx, framing);
    let mut shown = show(
        session,
        ctx,
        response,
        &held,
        is_whole && failed.is_none() && ends_well(events.as_ref()),
        &pace,
    )
    .await
    .map_err(Broken::Client);
    drop((held, charge));
    let mut place = Place::new(connection, lease);
    let (result, place) = loop {
        let result = match (shown, failed) {
            (Err(broken), _) => Err(broken),
            (Ok(()), Some(failed)) => Err(failed.into()),
            (Ok(()), None) if is_whole => finish(session, ctx, events.as_mut()).await,
            (Ok(()), None) => {
                let events = events.as_mut();
                let onward = onward.as_deref();
                relay(session, ctx, &mut place, events, &pace, onward).await
            }
        };
        let (Some(onward), Some(so_far)) = (&onward, &mut events) else {
            break (result, Some(place));
        };
        // Boxed: every stream's task would be larger by what is needed at its end.
        let next = turn::turn(session, ctx, onward, so_far, place, result);
        let piece;
        match Box::pin(next).await {
            Turn::Over(result, place) => break (result, place),
            Turn::Stay(there) => {
                (place, piece) = (there, Bytes::new());
                (is_whole, failed) = (false, None);
            }
            Turn::On(stretch) => {
                (place, piece) = (stretch.place, stretch.piece);
                (is_whole, failed) = (stretch.is_whole, stretch.failed);
            }
        }
        shown = write(session, ctx, piece).await;
        if shown.is_ok() && so_far.has_diverged() {
            shown = Err(Broken::Diverged);
        }
    };
    conclude::count_tokens(ctx, events.as_ref().filter(|_| !is_kept));
    let told_as = events.is_some().then_some(dialect);
    conclude(session, ctx, result, place, told_as).await
}

/// Where an answer comes from.
pub struct Place {
    pub connection: Connection,
    pub lease: Lease,
    /// A stream that is called away and stays is given no more time for it.
    borne: Borne,
}

impl Place {
    pub fn new(connection: Connection, lease: Lease) -> Self {
        let borne = Borne::new(lease.pool().timeouts.read, Instant::now());
        Self {
            connection,
            lease,
            borne,
        }
    }
}

/// A held answer is sent with its length, whatever the engine's framing was. A stream of events never is: one
/// that is cut must not look whole because what it is told fills the length.
fn framing(
    head: &crate::upstream::ResponseHead,
    connection: &Connection,
    is_head: bool,
    is_whole: bool,
    is_stream: bool,
    held: &[Bytes],
) -> Framing {
    let declared = connection.content_length();
    if is_head || head.status == 304 {
        return Framing::NoBody(declared);
    }
    if head.status == 204 {
        return Framing::NoBody(None);
    }
    match declared {
        _ if is_stream => Framing::Open,
        // What is held may have got another name for its model.
        Some(length) if !is_whole => Framing::Length(length),
        _ if is_whole => Framing::Length(held.iter().map(|piece| piece.len() as u64).sum()),
        _ => Framing::Open,
    }
}

/// Writes the head, where it has not gone yet, and what was held, in one send with each other and, when that is
/// all, with the end of the answer, which Pingora writes.
async fn show(
    session: &mut Session,
    ctx: &mut RequestCtx,
    response: Option<Box<pingora::http::ResponseHeader>>,
    held: &[Bytes],
    is_all: bool,
    pace: &Pace,
) -> Result<()> {
    let downstream = session.as_downstream_mut();
    let last = if is_all { Writes::Held } else { pace.between };
    pace.set(if held.is_empty() { last } else { Writes::Held });
    let mut written = Ok(());
    if let Some(response) = response {
        let limit = ctx.send_timeout();
        written = respond::in_time(limit, downstream.write_response_header(response)).await;
    }
    pace.set(last);
    if written.is_ok() && !held.is_empty() {
        let first = joined(held);
        ctx.bytes_out += first.len() as u64;
        written = downstream.write_response_body(first, false).await;
    }
    pace.set(pace.between);
    written
}

/// The middle of an answer: one piece in, one piece out.
async fn relay(
    session: &mut Session,
    ctx: &mut RequestCtx,
    place: &mut Place,
    events: Option<&mut Events>,
    pace: &Pace,
    onward: Option<&Onward<'_>>,
) -> Shown {
    let Place {
        connection,
        lease,
        borne,
    } = place;
    let lease = &*lease;
    let alarm = pin!(sleep_until(borne.deadline()));
    let engine = &lease.endpoint().state;
    let so_far = (std::mem::take(&mut ctx.intervals), ctx.last_content);
    let mut permit = ctx.permit.take();
    let seen = events.as_deref().map_or(0, Events::content);
    let meter = Meter::new(permit.as_mut(), ctx.prompt_cost.saturating_add(seen));
    let mut patience = Patience::new(borne, alarm, lease, so_far, meter);
    let leaves = Leaves { onward, engine };
    let relayed = pass_on(
        session,
        ctx,
        connection,
        events,
        pace,
        &mut patience,
        &leaves,
    )
    .await;
    (ctx.intervals, ctx.last_content) = patience.into_intervals();
    ctx.permit = permit;
    relayed
}

/// Whether a stream leaves an endpoint that is recalled.
struct Leaves<'a> {
    onward: Option<&'a Onward<'a>>,
    engine: &'a EndpointState,
}

impl Leaves<'_> {
    /// What becomes of a stream whose engine is not to be waited for; `None`: it stays.
    fn heed(
        &self,
        lost: Lost,
        retries: u32,
        events: Option<&mut Events>,
        patience: &mut Patience<'_>,
    ) -> Option<Broken> {
        let (fault, detail) = match lost {
            Lost::Silent => {
                let seconds = patience.timeout().as_secs();
                (Fault::ReadTimedOut, format!("nothing came for {seconds} s"))
            }
            Lost::Recalled(why) => {
                if why == Fault::ConnectRefused {
                    // One that is shutting down may still finish it, one that is dead never says so.
                    patience.shorten(self.engine.settings().health.stall);
                }
                // One that hangs has had its time, and the client is told now.
                if why != Fault::Hung && !self.may(why, retries, events) {
                    return None;
                }
                (why, "the endpoint was recalled".into())
            }
        };
        Some(Broken::Upstream { fault, detail })
    }

    fn may(&self, why: Fault, retries: u32, events: Option<&mut Events>) -> bool {
        let kept = events.and_then(Events::continuable);
        match (self.onward, kept) {
            (Some(onward), Some(kept)) => {
                let kept = &kept.kept;
                // One that is drained still serves, and is not left for a place in a queue.
                let at_once = why == Fault::Drained;
                kept.is_finished()
                    || kept.can_go_on() && onward.has_other(kept, retries, self.engine.id, at_once)
            }
            _ => false,
        }
    }
}

async fn pass_on(
    session: &mut Session,
    ctx: &mut RequestCtx,
    connection: &mut Connection,
    mut events: Option<&mut Events>,
    pace: &Pace,
    patience: &mut Patience<'_>,
    leaves: &Leaves<'_>,
) -> Shown {
    let send_timeout = ctx.send_timeout();
    let mut bell = Bell::new();
    loop {
        let mut next = Next::Heard;
        if let Some(socket) = straight::socket(session, pace.framing) {
            next = straight::pass(
                socket,
                connection,
                events.as_deref_mut(),
                patience,
                &mut bell,
                &mut ctx.bytes_out,
                send_timeout,
            )
            .await;
        }
        if matches!(next, Next::Heard) {
            next = through_session(session, connection, patience).await;
        }
        let (mut piece, seen) = match next {
            Next::Piece(piece, seen) => (piece, seen),
            Next::End => return finish(session, ctx, events).await,
            // Whatever happens behind the end of a whole answer is no cut.
            Next::Broken(e) => match events.map(Events::finish) {
                Some((Ending::Whole, _)) => return Ok(()),
                _ => return Err(broken(&e)),
            },
            Next::Lost(lost) => {
                match leaves.heed(lost, ctx.retries, events.as_deref_mut(), patience) {
                    Some(broken) => return Err(broken),
                    None => continue,
                }
            }
            Next::Left(e) => return Err(Broken::Client(e)),
            Next::Heard => continue,
        };
        let (mut failed, mut has_diverged) = (None, false);
        let mut progress = Some(0);
        if let Some(events) = events.as_deref_mut() {
            let seen = match seen {
                Some(seen) => *seen,
                None => events.read(&piece),
            };
            let passed = events.pass(seen, piece);
            progress = straight::progress(&passed.seen);
            piece = passed.shown;
            failed = passed.failed;
            has_diverged = events.has_diverged();
        }
        if let Some(content_events) = progress {
            patience.progressed(content_events);
        }
        let is_last = connection.body_is_done() && failed.is_none() && !has_diverged;
        let is_last = is_last && ends_well(events.as_deref());
        if is_last {
            // The last bytes wait for the end of the answer, to leave in one send with it.
            pace.set(Writes::Held);
        }
        let written = write(session, ctx, piece).await;
        if is_last {
            pace.set(Writes::Gathered);
        }
        written?;
        if has_diverged {
            // Behind what was new before it, which the next engine goes on from.
            return Err(Broken::Diverged);
        }
        if let Some(failed) = failed {
            return Err(failed.into());
        }
    }
}

/// Waits for the next piece, while the session watches the client.
async fn through_session(
    session: &mut Session,
    connection: &mut Connection,
    patience: &mut Patience<'_>,
) -> Next {
    let downstream = session.as_downstream_mut();
    tokio::select! {
        biased;
        piece = connection.read_body() => match piece {
            Ok(Some(piece)) => Next::Piece(piece, None),
            Ok(None) => Next::End,
            Err(e) => Next::Broken(e),
        },
        left = downstream.read_body_or_idle(true) => Next::Left(left_error(left)),
        lost = poll_fn(|cx| patience.poll_ended(cx)) => Next::Lost(lost),
    }
}

/// The end of the answer follows at once, and not when another engine has gone on with it.
fn ends_well(events: Option<&Events>) -> bool {
    !events.is_some_and(Events::is_cut)
}

/// A stream that ends without its end is cut, however cleanly the connection did.
async fn finish(session: &mut Session, ctx: &mut RequestCtx, events: Option<&mut Events>) -> Shown {
    let Some(events) = events else {
        return Ok(());
    };
    let (ending, rest) = events.finish();
    if ending == Ending::Cut {
        return Err(Broken::Upstream {
            fault: Fault::ConnectionLost,
            detail: "the stream ended without finish_reason or its last event".into(),
        });
    }
    let rest = events.dress_renamed(rest);
    write(session, ctx, rest).await
}

pub async fn write(session: &mut Session, ctx: &mut RequestCtx, piece: Bytes) -> Shown {
    if piece.is_empty() {
        return Ok(());
    }
    ctx.bytes_out += piece.len() as u64;
    session
        .as_downstream_mut()
        .write_response_body(piece, false)
        .await
        .map_err(Broken::Client)
}

fn broken(error: &ReadError) -> Broken {
    Broken::Upstream {
        fault: fault_of(error),
        detail: error.to_string(),
    }
}

/// The error of a client that left, whichever way the session told it.
pub fn left_error(left: Result<Option<Bytes>>) -> Box<pingora::Error> {
    match left {
        Err(e) => e,
        Ok(_) => pingora::Error::explain(
            pingora::ErrorType::ConnectionClosed,
            "the client sent data after its request",
        ),
    }
}
