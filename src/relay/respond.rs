//! Everything that is written to a client.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderValue, Version};
use pingora::http::ResponseHeader;
use pingora::{ErrorType, Result};
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::listener::Connection;
use crate::openai::ApiError;
use crate::upstream::{ResponseHead, connection_options, is_hop_by_hop};

use super::body::{DRAIN_BYTES, DRAIN_TIME};
use super::ctx::{End, RequestCtx};
use super::heartbeat;
use super::timing;

const SERVER: HeaderValue = HeaderValue::from_static("sluicegate");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// How the end of an answer's body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    /// Chunks for HTTP/1.1, the stream's end for h2, the connection's end for HTTP/1.0.
    Open,
    /// HEAD, 204, 304; holds the length a GET would have had.
    NoBody(Option<u64>),
}

/// The engine's head as the client gets it: without what belongs to one hop, with our own fields.
pub fn relayed_head(
    head: &ResponseHead,
    session: &mut Session,
    framing: Framing,
    ctx: &RequestCtx,
) -> Result<Box<ResponseHeader>> {
    let mut response = ResponseHeader::build_no_case(head.status, Some(head.iter().len() + 6))?;
    let canonical = response.status.canonical_reason().unwrap_or_default();
    if !head.reason().is_empty()
        && head.reason() != canonical.as_bytes()
        && let Ok(reason) = std::str::from_utf8(head.reason())
    {
        response.set_reason_phrase(Some(reason))?;
    }
    let has_options = head.get("connection").is_some();
    for (name, value) in head.iter() {
        // With keys the limits are the gateway's, and an engine's would be taken for them.
        let is_limit = ctx.tenant.is_some() && is_rate_limit(name);
        if is_limit || is_dropped(name) || (has_options && is_nominated(head, name)) {
            continue;
        }
        // A head that the decoder accepted holds only valid names and values.
        let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_maybe_shared(value),
        ) else {
            continue;
        };
        response.append_header(name, value)?;
    }
    finish_head(&mut response, session, framing, ctx)?;
    Ok(Box::new(response))
}

/// Takes out what speaks of the body's bytes, which are others now (RFC 9110 §8.8.3, RFC 9530).
pub fn forget_digests(response: &mut ResponseHeader) {
    for name in [
        "etag",
        "content-digest",
        "repr-digest",
        "digest",
        "content-md5",
    ] {
        response.remove_header(name);
    }
}

fn finish_head(
    response: &mut ResponseHeader,
    session: &mut Session,
    framing: Framing,
    ctx: &RequestCtx,
) -> Result<()> {
    introduce(response, ctx)?;
    if timing::is_asked(&session.req_header().headers)
        && let Some(value) = timing::value(ctx, Instant::now())
    {
        // Beside the engine's own, if it has any.
        response.append_header(timing::SERVER_TIMING, value)?;
    }
    frame(response, session, framing, ctx.connection.as_deref())
}

/// The head of a stream of events that no engine has begun yet, all but its framing.
pub fn early_head(ctx: &RequestCtx) -> Result<Box<ResponseHeader>> {
    let mut response = ResponseHeader::build_no_case(200, Some(8))?;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // An nginx on the way passes on what comes at once.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.insert_header(name, HeaderValue::from_static(value))?;
    }
    introduce(&mut response, ctx)?;
    Ok(Box::new(response))
}

/// The fields that tell who answers, and what.
fn introduce(response: &mut ResponseHeader, ctx: &RequestCtx) -> Result<()> {
    response.insert_header(header::SERVER, SERVER)?;
    response.insert_header(X_REQUEST_ID, ctx.request_id.clone())?;
    let mut told = Ok(());
    ctx.each_limit(|name, value| {
        if let Ok(value) = HeaderValue::from_str(value) {
            let inserted = response.insert_header(HeaderName::from_static(name), value);
            told = std::mem::replace(&mut told, Ok(())).and(inserted);
        }
    });
    told
}

/// The fields that tell where the body ends, and whether the connection goes on behind it.
pub fn frame(
    response: &mut ResponseHeader,
    session: &mut Session,
    framing: Framing,
    connection: Option<&Connection>,
) -> Result<()> {
    if connection.is_some_and(Connection::is_draining) {
        // So that the client does not send its next request into a connection that is about to close.
        session.set_keepalive(None);
    }
    match framing {
        Framing::Length(length) | Framing::NoBody(Some(length)) => {
            response.insert_header(header::CONTENT_LENGTH, HeaderValue::from(length))?;
        }
        Framing::NoBody(None) => {}
        Framing::Open => match session.req_header().version {
            Version::HTTP_11 => response.insert_header(header::TRANSFER_ENCODING, CHUNKED)?,
            Version::HTTP_2 => {}
            // HTTP/1.0 has no chunks: the end of the connection ends the answer.
            _ => session.set_keepalive(None),
        },
    }
    Ok(())
}

/// RFC 9110 §7.6.1, and what nginx drops of an upstream's head.
fn is_dropped(name: &[u8]) -> bool {
    const OURS: [&[u8]; 5] = [
        b"date",
        b"server",
        b"content-length",
        b"x-request-id",
        b"x-pad",
    ];
    is_hop_by_hop(name)
        || OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours))
        || (name.len() > 8 && name[..8].eq_ignore_ascii_case(b"x-accel-"))
}

