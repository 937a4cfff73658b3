//! What happens before an engine is chosen: who asks, for what, and the whole of the body.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Version, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::config::{Config, Expose};
use crate::listener::{Connection, Role};
use crate::local::access::{self, Origin};
use crate::openai::{ApiError, Call, Dialect, Verdict, paths};
use crate::server::Shared;
use crate::snapshot::Snapshot;

use super::Stop;
use super::body::{Body, BodyError};
use super::ctx::RequestCtx;
use super::incoming::Incoming;
use super::local;
use super::peek::{self, Asked};
use super::request::{self, Credentials, Host, Parts, Target};
use super::respond::{Local, X_REQUEST_ID};
use super::tracing::{self, ContextFields};

/// Longest request id that is taken from a client.
const REQUEST_ID_BYTES: usize = 128;
/// `set_keepalive(Some(0))`: no timer of Pingora's; the connection's own deadline closes it.
const NO_TIMER: Option<u64> = Some(0);

/// The first thing done with a request: fix what it will be judged by.
pub fn start(shared: &Shared, session: &mut Session, ctx: &mut RequestCtx) {
    let snapshot = shared.snapshot.load_full();
    ctx.connection = connection_of(session);
    ctx.client = client_of(
        session.req_header(),
        ctx.connection.as_deref(),
        &snapshot.config,
    );
    ctx.request_id = request_id(session.req_header());
    session.set_pipelining_enabled(true);
    session.set_write_timeout(Some(snapshot.config.client.send_timeout));
    if shared.is_draining() {
        session.set_keepalive(None);
    } else if session.get_keepalive().is_some() {
        // Only then: setting it makes an HTTP/1.0 client without keep-alive wait for ever.
        session.set_keepalive(NO_TIMER);
    }
    if let Some(connection) = &ctx.connection {
        connection.request_started(snapshot.config.client.header_timeout);
        connection.account(head_length(session));
        ctx.counted = connection.count_request();
    }
    tracing::begin(shared, &snapshot, &session.req_header().headers, ctx);
    ctx.snapshot = Some(snapshot);
}

/// How many bytes of the connection were this head; none where it is not known, or nobody asks.
fn head_length(session: &Session) -> usize {
    let ServerSession::H1(h1) = session.as_downstream() else {
        return 0;
    };
    let head = h1.get_headers_raw_bytes();
    // Pingora escapes what may not stand in a target, which makes a head longer than it came. The target
    // itself cannot tell: Pingora has dropped its fragment.
    let line = memchr::memchr(b'\n', &head).map_or(&head[..], |end| &head[..end]);
    if line.contains(&b'%') { 0 } else { head.len() }
}

/// The snapshot taken by [`start`].
pub(super) fn snapshot(ctx: &RequestCtx) -> Arc<Snapshot> {
    Arc::clone(
        ctx.snapshot
            .as_ref()
            .expect("a request is served only after it was started"),
    )
}

fn connection_of(session: &Session) -> Option<Arc<Connection>> {
    let digest = session.digest()?.proxy_digest.as_ref()?;
    digest
        .user_data
        .as_ref()?
        .downcast_ref::<Arc<Connection>>()
        .map(Arc::clone)
}

/// The client's address, through the proxies that are trusted.
fn client_of(
    request: &RequestHeader,
    connection: Option<&Connection>,
    config: &Config,
) -> Option<IpAddr> {
    let peer = connection?.peer.map(|peer| peer.ip());
    if config.trusted_proxies.is_empty() {
        return peer.map(|peer| peer.to_canonical());
    }
    let forwarded_for = request::forwarded_for(request);
    let origin = Origin {
        peer,
        forwarded_for: &forwarded_for,
        forwarded_otherwise: false,
    };
    access::client_address(origin, &config.trusted_proxies)
}

fn request_id(request: &RequestHeader) -> HeaderValue {
    let is_fit = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        !bytes.is_empty()
            && bytes.len() <= REQUEST_ID_BYTES
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    match request.headers.get(X_REQUEST_ID).filter(is_fit) {
        Some(value) => value.clone(),
        None => made_request_id(),
    }
}

fn made_request_id() -> HeaderValue {
    let random = fastrand::u128(..).to_be_bytes();
    let digits =
        |byte: u8| [byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
    let id: Vec<u8> = random.into_iter().flat_map(digits).collect();
    HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("-"))
}

