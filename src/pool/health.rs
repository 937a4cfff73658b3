//! Whether an endpoint may be used: a state machine without clock, randomness or I/O of its own.
//!
//! ```text
//!            refused, out of reach `eject_after` times,
//!            or `fall` failed probes                        `rise` good probes
//!      Up ─────────────────────────────────────▶ Down ─────────────────────────▶ Up, ramping
//!      │                                          ▲
//!      │ `eject_after` faults in a row, or hung   │ a failed probe after `until`
//!      └──────────────────────────────▶ Ejected ──┴── a good probe after `until` ──▶ Up, ramping
//! ```
//!
//! The probe that would let an endpoint back in is good only when the engine has also proven that it serves: see
//! [`Health::would_let_in`].

use std::time::Duration;

use tokio::time::Instant;

use super::fault::{Fault, ProbeFailure, Reason};
use crate::config;

/// How long an endpoint that is let back in takes to reach its full share (HAProxy `slowstart`).
pub const RAMP: Duration = Duration::from_secs(10);
/// The share it begins with, in thousandths.
const RAMP_FROM: u32 = 100;
/// The full share, in thousandths.
pub const FULL: u32 = crate::balance::FULL_SHARE;
/// The first probe of an endpoint that went down; doubling to `interval`.
const FAST_PROBE: Duration = Duration::from_millis(200);
/// Doubling stops here, unless `eject_for` itself is longer.
const LONGEST_EJECTION: Duration = Duration::from_secs(300);
/// No pause is longer, so that no sum of times overflows whatever was configured.
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 24 * 3600);
/// In for this long, and for as long as it was out: the doubling starts anew.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Up,
    /// Fails its probes, refuses connections or is out of reach.
    Down,
    /// Fails requests. Not probed before `until`.
    Ejected {
        until: Instant,
    },
}

/// What became different, for the log and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub phase: Phase,
    /// Why it is out; why it was, when it is up again.
    pub reason: Option<Reason>,
    /// How long the previous phase lasted.
    pub after: Duration,
}

#[derive(Debug)]
pub struct Health {
    phase: Phase,
    since: Instant,
    /// `None` while up.
    reason: Option<Reason>,
    /// Back from an outage at `since`, with a growing share.
    ramping: bool,
    /// The last connect was refused, timed out or found no way, by a request or a probe: no use even in panic.
    unreachable: bool,
    /// Something has succeeded here. Until then the first failed probe is enough, as in HAProxy: an
    /// address nobody has seen alive gets no three chances.
    proven: bool,
    /// In a row, by requests.
    faults: u32,
    failed_probes: u32,
    good_probes: u32,
    /// Ejections without a quiet time in between, and how long the last one was.
    ejections: u32,
    ejected_for: Duration,
    probes: Schedule,
}

/// When to probe.
#[derive(Debug)]
struct Schedule {
    /// `None` = never (nothing to connect to).
    next: Option<Instant>,
    /// Between probes while down.
    pause: Duration,
    started: Option<Instant>,
    /// Asked for since the last probe began, so that one under way does not count for it.
    wanted: bool,
}