fn is_rate_limit(name: &[u8]) -> bool {
    const PREFIX: &[u8] = b"x-ratelimit-";
    name.len() > PREFIX.len() && name[..PREFIX.len()].eq_ignore_ascii_case(PREFIX)
}

fn is_nominated(head: &ResponseHead, name: &[u8]) -> bool {
    connection_options(head.values("connection")).any(|option| option.eq_ignore_ascii_case(name))
}

/// A whole answer of the gateway's own.
pub struct Local {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Bytes,
    pub allow: Option<String>,
    pub retry_after: Option<u64>,
    pub www_authenticate: Option<&'static str>,
}

/// Writes a whole answer; the connection stays open if the request was read to its end.
pub async fn write_local(session: &mut Session, ctx: &mut RequestCtx, local: Local) -> Result<()> {
    let is_head = session.req_header().method == http::Method::HEAD;
    let length = local.body.len() as u64;
    let mut response = ResponseHeader::build_no_case(local.status, Some(8))?;
    response.insert_header(
        header::CONTENT_TYPE,
        HeaderValue::from_static(local.content_type),
    )?;
    if let Some(allow) = local
        .allow
        .and_then(|allow| HeaderValue::try_from(allow).ok())
    {
        response.insert_header(header::ALLOW, allow)?;
    }
    if let Some(seconds) = local.retry_after {
        response.insert_header(header::RETRY_AFTER, HeaderValue::from(seconds))?;
    }
    if let Some(challenge) = local.www_authenticate {
        let challenge = HeaderValue::from_static(challenge);
        response.insert_header(header::WWW_AUTHENTICATE, challenge)?;
    }
    if ctx.is_final {
        response.insert_header("x-should-retry", HeaderValue::from_static("false"))?;
    }
    let framing = if is_head {
        Framing::NoBody(Some(length))
    } else {
        Framing::Length(length)
    };
    finish_head(&mut response, session, framing, ctx)?;
    ctx.status = Some(local.status);
    write_whole(session, ctx, Box::new(response), local.body, is_head).await
}

/// Writes head and body of a whole answer in one go.
pub async fn write_whole(
    session: &mut Session,
    ctx: &mut RequestCtx,
    response: Box<ResponseHeader>,
    body: Bytes,
    is_head: bool,
) -> Result<()> {
    let unread = ctx.incoming.is_unread(session.as_downstream_mut());
    if unread {
        session.set_keepalive(None);
    }
    let limit = ctx.send_timeout();
    let downstream = session.as_downstream_mut();
    let has_body = !is_head && !body.is_empty();
    in_time(limit, downstream.write_response_header(response)).await?;
    if has_body {
        ctx.bytes_out += body.len() as u64;
        in_time(limit, downstream.write_response_body(body, true)).await?;
    }
    if unread {
        drain(session, ctx, limit).await;
    }
    Ok(())
}

/// Bounds a write of Pingora's that has no timeout of its own: heads, and the flush at the end. The timer
/// is armed only if the write has to wait.
pub async fn in_time<T>(limit: Duration, write: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, write).await {
        Ok(written) => written,
        Err(_elapsed) => {
            pingora::Error::e_explain(ErrorType::WriteTimedout, "the client does not read")
        }
    }
}

/// Reads on for a moment after a refusal: closing a socket with unread bytes sends RST, which can take
/// the answer with it.
async fn drain(session: &mut Session, ctx: &mut RequestCtx, limit: Duration) {
    let downstream = session.as_downstream_mut();
    if downstream.is_http2() || in_time(limit, downstream.finish_body()).await.is_err() {
        return;
    }
    let reading = async {
        let mut drained = 0;
        while drained < DRAIN_BYTES {
            match ctx.incoming.next(downstream, DRAIN_TIME).await {
                Ok(Some(piece)) => drained += piece.len(),
                Ok(None) | Err(_) => return,
            }
        }
    };
    // What has not come within the time is given up with the connection.
    let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
}

/// Answers with an error of the gateway's own.
pub async fn refuse(session: &mut Session, ctx: &mut RequestCtx, error: &ApiError) -> Result<()> {
    let end = if ctx.attempts == 0 {
        End::Refused
    } else {
        End::Failed
    };
    let dialect = ctx.dialect();
    ctx.refusal = Some(error.code());
    if error.is_final() {
        ctx.is_final = true;
        ctx.fail(end, "suspect_request");
    }
    ctx.fail(end, error.code());
    if ctx.has_head {
        let event = error.event(dialect);
        return Box::pin(heartbeat::fail(session, ctx, error.status(), event)).await;
    }
    let local = Local {
        status: error.status(),
        content_type: "application/json",
        body: error.body(dialect),
        allow: error.allow().map(str::to_owned),
        retry_after: error.retry_after(),
        www_authenticate: error.www_authenticate(),
    };
    write_local(session, ctx, local).await
}

/// An engine's error event in place of content, as the answer it should have been.
pub async fn write_event_as_answer(
    session: &mut Session,
    ctx: &mut RequestCtx,
    status: u16,
    body: Bytes,
) -> Result<()> {
    let local = Local {
        status,
        content_type: "application/json",
        body,
        allow: None,
        retry_after: matches!(status, 429 | 503).then_some(1),
        www_authenticate: None,
    };
    write_local(session, ctx, local).await
}

/// The error that ends a connection without a clean end of the answer.
pub fn unclean() -> Box<pingora::Error> {
    pingora::Error::explain(ErrorType::ConnectionClosed, "the answer was cut")
}
