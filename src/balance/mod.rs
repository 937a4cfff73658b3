//! Which endpoint a request goes to: one policy a file, one method a policy.
//!
//! A policy sees only what may be chosen: [`Pool::lease`](crate::pool::Pool::lease) has already
//! left out the endpoints that are down, ejected, full or tried, and takes the lease on the one that
//! is picked before anybody else may pick from the same pool.

mod least_inflight;
mod round_robin;

use std::sync::Arc;

pub use least_inflight::LeastInflight;
pub use round_robin::{Rotation, RoundRobin};

use crate::config::PolicyName;

/// [`Candidate::weight`] of an endpoint of weight 1 that takes its full share.
pub const FULL_SHARE: u32 = 1000;

/// Chooses among candidates.
pub trait Policy: Send + Sync {
    /// The [`Candidate::index`] of one of `candidates`; `None` only when there is none.
    ///
    /// Called with the pool's lock held: it must neither block nor allocate.
    fn pick(
        &self,
        facts: &RequestFacts,
        candidates: Candidates<'_>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize>;
}

/// What a policy may know of the request. Nothing yet: the policies so far only look at the load.
#[derive(Debug, Default, Clone)]
#[non_exhaustive]
pub struct RequestFacts {}

/// An endpoint that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the pool's `endpoints`.
    pub index: usize,
    /// Requests it holds now, of every pool and epoch.
    pub in_flight: u32,
    /// The configured weight times [`FULL_SHARE`]; less while the endpoint ramps up after an
    /// outage. Never zero.
    pub weight: u32,
}

/// The endpoints one request may go to, in the pool's order.
#[derive(Debug, Clone, Copy)]
pub struct Candidates<'a>(&'a [Candidate]);

impl<'a> Candidates<'a> {
    pub fn new(candidates: &'a [Candidate]) -> Self {
        Self(candidates)
    }

    pub fn iter(self) -> impl Iterator<Item = &'a Candidate> {
        self.0.iter()
    }
}

/// The policy of that name. `rotation` is the pool's, so that a reload that keeps `round_robin`
/// goes on where it was.
pub(crate) fn policy(name: PolicyName, rotation: &Arc<Rotation>) -> Box<dyn Policy> {
    match name {
        PolicyName::LeastInflight => Box::new(LeastInflight),
        PolicyName::RoundRobin => Box::new(RoundRobin::new(Arc::clone(rotation))),
    }
}

/// As the configuration spells it.
pub(crate) fn policy_name(name: PolicyName) -> &'static str {
    match name {
        PolicyName::LeastInflight => "least_inflight",
        PolicyName::RoundRobin => "round_robin",
    }
}
