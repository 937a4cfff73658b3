//! Requests that kill the engines they are sent to: which ones, without clock, network or hash of its own.
//!
//! A strike is an engine that died of a request: it was up, had no other request without an answer, lost
//! the connection before it said anything, and refuses connections. The second makes the request suspect,
//! unless engines are being restarted, or one has answered the request in between.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// How long a suspect request is refused, and a first strike remembered.
pub const REFUSED_FOR: Duration = Duration::from_secs(600);
/// Requests known at a time; beyond, the one that would be forgotten first is.
const MOST: usize = 1024;
/// An engine that dies is known to refuse connections within this time.
const NEAR: Duration = Duration::from_secs(2);
/// An engine that falls within this time of a strike, or since, without the request is one of a restart.
const RESTART: Duration = Duration::from_secs(60);

/// An engine that a request killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// [`EndpointState::id`](super::EndpointState::id).
    pub endpoint: u64,
    pub at: Instant,
}

/// What is known of the last end and return of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    pub endpoint: u64,
    /// It refused connections, having been up.
    pub fell: Option<Instant>,
    pub rose: Option<Instant>,
}

impl Fate {
    /// Whether it refused connections first at about the time of the strike.
    pub fn has_fallen_of(self, strike: Strike) -> bool {
        let is_near = |at: Instant| at + NEAR >= strike.at && at <= strike.at + NEAR;
        self.endpoint == strike.endpoint && self.fell.is_some_and(is_near)
    }
}

/// The requests with a strike, by a hash of their bodies.
#[derive(Debug, Default)]
pub struct Suspects(HashMap<u64, Known>);

#[derive(Debug)]
struct Known {
    last: Strike,
    is_suspect: bool,
}

impl Suspects {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes a strike against `body`. Whether it is suspect, now or already.
    ///
    /// `fates` are those of the pool's endpoints.
    pub fn strike(
        &mut self,
        body: u64,
        strike: Strike,
        fates: impl IntoIterator<Item = Fate>,
    ) -> bool {
        self.0
            .retain(|_, known| known.last.at + REFUSED_FOR > strike.at);
        if let Some(known) = self.0.get_mut(&body) {
            known.is_suspect = known.is_suspect || !is_restart(known.last, strike, fates);
            known.last = strike;
            return known.is_suspect;
        }
        if self.0.len() >= MOST
            && let Some((oldest, _)) = self.0.iter().min_by_key(|(_, known)| known.last.at)
        {
            let oldest = *oldest;
            self.0.remove(&oldest);
        }
        let known = Known {
            last: strike,
            is_suspect: false,
        };
        self.0.insert(body, known);
        false
    }

    /// An engine has answered `body`: the strike against it was not its doing. What is suspect already stays so.
    pub fn acquit(&mut self, body: u64) {
        if self.0.get(&body).is_some_and(|known| !known.is_suspect) {
            self.0.remove(&body);
        }
    }

    /// Whether `body` is refused.
    pub fn refuses(&self, body: u64, now: Instant) -> bool {
        self.0
            .get(&body)
            .is_some_and(|known| known.is_suspect && known.last.at + REFUSED_FOR > now)
    }
}

