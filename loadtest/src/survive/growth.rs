//! Whether what a gateway holds grew over a run.

use serde::Serialize;

use super::events::HeldSample;

/// Medians of the second quarter of a run, when everything that is made once has been made, and of the last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Growth {
    pub resident_bytes: (f64, f64),
    pub open_files: (f64, f64),
    pub series: (f64, f64),
}

/// What is no growth: a part of the first figure, and an amount.
const PART: f64 = 0.10;
const BYTES: f64 = 8e6;
const FILES: f64 = 64.0;
/// The first fault of a kind brings a few.
const SERIES: f64 = 20.0;

impl Growth {
    pub(super) fn of(samples: &[HeldSample]) -> Self {
        let quarter = |index: usize| {
            let bound = |index| samples.len() * index / 4;
            &samples[bound(index)..bound(index + 1)]
        };
        let both = |of: fn(&HeldSample) -> f64| (median(quarter(1), of), median(quarter(3), of));
        Self {
            resident_bytes: both(|sample| sample.resident_bytes as f64),
            open_files: both(|sample| sample.open_files as f64),
            series: both(|sample| sample.series as f64),
        }
    }

    pub fn is_flat(&self) -> bool {
        let flat = |(first, last): (f64, f64), more| last <= first * (1.0 + PART) + more;
        flat(self.resident_bytes, BYTES)
            && flat(self.open_files, FILES)
            && self.series.1 <= self.series.0 + SERIES
    }

    pub(super) fn memory(&self) -> String {
        let (first, last) = self.resident_bytes;
        shown((first / 1e6, last / 1e6), 1)
    }

    pub(super) fn files(&self) -> String {
        shown(self.open_files, 0)
    }

    pub(super) fn series(&self) -> String {
        shown(self.series, 0)
    }
}

fn shown((first, last): (f64, f64), digits: usize) -> String {
    match first + last {
        0.0 => "-".to_owned(),
        _ => format!("{first:.digits$}, {last:.digits$}"),
    }
}

fn median(samples: &[HeldSample], of: fn(&HeldSample) -> f64) -> f64 {
    let mut values: Vec<f64> = samples.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: impl Fn(usize) -> (u64, usize, usize)) -> Vec<HeldSample> {
        let sample = |index| {
            let (resident_bytes, open_files, series) = of(index);
            HeldSample {
                at_seconds: index as f64,
                resident_bytes,
                open_files,
                series,
            }
        };
        (0..40).map(sample).collect()
    }

    #[test]
    fn what_rises_at_the_start_alone_is_flat() {
        let growth = Growth::of(&samples(|index| match index {
            0..10 => (1, 1, 1),
            _ => (100_000_000, 2000, 300),
        }));
        assert!(growth.is_flat(), "{growth:?}");
        assert_eq!(growth.memory(), "100.0, 100.0");
    }

    #[test]
    fn what_goes_on_rising_is_not() {
        for growing in [
            samples(|index| (100_000_000 + index as u64 * 2_000_000, 10, 10)),
            samples(|index| (100_000_000, 10 + index * 10, 10)),
            samples(|index| (100_000_000, 10, 10 + index * 2)),
        ] {
            assert!(!Growth::of(&growing).is_flat());
        }
    }

    #[test]
    fn nothing_is_flat() {
        assert!(Growth::of(&[]).is_flat());
    }
}