impl Health {
    /// Usable until a probe says otherwise, and due for that probe now.
    pub fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Up,
            since: now,
            reason: None,
            ramping: false,
            unreachable: false,
            proven: false,
            faults: 0,
            failed_probes: 0,
            good_probes: 0,
            ejections: 0,
            ejected_for: Duration::ZERO,
            probes: Schedule {
                next: Some(now),
                pause: FAST_PROBE,
                started: None,
                wanted: false,
            },
        }
    }

    /// Of an endpoint without an address: down for as long as it exists, never probed.
    pub fn unresolved(now: Instant) -> Self {
        let mut health = Self::new(now);
        health.phase = Phase::Down;
        health.reason = Some(Reason::Unresolved);
        health.unreachable = true;
        health.probes.next = None;
        health
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn since(&self) -> Instant {
        self.since
    }

    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    pub fn unreachable(&self) -> bool {
        self.unreachable
    }

    pub fn faults(&self) -> u32 {
        self.faults
    }

    /// When it came back, if it has been away.
    pub fn ramp_from(&self) -> Option<Instant> {
        self.ramping.then_some(self.since)
    }

    pub fn next_probe(&self) -> Option<Instant> {
        self.probes.next
    }

    /// Whether [`success`](Self::success) would change anything.
    pub fn would_note_success(&self) -> bool {
        self.faults > 0 || self.unreachable || !self.proven
    }

    /// A request was answered well.
    pub fn success(&mut self) {
        self.faults = 0;
        self.unreachable = false;
        self.proven = true;
    }

    /// A request met `fault`.
    pub fn fault(
        &mut self,
        fault: Fault,
        now: Instant,
        config: &config::Health,
        rng: &mut fastrand::Rng,
    ) -> Option<Change> {
        match fault {
            Fault::ConnectRefused | Fault::ConnectTimedOut | Fault::Unreachable => {
                self.unreachable = true;
            }
            // A handshake fails with somebody there, what this machine forbids with anybody.
            Fault::ConnectFailed => {}
            _ => self.unreachable = false,
        }
        self.faults = self.faults.saturating_add(1);
        let change = if self.phase != Phase::Up {
            None
        } else if fault == Fault::ConnectRefused
            || (self.unreachable && self.faults >= config.eject_after)
        {
            // Nothing is gained by a time without probes: a connect tells that it is there again.
            Some(self.down(Reason::Fault(fault), now, rng))
        } else if fault == Fault::Hung || self.faults >= config.eject_after {
            Some(self.eject(fault, now, config, rng))
        } else {
            None
        };
        if fault == Fault::ConnectionLost {
            self.want_probe(now);
        }
        change
    }

    /// A request met `fault`, which does not count against it; but it may have gone.
    pub fn doubt(&mut self, fault: Fault, now: Instant) {
        if fault == Fault::ConnectionLost {
            self.want_probe(now);
        }
    }

    /// It was in nobody's use, and what was done to it meanwhile is not known: out until a probe finds it well, then
    /// back like after an outage.
    pub fn readmit(&mut self, now: Instant) {
        if self.probes.next.is_none() {
            return;
        }
        self.enter(Phase::Down, Some(Reason::Drained), now);
        self.faults = 0;
        self.failed_probes = 0;
        // One more is enough, whatever `rise` says.
        self.good_probes = u32::MAX;
        self.probes.pause = FAST_PROBE;
        self.want_probe(now);
    }

    /// Whether a good probe now would end an outage.
    pub fn would_let_in(&self, now: Instant, config: &config::Health) -> bool {
        match self.phase {
            Phase::Up => false,
            Phase::Down => self.good_probes.saturating_add(1) >= config.rise,
            Phase::Ejected { until } => now >= until,
        }
    }

    /// A probe begins.
    pub fn probe_started(&mut self, now: Instant) {
        self.probes.started = Some(now);
        self.probes.wanted = false;
    }

    /// A probe ended. `flowing` = an answer's bytes arrived within the last `interval`: busy is not
    /// dead, so then a failure does not count, unless connects are refused.
    pub fn probed(
        &mut self,
        result: Result<(), ProbeFailure>,
        flowing: bool,
        now: Instant,
        config: &config::Health,
        rng: &mut fastrand::Rng,
    ) -> Option<Change> {
        let change = match result {
            Ok(()) => self.good_probe(now, config),
            // Without descriptors here, every engine would be out.
            Err(ProbeFailure::Busy) => None,
            Err(failure) => self.failed_probe(failure, flowing, now, config, rng),
        };
        self.schedule(result.is_ok(), change.is_some(), now, config, rng);
        change
    }

    /// `config` is new: a probe that is further off than its interval is drawn near.
    pub fn reconfigured(&mut self, now: Instant, config: &config::Health) {
        if self.phase == Phase::Up {
            self.probes
                .draw_near(now + config.interval.min(LONGEST_PAUSE));
        }
    }

    /// Its share of the load, in thousandths, when it came back `away` ago.
    pub fn ramp(away: Duration) -> u32 {
        let grown = u128::from(FULL - RAMP_FROM) * away.as_millis() / RAMP.as_millis();
        u32::try_from(grown).map_or(FULL, |grown| (RAMP_FROM + grown).min(FULL))
    }

    fn good_probe(&mut self, now: Instant, config: &config::Health) -> Option<Change> {
        self.unreachable = false;
        self.proven = true;
        self.failed_probes = 0;
        self.good_probes = self.good_probes.saturating_add(1);
        match self.phase {
            Phase::Down if self.good_probes >= config.rise => Some(self.back(now)),
            Phase::Ejected { until } if now >= until => Some(self.back(now)),
            _ => None,
        }
    }

    fn failed_probe(
        &mut self,
        failure: ProbeFailure,
        flowing: bool,
        now: Instant,
        config: &config::Health,
        rng: &mut fastrand::Rng,
    ) -> Option<Change> {
        match failure {
            ProbeFailure::Refused | ProbeFailure::ConnectTimedOut | ProbeFailure::Unreachable => {
                self.unreachable = true;
            }
            ProbeFailure::ConnectFailed | ProbeFailure::Busy => {}
            _ => self.unreachable = false,
        }
        // What it has not proven it is asked for again by the next good probe, after a pause that doubles.
        if !failure.is_of_proof() {
            self.good_probes = 0;
        }
        let refused = failure == ProbeFailure::Refused;
        if !flowing || refused {
            self.failed_probes = self.failed_probes.saturating_add(1);
        }
        let reason = Reason::Probe(failure);
        match self.phase {
            Phase::Up if refused => Some(self.down(reason, now, rng)),
            Phase::Up if flowing => None,
            Phase::Up if !self.proven || self.failed_probes >= config.fall => {
                Some(self.down(reason, now, rng))
            }
            Phase::Up => None,
            Phase::Ejected { until } if now >= until => Some(self.down(reason, now, rng)),
            Phase::Ejected { .. } => None,
            Phase::Down => {
                self.reason = Some(reason);
                None
            }
        }
    }

    fn down(&mut self, reason: Reason, now: Instant, rng: &mut fastrand::Rng) -> Change {
        self.good_probes = 0;
        self.probes.pause = FAST_PROBE;
        self.probes.draw_near(now + jitter(FAST_PROBE, 0.1, rng));
        self.enter(Phase::Down, Some(reason), now)
    }

    fn eject(
        &mut self,
        fault: Fault,
        now: Instant,
        config: &config::Health,
        rng: &mut fastrand::Rng,
    ) -> Change {
        let quiet = now.saturating_duration_since(self.since);
        if quiet >= FORGIVEN_AFTER.max(self.ejected_for) {
            self.ejections = 0;
        }
        let doubled = config
            .eject_for
            .saturating_mul(1_u32.checked_shl(self.ejections).unwrap_or(u32::MAX))
            .min(LONGEST_EJECTION.max(config.eject_for));
        self.ejections = self.ejections.saturating_add(1);
        self.ejected_for = jitter(doubled, 0.2, rng);
        self.faults = 0;
        let until = now + self.ejected_for;
        self.probes.next = Some(until);
        self.enter(Phase::Ejected { until }, Some(Reason::Fault(fault)), now)
    }

    fn back(&mut self, now: Instant) -> Change {
        let was = self.reason;
        self.faults = 0;
        let change = self.enter(Phase::Up, None, now);
        self.ramping = true;
        Change {
            reason: was,
            ..change
        }
    }

    fn enter(&mut self, phase: Phase, reason: Option<Reason>, now: Instant) -> Change {
        let after = now.saturating_duration_since(self.since);
        self.phase = phase;
        self.reason = reason;
        self.since = now;
        self.ramping = false;
        Change {
            phase,
            reason,
            after,
        }
    }

    /// A probe at once, but not sooner than [`FAST_PROBE`] after the last one began: a thousand
    /// streams that break together are one question.
    pub fn want_probe(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Ejected { .. }) {
            return;
        }
        self.probes.wanted = true;
        let soonest = self
            .probes
            .started
            .map_or(now, |started| now.max(started + FAST_PROBE));
        self.probes.draw_near(soonest);
    }

    fn schedule(
        &mut self,
        good: bool,
        changed: bool,
        now: Instant,
        config: &config::Health,
        rng: &mut fastrand::Rng,
    ) {
        let pause = match self.phase {
            Phase::Ejected { until } if now < until => {
                self.probes.next = Some(until);
                return;
            }
            // Its probe could not be sent.
            Phase::Ejected { .. } => FAST_PROBE,
            Phase::Up => config.interval,
            Phase::Down => {
                let slowest = config.interval.max(FAST_PROBE);
                self.probes.pause = if good || changed {
                    FAST_PROBE
                } else {
                    self.probes.pause.saturating_mul(2).min(slowest)
                };
                self.probes.pause
            }
        };
        self.probes.next = Some(now + jitter(pause, 0.1, rng));
        if self.probes.wanted {
            self.want_probe(now);
        }
    }
}

impl Schedule {
    fn draw_near(&mut self, at: Instant) {
        self.next = self.next.map(|next| next.min(at));
    }
}

/// `duration`, give or take the part `by` of it, evenly.
fn jitter(duration: Duration, by: f64, rng: &mut fastrand::Rng) -> Duration {
    duration
        .min(LONGEST_PAUSE)
        .mul_f64(1.0 - by + 2.0 * by * rng.f64())
}

#[cfg(test)]
mod tests;
