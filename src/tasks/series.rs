//! Takes the metrics of endpoints, pools, models and keys that a reload or the resolver removed out of the
//! exposition, so that dashboards do not show what is gone.

use std::collections::HashSet;
use std::sync::Arc;

use crate::admission::{Keyring, Tenant};
use crate::server::Shared;
use crate::snapshot::Snapshot;

/// Follows the snapshots until `shutdown`.
pub async fn run(shared: Arc<Shared>, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut changes = shared.snapshot.changes();
    let mut before = shared.snapshot.load_full();
    loop {
        tokio::select! {
            () = &mut shutdown => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
        let now = shared.snapshot.load_full();
        forget(&shared, &before, &now);
        before = now;
    }
}

fn forget(shared: &Shared, before: &Snapshot, now: &Snapshot) {
    let kept: HashSet<_> = now.models().map(|kept| (&kept.pool, &kept.model)).collect();
    // Handles that a request in flight would only make when it ends would bring the series back: they are
    // made here.
    for gone in before.models() {
        if !kept.contains(&(&gone.pool, &gone.model)) {
            shared.metrics.forget_model(shared.model_metrics(gone));
        }
    }
    let tenants = |snapshot: &Snapshot| -> Vec<Arc<Tenant>> {
        let keyring = snapshot.keyring.iter();
        keyring.flat_map(Keyring::tenants).cloned().collect()
    };
    let (old, new) = (tenants(before), tenants(now));
    let kept: HashSet<_> = new.iter().map(|tenant| &tenant.name).collect();
    for gone in &old {
        if !kept.contains(&gone.name) {
            shared.metrics.forget_key(shared.key_metrics(gone));
        }
    }
    for pool in &before.pools {
        let kept = now.pools.iter().find(|kept| kept.name == pool.name);
        if kept.is_none() {
            shared.metrics.forget_pool(shared.pool_metrics(pool));
        }
        for endpoint in &pool.endpoints {
            let stays = kept.is_some_and(|kept| {
                kept.endpoints
                    .iter()
                    .any(|other| other.name == endpoint.name)
            });
            if !stays {
                let gone = shared.endpoint_metrics(pool, endpoint);
                shared.metrics.forget_endpoint(gone);
            }
        }
    }
}
