//! What an engine counts, and how it shows it: `/metrics` of vLLM and of SGLang, SGLang's `/v1/loads`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

const LATENCY: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const ITL: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
const TOKENS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0,
];
const BLOCKS: usize = 2048;
const BLOCK_SIZE: usize = 128;

/// A Prometheus histogram.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    /// One per bound and one for the rest; not cumulative.
    buckets: Vec<AtomicU64>,
    /// In millionths of the unit.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    pub(super) fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Relaxed);
    }

    pub(super) fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    pub(super) fn observe_times(&self, time: Duration, count: usize) {
        let value = time.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(count as u64, Relaxed);
        self.sum
            .fetch_add((value * 1e6) as u64 * count as u64, Relaxed);
    }

    fn render(&self, out: &mut String, name: &str, labels: &str) {
        let mut count = 0.0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Relaxed) as f64;
            match self.bounds.get(index) {
                Some(bound) => {
                    _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound:?}\"}} {count:?}")
                }
                None => _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count:?}"),
            }
        }
        _ = writeln!(out, "{name}_count{{{labels}}} {count:?}");
        _ = writeln!(
            out,
            "{name}_sum{{{labels}}} {:?}",
            self.sum.load(Relaxed) as f64 / 1e6
        );
    }
}

/// Everything an engine counts. Gauges are exact: guards change them.
#[derive(Debug)]
pub(super) struct Metrics {
    pub running: AtomicUsize,
    pub waiting: AtomicUsize,
    /// Tokens of the running requests, as far as they are generated.
    pub held_tokens: AtomicUsize,
    pub prompt_tokens: AtomicU64,
    pub generation_tokens: AtomicU64,
    pub stopped: AtomicU64,
    pub at_length: AtomicU64,
    pub aborted: AtomicU64,
    pub failed: AtomicU64,
    pub rejected: AtomicU64,
    pub ttft: Histogram,
    pub itl: Histogram,
    pub e2el: Histogram,
    pub queue_time: Histogram,
    /// From scheduling to the first token.
    pub prefill_time: Histogram,
    /// From the first token to the last.
    pub decode_time: Histogram,
    pub prompt_lengths: Histogram,
    pub answer_lengths: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            running: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            held_tokens: AtomicUsize::new(0),
            prompt_tokens: AtomicU64::new(0),
            generation_tokens: AtomicU64::new(0),
            stopped: AtomicU64::new(0),
            at_length: AtomicU64::new(0),
            aborted: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            ttft: Histogram::new(TTFT),
            itl: Histogram::new(ITL),
            e2el: Histogram::new(LATENCY),
            queue_time: Histogram::new(LATENCY),
            prefill_time: Histogram::new(LATENCY),
            decode_time: Histogram::new(LATENCY),
            prompt_lengths: Histogram::new(TOKENS),
            answer_lengths: Histogram::new(TOKENS),
        }
    }
}

impl Metrics {
    /// The share of the cache that the running requests hold.
    pub(super) fn cache_usage(&self) -> f64 {
        let used = self.held_tokens.load(Relaxed) as f64 / (BLOCKS * BLOCK_SIZE) as f64;
        (used.min(1.0) * 1e4).round() / 1e4
    }

    /// The `endpoint-load-metrics` field (ORCA) in the format asked for; vLLM knows two.
    pub(super) fn orca(&self, format: &str) -> Option<String> {
        let (waiting, cache) = (self.waiting.load(Relaxed) as f64, self.cache_usage());
        match format.to_ascii_lowercase().as_str() {
            "text" => Some(format!(
                "TEXT named_metrics.num_requests_waiting={waiting:?}, named_metrics.kv_cache_usage_perc={cache:?}"
            )),
            "json" => Some(format!(
                "JSON {{\"named_metrics\": {{\"num_requests_waiting\": {waiting:?}, \"kv_cache_usage_perc\": {cache:?}}}}}"
            )),
            _ => None,
        }
    }