/// Whether engines are being restarted, so that two that died need not have died of a request: the first
/// one is up again before the second goes, or others go as well.
pub fn is_restart(first: Strike, second: Strike, fates: impl IntoIterator<Item = Fate>) -> bool {
    fates.into_iter().any(|fate| {
        if fate.endpoint == first.endpoint {
            // No restart takes the same one twice.
            second.endpoint != first.endpoint && fate.rose.is_some_and(|at| at > first.at)
        } else {
            fate.endpoint != second.endpoint && fate.fell.is_some_and(|at| at + RESTART >= first.at)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BODY: u64 = 7;

    fn strike(endpoint: u64, at: Instant) -> Strike {
        Strike { endpoint, at }
    }

    fn fate(endpoint: u64, fell: Option<Instant>, rose: Option<Instant>) -> Fate {
        Fate {
            endpoint,
            fell,
            rose,
        }
    }

    #[test]
    fn the_second_engine_that_dies_makes_a_request_suspect() {
        let start = Instant::now();
        let mut suspects = Suspects::default();
        assert!(!suspects.strike(BODY, strike(1, start), []));
        assert!(!suspects.refuses(BODY, start));
        let later = start + SECOND;
        let fates = [
            fate(1, Some(start), None),
            fate(2, None, None),
            fate(3, None, Some(start)),
        ];
        assert!(!suspects.strike(8, strike(2, later), fates), "another body");
        assert!(suspects.strike(BODY, strike(2, later), fates));
        assert!(suspects.refuses(BODY, later));
        assert!(!suspects.refuses(8, later));
        assert!(suspects.refuses(BODY, later + REFUSED_FOR - SECOND));
        assert!(!suspects.refuses(BODY, later + REFUSED_FOR));
    }

    #[test]
    fn an_answer_in_between_acquits() {
        let start = Instant::now();
        let mut suspects = Suspects::default();
        suspects.strike(BODY, strike(1, start), []);
        suspects.acquit(8);
        assert_eq!(suspects.len(), 1);
        suspects.acquit(BODY);
        assert!(suspects.is_empty());
        assert!(!suspects.strike(BODY, strike(2, start + SECOND), []));
        assert!(suspects.strike(BODY, strike(1, start + 2 * SECOND), []));
        suspects.acquit(BODY);
        assert!(suspects.refuses(BODY, start + 2 * SECOND));
    }

    #[test]
    fn whatever_kills_once_again_is_refused_anew() {
        let start = Instant::now();
        let mut suspects = Suspects::default();
        suspects.strike(BODY, strike(1, start), []);
        assert!(suspects.strike(BODY, strike(2, start), []));
        let later = start + REFUSED_FOR - SECOND;
        // A restart excuses nobody who is suspect already.
        let restart = [fate(3, Some(later), None)];
        assert!(suspects.strike(BODY, strike(3, later), restart));
        assert!(suspects.refuses(BODY, start + REFUSED_FOR));
    }

    #[test]
    fn a_rolling_restart_is_nobodys_fault() {
        let start = Instant::now();
        let second = strike(2, start + 90 * SECOND);
        for (fates, is_suspect) in [
            // The first one is up again.
            (vec![fate(1, Some(start), Some(start + 60 * SECOND))], false),
            // It was, before it died.
            (vec![fate(1, Some(start), Some(start - 60 * SECOND))], true),
            // A third one went, before or since, or long ago.
            (vec![fate(3, Some(start - 60 * SECOND), None)], false),
            (vec![fate(3, Some(start + 80 * SECOND), None)], false),
            (vec![fate(3, Some(start - 61 * SECOND), None)], true),
            // The second one has gone before.
            (vec![fate(2, Some(start - SECOND), Some(start))], true),
            (vec![], true),
        ] {
            let mut suspects = Suspects::default();
            suspects.strike(BODY, strike(1, start), []);
            let shown = format!("{fates:?}");
            assert_eq!(suspects.strike(BODY, second, fates), is_suspect, "{shown}");
        }
    }

    #[test]
    fn after_a_restart_it_takes_one_more() {
        let start = Instant::now();
        let mut suspects = Suspects::default();
        suspects.strike(BODY, strike(1, start), []);
        let back = fate(1, Some(start), Some(start + SECOND));
        assert!(!suspects.strike(BODY, strike(2, start + 2 * SECOND), [back]));
        assert!(suspects.strike(BODY, strike(3, start + 3 * SECOND), [fate(1, None, None)]));
    }

    #[test]
    fn the_same_engine_twice_counts_though_it_came_back() {
        let start = Instant::now();
        let mut suspects = Suspects::default();
        suspects.strike(BODY, strike(1, start), []);
        let back = fate(1, Some(start), Some(start + 60 * SECOND));
        assert!(suspects.strike(BODY, strike(1, start + 61 * SECOND), [back]));
    }

    #[test]
    fn a_strike_is_forgotten() {
        let start = Instant::now();
        let mut suspects = Suspects::default();
        suspects.strike(BODY, strike(1, start), []);
        assert!(!suspects.strike(BODY, strike(2, start + REFUSED_FOR), []));
        assert_eq!(suspects.len(), 1);
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let start = Instant::now();
        let mut suspects = Suspects::default();
        for body in 0..=MOST as u64 {
            let at = start + Duration::from_millis(body);
            suspects.strike(body, strike(1, at), []);
        }
        assert_eq!(suspects.len(), MOST);
        let at = start + 2 * SECOND;
        assert!(suspects.strike(1, strike(2, at), []));
        assert!(!suspects.strike(0, strike(2, at), []));
    }
}
