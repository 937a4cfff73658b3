//! The end of every request, however it came: metrics and its line in the log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Version, header};
use pingora::Error;
use pingora::http::RequestHeader;
use pingora_proxy::Session;
use tokio::time::Instant;

use crate::openai::Usage;
use crate::pool::Pool;
use crate::server::Shared;
use crate::telemetry::access_log::Record;

use super::ctx::{End, RequestCtx};
use super::intake;
use super::request::{self, AddressText};

/// nginx's status for a client that left before its answer was whole.
const CLIENT_LEFT: u16 = 499;

/// The client and the engine speak WebSocket from there on.
const SWITCHED: u16 = 101;

/// Settles what is left and tells about the request. Called once, after the last byte.
pub fn finish(shared: &Shared, session: &mut Session, error: Option<&Error>, ctx: &mut RequestCtx) {
    if let (Some(error), End::Complete) = (error, ctx.end) {
        log::debug!("a request ended early: {error}");
        ctx.fail(End::ClientLeft, "the client left");
    }
    let status = match (ctx.end, ctx.status) {
        // A WebSocket has no status but that of its handshake.
        (_, Some(SWITCHED)) => SWITCHED,
        (End::ClientLeft, _) | (_, None) => CLIENT_LEFT,
        (_, Some(status)) => status,
    };
    let duration = ctx.started.elapsed();
    settle(ctx);
    if !ctx.local {
        let failed_as = ctx.failed_as.filter(|_| ctx.end != End::ClientLeft);
        count(shared, ctx, failed_as.unwrap_or(status), duration);
    }
    if let Some(connection) = &ctx.connection {
        connection.request_finished(intake::idle_timeout(ctx));
        if connection.closes_unannounced() {
            session.set_keepalive(None);
        }
    }
    let request = session.req_header();
    let (_, target) = request::split_target(request.raw_path());
    if ctx.local && ctx.end == End::Complete {
        // As the guide's nginx: `access_log off` for what monitoring asks every few seconds.
        return;
    }
    let trace = ctx.trace.take().filter(|_| !ctx.local);
    shared.log(|log| {
        let mut client = AddressText::new();
        log.log(&record(request, target, ctx, status, duration, &mut client));
    });
    if let Some(trace) = trace {
        let mut client = AddressText::new();
        trace.end(&record(request, target, ctx, status, duration, &mut client));
    }
}

/// What is told of a request, in the log and in its spans.
fn record<'a>(
    request: &'a RequestHeader,
    target: &'a [u8],
    ctx: &'a RequestCtx,
    status: u16,
    duration: Duration,
    client: &'a mut AddressText,
) -> Record<'a> {
    let text = |name| request.headers.get(name).map(HeaderValue::as_bytes);
    let path = intake::path_of(target);
    let usage = ctx.tokens.usage;
    Record {
        time: SystemTime::now(),
        request_id: std::str::from_utf8(ctx.request_id.as_bytes()).unwrap_or("-"),
        client: ctx.client.map_or("unix:", |address| client.write(address)),
        key: ctx.tenant.as_ref().map(|tenant| &*tenant.name),
        method: request.method.as_str(),
        path,
        query: target.get(path.len() + 1..),
        protocol: protocol(request.version),
        status,
        model: ctx.model.as_ref().map(|scope| &*scope.model),
        pool: ctx.pool.as_ref().map(|pool| &*pool.name),
        endpoint: ctx
            .endpoint
            .as_ref()
            .map(|(pool, index)| &*pool.endpoints[*index].name),
        attempts: ctx.attempts,
        stream: ctx.is_stream.unwrap_or(false),
        bytes_in: ctx.body.len as u64,
        bytes_out: ctx.bytes_out,
        prompt_tokens: usage.prompt,
        completion_tokens: usage.completion,
        cached_tokens: usage.cached,
        estimated: ctx.tokens.is_estimated,
        queue: ctx.queue,
        connect: ctx.connect,
        ttft: ctx.ttft,
        duration,
        overhead: ctx.overhead,
        end: ctx.end,
        error: ctx.error.as_deref(),
        referer: text(header::REFERER),
        user_agent: text(header::USER_AGENT),
    }
}

