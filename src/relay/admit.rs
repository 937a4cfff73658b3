//! Who asks, which model for, and whether that is within what it may: the steps `authenticate`,
//! `resolve` and `admit`.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use pingora::http::RequestHeader;
use tokio::time::Instant;

use crate::config::{Config, Expose};
use crate::openai::{ApiError, BodyKind, Call, Dialect, paths};
use crate::routing::Route;
use crate::server::Shared;
use crate::snapshot::Snapshot;

use super::Stop;
use super::ctx::RequestCtx;
use super::handshake;
use super::intake::path_of;
use super::peek::Asked;
use super::request::split_target;

/// Finds out whose key it is. Without `keys` everybody may ask for everything.
pub fn authenticate(
    ctx: &mut RequestCtx,
    snapshot: &Snapshot,
    headers: &HeaderMap,
    call: Call,
) -> Result<(), Stop> {
    let Some(keyring) = &snapshot.keyring else {
        return Ok(());
    };
    let presented = presented_key(headers, call.websocket);
    match presented.and_then(|key| keyring.authenticate(key)) {
        Some(tenant) => {
            ctx.tenant = Some(Arc::clone(tenant));
            Ok(())
        }
        None => Err(Stop::Refused(ApiError::InvalidApiKey {
            presented: presented.is_some(),
        })),
    }
}

/// The key in `Authorization: Bearer` (RFC 6750 §2.1), in Anthropic's `x-api-key`, or, of a `websocket`, among
/// its subprotocols. Several are none, for nobody could tell which of them counts; the same one twice is one.
pub fn presented_key(headers: &HeaderMap, websocket: bool) -> Option<&[u8]> {
    let mut bearers = headers.get_all(header::AUTHORIZATION).iter().map(bearer);
    let plain = headers.get_all("x-api-key").iter();
    let plain = plain.map(|value| Some(value.as_bytes().trim_ascii()));
    let hidden = websocket.then(|| handshake::keys(headers).map(Some));
    let mut plain = plain.chain(hidden.into_iter().flatten());
    let first = bearers.next().or_else(|| plain.next())??;
    let same = bearers.chain(plain).all(|other| other == Some(first));
    (same && !first.is_empty()).then_some(first)
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let value = value.as_bytes();
    let (scheme, key) = value.split_at_checked(6)?;
    let separated = key.first().is_some_and(u8::is_ascii_whitespace);
    (scheme.eq_ignore_ascii_case(b"bearer") && separated).then(|| key.trim_ascii())
}

/// Where the request goes: by the model it names, or by there being no choice.
pub fn resolve<'a>(
    ctx: &RequestCtx,
    snapshot: &'a Snapshot,
    call: Call,
    asked: &Asked,
) -> Result<Route<'a>, Stop> {
    let tenant = ctx.tenant.as_deref();
    let may = |model: &str| tenant.is_none_or(|tenant| tenant.may_use(model));
    let route = match asked {
        Asked::Unread if call.body == BodyKind::Any => snapshot.routes.without_model(&may),
        _ => snapshot.routes.resolve(asked.model(), &may),
    };
    route.map_err(|no| Stop::Refused(no.into()))
}

/// The endpoint that keeps the response which the request goes on from or asks for, as the places of its pool
/// and within it; `None`: it speaks of none.
pub fn bound(
    shared: &Shared,
    ctx: &RequestCtx,
    snapshot: &Snapshot,
    request: &RequestHeader,
    asked: &Asked,
) -> Result<Option<(usize, usize)>, Stop> {
    if matches!(snapshot.config.expose, Expose::All) {
        return Ok(None);
    }
    let (_, target) = split_target(request.raw_path());
    let previous = asked
        .json()
        .and_then(|read| read.previous_response_id.as_deref());
    let Some(id) = paths::response_of(path_of(target)).or(previous) else {
        return Ok(None);
    };
    let key = ctx.tenant.as_ref().map(|tenant| &tenant.name);
    let endpoint = shared.bindings.find(id, key);
    let place = endpoint.and_then(|endpoint| {
        let mut pools = snapshot.pools.iter().enumerate();
        pools.find_map(|(pool, of)| {
            let mut endpoints = of.endpoints.iter();
            let index = endpoints.position(|one| one.state.id == endpoint)?;
            Some((pool, index))
        })
    });
    match place {
        Some(place) => Ok(Some(place)),
        None => Err(Stop::Refused(ApiError::response_not_found(id))),
    }
}

