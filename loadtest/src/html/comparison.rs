//! A comparison of gateways, and how it stands against an earlier one.

use std::fmt::Write as _;

use super::bars::{bars, shown};
use super::{details, escape, list, page, table, wide};
use crate::compare::{Cell, Changes, Figure, Record};

/// A comparison as a page: the table, a plot of each figure, and what has changed where there is a baseline.
pub fn comparison(record: &Record, changes: Option<&Changes>) -> String {
    let names: Vec<&str> = (record.gateways.iter())
        .map(|gateway| gateway.name.as_str())
        .collect();
    let mut body = format!(
        "<p>{} on {}. Medians of the rounds; in brackets the ratio to {} in the same round and its quartiles.</p>\n",
        escape(&names.join(", ")),
        escape(&record.machine.to_string()),
        escape(&record.base)
    );
    if let Some(changes) = changes {
        body.push_str(&changed(changes));
    }
    body.push_str("<h2>Figures</h2>\n");
    body.push_str(&wide("Figures", &overview(record)));
    for (place, figure) in record.measured().into_iter().enumerate() {
        let cells = record.of(figure);
        let id = format!("figure-{place}");
        _ = writeln!(
            body,
            "<h2>{}</h2>\n<figure>\n{}</figure>\n{}",
            escape(figure.label()),
            bars(&id, figure.label(), &cells, &record.base),
            details("The rounds", &rounds(&cells))
        );
    }
    body.push_str("<h2>How it was measured</h2>\n");
    body.push_str(&list(&record.notes));
    page("Comparison of gateways", &body)
}

fn changed(changes: &Changes) -> String {
    let class = if changes.worse() > 0 { "bad" } else { "good" };
    let rows: Vec<Vec<String>> = changes.rows().collect();
    let table = table("Change since the baseline", &Changes::HEAD, &rows);
    format!(
        "<h2>Against the baseline</h2>\n<p class=\"{class}\">{}</p>\n{}",
        escape(&changes.summary()),
        wide("Against the baseline", &table)
    )
}

fn overview(record: &Record) -> String {
    let gateways = record.columns();
    let head: Vec<&str> = [""].into_iter().chain(gateways.iter().copied()).collect();
    let row = |figure: Figure| {
        let cells = record.of(figure);
        let of_gateway = |gateway: &&str| {
            let cell = cells.iter().find(|cell| cell.gateway == **gateway);
            cell.map_or_else(|| "-".to_owned(), |cell| shown(cell))
        };
        [figure.label().to_owned()]
            .into_iter()
            .chain(gateways.iter().map(of_gateway))
            .collect()
    };
    let rows: Vec<Vec<String>> = record.measured().into_iter().map(row).collect();
    table("Medians and ratios", &head, &rows)
}

fn rounds(cells: &[&Cell]) -> String {
    let most = cells
        .iter()
        .map(|cell| cell.rounds.len())
        .max()
        .unwrap_or(0);
    let names: Vec<String> = (1..=most).map(|round| round.to_string()).collect();
    let head: Vec<&str> = ["gateway"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let rows: Vec<Vec<String>> = (cells.iter())
        .map(|cell| {
            let values = cell.rounds.iter().map(|value| super::number(*value));
            [cell.gateway.clone()].into_iter().chain(values).collect()
        })
        .collect();
    table("Each round", &head, &rows)
}

#[cfg(test)]
mod tests {
    use super::super::tests::text_of;
    use super::*;
    use crate::compare::record::tests::record;

    #[test]
    fn a_comparison_has_a_plot_for_each_figure() {
        let record = record(&[(10.0, 12.0), (11.0, 13.0)]);
        let page = comparison(&record, None);
        let text = text_of(&page);
        for wanted in [
            "nginx, sluicegate on",
            "12.5 (1.19×, 1.19-1.20)",
            "CPU µs a short request",
            "failed requests",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert_eq!(
            page.matches("role=\"img\"").count(),
            record.measured().len()
        );
        assert!(!text.contains("baseline"));
    }

    #[test]
    fn what_has_got_worse_is_said_first() {
        let then = record(&[(10.0, 12.0), (11.0, 13.0)]);
        let now = record(&[(10.0, 18.0), (11.0, 20.0)]);
        let changes = Changes::between(&then, &now, 0.1).unwrap();
        let page = comparison(&now, Some(&changes));
        assert!(text_of(&page).contains("1 figure is worse"));
        assert!(page.find("class=\"bad\"").unwrap() < page.find("<svg").unwrap());
    }
}