fn count(shared: &Shared, ctx: &RequestCtx, status: u16, duration: Duration) {
    if ctx.end == End::Refused
        && let Some(reason) = ctx.refusal
    {
        shared.metrics.refused(reason);
    }
    if let Some(tenant) = &ctx.tenant {
        let metrics = shared.key_metrics(tenant);
        metrics.count(ctx.end, ctx.limited.is_some());
        metrics.add_tokens(ctx.tokens.usage);
    }
    count_model(shared, ctx, status, duration);
    let Some(call) = ctx.call else {
        return;
    };
    let metrics = match pool_of(ctx) {
        Some(pool) => shared.pool_metrics(pool),
        None => shared.metrics.no_pool(),
    };
    if let Some(queue) = ctx.queue {
        metrics.queue_wait.observe(queue.as_secs_f64());
    }
    match &ctx.endpoint {
        Some((pool, index)) => {
            shared
                .endpoint_metrics(pool, &pool.endpoints[*index])
                .count(status);
        }
        None => metrics.count_unanswered(status),
    }
    if let Some(result) = ctx.cut {
        metrics.continued(result);
    }
    // How long a WebSocket was open is nobody's latency.
    if call.own.is_none() && status != SWITCHED {
        metrics.observe_duration(duration);
    }
    if let Some(overhead) = ctx.overhead {
        shared.metrics.overhead.observe(overhead.as_secs_f64());
    }
}

/// The pool its model goes to; the only one where it did not come to that.
fn pool_of(ctx: &RequestCtx) -> Option<&Arc<Pool>> {
    let only = || match &*ctx.snapshot.as_ref()?.pools {
        [only] => Some(only),
        _ => None,
    };
    ctx.pool.as_ref().or_else(only)
}

fn count_model(shared: &Shared, ctx: &RequestCtx, status: u16, duration: Duration) {
    // Nothing was asked of an engine.
    let Some(scope) = ctx.model.as_ref().filter(|_| ctx.attempts > 0) else {
        return;
    };
    let metrics = shared.model_metrics(scope);
    let tokens = ctx.tokens.usage;
    if let Some(ttft) = ctx.ttft {
        metrics.observe_ttft(ttft);
    }
    metrics.add_intervals(&ctx.intervals);
    metrics.add_tokens(tokens);
    if ctx.end == End::Complete && status < 400 && status != SWITCHED {
        metrics.observe_end(duration, ctx.ttft, tokens.completion);
    }
}

/// Charges the key for what the request cost, in place of what it might have.
fn settle(ctx: &mut RequestCtx) {
    let Some(mut permit) = ctx.permit.take() else {
        return;
    };
    let Usage {
        prompt, completion, ..
    } = ctx.tokens.usage;
    let estimated = ctx.prompt_cost;
    let status = ctx.failed_as.or(ctx.status);
    let is_begun = ctx.is_stream.is_some() && status.is_none_or(|status| status < 400);
    let has_left = ctx.end == End::ClientLeft && ctx.attempts > 0;
    let is_stream = ctx.is_stream == Some(true);
    let used = match (prompt, completion) {
        // An answer that is too long to be held, or compressed, or given in the background: it was not free. Nor was
        // a stream with an event that is too long to be read.
        (prompt, None) if is_begun && (prompt.is_none() || is_stream) => {
            return permit.keep_charge();
        }
        // Whoever left before the engine counted has cost it the prompt all the same.
        (None, _) if is_begun || has_left => estimated.saturating_add(completion.unwrap_or(0)),
        _ => (prompt.unwrap_or(0)).saturating_add(completion.unwrap_or(0)),
    };
    permit.settle(used, Instant::now());
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}
