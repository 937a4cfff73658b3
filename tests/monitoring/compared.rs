//! Panels and rules held against what the load generator counted.

use loadtest::load::Report;

use crate::cluster::{MODEL, SMALL, SMALL_TOKENS};
use crate::dashboards::{Board, with_variables};
use crate::files::expression;
use crate::live::{CLIENTS, WINDOW};
use crate::prometheus::{Prometheus, Series, now};

/// From before the first request of a load until after the last was scraped.
pub struct Window<'a> {
    prometheus: &'a Prometheus,
    boards: &'a [Board],
    begun: f64,
    seconds: f64,
}

impl<'a> Window<'a> {
    /// From then until now.
    pub fn since(prometheus: &'a Prometheus, boards: &'a [Board], begun: f64) -> Self {
        Self {
            prometheus,
            boards,
            begun,
            seconds: (now() - begun).ceil(),
        }
    }

    /// What the gateway as a whole shows, and the engines; `ended` is when the load did.
    pub fn has_the_load(&self, report: &Report, ended: f64) {
        let seconds = self.seconds;
        let requests = report.requests as f64;
        let tokens = completion_tokens(report);
        let (ttft, duration) = (report.ttft.avg / 1e3, report.http_req_duration.avg / 1e3);
        let itl = report.itl.avg / 1e3;
        for (board, panel, reference, expected) in [
            ("gateway", "Requests", "A", requests / seconds),
            ("gateway", "Requests by status", "A", requests / seconds),
            ("gateway", "Requests by endpoint", "A", requests / seconds),
            ("gateway", "First token", "D", ttft),
            ("gateway", "Whole request", "D", duration),
            ("vLLM_Dashboard", "First token", "D", ttft),
            ("SGLang_Dashboard", "First token", "D", ttft),
            ("vLLM_Dashboard", "Whole request", "D", duration),
            ("SGLang_Dashboard", "Whole request", "D", duration),
            ("vLLM_Dashboard", "Between tokens", "D", itl),
            ("SGLang_Dashboard", "Between tokens", "D", itl),
        ] {
            let value = self.value(board, panel, reference, &[]);
            near(&format!("{board}: {panel}"), value, expected);
        }
        for (reference, expected) in [
            ("A", report.ttft.med),
            ("B", report.ttft.p90),
            ("C", report.ttft.p99),
        ] {
            let value = self.value("gateway", "First token", reference, &[]);
            self.in_bucket("sluicegate_ttft_seconds", value, expected / 1e3);
        }
        // What is spread over the two kinds of engines.
        let finished = self.value("vLLM_Dashboard", "Finished requests", "A", &[])
            + self.value("SGLang_Dashboard", "Requests", "A", &[]);
        near("finished", finished, requests / seconds);
        let generated = self.of_engines("Generation throughput");
        near("generated", generated, tokens / seconds);
        let average = |board: &str, panel: &str| {
            let query = with_variables(panel_query(self.boards, board, panel, "A"), WINDOW);
            let points: Vec<f64> = self
                .prometheus
                .range(&format!("sum({query})"), self.begun + 2.0, ended - 1.0)
                .iter()
                .flat_map(|series| series.points.iter().map(|point| point.1))
                .collect();
            points.iter().sum::<f64>() / points.len() as f64
        };
        near("in flight", average("gateway", "In flight"), CLIENTS as f64);
        let running = average("vLLM_Dashboard", "Running") + average("SGLang_Dashboard", "Running");
        near("running", running, CLIENTS as f64);
        // The rules, over the same time.
        for (name, expected) in [
            ("pool:sluicegate_requests:rate5m", requests),
            ("pool:sluicegate_requests:rate1h", requests),
            ("job:generation_tokens:rate1h", tokens),
        ] {
            near(name, self.rule(name, &[]), expected / seconds);
        }
        for (name, expected) in [
            ("pool:sluicegate_ttft_seconds:p90_5m", report.ttft.p90),
            ("pool:sluicegate_ttft_seconds:p50_1h", report.ttft.med),
        ] {
            let value = self.rule(name, &[]);
            self.in_bucket("sluicegate_ttft_seconds", value, expected / 1e3);
        }
    }

