//! Spans of requests, for OpenTelemetry.
//!
//! * [`context`]: W3C Trace Context, in and out
//! * [`sampler`]: which traces are recorded
//! * [`trace`]: what a request remembers until its end
//! * [`spans`]: that as spans
//! * [`otlp`], [`export`], [`post`]: how they leave, in batches over HTTP
//!
//! A request never waits for a receiver: its spans go into a bounded queue, and what does not fit is
//! counted and forgotten.

mod context;
mod export;
mod otlp;
mod post;
mod sampler;
mod spans;
mod trace;

use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::mpsc;

pub use export::Exporter;
pub use trace::Trace;

use crate::config::{OtlpUrl, Tracing};
use crate::upstream::TlsError;
use otlp::Span;
use post::Receiver;
use sampler::Sampler;

/// Spans wait in a queue of this length, a batch beside it; beyond, they are dropped and counted.
pub const QUEUE: usize = 4096;

/// Where requests leave their spans. When the last one is gone, what waits is sent and the exporter ends.
pub struct Tracer {
    sampler: Sampler,
    queue: mpsc::Sender<Span>,
    dropped: IntCounter,
}

impl Tracer {
    /// Begins to export to the configured receiver on the calling runtime; `None` where there is none.
    /// `dropped` counts the spans that did not get there.
    ///
    /// # Errors
    /// The receiver is reached over TLS and the system has no roots, or its name is none.
    pub fn start(
        config: &Tracing,
        dropped: IntCounter,
    ) -> Result<Option<(Arc<Self>, Exporter)>, TlsError> {
        let Some(url) = &config.otlp else {
            return Ok(None);
        };
        let receiver = Receiver::new(OtlpUrl::clone(url))?;
        let (queue, spans) = mpsc::channel(QUEUE);
        let exporter = Exporter::spawn(receiver, spans, dropped.clone());
        let tracer = Self {
            sampler: Sampler::new(config.sample),
            queue,
            dropped,
        };
        Ok(Some((Arc::new(tracer), exporter)))
    }

    fn send(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.dropped.inc();
        }
    }
}