/// Answers what the gateway answers itself, on the public listeners and on the admin's.
pub(super) fn answer_locally(
    shared: &Shared,
    session: &Session,
    ctx: &mut RequestCtx,
) -> Result<Option<Local>, Stop> {
    let request = session.req_header();
    let (_, path_and_query) = request::split_target(request.raw_path());
    let on_admin = ctx
        .connection
        .as_ref()
        .is_some_and(|c| c.role == Role::Admin);
    let snapshot = snapshot(ctx);
    let path = path_of(path_and_query);
    let local =
        local::answer(shared, &snapshot, ctx, request, path, on_admin).map_err(Stop::Refused)?;
    ctx.local = local.is_some() || on_admin;
    if on_admin && local.is_none() {
        let error = ApiError::path_not_exposed(request.method.as_str(), path);
        return Err(Stop::Refused(error));
    }
    Ok(local)
}

/// Which call this is, or why it may not be made; judged by the head alone.
pub(super) fn identify(
    session: &mut Session,
    ctx: &mut RequestCtx,
    config: &Config,
) -> Result<Call, Stop> {
    let request = session.req_header();
    if request::head_bytes(request) > config.limits.header {
        return Err(Stop::Refused(ApiError::HeaderTooLarge {
            limit: config.limits.header,
        }));
    }
    let (_, path_and_query) = request::split_target(request.raw_path());
    let path = path_of(path_and_query);
    if path.first() != Some(&b'/') && path != b"*" {
        return Err(Stop::Refused(ApiError::invalid(
            "the request target must begin with `/`",
        )));
    }
    let method = request.method.as_str();
    if method == "TRACE" {
        let allow = "GET, HEAD, POST".into();
        return Err(Stop::Refused(ApiError::method_not_allowed(method, allow)));
    }
    check_host(request)?;
    check_coding(request)?;
    request::check_nominations(&request.headers).map_err(Stop::Refused)?;
    let mut call = match paths::lookup(&config.expose, method, path) {
        Verdict::Exposed(call) => call,
        Verdict::NotExposed => {
            return Err(Stop::Refused(ApiError::path_not_exposed(method, path)));
        }
        Verdict::MethodNotAllowed(allow) => {
            return Err(Stop::Refused(ApiError::method_not_allowed(method, allow)));
        }
    };
    if call.own.is_some() && request.headers.contains_key("anthropic-version") {
        call.dialect = Dialect::Messages;
    }
    ctx.call = Some(call);
    Ok(call)
}

/// One Host for HTTP/1.1, none that could be read in two ways (RFC 9112 §3.2, nginx).
fn check_host(request: &RequestHeader) -> Result<(), Stop> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(Stop::Refused(ApiError::invalid(
            "there is more than one Host header; send one",
        )));
    }
    match first {
        None if request.version == Version::HTTP_11 => Err(Stop::Refused(ApiError::invalid(
            "HTTP/1.1 needs a Host header",
        ))),
        Some(host)
            if host
                .as_bytes()
                .iter()
                .any(|b| matches!(b, b' ' | b'\t' | b'/' | b',' | b'@')) =>
        {
            Err(Stop::Refused(ApiError::invalid(
                "the Host header is not a host name; correct it",
            )))
        }
        Some(host) if host.is_empty() && request.version == Version::HTTP_11 => {
            Err(Stop::Refused(ApiError::invalid("the Host header is empty")))
        }
        _ => Ok(()),
    }
}

/// The only transfer coding we undo is chunked; with another one below it, or undone once too few, the
/// engine would get a body that is not what the client meant (RFC 9112 §6.1, nginx).
fn check_coding(request: &RequestHeader) -> Result<(), Stop> {
    let mut codings = request.headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if only.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Stop::Refused(ApiError::invalid(
            "Transfer-Encoding must be exactly `chunked`; send the body so, or with a Content-Length",
        ))),
    }
}

