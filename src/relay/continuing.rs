//! Going on with a stream at another endpoint, when its own has failed after it began.

use std::sync::Arc;

use bytes::Bytes;
use log::warn;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::config::{Config, ContinueStreams, Engine};
use crate::openai::continuation::{Kept, NothingLeft, Plan};
use crate::openai::request::{Peeked, apply};
use crate::openai::{Call, Dialect};
use crate::pool::{Endpoint, Fault, Lease, Outcome, Pool, Tried};
use crate::server::Shared;
use crate::upstream::RequestKind;

use super::attempt::{Answer, Exchange, joined};
use super::body::Body;
use super::ctx::RequestCtx;
use super::events::{Continuable, Events, Failed, UsageAsked};
use super::memory::{Charge, Holder};
use super::payload::{Bodies, Names, Sent};
use super::request::{self, Credentials, Target};
use super::retry::{self, Chosen, Way};
use super::stream::{Broken, Place, Shown};
use super::{intake, stream};

/// Where token ids are taken as a prompt.
const COMPLETIONS: &[u8] = b"/v1/completions";

/// What a stream needs to go on elsewhere.
pub struct Onward<'a> {
    pub shared: &'a Shared,
    pub config: &'a Config,
    pub pool: &'a Arc<Pool>,
    pub call: Call,
    pub asked: &'a Peeked,
    pub names: Names<'a>,
    pub credentials: Credentials,
    pub holder: Option<&'a Holder>,
    pub plan: Plan,
    /// The request's own, to go on by text; empty where that is not needed.
    pub body: Body,
}

/// What came of it.
pub enum Went {
    /// Another engine goes on.
    On(Box<Answer>, Lease),
    /// The answer has as many tokens as it may have: nothing was missing but its end.
    Ended,
    Failed,
    Left(Box<pingora::Error>),
}

/// Whether streams of `asked` may go on elsewhere in this pool at all.
pub fn is_worth_it(pool: &Pool, only: Option<usize>) -> bool {
    pool.continue_streams != ContinueStreams::Never
        && pool.endpoints.len() > 1
        && pool.retries > 0
        && only.is_none()
}

/// Whether this endpoint is asked for the token ids of a stream.
pub fn gives_ids(pool: &Pool, endpoint: &Endpoint) -> bool {
    pool.continue_streams == ContinueStreams::ByIds
        && pool.engine_of(endpoint) == Some(Engine::Vllm)
}

fn takes_text(pool: &Pool, endpoint: &Endpoint) -> bool {
    matches!(
        pool.engine_of(endpoint),
        Some(Engine::Vllm | Engine::Sglang)
    )
}

