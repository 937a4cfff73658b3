//! Moving a request: which endpoint next, whether it may, and what the client gets when it may not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use log::warn;
use tokio::time::Instant;

use crate::balance::RequestFacts;
use crate::engine;
use crate::openai::ApiError;
use crate::openai::sse::ErrorEvent;
use crate::pool::suspects::REFUSED_FOR;
use crate::pool::{
    EndpointState, Fault, Lease, NoPlace, Outcome, Pool, Tried, catch_up, lease_at_once,
    lease_or_wait,
};
use crate::server::Shared;
use crate::telemetry::metrics::PoolMetrics;
use crate::upstream::ResponseHead;

use super::attempt::{Answer, Exchange, Failure, attempt, is_engine_failure, joined};
use super::ctx::RequestCtx;
use super::payload::Bodies;
use super::request::Prepared;
use super::suspect::{bodiless_has_killed, has_killed, rest_has_killed, tell_of_stream};
use super::tracing;

/// What a client is told to wait when no endpoint is there to take its request.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the client will be shown.
pub enum Chosen {
    /// An answer that has begun, with the lease it holds.
    Answer(Box<Answer>, Lease),
    /// A whole failure of an engine, passed on because nothing better came.
    Failed(Box<Held>),
    Refused(ApiError),
}

/// A failure that an engine answered with, kept while others are asked.
pub enum Held {
    Answer {
        head: ResponseHead,
        body: Bytes,
        /// As the engine declared it, also where no body followed.
        declared: Option<u64>,
    },
    Event(ErrorEvent),
}

impl Held {
    /// An engine that is full is not broken.
    fn is_full_queue(&self) -> bool {
        match self {
            Self::Answer { head, body, .. } => engine::says_queue_is_full(head.status, body),
            Self::Event(event) => event.overloaded,
        }
    }
}

/// One request's way from endpoint to endpoint.
struct Journey<'a> {
    /// Of a newer epoch, if there was a reload meanwhile and this one has no place for it.
    pool: Arc<Pool>,
    metrics: &'a PoolMetrics,
    ctx: &'a mut RequestCtx,
    tried: Tried,
    /// The one endpoint that can answer, by [`EndpointState::id`]; `None`: any.
    only: Option<u64>,
    wait: Wait,
    /// A place for the next try, seldom there.
    next: Option<Box<Lease>>,
    /// The last failure an engine answered with.
    last: Option<Held>,
    /// Failures that count only if another endpoint then does better.
    doubted: Vec<(Arc<EndpointState>, Fault)>,
    last_fault: Option<Fault>,
    first_byte: Duration,
}

/// Why endpoints are asked.
pub enum Way {
    /// A request has come.
    New,
    /// The rest of a stream is wanted, but not from these.
    Onward(Tried, Wait),
}

/// Whether a place is waited for where all are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    InLine,
    Never,
}

#[expect(
    clippy::too_many_arguments,
    reason = "what a request is made of comes from many places"
)]
/// Chooses, sends and waits, endpoint after endpoint, until there is something to show.
pub async fn choose(
    shared: &Shared,
    pool: &Arc<Pool>,
    mut prepared: Prepared,
    bodies: &dyn Bodies,
    exchange: &Exchange<'_>,
    ctx: &mut RequestCtx,
    rng: &mut fastrand::Rng,
    way: Way,
) -> Chosen {
    let is_onward = matches!(way, Way::Onward(..));
    let (tried, wait) = match (way, exchange.only) {
        (Way::Onward(tried, wait), _) => (tried, wait),
        (Way::New, only) => {
            pool.retry_budget.deposit(Instant::now());
            let all_but = |only| Tried::all_but(only, pool.endpoints.len());
            (only.map_or_else(Tried::new, all_but), Wait::InLine)
        }
    };
    let facts = RequestFacts::default();
    let mut journey = Journey {
        pool: Arc::clone(pool),
        metrics: shared.pool_metrics(pool),
        ctx,
        tried,
        only: exchange.only.map(|only| pool.endpoints[only].state.id),
        wait,
        next: None,
        last: None,
        doubted: Vec::new(),
        last_fault: None,
        first_byte: pool.timeouts.first_byte,
    };
    loop {
        let lease = match journey.lease(&facts, rng).await {
            Ok(lease) => lease,
            Err(none) => return journey.give_up(none),
        };
        if !bodies.is_for(lease.pool(), lease.endpoint()) {
            journey.tried.insert(lease.index());
            continue;
        }
        if is_onward {
            // It has had its first event elsewhere: another that waits for its own is alone all the same.
            lease.answered();
        }
        journey.tried.insert(lease.index());
        journey.ctx.attempts += 1;
        journey.ctx.endpoint = Some((Arc::clone(lease.pool()), lease.index()));
        let sent = bodies.for_endpoint(lease.endpoint());
        let context = tracing::attempt(journey.ctx, lease.endpoint(), Instant::now());
        let head = match prepared.for_endpoint(lease.endpoint(), sent.len, context.as_deref()) {
            Ok(head) => head,
            Err(problem) => {
                return Chosen::Refused(ApiError::invalid(problem.to_string()));
            }
        };
        let exchange = Exchange {
            body: &sent.pieces,
            rename: sent.rename.as_ref(),
            ..*exchange
        };
        let result = attempt(
            &lease,
            &exchange,
            head,
            shared.endpoint_metrics(lease.pool(), &lease),
            &mut || journey.takes_next(bodies, &facts, rng),
        )
        .await
        .map(Box::new);
        let original = bodies.original();
        let is_suspect = if !exchange.call.repeatable {
            false
        } else if is_onward {
            rest_has_killed(journey.ctx, &lease, &result).await
        } else if original.is_empty() {
            bodiless_has_killed(journey.ctx, &lease, &result).await
        } else {
            has_killed(&lease, &result).await
                && shared.suspects.strike(original, &lease, Instant::now())
        };
        if is_suspect {
            tracing::attempted(journey.ctx, &result, Instant::now());
            return journey.condemn(lease, is_onward, !original.is_empty());
        }
        match journey.judge(result, lease, &exchange) {
            Step::Show(chosen) => {
                if exchange.call.repeatable && matches!(chosen, Chosen::Answer(..)) {
                    shared.suspects.acquit(original);
                }
                return chosen;
            }
            Step::Next => {}
        }
    }
}

