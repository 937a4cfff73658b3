//! When an endpoint that holds requests and makes no progress is to be asked whether it hangs. Without clock or I/O of
//! its own.

use std::time::Duration;

use tokio::time::Instant;

/// What is known of an endpoint's silence.
#[derive(Debug, Default)]
pub struct Silence {
    /// When it was asked last.
    asked: Option<Instant>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing, and not before then.
    At(Instant),
    /// It has been silent for too long: it is to be asked.
    Ask,
}

impl Silence {
    /// `since` as [`EndpointState::silent_since`](super::EndpointState::silent_since) has it.
    pub fn look(&self, since: Option<Instant>, stall: Duration, now: Instant) -> Look {
        // Whatever begins now is not silent for too long sooner.
        let since = since.unwrap_or(now);
        let over = self.asked.map_or(since, |asked| asked.max(since)) + stall;
        if over <= now {
            Look::Ask
        } else {
            Look::At(over)
        }
    }

    /// It was asked, and is not asked again for a whole `stall`, whatever came of it.
    pub fn asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_secs(30);

    #[test]
    fn it_is_asked_once_a_stall() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::default();
        assert_eq!(silence.look(None, STALL, start), Look::At(after(30)));
        let since = Some(after(10));
        assert_eq!(silence.look(since, STALL, after(11)), Look::At(after(40)));
        let shortly_before = after(40) - Duration::from_nanos(1);
        let look = silence.look(since, STALL, shortly_before);
        assert_eq!(look, Look::At(after(40)));
        assert_eq!(silence.look(since, STALL, after(40)), Look::Ask);
        silence.asked(after(41));
        assert_eq!(silence.look(since, STALL, after(41)), Look::At(after(71)));
        assert_eq!(silence.look(since, STALL, after(71)), Look::Ask);
        // It has gone on since.
        let since = Some(after(60));
        assert_eq!(silence.look(since, STALL, after(71)), Look::At(after(90)));
    }
}
