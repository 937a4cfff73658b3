//! What happens to which engine, and when: fixed before the run begins.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::engine::Death;

/// What befalls an engine's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, then a new process.
    Kill,
    /// SIGSTOP, then SIGCONT: connections are accepted and nothing is answered.
    Hang,
    /// SIGTERM of stock vLLM, one outcome of three: streams stay open and silent; then a new process.
    Freeze,
    /// SIGTERM, another: they end with `finish_reason: "abort"` and `[DONE]`.
    Abort,
    /// SIGTERM, the third: an error event and `[DONE]`.
    Error,
}

impl Fault {
    pub const ALL: [Self; 5] = [
        Self::Kill,
        Self::Hang,
        Self::Freeze,
        Self::Abort,
        Self::Error,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Hang => "hang",
            Self::Freeze => "freeze",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }

    /// What SIGTERM must do to an engine that is to meet it.
    pub(super) fn on_term(self) -> Option<Death> {
        match self {
            Self::Kill | Self::Hang => None,
            Self::Freeze => Some(Death::Freeze),
            Self::Abort => Some(Death::Abort),
            Self::Error => Some(Death::Error),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|fault| fault.name() == text);
        known.ok_or_else(|| format!("{text:?} is none of kill, hang, freeze, abort, error"))
    }
}

/// One fault of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Planned {
    /// Since the start of the run.
    pub at: Duration,
    pub fault: Fault,
    /// Which engine, from 0.
    pub engine: usize,
    /// When the engine is well again.
    pub heals: Duration,
}

/// What a schedule is made from.
#[derive(Debug, Clone)]
pub struct Faults {
    /// They come in this order, over and over; none: no faults.
    pub kinds: Vec<Fault>,
    /// From one engine's recovery to the next fault.
    pub pause: Duration,
    /// How long an engine is gone.
    pub outage: Duration,
    /// How long one hangs.
    pub hang: Duration,
}

impl Faults {
    /// The faults that are over a pause before the end of the run, one at a time, each engine in turn.
    pub(super) fn plan(&self, duration: Duration, engines: usize) -> Vec<Planned> {
        let mut planned = Vec::new();
        let mut at = self.pause;
        for (number, fault) in self.kinds.iter().copied().cycle().enumerate() {
            let lasts = match fault {
                Fault::Hang => self.hang,
                _ => self.outage,
            };
            let heals = at + lasts;
            if heals + self.pause > duration || lasts + self.pause < Duration::from_millis(1) {
                break;
            }
            planned.push(Planned {
                at,
                fault,
                engine: number % engines.max(1),
                heals,
            });
            at = heals + self.pause;
        }
        planned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn faults(kinds: &[Fault]) -> Faults {
        Faults {
            kinds: kinds.to_vec(),
            pause: s(10),
            outage: s(5),
            hang: s(40),
        }
    }

    #[test]
    fn faults_come_in_order_one_at_a_time_and_leave_a_pause_at_the_end() {
        let planned = faults(&Fault::ALL).plan(s(120), 4);
        let seen: Vec<_> = (planned.iter())
            .map(|p| (p.at.as_secs(), p.fault.name(), p.engine, p.heals.as_secs()))
            .collect();
        assert_eq!(
            seen,
            [
                (10, "kill", 0, 15),
                (25, "hang", 1, 65),
                (75, "freeze", 2, 80),
                (90, "abort", 3, 95),
                (105, "error", 0, 110),
            ]
        );
        assert_eq!(faults(&Fault::ALL).plan(s(119), 4).len(), 4);
    }

    #[test]
    fn without_kinds_or_time_there_are_none() {
        assert!(faults(&[]).plan(s(600), 4).is_empty());
        assert!(faults(&Fault::ALL).plan(s(10), 4).is_empty());
        let at_once = Faults {
            pause: Duration::ZERO,
            outage: Duration::ZERO,
            ..faults(&[Fault::Kill])
        };
        assert!(at_once.plan(s(600), 4).is_empty());
    }

    #[test]
    fn faults_have_names() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        assert!("flood".parse::<Fault>().is_err());
    }
}
