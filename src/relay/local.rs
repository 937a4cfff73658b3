//! The paths the gateway answers itself, on the public listeners and on the admin's.

use bytes::Bytes;
use http::header;
use pingora::http::RequestHeader;
use tokio::time::Instant;

use crate::local::access::{self, Origin};
use crate::local::health::{self, Health};
use crate::local::{LocalPath, Route, admin, route, stub_status};
use crate::openai::ApiError;
use crate::server::Shared;
use crate::snapshot::Snapshot;

use super::ctx::RequestCtx;
use super::listing;
use super::request::forwarded_for;
use super::respond::Local;

const TEXT: &str = "text/plain";
pub(super) const JSON: &str = "application/json";
/// Prometheus' text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers a path of the gateway's own; `None`: it is not one.
pub fn answer(
    shared: &Shared,
    snapshot: &Snapshot,
    ctx: &mut RequestCtx,
    request: &RequestHeader,
    path: &[u8],
    on_admin: bool,
) -> Result<Option<Local>, ApiError> {
    if on_admin && let Some(order) = admin::order(path) {
        return super::admin::obey(shared, snapshot, ctx, request, &order).map(Some);
    }
    let method = request.method.as_str();
    let local = match route(path, method, on_admin) {
        None => return Ok(None),
        Some(Route::MethodNotAllowed(allow)) => {
            return Err(ApiError::method_not_allowed(method, allow.into()));
        }
        Some(Route::Answer(local)) => local,
    };
    let wants_json = local == LocalPath::Health && accepts_json(request);
    if !on_admin && (local.is_guarded() || wants_json) {
        judge(snapshot, ctx, request)?;
    }
    Ok(Some(match local {
        LocalPath::Health if wants_json => whole(200, JSON, litellm_health(snapshot)),
        LocalPath::Health => whole(200, TEXT, Bytes::from_static(health::HEALTHY)),
        LocalPath::Live => whole(200, JSON, Bytes::from_static(health::ALIVE)),
        LocalPath::Ready => {
            let now = Instant::now();
            let pools = snapshot
                .pools
                .iter()
                .map(|pool| (&*pool.name, pool.ready(now)));
            let draining = shared.is_draining();
            let (status, body) = health::ready(pools);
            whole(if draining { 503 } else { status }, TEXT, body)
        }
        LocalPath::StubStatus => {
            let now = shared.metrics.connection_counts.now();
            whole(200, stub_status::CONTENT_TYPE, stub_status::render(now))
        }
        LocalPath::Metrics => whole(200, EXPOSITION, shared.metrics.render().into()),
        LocalPath::Endpoints => whole(200, JSON, listing::all(snapshot)),
    }))
}

pub(super) fn whole(status: u16, content_type: &'static str, body: Bytes) -> Local {
    Local {
        status,
        content_type,
        body,
        allow: None,
        retry_after: None,
        www_authenticate: None,
    }
}

fn accepts_json(request: &RequestHeader) -> bool {
    request.headers.get(header::ACCEPT).is_some_and(|accept| {
        accept
            .to_str()
            .is_ok_and(|accept| accept.to_ascii_lowercase().contains(JSON))
    })
}

fn judge(snapshot: &Snapshot, ctx: &RequestCtx, request: &RequestHeader) -> Result<(), ApiError> {
    let config = &snapshot.config;
    let forwarded_for = forwarded_for(request);
    let origin = Origin {
        peer: ctx
            .connection
            .as_ref()
            .and_then(|c| c.peer)
            .map(|peer| peer.ip()),
        forwarded_for: &forwarded_for,
        forwarded_otherwise: request
            .headers
            .keys()
            .any(|name| access::says_forwarded(name.as_str())),
    };
    access::may_read_status(origin, &config.status_allow, &config.trusted_proxies).map_err(
        |denied| ApiError::NotAllowedHere {
            address: denied.address(),
            key: denied.key(),
        },
    )
}

fn litellm_health(snapshot: &Snapshot) -> Bytes {
    let pools = snapshot.pools.iter();
    let each: Vec<_> = pools
        .flat_map(|pool| pool.endpoints.iter())
        .map(|endpoint| {
            let state = &endpoint.state;
            (endpoint, state.catalog.get(), state.url(), state.is_up())
        })
        .collect();
    let list: Vec<Health<'_>> = each
        .iter()
        .map(|(endpoint, catalog, url, healthy)| {
            let first = catalog.as_ref().and_then(|catalog| catalog.names().next());
            Health {
                model: endpoint.model.as_deref().or(first),
                url,
                healthy: *healthy,
            }
        })
        .collect();
    health::litellm(&list)
}