/// The only endpoint that may be asked; `None`: all of the pool.
pub fn only_endpoint(
    bound: Option<(usize, usize)>,
    route: &Route<'_>,
    asked: &Asked,
) -> Result<Option<usize>, Stop> {
    match bound {
        Some((pool, index)) if pool == route.pool => Ok(Some(index)),
        // Another model's engines do not have it.
        Some(_) => {
            let id = asked
                .json()
                .and_then(|read| read.previous_response_id.as_deref());
            let error = ApiError::response_not_found(id.unwrap_or_default());
            Err(Stop::Refused(error))
        }
        None => Ok(None),
    }
}

/// Whether the request is within the limits, its key's among them.
pub fn admit(ctx: &mut RequestCtx, config: &Config, call: Call, asked: &Asked) -> Result<(), Stop> {
    let completions = asked.json().map_or(1, |read| read.completions);
    if completions > config.limits.n {
        let error = ApiError::too_many_completions(completions, config.limits.n);
        return Err(Stop::Refused(error));
    }
    if let (Some(field), Expose::Inference { .. }) = (asked.steering(), &config.expose) {
        return Err(Stop::Refused(ApiError::steering_field(field)));
    }
    let Some(tenant) = &ctx.tenant else {
        return Ok(());
    };
    let cost = asked.cost(ctx.body.len, generates(call));
    ctx.prompt_cost = asked.prompt_cost(ctx.body.len);
    match tenant.admit(cost, Instant::now()) {
        Ok(permit) => {
            ctx.permit = Some(permit);
            Ok(())
        }
        Err(limited) => {
            let error = ApiError::from(&limited);
            ctx.limited = Some(limited);
            Err(Stop::Refused(error))
        }
    }
}

/// Its answer has as many tokens as the client lets it have.
pub fn generates(call: Call) -> bool {
    call.dialect != Dialect::Other
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn key(fields: &[(&str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        presented_key(&headers, true).map(|key| String::from_utf8(key.to_vec()).unwrap())
    }

    #[test]
    fn one_key_in_either_place() {
        for (fields, expected) in [
            (&[("authorization", "Bearer a")][..], Some("a")),
            (&[("authorization", "bearer  a ")], Some("a")),
            (&[("authorization", "BEARER\ta")], Some("a")),
            (&[("x-api-key", " a ")], Some("a")),
            (
                &[("authorization", "Bearer a"), ("x-api-key", "a")],
                Some("a"),
            ),
            (&[("authorization", "Bearer a"), ("x-api-key", "b")], None),
            (&[("x-api-key", "a"), ("x-api-key", "b")], None),
            (&[("authorization", "Basic a"), ("x-api-key", "a")], None),
            (&[("authorization", "Bearera")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("authorization", "Bearer")], None),
            (&[("authorization", "é")], None),
            (&[("x-api-key", "")], None),
            (
                &[(
                    "sec-websocket-protocol",
                    "realtime, openai-insecure-api-key.a",
                )],
                Some("a"),
            ),
            (
                &[
                    ("authorization", "Bearer a"),
                    ("sec-websocket-protocol", "openai-insecure-api-key.b"),
                ],
                None,
            ),
            (
                &[("sec-websocket-protocol", "openai-insecure-api-key.")],
                None,
            ),
            (&[], None),
        ] {
            assert_eq!(key(fields).as_deref(), expected, "{fields:?}");
        }
    }
}
