//! Whether a request has killed the engine it was sent to, and what becomes of those that do.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use crate::pool::suspects::{self, Strike};
use crate::pool::{Fault, Lease};
use crate::upstream::{ConnectError, Connection};

use super::attempt::{Answer, Failure};
use super::ctx::RequestCtx;

/// A process that dies closes its sockets one by one.
pub const DYING: Duration = Duration::from_millis(50);
/// Longest that a connect may take that is to be refused.
const PATIENCE: Duration = Duration::from_secs(1);

/// The bodies of requests that have killed engines. Their hashes are keyed by the process (SipHash), so that
/// nobody can make a body that gets another's refused.
#[derive(Debug, Default)]
pub struct Suspects {
    /// How many there are: nothing is hashed while there are none.
    known: AtomicUsize,
    table: Mutex<suspects::Suspects>,
    keys: RandomState,
}

impl Suspects {
    /// Whether the body is one that is refused.
    pub fn refuses(&self, body: &[Bytes], now: Instant) -> bool {
        self.known.load(Ordering::Acquire) > 0 && self.table.lock().refuses(self.hash(body), now)
    }

    /// Notes that the body killed the endpoint of `lease`. Whether it is suspect.
    pub fn strike(&self, body: &[Bytes], lease: &Lease, now: Instant) -> bool {
        let hash = self.hash(body);
        let strike = Strike {
            endpoint: lease.state.id,
            at: now,
        };
        let endpoints = lease.pool().endpoints.iter();
        let fates = endpoints.map(|endpoint| endpoint.state.fate());
        let mut table = self.table.lock();
        let is_suspect = table.strike(hash, strike, fates);
        self.known.store(table.len(), Ordering::Release);
        is_suspect
    }

    fn hash(&self, body: &[Bytes]) -> u64 {
        let mut hasher = self.keys.build_hasher();
        for piece in body {
            hasher.write(piece);
        }
        hasher.finish()
    }
}

/// Whether the endpoint died of the request: it was up and had no other without an answer, the connection
/// was lost before an answer began, and now it refuses connections. `is_onward`: the request is the rest of a
/// stream, and the endpoint had no other request at all.
pub async fn has_killed(
    lease: &Lease,
    result: &Result<Box<Answer>, Failure>,
    is_onward: bool,
) -> bool {
    let is_refused = match result {
        Err(Failure::Sent {
            fault: Fault::ConnectionLost,
            ..
        }) => false,
        // The kept connection went, and there is none in its place.
        Err(Failure::NotSent {
            fault: Fault::ConnectRefused,
            ..
        }) if lease.was_lost() => true,
        Err(Failure::Recalled(_)) => {
            // It goes together with others.
            is_alone(lease, is_onward);
            return false;
        }
        _ => return false,
    };
    is_alone(lease, is_onward) && (is_refused || Box::pin(refuses_connects(lease)).await)
}

fn is_alone(lease: &Lease, is_onward: bool) -> bool {
    match is_onward {
        true => lease.state.cut_alone(Instant::now()),
        false => lease.state.lost_alone(Instant::now()),
    }
}

/// Whether the endpoint died of a stream that had begun, and was cut by `fault`: it was up and had no other request
/// at all, the connection was lost, and now it refuses connections.
pub async fn has_killed_begun(lease: &Lease, connection: &mut Connection, fault: Fault) -> bool {
    if !matches!(fault, Fault::ConnectionLost | Fault::ConnectRefused) {
        return false;
    }
    if !lease.state.cut_alone(Instant::now()) {
        return false;
    }
    match fault {
        // One that its connections outlive was told to end.
        Fault::ConnectRefused => timeout(DYING, is_lost(connection)).await == Ok(true),
        _ => Box::pin(refuses_connects(lease)).await,
    }
}

/// Whether it ends in the middle of the answer, whose rest nobody needs.
async fn is_lost(connection: &mut Connection) -> bool {
    loop {
        match connection.read_body().await {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

/// Notes against the stream itself that the endpoint of `lease` died of it. Whether it is the second one, and engines
/// are not being restarted: no third is to have it. Another request of the same body is not refused for it.
pub fn strike_stream(ctx: &mut RequestCtx, lease: &Lease, now: Instant) -> bool {
    let strike = Strike {
        endpoint: lease.state.id,
        at: now,
    };
    let endpoints = lease.pool().endpoints.iter();
    let fates = endpoints.map(|endpoint| endpoint.state.fate());
    let first = ctx.strike.replace(strike);
    first.is_some_and(|first| !suspects::is_restart(first, strike, fates))
}

async fn refuses_connects(lease: &Lease) -> bool {
    let patience = lease.pool().timeouts.connect.min(PATIENCE);
    for pause in [Duration::ZERO, DYING] {
        sleep(pause).await;
        match Connection::connect(&lease.state.target, patience).await {
            Err(ConnectError::Refused) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_same_in_other_pieces() {
        let suspects = Suspects::default();
        let body = vec![b'x'; 10_000];
        let whole = suspects.hash(&[Bytes::from(body.clone())]);
        for size in [1, 7, 8, 64, 999] {
            let pieces: Vec<_> = body.chunks(size).map(Bytes::copy_from_slice).collect();
            assert_eq!(suspects.hash(&pieces), whole, "{size}");
        }
        assert_ne!(suspects.hash(&[Bytes::from(body[1..].to_vec())]), whole);
        assert_ne!(Suspects::default().hash(&[Bytes::from(body)]), whole);
    }
}
