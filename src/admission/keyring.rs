use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use super::Tenant;
use crate::config;

/// In bytes; a longer secret is nobody's, and is not hashed.
pub const LONGEST_SECRET: usize = 4096;

/// The keys of one configuration.
pub struct Keyring {
    /// In the configuration's order.
    tenants: Vec<Arc<Tenant>>,
    /// Indices into `tenants`.
    by_digest: HashMap<Digest, usize>,
}

impl Keyring {
    /// Takes over from `previous` what keys of the same name have used and have in flight, and touches nothing of it:
    /// other limits come with [`take_effect`](Self::take_effect).
    pub fn build(keys: &[config::Key], previous: Option<&Keyring>, now: Instant) -> Self {
        let known: HashMap<&str, &Tenant> = (previous.iter().flat_map(|keyring| &keyring.tenants))
            .map(|tenant| (&*tenant.name, &**tenant))
            .collect();
        let tenants = (keys.iter())
            .map(|key| Arc::new(Tenant::new(key, known.get(&*key.name).copied(), now)))
            .collect();
        let by_digest = (keys.iter().enumerate())
            .map(|(index, key)| (Digest(key.hash), index))
            .collect();
        Self { tenants, by_digest }
    }

    /// Gives what is shared with earlier keyrings this one's limits.
    pub fn take_effect(&self, now: Instant) {
        for tenant in &self.tenants {
            tenant.take_effect(now);
        }
    }

    /// Whose secret `presented` is, to the byte. How long it takes says nothing of the secrets that there are.
    pub fn authenticate(&self, presented: &[u8]) -> Option<&Arc<Tenant>> {
        if presented.is_empty() || presented.len() > LONGEST_SECRET {
            return None;
        }
        let digest = Digest(Sha256::digest(presented).into());
        let index = self.by_digest.get(&digest)?;
        self.tenants.get(*index)
    }

    /// In the configuration's order.
    pub fn tenants(&self) -> impl ExactSizeIterator<Item = &Arc<Tenant>> {
        self.tenants.iter()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A weak secret can be found from its hash.
        f.debug_list().entries(&self.tenants).finish()
    }
}

/// SHA-256 of a secret.
struct Digest([u8; 32]);

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Its bytes are spread evenly already, and as many as these tell keys apart.
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h]).hash(state);
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}
