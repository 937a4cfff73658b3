use std::time::SystemTime;

use super::{DrainedBy, Reason};

/// The public names of an endpoint's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Up,
    /// Up, with a share that grows after an outage.
    Ramping,
    Down,
    Ejected,
    /// Gets no new requests on purpose, however it is.
    Draining,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Up => "up",
            State::Ramping => "ramping",
            State::Down => "down",
            State::Ejected => "ejected",
            State::Draining => "draining",
        }
    }

    /// Whether requests go there without need.
    pub fn is_up(self) -> bool {
        matches!(self, State::Up | State::Ramping)
    }
}

/// A picture of an endpoint, for `/endpoints` and the metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointStatus {
    pub state: State,
    /// Why it is out, or would be if it did not drain.
    pub reason: Option<Reason>,
    pub drained_by: DrainedBy,
    /// When it entered its state.
    pub since: SystemTime,
    /// `None` = it has no address to probe.
    pub next_probe: Option<SystemTime>,
    pub in_flight: u32,
    /// Leases ever taken.
    pub requests: u64,
    /// In a row, until now.
    pub consecutive_faults: u32,
    /// By [`Fault::reason`](super::Fault::reason), since it is known.
    pub ejections: Vec<(&'static str, u64)>,
    /// Its part of its weight, in thousandths.
    pub share: u32,
}

impl EndpointStatus {
    /// What put it into its state, for a person.
    pub fn why(&self) -> Option<String> {
        match (self.drained_by.anybody(), self.reason) {
            (true, Some(reason)) => Some(format!("{}; {reason}", self.drained_by)),
            (true, None) => Some(self.drained_by.to_string()),
            (false, reason) => reason.map(|reason| reason.to_string()),
        }
    }
}
