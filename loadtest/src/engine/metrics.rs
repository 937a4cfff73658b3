//! What an engine counts, and how it shows it: `/metrics` of vLLM and of SGLang, SGLang's `/v1/loads`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

const LATENCY: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];
const TTFT: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const ITL: &[f64] = &[
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
];
const TOKENS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];
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
        Self { bounds, buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add((value * 1e6) as u64, Relaxed);
    }

    pub(super) fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    fn render(&self, out: &mut String, name: &str, labels: &str) {
        let mut count = 0.0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            count += bucket.load(Relaxed) as f64;
            match self.bounds.get(index) {
                Some(bound) => _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound:?}\"}} {count:?}"),
                None => _ = writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {count:?}"),
            }
        }
        _ = writeln!(out, "{name}_count{{{labels}}} {count:?}");
        _ = writeln!(out, "{name}_sum{{{labels}}} {:?}", self.sum.load(Relaxed) as f64 / 1e6);
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
        let mut page = Page { out: String::with_capacity(16 << 10), labels: format!("engine=\"0\",model_name=\"{model}\"") };
        let waiting = self.waiting.load(Relaxed);
        page.gauge("vllm:num_requests_running", "Number of requests in model execution batches.", self.running.load(Relaxed) as f64);
        page.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", waiting as f64);
        page.labelled(
            "vllm:num_requests_waiting_by_reason",
            "gauge",
            "Number of waiting requests by reason.",
            "reason",
            &[("capacity", waiting as f64), ("deferred", 0.0)],
        );
        page.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", self.cache_usage());
        page.head("vllm:cache_config_info", "gauge", "Information of the LLMEngine CacheConfig");
        _ = writeln!(
            page.out,
            "vllm:cache_config_info{{block_size=\"{BLOCK_SIZE}\",engine=\"0\",kv_cache_size_tokens=\"{}\",num_gpu_blocks=\"{BLOCKS}\"}} 1.0",
            BLOCKS * BLOCK_SIZE
        );
        let prompt = self.prompt_tokens.load(Relaxed) as f64;
        page.counter("vllm:prefix_cache_queries", "Prefix cache queries, in number of tokens.", prompt);
        page.counter("vllm:prefix_cache_hits", "Prefix cache hits, in number of tokens.", 0.0);
        page.counter("vllm:prompt_tokens", "Number of prefill tokens processed.", prompt);
        page.counter("vllm:generation_tokens", "Number of generation tokens processed.", self.generation_tokens.load(Relaxed) as f64);
        page.counter("vllm:num_preemptions", "Cumulative number of preemptions.", 0.0);
        page.labelled(
            "vllm:request_success_total",
            "counter",
            "Count of successfully processed requests.",
            "finished_reason",
            &[
                ("stop", self.stopped.load(Relaxed) as f64),
                ("length", self.at_length.load(Relaxed) as f64),
                ("abort", self.aborted.load(Relaxed) as f64),
                ("error", self.failed.load(Relaxed) as f64),
                ("repetition", 0.0),
            ],
        );
        page.labelled(
            "vllm:admission_rejections_total",
            "counter",
            "Requests refused because a queue limit was reached.",
            "reason",
            &[("max_num_queued_reqs", self.rejected.load(Relaxed) as f64), ("max_num_queued_tokens", 0.0)],
        );
        page.histogram("vllm:time_to_first_token_seconds", "Histogram of time to first token in seconds.", &self.ttft);
        page.histogram("vllm:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", &self.itl);
        page.histogram("vllm:e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", &self.e2el);
        page.histogram("vllm:request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", &self.queue_time);
        page.histogram("vllm:request_prompt_tokens", "Number of prefill tokens processed.", &self.prompt_lengths);
        page.histogram("vllm:request_generation_tokens", "Number of generation tokens processed.", &self.answer_lengths);
        page.out
    }

    pub(super) fn sglang(&self, model: &str) -> String {
        let labels = format!(
            "dp_rank=\"0\",engine_type=\"unified\",model_name=\"{model}\",pp_rank=\"0\",tp_rank=\"0\""
        );
        let mut page = Page { out: String::with_capacity(8 << 10), labels };
        let used = self.held_tokens.load(Relaxed);
        page.gauge("sglang:num_running_reqs", "The number of running requests.", self.running.load(Relaxed) as f64);
        page.gauge("sglang:num_queue_reqs", "The number of requests in the waiting queue.", self.waiting.load(Relaxed) as f64);
        page.gauge("sglang:num_used_tokens", "The number of used tokens.", used as f64);
        page.gauge("sglang:max_total_num_tokens", "Maximum total number of tokens in the KV cache pool.", (BLOCKS * BLOCK_SIZE) as f64);
        page.gauge("sglang:token_usage", "The token usage.", (self.cache_usage() * 100.0).round() / 100.0);
        page.plain_counter("sglang:prompt_tokens_total", "Number of prefill tokens processed.", self.prompt_tokens.load(Relaxed) as f64);
        page.plain_counter("sglang:generation_tokens_total", "Number of generation tokens processed.", self.generation_tokens.load(Relaxed) as f64);
        page.plain_counter("sglang:cached_tokens_total", "Number of cached prompt tokens.", 0.0);
        page.plain_counter(
            "sglang:num_requests_total",
            "Number of requests processed.",
            (self.stopped.load(Relaxed) + self.at_length.load(Relaxed) + self.aborted.load(Relaxed)) as f64,
        );
        page.plain_counter("sglang:num_aborted_requests_total", "Number of requests aborted.", self.aborted.load(Relaxed) as f64);
        page.histogram("sglang:time_to_first_token_seconds", "Histogram of time to first token in seconds.", &self.ttft);
        page.histogram("sglang:inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", &self.itl);
        page.histogram("sglang:e2e_request_latency_seconds", "Histogram of End-to-end request latency in seconds", &self.e2el);
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
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        _ = writeln!(self.out, "{name}{{{}}} {value:?}", self.labels);
    }

    /// vLLM's counters come with a `_created` gauge each.
    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.plain_counter(&format!("{name}_total"), help, value);
        self.gauge(&format!("{name}_created"), help, 0.0);
    }

    fn plain_counter(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "counter", help);
        _ = writeln!(self.out, "{name}{{{}}} {value:?}", self.labels);
    }

    fn labelled(&mut self, name: &str, kind: &str, help: &str, label: &str, values: &[(&str, f64)]) {
        self.head(name, kind, help);
        for (value, count) in values {
            _ = writeln!(self.out, "{name}{{{},{label}=\"{value}\"}} {count:?}", self.labels);
        }
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
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