    /// What the rows of models and keys show of streams of the pool `default`, all with one key.
    pub fn has_the_model_and_the_key(&self, report: &Report) {
        let model = ("model", MODEL);
        let value =
            |panel: &str, reference: &str| self.value("gateway", panel, reference, &[model]);
        let (ttft, duration) = (report.ttft.avg / 1e3, report.http_req_duration.avg / 1e3);
        let rest = completion_tokens(report) / report.streams as f64 - 1.0;
        let tpot = (duration - ttft) / rest;
        for (panel, reference, expected) in [
            ("First token by model", "D", ttft),
            ("Between tokens by model", "C", report.itl.avg / 1e3),
            ("Time per token by model", "C", tpot),
            ("Whole answer by model", "B", duration),
            // The simulated engines have no cache.
            ("Prompt from the cache", "A", 0.0),
        ] {
            near(panel, value(panel, reference), expected);
        }
        for (panel, reference, metric, expected) in [
            ("First token by model", "A", "ttft", report.ttft.med / 1e3),
            ("First token by model", "B", "ttft", report.ttft.p90 / 1e3),
            ("First token by model", "C", "ttft", report.ttft.p99 / 1e3),
            ("Between tokens by model", "A", "itl", report.itl.med / 1e3),
            ("Time per token by model", "A", "tpot", tpot),
            (
                "Whole answer by model",
                "A",
                "e2el",
                report.http_req_duration.p90 / 1e3,
            ),
        ] {
            let metric = format!("sluicegate_{metric}_seconds");
            self.in_bucket(&metric, value(panel, reference), expected);
        }
        // The slowest of thousands of gaps are the machine's, on each side its own.
        for panel in ["Between tokens by model", "Time per token by model"] {
            assert!(value(panel, "B") >= value(panel, "A"), "{panel}");
        }
        let requests = report.requests as f64 / self.seconds;
        let key = ("key", "team-a");
        let shown =
            |panel: &str, labels: &[(&str, &str)]| self.value("gateway", panel, "A", labels);
        let complete = shown("Requests by key", &[key, ("result", "complete")]);
        near("Requests by key", complete, requests);
        assert_eq!(shown("Rate limited", &[key]), 0.0);
        let name = "key:sluicegate_key_requests:rate5m";
        near(name, self.rule(name, &[key]), requests);
        // A client cannot count its prompt's tokens; the engines can.
        let kinds = [
            ("completion", completion_tokens(report) / self.seconds),
            ("prompt", self.of_engines("Prompt throughput")),
            ("cached", 0.0),
        ];
        self.has_tokens(model, key, &kinds);
    }

    /// What the rows show of answers of the small model, all with the key `batch`, which its limit refused in part.
    pub fn has_the_small_model_and_the_limited_key(&self, report: &Report) {
        let (requests, limited) = (report.requests as f64, report.failed as f64);
        let answered = (requests - limited) / self.seconds;
        let (model, key) = (("model", SMALL), ("key", "batch"));
        let shown =
            |panel: &str, labels: &[(&str, &str)]| self.value("gateway", panel, "A", labels);
        for (result, expected) in [
            ("complete", answered),
            ("rate_limited", limited / self.seconds),
        ] {
            let value = shown("Requests by key", &[key, ("result", result)]);
            near(result, value, expected);
        }
        near(
            "Rate limited",
            shown("Rate limited", &[key]),
            limited / requests,
        );
        let kinds = SMALL_TOKENS.map(|(kind, count)| (kind, answered * count));
        self.has_tokens(model, key, &kinds);
        let [(_, prompt), _, (_, cached)] = SMALL_TOKENS;
        let share = shown("Prompt from the cache", &[model]);
        near("Prompt from the cache", share, cached / prompt);
    }