    pub(super) fn vllm(&self, model: &str) -> String {
        let labels = format!("engine=\"0\",model_name=\"{model}\"");
        let mut page = Page {
            out: String::with_capacity(16 << 10),
            labels,
        };
        let waiting = self.waiting.load(Relaxed) as f64;
        let prompt = self.prompt_tokens.load(Relaxed) as f64;
        let generated = self.generation_tokens.load(Relaxed) as f64;
        for (name, value) in [
            (
                "vllm:num_requests_running",
                self.running.load(Relaxed) as f64,
            ),
            ("vllm:num_requests_waiting", waiting),
            ("vllm:kv_cache_usage_perc", self.cache_usage()),
        ] {
            page.gauge(name, value);
        }
        let reasons = [("capacity", waiting), ("deferred", 0.0)];
        page.labelled(
            "vllm:num_requests_waiting_by_reason",
            "gauge",
            "reason",
            &reasons,
        );
        page.head("vllm:cache_config_info", "gauge");
        let size = BLOCKS * BLOCK_SIZE;
        _ = writeln!(
            page.out,
            "vllm:cache_config_info{{block_size=\"{BLOCK_SIZE}\",engine=\"0\",\
             kv_cache_size_tokens=\"{size}\",num_gpu_blocks=\"{BLOCKS}\"}} 1.0"
        );
        for (name, value) in [
            ("vllm:prefix_cache_queries", prompt),
            ("vllm:prefix_cache_hits", 0.0),
            ("vllm:prompt_tokens", prompt),
            ("vllm:prompt_tokens_cached", 0.0),
            ("vllm:generation_tokens", generated),
            ("vllm:num_preemptions", 0.0),
        ] {
            page.counter(name, value);
        }
        let reasons = [
            ("stop", self.stopped.load(Relaxed) as f64),
            ("length", self.at_length.load(Relaxed) as f64),
            ("abort", self.aborted.load(Relaxed) as f64),
            ("error", self.failed.load(Relaxed) as f64),
            ("repetition", 0.0),
        ];
        page.labelled(
            "vllm:request_success_total",
            "counter",
            "finished_reason",
            &reasons,
        );
        let rejected = self.rejected.load(Relaxed) as f64;
        let reasons = [
            ("max_num_queued_reqs", rejected),
            ("max_num_queued_tokens", 0.0),
        ];
        page.labelled(
            "vllm:admission_rejections_total",
            "counter",
            "reason",
            &reasons,
        );
        for (name, histogram) in [
            ("vllm:time_to_first_token_seconds", &self.ttft),
            ("vllm:inter_token_latency_seconds", &self.itl),
            ("vllm:e2e_request_latency_seconds", &self.e2el),
            ("vllm:request_queue_time_seconds", &self.queue_time),
            ("vllm:request_prefill_time_seconds", &self.prefill_time),
            ("vllm:request_decode_time_seconds", &self.decode_time),
            ("vllm:request_prompt_tokens", &self.prompt_lengths),
            ("vllm:request_generation_tokens", &self.answer_lengths),
        ] {
            page.histogram(name, histogram);
        }
        page.out
    }

    pub(super) fn sglang(&self, model: &str) -> String {
        let labels = format!(
            "dp_rank=\"0\",engine_type=\"unified\",model_name=\"{model}\",pp_rank=\"0\",tp_rank=\"0\""
        );
        let mut page = Page {
            out: String::with_capacity(8 << 10),
            labels,
        };
        for (name, value) in [
            ("sglang:num_running_reqs", self.running.load(Relaxed) as f64),
            ("sglang:num_queue_reqs", self.waiting.load(Relaxed) as f64),
            (
                "sglang:num_used_tokens",
                self.held_tokens.load(Relaxed) as f64,
            ),
            ("sglang:max_total_num_tokens", (BLOCKS * BLOCK_SIZE) as f64),
            (
                "sglang:token_usage",
                (self.cache_usage() * 100.0).round() / 100.0,
            ),
        ] {
            page.gauge(name, value);
        }
        let finished = self.stopped.load(Relaxed) + self.at_length.load(Relaxed);
        let aborted = self.aborted.load(Relaxed);
        for (name, value) in [
            (
                "sglang:prompt_tokens_total",
                self.prompt_tokens.load(Relaxed),
            ),
            (
                "sglang:generation_tokens_total",
                self.generation_tokens.load(Relaxed),
            ),
            ("sglang:cached_tokens_total", 0),
            ("sglang:num_requests_total", finished + aborted),
            ("sglang:num_aborted_requests_total", aborted),
            ("sglang:num_retracted_requests_total", 0),
        ] {
            page.plain_counter(name, value as f64);
        }
        for (name, histogram) in [
            ("sglang:time_to_first_token_seconds", &self.ttft),
            ("sglang:inter_token_latency_seconds", &self.itl),
            ("sglang:e2e_request_latency_seconds", &self.e2el),
        ] {
            page.histogram(name, histogram);
        }
        page.out
    }

