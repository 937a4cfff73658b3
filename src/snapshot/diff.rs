use std::fmt;

use super::Snapshot;
use crate::balance::policy_name;
use crate::config::{self, Config, Engine};
use crate::pool::{Endpoint, Pool};
use crate::upstream::Address;

/// What a snapshot has that the one before had not, in one line for the log:
/// `epoch 7 -> 8: +node2:8000, -node1:8000, node0:8000 weight 1 -> 2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// `None` at the start.
    pub from: Option<u64>,
    pub to: u64,
    changes: Vec<String>,
}

impl Diff {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds what changed beside the snapshot.
    pub fn note(&mut self, change: String) {
        self.changes.push(change);
    }

    pub(super) fn between(previous: Option<&Snapshot>, next: &Snapshot) -> Self {
        let mut diff = Diff {
            from: previous.map(|previous| previous.epoch),
            to: next.epoch,
            changes: Vec::new(),
        };
        let before = previous.map_or(&[][..], |previous| &previous.pools);
        let prefixed = before.len() > 1 || next.pools.len() > 1;
        let label = |pool: &Pool| {
            if prefixed {
                format!("{}/", pool.name)
            } else {
                String::new()
            }
        };
        for pool in &next.pools {
            let old = before.iter().find(|old| old.name == pool.name);
            let old = old.map_or(&[][..], |old| &old.endpoints);
            diff.endpoints(&label(pool), old, &pool.endpoints);
        }
        for pool in before {
            if !next.pools.iter().any(|kept| kept.name == pool.name) {
                diff.changes.push(format!("-pool {}", pool.name));
            }
        }
        if let Some(previous) = previous {
            for pool in &next.config.pools {
                let old = previous
                    .config
                    .pools
                    .iter()
                    .find(|old| old.name == pool.name);
                let prefix = if prefixed {
                    format!("{}/", pool.name)
                } else {
                    String::new()
                };
                if let Some(old) = old {
                    diff.pool(&prefix, old, pool);
                }
            }
            diff.globals(&previous.config, &next.config);
            diff.changes
                .extend(config::changed_names(&previous.config, &next.config));
        }
        diff
    }

    fn endpoints(&mut self, prefix: &str, old: &[Endpoint], new: &[Endpoint]) {
        let named = |list: &[Endpoint], name: &str| list.iter().position(|e| &*e.name == name);
        for endpoint in new {
            if named(old, &endpoint.name).is_none() {
                let lost = if endpoint.state.is_resolved() {
                    ""
                } else {
                    " (does not resolve)"
                };
                self.changes
                    .push(format!("+{prefix}{}{lost}", endpoint.name));
            }
        }
        for endpoint in old {
            if named(new, &endpoint.name).is_none() {
                self.changes.push(format!("-{prefix}{}", endpoint.name));
            }
        }
        for endpoint in new {
            if let Some(index) = named(old, &endpoint.name) {
                self.endpoint(prefix, &old[index], endpoint);
            }
        }
    }

    fn endpoint(&mut self, prefix: &str, old: &Endpoint, new: &Endpoint) {
        let mut note = |what: String| self.changes.push(format!("{prefix}{} {what}", new.name));
        if old.weight != new.weight {
            note(format!("weight {} -> {}", old.weight, new.weight));
        }
        if old.max_in_flight != new.max_in_flight {
            note(format!(
                "max_in_flight {} -> {}",
                or_null(old.max_in_flight),
                or_null(new.max_in_flight)
            ));
        }
        if old.backup != new.backup {
            note(format!("backup {} -> {}", old.backup, new.backup));
        }
        if old.drain != new.drain {
            note(format!("drain {} -> {}", old.drain, new.drain));
        }
        if old.api_key != new.api_key {
            note("api_key".to_owned());
        }
        if old.state.target.address != new.state.target.address {
            note(format!("{} -> {}", address(old), address(new)));
        } else if old.state.id != new.state.id {
            note("tls".to_owned());
        }
    }

    fn pool(&mut self, prefix: &str, old: &config::Pool, new: &config::Pool) {
        let mut note = |what: String| self.changes.push(format!("{prefix}{what}"));
        if old.engine != new.engine {
            let name = |engine: Option<Engine>| engine.map_or("auto", Engine::as_str);
            let (old, new) = (name(old.engine), name(new.engine));
            note(format!("engine {old} -> {new}"));
        }
        if old.policy != new.policy {
            let (old, new) = (policy_name(old.policy), policy_name(new.policy));
            note(format!("policy {old} -> {new}"));
        }
        if old.retries != new.retries {
            note(format!("retries {} -> {}", old.retries, new.retries));
        }
        for (differs, key) in [
            (old.queue != new.queue, "queue"),
            (old.retry_budget != new.retry_budget, "retry_budget"),
            (old.drain_timeout != new.drain_timeout, "drain_timeout"),
            (old.heartbeat != new.heartbeat, "heartbeat"),
            (
                old.continue_streams != new.continue_streams,
                "continue_streams",
            ),
            (old.tls != new.tls, "tls"),
            (old.health != new.health, "health"),
            (old.timeouts != new.timeouts, "timeouts"),
        ] {
            if differs {
                note(key.to_owned());
            }
        }
    }

    fn globals(&mut self, old: &Config, new: &Config) {
        for (differs, key) in [
            (old.listen != new.listen, "listen"),
            (old.admin != new.admin, "admin"),
            (old.status_allow != new.status_allow, "status_allow"),
            (
                old.trusted_proxies != new.trusted_proxies,
                "trusted_proxies",
            ),
            (old.threads != new.threads, "threads"),
            (old.pid_file != new.pid_file, "pid_file"),
            (old.resolve != new.resolve, "resolve"),
            (old.shutdown_grace != new.shutdown_grace, "shutdown_grace"),
            (old.log != new.log, "log"),
            (old.access_log != new.access_log, "access_log"),
            (old.expose != new.expose, "expose"),
            (old.limits != new.limits, "limits"),
            (old.client != new.client, "client"),
            (old.keepalive != new.keepalive, "keepalive"),
            (old.tracing != new.tracing, "tracing"),
        ] {
            if differs {
                self.changes.push(key.to_owned());
            }
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some(from) if from != self.to => write!(f, "epoch {from} -> {}: ", self.to)?,
            _ => write!(f, "epoch {}: ", self.to)?,
        }
        if self.changes.is_empty() {
            return f.write_str("nothing changed");
        }
        f.write_str(&self.changes.join(", "))
    }
}

fn or_null(value: Option<u32>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

fn address(endpoint: &Endpoint) -> String {
    match &endpoint.state.target.address {
        _ if !endpoint.state.is_resolved() => "unresolved".to_owned(),
        Address::Tcp(address) => address.ip().to_string(),
        Address::Unix(path) => path.display().to_string(),
    }
}
