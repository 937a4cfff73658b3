//! What the connections of one engine share.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::http::DateClock;
use super::metrics::Metrics;
use super::script::{Death, Fault, Flavour, Recorder, Script};
use super::store::Store;

/// What the engine core is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Running,
    /// No request gets its first token.
    Held,
    /// No request gets any token, as on a hung GPU.
    Frozen,
    Dying(Death),
}

/// A script and the slots it gives out.
#[derive(Debug)]
pub(super) struct Active {
    pub script: Arc<Script>,
    pub slots: Arc<Semaphore>,
}

impl Active {
    pub(super) fn new(script: Script) -> Self {
        let slots = script.max_running.unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            script: Arc::new(script),
            slots: Arc::new(Semaphore::new(slots)),
        }
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    pub active: Mutex<Active>,
    pub faults: Mutex<VecDeque<Fault>>,
    pub state: watch::Sender<State>,
    pub metrics: Metrics,
    /// What `/metrics` shows while it is frozen: the engine core, which counts, stands still.
    pub frozen_page: Mutex<Option<String>>,
    pub recorder: Mutex<Recorder>,
    pub accepts: AtomicU64,
    /// Inference requests read whole since the last [`super::Engine::hold`].
    pub arrivals: watch::Sender<usize>,
    pub in_flight: AtomicUsize,
    pub left: AtomicU64,
    /// By `X-Request-Id`.
    pub departures: Mutex<Vec<(String, Instant)>>,
    pub completed: AtomicU64,
    pub connections: Mutex<HashMap<u64, AbortHandle>>,
    /// Connections that are dropped from now on are reset.
    pub resetting: AtomicBool,
    pub responses: Store,
    pub date: DateClock,
    pub ids: AtomicU64,
}

/// No lock of the engine is held over code that can panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(script: Script) -> Arc<Self> {
        Arc::new(Self {
            active: Mutex::new(Active::new(script)),
            faults: Mutex::default(),
            state: watch::channel(State::Running).0,
            metrics: Metrics::default(),
            frozen_page: Mutex::default(),
            recorder: Mutex::default(),
            accepts: AtomicU64::new(0),
            arrivals: watch::channel(0).0,
            in_flight: AtomicUsize::new(0),
            left: AtomicU64::new(0),
            departures: Mutex::default(),
            completed: AtomicU64::new(0),
            connections: Mutex::default(),
            resetting: AtomicBool::new(false),
            responses: Store::default(),
            date: DateClock::default(),
            ids: AtomicU64::new(1),
        })
    }

    pub(super) fn script(&self) -> Arc<Script> {
        Arc::clone(&lock(&self.active).script)
    }

    /// `/metrics` as it is now.
    pub(super) fn metrics_page(&self, script: &Script) -> String {
        match script.flavour {
            Flavour::Vllm => self.metrics.vllm(&script.model),
            Flavour::Sglang => self.metrics.sglang(&script.model),
        }
    }

    /// The fault of the next connection or of the next request.
    pub(super) fn next_fault(&self, script: &Script, of_connection: bool) -> Option<Fault> {
        let mut queue = lock(&self.faults);
        if queue
            .front()
            .is_some_and(|fault| fault.is_of_connection() == of_connection)
        {
            return queue.pop_front();
        }
        script
            .fault
            .clone()
            .filter(|fault| fault.is_of_connection() == of_connection)
    }

    /// Sixteen hexadecimal digits that no other answer of this engine has.
    pub(super) fn new_id(&self) -> String {
        let number = self.ids.fetch_add(1, Relaxed);
        format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// A request between its arrival and the end of its answer.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Shared>);

impl InFlight {
    pub(super) fn enter(shared: &Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Relaxed);
        shared.arrivals.send_modify(|count| *count += 1);
        Self(Arc::clone(shared))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// A request in the queue, until it is dropped.
pub(super) struct Waiting(Arc<Shared>);

impl Waiting {
    /// `None`: the queue is full.
    pub(super) fn enter(shared: &Arc<Shared>, limit: Option<usize>) -> Option<Self> {
        let entered = shared
            .metrics
            .waiting
            .fetch_update(Relaxed, Relaxed, |count| {
                (count < limit.unwrap_or(usize::MAX)).then_some(count + 1)
            });
        entered.ok().map(|_| Self(Arc::clone(shared)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.metrics.waiting.fetch_sub(1, Relaxed);
    }
}

/// A request that runs: its slot and the tokens it holds.
pub(super) struct Running {
    shared: Arc<Shared>,
    tokens: usize,
    _slot: OwnedSemaphorePermit,
}

impl Running {
    pub(super) fn enter(
        shared: &Arc<Shared>,
        prompt_tokens: usize,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        let metrics = &shared.metrics;
        metrics.running.fetch_add(1, Relaxed);
        metrics.held_tokens.fetch_add(prompt_tokens, Relaxed);
        metrics
            .prompt_tokens
            .fetch_add(prompt_tokens as u64, Relaxed);
        metrics.prompt_lengths.observe(prompt_tokens as f64);
        Self {
            shared: Arc::clone(shared),
            tokens: prompt_tokens,
            _slot: slot,
        }
    }

    pub(super) fn generated(&mut self, tokens: usize) {
        self.tokens += tokens;
        self.shared.metrics.held_tokens.fetch_add(tokens, Relaxed);
        self.shared
            .metrics
            .generation_tokens
            .fetch_add(tokens as u64, Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.metrics.running.fetch_sub(1, Relaxed);
        self.shared
            .metrics
            .held_tokens
            .fetch_sub(self.tokens, Relaxed);
    }
}
