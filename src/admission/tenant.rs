use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::account::{Account, Limits};
use super::{Limited, RateLimits};
use crate::config::{self, KeyModels};
use crate::telemetry::metrics::KeyMetrics;

/// Whom a key is for, as one configuration has it.
#[derive(Debug)]
pub struct Tenant {
    /// The key's, for logs and metrics.
    pub name: Arc<str>,
    models: Models,
    is_admin: bool,
    limits: Limits,
    /// Held for nanoseconds, and never across another lock.
    account: Arc<Mutex<Account>>,
    /// Filled at its first use. Shared by all epochs of the key, as `account` is.
    pub metrics: Arc<OnceLock<KeyMetrics>>,
}

#[derive(Debug)]
enum Models {
    All,
    Some(HashSet<Box<str>>),
}

impl Tenant {
    /// `previous` is the same key in the configuration before: what it has used is used here too. Its limits hold
    /// until [`take_effect`](Self::take_effect).
    pub(super) fn new(key: &config::Key, previous: Option<&Tenant>, now: Instant) -> Self {
        let limits = Limits::of(key);
        Self {
            name: Arc::clone(&key.name),
            models: match &key.models {
                KeyModels::All => Models::All,
                KeyModels::Some(names) => {
                    Models::Some(names.iter().map(|name| Box::from(&**name)).collect())
                }
            },
            is_admin: key.admin,
            limits,
            account: previous.map_or_else(
                || Arc::new(Mutex::new(Account::new(limits, now))),
                |previous| Arc::clone(&previous.account),
            ),
            metrics: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.metrics)),
        }
    }

    pub(super) fn take_effect(&self, now: Instant) {
        self.account.lock().configure(self.limits, now);
    }

    /// Whether the key is for `model`, a name as clients write it. `"*"` stands for all of them.
    pub fn may_use(&self, model: &str) -> bool {
        match &self.models {
            Models::All => true,
            Models::Some(names) => names.contains(model),
        }
    }

    /// Whether the key may do what changes the gateway's state.
    pub fn is_admin(&self) -> bool {
        self.is_admin
    }

    /// Takes a request in that is estimated at `tokens`, those of its prompt and of its answer.
    ///
    /// # Errors
    /// One of the key's limits is reached. The request has cost nothing then, of no limit.
    pub fn admit(self: &Arc<Self>, tokens: u64, now: Instant) -> Result<Permit, Limited> {
        let charged = self.account.lock().admit(tokens, now)?;
        Ok(Permit {
            tenant: Arc::clone(self),
            charged,
            used: 0,
        })
    }

    /// Requests that were taken in and are not over, of earlier configurations too.
    pub fn in_flight(&self) -> u32 {
        self.account.lock().in_flight()
    }

    /// What is left of the key's limits.
    pub fn rate(&self, now: Instant) -> RateLimits {
        self.account.lock().rate(now)
    }
}

/// A request that was taken in. It counts as in flight for exactly as long as this exists, however it ends. Tokens
/// that it was charged with and has not used are returned then.
#[derive(Debug)]
#[must_use = "dropping the permit ends the request"]
pub struct Permit {
    tenant: Arc<Tenant>,
    /// Tokens that were taken for it; `None` = they were not limited when it came.
    charged: Option<u64>,
    used: u64,
}

impl Permit {
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// Whether tokens were taken for it at all.
    pub fn is_charged(&self) -> bool {
        self.charged.is_some()
    }

    /// What is left of the key's limits.
    pub fn rate(&self, now: Instant) -> RateLimits {
        self.tenant.rate(now)
    }

    /// The request has used `tokens` so far, of prompt and answer together. What exceeds its charge is charged at
    /// once; a smaller number than before is no news.
    ///
    /// Cheap while the charge holds: no lock is taken.
    pub fn note(&mut self, tokens: u64, now: Instant) {
        self.used = self.used.max(tokens);
        if let Some(charged) = &mut self.charged
            && *charged < self.used
        {
            let more = self.used - *charged;
            *charged += self.tenant.account.lock().charge(more, now);
        }
    }

    /// The request has used exactly `tokens`, whatever was noted. The rest of its charge is returned, or more is
    /// charged: the key may owe up to ten minutes' worth.
    pub fn settle(&mut self, tokens: u64, now: Instant) {
        self.used = 0;
        self.note(tokens, now);
        let unused = self.unused();
        if unused > 0 {
            self.tenant.account.lock().give_back(unused);
            self.charged = Some(tokens);
        }
    }

    /// What the request has used is not known: what it was charged stands.
    pub fn keep_charge(&mut self) {
        self.used = self.used.max(self.charged.unwrap_or(0));
    }

    fn unused(&self) -> u64 {
        (self.charged).map_or(0, |charged| charged.saturating_sub(self.used))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let unused = self.unused();
        self.tenant.account.lock().leave(unused);
    }
}
