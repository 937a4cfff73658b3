//! How a run went over time.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::exchange::Sample;

/// Twice as many intervals are too many to tell apart in a plot; then each two are made one.
const FEWEST: usize = 60;
const SHORTEST: Duration = Duration::from_millis(100);

/// A part of a run. Requests count where they ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interval {
    /// Seconds since the start of the run.
    pub from: f64,
    /// Seconds.
    pub width: f64,
    /// Those that did not fail.
    pub answered: u64,
    pub failed: u64,
    pub tokens: u64,
    pub http_req_duration: Option<Quantiles>,
    pub ttft: Option<Quantiles>,
    pub itl: Option<Quantiles>,
}

/// In milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    pub med: f64,
    pub p90: f64,
    pub p99: f64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u32>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            med: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
        })
    }
}

/// Intervals of one width, which doubles as the run gets longer.
pub(super) struct Timeline {
    width: Duration,
    buckets: Vec<Bucket>,
}

struct Bucket {
    answered: u64,
    failed: u64,
    tokens: u64,
    duration: Histogram<u32>,
    ttft: Histogram<u32>,
    gap: Histogram<u32>,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self {
            width: SHORTEST,
            buckets: Vec::new(),
        }
    }

    /// `at` is when the request ended, since the start of the run.
    pub(super) fn add(&mut self, sample: &Sample, at: Duration) {
        while self.place(at) >= 2 * FEWEST {
            self.double();
        }
        let place = self.place(at);
        if self.buckets.len() <= place {
            self.buckets.resize_with(place + 1, Bucket::new);
        }
        self.buckets[place].add(sample);
    }

    fn place(&self, at: Duration) -> usize {
        usize::try_from(at.as_nanos() / self.width.as_nanos()).unwrap_or(usize::MAX)
    }

    fn double(&mut self) {
        self.width *= 2;
        let mut single = std::mem::take(&mut self.buckets).into_iter();
        while let Some(mut first) = single.next() {
            if let Some(second) = single.next() {
                first.join(&second);
            }
            self.buckets.push(first);
        }
    }

    /// The last one ends with the run, after `elapsed`.
    pub(super) fn intervals(&self, elapsed: Duration) -> Vec<Interval> {
        let interval = |(place, bucket): (usize, &Bucket)| {
            let from = self.width * u32::try_from(place).unwrap_or(u32::MAX);
            let until = (from + self.width).min(elapsed.max(from + Duration::from_millis(1)));
            Interval {
                from: from.as_secs_f64(),
                width: (until - from).as_secs_f64(),
                answered: bucket.answered,
                failed: bucket.failed,
                tokens: bucket.tokens,
                http_req_duration: Quantiles::of(&bucket.duration),
                ttft: Quantiles::of(&bucket.ttft),
                itl: Quantiles::of(&bucket.gap),
            }
        };
        self.buckets.iter().enumerate().map(interval).collect()
    }
}

impl Bucket {
    fn new() -> Self {
        // Grows with what it gets: there may be hundreds.
        let histogram = || Histogram::new(2).expect("two digits are valid");
        Self {
            answered: 0,
            failed: 0,
            tokens: 0,
            duration: histogram(),
            ttft: histogram(),
            gap: histogram(),
        }
    }

    fn add(&mut self, sample: &Sample) {
        if sample.failure.is_some() {
            self.failed += 1;
        } else {
            self.answered += 1;
        }
        self.tokens += sample.tokens;
        record(&mut self.duration, sample.duration);
        if let Some(ttft) = sample.ttft {
            record(&mut self.ttft, ttft);
        }
        for gap in &sample.gaps {
            record(&mut self.gap, *gap);
        }
    }

    fn join(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.tokens += other.tokens;
        for (into, from) in [
            (&mut self.duration, &other.duration),
            (&mut self.ttft, &other.ttft),
            (&mut self.gap, &other.gap),
        ] {
            // Both grow: none is too narrow for the other.
            _ = into.add(from);
        }
    }
}

fn record(histogram: &mut Histogram<u32>, time: Duration) {
    // It grows to whatever a run can last.
    _ = histogram.record((time.as_micros() as u64).max(1));
}

#[cfg(test)]
mod tests {
    use super::super::exchange::Failure;
    use super::*;

    fn sample(millis: u64, failure: Option<Failure>) -> Sample {
        Sample {
            duration: Duration::from_millis(millis),
            ttft: failure.is_none().then(|| Duration::from_millis(millis / 2)),
            tokens: 3,
            failure,
            ..Sample::default()
        }
    }

    #[test]
    fn a_request_counts_where_it_ended() {
        let mut timeline = Timeline::new();
        for millis in [10, 50, 99, 350] {
            timeline.add(&sample(millis, None), Duration::from_millis(millis));
        }
        timeline.add(
            &sample(1000, Some(Failure::Timeout)),
            Duration::from_millis(399),
        );
        let intervals = timeline.intervals(Duration::from_millis(400));
        let counts: Vec<_> = (intervals.iter())
            .map(|interval| (interval.answered, interval.failed))
            .collect();
        assert_eq!(counts, [(3, 0), (0, 0), (0, 0), (1, 1)]);
        assert_eq!(intervals[1].http_req_duration, None);
        let last = intervals[3].http_req_duration.unwrap();
        assert!((last.p99 - 1000.0).abs() < 10.0, "{last:?}");
        assert!((intervals[3].ttft.unwrap().p99 - 175.0).abs() < 2.0);
        assert_eq!(intervals[0].itl, None);
    }

    #[test]
    fn a_long_run_has_wider_intervals_and_loses_nothing() {
        let mut timeline = Timeline::new();
        for second in 0..3600 {
            timeline.add(&sample(5, None), Duration::from_secs(second));
        }
        let elapsed = Duration::from_secs(3600);
        let intervals = timeline.intervals(elapsed);
        assert!(
            (FEWEST..2 * FEWEST).contains(&intervals.len()),
            "{}",
            intervals.len()
        );
        let sum: u64 = intervals.iter().map(|interval| interval.answered).sum();
        assert_eq!(sum, 3600);
        let whole: f64 = intervals.iter().map(|interval| interval.width).sum();
        assert!((whole - 3600.0).abs() < 0.01, "{whole}");
        assert!(intervals.iter().all(|interval| interval.answered > 0));
    }

    #[test]
    fn the_last_interval_ends_with_the_run() {
        let mut timeline = Timeline::new();
        timeline.add(&sample(5, None), Duration::from_millis(120));
        let intervals = timeline.intervals(Duration::from_millis(150));
        assert!((intervals[1].width - 0.05).abs() < 1e-9);
    }
}
