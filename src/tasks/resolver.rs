//! Looks host names up again, so that a node that moves is followed without a restart.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::Config;
use crate::snapshot::{Resolved, SnapshotCell, names};

/// One look-up. glibc's own limit is 5 s a server and try; an answer that takes longer than this
/// comes in a later round.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// Look-ups at once. `getaddrinfo` blocks a thread and cannot be cancelled, so this also bounds the
/// threads that a dead DNS server can hold.
const LOOKUPS: usize = 8;
/// While a name fails, it is looked up again after this, doubling to `resolve`.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// Whatever is configured.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Looks names up.
#[async_trait]
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of `host`, with `port` put to them.
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The system's resolver (`getaddrinfo`: /etc/hosts, nsswitch, resolv.conf), as nginx uses it for the
/// names in its configuration.
#[derive(Debug, Clone)]
pub struct SystemResolver {
    slots: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }
}

#[async_trait]
impl Resolve for SystemResolver {
    async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let slot = Arc::clone(&self.slots)
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let name = (host.to_owned(), port);
        // A task of its own, which outlives a caller that gives up: the slot is held for as long as
        // the thread is.
        tokio::spawn(async move {
            let found = tokio::net::lookup_host(name).await.map(Iterator::collect);
            drop(slot);
            found
        })
        .await
        .map_err(io::Error::other)?
    }
}

/// What a round of look-ups found.
#[derive(Debug, Default)]
pub struct Round {
    pub resolved: Resolved,
    /// Names without an answer, and why.
    pub failed: Vec<(String, String)>,
}

/// Looks up every name of `config`, all at once, within [`LOOKUP_TIMEOUT`]. For a start or a reload:
/// what it finds goes into [`SnapshotCell::apply`].
pub async fn resolve(config: &Config, resolver: &Arc<dyn Resolve>) -> Round {
    let mut lookups = JoinSet::new();
    for (host, port) in names(config) {
        let resolver = Arc::clone(resolver);
        lookups.spawn(async move {
            let found = match timeout(LOOKUP_TIMEOUT, resolver.lookup(&host, port)).await {
                Ok(Ok(addresses)) if addresses.is_empty() => Err("no address".to_owned()),
                Ok(Ok(addresses)) => Ok(addresses),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {LOOKUP_TIMEOUT:?}")),
            };
            (host, port, found)
        });
    }
    let mut round = Round::default();
    while let Some(lookup) = lookups.join_next().await {
        match lookup {
            Ok((host, port, Ok(addresses))) => round.resolved.insert(&host, port, addresses),
            Ok((host, _, Err(error))) => round.failed.push((host, error)),
            Err(error) => log::error!("a look-up panicked: {error}"),
        }
    }
    round.failed.sort();
    round.failed.dedup_by(|a, b| a.0 == b.0);
    round
}

/// Logs each name that has begun to fail, or has stopped; not the ones that go on failing.
#[derive(Debug, Default)]
pub struct Failing(BTreeSet<String>);

impl Failing {
    pub fn note(&mut self, round: &Round) {
        let now: BTreeSet<String> = round.failed.iter().map(|(host, _)| host.clone()).collect();
        for (host, error) in &round.failed {
            if !self.0.contains(host) {
                log::warn!("{host} does not resolve, its last addresses stay: {error}");
            }
        }
        for host in self.0.difference(&now) {
            log::info!("{host} resolves again");
        }
        self.0 = now;
    }
}

/// Every `resolve` of the configuration (sooner while a name fails) looks all names up and puts
/// other addresses into effect, until `shutdown`. `failing` is what the start has logged already.
pub async fn run(
    cell: Arc<SnapshotCell>,
    resolver: Arc<dyn Resolve>,
    mut failing: Failing,
    shutdown: impl Future<Output = ()>,
) {
    tokio::pin!(shutdown);
    let mut changes = cell.changes();
    let mut retry = FIRST_RETRY;
    let mut last = Instant::now();
    loop {
        let pause = {
            let snapshot = cell.load();
            let every = snapshot.config.resolve.clamp(SHORTEST, LONGEST);
            let missing = snapshot.endpoints().any(|endpoint| !endpoint.is_resolved());
            if missing || !failing.0.is_empty() {
                retry.min(every)
            } else {
                every
            }
        };
        tokio::select! {
            () = &mut shutdown => return,
            // Another configuration may want another pause, and may have brought names that fail.
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                retry = FIRST_RETRY;
                continue;
            }
            () = sleep_until(last + pause) => {}
        }
        let config = Arc::clone(&cell.load().config);
        let round = tokio::select! {
            () = &mut shutdown => return,
            round = resolve(&config, &resolver) => round,
        };
        last = Instant::now();
        retry = if round.failed.is_empty() {
            FIRST_RETRY
        } else {
            retry.saturating_mul(2).min(LONGEST)
        };
        failing.note(&round);
        match cell.readdress(&round.resolved) {
            Ok(Some(diff)) => log::info!("{diff}"),
            Ok(None) => {}
            Err(error) => log::error!("the new addresses cannot be used: {error}"),
        }
        // That was our own doing.
        changes.mark_unchanged();
    }
}

#[cfg(test)]
mod tests;
