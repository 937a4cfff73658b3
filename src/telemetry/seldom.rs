//! A line that would come with every failure, said once a while.

use std::time::{Duration, Instant};

/// When to say something again.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    said: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            said: None,
            unsaid: 0,
        }
    }

    /// It happened. `Some` when it is time to say so, with how often it was not said before.
    pub fn now(&mut self, now: Instant) -> Option<u64> {
        let is_recent = |said| now.saturating_duration_since(said) < self.every;
        if self.said.is_some_and(is_recent) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_often_is_said_once_a_while_and_counted_meanwhile() {
        let start = Instant::now();
        let mut seldom = Seldom::new(Duration::from_secs(10));
        let mut at = |seconds| seldom.now(start + Duration::from_secs(seconds));
        assert_eq!(at(0), Some(0));
        assert_eq!(at(1), None);
        assert_eq!(at(9), None);
        assert_eq!(at(10), Some(2));
        assert_eq!(at(11), None);
        assert_eq!(at(60), Some(1));
    }
}
