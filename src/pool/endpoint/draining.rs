//! Who may keep new requests from an endpoint, and what follows.

use std::time::Duration;

use tokio::time::Instant;

use super::EndpointState;
use crate::pool::drain::{DrainedBy, Turn};

impl EndpointState {
    /// Whether it gets no new requests on purpose. What fails there is no fault of its.
    pub fn is_draining(&self) -> bool {
        self.gate() == super::Gate::Drains
    }

    /// An operator takes it out of use. It stays so until [`undrain`](Self::undrain), over reloads too.
    pub fn drain(&self, now: Instant) {
        self.change_drain(now, |by| by.command = true);
    }

    /// An operator takes that back. Returns who else drains it; if nobody does, it is usable once a probe has found it
    /// well, and then ramps.
    pub fn undrain(&self, now: Instant) -> DrainedBy {
        self.change_drain(now, |by| by.command = false)
    }

    /// The configuration does not have it any more.
    pub fn removed(&self, now: Instant) {
        self.change_drain(now, |by| by.removal = true);
    }

    /// How long it has been draining by command; `None` = nobody has said so.
    pub fn drained_by_command_for(&self, now: Instant) -> Option<Duration> {
        let inner = self.inner.lock();
        let since = inner.drain.since().filter(|_| inner.drain.by().command);
        since.map(|since| now.saturating_duration_since(since))
    }

    /// It drains, its `drain_timeout` is over, and it still has requests.
    pub fn outstays_drain(&self, now: Instant) -> bool {
        let Some(timeout) = self.settings.load().drain_timeout else {
            return false;
        };
        let since = self.inner.lock().drain.since();
        since.is_some_and(|since| now.saturating_duration_since(since) >= timeout)
            && self.in_flight() > 0
    }

    pub(super) fn change_drain(
        &self,
        now: Instant,
        change: impl FnOnce(&mut DrainedBy),
    ) -> DrainedBy {
        let mut inner = self.inner.lock();
        let before = inner.drain.by();
        let mut by = before;
        change(&mut by);
        let turn = inner.drain.set(by, now);
        if turn == Some(Turn::Over) {
            // One that left the file and is in it again is usable until a probe says otherwise, as any that is new.
            if before.command || before.configuration {
                inner.health.readmit(now);
            } else {
                inner.health.want_probe(now);
            }
        }
        self.publish(&inner);
        drop(inner);
        let name = &self.settings.load().name;
        match turn {
            // One that is gone and holds nothing is not worth a line.
            Some(Turn::Begun) if by.removal && self.in_flight() == 0 => {}
            Some(Turn::Begun) => log::info!(
                "endpoint {name} drains, {by}: no new requests, {} in flight",
                self.in_flight()
            ),
            Some(Turn::Over) => {
                self.rescheduled.notify_one();
                log::info!("endpoint {name} does not drain any more, and is probed");
            }
            None => {}
        }
        by
    }
}
