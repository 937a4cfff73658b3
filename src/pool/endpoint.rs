mod catalog;
mod draining;
mod loss;
mod progress;
mod report;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use catalog::LastCatalog;
pub use report::{LastReport, Report};

use super::drain::Drain;
use super::fault::{Fault, ProbeFailure, Reason};
use super::health::{Change, FULL, Health, Phase};
use super::places::Places;
use super::recall::Recalls;
use super::status::{EndpointStatus, State};
use crate::config::{self, Secret};
use crate::telemetry::metrics::EndpointMetrics;
use crate::upstream::{Address, IdlePool, Target};

/// One epoch's view of an endpoint, in one pool.
pub struct Endpoint {
    pub state: Arc<EndpointState>,
    /// `node0:8000`; `node0:8000@10.0.0.1` when the host has several addresses; `unix:/path`.
    pub name: Arc<str>,
    /// 1 to 1000.
    pub weight: u32,
    /// Of [`EndpointState::in_flight`], which all pools and epochs share; `None` = no cap.
    pub max_in_flight: Option<u32>,
    /// Only used when no other is left.
    pub backup: bool,
    /// Drained by the configuration.
    pub drain: bool,
    pub api_key: Option<Secret>,
    /// What it calls the model, where that is a name of its own.
    pub model: Option<Arc<str>>,
    /// Filled at its first use. Shared by all epochs.
    pub metrics: Arc<OnceLock<EndpointMetrics>>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("weight", &self.weight)
            .field("in_flight", &self.state.in_flight())
            .finish_non_exhaustive()
    }
}

/// What all pools and epochs share of an endpoint: its load, its health, its idle connections. It
/// lives as long as a snapshot or a lease holds it, and a reload finds it again by its identity.
pub struct EndpointState {
    /// Unique in this process.
    pub id: u64,
    pub target: Target,
    pub idle: IdlePool,
    /// What it says that it is and serves.
    pub catalog: LastCatalog,
    /// How loaded it says that it is.
    pub report: LastReport,
    /// Shared by the endpoints of one url and address that differ in their TLS settings.
    pub(super) places: Arc<Places>,
    requests: AtomicU64,
    resolved: bool,
    /// The origin of the times below.
    born: Instant,
    /// When it last answered at all, in milliseconds, plus one; 0 = never.
    last_answer: AtomicU64,
    /// The same, of progress.
    last_progress: AtomicU64,
    /// The same, of the first of the requests that it holds.
    busy_since: AtomicU64,
    /// What [`Self::health`] comes to, for those who choose: see [`Gate`].
    gate: AtomicU8,
    /// When the ramp began, in milliseconds, plus one; 0 = full share.
    ramp_from: AtomicU64,
    /// A success would change something.
    note_success: AtomicBool,
    settings: ArcSwap<Settings>,
    inner: Mutex<Inner>,
    pub(super) recalls: Recalls,
    /// When it last stopped accepting connections, having been up; when it last came up again; when a
    /// request of it was last lost without an answer. Milliseconds, plus one; 0 = never.
    fell: AtomicU64,
    rose: AtomicU64,
    lost: AtomicU64,
    /// When a stream of it was last cut.
    cut: AtomicU64,
    /// The next probe may be sooner than the prober thinks.
    pub(crate) rescheduled: Notify,
    /// It is usable again.
    pub(crate) recovered: Notify,
}

/// What an endpoint's health goes by. Replaced on reload.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// For logs, as [`Endpoint::name`].
    pub name: Arc<str>,
    pub health: config::Health,
    /// What it runs; `None` = what it says.
    pub engine: Option<config::Engine>,
    /// For the probe.
    pub api_key: Option<Secret>,
    /// It gets no new requests.
    pub drain: bool,
    /// How long its requests may stay when it drains; `None` = until they end.
    pub drain_timeout: Option<Duration>,
}

