//! The sign of life of the workers, for the watchdog.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// When each worker last showed that it runs.
#[derive(Debug, Clone)]
pub struct Beats(Arc<[AtomicU64]>, Instant);

impl Beats {
    /// As if all had just done so.
    pub fn new(workers: usize, now: Instant) -> Self {
        Self((0..workers).map(|_| AtomicU64::new(0)).collect(), now)
    }

    /// The worker runs.
    pub fn beat(&self, worker: usize, now: Instant) {
        if let Some(beat) = self.0.get(worker) {
            beat.store(self.millis(now), Relaxed);
        }
    }

    /// The worker that has been silent for longest, and for how long. A worker shows itself twice a second.
    pub fn most_silent(&self, now: Instant) -> Option<(usize, Duration)> {
        let each = self.0.iter().map(|beat| beat.load(Relaxed)).enumerate();
        let (worker, last) = each.min_by_key(|(_, last)| *last)?;
        let silent = self.millis(now).saturating_sub(last);
        Some((worker, Duration::from_millis(silent)))
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.1).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_silent_worker_is_the_one_whose_beat_is_oldest() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let beats = Beats::new(2, begun);
        assert_eq!(beats.most_silent(begun), Some((0, Duration::ZERO)));
        beats.beat(0, after(5));
        beats.beat(1, after(4));
        assert_eq!(
            beats.most_silent(after(7)),
            Some((1, Duration::from_secs(3)))
        );
        beats.beat(1, after(7));
        assert_eq!(
            beats.most_silent(after(7)),
            Some((0, Duration::from_secs(2)))
        );
        // Beyond the workers there are, and before the clock began: neither is a panic.
        beats.beat(2, after(9));
        assert_eq!(beats.most_silent(begun), Some((0, Duration::ZERO)));
        assert_eq!(Beats::new(0, begun).most_silent(begun), None);
    }
}
