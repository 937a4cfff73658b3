//! One request, from its head to its end.
//!
//! `start`, `answer_locally`, `identify`, `read_body` (intake), `peek`; `authenticate`, `resolve`, `admit`
//! (admit); `pick`, `lease`, `send`, `classify`,
//! `fail_over` (retry, attempt); `observe` (stream to conclude, or tunnel for a WebSocket); `finish`. [`serve`] tells the story; Pingora's
//! session is the client's side of it, [`crate::upstream`] the engine's.

mod admin;
mod admit;
mod attempt;
mod bindings;
mod body;
mod conclude;
mod continuing;
mod ctx;
mod duplex;
mod events;
mod finish;
mod handshake;
mod heartbeat;
mod incoming;
mod intake;
mod listing;
mod local;
mod memory;
mod models;
mod payload;
mod peek;
mod request;
mod respond;
mod retry;
mod straight;
mod stream;
mod suspect;
mod timing;
mod tokenize;
mod tracing;
mod tunnel;
mod turn;

use std::cell::RefCell;
use std::pin::pin;
use std::sync::Arc;

use pingora::Result;
use pingora::http::RequestHeader;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::config::Expose;
use crate::openai::continuation::Plan;
use crate::openai::{ApiError, Call, Dialect};
use crate::pool::Lease;
use crate::server::Shared;
use crate::snapshot::Snapshot;
use crate::upstream::{Connection, RequestKind};

pub use bindings::Bindings;
pub use ctx::{End, RequestCtx};
pub use finish::finish;
pub use intake::start;
pub use memory::BodyMemory;
pub use suspect::Suspects;

use attempt::Exchange;
use continuing::Grounds;
use heartbeat::Heartbeat;
use payload::{Names, Payload};
use peek::Asked;
use request::Credentials;
use retry::{Chosen, Held, Way};

/// Answers one request. `Err` means that the client's connection must end uncleanly, or is gone.
pub async fn serve(
    shared: &Arc<Shared>,
    session: &mut Session,
    ctx: &mut RequestCtx,
) -> Result<()> {
    match answer(shared, session, ctx).await {
        Ok(()) => Ok(()),
        Err(Stop::Refused(error)) => respond::refuse(session, ctx, &error).await,
        Err(Stop::ClientLeft(e)) => {
            ctx.fail(End::ClientLeft, "the client left");
            Err(e)
        }
        Err(Stop::Failed(e)) => Err(e),
    }
}

/// Why a request got no answer of an engine.
enum Stop {
    Refused(ApiError),
    ClientLeft(Box<pingora::Error>),
    /// Already accounted for; only the connection is left to end.
    Failed(Box<pingora::Error>),
}

async fn answer(
    shared: &Arc<Shared>,
    session: &mut Session,
    ctx: &mut RequestCtx,
) -> std::result::Result<(), Stop> {
    if let Some(local) = intake::answer_locally(shared, session, ctx)? {
        return respond::write_local(session, ctx, local)
            .await
            .map_err(Stop::Failed);
    }
    let snapshot = intake::snapshot(ctx);
    let call = intake::identify(session, ctx, &snapshot.config)?;
    let is_websocket = handshake::is_websocket(session.req_header(), call);
    admit::authenticate(ctx, &snapshot, &session.req_header().headers, call)?;
    if let Some(own) = call.own {
        let local = models::answer(&snapshot, session.req_header(), ctx, call, own)?;
        return respond::write_local(session, ctx, local)
            .await
            .map_err(Stop::Failed);
    }
    let mut asked = intake::read_body(shared, session, ctx, &snapshot.config, call).await?;
    let (_, target) = request::split_target(session.req_header().raw_path());
    if call.websocket {
        asked = Asked::of_query(intake::query_of(target)).map_err(Stop::Refused)?;
    }
    tracing::asked(ctx, call, intake::path_of(target), &asked);
    let (route, only) = admit::route(shared, ctx, &snapshot, session.req_header(), call, &asked)?;
    let pool = Arc::clone(&snapshot.pools[route.pool]);
    let request = session.req_header();
    let credentials = credentials(&snapshot);
    let mut parts = intake::parts(request, ctx, &snapshot.config, call, credentials);
    parts.is_websocket = is_websocket;
    parts.model = asked.in_query(route.upstream_model);
    let prepared = request::prepare(&parts).map_err(intake::unsendable)?;
    if call.repeatable && shared.suspects.refuses(&ctx.body.pieces, Instant::now()) {
        return Err(Stop::Refused(ApiError::SuspectRequest));
    }
    let body = std::mem::take(&mut ctx.body);
    let counts = matches!(snapshot.config.expose, Expose::Inference { .. })
        && matches!(call.dialect, Dialect::Chat | Dialect::Completions);
    let is_worth_it = continuing::is_worth_it(&pool, only);
    let read = asked.json().filter(|_| is_worth_it);
    let (names, limit) = (Names::new(&asked, &route), snapshot.config.limits.event);
    let asks_for_ids = continuing::asks_for_ids(&pool, read, call.dialect, &names, body.len, limit);
    let ids_in = asks_for_ids.then_some(&*pool);
    let payload = Payload::new(&body, &asked, &route, counts, ids_in);
    let holder = ctx.holder();
    let exchange = Exchange {
        call,
        kind: kind_of(request, is_websocket),
        body: &[],
        limits: &snapshot.config.limits,
        memory: &shared.body_memory,
        holder: holder.as_ref(),
        usage: payload.usage_asked(),
        rename: None,
        may_go_on: read.is_some_and(|read| Plan::allows(read, call.dialect)),
        choices: asked.choices(call.dialect),
        only,
    };
    let mut rng = thread_rng();
    let mut heartbeat = Heartbeat::of(&pool, ctx, call, &asked);
    let chosen = {
        let choosing = pin!(retry::choose(
            shared,
            &pool,
            prepared,
            &payload,
            &exchange,
            ctx,
            &mut rng,
            Way::New
        ));
        heartbeat::wait(session, &mut heartbeat, choosing).await
    };
    if let Some(heartbeat) = heartbeat {
        heartbeat.settle(ctx);
    }
    // An answer has begun: the body is mostly not sent again, and a stream may be open for minutes.
    ctx.body.len = body.len;
    let passed = match chosen.map_err(Stop::ClientLeft)? {
        Chosen::Refused(error) => return Err(Stop::Refused(error)),
        Chosen::Answer(answer, lease) => {
            begun(shared, ctx, call, &answer, &lease);
            if answer.is_switched() {
                let passed = Box::pin(tunnel::pass(session, ctx, answer, lease)).await;
                return passed.map_err(Stop::Failed);
            }
            let grounds = Grounds {
                shared,
                config: &snapshot.config,
                pool: &pool,
                call,
                names,
                credentials,
                holder: holder.as_ref(),
            };
            let read = read.filter(|_| answer.events.is_some());
            let onward = grounds.onward(read, body, asks_for_ids);
            stream::pass(session, ctx, answer, lease, call.dialect, onward).await
        }
        Chosen::Failed(held) => pass_failure(session, ctx, *held).await,
    };
    passed.map_err(Stop::Failed)
}

