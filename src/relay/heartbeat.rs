//! Signs of life for a client that waits for a stream: the gateway's own head and comments, while nothing of an
//! engine's can be shown yet (`heartbeat` of a pool).
//!
//! Load balancers and SDKs take a connection that is silent for a minute for a dead one; a wait in the queue and a
//! long prompt are silent. SSE comments (WHATWG HTML §9.2.6) restart their timers and are nothing to whoever reads
//! the events. Since they show nothing of an engine, the request can move on as before. But the head has gone: what
//! fails from there on has no status, and is told by an error event.

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora_proxy::Session;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::listener::{Connection, Writes};
use crate::openai::error::passed_on;
use crate::openai::{ApiError, Call, Dialect};
use crate::pool::{Lease, Outcome, Pool};

use super::attempt::{Answer, joined};
use super::conclude;
use super::ctx::{End, RequestCtx};
use super::peek::Asked;
use super::respond::{self, Framing};
use super::stream;

const COMMENT: Bytes = Bytes::from_static(b": heartbeat\n\n");
/// Of every head that a heartbeat sends.
const STATUS: u16 = 200;

/// What the client of one request is sent while it waits.
pub struct Heartbeat {
    beats: Interval,
    /// Until it is sent.
    head: Option<Box<ResponseHeader>>,
    connection: Option<Arc<Connection>>,
    send_timeout: Duration,
    bytes_out: u64,
}

impl Heartbeat {
    /// `None` where the pool has none, or the client asks for something else than a stream of events.
    pub fn of(pool: &Pool, ctx: &RequestCtx, call: Call, asked: &Asked) -> Option<Box<Self>> {
        let every = pool.heartbeat?;
        let asks = asked.json().is_some_and(|read| read.stream == Some(true));
        if !asks || call.dialect == Dialect::Other {
            return None;
        }
        let since = ctx.body_read.unwrap_or(ctx.started);
        let mut beats = interval_at(since + every, every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(Box::new(Self {
            beats,
            head: Some(respond::early_head(ctx).ok()?),
            connection: ctx.connection.clone(),
            send_timeout: ctx.send_timeout(),
            bytes_out: 0,
        }))
    }

    /// Notes what the client was sent.
    pub fn settle(&self, ctx: &mut RequestCtx) {
        ctx.bytes_out += self.bytes_out;
        ctx.has_head = self.head.is_none();
    }

    /// Sends one comment. Whoever does not take it holds up nothing but the next; `Some`: the choice was made
    /// meanwhile.
    async fn beat<F: Future>(
        &mut self,
        session: &mut Session,
        mut choosing: Pin<&mut F>,
    ) -> Result<Option<F::Output>> {
        let mut chosen = None;
        let mut sending = pin!(self.send(session));
        let sent = poll_fn(|cx| {
            if chosen.is_none()
                && let Poll::Ready(choice) = choosing.as_mut().poll(cx)
            {
                chosen = Some(choice);
            }
            sending.as_mut().poll(cx)
        });
        sent.await.map(|()| chosen)
    }

    async fn send(&mut self, session: &mut Session) -> Result<()> {
        let limit = self.send_timeout;
        if let Some(mut head) = self.head.take() {
            let connection = self.connection.as_deref();
            respond::frame(&mut head, session, Framing::Open, connection)?;
            // Of an HTTP/1 connection alone: it leaves in one send with the comment.
            let socket = connection.filter(|_| !session.is_http2());
            let pace = |writes| {
                if let Some(socket) = socket {
                    socket.set_writes(writes);
                }
            };
            pace(Writes::Held);
            let writing = session.as_downstream_mut().write_response_header(head);
            let written = respond::in_time(limit, writing).await;
            pace(Writes::Gathered);
            written?;
        }
        self.bytes_out += COMMENT.len() as u64;
        let writing = (session.as_downstream_mut()).write_response_body(COMMENT, false);
        respond::in_time(limit, writing).await
    }
}

/// Waits for what the client will be shown, with signs of life where it is to have them. `Err`: it left.
pub async fn wait<F: Future>(
    session: &mut Session,
    heartbeat: &mut Option<Box<Heartbeat>>,
    mut choosing: Pin<&mut F>,
) -> Result<F::Output> {
    loop {
        tokio::select! {
            biased;
            chosen = choosing.as_mut() => return Ok(chosen),
            left = session.as_downstream_mut().read_body_or_idle(true) => return Err(stream::left_error(left)),
            () = next_beat(heartbeat) => {}
        }
        if let Some(heartbeat) = heartbeat {
            // Boxed: hardly any request comes here.
            let beat = Box::pin(heartbeat.beat(session, choosing.as_mut()));
            if let Some(chosen) = beat.await? {
                return Ok(chosen);
            }
        }
    }
}

async fn next_beat(heartbeat: &mut Option<Box<Heartbeat>>) {
    match heartbeat {
        Some(heartbeat) => {
            heartbeat.beats.tick().await;
        }
        None => pending().await,
    }
}

/// Tells of a failure behind a head that has gone, and ends the answer so that no client can take it for a whole
/// one. `status`: the one that it would have had.
pub async fn fail(
    session: &mut Session,
    ctx: &mut RequestCtx,
    status: u16,
    event: Bytes,
) -> Result<()> {
    ctx.status = Some(STATUS);
    ctx.failed_as = Some(status);
    ctx.is_stream = Some(true);
    // If the client is gone as well, there is nobody to tell.
    let _ = stream::write(session, ctx, event).await;
    conclude::end_unclean(session, ctx).await
}

/// The same with an error of the engine's own, `body`.
pub async fn pass_failure(
    session: &mut Session,
    ctx: &mut RequestCtx,
    status: u16,
    body: &[u8],
) -> Result<()> {
    ctx.fail(End::Failed, "engine_error");
    let event = passed_on(ctx.dialect(), status, body);
    fail(session, ctx, status, event).await
}

/// An answer that is no stream of events, behind a head that has announced one.
pub async fn pass_other(
    session: &mut Session,
    ctx: &mut RequestCtx,
    answer: Box<Answer>,
    lease: Lease,
) -> Result<()> {
    let now = Instant::now();
    let Answer {
        connection,
        head,
        held,
        ..
    } = *answer;
    super::give_back(&lease, connection, now);
    lease.settle(Outcome::Neutral, now);
    if head.status >= 400 {
        return pass_failure(session, ctx, head.status, &joined(&held)).await;
    }
    let error = ApiError::NotAStream;
    ctx.fail(End::Failed, "not_a_stream");
    let event = error.event(ctx.dialect());
    fail(session, ctx, error.status(), event).await
}
