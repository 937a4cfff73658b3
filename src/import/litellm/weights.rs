//! The shares of a group's deployments.

use super::deployments::Deployment;
use super::notes::Notes;
use super::table::why::RPM;

const LARGEST: u64 = 1000;
const KEYS: [&str; 3] = ["weight", "rpm", "tpm"];

/// What an endpoint has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// 1 to 1000.
    pub weight: u64,
    /// Without a share: used only while no other can be.
    pub backup: bool,
}

const EQUAL: Share = Share {
    weight: 1,
    backup: false,
};

/// The shares, as LiteLLM's simple-shuffle has them; other strategies have none.
pub(super) fn weights(
    deployments: &[&Deployment<'_>],
    is_shuffle: bool,
    notes: &mut Notes,
) -> Vec<Share> {
    let column = |number: usize| -> Vec<f64> {
        let of = |d: &&Deployment<'_>| d.weights[number].unwrap_or(0.0);
        deployments.iter().map(of).collect()
    };
    let is_any = |number: &usize| column(*number).iter().any(|weight| *weight > 0.0);
    let used = (0..KEYS.len())
        .find(is_any)
        .filter(|_| is_shuffle && deployments.len() > 1);
    for (number, key) in KEYS.into_iter().enumerate() {
        for deployment in deployments {
            let Some(field) = deployment.params.get(key) else {
                continue;
            };
            let is_used = used == Some(number);
            match (number, is_used) {
                (0, true) => {}
                (0, false) if deployments.len() > 1 => notes.not_carried(
                    &field,
                    "LiteLLM looks at it with routing_strategy: simple-shuffle alone",
                ),
                (0, false) => {}
                (_, true) => notes.differs(
                    &field,
                    format!("it is the endpoint's weight, as in LiteLLM; {RPM}"),
                ),
                (_, false) => notes.not_carried(&field, RPM),
            }
        }
    }
    let Some(used) = used else {
        return vec![EQUAL; deployments.len()];
    };
    let (shares, is_exact) = scaled(&column(used));
    for (deployment, share) in deployments.iter().zip(&shares) {
        if share.backup {
            notes.differs(
                &deployment.at,
                format!(
                    "it has no {}, and LiteLLM sends it nothing while another is up: backup is true",
                    KEYS[used]
                ),
            );
        } else if !is_exact && let Some(field) = deployment.params.get(KEYS[used]) {
            notes.differs(
                &field,
                format!("the endpoint's weight is {}, rounded", share.weight),
            );
        }
    }
    shares
}

/// Whole numbers from 1 to 1000 in the ratio of these, and whether they are in it exactly.
fn scaled(weights: &[f64]) -> (Vec<Share>, bool) {
    let largest = weights.iter().copied().fold(0.0, f64::max);
    let whole = |scale: u64| -> Option<Vec<u64>> {
        (weights.iter())
            .map(|weight| {
                let exact = weight / largest * scale as f64;
                let rounded = exact.round();
                let is_whole = (exact - rounded).abs() < 1e-6 && (rounded >= 1.0 || *weight == 0.0);
                is_whole.then(|| to_count(rounded))
            })
            .collect()
    };
    let exact = (1..=LARGEST).find_map(whole);
    let is_exact = exact.is_some();
    let numbers = exact.unwrap_or_else(|| {
        let rounded = |weight: &f64| match weight {
            0.0 => 0,
            weight => to_count((weight / largest * LARGEST as f64).round()).max(1),
        };
        weights.iter().map(rounded).collect()
    });
    let share = |number: u64| Share {
        weight: number.max(1),
        backup: number == 0,
    };
    (numbers.into_iter().map(share).collect(), is_exact)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is whole, and between 0 and 1000"
)]
fn to_count(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(weights: &[f64]) -> (Vec<u64>, bool) {
        let (shares, is_exact) = scaled(weights);
        let number = |share: &Share| if share.backup { 0 } else { share.weight };
        (shares.iter().map(number).collect(), is_exact)
    }

    #[test]
    fn the_smallest_whole_numbers_in_the_ratio() {
        for (weights, expected) in [
            (&[1.0, 1.0][..], &[1, 1][..]),
            (&[0.9, 0.1], &[9, 1]),
            (&[600.0, 900.0], &[2, 3]),
            (&[10_000.0, 10.0], &[1000, 1]),
            (&[2.0, 0.0], &[1, 0]),
            (&[0.3333333333, 0.6666666666], &[1, 2]),
        ] {
            assert_eq!(shown(weights), (expected.to_vec(), true), "{weights:?}");
        }
        assert_eq!(shown(&[1e9, 1.0]), (vec![1000, 1], false));
        assert_eq!(shown(&[997.0, 1000.5]), (vec![997, 1000], false));
    }

    proptest::proptest! {
        #[test]
        fn every_share_is_one_that_can_be_written(weights in proptest::collection::vec(0.0_f64..1e300, 1..8)) {
            proptest::prop_assume!(weights.iter().any(|w| *w > 0.0));
            let (shares, _) = scaled(&weights);
            proptest::prop_assert!(shares.iter().all(|s| (1..=1000).contains(&s.weight)));
            proptest::prop_assert!(shares.iter().any(|s| !s.backup));
        }
    }
}