impl Onward<'_> {
    /// What is kept of the stream that `lease` has begun; `None` where it cannot go on elsewhere.
    pub fn begin(&self, lease: &Lease) -> Option<Box<Continuable>> {
        let asks_for_ids = self.plan.by_ids && gives_ids(self.pool, lease.endpoint());
        if !asks_for_ids && !(self.plan.by_text && takes_text(self.pool, lease.endpoint())) {
            return None;
        }
        let kept = Kept::new(&self.plan, asks_for_ids);
        let charge = Charge::new(&self.shared.body_memory, self.holder.cloned());
        let limit = self.config.limits.body_memory;
        Some(Box::new(Continuable::new(kept, charge, limit)))
    }

    /// Whether another endpoint than this one could take the stream now.
    pub fn has_other(&self, kept: &Kept, index: usize) -> bool {
        let mut others = self.pool.endpoints.iter().enumerate();
        others.any(|(other, endpoint)| {
            other != index && endpoint.state.is_up() && self.can(kept, endpoint)
        })
    }

    fn can(&self, kept: &Kept, endpoint: &Endpoint) -> bool {
        match kept.is_by_ids() {
            true => gives_ids(self.pool, endpoint) && self.room(kept, endpoint).is_some(),
            false => takes_text(self.pool, endpoint),
        }
    }

    /// How many tokens the endpoint could still make; `None` where nobody knows.
    fn room(&self, kept: &Kept, endpoint: &Endpoint) -> Option<u64> {
        let catalog = endpoint.state.catalog.get();
        let longest = catalog.and_then(|catalog| catalog.max_model_len(self.model(endpoint)));
        self.plan.room(kept, longest)
    }

    /// What the endpoint calls the model.
    fn model<'e>(&'e self, endpoint: &'e Endpoint) -> Option<&'e str> {
        self.names.for_endpoint(endpoint).or(self.names.public())
    }

    /// Asks the other endpoints, one after the other, to go on with what `kept` has. `from`: where it was cut.
    pub async fn go_on(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        kept: &Kept,
        from: usize,
    ) -> Went {
        if ctx.retries >= self.pool.retries {
            return Went::Failed;
        }
        let mut tried = Tried::new();
        tried.insert(from);
        for (index, endpoint) in self.pool.endpoints.iter().enumerate() {
            if !self.can(kept, endpoint) {
                tried.insert(index);
            }
        }
        let body = match ContinuedBody::new(self, kept) {
            Ok(body) => body,
            Err(NothingLeft) => return Went::Ended,
        };
        ctx.retries += 1;
        let mut parts = intake::parts(
            session.req_header(),
            ctx,
            self.config,
            self.call,
            self.credentials,
        );
        let mut call = self.call;
        if kept.is_by_ids() {
            parts.target = Target {
                prefix: "",
                path_and_query: COMPLETIONS,
            };
            call.dialect = Dialect::Completions;
        }
        let Ok(prepared) = request::prepare(&parts) else {
            return Went::Failed;
        };
        let exchange = Exchange {
            call,
            kind: RequestKind::Other,
            body: &[],
            limits: &self.config.limits,
            memory: &self.shared.body_memory,
            holder: self.holder,
            usage: UsageAsked::AsItComes,
            rename: None,
            may_go_on: true,
            only: None,
        };
        let mut rng = super::thread_rng();
        let way = Way::Onward(tried);
        let downstream = session.as_downstream_mut();
        let chosen = tokio::select! {
            biased;
            chosen = retry::choose(self.shared, self.pool, prepared, &body, &exchange, ctx, &mut rng, way) => chosen,
            left = downstream.read_body_or_idle(true) => return Went::Left(stream::left_error(left)),
        };
        match chosen {
            Chosen::Answer(answer, lease) if answer.events.is_some() => Went::On(answer, lease),
            Chosen::Answer(answer, lease) => {
                warn!(
                    "endpoint {}: answered {} to the rest of a stream",
                    lease.endpoint().name,
                    answer.head.status
                );
                lease.settle(Outcome::Neutral, Instant::now());
                Went::Failed
            }
            Chosen::Failed(_) | Chosen::Refused(_) => Went::Failed,
        }
    }
}

/// What the next engine is sent.
struct ContinuedBody<'a> {
    onward: &'a Onward<'a>,
    kept: &'a Kept,
}

impl<'a> ContinuedBody<'a> {
    fn new(onward: &'a Onward<'a>, kept: &'a Kept) -> Result<Self, NothingLeft> {
        match kept.is_by_ids() {
            true => {
                let mut endpoints = onward.pool.endpoints.iter();
                if endpoints.any(|endpoint| onward.room(kept, endpoint) == Some(0)) {
                    return Err(NothingLeft);
                }
            }
            false => drop(onward.plan.by_text(onward.asked, kept)?),
        }
        Ok(Self { onward, kept })
    }
}

impl Bodies for ContinuedBody<'_> {
    fn for_endpoint(&self, endpoint: &Endpoint) -> Sent<'_> {
        let Self { onward, kept } = self;
        if kept.is_by_ids() {
            let room = onward.room(kept, endpoint).unwrap_or(1);
            let body = onward.plan.by_ids(kept, onward.model(endpoint), room);
            return Sent {
                len: body.len(),
                pieces: vec![body].into(),
                rename: None,
            };
        }
        let mut edits = onward.plan.by_text(onward.asked, kept).unwrap_or_default();
        let name = onward.names.for_endpoint(endpoint);
        edits.extend(name.and_then(|name| onward.asked.rename(name)));
        edits.extend(onward.asked.ask_for_usage());
        let (pieces, len) = apply(&onward.body.pieces, &edits);
        Sent {
            len,
            pieces: pieces.into(),
            rename: None,
        }
    }
}

/// A stream begins that may have to go on elsewhere: what is shown is kept from its first event on. Gives what is
/// shown of `held`.
pub fn begin(
    onward: &mut Option<Onward<'_>>,
    lease: &Lease,
    events: &mut Events,
    mut held: Vec<Bytes>,
) -> Vec<Bytes> {
    let Some(kept) = onward.as_ref().and_then(|onward| onward.begin(lease)) else {
        *onward = None;
        let word = events.take_last_word();
        if !word.is_empty() {
            held.push(word);
        }
        return held;
    };
    events.keep(kept);
    let shown = events.dress(joined(&held));
    if let (Some(kept), Some(onward)) = (events.continuable(), onward)
        && (kept.kept.is_by_ids() || !kept.kept.can_go_on())
    {
        // Not needed for anything more.
        onward.body.release();
    }
    match shown.is_empty() {
        true => Vec::new(),
        false => vec![shown],
    }
}

