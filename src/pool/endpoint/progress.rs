//! When something last came from an endpoint: one that is silent may hang, or be gone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::EndpointState;

impl EndpointState {
    /// An answer went on: data of a stream, or a whole answer that the model made. Heads and comments are none, for
    /// engines send them while they hang. One store, and none within the same millisecond.
    pub fn progressed(&self, now: Instant) {
        self.note_time(&self.last_progress, now);
    }

    /// Something of an answer arrived that says no more than that there is somebody.
    pub fn answered(&self, now: Instant) {
        self.note_time(&self.last_answer, now);
    }

    pub(super) fn note_time(&self, last: &AtomicU64, now: Instant) {
        let stamp = self.stamp(now);
        if last.load(Ordering::Relaxed) != stamp {
            last.store(stamp, Ordering::Relaxed);
        }
    }

    /// Since when the requests that it holds have made no progress, and its own counters none either; `None`: it
    /// holds no request.
    pub fn silent_since(&self) -> Option<Instant> {
        if self.in_flight() == 0 {
            return None;
        }
        let stamps = [&self.busy_since, &self.last_progress].map(|at| at.load(Ordering::Relaxed));
        let last = stamps.into_iter().max().unwrap_or_default();
        let last = self.born + Duration::from_millis(last.saturating_sub(1));
        let moved = self.report.get().map(|report| report.moved);
        Some(moved.map_or(last, |moved| moved.max(last)))
    }

    /// It has held requests for `quiet`, and nothing at all has come from it.
    pub fn is_quiet(&self, now: Instant, quiet: Duration) -> bool {
        self.in_flight() > 0
            && !self.bytes_since(now, quiet)
            && !self.is_within(&self.busy_since, now, quiet)
    }

    pub(super) fn bytes_since(&self, now: Instant, window: Duration) -> bool {
        let lasts = [&self.last_answer, &self.last_progress];
        lasts
            .into_iter()
            .any(|last| self.is_within(last, now, window))
    }

    /// Whether that was in the last `window`.
    fn is_within(&self, last: &AtomicU64, now: Instant, window: Duration) -> bool {
        match last.load(Ordering::Relaxed) {
            0 => false,
            at => u128::from(self.stamp(now).saturating_sub(at)) <= window.as_millis(),
        }
    }
}