/// Reads the whole body, after its declared length was judged, and what it says.
pub(super) async fn read_body(
    shared: &Arc<Shared>,
    session: &mut Session,
    ctx: &mut RequestCtx,
    config: &Config,
    call: Call,
) -> Result<Asked, Stop> {
    // nginx looks at no body.
    let is_lenient = matches!(config.expose, Expose::All);
    let reader = peek::Reader::of(call, &session.req_header().headers, is_lenient);
    let mut reader = reader.map_err(Stop::Refused)?;
    let limit = config.limits.body;
    let declared = request::declared_length(session.req_header());
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(Stop::Refused(ApiError::RequestTooLarge { limit }));
    }
    if request::expects_continue(session.req_header()) {
        // Pingora takes the 100 for an answer that came too early, and would close the connection.
        let keepalive = session.get_keepalive();
        super::respond::in_time(ctx.send_timeout(), session.write_continue_response())
            .await
            .map_err(Stop::ClientLeft)?;
        session.set_keepalive(keepalive);
    }
    // Within the limit, and so within `usize`.
    let length = declared.and_then(|length| usize::try_from(length).ok());
    ctx.incoming = Incoming::new(
        session.as_downstream_mut(),
        ctx.connection.as_deref(),
        length,
    );
    let holder = ctx.holder();
    let body = Body::read(
        &mut ctx.incoming,
        session.as_downstream_mut(),
        declared,
        &config.limits,
        config.client.body_timeout,
        &shared.body_memory,
        holder.as_ref(),
        &mut reader,
    );
    match body.await {
        Ok(body) => {
            if let Some(connection) = &ctx.connection {
                connection.account(ctx.incoming.through_session());
            }
            ctx.body = body;
            ctx.body_read = Some(Instant::now());
            reader.finish().map_err(Stop::Refused)
        }
        Err(BodyError::Refused(error)) => {
            // Pingora takes a body that failed for one that is done. What follows it on the connection
            // is the rest of that body, and must not be read as a request.
            session.set_keepalive(None);
            Err(Stop::Refused(error))
        }
        Err(BodyError::ClientLeft) => Err(Stop::ClientLeft(super::respond::unclean())),
    }
}

/// What every try of this request has in common.
pub(super) fn parts<'a>(
    request: &'a RequestHeader,
    ctx: &'a RequestCtx,
    config: &Config,
    call: Call,
    credentials: Credentials,
) -> Parts<'a> {
    let (authority, path_and_query) = request::split_target(request.raw_path());
    // The target's own authority wins over Host (RFC 9112 §3.2.2). For h2 Pingora has made Host of
    // `:authority`, or the URI still holds it.
    let host = authority
        .or_else(|| request.headers.get(header::HOST).map(HeaderValue::as_bytes))
        .or_else(|| {
            request
                .uri
                .authority()
                .map(|authority| authority.as_str().as_bytes())
        })
        .map(request::host_of)
        .filter(|Host(host)| !host.is_empty());
    let connection = ctx.connection.as_ref();
    let peer: Option<IpAddr> = connection
        .and_then(|c| c.peer)
        .map(|peer| peer.ip().to_canonical());
    Parts {
        request,
        target: Target {
            prefix: call.prefix,
            path_and_query,
        },
        host,
        peer,
        peer_is_trusted: access::is_trusted(peer, &config.trusted_proxies),
        tls: connection.is_some_and(|c| c.tls),
        request_id: &ctx.request_id,
        body_len: ctx.body.len,
        credentials,
        context: ContextFields::of(ctx),
        is_inference: matches!(config.expose, Expose::Inference { .. }),
        is_websocket: false,
        model: None,
    }
}

/// The path of a target, up to its query.
pub(super) fn path_of(path_and_query: &[u8]) -> &[u8] {
    match memchr::memchr(b'?', path_and_query) {
        Some(end) => &path_and_query[..end],
        None => path_and_query,
    }
}

/// The query of a target, behind its `?`; empty where it has none.
pub(super) fn query_of(path_and_query: &[u8]) -> &[u8] {
    let path = path_of(path_and_query);
    path_and_query.get(path.len() + 1..).unwrap_or_default()
}

/// How long a client may idle after this request.
pub(super) fn idle_timeout(ctx: &RequestCtx) -> Duration {
    ctx.snapshot
        .as_ref()
        .map_or(Duration::from_secs(65), |s| s.config.client.idle_timeout)
}

/// A head that cannot be sent to an engine as it is.
pub(super) fn unsendable(error: crate::upstream::HeadError) -> Stop {
    Stop::Refused(ApiError::invalid(error.to_string()))
}
