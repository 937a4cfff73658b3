//! The one table of metrics: names, labels and what they mean.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// One family. The name stands without its prefix.
pub(super) struct Family {
    pub name: &'static str,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

const fn family(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Family {
    Family { name, labels, help }
}

pub(super) const PREFIX: &str = "sluicegate";

#[rustfmt::skip]
pub(super) const FAMILIES: &[Family] = &[
    family("body_bytes", &[], "Bytes of request bodies and answers held in memory."),
    family("build_info", &["version"], "Always 1; the label is the version that runs."),
    family("certificate_expiry_timestamp_seconds", &["listener"], "When the listener's certificate expires, as Unix time."),
    family("config_epoch", &[], "Number of the configuration in force; 1 at the start, one more with every reload that succeeds."),
    family("config_reloads_total", &["result"], "Reloads of the configuration, by result (success, failure)."),
    family("connections", &["state"], "Open connections of clients: reading, writing (a request is being answered), waiting (idle)."),
    family("connections_total", &[], "Connections accepted from clients."),
    family("continuations_total", &["pool", "result"], "Streams cut after they began: gone on with by ids or by text, only the end was missing (end), no other endpoint could (failed), the request does not allow it (refused)."),
    family("e2el_seconds", &["pool", "model"], "End-to-end latency: from a request's head to the end of an answer that came to its end."),
    family("ejections_total", &["pool", "endpoint", "reason"], "Times an endpoint was taken out of its pool, by reason."),
    family("endpoint_draining", &["pool", "endpoint"], "1 while the endpoint gets no new requests on purpose, else 0."),
    family("endpoint_in_flight", &["pool", "endpoint"], "Requests the endpoint has from this gateway now."),
    family("endpoint_up", &["pool", "endpoint"], "1 while the endpoint may be chosen, else 0."),
    family("itl_seconds", &["pool", "model"], "Inter-token latency: between two content events of a stream; added when the stream ends."),
    family("key_requests_total", &["key", "result"], "Requests of a key, by how they ended (complete, client_left, upstream_cut, refused, failed, rate_limited)."),
    family("key_tokens_total", &["key", "kind"], "Tokens of a key's requests, by kind (prompt, completion, cached)."),
    family("log_lines_dropped_total", &[], "Lines of the access log that were lost because they could not be written."),
    family("overhead_seconds", &[], "The gateway's own share of a request's time."),
    family("queue_depth", &["pool"], "Requests that wait in the pool's queue now."),
    family("queue_wait_seconds", &["pool"], "Time in the pool's queue, of the requests that had to wait, however they ended."),
    family("refused_total", &["reason"], "Requests and connections the gateway refused itself, by the error's code or the limit's name; accept_failed: accepts that failed for want of descriptors."),
    family("request_duration_seconds", &["pool"], "From a request's head to the end of its answer."),
    family("requests_total", &["pool", "endpoint", "code"], "Requests by the endpoint that answered (none: no endpoint did), its pool (none: it was answered before that was known) and the status sent to the client (499: it left; behind a heartbeat: that of the failure)."),
    family("retries_total", &["pool", "reason"], "Requests sent again to another endpoint, by what the try before died of."),
    family("retry_budget_exhausted_total", &["pool"], "Requests not sent again because the pool's retry budget was used up."),
    family("spans_dropped_total", &[], "Spans of requests that the receiver of traces did not get."),
    family("suspects_total", &["pool"], "Requests that two engines died of, and that are sent to no other."),
    family("tokens_total", &["pool", "model", "kind"], "Tokens, by kind (prompt, completion, cached: those of the prompt that the engine had in its cache)."),
    family("tpot_seconds", &["pool", "model"], "Time per output token after the first, of answers that came to their end."),
    family("ttft_seconds", &["pool", "model"], "Time to first token: from a request's head to the first content of its answer."),
    family("upstream_connections_total", &["pool", "endpoint", "state"], "Connections used for requests to the endpoint, by state (new, reused)."),
];

fn find(name: &str) -> &'static Family {
    FAMILIES
        .iter()
        .find(|family| family.name == name)
        .expect("every metric is in the table")
}

pub(super) fn opts(name: &str) -> (Opts, &'static [&'static str]) {
    let family = find(name);
    (
        Opts::new(family.name, family.help).namespace(PREFIX),
        family.labels,
    )
}

pub(super) fn counter(registry: &Registry, name: &str) -> IntCounter {
    registered(registry, IntCounter::with_opts(opts(name).0))
}

pub(super) fn counters(registry: &Registry, name: &str) -> IntCounterVec {
    let (opts, labels) = opts(name);
    registered(registry, IntCounterVec::new(opts, labels))
}

pub(super) fn gauge(registry: &Registry, name: &str) -> IntGauge {
    registered(registry, IntGauge::with_opts(opts(name).0))
}

pub(super) fn gauges(registry: &Registry, name: &str) -> IntGaugeVec {
    let (opts, labels) = opts(name);
    registered(registry, IntGaugeVec::new(opts, labels))
}

pub(super) fn histogram(registry: &Registry, name: &str, buckets: &[f64]) -> Histogram {
    let opts = HistogramOpts::from(opts(name).0).buckets(buckets.to_vec());
    registered(registry, Histogram::with_opts(opts))
}

pub(super) fn histograms(registry: &Registry, name: &str, buckets: &[f64]) -> HistogramVec {
    let (opts, labels) = opts(name);
    registered(
        registry,
        HistogramVec::new(HistogramOpts::from(opts).buckets(buckets.to_vec()), labels),
    )
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> C {
    let collector = made.expect("the table's names and labels are valid");
    registry
        .register(Box::new(collector.clone()))
        .expect("the table's names are unique");
    collector
}

/// Removes every series that carries all of `labels`.
pub(super) fn remove(counters: &IntCounterVec, labels: &[(&str, &str)]) {
    let families: Vec<MetricFamily> = counters.collect();
    for metric in families.iter().flat_map(MetricFamily::get_metric) {
        let pairs = metric.get_label();
        let carries = |&(name, value): &(&str, &str)| {
            pairs.iter().any(|p| p.name() == name && p.value() == value)
        };
        if !labels.iter().all(carries) {
            continue;
        }
        let of_this: std::collections::HashMap<&str, &str> =
            pairs.iter().map(|p| (p.name(), p.value())).collect();
        // It may be gone already; that is what was wanted.
        let _ = counters.remove(&of_this);
    }
}
