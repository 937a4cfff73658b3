//! What a run gave: counted, summed up, printed as k6 prints it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::exchange::Sample;
use super::timeline::{Interval, Timeline};

/// Ten minutes, in microseconds.
const LONGEST: u64 = 600_000_000;

/// The samples of a run, added up.
pub(super) struct Tally {
    duration: Histogram<u64>,
    service: Histogram<u64>,
    connect: Histogram<u64>,
    ttft: Histogram<u64>,
    gap: Histogram<u64>,
    requests: u64,
    failures: BTreeMap<String, u64>,
    examples: BTreeMap<String, String>,
    events: u64,
    merged: u64,
    tokens: u64,
    streams: u64,
    timeline: Timeline,
}

impl Tally {
    pub(super) fn new() -> Self {
        let histogram =
            || Histogram::new_with_bounds(1, LONGEST, 3).expect("fixed bounds are valid");
        Self {
            duration: histogram(),
            service: histogram(),
            connect: histogram(),
            ttft: histogram(),
            gap: histogram(),
            requests: 0,
            failures: BTreeMap::new(),
            examples: BTreeMap::new(),
            events: 0,
            merged: 0,
            tokens: 0,
            streams: 0,
            timeline: Timeline::new(),
        }
    }

    /// `at` is when it ended, since the start of the run.
    pub(super) fn add(&mut self, sample: &Sample, at: Duration) {
        self.timeline.add(sample, at);
        self.requests += 1;
        if let Some(failure) = &sample.failure {
            *self.failures.entry(failure.name()).or_default() += 1;
            if let Some(detail) = &sample.detail {
                self.examples
                    .entry(failure.name())
                    .or_insert_with(|| detail.clone());
            }
        }
        let record = |histogram: &mut Histogram<u64>, time: Duration| {
            histogram.saturating_record((time.as_micros() as u64).max(1));
        };
        record(&mut self.duration, sample.duration);
        record(&mut self.service, sample.service);
        if let Some(connect) = sample.connect {
            record(&mut self.connect, connect);
        }
        if let Some(ttft) = sample.ttft {
            self.streams += 1;
            record(&mut self.ttft, ttft);
        }
        for gap in &sample.gaps {
            record(&mut self.gap, *gap);
        }
        self.events += sample.events;
        self.merged += sample.merged;
        self.tokens += sample.tokens;
    }

    pub(super) fn report(
        &self,
        plan: String,
        elapsed: Duration,
        (connections, received, sent): (u64, u64, u64),
    ) -> Report {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let failed = self.failures.values().sum();
        Report {
            plan,
            seconds,
            requests: self.requests,
            failed,
            requests_per_second: (self.requests - failed) as f64 / seconds,
            failures: self.failures.clone(),
            examples: self.examples.clone(),
            connections,
            received,
            sent,
            http_req_duration: Times::of(&self.duration),
            service_time: Times::of(&self.service),
            http_req_connecting: Times::of(&self.connect),
            ttft: Times::of(&self.ttft),
            itl: Times::of(&self.gap),
            streams: self.streams,
            events: self.events,
            merged_events: self.merged,
            tokens: self.tokens,
            tokens_per_second: self.tokens as f64 / seconds,
            timeline: self.timeline.intervals(elapsed),
            curves: Curves {
                http_req_duration: curve(&self.duration),
                ttft: curve(&self.ttft),
                itl: curve(&self.gap),
            },
        }
    }
}

/// A distribution of times, in milliseconds. All zero when nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Times {
    pub count: u64,
    pub avg: f64,
    pub min: f64,
    pub med: f64,
    pub max: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Times {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        if histogram.is_empty() {
            return Self {
                count: 0,
                avg: 0.0,
                min: 0.0,
                med: 0.0,
                max: 0.0,
                p90: 0.0,
                p95: 0.0,
                p99: 0.0,
            };
        }
        Self {
            count: histogram.len(),
            avg: histogram.mean() / 1e3,
            min: histogram.min() as f64 / 1e3,
            med: at(0.5),
            max: histogram.max() as f64 / 1e3,
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
        }
    }
}

/// Whole distributions: points of quantile (0 to 1) and milliseconds. Empty when nothing was measured.
#[derive(Debug, Clone, Default)]
pub struct Curves {
    pub http_req_duration: Vec<(f64, f64)>,
    pub ttft: Vec<(f64, f64)>,
    pub itl: Vec<(f64, f64)>,
}

/// As far out as there are samples: a thousand say nothing of one in ten thousand.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let farthest = (1.0 - 1.0 / histogram.len() as f64).min(0.99999);
    let steps = (0..=200).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 40.0));
    steps
        .take_while(|quantile| *quantile <= farthest)
        .map(|quantile| (quantile, histogram.value_at_quantile(quantile) as f64 / 1e3))
        .collect()
}

