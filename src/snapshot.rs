//! What a request sees of the configuration: one immutable [`Snapshot`], taken whole at its start.
//!
//! A reload builds the next one from a new [`Config`] (a new *epoch*), the resolver from other
//! addresses for the same configuration (the same epoch, a new *generation*: the number an operator
//! sees moves only when the operator did something). Both go through [`SnapshotCell`], one at a
//! time. In-flight counts, health, idle connections, retry budgets, queues and whose turn it is carry over.

mod build;
mod diff;
mod resolved;
mod scopes;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

pub use build::BuildError;
pub use diff::Diff;
pub use resolved::{Resolved, names};
pub use scopes::ModelScope;

use crate::admission::Keyring;
use crate::config::{Config, Url};
use crate::pool::{EndpointState, Pool, Settings};
use crate::routing::{Route, Routes};
use crate::upstream::TlsClient;
use build::{Builder, Identity, TlsKey};
use scopes::Scopes;

/// The configuration and the pools made of it.
pub struct Snapshot {
    /// Counts the configurations, from 1.
    pub epoch: u64,
    /// Counts the snapshots, from 1.
    pub generation: u64,
    pub config: Arc<Config>,
    /// In the configuration's order, at least one.
    pub pools: Vec<Arc<Pool>>,
    /// Which pool serves which model.
    pub routes: Routes,
    /// `None`: no keys are configured, everybody may ask.
    pub keyring: Option<Keyring>,
    /// What the names of `config` resolve to, as far as is known.
    pub resolved: Resolved,
    scopes: Scopes,
    /// Every endpoint of `pools` once, with the settings its health goes by: those of the first
    /// pool that names it.
    endpoints: Vec<(Arc<EndpointState>, Arc<Settings>)>,
    /// These and the ones that only leases still hold, so that a reload finds both again.
    known: HashMap<Identity, Weak<EndpointState>>,
    ca_files: HashMap<PathBuf, Arc<[u8]>>,
    tls_clients: HashMap<TlsKey, Arc<TlsClient>>,
}

impl Snapshot {
    /// Builds the pools of `config`, with what lives on from `previous`, and says what is different.
    ///
    /// The same `Arc` as in `previous` means that only addresses may have changed: the epoch stays,
    /// and no file is read again. A name that `resolved` does not have keeps the addresses it had; if
    /// it never had any, it stands as one endpoint that is down. Nothing that is shared with
    /// `previous` is touched before [`SnapshotCell`] puts the result into effect.
    ///
    /// # Errors
    /// A CA file that cannot be read, or a TLS client that cannot be made.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the snapshot keeps it; a caller that does too shows it with its clone"
    )]
    pub fn build(
        config: Arc<Config>,
        resolved: &Resolved,
        previous: Option<&Snapshot>,
    ) -> Result<(Snapshot, Diff), BuildError> {
        let snapshot = Builder::new(&config, resolved, previous).build(&config)?;
        let diff = Diff::between(previous, &snapshot);
        Ok((snapshot, diff))
    }

    /// The first one, for what belongs to none.
    pub fn default_pool(&self) -> &Arc<Pool> {
        &self.pools[0]
    }

    /// What is counted for the model of a route.
    pub fn model(&self, route: &Route<'_>) -> Option<&Arc<ModelScope>> {
        self.scopes.find(route.pool, route.label)
    }

    /// Every model that something is counted for.
    pub fn models(&self) -> impl Iterator<Item = &Arc<ModelScope>> {
        self.scopes.all()
    }

    /// Every endpoint once, in however many pools it is.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<EndpointState>> {
        self.endpoints.iter().map(|(state, _)| state)
    }

    /// These and the ones of earlier epochs that still hold requests.
    pub fn all_endpoints(&self) -> impl Iterator<Item = Arc<EndpointState>> {
        self.known.values().filter_map(Weak::upgrade)
    }

    /// Those of earlier epochs that the configuration has no more and that still hold requests.
    pub fn leaving(&self) -> impl Iterator<Item = Arc<EndpointState>> {
        self.all_endpoints().filter(|state| {
            state.in_flight() > 0 && !self.endpoints().any(|listed| listed.id == state.id)
        })
    }

    /// A name that an operator drained as a whole stays so, whatever it resolves to by now.
    fn drain_as(&self, previous: &Snapshot, now: Instant) {
        let mut drained: HashMap<&Url, bool> = HashMap::new();
        for (url, state) in previous.by_url() {
            let is_drained = state.drained_by_command_for(now).is_some();
            *drained.entry(url).or_insert(true) &= is_drained;
        }
        if !drained.values().any(|all| *all) {
            return;
        }
        let known: HashSet<u64> = previous.endpoints().map(|state| state.id).collect();
        for (url, state) in self.by_url() {
            if !known.contains(&state.id) && drained.get(url) == Some(&true) {
                state.drain(now);
            }
        }
    }

    /// Every endpoint of the configuration, with its url there.
    fn by_url(&self) -> impl Iterator<Item = (&Url, Arc<EndpointState>)> {
        let listed: HashSet<u64> = self.endpoints().map(|state| state.id).collect();
        let known = self.known.iter();
        known.filter_map(move |(identity, state)| {
            let state = state.upgrade()?;
            listed.contains(&state.id).then(|| (identity.url(), state))
        })
    }

    /// Gives what is shared with earlier snapshots this one's settings.
    fn take_effect(&self, now: Instant) {
        for (state, settings) in &self.endpoints {
            state.configure(settings, now);
        }
        if let Some(keyring) = &self.keyring {
            keyring.take_effect(now);
        }
        for (pool, config) in self.pools.iter().zip(&self.config.pools) {
            pool.retry_budget.configure(&config.retry_budget);
            pool.queue.move_to(pool, now);
        }
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("epoch", &self.epoch)
            .field("generation", &self.generation)
            .field("pools", &self.pools)
            .finish_non_exhaustive()
    }
}

