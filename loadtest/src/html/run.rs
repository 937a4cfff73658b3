//! A run of load.

use std::fmt::Write as _;

use super::chart::{Axis, Chart, Line};
use super::{escape, list, number, page, table, wide};
use crate::load::{Interval, Quantiles, Report, Times};

/// A run as a page: what it came to, requests and failures over time, times over time and as distributions.
pub fn run(report: &Report) -> String {
    let mut body = format!(
        "<p>{}</p>\n<p class=\"faint\">{} s, {} connections, made by loadtest {}</p>\n",
        escape(&report.plan),
        number(report.seconds),
        report.connections,
        env!("CARGO_PKG_VERSION")
    );
    body.push_str(&verdict(report));
    body.push_str(&times(report));
    for (heading, chart) in charts(report) {
        _ = writeln!(body, "<h2>{}</h2>\n{}", escape(heading), chart.html());
    }
    page("Load test", &body)
}

fn verdict(report: &Report) -> String {
    let answered = report.requests - report.failed;
    let mut text = format!(
        "<p>{answered} of {} requests were answered, {} a second",
        report.requests,
        number(report.requests_per_second)
    );
    if report.tokens > 0 {
        let rate = number(report.tokens_per_second);
        _ = write!(text, "; {} tokens, {rate} a second", report.tokens);
    }
    text.push_str(".</p>\n");
    if report.failed == 0 {
        text.push_str("<p>No request failed.</p>\n");
        return text;
    }
    _ = writeln!(
        text,
        "<p class=\"bad\">{} requests failed:</p>",
        report.failed
    );
    text.push_str(&list(report.failures.iter().map(|(name, count)| {
        let example = report
            .examples
            .get(name)
            .map(|text| format!(": {}", text.trim()));
        format!("{count} {name}{}", example.unwrap_or_default())
    })));
    text
}

fn times(report: &Report) -> String {
    let row = |name: &str, times: &Times| {
        let values = [
            times.avg, times.min, times.med, times.p90, times.p95, times.p99, times.max,
        ];
        let cells = values.map(number);
        (times.count > 0).then(|| {
            [name.to_owned()]
                .into_iter()
                .chain(cells)
                .collect::<Vec<_>>()
        })
    };
    let rows: Vec<_> = [
        row("Request", &report.http_req_duration),
        row("Request, without waiting to begin", &report.service_time),
        row("Connect", &report.http_req_connecting),
        row("TTFT", &report.ttft),
        row("ITL", &report.itl),
    ]
    .into_iter()
    .flatten()
    .collect();
    let head = ["", "mean", "min", "median", "p90", "p95", "p99", "max"];
    let table = table("Times in milliseconds", &head, &rows);
    format!("<h2>Times</h2>\n{}", wide("Times", &table))
}

fn charts(report: &Report) -> Vec<(&'static str, Chart)> {
    let mut charts = vec![("Requests over time", requests(report))];
    let kinds = [
        ("Request time over time", "duration", "request time, ms"),
        ("Time to first token (TTFT) over time", "ttft", "TTFT, ms"),
        ("Time between tokens (ITL) over time", "itl", "ITL, ms"),
    ];
    let quantiles: [fn(&Interval) -> Option<Quantiles>; 3] = [
        |interval| interval.http_req_duration,
        |interval| interval.ttft,
        |interval| interval.itl,
    ];
    for ((heading, id, label), of) in kinds.into_iter().zip(quantiles) {
        charts.extend(over_time(report, id, label, of).map(|chart| (heading, chart)));
    }
    charts.extend(distributions(report).map(|chart| ("Distributions", chart)));
    charts
}

fn requests(report: &Report) -> Chart {
    let steps = |intervals: &[Interval], of: fn(&Interval) -> u64| -> Vec<(f64, f64)> {
        let step = |interval: &Interval| {
            let rate = of(interval) as f64 / interval.width;
            [
                (interval.from, rate),
                (interval.from + interval.width, rate),
            ]
        };
        intervals.iter().flat_map(step).collect()
    };
    let mut lines = vec![Line {
        name: "answered",
        runs: vec![steps(&report.timeline, |interval| interval.answered)],
        filled: true,
        bad: false,
    }];
    if report.failed > 0 {
        let failing = (report.timeline).split(|interval| interval.failed == 0);
        lines.push(Line {
            name: "failed",
            runs: failing
                .filter(|run| !run.is_empty())
                .map(|run| down_to_0(steps(run, |interval| interval.failed)))
                .collect(),
            filled: true,
            bad: true,
        });
    }
    Chart {
        id: "requests",
        describe: format!(
            "{} requests were answered and {} failed in {} seconds.",
            report.requests - report.failed,
            report.failed,
            number(report.seconds)
        ),
        x: Axis::Seconds(report.seconds),
        x_label: "seconds since the start",
        y_label: "requests a second",
        lines,
    }
}