struct Inner {
    health: Health,
    drain: Drain,
    rng: fastrand::Rng,
    /// By reason, few of them.
    ejections: Vec<(&'static str, u64)>,
    /// A connect was refused since the last good probe.
    refused: bool,
}

/// Whether an endpoint may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Usable,
    /// Fails its probes, yet accepts connections: the first to be tried when all are out.
    FailsProbes,
    /// Fails requests, yet accepts connections: the second.
    FailsRequests,
    /// The last connect was refused, timed out or found no way.
    Unreachable,
    /// Gets no new requests on purpose, however it is.
    Drains,
}

impl EndpointState {
    /// A new endpoint is usable until a probe says otherwise.
    pub fn new(target: Target, settings: Arc<Settings>, now: Instant) -> Self {
        Self::build(target, settings, Health::new(now), true, now)
    }

    /// An endpoint whose name has never resolved: down, and never connected to.
    pub fn unresolved(target: Target, settings: Arc<Settings>, now: Instant) -> Self {
        Self::build(target, settings, Health::unresolved(now), false, now)
    }

    fn build(
        target: Target,
        settings: Arc<Settings>,
        health: Health,
        resolved: bool,
        now: Instant,
    ) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let state = Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            target,
            idle: IdlePool::new(),
            catalog: LastCatalog::default(),
            places: Arc::default(),
            report: LastReport::default(),
            requests: AtomicU64::new(0),
            resolved,
            born: now,
            last_answer: AtomicU64::new(0),
            last_progress: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            gate: AtomicU8::new(Gate::Usable as u8),
            ramp_from: AtomicU64::new(0),
            note_success: AtomicBool::new(true),
            settings: ArcSwap::new(settings),
            inner: Mutex::new(Inner {
                health,
                drain: Drain::default(),
                rng: fastrand::Rng::new(),
                ejections: Vec::new(),
                refused: false,
            }),
            recalls: Recalls::default(),
            fell: AtomicU64::new(0),
            rose: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            rescheduled: Notify::new(),
            recovered: Notify::new(),
        };
        state.publish(&state.inner.lock());
        state
    }

    /// Counts together with `other`, which is the same engine reached with other TLS settings. Only
    /// before the first lease.
    pub(crate) fn counting_with(mut self, other: &EndpointState) -> Self {
        self.places = Arc::clone(&other.places);
        self
    }

    /// `http://node0:8000`, `https://…` or `unix:/path`.
    pub fn url(&self) -> String {
        match (&self.target.address, &self.target.tls) {
            (Address::Unix(path), _) => format!("unix:{}", path.display()),
            (Address::Tcp(_), None) => format!("http://{}", self.target.authority),
            (Address::Tcp(_), Some(_)) => format!("https://{}", self.target.authority),
        }
    }

    /// Requests it holds: exactly the number of its live leases.
    pub fn in_flight(&self) -> u32 {
        self.places.taken()
    }

    /// Leases ever taken.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether it has an address.
    pub fn is_resolved(&self) -> bool {
        self.resolved
    }

    /// What it runs, by the configuration or else by what it says; `None` = it has not said yet.
    pub fn engine(&self) -> Option<config::Engine> {
        let engine = self.settings.load().engine;
        engine.or_else(|| self.catalog.engine())
    }

    /// Whether requests go there without need.
    pub fn is_up(&self) -> bool {
        self.gate() == Gate::Usable
    }

    /// It makes no progress, and a canary got no answer: it is out, and its requests are to go elsewhere.
    pub fn hung(&self, now: Instant) {
        if self.is_up() {
            self.fault(Fault::Hung, now);
        }
        self.recall(Fault::Hung);
    }

    /// A request was answered well. No lock unless there was something wrong before.
    pub fn success(&self, _now: Instant) {
        if !self.note_success.load(Ordering::Acquire) {
            return;
        }
        let mut inner = self.inner.lock();
        inner.health.success();
        self.publish(&inner);
    }

    /// A request met `fault`. A 5xx is one only if another endpoint then answered the same request
    /// well: the relay calls this then, and not before.
    pub fn fault(&self, fault: Fault, now: Instant) {
        let settings = self.settings.load();
        let mut inner = self.inner.lock();
        let Inner {
            health,
            drain,
            rng,
            ejections,
            refused,
        } = &mut *inner;
        // It may be on its way out, which is meant; but whether it is still there is worth knowing.
        let change = if drain.is_on() && fault != Fault::ConnectRefused {
            health.doubt(fault, now);
            None
        } else {
            health.fault(fault, now, &settings.health, rng)
        };
        if let Some(change) = &change
            && change.phase != Phase::Up
            && !drain.is_on()
        {
            count(ejections, fault.reason());
        }
        let is_meant = drain.is_on();
        let is_first_refusal = fault == Fault::ConnectRefused && !std::mem::replace(refused, true);
        self.publish(&inner);
        drop(inner);
        self.rescheduled.notify_one();
        report(&settings.name, change, is_meant, now);
        if is_first_refusal {
            self.recall(Fault::ConnectRefused);
        }
    }

    /// How often it was taken out, by reason, since it is known.
    pub fn removals(&self) -> Vec<(&'static str, u64)> {
        self.inner.lock().ejections.clone()
    }

    /// When the next probe is due; `None` = never.
    pub fn next_probe(&self) -> Option<Instant> {
        self.inner.lock().health.next_probe()
    }

    /// What the probe and the log go by.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// Whether a good probe now would end an outage.
    pub fn would_be_let_in(&self, now: Instant) -> bool {
        let settings = self.settings.load();
        self.inner.lock().health.would_let_in(now, &settings.health)
    }

    /// A probe begins.
    pub fn probe_started(&self, now: Instant) {
        self.inner.lock().health.probe_started(now);
    }

    /// A probe ended.
    pub fn probed(&self, result: Result<(), ProbeFailure>, now: Instant) {
        let settings = self.settings.load();
        let flowing = self.bytes_since(now, settings.health.interval);
        let mut inner = self.inner.lock();
        let Inner {
            health,
            drain,
            rng,
            ejections,
            refused,
        } = &mut *inner;
        let change = health.probed(result, flowing, now, &settings.health, rng);
        if let Some(change) = &change
            && change.phase != Phase::Up
            && !drain.is_on()
        {
            count(ejections, "probe");
        }
        let is_meant = drain.is_on();
        let is_refused = result == Err(ProbeFailure::Refused);
        let is_first_refusal = is_refused && !*refused;
        *refused = is_refused || (*refused && result.is_err());
        self.publish(&inner);
        drop(inner);
        report(&settings.name, change, is_meant, now);
        if is_first_refusal {
            self.recall(Fault::ConnectRefused);
        }
    }

    /// Puts a new epoch's settings into effect.
    pub fn configure(&self, settings: &Arc<Settings>, now: Instant) {
        self.change_drain(now, |by| {
            by.configuration = settings.drain;
            by.removal = false;
        });
        if **self.settings.load() == **settings {
            return;
        }
        self.settings.store(Arc::clone(settings));
        let mut inner = self.inner.lock();
        inner.health.reconfigured(now, &settings.health);
        drop(inner);
        self.rescheduled.notify_one();
    }

    pub fn status(&self, now: Instant) -> EndpointStatus {
        let inner = self.inner.lock();
        let (health, drain) = (&inner.health, &inner.drain);
        let share = self.share(now);
        let wall = SystemTime::now();
        EndpointStatus {
            state: match health.phase() {
                _ if drain.is_on() => State::Draining,
                Phase::Up if share < FULL => State::Ramping,
                Phase::Up => State::Up,
                Phase::Down => State::Down,
                Phase::Ejected { .. } => State::Ejected,
            },
            reason: health.reason(),
            drained_by: drain.by(),
            since: wall
                - now.saturating_duration_since(drain.since().unwrap_or_else(|| health.since())),
            next_probe: health
                .next_probe()
                .map(|next| wall + next.saturating_duration_since(now)),
            in_flight: self.in_flight(),
            requests: self.requests(),
            consecutive_faults: health.faults(),
            ejections: inner.ejections.clone(),
            share,
        }
    }

    /// One more in flight, unless that were more than `cap`.
    pub(super) fn take(&self, cap: Option<u32>, now: Instant) -> bool {
        let before = self.places.take(cap);
        if before.is_some() {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        if before == Some(0) {
            self.note_time(&self.busy_since, now);
        }
        before.is_some()
    }

    pub(super) fn give_back(&self) {
        self.places.give_back();
    }

    pub(super) fn gate(&self) -> Gate {
        match self.gate.load(Ordering::Acquire) {
            0 => Gate::Usable,
            1 => Gate::FailsProbes,
            2 => Gate::FailsRequests,
            4 => Gate::Drains,
            _ => Gate::Unreachable,
        }
    }

    /// Its part of its weight, in thousandths.
    pub(super) fn share(&self, now: Instant) -> u32 {
        match self.ramp_from.load(Ordering::Acquire) {
            0 => FULL,
            from => Health::ramp(Duration::from_millis(self.stamp(now).saturating_sub(from))),
        }
    }

    /// A connect was refused, and no probe has been good since.
    pub fn is_refusing(&self) -> bool {
        self.inner.lock().refused
    }

    /// It is down, and not one answer came to the last probe.
    pub fn answers_no_probe(&self) -> bool {
        let reason = self.inner.lock().health.reason();
        matches!(
            reason,
            Some(Reason::Probe(
                ProbeFailure::TimedOut | ProbeFailure::ConnectTimedOut
            ))
        )
    }

    /// Milliseconds since birth, plus one.
    fn stamp(&self, at: Instant) -> u64 {
        let millis = at.saturating_duration_since(self.born).as_millis();
        u64::try_from(millis).map_or(u64::MAX, |millis| millis.saturating_add(1))
    }

    /// Makes the atomics say what `inner` says. Called with its lock held.
    fn publish(&self, inner: &Inner) {
        let health = &inner.health;
        let gate = match health.phase() {
            _ if inner.drain.is_on() => Gate::Drains,
            Phase::Up => Gate::Usable,
            _ if health.unreachable() => Gate::Unreachable,
            Phase::Down => Gate::FailsProbes,
            Phase::Ejected { .. } => Gate::FailsRequests,
        };
        let ramp = health.ramp_from().map_or(0, |from| self.stamp(from));
        self.ramp_from.store(ramp, Ordering::Release);
        self.note_success
            .store(health.would_note_success(), Ordering::Release);
        // In one order with `Places::watch`, as a place that is given back.
        let before = self.gate.swap(gate as u8, Ordering::SeqCst);
        if before == gate as u8 {
            return;
        }
        let since = self.stamp(health.since());
        if gate == Gate::Usable {
            self.rose.store(since, Ordering::Release);
            self.recovered.notify_one();
        } else if [Gate::Usable as u8, Gate::FailsRequests as u8].contains(&before)
            && gate == Gate::Unreachable
        {
            self.fell.store(since, Ordering::Release);
        }
        self.places.changed();
    }
}

fn count(counts: &mut Vec<(&'static str, u64)>, reason: &'static str) {
    match counts.iter_mut().find(|(known, _)| *known == reason) {
        Some((_, count)) => *count += 1,
        None => counts.push((reason, 1)),
    }
}

/// `is_meant`: it drains, and what becomes of it then surprises nobody.
fn report(name: &str, change: Option<Change>, is_meant: bool, now: Instant) {
    let Some(change) = change else { return };
    let why = change.reason.map(|reason| reason.to_string());
    let why = why.as_deref().unwrap_or("new");
    let after = change.after.as_secs_f32();
    match change.phase {
        Phase::Up => log::info!("endpoint {name} is up again after {after:.1} s ({why})"),
        _ if is_meant => log::info!("endpoint {name}, which drains, is down: {why}"),
        Phase::Down => log::warn!("endpoint {name} is down: {why}"),
        Phase::Ejected { until } => {
            let left = until.saturating_duration_since(now).as_secs_f32();
            log::warn!("endpoint {name} is ejected for {left:.1} s: {why}");
        }
    }
}

#[cfg(test)]
mod tests;
