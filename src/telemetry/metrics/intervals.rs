//! Times between the events of a stream. They come a thousand at a time, so a stream counts its own in
//! a few bytes and adds them to the shared histogram when it ends: no atomic add for every token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Opts, Registry};

use super::families::opts;

/// Upper bounds in microseconds: from a draft model's speed to an engine that is full.
const BOUNDS: [u64; 20] = [
    1_000, 2_500, 5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000, 75_000, 100_000,
    150_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

/// What one stream has counted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Intervals {
    /// The last is for what is above all bounds.
    counts: [u32; BOUNDS.len() + 1],
    sum: Duration,
}

impl Intervals {
    /// `events` content events came together, `gap` after the one before them: one interval, and none
    /// at all between those that came together (as vLLM's benchmark counts ITL).
    pub fn note(&mut self, gap: Duration, events: u32) {
        let micros = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        let slot = BOUNDS.partition_point(|&bound| bound < micros);
        self.counts[slot] = self.counts[slot].saturating_add(1);
        self.counts[0] = self.counts[0].saturating_add(events.saturating_sub(1));
        self.sum = self.sum.saturating_add(gap);
    }

    fn is_empty(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }
}

/// The histogram of one pool and model.
#[derive(Debug, Default)]
pub struct IntervalHistogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl IntervalHistogram {
    /// Adds what a stream has counted.
    pub fn add(&self, intervals: &Intervals) {
        if intervals.is_empty() {
            return;
        }
        for (all, &more) in self.counts.iter().zip(&intervals.counts) {
            if more > 0 {
                all.fetch_add(more.into(), Relaxed);
            }
        }
        let micros = u64::try_from(intervals.sum.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds for a graph: 53 bits are enough"
    )]
    fn exposed(&self) -> Histogram {
        let mut below = 0;
        let mut buckets = Vec::with_capacity(BOUNDS.len());
        for (&bound, count) in BOUNDS.iter().zip(&self.counts) {
            below += count.load(Relaxed);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound as f64 / 1e6);
            bucket.set_cumulative_count(below);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_sample_count(below + self.counts[BOUNDS.len()].load(Relaxed));
        histogram.set_sample_sum(self.sum_micros.load(Relaxed) as f64 / 1e6);
        histogram.set_bucket(buckets);
        histogram
    }
}

/// The family of them, by the values of its labels.
#[derive(Clone)]
pub(super) struct IntervalHistograms(Arc<Inner>);

struct Inner {
    opts: Opts,
    labels: &'static [&'static str],
    desc: Desc,
    series: Mutex<BTreeMap<Vec<String>, Arc<IntervalHistogram>>>,
}

impl IntervalHistograms {
    pub(super) fn register(registry: &Registry, name: &str) -> Self {
        let (opts, labels) = opts(name);
        let names = labels.iter().map(|&label| label.to_owned()).collect();
        let full_name = format!("{}_{}", opts.namespace, opts.name);
        let desc = Desc::new(
            full_name,
            opts.help.clone(),
            names,
            opts.const_labels.clone(),
        )
        .expect("the table's names and labels are valid");
        let family = Self(Arc::new(Inner {
            opts,
            labels,
            desc,
            series: Mutex::default(),
        }));
        registry
            .register(Box::new(family.clone()))
            .expect("the table's names are unique");
        family
    }

    /// The series with these values; the same however often it is asked for.
    pub(super) fn with(&self, values: &[&str]) -> Arc<IntervalHistogram> {
        let key = values.iter().map(|&value| value.to_owned()).collect();
        Arc::clone(self.0.series.lock().entry(key).or_default())
    }

    pub(super) fn remove(&self, values: &[&str]) {
        let mut series = self.0.series.lock();
        series.retain(|key, _| key.iter().map(String::as_str).ne(values.iter().copied()));
    }
}

impl Collector for IntervalHistograms {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let series = self.0.series.lock();
        let metrics = series.iter().map(|(values, histogram)| {
            let mut pairs: Vec<LabelPair> = (self.0.labels.iter().zip(values))
                .map(|(name, value)| {
                    let mut pair = LabelPair::default();
                    pair.set_name((*name).to_owned());
                    pair.set_value(value.clone());
                    pair
                })
                .collect();
            pairs.sort();
            let mut metric = Metric::from_label(pairs);
            metric.set_histogram(histogram.exposed());
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(format!("{}_{}", self.0.opts.namespace, self.0.opts.name));
        family.set_help(self.0.opts.help.clone());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_came_together_have_no_time_between_them() {
        let mut intervals = Intervals::default();
        assert!(intervals.is_empty());
        intervals.note(Duration::from_millis(20), 1);
        intervals.note(Duration::from_micros(20_001), 3);
        intervals.note(Duration::from_secs(31), 1);
        let histogram = IntervalHistogram::default();
        histogram.add(&intervals);
        histogram.add(&intervals);
        let shown = histogram.exposed();
        let at = |bound: f64| {
            let bucket = shown.get_bucket().iter().find(|b| b.upper_bound() >= bound);
            bucket.unwrap().cumulative_count()
        };
        assert_eq!((at(0.001), at(0.015), at(0.02), at(0.025)), (4, 4, 6, 8));
        assert_eq!((at(30.0), shown.get_sample_count()), (8, 10));
        assert!((shown.get_sample_sum() - 2.0 * 31.040_001).abs() < 1e-9);
    }
}
