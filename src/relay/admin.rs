//! Orders on the admin listeners.

use std::sync::LazyLock;
use std::time::Duration;

use http::header;
use log::info;
use pingora::http::RequestHeader;
use tokio::time::Instant;

use crate::config::similar;
use crate::local::admin::{self, Action, Caller, Judged, Order};
use crate::openai::ApiError;
use crate::server::{Orders, Shared};
use crate::snapshot::Snapshot;

use super::admit::presented_key;
use super::ctx::RequestCtx;
use super::listing;
use super::local::{JSON, whole};
use super::respond::Local;

/// Near names in an answer about an endpoint that does not exist.
const SUGGESTIONS: usize = 3;
/// A new process serves, or has failed to, within a few seconds mostly.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Does what was ordered, and answers with the endpoints that it was about.
pub fn obey(
    shared: &Shared,
    snapshot: &Snapshot,
    ctx: &mut RequestCtx,
    request: &RequestHeader,
    order: &Order<'_>,
) -> Result<Local, ApiError> {
    if request.method != http::Method::POST {
        let method = request.method.as_str();
        return Err(ApiError::method_not_allowed(method, admin::ALLOW.into()));
    }
    authorize(snapshot, ctx, request)?;
    let meant: Vec<_> = listing::every(snapshot)
        .filter(|(_, endpoint)| admin::is_meant(&order.node, &endpoint.name))
        .collect();
    if meant.is_empty() {
        return Err(not_found(snapshot, &order.node));
    }
    // Until it is done no process takes over.
    let orders = shared.orders.lock();
    if *orders == Orders::HandedOver {
        return Err(ApiError::UpgradeUnderWay {
            retry_after: RETRY_AFTER,
        });
    }
    let now = Instant::now();
    let who = ctx
        .tenant
        .as_ref()
        .map_or("the unix socket", |key| &*key.name);
    let mut still = None;
    for (_, endpoint) in &meant {
        match order.action {
            Action::Drain => endpoint.state.drain(now),
            Action::Undrain => {
                let by = endpoint.state.undrain(now);
                still = by.anybody().then_some(endpoint).or(still);
            }
        }
        info!(
            "{} {} is ordered by {who}",
            order.action.as_str(),
            endpoint.name
        );
    }
    drop(orders);
    if let Some(endpoint) = still {
        return Err(ApiError::StillDrained {
            endpoint: endpoint.name.to_string(),
        });
    }
    Ok(whole(200, JSON, listing::some(meant)))
}

fn authorize(
    snapshot: &Snapshot,
    ctx: &mut RequestCtx,
    request: &RequestHeader,
) -> Result<(), ApiError> {
    static MACHINE: LazyLock<String> = LazyLock::new(|| {
        let name = nix::unistd::gethostname().unwrap_or_default();
        name.to_string_lossy().into_owned()
    });
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none());
    let caller = Caller {
        over_unix_socket: ctx.connection.as_ref().is_some_and(|c| c.peer.is_none()),
        host: host.map(|host| host.as_bytes()),
        has_origin: request.headers.contains_key(header::ORIGIN),
        has_header: request.headers.contains_key(admin::HEADER),
    };
    let refused = |problem| ApiError::OrderRefused { problem };
    match admin::judge(caller, &MACHINE).map_err(refused)? {
        Judged::Free => return Ok(()),
        Judged::NeedsKey => {}
    }
    let Some(keyring) = &snapshot.keyring else {
        return Err(refused(
            "Orders over TCP need an admin key, and the configuration has no `keys`. Use the unix socket of `admin`.",
        ));
    };
    let presented = presented_key(&request.headers, false);
    let Some(tenant) = presented.and_then(|key| keyring.authenticate(key)) else {
        return Err(ApiError::InvalidApiKey {
            presented: presented.is_some(),
        });
    };
    if !tenant.is_admin() {
        return Err(refused(
            "This API key may not give orders. Use one that has `admin: true` in the configuration.",
        ));
    }
    ctx.tenant = Some(std::sync::Arc::clone(tenant));
    Ok(())
}

fn not_found(snapshot: &Snapshot, node: &str) -> ApiError {
    let names = || listing::every(snapshot).map(|(_, endpoint)| &*endpoint.name);
    let mut near = similar(node, names(), SUGGESTIONS);
    near.dedup();
    // By the host alone it may be several.
    if near.is_empty() {
        let of_host = |name: &&str| name.rsplit_once(':').is_some_and(|(host, _)| host == node);
        near = names().filter(of_host).take(SUGGESTIONS).collect();
    }
    ApiError::endpoint_not_found(node, near.into_iter().map(str::to_owned).collect())
}
