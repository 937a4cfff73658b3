//! Going on with a stream at another endpoint, when its own has failed after it began.

use std::ops::Deref;
use std::sync::Arc;

use log::warn;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::config::{Config, ContinueStreams, Engine};
use crate::openai::continuation::{Kept, NothingLeft, Plan};
use crate::openai::request::{Peeked, apply};
use crate::openai::{Call, Dialect};
use crate::pool::{Endpoint, Lease, Outcome, Pool, Tried};
use crate::server::Shared;
use crate::upstream::RequestKind;

use super::attempt::{Answer, Exchange};
use super::body::Body;
use super::ctx::RequestCtx;
use super::events::{Continuable, UsageAsked};
use super::memory::{Charge, Holder};
use super::payload::{Bodies, Names, Sent};
use super::request::{self, Credentials, Target};
use super::retry::{self, Chosen, Wait, Way};
use super::{intake, stream};

/// Where token ids are taken as a prompt.
const COMPLETIONS: &[u8] = b"/v1/completions";

/// What a stream needs to go on elsewhere.
pub struct Onward<'a> {
    pub grounds: Grounds<'a>,
    asked: &'a Peeked,
    plan: Plan,
    /// The request's own, to go on by text; empty where that is not needed.
    pub body: Body,
}

/// What a request was sent by.
pub struct Grounds<'a> {
    pub shared: &'a Shared,
    pub config: &'a Config,
    pub pool: &'a Arc<Pool>,
    pub call: Call,
    pub names: Names<'a>,
    pub credentials: Credentials,
    pub holder: Option<&'a Holder>,
}

impl<'a> Grounds<'a> {
    /// What the stream that `asked` got needs to go on elsewhere; `None`, and the body is given back, where it cannot.
    /// `asks_for_ids`: engines that give token ids were asked for them.
    pub fn onward(
        self,
        asked: Option<&'a Peeked>,
        body: Body,
        asks_for_ids: bool,
    ) -> Option<Box<Onward<'a>>> {
        let asked = asked?;
        let mut plan = Plan::of(asked, self.call.dialect, &body.pieces)?;
        if !asks_for_ids {
            plan = plan.without_ids()?;
        }
        Some(Box::new(Onward {
            grounds: self,
            asked,
            plan,
            body,
        }))
    }
}

impl<'a> Deref for Onward<'a> {
    type Target = Grounds<'a>;

    fn deref(&self) -> &Grounds<'a> {
        &self.grounds
    }
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

/// An id takes no more bytes in an event: six digits, its comma, and room for the rest of the event.
const ID_BYTES: usize = 8;

/// Whether engines are asked for the token ids of the stream that `asked` gets: those of its prompt, whose body has
/// `length` bytes, come in one event of at most `limit` bytes.
pub fn asks_for_ids(
    pool: &Pool,
    asked: Option<&Peeked>,
    dialect: Dialect,
    names: &Names<'_>,
    length: usize,
    limit: usize,
) -> bool {
    let most = limit / ID_BYTES;
    let takes_few = |endpoint: &Endpoint| {
        let longest = max_model_len(endpoint, names);
        longest.is_some_and(|longest| longest <= most as u64)
    };
    // A token may be as short as a byte, but no engine takes more of them than its model does.
    let mut endpoints = pool.endpoints.iter();
    asked.is_some_and(|asked| Plan::allows_ids(asked, dialect))
        && (length <= most || endpoints.all(|one| !gives_ids(pool, one) || takes_few(one)))
}

