//! A request as spans: one of the gateway's own, and beneath it one for each try on an endpoint. Pure.
//!
//! Names are OpenTelemetry's, of its conventions for HTTP (stable) and for generative AI (in development),
//! and `sluicegate.*` for what they have no name for. Everything is taken from the access log's [`Record`]
//! and from the configuration, but for the model, which the client names: no text of a prompt or an answer,
//! no key and no query can get into a span.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::otlp::{Code, KeyValue, Kind, Span, Status, Value};
use super::trace::{Attempt, Recording, Trace};
use crate::telemetry::access_log::{End, Record};
use crate::upstream::Address;

/// OTLP's bits of `flags` beyond W3C's: whether the parent is known to be remote, and whether it is.
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// The gateway's own span first.
pub(super) fn of_request(trace: &Trace, recording: &Recording, record: &Record<'_>) -> Vec<Span> {
    let mut spans = vec![own(trace, recording, record)];
    let end = recording.started + record.duration;
    for (number, attempt) in recording.attempts.iter().enumerate() {
        let mut span = tried(recording, attempt, record, number, end);
        span.trace_id = trace.trace_id.to_be_bytes().to_vec();
        span.parent_span_id = trace.span_id.to_be_bytes().to_vec();
        span.flags = u32::from(trace.flags) | PARENT_IS_KNOWN;
        spans.push(span);
    }
    spans
}

/// Attributes, of which those that are not known are left out.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.push(KeyValue::new(key, value));
    }

    fn put_some(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }
}

fn own(trace: &Trace, recording: &Recording, record: &Record<'_>) -> Span {
    let model = recording.model.as_deref().or(record.model);
    let name = match (recording.operation, model) {
        (Some(operation), Some(model)) => format!("{operation} {model}"),
        (Some(operation), None) => operation.to_owned(),
        (None, _) => record.method.to_owned(),
    };
    let mut put = Attributes::default();
    put.put_some("gen_ai.operation.name", recording.operation);
    put.put_some("gen_ai.provider.name", recording.provider);
    put.put_some("gen_ai.request.model", model);
    if recording.operation.is_some() && record.attempts > 0 {
        put.put("gen_ai.request.stream", record.stream);
    }
    put.put_some("gen_ai.usage.input_tokens", record.prompt_tokens);
    put.put_some("gen_ai.usage.output_tokens", record.completion_tokens);
    put.put_some("gen_ai.usage.cache_read.input_tokens", record.cached_tokens);
    put.put_some("gen_ai.response.time_to_first_chunk", record.ttft);
    put.put("http.request.method", record.method);
    put.put("http.response.status_code", u64::from(record.status));
    put.put("url.path", &*String::from_utf8_lossy(record.path));
    put.put("url.scheme", recording.scheme);
    let version = record.protocol.rsplit('/').next();
    put.put_some("network.protocol.version", version);
    put.put("client.address", record.client);
    put.put("http.request.body.size", record.bytes_in);
    put.put("http.response.body.size", record.bytes_out);
    put.put("sluicegate.request_id", record.request_id);
    put.put_some("sluicegate.key", record.key);
    put.put_some("sluicegate.model", record.model);
    put.put_some("sluicegate.pool", record.pool);
    put.put_some("sluicegate.endpoint", record.endpoint);
    put.put("sluicegate.attempts", u64::from(record.attempts));
    put.put_some("sluicegate.queue", record.queue);
    put.put_some("sluicegate.overhead", record.overhead);
    put.put("sluicegate.end", record.end.as_str());
    if record.estimated {
        put.put("sluicegate.tokens_estimated", true);
    }
    let error = error(record);
    put.put_some("error.type", error.as_deref());
    Span {
        trace_id: trace.trace_id.to_be_bytes().to_vec(),
        span_id: trace.span_id.to_be_bytes().to_vec(),
        trace_state: recording.state.clone(),
        parent_span_id: recording
            .parent
            .map(|id| id.to_be_bytes().to_vec())
            .unwrap_or_default(),
        name: cut(name),
        kind: Kind::Server.into(),
        start_time_unix_nano: unix_nanos(recording.began),
        end_time_unix_nano: unix_nanos(recording.began + record.duration),
        attributes: put.0,
        // A client that asks for what it may not have, or leaves, is no error of a server's (HTTP's conventions).
        status: status(record.status >= 500 || record.end == End::UpstreamCut),
        flags: u32::from(trace.flags)
            | PARENT_IS_KNOWN
            | (if recording.parent.is_some() {
                PARENT_IS_REMOTE
            } else {
                0
            }),
    }
}

/// What the request died of: our own word where there is one, else the status.
fn error(record: &Record<'_>) -> Option<String> {
    match record.end {
        End::Complete if record.status < 400 => None,
        End::Complete => Some(record.status.to_string()),
        End::ClientLeft => Some(End::ClientLeft.as_str().to_owned()),
        End::UpstreamCut | End::Refused | End::Failed => {
            Some(record.error.unwrap_or(record.end.as_str()).to_owned())
        }
    }
}

fn tried(
    recording: &Recording,
    attempt: &Attempt,
    record: &Record<'_>,
    number: usize,
    end: tokio::time::Instant,
) -> Span {
    let mut put = Attributes::default();
    put.put("http.request.method", record.method);
    let name = attempt.target.authority.as_str();
    match &attempt.target.address {
        Address::Tcp(address) => {
            let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
            put.put("server.address", host.trim_matches(['[', ']']));
            put.put("server.port", u64::from(address.port()));
            put.put("network.peer.address", &*address.ip().to_string());
        }
        Address::Unix(path) => {
            put.put("server.address", &*path.to_string_lossy());
            put.put("network.transport", "unix");
        }
    }
    let scheme = match attempt.target.tls {
        Some(_) => "https",
        None => "http",
    };
    put.put("url.scheme", scheme);
    if number > 0 {
        put.put("http.request.resend_count", number as u64);
    }
    put.put_some("http.response.status_code", attempt.status.map(u64::from));
    put.put("sluicegate.endpoint", &*attempt.endpoint);
    put.put_some("sluicegate.connect", attempt.connect);
    // What is still running ended with the request.
    let is_last = attempt.ended.is_none();
    let error = match (&attempt.error, attempt.status) {
        (Some(error), _) => Some(error.to_string()),
        (None, _) if is_last && record.end != End::Complete => error(record),
        (None, Some(status)) if status >= 400 => Some(status.to_string()),
        (None, _) => None,
    };
    put.put_some("error.type", error.as_deref());
    let at = |moment: tokio::time::Instant| {
        let since = moment.saturating_duration_since(recording.started);
        unix_nanos(recording.began + since)
    };
    Span {
        span_id: attempt.span_id.to_be_bytes().to_vec(),
        name: record.method.to_owned(),
        kind: Kind::Client.into(),
        start_time_unix_nano: at(attempt.began),
        end_time_unix_nano: at(attempt.ended.unwrap_or(end)),
        attributes: put.0,
        status: status(error.is_some_and(|error| error != End::ClientLeft.as_str())),
        ..Span::default()
    }
}

fn status(is_error: bool) -> Option<Status> {
    is_error.then(|| Status {
        message: String::new(),
        code: Code::Error.into(),
    })
}

/// A name by which receivers group spans; a client chooses a part of it.
fn cut(mut name: String) -> String {
    const LONGEST: usize = 128;
    while name.len() > LONGEST {
        name.pop();
    }
    name
}

fn unix_nanos(time: SystemTime) -> u64 {
    let since: Duration = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
