//! Whether a request has killed the engine it was sent to, and what becomes of those that do.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use log::warn;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::pool::suspects::{self, Strike};
use crate::pool::{Fault, Lease};
use crate::upstream::{ConnectError, Connection, Target};

use super::attempt::{Answer, Failure};
use super::ctx::RequestCtx;

/// A process that dies closes its sockets one by one.
pub const DYING: Duration = Duration::from_millis(150);
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

    /// Notes that an engine has answered the body: it kills nobody.
    pub fn acquit(&self, body: &[Bytes]) {
        if self.known.load(Ordering::Acquire) == 0 {
            return;
        }
        let hash = self.hash(body);
        let mut table = self.table.lock();
        table.acquit(hash);
        self.known.store(table.len(), Ordering::Release);
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
/// was lost before an answer began, and now it refuses connections.
pub async fn has_killed(lease: &Lease, result: &Result<Box<Answer>, Failure>) -> bool {
    let Some(is_refused) = lost_by(lease, result) else {
        return false;
    };
    let is_alone = lease.state.lost_alone(Instant::now());
    match is_refused {
        Refusal::OfOthers => false,
        Refusal::Seen => is_alone,
        Refusal::Unknown => {
            is_alone && Box::pin(refuses_connects(&lease.state.target, patience(lease))).await
        }
    }
}

/// Whether a connect was refused when the connection was lost.
enum Refusal {
    Seen,
    Unknown,
    /// The request goes together with others.
    OfOthers,
}

/// `None`: it was not lost.
fn lost_by(lease: &Lease, result: &Result<Box<Answer>, Failure>) -> Option<Refusal> {
    match result {
        Err(Failure::Sent {
            fault: Fault::ConnectionLost,
            ..
        }) => Some(Refusal::Unknown),
        // The kept connection went, and there is none in its place.
        Err(Failure::NotSent {
            fault: Fault::ConnectRefused,
            ..
        }) if lease.was_lost() => Some(Refusal::Seen),
        Err(Failure::Recalled(_)) => Some(Refusal::OfOthers),
        _ => None,
    }
}

/// Whether it is the second that died of the request, which has no body by which it would be known another time.
pub async fn bodiless_has_killed(
    ctx: &mut RequestCtx,
    lease: &Lease,
    result: &Result<Box<Answer>, Failure>,
) -> bool {
    has_killed(lease, result).await && Box::pin(is_second(ctx, lease)).await
}

/// The same of the rest of a stream, see [`cut`].
pub async fn rest_has_killed(
    ctx: &mut RequestCtx,
    lease: &Lease,
    result: &Result<Box<Answer>, Failure>,
) -> bool {
    let Some(refusal) = lost_by(lease, result) else {
        return false;
    };
    let is_alone = lease.state.cut_alone(Instant::now());
    match refusal {
        Refusal::OfOthers => false,
        Refusal::Seen => is_alone && Box::pin(is_second(ctx, lease)).await,
        Refusal::Unknown => {
            is_alone
                && Box::pin(is_second(ctx, lease)).await
                && Box::pin(refuses_connects(&lease.state.target, patience(lease))).await
        }
    }
}

/// Whether the endpoint of a stream that was cut by `fault` is the second to die of it: no third is to have the stream
/// then. Each was up and held no other request at all, the connection was lost, it refuses connections since, and engines
/// are not being restarted. Another request of the same body is not refused for it.
pub async fn cut(ctx: &mut RequestCtx, lease: &Lease, fault: Fault) -> bool {
    fault == Fault::ConnectionLost
        && lease.state.cut_alone(Instant::now())
        && is_second(ctx, lease).await
        && refuses_connects(&lease.state.target, patience(lease)).await
}

/// Notes that the stream was alone where it was cut. Whether it was so before, at an endpoint that has died since.
async fn is_second(ctx: &mut RequestCtx, lease: &Lease) -> bool {
    let strike = Strike {
        endpoint: lease.state.id,
        at: Instant::now(),
    };
    let Some(first) = ctx.strike.replace(strike) else {
        return false;
    };
    let mut endpoints = lease.pool().endpoints.iter();
    let Some(before) = endpoints.find(|endpoint| endpoint.state.id == first.endpoint) else {
        return false;
    };
    let has_fallen = before.state.fate().has_fallen_of(first)
        || refuses_connects(&before.state.target, patience(lease)).await;
    let endpoints = lease.pool().endpoints.iter();
    let fates = endpoints.map(|endpoint| endpoint.state.fate());
    has_fallen && !suspects::is_restart(first, strike, fates)
}

pub fn tell_of_stream(lease: &Lease, ctx: &RequestCtx) {
    warn!(
        "endpoint {}: the second engine that died while the stream of request {} was all it had: no third is to \
         have it",
        lease.endpoint().name,
        String::from_utf8_lossy(ctx.request_id.as_bytes()),
    );
}

fn patience(lease: &Lease) -> Duration {
    lease.pool().timeouts.connect.min(PATIENCE)
}

async fn refuses_connects(target: &Target, patience: Duration) -> bool {
    for pause in [Duration::ZERO, DYING] {
        sleep(pause).await;
        match Connection::connect(target, patience).await {
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