/// Tokens of prompt and answer together; `None` where nobody knows.
fn max_model_len(endpoint: &Endpoint, names: &Names<'_>) -> Option<u64> {
    let catalog = endpoint.state.catalog.get()?;
    catalog.max_model_len(names.for_endpoint(endpoint).or(names.public()))
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
        let keeps_text = self.plan.by_text && takes_text(self.pool, lease.endpoint());
        if !asks_for_ids && !keeps_text {
            return None;
        }
        let kept = Kept::new(&self.plan, asks_for_ids);
        let charge = Charge::new(&self.shared.body_memory, self.holder.cloned());
        let limit = self.config.limits.body_memory;
        let besides = self.plan.memory();
        Some(Box::new(Continuable::new(kept, besides, charge, limit)))
    }

    /// Whether another endpoint than this one ([`EndpointState::id`](crate::pool::EndpointState::id)) could take the
    /// stream, which has had so many `retries`; `at_once`: without its waiting for a place.
    pub fn has_other(&self, kept: &Kept, retries: u32, id: u64, at_once: bool) -> bool {
        let pool = self.pool_now();
        retries < pool.retries
            && pool.endpoints.iter().any(|endpoint| {
                let in_flight = endpoint.state.in_flight();
                let has_place = endpoint.max_in_flight.is_none_or(|cap| in_flight < cap);
                (has_place || !at_once) && self.is_other(&pool, kept, endpoint, Some(id))
            })
    }

    /// The pool as it is by now: the stream may be older than the last reload.
    pub fn pool_now(&self) -> Arc<Pool> {
        let snapshot = self.shared.snapshot.load();
        let mut pools = snapshot.pools.iter();
        let same = pools.find(|pool| pool.name == self.pool.name);
        Arc::clone(same.unwrap_or(self.pool))
    }

    /// The endpoints that are up and can go on, but for the one with this id.
    pub fn others(&self, pool: &Pool, kept: &Kept, but: Option<u64>) -> Vec<usize> {
        let endpoints = pool.endpoints.iter().enumerate();
        let others = endpoints.filter(|(_, one)| self.is_other(pool, kept, one, but));
        others.map(|(index, _)| index).collect()
    }

    fn is_other(&self, pool: &Pool, kept: &Kept, endpoint: &Endpoint, but: Option<u64>) -> bool {
        let state = &endpoint.state;
        Some(state.id) != but && state.is_up() && self.can(pool, kept, endpoint)
    }

    fn can(&self, pool: &Pool, kept: &Kept, endpoint: &Endpoint) -> bool {
        match kept.is_by_ids() {
            true => {
                let room = self.room(kept, endpoint);
                gives_ids(pool, endpoint) && room.is_some_and(|room| room > 0)
            }
            false => takes_text(pool, endpoint),
        }
    }

    /// How many tokens the endpoint could still make; `None` where nobody knows.
    fn room(&self, kept: &Kept, endpoint: &Endpoint) -> Option<u64> {
        self.plan.room(kept, max_model_len(endpoint, &self.names))
    }

    /// What the endpoint calls the model.
    pub fn model<'e>(&'e self, endpoint: &'e Endpoint) -> Option<&'e str> {
        self.names.for_endpoint(endpoint).or(self.names.public())
    }

    /// Asks endpoints, one after the other, to go on with what `kept` has; not the one where it was cut.
    pub async fn go_on(
        &self,
        session: &mut Session,
        ctx: &mut RequestCtx,
        kept: &Kept,
        wait: Wait,
    ) -> Went {
        let pool = self.pool_now();
        if ctx.retries >= pool.retries {
            return Went::Failed;
        }
        let mut tried = Tried::new();
        for (index, endpoint) in pool.endpoints.iter().enumerate() {
            if Some(endpoint.state.id) == ctx.cut_at || !self.can(&pool, kept, endpoint) {
                tried.insert(index);
            }
        }
        let body = match ContinuedBody::new(self, &pool, kept) {
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
            choices: 1,
            only: None,
        };
        let mut rng = super::thread_rng();
        let way = Way::Onward(tried, wait);
        let downstream = session.as_downstream_mut();
        let chosen = tokio::select! {
            biased;
            chosen = retry::choose(self.shared, &pool, prepared, &body, &exchange, ctx, &mut rng, way) => chosen,
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
    fn new(onward: &'a Onward<'a>, pool: &Pool, kept: &'a Kept) -> Result<Self, NothingLeft> {
        match kept.is_by_ids() {
            true => {
                let endpoints = pool.endpoints.iter();
                let able = endpoints.filter(|endpoint| gives_ids(pool, endpoint));
                let rooms = able.filter_map(|endpoint| onward.room(kept, endpoint));
                if rooms.max() == Some(0) {
                    return Err(NothingLeft);
                }
            }
            false => drop(onward.plan.by_text(onward.asked, kept)?),
        }
        Ok(Self { onward, kept })
    }
}

impl Bodies for ContinuedBody<'_> {
    /// A reload may have brought others while a place was waited for.
    fn is_for(&self, pool: &Pool, endpoint: &Endpoint) -> bool {
        self.onward.can(pool, self.kept, endpoint)
    }

    fn for_endpoint(&self, endpoint: &Endpoint) -> Sent<'_> {
        let Self { onward, kept } = self;
        if kept.is_by_ids() {
            // Known of every endpoint that this is for.
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
