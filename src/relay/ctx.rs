//! What is known about one request, in the order it becomes known.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use crate::admission::{Limited, Permit, Tenant};
use crate::listener::{Connection, one_client};
use crate::openai::{Call, Dialect, Usage};
use crate::pool::Pool;
use crate::pool::suspects::Strike;
use crate::snapshot::{ModelScope, Snapshot};
use crate::telemetry::connections::RequestGuard;
use crate::telemetry::metrics::Intervals;
use crate::telemetry::tracing::Trace;

use super::body::Body;
use super::incoming::Incoming;
use super::memory::Holder;

/// How a request ended, for the access log.
pub use crate::telemetry::access_log::End;

/// What an answer cost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    pub usage: Usage,
    /// The engine did not count them: a stream's events were.
    pub is_estimated: bool,
}

/// One request, from its head to its line in the access log.
pub struct RequestCtx {
    // start
    pub started: Instant,
    pub snapshot: Option<Arc<Snapshot>>,
    pub connection: Option<Arc<Connection>>,
    /// Counts the request as one that is being answered.
    pub counted: Option<RequestGuard>,
    pub request_id: HeaderValue,
    pub client: Option<IpAddr>,
    /// The trace it is part of; `None` where tracing is off, or its caller does not record.
    pub trace: Option<Box<Trace>>,
    /// Answered by the gateway itself: not counted among the pool's requests.
    pub local: bool,
    // identify, read_body
    pub call: Option<Call>,
    /// What is read of the body, and what is not.
    pub incoming: Incoming,
    pub body: Body,
    pub body_read: Option<Instant>,
    // authenticate, resolve, admit
    /// Whose key it is, where keys are configured.
    pub tenant: Option<Arc<Tenant>>,
    /// Tokens that its prompt is taken to cost while the engine has not said.
    pub prompt_cost: u64,
    /// What the request takes of its key's limits.
    pub permit: Option<Permit>,
    /// The limits of its key refused it; they are told to the client.
    pub limited: Option<Limited>,
    pub model: Option<Arc<ModelScope>>,
    /// The one its model goes to.
    pub pool: Option<Arc<Pool>>,
    // pick, lease, send, classify
    /// How long it has waited in the pool's queue, if it had to.
    pub queue: Option<Duration>,
    pub attempts: u32,
    /// Attempts that count against the pool's `retries`: a refused connect is free.
    pub retries: u32,
    /// The endpoint asked last.
    pub endpoint: Option<(Arc<Pool>, usize)>,
    pub connect: Option<Duration>,
    /// Time of ours before the request was handed to the engine that answered.
    pub overhead: Option<Duration>,
    // stream
    pub is_stream: Option<bool>,
    pub ttft: Option<Duration>,
    /// When a stream's last content event came.
    pub last_content: Option<Instant>,
    pub intervals: Intervals,
    pub tokens: Tokens,
    pub bytes_out: u64,
    /// The endpoint that a stream was cut at last, by its [`id`](crate::pool::EndpointState::id).
    pub cut_at: Option<u64>,
    /// The last engine that died of the stream.
    pub strike: Option<Strike>,
    /// A stream was cut for good; the `result` of `sluicegate_continuations_total`.
    pub cut: Option<&'static str>,
    // heartbeat
    /// The head of its answer went with a heartbeat: there will be no other.
    pub has_head: bool,
    /// The status that its failure would have had with a head of its own; metrics count this one.
    pub failed_as: Option<u16>,
    // finish
    /// As the client got it.
    pub status: Option<u16>,
    pub end: End,
    /// The `reason` of `sluicegate_refused_total`.
    pub refusal: Option<&'static str>,
    /// The client is told not to send it again.
    pub is_final: bool,
    pub error: Option<Cow<'static, str>>,
}

impl RequestCtx {
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            snapshot: None,
            connection: None,
            counted: None,
            request_id: HeaderValue::from_static(""),
            client: None,
            trace: None,
            local: false,
            call: None,
            incoming: Incoming::default(),
            body: Body::default(),
            body_read: None,
            tenant: None,
            prompt_cost: 0,
            permit: None,
            limited: None,
            model: None,
            pool: None,
            queue: None,
            attempts: 0,
            retries: 0,
            endpoint: None,
            connect: None,
            overhead: None,
            is_stream: None,
            ttft: None,
            last_content: None,
            intervals: Intervals::default(),
            tokens: Tokens::default(),
            bytes_out: 0,
            cut_at: None,
            strike: None,
            cut: None,
            has_head: false,
            failed_as: None,
            status: None,
            end: End::Complete,
            refusal: None,
            is_final: false,
            error: None,
        }
    }

    /// Whose memory its body and a held answer take: its key's, else its address's, of IPv6 its network's; `None` for a unix socket without keys.
    pub fn holder(&self) -> Option<Holder> {
        match &self.tenant {
            Some(tenant) => Some(Holder::Key(Arc::clone(&tenant.name))),
            None => self
                .client
                .map(|address| Holder::Address(one_client(address))),
        }
    }

    /// How long the client may take between two writes.
    pub fn send_timeout(&self) -> Duration {
        let config = self.snapshot.as_ref().map(|snapshot| &snapshot.config);
        config.map_or(Duration::from_secs(60), |config| config.client.send_timeout)
    }

    /// The fields of an answer that tell what is left of its key's limits.
    pub fn each_limit(&self, put: impl FnMut(&'static str, &str)) {
        match (&self.permit, &self.limited) {
            (Some(permit), _) => permit.rate(Instant::now()).each_field(put),
            (None, Some(limited)) => limited.each_field(put),
            (None, None) => {}
        }
    }

    /// In which API's form the client is told of errors.
    pub fn dialect(&self) -> Dialect {
        self.call.map_or(Dialect::Other, |call| call.dialect)
    }

    /// Notes why the request did not go well; the first reason stays.
    pub fn fail(&mut self, end: End, why: impl Into<Cow<'static, str>>) {
        self.end = end;
        self.error.get_or_insert(why.into());
    }
}
