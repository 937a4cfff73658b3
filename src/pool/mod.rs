//! Endpoints, who holds them, and how they are: choosing and counting are one step here, so that two
//! requests that race see each other.
//!
//! * [`Pool`] takes a [`Lease`] on the endpoint its policy picks
//! * [`EndpointState`] is what outlives a reload: the in-flight count, the health, the idle
//!   connections
//! * [`Queue`] is where requests wait for one
//! * [`suspects`] knows the requests that kill engines
//! * [`health`] decides who is out, [`RetryBudget`] who may try again

mod drain;
mod endpoint;
mod fault;
pub mod health;
mod lease;
mod places;
mod queue;
mod recall;
mod retry_budget;
mod silence;
mod status;
pub mod suspects;
mod tried;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

pub use drain::DrainedBy;
pub use endpoint::{Endpoint, EndpointState, LastCatalog, LastReport, Report, Settings};
pub use fault::{Fault, ProbeFailure, Reason};
pub use lease::{Lease, Outcome};
pub use queue::{NoPlace, Queue, catch_up, lease_at_once, lease_or_wait};
pub use retry_budget::RetryBudget;
pub use silence::{Look, Silence};
pub use status::{EndpointStatus, State};
pub use tried::Tried;

use crate::balance::{self, Candidate, Candidates, Policy, RequestFacts, Rotation};
use crate::config::{self, ContinueStreams, Keepalive, PolicyName, Timeouts};
use crate::telemetry::metrics::PoolMetrics;
use endpoint::Gate;

/// One epoch's view of a pool.
pub struct Pool {
    pub name: Arc<str>,
    pub endpoints: Box<[Endpoint]>,
    /// What its endpoints run; `None` = what each says, see [`Self::engine_of`].
    pub engine: Option<config::Engine>,
    pub policy_name: PolicyName,
    pub timeouts: Timeouts,
    /// Per request, after the first try.
    pub retries: u32,
    pub keepalive: Keepalive,
    /// See [`config::Pool::heartbeat`].
    pub heartbeat: Option<Duration>,
    pub continue_streams: ContinueStreams,
    /// Shared by all epochs.
    pub retry_budget: Arc<RetryBudget>,
    /// Shared by all epochs.
    pub queue: Arc<Queue>,
    /// How many may wait in it and for how long; `None` = nobody.
    pub waits: Option<config::Queue>,
    /// Filled at its first use. Shared by all epochs.
    pub metrics: Arc<OnceLock<PoolMetrics>>,
    policy: Box<dyn Policy>,
    rotation: Arc<Rotation>,
    /// Held from looking at the counts to taking the lease. Holds the list of candidates between
    /// two requests, so that none allocates it.
    turn: Mutex<Vec<Candidate>>,
}

/// Why there is no endpoint for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// Every endpoint is out, and none of them accepts connections.
    AllDown,
    /// All that could be used, and have not been tried, are at their `max_in_flight`.
    AllAtCap,
    /// All that could be used have been tried.
    AllTried,
}

/// Which endpoints are looked at, in this order.
const TIERS: [fn(&Endpoint, Gate) -> bool; 2] = [
    |endpoint, gate| gate == Gate::Usable && !endpoint.backup,
    |endpoint, gate| gate == Gate::Usable && endpoint.backup,
];

/// The same when all are out (HAProxy's and Envoy's panic mode).
const PANIC_TIERS: [fn(&Endpoint, Gate) -> bool; 2] = [
    |_, gate| gate == Gate::FailsProbes,
    |_, gate| gate == Gate::FailsRequests,
];