    /// SGLang's `/v1/loads`: one rank.
    pub(super) fn loads(&self) -> String {
        let used = self.held_tokens.load(Relaxed);
        format!(
            r#"{{"loads":[{{"dp_rank":0,"num_running_reqs":{},"num_waiting_reqs":{},"num_waiting_uncached_tokens":0,"num_used_tokens":{used},"max_total_num_tokens":{},"token_usage":{:?},"gen_throughput":0.0}}]}}"#,
            self.running.load(Relaxed),
            self.waiting.load(Relaxed),
            BLOCKS * BLOCK_SIZE,
            self.cache_usage()
        )
    }
}

struct Page {
    out: String,
    labels: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str) {
        _ = writeln!(
            self.out,
            "# HELP {name} As {name} of the engine.\n# TYPE {name} {kind}"
        );
    }

    fn gauge(&mut self, name: &str, value: f64) {
        self.head(name, "gauge");
        _ = writeln!(self.out, "{name}{{{}}} {value:?}", self.labels);
    }

    /// vLLM's counters come with a `_created` gauge each.
    fn counter(&mut self, name: &str, value: f64) {
        self.plain_counter(&format!("{name}_total"), value);
        self.gauge(&format!("{name}_created"), 0.0);
    }

    fn plain_counter(&mut self, name: &str, value: f64) {
        self.head(name, "counter");
        _ = writeln!(self.out, "{name}{{{}}} {value:?}", self.labels);
    }

    fn labelled(&mut self, name: &str, kind: &str, label: &str, values: &[(&str, f64)]) {
        self.head(name, kind);
        for (value, count) in values {
            _ = writeln!(
                self.out,
                "{name}{{{},{label}=\"{value}\"}} {count:?}",
                self.labels
            );
        }
    }

    fn histogram(&mut self, name: &str, histogram: &Histogram) {
        self.head(name, "histogram");
        histogram.render(&mut self.out, name, &self.labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for value in [0.2, 0.7, 5.0] {
            histogram.observe(value);
        }
        let mut out = String::new();
        histogram.render(&mut out, "x", "a=\"b\"");
        assert_eq!(
            out,
            "x_bucket{a=\"b\",le=\"0.5\"} 1.0\nx_bucket{a=\"b\",le=\"1.0\"} 2.0\n\
             x_bucket{a=\"b\",le=\"+Inf\"} 3.0\nx_count{a=\"b\"} 3.0\nx_sum{a=\"b\"} 5.9\n"
        );
    }

    #[test]
    fn orca_speaks_the_two_formats_vllm_knows() {
        let metrics = Metrics::default();
        assert_eq!(
            metrics.orca("text").unwrap(),
            "TEXT named_metrics.num_requests_waiting=0.0, named_metrics.kv_cache_usage_perc=0.0"
        );
        assert_eq!(
            metrics.orca("JSON").unwrap(),
            r#"JSON {"named_metrics": {"num_requests_waiting": 0.0, "kv_cache_usage_perc": 0.0}}"#
        );
        assert_eq!(metrics.orca("BIN"), None);
    }
}
