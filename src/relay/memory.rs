//! The memory that bodies and held answers take: `limits.body_memory`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

/// Bodies up to this size are charged to the total only: one client's share is not worth a lock then.
const SMALL_BODY: usize = 64 * 1024;
/// One client may hold this part of `limits.body_memory`.
const CLIENT_SHARE: usize = 2;

/// The memory of all bodies held, and of each client that holds much.
#[derive(Debug, Default)]
pub struct BodyMemory {
    total: AtomicUsize,
    by_client: Mutex<HashMap<Holder, usize>>,
}

/// Who holds memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// A key, by its name, wherever its requests come from.
    Key(Arc<str>),
    /// Where there are no keys; see [`crate::listener::one_client`].
    Address(IpAddr),
}

/// Bytes charged to [`BodyMemory`]; given back when dropped.
#[derive(Debug)]
pub struct Charge {
    memory: Arc<BodyMemory>,
    client: Option<Holder>,
    bytes: usize,
    client_bytes: usize,
}

impl BodyMemory {
    /// Bytes held for all requests.
    pub fn total(&self) -> usize {
        self.total.load(Relaxed)
    }
}

impl Charge {
    pub fn new(memory: &Arc<BodyMemory>, client: Option<Holder>) -> Self {
        Self {
            memory: Arc::clone(memory),
            client,
            bytes: 0,
            client_bytes: 0,
        }
    }

    /// False when the total or the client's share would pass its limit.
    pub fn add(&mut self, bytes: usize, limit: usize) -> bool {
        if self.memory.total.fetch_add(bytes, Relaxed) + bytes > limit {
            self.memory.total.fetch_sub(bytes, Relaxed);
            return false;
        }
        self.bytes += bytes;
        let is_ample = self.memory.total.load(Relaxed) < limit / 4;
        if self.bytes <= SMALL_BODY && is_ample {
            return true;
        }
        let Some(client) = &self.client else {
            return true;
        };
        let owed = self.bytes - self.client_bytes;
        let mut by_client = self.memory.by_client.lock();
        let held = by_client.entry(client.clone()).or_insert(0);
        if *held + owed > limit / CLIENT_SHARE {
            if *held == 0 {
                by_client.remove(client);
            }
            self.bytes -= bytes;
            self.memory.total.fetch_sub(bytes, Relaxed);
            return false;
        }
        *held += owed;
        self.client_bytes = self.bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.total.fetch_sub(self.bytes, Relaxed);
        if let (Some(client), true) = (&self.client, self.client_bytes > 0) {
            let mut by_client = self.memory.by_client.lock();
            if let Some(held) = by_client.get_mut(client) {
                *held -= self.client_bytes;
                if *held == 0 {
                    by_client.remove(client);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(octets: [u8; 4]) -> Option<Holder> {
        Some(Holder::Address(octets.into()))
    }

    #[test]
    fn a_key_has_one_share_from_wherever_its_requests_come() {
        let memory = Arc::new(BodyMemory::default());
        let key = || Some(Holder::Key("team-a".into()));
        let mut one = Charge::new(&memory, key());
        let mut other = Charge::new(&memory, key());
        assert!(one.add(150_000, 400_000));
        assert!(!other.add(100_000, 400_000));
        drop((one, other));
        assert_eq!(memory.total(), 0);
        assert!(memory.by_client.lock().is_empty());
    }

    #[test]
    fn a_charge_is_given_back_when_dropped() {
        let memory = Arc::new(BodyMemory::default());
        let mut charge = Charge::new(&memory, address([10, 0, 0, 1]));
        assert!(charge.add(SMALL_BODY, 1 << 20));
        assert!(charge.add(10, 1 << 20));
        assert_eq!(memory.total(), SMALL_BODY + 10);
        drop(charge);
        assert_eq!(memory.total(), 0);
        assert!(memory.by_client.lock().is_empty());
    }

    #[test]
    fn one_client_may_hold_half_and_all_together_the_whole() {
        let memory = Arc::new(BodyMemory::default());
        let limit = 400_000;
        let mut one = Charge::new(&memory, address([10, 0, 0, 1]));
        assert!(one.add(200_000, limit));
        assert!(!one.add(1, limit));
        assert_eq!(memory.total(), 200_000);
        let mut other = Charge::new(&memory, address([10, 0, 0, 2]));
        assert!(other.add(199_000, limit));
        let mut third = Charge::new(&memory, address([10, 0, 0, 3]));
        assert!(!third.add(2_000, limit));
        drop((one, other, third));
        assert_eq!(memory.total(), 0);
    }
}