    /// Tokens a second by kind, of the model and of the key alike, in panels and rules.
    fn has_tokens(&self, model: (&str, &str), key: (&str, &str), kinds: &[(&str, f64)]) {
        for &(kind, expected) in kinds {
            for (panel, rule, of) in [
                (
                    "Tokens by model",
                    "model_kind:sluicegate_tokens:rate1h",
                    model,
                ),
                (
                    "Tokens by key",
                    "key_kind:sluicegate_key_tokens:rate1h",
                    key,
                ),
            ] {
                let labels = [of, ("kind", kind)];
                let what = format!("{panel}: {labels:?}");
                near(&what, self.value("gateway", panel, "A", &labels), expected);
                near(rule, self.rule(rule, &labels), expected);
            }
        }
    }

    /// A panel's value over the window: the sum of its series that have the labels.
    fn value(&self, board: &str, panel: &str, reference: &str, labels: &[(&str, &str)]) -> f64 {
        let window = format!("{}s", self.seconds);
        let query = with_variables(panel_query(self.boards, board, panel, reference), &window);
        sum(&self.prometheus.query(&query), labels).unwrap_or_else(|| {
            panic!("{board}: {panel} {reference} has nothing of {labels:?}: {query}")
        })
    }

    /// The same of a rule.
    fn rule(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let window = format!("[{}s]", self.seconds);
        let expression = ["[5m]", "[1h]"]
            .into_iter()
            .fold(expression(name), |e, long| e.replace(long, &window));
        sum(&self.prometheus.query(&expression), labels)
            .unwrap_or_else(|| panic!("{name} has nothing of {labels:?}"))
    }

    /// A panel that both kinds of engines have.
    fn of_engines(&self, panel: &str) -> f64 {
        self.value("vLLM_Dashboard", panel, "A", &[])
            + self.value("SGLang_Dashboard", panel, "A", &[])
    }

    /// A quantile of a histogram is as good as its buckets.
    fn in_bucket(&self, metric: &str, value: f64, expected: f64) {
        let buckets = self
            .prometheus
            .query(&format!("count by (le) ({metric}_bucket)"));
        let mut bounds: Vec<f64> = buckets
            .iter()
            .map(|series| series.labels["le"].as_str().unwrap().parse().unwrap())
            .collect();
        bounds.sort_by(f64::total_cmp);
        assert!(bounds.len() > 10, "{metric}: {bounds:?}");
        let of = |value: f64| bounds.partition_point(|bound| *bound < value);
        // The two clocks stand on either side of the gateway: near a bound they may disagree about the bucket.
        let is_right = (of(0.9 * expected)..=of(1.1 * expected)).contains(&of(value));
        assert!(
            is_right,
            "{metric}: a quantile of {value} s, the load measured {expected} s"
        );
    }
}

/// An engine counts the token that ends an answer, too.
fn completion_tokens(report: &Report) -> f64 {
    (report.tokens + report.streams) as f64
}

fn sum(series: &[Series], labels: &[(&str, &str)]) -> Option<f64> {
    let has_all =
        |series: &&Series| (labels.iter()).all(|(name, value)| series.labels[*name] == *value);
    let values = series.iter().filter(has_all);
    let values: Vec<f64> = values.map(|series| series.points[0].1).collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

pub fn panel_query<'a>(boards: &'a [Board], board: &str, panel: &str, reference: &str) -> &'a str {
    let file = format!("{board}.json");
    let queries = boards.iter().find(|b| b.file == file).unwrap().queries();
    let found = queries
        .into_iter()
        .find(|query| query.panel == panel && query.reference == reference);
    found
        .unwrap_or_else(|| panic!("{board} has no panel {panel}"))
        .text
}

fn near(what: &str, value: f64, expected: f64) {
    let is_near = (value - expected).abs() <= 0.1 * expected.abs();
    assert!(
        is_near,
        "{what}: Prometheus has {value}, the load counted {expected}"
    );
}
