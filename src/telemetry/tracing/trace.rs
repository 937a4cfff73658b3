//! The trace that one request is part of.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tokio::time::Instant;

use super::context::{Parent, SAMPLED, traceparent, tracestate};
use super::{Tracer, spans};
use crate::telemetry::access_log::Record;
use crate::upstream::Target;

/// Attempts that get a span each. A pool of thousands that all refuse is tried to its end.
const MOST_ATTEMPTS: usize = 32;

/// What becomes of a request's trace: its engine is told one thing and the receiver another.
pub struct Trace {
    pub(super) trace_id: u128,
    pub(super) flags: u8,
    /// Of the gateway's own span.
    pub(super) span_id: u64,
    /// The client's `tracestate` goes on to the engine.
    pub keeps_state: bool,
    recording: Option<Box<Recording>>,
    ids: fastrand::Rng,
}

/// What is remembered of a trace that is recorded.
pub(super) struct Recording {
    tracer: Arc<Tracer>,
    pub(super) parent: Option<u64>,
    pub(super) state: String,
    /// When the request came.
    pub(super) began: SystemTime,
    /// The same moment.
    pub(super) started: Instant,
    /// `gen_ai.operation.name`, if it is one.
    pub(super) operation: Option<&'static str>,
    pub(super) provider: Option<&'static str>,
    /// As the client named it.
    pub(super) model: Option<String>,
    pub(super) scheme: &'static str,
    pub(super) attempts: Vec<Attempt>,
}

/// One try on one endpoint.
pub(super) struct Attempt {
    pub(super) span_id: u64,
    pub(super) target: Target,
    pub(super) endpoint: Arc<str>,
    pub(super) began: Instant,
    pub(super) ended: Option<Instant>,
    pub(super) status: Option<u16>,
    /// What it died of.
    pub(super) error: Option<Cow<'static, str>>,
    /// Time to connect, where it was not on a connection that was open.
    pub(super) connect: Option<Duration>,
}

impl Trace {
    /// Takes a request into its caller's trace, or begins one. `None`: the caller does not record, and its
    /// fields pass as they came. `rng` gives the ids.
    pub fn begin(
        tracer: &Arc<Tracer>,
        headers: &HeaderMap,
        began: SystemTime,
        started: Instant,
        rng: fastrand::Rng,
    ) -> Option<Box<Self>> {
        let values = |name| {
            let values = headers.get_all(name).into_iter();
            values.map(http::HeaderValue::as_bytes)
        };
        let parent = Parent::parse(values("traceparent"));
        if parent.is_some_and(|parent| !parent.is_sampled()) {
            return None;
        }
        let mut ids = rng;
        let trace_id = match &parent {
            Some(parent) => parent.trace_id,
            None => ids.u128(1..),
        };
        // Without its parent a state belongs to nothing.
        let state = match parent {
            Some(_) => tracestate(values("tracestate")),
            None => None,
        };
        let flags = tracer.sampler.flags(trace_id, parent.as_ref());
        let span_id = ids.u64(1..);
        let keeps_state = state.is_some();
        let recording = (flags & SAMPLED != 0).then(|| {
            Box::new(Recording {
                tracer: Arc::clone(tracer),
                parent: parent.map(|parent| parent.span_id),
                state: state.unwrap_or_default(),
                began,
                started,
                operation: None,
                provider: None,
                model: None,
                scheme: "http",
                attempts: Vec::new(),
            })
        });
        Some(Box::new(Self {
            trace_id,
            flags,
            span_id,
            keeps_state,
            recording,
            ids,
        }))
    }

    /// What the request asks for. `operation` and `provider` in the words of OpenTelemetry's conventions
    /// for generative AI.
    pub fn asks(
        &mut self,
        operation: Option<&'static str>,
        provider: Option<&'static str>,
        model: Option<&str>,
    ) {
        if let Some(recording) = &mut self.recording {
            recording.operation = operation;
            recording.provider = provider;
            recording.model = model.map(str::to_owned);
        }
    }

    /// The client came over TLS.
    pub fn over_tls(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.scheme = "https";
        }
    }

    /// A try begins; returns the `traceparent` that goes with it.
    pub fn attempt(&mut self, endpoint: &Arc<str>, target: &Target, now: Instant) -> String {
        let mut span_id = self.span_id;
        if let Some(recording) = &mut self.recording
            && recording.attempts.len() < MOST_ATTEMPTS
        {
            span_id = self.ids.u64(1..);
            recording.attempts.push(Attempt {
                span_id,
                target: target.clone(),
                endpoint: Arc::clone(endpoint),
                began: now,
                ended: None,
                status: None,
                error: None,
                connect: None,
            });
        }
        traceparent(self.trace_id, span_id, self.flags)
    }

    /// The head of an answer has come to the try that runs.
    pub fn answered(&mut self, status: u16, connect: Option<Duration>) {
        if let Some(attempt) = self.running() {
            attempt.status = Some(status);
            attempt.connect = connect;
        }
    }

    /// The try that runs has come to nothing.
    pub fn failed(&mut self, error: impl Into<Cow<'static, str>>, now: Instant) {
        if let Some(attempt) = self.running() {
            attempt.error = Some(error.into());
            attempt.ended = Some(now);
        }
    }

    /// The request has ended: its spans go out, if they are recorded.
    pub fn end(mut self, record: &Record<'_>) {
        if let Some(recording) = self.recording.take() {
            for span in spans::of_request(&self, &recording, record) {
                recording.tracer.send(span);
            }
        }
    }

    /// None beyond those that get a span.
    fn running(&mut self) -> Option<&mut Attempt> {
        let last = self.recording.as_mut()?.attempts.last_mut()?;
        last.ended.is_none().then_some(last)
    }
}