impl Pool {
    /// `previous` is the pool of the same name in the epoch before: its retry budget, its queue, its turn and its
    /// counters go on.
    pub fn new(
        config: &config::Pool,
        keepalive: &Keepalive,
        endpoints: Vec<Endpoint>,
        previous: Option<&Pool>,
        now: Instant,
    ) -> Self {
        let ids = endpoints.iter().map(|endpoint| endpoint.state.id);
        let rotation = Arc::new(Rotation::new(ids, previous.map(|pool| &*pool.rotation)));
        Self {
            name: Arc::clone(&config.name),
            engine: config.engine,
            policy_name: config.policy,
            timeouts: config.timeouts.clone(),
            retries: config.retries,
            heartbeat: config.heartbeat,
            continue_streams: config.continue_streams,
            keepalive: keepalive.clone(),
            retry_budget: previous.map_or_else(
                || Arc::new(RetryBudget::new(&config.retry_budget, now)),
                |pool| Arc::clone(&pool.retry_budget),
            ),
            queue: previous
                .map_or_else(|| Arc::new(Queue::new(now)), |pool| Arc::clone(&pool.queue)),
            waits: config.queue.clone(),
            metrics: previous.map_or_else(Arc::default, |pool| Arc::clone(&pool.metrics)),
            policy: balance::policy(config.policy, &rotation),
            rotation,
            turn: Mutex::new(Vec::with_capacity(endpoints.len())),
            endpoints: endpoints.into_boxed_slice(),
        }
    }

    /// Picks an endpoint by the pool's policy and takes a place on it, in one step.
    ///
    /// Candidates are the endpoints that are up, under their cap and not in `tried`; a `backup` only
    /// when no other is left. When every endpoint is out for failing probes or requests, and only
    /// then, those that still accept connections are candidates all the same.
    pub fn lease(
        self: &Arc<Self>,
        facts: &RequestFacts,
        tried: &Tried,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Result<Lease, Unavailable> {
        let mut turn = self.turn.lock();
        // A place can be lost to a request of another pool or epoch, which holds another lock; then
        // that endpoint is full, and we look again.
        for _ in 0..=self.endpoints.len() {
            self.gather(tried, now, &mut turn)?;
            let Some(index) = self.policy.pick(facts, Candidates::new(&turn), rng) else {
                break;
            };
            let endpoint = &self.endpoints[index];
            if endpoint.state.take(endpoint.max_in_flight, now) {
                return Ok(Lease::new(Arc::clone(self), index));
            }
        }
        Err(Unavailable::AllAtCap)
    }

    /// What an endpoint of it runs, by the configuration or else by what it says. `None` = it has not said
    /// yet: nothing but OpenAI's API may be relied on.
    pub fn engine_of(&self, endpoint: &Endpoint) -> Option<config::Engine> {
        self.engine.or_else(|| endpoint.state.catalog.engine())
    }

    /// Whether there is an endpoint that was not tried.
    pub fn has_untried(&self, tried: &Tried) -> bool {
        (0..self.endpoints.len()).any(|index| !tried.contains(index))
    }

    /// Whether an endpoint is up.
    pub fn ready(&self, _now: Instant) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.state.is_up())
    }

    /// Fills `found` with the candidates, at least one.
    fn gather(
        &self,
        tried: &Tried,
        now: Instant,
        found: &mut Vec<Candidate>,
    ) -> Result<(), Unavailable> {
        let mut why = Unavailable::AllDown;
        for tiers in [TIERS, PANIC_TIERS] {
            for tier in tiers {
                found.clear();
                for (index, endpoint) in self.endpoints.iter().enumerate() {
                    if !tier(endpoint, endpoint.state.gate()) {
                        continue;
                    }
                    if tried.contains(index) {
                        if why == Unavailable::AllDown {
                            why = Unavailable::AllTried;
                        }
                        continue;
                    }
                    let in_flight = endpoint.state.in_flight();
                    if endpoint.max_in_flight.is_some_and(|cap| in_flight >= cap) {
                        why = Unavailable::AllAtCap;
                        continue;
                    }
                    found.push(Candidate {
                        index,
                        in_flight,
                        weight: endpoint
                            .weight
                            .max(1)
                            .saturating_mul(endpoint.state.share(now)),
                    });
                }
                if !found.is_empty() {
                    return Ok(());
                }
            }
            // Somebody is up, if full or tried: no reason for panic.
            if why != Unavailable::AllDown {
                break;
            }
        }
        Err(why)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
