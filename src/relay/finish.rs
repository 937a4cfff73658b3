//! The end of every request, however it came: metrics and its line in the log.

use std::time::{Duration, SystemTime};

use http::{Version, header};
use pingora::Error;
use pingora_proxy::Session;

use crate::server::Shared;
use crate::telemetry::access_log::Record;

use super::ctx::{End, RequestCtx};
use super::intake;
use super::request::{self, AddressText};

/// nginx's status for a client that left before its answer was whole.
const CLIENT_LEFT: u16 = 499;

/// Settles what is left and tells about the request. Called once, after the last byte.
pub fn finish(shared: &Shared, session: &mut Session, error: Option<&Error>, ctx: &mut RequestCtx) {
    if let (Some(error), End::Complete) = (error, ctx.end) {
        log::debug!("a request ended early: {error}");
        ctx.fail(End::ClientLeft, "the client left");
    }
    let status = match (ctx.end, ctx.status) {
        (End::ClientLeft, _) | (_, None) => CLIENT_LEFT,
        (_, Some(status)) => status,
    };
    let duration = ctx.started.elapsed();
    if !ctx.local {
        count(shared, ctx, status, duration);
    }
    if let Some(connection) = &ctx.connection {
        connection.request_finished(intake::idle_timeout(ctx));
        if connection.is_draining() {
            session.set_keepalive(None);
        }
    }
    let request = session.req_header();
    let (_, target) = request::split_target(request.raw_path());
    let path = intake::path_of(target);
    if ctx.local && ctx.end == End::Complete {
        // As the guide's nginx: `access_log off` for what monitoring asks every few seconds.
        return;
    }
    shared.log(|log| {
        let text = |name| request.headers.get(name).map(http::HeaderValue::as_bytes);
        let mut client = AddressText::new();
        let pool = ctx.endpoint.as_ref().map(|(pool, _)| pool);
        log.log(&Record {
            time: SystemTime::now(),
            request_id: std::str::from_utf8(ctx.request_id.as_bytes()).unwrap_or("-"),
            client: ctx.client.map_or("unix:", |address| client.write(address)),
            key: None,
            method: request.method.as_str(),
            path,
            query: target.get(path.len() + 1..),
            protocol: protocol(request.version),
            status,
            model: None,
            pool: pool.map(|pool| &*pool.name),
            endpoint: ctx
                .endpoint
                .as_ref()
                .map(|(pool, index)| &*pool.endpoints[*index].name),
            attempts: ctx.attempts,
            stream: ctx.is_stream.unwrap_or(false),
            bytes_in: ctx.body.len as u64,
            bytes_out: ctx.bytes_out,
            prompt_tokens: None,
            completion_tokens: None,
            cached_tokens: None,
            queue: None,
            connect: ctx.connect,
            ttft: ctx.ttft,
            duration,
            overhead: ctx.overhead,
            end: ctx.end,
            error: ctx.error.as_deref(),
            referer: text(header::REFERER),
            user_agent: text(header::USER_AGENT),
        });
    });
}

fn count(shared: &Shared, ctx: &RequestCtx, status: u16, duration: Duration) {
    if ctx.end == End::Refused
        && let Some(reason) = ctx.refusal
    {
        shared.metrics.refused(reason);
    }
    if ctx.call.is_none() {
        return;
    }
    let Some(snapshot) = &ctx.snapshot else {
        return;
    };
    let pool = snapshot.default_pool();
    let metrics = shared.pool_metrics(pool);
    match &ctx.endpoint {
        Some((pool, index)) => {
            shared
                .endpoint_metrics(pool, &pool.endpoints[*index])
                .count(status);
        }
        None => metrics.count_unanswered(status),
    }
    metrics.observe_duration(duration);
    if let Some(overhead) = ctx.overhead {
        shared.metrics.overhead.observe(overhead.as_secs_f64());
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}
