//! Spans on their way out: gathered into batches, and sent again where that may help.

use std::time::Duration;

use bytes::Bytes;
use log::{info, warn};
use prometheus::IntCounter;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::otlp::{KeyValue, Request, Resource, ResourceSpans, Scope, ScopeSpans, Span};
use super::post::{Posted, Receiver};

/// Spans of one request to the receiver (OpenTelemetry's default for a batch).
const BATCH: usize = 512;
/// How long a span waits at most for others to go with it.
const GATHER: Duration = Duration::from_secs(1);
/// Tries of one batch; the waits between them make half a minute at most.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Also where a receiver asks for more.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The task that sends.
pub struct Exporter {
    task: JoinHandle<()>,
    hurry: watch::Sender<bool>,
}

impl Exporter {
    pub(super) fn spawn(
        receiver: Receiver,
        spans: mpsc::Receiver<Span>,
        dropped: IntCounter,
    ) -> Self {
        let (hurry, hurried) = watch::channel(false);
        let export = Export {
            receiver,
            resource: resource(),
            dropped,
            hurried,
            is_failing: false,
        };
        Self {
            task: tokio::spawn(export.run(spans)),
            hurry,
        }
    }

    /// Waits until it has sent or given up everything, but not beyond `deadline`. Its tracer must be gone.
    /// Nothing is tried twice any more, nor is it after this was dropped.
    pub async fn finish(mut self, deadline: Instant) {
        self.hurry.send_replace(true);
        if timeout_at(deadline, &mut self.task).await.is_err() {
            self.task.abort();
            warn!("the last spans could not be sent in time");
        }
    }
}

struct Export {
    receiver: Receiver,
    resource: Resource,
    dropped: IntCounter,
    hurried: watch::Receiver<bool>,
    /// The last batch was given up, and that was said.
    is_failing: bool,
}

impl Export {
    async fn run(mut self, mut spans: mpsc::Receiver<Span>) {
        let mut batch = Vec::with_capacity(BATCH);
        while spans.recv_many(&mut batch, BATCH).await > 0 {
            let deadline = Instant::now() + GATHER;
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                match timeout_at(deadline, spans.recv_many(&mut batch, room)).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                }
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let body = self.body(spans);
        let mut tries = 0;
        let (lost, why) = loop {
            tries += 1;
            let (after, why) = match self.receiver.post(&body).await {
                Posted::Taken => {
                    if std::mem::take(&mut self.is_failing) {
                        info!("spans are taken again by {}", self.receiver.url());
                    }
                    return;
                }
                Posted::TakenInPart { rejected, why } => break (rejected.min(count), why),
                Posted::Refused { why } => break (count, why),
                Posted::Busy { after, why } => (after, why),
            };
            if tries == TRIES || !self.pause(wait(tries, after, fastrand::f64())).await {
                break (count, why);
            }
        };
        self.dropped.inc_by(lost);
        if !std::mem::replace(&mut self.is_failing, true) {
            let url = self.receiver.url();
            warn!("{lost} spans were dropped, for {url} did not take them: {why}");
        }
    }

    /// False where there is no time for it.
    async fn pause(&mut self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            // An error means that whoever would say so is gone: a reload has put another in its place.
            _ = self.hurried.wait_for(|hurried| *hurried) => false,
            () = sleep(wait) => true,
        }
    }

    fn body(&self, spans: Vec<Span>) -> Bytes {
        let request = Request {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(Scope {
                        name: env!("CARGO_PKG_NAME").to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                    }),
                    spans,
                }],
            }],
        };
        request.encode_to_vec().into()
    }
}

/// How long to wait before the next try: what the receiver asks for, else twice as long as the last time,
/// with chance in it so that gateways do not come all at once. `chance`: 0 to 1.
fn wait(tries: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(1 << tries.saturating_sub(1).min(16));
    let own = longest.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
    asked.unwrap_or(own).min(LONGEST_WAIT)
}

/// This gateway, among others that send to the same receiver.
fn resource() -> Resource {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut attributes = vec![
        KeyValue::new("service.name", env!("CARGO_PKG_NAME")),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("process.pid", u64::from(std::process::id())),
    ];
    if !host.trim().is_empty() {
        attributes.push(KeyValue::new("host.name", host.trim()));
        let instance = format!("{}:{}", host.trim(), std::process::id());
        attributes.push(KeyValue::new("service.instance.id", &*instance));
    }
    Resource { attributes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_are_bounded() {
        assert_eq!(wait(1, None, 0.0), Duration::from_millis(500));
        assert_eq!(wait(1, None, 1.0), Duration::from_secs(1));
        assert_eq!(wait(4, None, 1.0), Duration::from_secs(8));
        assert_eq!(wait(40, None, 1.0), LONGEST_WAIT);
        let asked = Some(Duration::from_secs(7));
        assert_eq!(wait(1, asked, 0.3), Duration::from_secs(7));
        assert_eq!(wait(1, Some(Duration::MAX), 0.3), LONGEST_WAIT);
    }
}