/// Where the current snapshot is. Readers never wait; writers go one at a time.
#[derive(Debug)]
pub struct SnapshotCell {
    current: ArcSwap<Snapshot>,
    writing: Mutex<()>,
    generation: watch::Sender<u64>,
}

impl SnapshotCell {
    pub fn new(snapshot: Snapshot) -> Self {
        snapshot.take_effect(Instant::now());
        Self {
            generation: watch::Sender::new(snapshot.generation),
            current: ArcSwap::from_pointee(snapshot),
            writing: Mutex::new(()),
        }
    }

    /// For a look in passing.
    pub fn load(&self) -> Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// For as long as a request lasts.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The generation, each time there is a new one.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Puts a new configuration into effect, as a new epoch even if nothing in it is different: a
    /// reload that was asked for is one that can be seen. On an error everything stays as it was.
    ///
    /// # Errors
    /// See [`Snapshot::build`].
    pub fn apply(&self, config: Arc<Config>, resolved: &Resolved) -> Result<Diff, BuildError> {
        let _writing = self.writing.lock();
        self.replace(config, resolved)
    }

    /// Puts other addresses of the current configuration's names into effect; `None` if they are the
    /// ones we have. The epoch stays.
    ///
    /// # Errors
    /// See [`Snapshot::build`].
    pub fn readdress(&self, resolved: &Resolved) -> Result<Option<Diff>, BuildError> {
        let _writing = self.writing.lock();
        let current = self.current.load();
        // The configuration may have changed since the look-up began; what it no longer names
        // falls away here, and what it newly names was looked up by its reload.
        if resolved.over(&current.resolved, &current.config) == current.resolved {
            return Ok(None);
        }
        self.replace(Arc::clone(&current.config), resolved)
            .map(Some)
    }

    fn replace(&self, config: Arc<Config>, resolved: &Resolved) -> Result<Diff, BuildError> {
        let previous = self.current.load_full();
        let (snapshot, diff) = Snapshot::build(config, resolved, Some(&previous))?;
        let snapshot = Arc::new(snapshot);
        snapshot.drain_as(&previous, Instant::now());
        snapshot.take_effect(Instant::now());
        self.current.store(Arc::clone(&snapshot));
        self.generation.send_replace(snapshot.generation);
        for state in previous.endpoints() {
            if !snapshot.endpoints().any(|kept| Arc::ptr_eq(kept, state)) {
                state.idle.clear();
                state.removed(Instant::now());
            }
        }
        Ok(diff)
    }
}

#[cfg(test)]
mod tests;