/// What an answer to it may be.
fn kind_of(request: &RequestHeader, is_websocket: bool) -> RequestKind {
    match request.method {
        http::Method::HEAD => RequestKind::Head,
        _ if is_websocket => RequestKind::WebSocket,
        _ => RequestKind::Other,
    }
}

/// With keys, a client's is the gateway's business alone; without, it is the engines', but for those that
/// have one of their own: also where none has, for a reload may bring one meanwhile.
fn credentials(snapshot: &Snapshot) -> Credentials {
    match snapshot.keyring {
        Some(_) => Credentials::Keep,
        None => Credentials::UnlessOwn,
    }
}

/// Passes on the failure that an engine answered with.
async fn pass_failure(session: &mut Session, ctx: &mut RequestCtx, held: Held) -> Result<()> {
    if ctx.has_head {
        let (status, body) = match held {
            Held::Answer { head, body, .. } => (head.status, body),
            Held::Event(event) => (event.status.unwrap_or(502), event.body),
        };
        return Box::pin(heartbeat::pass_failure(session, ctx, status, &body)).await;
    }
    ctx.fail(End::Failed, "engine_error");
    match held {
        Held::Answer {
            head,
            body,
            declared,
        } => {
            ctx.status = Some(head.status);
            ctx.is_stream = Some(false);
            let is_head = session.req_header().method == http::Method::HEAD;
            let framing = if is_head {
                respond::Framing::NoBody(declared)
            } else {
                respond::Framing::Length(body.len() as u64)
            };
            let response = respond::relayed_head(&head, session, framing, ctx)?;
            respond::write_whole(session, ctx, response, body, is_head).await
        }
        Held::Event(event) => {
            ctx.is_stream = Some(true);
            let status = event
                .status
                .filter(|s| (400..600).contains(s))
                .unwrap_or(502);
            respond::write_event_as_answer(session, ctx, status, event.body).await
        }
    }
}

/// Notes what the answer took of our own time, and which engine keeps the response that it has made.
fn begun(
    shared: &Shared,
    ctx: &mut RequestCtx,
    call: Call,
    answer: &attempt::Answer,
    lease: &Lease,
) {
    ctx.overhead = overhead(ctx, answer);
    if call.dialect == Dialect::Responses && (200..300).contains(&answer.head.status) {
        let begun = attempt::joined(&answer.held);
        if let Some(id) = bindings::id_of(&begun, answer.events.is_some()) {
            let key = ctx.tenant.as_ref().map(|tenant| &tenant.name);
            shared.bindings.bind(&id, lease.state.id, key);
        }
    }
}

/// Our own part of the time until the engine had the request.
fn overhead(ctx: &RequestCtx, answer: &attempt::Answer) -> Option<std::time::Duration> {
    let read = ctx.body_read?;
    let to_send = answer.sent_at.saturating_duration_since(read);
    let others = answer.connect.unwrap_or_default() + ctx.queue.unwrap_or_default();
    (ctx.attempts == 1).then(|| to_send.saturating_sub(others))
}

/// Returns the connection to its endpoint's pool, if it can serve again.
fn give_back(lease: &Lease, connection: Connection, now: Instant) {
    if connection.reusable() {
        let cap = lease.pool().keepalive.connections;
        lease.endpoint().state.idle.put(connection, now, cap);
    }
}

/// A generator of the thread's own: ties are broken at random, not fairly against an adversary.
fn thread_rng() -> fastrand::Rng {
    thread_local! {
        static RNG: RefCell<fastrand::Rng> = RefCell::new(fastrand::Rng::new());
    }
    RNG.with_borrow_mut(fastrand::Rng::fork)
}

#[cfg(test)]
mod size;