/// Steps with the way up to the first and down from the last.
fn down_to_0(steps: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let ground = |point: Option<&(f64, f64)>| point.map(|(at, _)| (*at, 0.0));
    let (first, last) = (ground(steps.first()), ground(steps.last()));
    first.into_iter().chain(steps).chain(last).collect()
}

/// `None` where nothing was measured.
fn over_time(
    report: &Report,
    id: &'static str,
    y_label: &'static str,
    of: fn(&Interval) -> Option<Quantiles>,
) -> Option<Chart> {
    let middle = |interval: &Interval| interval.from + interval.width / 2.0;
    let measured: Vec<Vec<(f64, Quantiles)>> = (report.timeline)
        .split(|interval| of(interval).is_none())
        .map(|run| {
            (run.iter())
                .filter_map(|i| Some((middle(i), of(i)?)))
                .collect()
        })
        .filter(|run: &Vec<_>| !run.is_empty())
        .collect();
    let worst = (measured.iter().flatten()).max_by(|a, b| a.1.p99.total_cmp(&b.1.p99))?;
    let describe = format!(
        "Percentiles in each part of the run. The 99th was highest at second {}, with {} ms.",
        number(worst.0),
        number(worst.1.p99)
    );
    let line = |name, pick: fn(&Quantiles) -> f64| Line {
        name,
        runs: (measured.iter())
            .map(|run| run.iter().map(|(at, times)| (*at, pick(times))).collect())
            .collect(),
        filled: false,
        bad: false,
    };
    Some(Chart {
        id,
        describe,
        x: Axis::Seconds(report.seconds),
        x_label: "seconds since the start",
        y_label,
        lines: vec![
            line("median", |times| times.med),
            line("p90", |times| times.p90),
            line("p99", |times| times.p99),
        ],
    })
}

fn distributions(report: &Report) -> Option<Chart> {
    let curves = &report.curves;
    let lines: Vec<Line> = [
        ("request", &curves.http_req_duration),
        ("TTFT", &curves.ttft),
        ("ITL", &curves.itl),
    ]
    .into_iter()
    .filter(|(_, curve)| !curve.is_empty())
    .map(|(name, curve)| Line {
        name,
        runs: vec![curve.clone()],
        filled: false,
        bad: false,
    })
    .collect();
    let longest = report.http_req_duration.max;
    (!lines.is_empty()).then(|| Chart {
        id: "distributions",
        describe: format!(
            "How long the given share of requests, first tokens and further tokens took at most. \
             The longest request took {} ms.",
            number(longest)
        ),
        x: Axis::Nines,
        x_label: "percentile",
        y_label: "milliseconds",
        lines,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::text_of;
    use super::*;
    use crate::engine::{Engine, Fault, Script};
    use crate::load::{Arrivals, Plan};

    async fn page_of(stream: bool, failures: usize, requests: u64) -> (Report, String) {
        let engine = Engine::start(Script {
            ttft: Duration::from_millis(5),
            itl: Duration::from_millis(2),
            ..Script::default()
        })
        .await
        .unwrap();
        if failures > 0 {
            engine.fail_next(failures, Fault::Status(503));
        }
        let plan = Plan {
            arrivals: Arrivals::Closed { clients: 4 },
            stream,
            requests,
            ..Plan::new(engine.url())
        };
        let report = crate::load::run(plan).await.unwrap();
        let page = run(&report);
        (report, page)
    }

    #[tokio::test]
    async fn a_run_of_streams_has_every_plot() {
        let (report, page) = page_of(true, 3, 60).await;
        let text = text_of(&page);
        for wanted in [
            "57 of 60 requests were answered",
            "3 requests failed",
            "3 status_503",
            "Requests over time",
            "Request time over time",
            "Time to first token (TTFT) over time",
            "Time between tokens (ITL) over time",
            "Distributions",
            &number(report.ttft.p99),
            &number(report.itl.p95),
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert_eq!(page.matches("role=\"img\"").count(), 5);
    }

    #[tokio::test]
    async fn a_run_without_streams_has_no_plot_of_tokens() {
        let (_, page) = page_of(false, 0, 1).await;
        let text = text_of(&page);
        assert!(text.contains("No request failed."), "{text}");
        assert!(!text.contains("TTFT") && !text.contains("ITL"), "{text}");
        assert_eq!(page.matches("role=\"img\"").count(), 3);
    }

    #[tokio::test]
    async fn what_a_server_says_is_not_taken_for_markup() {
        let (mut report, _) = page_of(false, 1, 2).await;
        let example = report.examples.get_mut("status_503").unwrap();
        *example = "<script>alert(1)</script> & \u{0}".to_owned();
        assert!(text_of(&run(&report)).contains("<script>alert(1)</script> & \u{fffd}"));
    }

    #[tokio::test]
    async fn a_run_in_which_nothing_happened_is_a_page_too() {
        let (mut report, _) = page_of(false, 0, 1).await;
        report.timeline.clear();
        report.curves.http_req_duration.clear();
        report.seconds = 0.0;
        assert_eq!(run(&report).matches("role=\"img\"").count(), 1);
        text_of(&run(&report));
    }
}