/// What comes after a stretch of a stream.
pub enum Turn {
    /// Nothing. The place is gone where it was given up in search of another.
    Over(Shown, Option<Place>),
    On(Box<Stretch>),
}

/// What another engine gives of the answer.
pub struct Stretch {
    pub place: Place,
    /// The first of it, to be shown.
    pub piece: Bytes,
    /// It has been read to its end.
    pub is_whole: bool,
    pub failed: Option<Failed>,
}

/// A stretch of a stream has ended with `result`: the next engine is found, or the end is written.
pub async fn turn(
    session: &mut Session,
    ctx: &mut RequestCtx,
    onward: &Onward<'_>,
    events: &mut Events,
    place: Place,
    result: Shown,
) -> Turn {
    let can_go_on = events.can_go_on();
    let Some(continuable) = events.continuable() else {
        return over(session, ctx, events, result, Some(place)).await;
    };
    let fault = match &result {
        Ok(()) => None,
        Err(Broken::Upstream { fault, .. }) => Some(*fault),
        Err(Broken::Told { by_client: false }) => Some(Fault::ErrorEvent),
        Err(Broken::Client(_) | Broken::Diverged | Broken::Told { by_client: true }) => {
            return Turn::Over(result, Some(place));
        }
    };
    let metrics = onward.shared.pool_metrics(onward.pool);
    let kept = &mut continuable.kept;
    if kept.is_finished() {
        let end = kept.ending();
        let result = stream::write(session, ctx, end).await;
        let Some(fault) = fault else {
            return Turn::Over(result, Some(place));
        };
        metrics.continued("end");
        place.lease.settle(outcome_of(fault), Instant::now());
        return Turn::Over(result, None);
    }
    let Some(fault) = fault else {
        return Turn::Over(result, Some(place));
    };
    if !can_go_on {
        metrics.continued("refused");
        return over(session, ctx, events, result, Some(place)).await;
    }
    let way = if kept.is_by_ids() { "ids" } else { "text" };
    let from = place.lease.index();
    warn!(
        "endpoint {}: {} in the middle of an answer, which is to go on elsewhere by {way} (request {})",
        place.lease.endpoint().name,
        fault.reason(),
        String::from_utf8_lossy(ctx.request_id.as_bytes()),
    );
    place.lease.settle(outcome_of(fault), Instant::now());
    drop(place.connection);
    match onward.go_on(session, ctx, kept, from).await {
        Went::On(answer, lease) => {
            metrics.continued(way);
            Turn::On(Box::new(stretch(events, *answer, lease)))
        }
        Went::Left(e) => Turn::Over(Err(Broken::Client(e)), None),
        Went::Ended => {
            metrics.continued("end");
            let end = kept.end_at_length();
            Turn::Over(stream::write(session, ctx, end).await, None)
        }
        Went::Failed => {
            metrics.continued("failed");
            over(session, ctx, events, result, None).await
        }
    }
}

/// Nobody goes on: what the engine said last is shown after all.
async fn over(
    session: &mut Session,
    ctx: &mut RequestCtx,
    events: &mut Events,
    result: Shown,
    place: Option<Place>,
) -> Turn {
    let word = events.take_last_word();
    match stream::write(session, ctx, word).await {
        Ok(()) => Turn::Over(result, place),
        client => Turn::Over(client, place),
    }
}

fn stretch(events: &mut Events, answer: Answer, lease: Lease) -> Stretch {
    let Answer {
        connection,
        held,
        is_whole,
        events: next,
        failed,
        ..
    } = answer;
    let mut piece = Bytes::new();
    if let Some(next) = next {
        *events = events.go_on(next);
        piece = events.dress_renamed(joined(&held));
    }
    Stretch {
        place: Place { connection, lease },
        piece,
        is_whole,
        failed,
    }
}

/// How the endpoint is judged whose stream was cut so: a recall was judged by whoever called it.
pub fn outcome_of(fault: Fault) -> Outcome {
    match fault {
        Fault::ConnectRefused | Fault::Hung | Fault::Drained => Outcome::Neutral,
        _ => Outcome::Failed(fault),
    }
}
