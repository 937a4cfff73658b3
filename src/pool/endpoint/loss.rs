//! What an endpoint knows of a request that was lost with it: whether it can have died of that one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{EndpointState, Gate};
use crate::pool::suspects::Fate;

/// What is lost within it is lost together, in milliseconds.
const MOMENT: u64 = 1000;

impl EndpointState {
    /// A request that it had is lost, and the endpoint had not begun to answer it; to be told before its
    /// lease is given back. Whether it was up then, or a moment before, and no other request waited for its
    /// answer: none does now, and none was lost in the same moment.
    pub fn lost_alone(&self, now: Instant) -> bool {
        let stamp = self.stamp(now);
        // In this order of two that are lost at once the second sees the first, here or there.
        let with_another = is_recent(self.lost.swap(stamp, Ordering::SeqCst), stamp);
        let waits_another = self.places.unanswered() > 1;
        self.was_up(stamp) && !with_another && !waits_another
    }

    /// A stream that it had is cut, or what goes on with one is lost; to be told before its lease is given back.
    /// Whether it was up then, or a moment before, and held no other request at all: none now, and none that was lost
    /// or cut in the same moment. To be told of every one.
    pub fn cut_alone(&self, now: Instant) -> bool {
        let stamp = self.stamp(now);
        let with_another = is_recent(self.cut.swap(stamp, Ordering::SeqCst), stamp)
            || is_recent(self.lost.load(Ordering::SeqCst), stamp);
        self.was_up(stamp) && !with_another && self.in_flight() == 1
    }

    /// No other of its requests has no answer yet.
    pub fn waits_for_one(&self) -> bool {
        self.places.unanswered() <= 1
    }

    /// One that is ejected for its faults has died of none: it may be the streams it was cut with that ejected it.
    fn was_up(&self, stamp: u64) -> bool {
        let accepts = matches!(self.gate(), Gate::Usable | Gate::FailsRequests);
        accepts || is_recent(self.fell.load(Ordering::Acquire), stamp)
    }

    /// When it last stopped accepting connections, having been up, and when it last came up again.
    pub fn fate(&self) -> Fate {
        let at = |stamp: &AtomicU64| match stamp.load(Ordering::Acquire) {
            0 => None,
            millis => Some(self.born + Duration::from_millis(millis - 1)),
        };
        Fate {
            endpoint: self.id,
            fell: at(&self.fell),
            rose: at(&self.rose),
        }
    }
}

fn is_recent(at: u64, now: u64) -> bool {
    at != 0 && now.saturating_sub(at) <= MOMENT
}
