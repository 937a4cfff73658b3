use std::sync::Arc;

use parking_lot::Mutex;

use super::{Candidates, Policy, RequestFacts};

/// `round_robin`: by turns, in proportion to the weights and evenly mixed (nginx's smooth weighted
/// round robin): weights 3 and 1 give 1 1 2 1, never 1 1 1 2.
#[derive(Debug)]
pub struct RoundRobin {
    rotation: Arc<Rotation>,
}

/// Whose turn it is: for each endpoint of a pool, how much it is owed, in the unit of
/// [`Candidate::weight`](super::Candidate::weight).
#[derive(Debug)]
pub struct Rotation {
    ids: Box<[u64]>,
    owed: Mutex<Box<[i64]>>,
}

impl Rotation {
    /// For endpoints with these identities, in the pool's order. Those that `previous` knows keep
    /// their place in the turn.
    pub fn new(ids: impl IntoIterator<Item = u64>, previous: Option<&Rotation>) -> Self {
        let ids: Box<[u64]> = ids.into_iter().collect();
        let mut owed = vec![0; ids.len()].into_boxed_slice();
        if let Some(previous) = previous {
            let before = previous.owed.lock();
            for (id, owed) in ids.iter().zip(owed.iter_mut()) {
                if let Some(index) = previous.ids.iter().position(|known| known == id) {
                    *owed = before[index];
                }
            }
        }
        Self {
            ids,
            owed: Mutex::new(owed),
        }
    }
}

impl RoundRobin {
    pub fn new(rotation: Arc<Rotation>) -> Self {
        Self { rotation }
    }
}

impl Policy for RoundRobin {
    fn pick(
        &self,
        _facts: &RequestFacts,
        candidates: Candidates<'_>,
        _rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let mut owed = self.rotation.owed.lock();
        let mut total = 0;
        let mut best: Option<usize> = None;
        // Every turn each candidate is owed its weight; the one owed most is picked and pays for
        // all. That leaves the sum of the debts as it was, so none of them grows without bound.
        for candidate in candidates.iter() {
            let weight = i64::from(candidate.weight);
            let mine = owed.get_mut(candidate.index)?;
            *mine += weight;
            total += weight;
            let mine = *mine;
            if best.is_none_or(|best| mine > owed[best]) {
                best = Some(candidate.index);
            }
        }
        let best = best?;
        owed[best] -= total;
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::{Candidate, FULL_SHARE};

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        weights
            .iter()
            .enumerate()
            .map(|(index, weight)| Candidate {
                index,
                in_flight: 0,
                weight: weight * FULL_SHARE,
            })
            .collect()
    }

    fn picks(policy: &RoundRobin, candidates: &[Candidate], count: usize) -> Vec<usize> {
        let mut rng = fastrand::Rng::with_seed(0);
        (0..count)
            .map(|_| {
                policy
                    .pick(
                        &RequestFacts::default(),
                        Candidates::new(candidates),
                        &mut rng,
                    )
                    .unwrap()
            })
            .collect()
    }

    fn policy(endpoints: u64) -> RoundRobin {
        RoundRobin::new(Arc::new(Rotation::new(0..endpoints, None)))
    }

    #[test]
    fn three_to_one_is_smooth() {
        let list = candidates(&[3, 1]);
        assert_eq!(picks(&policy(2), &list, 8), [0, 0, 1, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn five_one_one_is_the_sequence_nginx_documents() {
        let list = candidates(&[5, 1, 1]);
        assert_eq!(picks(&policy(3), &list, 7), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn equal_weights_take_turns_in_order() {
        let list = candidates(&[1, 1, 1]);
        assert_eq!(picks(&policy(3), &list, 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn an_absent_endpoint_is_passed_over() {
        let policy = policy(3);
        let list = candidates(&[1, 1, 1]);
        assert_eq!(picks(&policy, &list, 1), [0]);
        let two = [list[0], list[2]];
        // The first has had its turn of this round, the third has not.
        assert_eq!(picks(&policy, &two, 6), [2, 2, 0, 2, 0, 2]);
    }

    #[test]
    fn nothing_is_picked_from_nothing() {
        let mut rng = fastrand::Rng::with_seed(0);
        let pick = policy(0).pick(&RequestFacts::default(), Candidates::new(&[]), &mut rng);
        assert_eq!(pick, None);
    }

    #[test]
    fn a_reload_goes_on_with_the_turn() {
        let before = Arc::new(Rotation::new([10, 11], None));
        let policy = RoundRobin::new(Arc::clone(&before));
        assert_eq!(picks(&policy, &candidates(&[1, 1]), 1), [0]);
        // The same two in another order, and a new one: 11 is still next, then 12, then 10.
        let after = Rotation::new([12, 10, 11], Some(&before));
        let policy = RoundRobin::new(Arc::new(after));
        assert_eq!(picks(&policy, &candidates(&[1, 1, 1]), 3), [2, 0, 1]);
    }

    proptest! {
        #[test]
        fn each_cycle_is_exactly_proportional(weights in prop::collection::vec(1u32..20, 1..8)) {
            let list = candidates(&weights);
            let policy = policy(weights.len() as u64);
            let cycle = weights.iter().sum::<u32>() as usize;
            for _ in 0..3 {
                let mut counts = vec![0u32; weights.len()];
                for index in picks(&policy, &list, cycle) {
                    counts[index] += 1;
                }
                prop_assert_eq!(&counts, &weights);
            }
        }
    }
}
