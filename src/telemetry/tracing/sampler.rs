//! Which traces are recorded. Pure.

use super::context::{Parent, RANDOM, SAMPLED};

/// Values of the last seven bytes of a trace's id, in which it is random.
const IDS: u64 = 1 << 56;

/// Records what the caller records, and of traces that begin here a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Ids from here on are recorded (OpenTelemetry's `TraceIdRatioBased`, consistent sampling).
    threshold: u64,
}

impl Sampler {
    /// `share`: 0 to 1.
    pub fn new(share: f64) -> Self {
        let share = share.clamp(0.0, 1.0);
        // Exact up to the 53 bits of a float, which is far below what can be told apart.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "0 to 2^56"
        )]
        let threshold = ((1.0 - share) * IDS as f64) as u64;
        Self { threshold }
    }

    /// The flags of a trace with this id, whose caller said what it wants, or is not traced. The same id
    /// is judged alike by every gateway with the same share.
    pub fn flags(&self, trace_id: u128, parent: Option<&Parent>) -> u8 {
        match parent {
            Some(parent) => parent.flags,
            None if self.takes(trace_id) => RANDOM | SAMPLED,
            None => RANDOM,
        }
    }

    fn takes(&self, trace_id: u128) -> bool {
        u64::try_from(trace_id % u128::from(IDS)).is_ok_and(|random| random >= self.threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(flags: u8) -> Parent {
        Parent {
            trace_id: 1,
            span_id: 1,
            flags,
        }
    }

    #[test]
    fn a_caller_has_the_last_word() {
        for share in [0.0, 0.5, 1.0] {
            let sampler = Sampler::new(share);
            for flags in [0, SAMPLED, RANDOM, SAMPLED | RANDOM] {
                assert_eq!(sampler.flags(u128::MAX, Some(&parent(flags))), flags);
                assert_eq!(sampler.flags(1, Some(&parent(flags))), flags);
            }
        }
    }

    #[test]
    fn all_and_none_are_exact() {
        for id in [1, u128::from(IDS) - 1, u128::from(IDS), u128::MAX] {
            assert_eq!(Sampler::new(1.0).flags(id, None), SAMPLED | RANDOM);
            assert_eq!(Sampler::new(0.0).flags(id, None), RANDOM);
        }
    }

    #[test]
    fn the_share_is_that_of_the_ids_and_a_larger_one_holds_a_smaller() {
        let mut rng = fastrand::Rng::with_seed(7);
        let ids: Vec<u128> = (0..100_000).map(|_| rng.u128(..)).collect();
        let taken = |share: f64| -> Vec<u128> {
            let sampler = Sampler::new(share);
            let is_taken = |id: &&u128| sampler.flags(**id, None) & SAMPLED != 0;
            ids.iter().filter(is_taken).copied().collect()
        };
        let (small, large) = (taken(0.01), taken(0.25));
        assert!((800..1200).contains(&small.len()), "{}", small.len());
        assert!((24_000..26_000).contains(&large.len()), "{}", large.len());
        assert!(small.iter().all(|id| large.contains(id)));
    }
}