/// The result of a run. `Display` gives the summary; it serialises to the JSON of `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub plan: String,
    /// How long it took.
    pub seconds: f64,
    pub requests: u64,
    pub failed: u64,
    /// Those that did not fail.
    pub requests_per_second: f64,
    /// By what went wrong: `connect`, `no_answer`, `status_503`, `truncated`, `error_event`, `aborted`,
    /// `wrong_text`, `timeout`, `dropped` (never sent, for too many were in flight).
    pub failures: BTreeMap<String, u64>,
    /// What the first failure of a kind said.
    pub examples: BTreeMap<String, String>,
    /// Connections made.
    pub connections: u64,
    /// Bytes.
    pub received: u64,
    pub sent: u64,
    /// From when the request should have begun.
    pub http_req_duration: Times,
    /// From when it really began; under open arrivals it hides what waiting costs.
    pub service_time: Times,
    pub http_req_connecting: Times,
    /// To the first event with content.
    pub ttft: Times,
    /// Between content events.
    pub itl: Times,
    pub streams: u64,
    pub events: u64,
    /// Events that came in the same read as the one before: 0 when each is delivered on its own.
    pub merged_events: u64,
    /// Counted from the text where it is verified, else by events.
    pub tokens: u64,
    pub tokens_per_second: f64,
    pub timeline: Vec<Interval>,
    #[serde(skip)]
    pub curves: Curves,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
        let rate = |count: u64| count as f64 / self.seconds;
        let ok = self.requests - self.failed;
        line(
            f,
            "checks",
            &format!("{:.2}% ✓ {ok} ✗ {}", share(ok, self.requests), self.failed),
        )?;
        let bytes = |count| format!("{} {}/s", size(count as f64), size(rate(count)));
        line(f, "data_received", &bytes(self.received))?;
        line(f, "data_sent", &bytes(self.sent))?;
        times(f, "http_req_connecting", &self.http_req_connecting)?;
        times(f, "http_req_duration", &self.http_req_duration)?;
        let failed = format!(
            "{:.2}% ✓ {} ✗ {ok}",
            share(self.failed, self.requests),
            self.failed
        );
        line(f, "http_req_failed", &failed)?;
        for (name, count) in &self.failures {
            let example = self
                .examples
                .get(name)
                .map(|text| format!(" ({})", text.trim()));
            line(
                f,
                &format!("  {name}"),
                &format!("{count}{}", example.unwrap_or_default()),
            )?;
        }
        line(
            f,
            "http_reqs",
            &format!("{} {:.2}/s", self.requests, rate(self.requests)),
        )?;
        if self.streams > 0 {
            times(f, "ttft", &self.ttft)?;
            times(f, "itl", &self.itl)?;
            let merged = share(self.merged_events, self.events);
            line(
                f,
                "events",
                &format!("{} ({merged:.3}% merged with another)", self.events),
            )?;
        }
        if self.tokens > 0 {
            line(
                f,
                "tokens",
                &format!("{} {:.2}/s", self.tokens, self.tokens_per_second),
            )?;
        }
        line(f, "connections", &self.connections.to_string())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    writeln!(
        f,
        "     {name}{}: {value}",
        ".".repeat(31_usize.saturating_sub(name.len()))
    )
}

fn times(f: &mut fmt::Formatter<'_>, name: &str, times: &Times) -> fmt::Result {
    if times.count == 0 {
        return Ok(());
    }
    let mut text = String::new();
    for (label, value) in [
        ("avg", times.avg),
        ("min", times.min),
        ("med", times.med),
        ("max", times.max),
        ("p(90)", times.p90),
        ("p(95)", times.p95),
        ("p(99)", times.p99),
    ] {
        write!(text, "{label}={:<9}", milliseconds(value))?;
    }
    line(f, name, text.trim_end())
}

fn milliseconds(value: f64) -> String {
    match value {
        value if value >= 1000.0 => format!("{:.2}s", value / 1e3),
        value if value >= 1.0 => format!("{value:.2}ms"),
        value => format!("{:.0}µs", value * 1e3),
    }
}

fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 1e9 => format!("{:.1} GB", bytes / 1e9),
        bytes if bytes >= 1e6 => format!("{:.1} MB", bytes / 1e6),
        bytes if bytes >= 1e3 => format!("{:.1} kB", bytes / 1e3),
        bytes => format!("{bytes:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::exchange::Failure;
    use super::*;

    #[test]
    fn a_summary_reads_like_that_of_k6() {
        let mut tally = Tally::new();
        for millis in 1..=100 {
            let duration = Duration::from_millis(millis);
            let failure = (millis == 100).then_some(Failure::Status(503));
            let sample = Sample {
                duration,
                service: duration,
                failure,
                ..Sample::default()
            };
            tally.add(&sample, duration);
        }
        let report = tally.report(String::new(), Duration::from_secs(10), (3, 2_000, 1_000));
        assert_eq!((report.requests, report.failed), (100, 1));
        assert_eq!(report.failures["status_503"], 1);
        assert!((report.http_req_duration.p95 - 95.0).abs() < 0.1);
        let text = report.to_string();
        assert!(
            text.contains("http_req_failed................: 1.00% ✓ 1 ✗ 99"),
            "{text}"
        );
        assert!(
            text.contains("http_reqs......................: 100 10.00/s"),
            "{text}"
        );
        assert!(text.contains("p(99)=99.0"), "{text}");
    }
}