enum Step {
    Show(Chosen),
    Next,
}

impl Journey<'_> {
    async fn lease(
        &mut self,
        facts: &RequestFacts,
        rng: &mut fastrand::Rng,
    ) -> Result<Lease, NoPlace> {
        if let Some(lease) = self.next.take() {
            return Ok(*lease);
        }
        let (pool, tried, only) = (&mut self.pool, &mut self.tried, self.only);
        if self.wait == Wait::Never {
            return lease_at_once(pool, tried, only, facts, rng);
        }
        lease_or_wait(pool, tried, only, facts, &mut self.ctx.queue, rng).await
    }

    /// Takes a place for the next try, where an endpoint that is up and was not tried has one at once.
    fn takes_next(
        &mut self,
        bodies: &dyn Bodies,
        facts: &RequestFacts,
        rng: &mut fastrand::Rng,
    ) -> bool {
        let (pool, tried) = (&mut self.pool, &mut self.tried);
        while let Ok(lease) = lease_at_once(pool, tried, self.only, facts, rng) {
            if !lease.state.is_up() {
                break;
            }
            if bodies.is_for(lease.pool(), lease.endpoint()) {
                self.next = Some(Box::new(lease));
                break;
            }
            tried.insert(lease.index());
        }
        self.next.is_some()
    }

    fn judge(
        &mut self,
        result: Result<Box<Answer>, Failure>,
        lease: Lease,
        exchange: &Exchange<'_>,
    ) -> Step {
        let now = Instant::now();
        tracing::attempted(self.ctx, &result, now);
        let repeatable = exchange.call.repeatable;
        match result {
            Ok(answer) if answer.is_whole && is_engine_failure(answer.head.status) => {
                let body = joined(&answer.held);
                let declared = answer.connection.content_length();
                let Answer {
                    head, connection, ..
                } = *answer;
                super::give_back(&lease, connection, now);
                self.engine_failed(
                    Held::Answer {
                        head,
                        body,
                        declared,
                    },
                    lease,
                    repeatable,
                )
            }
            Ok(answer) => {
                // Only an answer that is well shows that the request was not at fault.
                if answer.head.status < 400 {
                    for (state, fault) in self.doubted.drain(..) {
                        state.fault(fault, now);
                    }
                }
                self.ctx.connect = answer.connect;
                Step::Show(Chosen::Answer(answer, lease))
            }
            Err(Failure::Busy) => {
                lease.settle(Outcome::Neutral, now);
                self.last_fault = Some(Fault::ConnectFailed);
                Step::Next
            }
            Err(Failure::NotSent { fault, detail }) => {
                self.note(&lease, fault, &detail);
                lease.settle(Outcome::Failed(fault), now);
                // Nothing was done and nothing was sent: only waiting costs a retry.
                let is_free = fault == Fault::ConnectRefused;
                if is_free || self.may_retry(fault.reason(), now) {
                    self.metrics.retried(fault.reason());
                    Step::Next
                } else {
                    Step::Show(self.exhausted())
                }
            }
            Err(Failure::Sent { fault, detail }) => {
                self.note(&lease, fault, &detail);
                lease.settle(Outcome::Failed(fault), now);
                if repeatable && self.may_retry(fault.reason(), now) {
                    self.metrics.retried(fault.reason());
                    Step::Next
                } else {
                    Step::Show(self.exhausted())
                }
            }
            Err(Failure::Recalled(fault)) => {
                // Said of the endpoint and not of the request, of all requests there at once: not a retry
                // that its budget is for.
                self.note(&lease, fault, "recalled before an answer had begun");
                lease.settle(Outcome::Neutral, now);
                self.metrics.retried(fault.reason());
                Step::Next
            }
            Err(Failure::Event(event))
                if event
                    .status
                    .is_some_and(|s| (400..500).contains(&s) && s != 429) =>
            {
                lease.settle(Outcome::Neutral, now);
                Step::Show(Chosen::Failed(Box::new(Held::Event(event))))
            }
            Err(Failure::Event(event)) => self.engine_failed(Held::Event(event), lease, repeatable),
        }
    }

    /// The engine itself said that it failed.
    fn engine_failed(&mut self, held: Held, lease: Lease, repeatable: bool) -> Step {
        let now = Instant::now();
        let (fault, reason) = match &held {
            Held::Answer { head, .. } => (Fault::Status(head.status), "status"),
            Held::Event(_) => (Fault::ErrorEvent, "error_event"),
        };
        let is_full = held.is_full_queue();
        self.last_fault = Some(fault);
        if !is_full {
            self.note(&lease, fault, "the engine said so itself");
            self.doubted
                .push((Arc::clone(&lease.endpoint().state), fault));
        }
        lease.settle(Outcome::Neutral, now);
        self.last = Some(held);
        let reason = if is_full { "queue_full" } else { reason };
        if repeatable && self.may_retry(reason, now) {
            self.metrics.retried(reason);
            Step::Next
        } else {
            Step::Show(self.exhausted())
        }
    }

    /// Ends the journey of a request of which two engines have died. `is_refused`: it is known again by its body.
    fn condemn(&mut self, lease: Lease, is_onward: bool, is_refused: bool) -> Chosen {
        let fault = Fault::ConnectRefused;
        self.note(&lease, fault, "it died of this request");
        if is_onward {
            tell_of_stream(&lease, self.ctx);
        } else {
            let outcome = match is_refused {
                true => format!("it is refused for {} minutes", REFUSED_FOR.as_secs() / 60),
                false => "no third gets it".to_owned(),
            };
            warn!(
                "pool {}: two engines died while request {} was the only one that they had not answered: {outcome}",
                self.pool.name,
                String::from_utf8_lossy(self.ctx.request_id.as_bytes()),
            );
        }
        self.metrics.suspects.inc();
        lease.settle(Outcome::Failed(fault), Instant::now());
        Chosen::Refused(ApiError::SuspectRequest)
    }

    fn may_retry(&mut self, reason: &str, now: Instant) -> bool {
        catch_up(&mut self.pool, &mut self.tried, self.only);
        if self.ctx.retries >= self.pool.retries || !self.pool.has_untried(&self.tried) {
            return false;
        }
        let allowed = self.pool.retry_budget.withdraw(now);
        self.ctx.retries += u32::from(allowed);
        if !allowed {
            self.metrics.retry_budget_exhausted.inc();
            log::debug!(
                "the retry budget of pool {} is spent ({reason})",
                self.pool.name
            );
        }
        allowed
    }

    fn note(&mut self, lease: &Lease, fault: Fault, detail: &str) {
        self.last_fault = Some(fault);
        warn!(
            "endpoint {}: {}: {detail} (request {})",
            lease.endpoint().name,
            fault.reason(),
            String::from_utf8_lossy(self.ctx.request_id.as_bytes()),
        );
    }

    fn give_up(mut self, none: NoPlace) -> Chosen {
        if self.last.is_some() || self.last_fault.is_some_and(|f| !f.is_connect()) {
            return self.exhausted();
        }
        Chosen::Refused(match none {
            NoPlace::Busy { retry_after } => ApiError::Overloaded { retry_after },
            NoPlace::AllDown | NoPlace::AllTried => ApiError::NoEndpointAvailable {
                retry_after: RETRY_AFTER,
            },
        })
    }

    /// No further try: the engine's own last answer, else an error that says what happened.
    fn exhausted(&mut self) -> Chosen {
        if let Some(last) = self.last.take() {
            return Chosen::Failed(Box::new(last));
        }
        Chosen::Refused(match self.last_fault {
            Some(Fault::FirstByteTimedOut | Fault::ReadTimedOut | Fault::SendTimedOut) => {
                ApiError::UpstreamTimeout {
                    after: self.first_byte,
                }
            }
            Some(Fault::ConnectTimedOut) => ApiError::UpstreamTimeout {
                after: self.pool.timeouts.connect,
            },
            _ => ApiError::UpstreamFailed,
        })
    }
}
