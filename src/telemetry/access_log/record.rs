//! One line of the access log.

use std::time::{Duration, SystemTime};

use crate::telemetry::{escape, timestamp};

/// What is told of a request. The fields are written in this order; `None` is null.
#[derive(Debug, Clone)]
pub struct Record<'a> {
    /// When the request ended.
    pub time: SystemTime,
    pub request_id: &'a str,
    /// The client's address, or `unix:`.
    pub client: &'a str,
    /// The name of the key it used.
    pub key: Option<&'a str>,
    pub method: &'a str,
    /// The raw path, without the query.
    pub path: &'a [u8],
    /// Only for `combined`, as `Referer` and `User-Agent` are.
    pub query: Option<&'a [u8]>,
    pub protocol: &'a str,
    /// As sent to the client; 499 where it left first.
    pub status: u16,
    pub model: Option<&'a str>,
    pub pool: Option<&'a str>,
    /// The endpoint that answered, or was asked last.
    pub endpoint: Option<&'a str>,
    /// How many endpoints were asked.
    pub attempts: u32,
    /// The answer was an event stream.
    pub stream: bool,
    /// Bytes of the bodies.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub prompt_tokens: Option<u64>,
    pub completion_tokens: Option<u64>,
    pub cached_tokens: Option<u64>,
    /// The engine did not count the tokens: a stream's events were.
    pub estimated: bool,
    pub queue: Option<Duration>,
    pub connect: Option<Duration>,
    pub ttft: Option<Duration>,
    pub duration: Duration,
    /// The gateway's own share.
    pub overhead: Option<Duration>,
    pub end: End,
    /// What went wrong, for the operator; may name addresses.
    pub error: Option<&'a str>,
    pub referer: Option<&'a [u8]>,
    pub user_agent: Option<&'a [u8]>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The whole answer was sent, an engine's error answer included.
    Complete,
    /// The client went away before.
    ClientLeft,
    /// The engine failed in the middle of the answer.
    UpstreamCut,
    /// The gateway turned the request down.
    Refused,
    /// No engine gave an answer.
    Failed,
}

impl End {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientLeft => "client_left",
            Self::UpstreamCut => "upstream_cut",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Record<'_> {
    /// Appends the line as a JSON object. Milliseconds carry three decimals.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        timestamp::write_rfc3339(out, self.time);
        out.push(b'"');
        text(out, b",\"request_id\":", Some(self.request_id.as_bytes()));
        text(out, b",\"client\":", Some(self.client.as_bytes()));
        text(out, b",\"key\":", self.key.map(str::as_bytes));
        text(out, b",\"method\":", Some(self.method.as_bytes()));
        text(out, b",\"path\":", Some(self.path));
        text(out, b",\"protocol\":", Some(self.protocol.as_bytes()));
        number(out, b",\"status\":", Some(self.status.into()));
        text(out, b",\"model\":", self.model.map(str::as_bytes));
        text(out, b",\"pool\":", self.pool.map(str::as_bytes));
        text(out, b",\"endpoint\":", self.endpoint.map(str::as_bytes));
        number(out, b",\"attempts\":", Some(self.attempts.into()));
        boolean(out, b",\"stream\":", self.stream);
        number(out, b",\"bytes_in\":", Some(self.bytes_in));
        number(out, b",\"bytes_out\":", Some(self.bytes_out));
        number(out, b",\"prompt_tokens\":", self.prompt_tokens);
        number(out, b",\"completion_tokens\":", self.completion_tokens);
        number(out, b",\"cached_tokens\":", self.cached_tokens);
        boolean(out, b",\"tokens_estimated\":", self.estimated);
        milliseconds(out, b",\"queue_ms\":", self.queue);
        milliseconds(out, b",\"connect_ms\":", self.connect);
        milliseconds(out, b",\"ttft_ms\":", self.ttft);
        milliseconds(out, b",\"duration_ms\":", Some(self.duration));
        number(out, b",\"overhead_us\":", self.overhead.map(microseconds));
        text(out, b",\"end\":", Some(self.end.as_str().as_bytes()));
        text(out, b",\"error\":", self.error.map(str::as_bytes));
        out.extend_from_slice(b"}\n");
    }

    /// Appends the line in nginx's `combined` format; the key's name stands for `$remote_user`.
    pub(super) fn write_combined(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.client.as_bytes());
        out.extend_from_slice(b" - ");
        variable(out, self.key.map(str::as_bytes));
        out.extend_from_slice(b" [");
        timestamp::write_nginx(out, self.time);
        out.extend_from_slice(b"] \"");
        escape::nginx(out, self.method.as_bytes());
        out.push(b' ');
        escape::nginx(out, self.path);
        if let Some(query) = self.query {
            out.push(b'?');
            escape::nginx(out, query);
        }
        out.push(b' ');
        escape::nginx(out, self.protocol.as_bytes());
        out.extend_from_slice(b"\" ");
        integer(out, self.status.into());
        out.push(b' ');
        integer(out, self.bytes_out);
        out.extend_from_slice(b" \"");
        variable(out, self.referer);
        out.extend_from_slice(b"\" \"");
        variable(out, self.user_agent);
        out.extend_from_slice(b"\"\n");
    }
}

fn text(out: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    out.extend_from_slice(name);
    match value {
        Some(value) => {
            out.push(b'"');
            escape::json(out, value);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

fn number(out: &mut Vec<u8>, name: &[u8], value: Option<u64>) {
    out.extend_from_slice(name);
    match value {
        Some(value) => integer(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

fn boolean(out: &mut Vec<u8>, name: &[u8], value: bool) {
    out.extend_from_slice(name);
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

fn milliseconds(out: &mut Vec<u8>, name: &[u8], value: Option<Duration>) {
    number(out, name, value.map(|value| microseconds(value) / 1000));
    if let Some(value) = value {
        let rest = microseconds(value) % 1000;
        out.extend([b'.', digit(rest / 100), digit(rest / 10), digit(rest)]);
    }
}

fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn integer(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// As nginx writes a variable: `-` where it is empty.
fn variable(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None | Some(b"") => out.push(b'-'),
        Some(value) => escape::nginx(out, value),
    }
}
