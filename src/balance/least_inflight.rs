use std::cmp::Ordering;

use super::{Candidate, Candidates, Policy, RequestFacts};

/// `least_inflight`: the endpoint with the fewest requests in flight for its weight, ties at random in
/// proportion to the weights.
///
/// What nginx's `least_conn` promises; nginx counts per worker process and knows only its own
/// connections, here the count is the process's and exact.
#[derive(Debug, Default, Clone, Copy)]
pub struct LeastInflight;

impl Policy for LeastInflight {
    fn pick(
        &self,
        _facts: &RequestFacts,
        candidates: Candidates<'_>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let mut candidates = candidates.iter();
        let mut best = candidates.next()?;
        // Reservoir sampling of the ties: each replaces the one held with the chance of its weight in all
        // that were seen, which leaves each with its share and needs no list of them.
        let mut ties = u64::from(best.weight);
        for candidate in candidates {
            match by_load(candidate, best) {
                Ordering::Less => {
                    best = candidate;
                    ties = u64::from(candidate.weight);
                }
                Ordering::Equal => {
                    ties += u64::from(candidate.weight);
                    if rng.u64(..ties.max(1)) < u64::from(candidate.weight) {
                        best = candidate;
                    }
                }
                Ordering::Greater => {}
            }
        }
        Some(best.index)
    }
}

/// Compares `in_flight / weight` by cross multiplication: exact, and 32 bits times 32 fit in 64.
fn by_load(a: &Candidate, b: &Candidate) -> Ordering {
    let left = u64::from(a.in_flight) * u64::from(b.weight);
    let right = u64::from(b.in_flight) * u64::from(a.weight);
    left.cmp(&right)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates(loads: &[(u32, u32)]) -> Vec<Candidate> {
        loads
            .iter()
            .enumerate()
            .map(|(index, &(in_flight, weight))| Candidate {
                index,
                in_flight,
                weight,
            })
            .collect()
    }

    fn pick(candidates: &[Candidate], rng: &mut fastrand::Rng) -> Option<usize> {
        LeastInflight.pick(&RequestFacts::default(), Candidates::new(candidates), rng)
    }

    #[test]
    fn nothing_is_picked_from_nothing() {
        assert_eq!(pick(&[], &mut fastrand::Rng::with_seed(1)), None);
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_picked() {
        let mut rng = fastrand::Rng::with_seed(1);
        // 4/2 < 3/1: more requests, yet less load.
        assert_eq!(pick(&candidates(&[(3, 1), (4, 2)]), &mut rng), Some(1));
        assert_eq!(pick(&candidates(&[(5, 2), (2, 1)]), &mut rng), Some(1));
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut rng = fastrand::Rng::with_seed(1);
        let list = candidates(&[(u32::MAX, u32::MAX - 1), (u32::MAX - 1, u32::MAX)]);
        assert_eq!(pick(&list, &mut rng), Some(1));
    }

    #[test]
    fn ties_are_shared_by_weight() {
        let mut rng = fastrand::Rng::with_seed(7);
        // Equal ratios are ties whatever the weights; the third is busier.
        let list = candidates(&[(1, 1), (2, 2), (4, 1), (3, 3)]);
        let mut picks = [0u32; 4];
        for _ in 0..30_000 {
            picks[pick(&list, &mut rng).unwrap()] += 1;
        }
        assert_eq!(picks[2], 0);
        for (index, expected) in [(0, 5_000), (1, 10_000), (3, 15_000)] {
            // Standard deviation at most 87.
            assert!(picks[index].abs_diff(expected) < 400, "{picks:?}");
        }
    }

    proptest! {
        #[test]
        fn nobody_is_less_loaded_than_the_one_picked(
            loads in prop::collection::vec((0u32..1000, 1u32..=1_000_000), 1..20),
            seed: u64,
        ) {
            let list = candidates(&loads);
            let picked = pick(&list, &mut fastrand::Rng::with_seed(seed)).unwrap();
            for other in &list {
                prop_assert_ne!(by_load(other, &list[picked]), Ordering::Less);
            }
        }

        #[test]
        fn a_burst_is_spread_by_weight(weights in prop::collection::vec(1u32..10, 1..8), seed: u64) {
            // After k times the sum of the weights, everyone holds exactly k times its weight.
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut list: Vec<_> = weights
                .iter()
                .enumerate()
                .map(|(index, &weight)| Candidate { index, in_flight: 0, weight })
                .collect();
            for _ in 0..3 * weights.iter().sum::<u32>() {
                let picked = pick(&list, &mut rng).unwrap();
                list[picked].in_flight += 1;
            }
            for candidate in &list {
                prop_assert_eq!(candidate.in_flight, 3 * candidate.weight);
            }
        }
    }
}
