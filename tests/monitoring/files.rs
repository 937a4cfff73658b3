//! What can be said of the files without running anything: names, shapes, and that what is named exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::dashboards::{Board, boards, monitoring};
use crate::programs::find;

fn rules(file: &str) -> Vec<Value> {
    let path = monitoring().join("prometheus").join(file);
    let text = fs::read_to_string(path).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = rules["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone());
    rules.collect()
}

/// The names of the alerts.
pub fn alerts() -> Vec<String> {
    let name = |rule: &Value| rule["alert"].as_str().unwrap().to_owned();
    rules("alerts.yml").iter().map(name).collect()
}

/// The names of what rules record.
pub fn recorded() -> Vec<String> {
    let name = |rule: &Value| rule["record"].as_str().unwrap().to_owned();
    rules("rules.yml").iter().map(name).collect()
}

/// What the rule records.
pub fn expression(name: &str) -> String {
    let rules = rules("rules.yml");
    let rule = rules.iter().find(|rule| rule["record"] == name).unwrap();
    rule["expr"].as_str().unwrap().to_owned()
}

/// Every file beneath a directory.
fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => vec![fs::read_to_string(&path).unwrap()],
        })
        .collect()
}

/// What begins with `prefix`, as far as it is the name of a metric.
fn names(text: &str, prefix: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = text.match_indices(prefix).filter(|(at, _)| {
        // Not the end of a longer name, as in pool:sluicegate_requests:rate5m.
        !text[..*at].ends_with(|c: char| is_name(c) || c == ':')
    });
    starts
        .map(|(at, _)| text[at..].split(|c| !is_name(c)).next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_metric_of_the_gateway_has_its_place_and_none_is_named_that_it_does_not_have() {
    let families = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/telemetry/metrics/families.rs"
    );
    let families = fs::read_to_string(families).unwrap();
    let families: BTreeSet<_> = families
        .split("family(\"")
        .skip(1)
        .map(|rest| format!("sluicegate_{}", rest.split('"').next().unwrap()))
        .collect();
    // A histogram is named by its parts alone.
    let family = |name: &str| {
        let mut parts = ["_bucket", "_count", "_sum"].iter();
        let whole = parts.find_map(|part| name.strip_suffix(part));
        whole.unwrap_or(name).to_owned()
    };
    let named: BTreeSet<_> = files(&monitoring())
        .iter()
        .flat_map(|text| names(text, "sluicegate_"))
        .map(|name| family(&name))
        .collect();
    assert!(families.len() > 15, "{families:?}");
    assert_eq!(
        named, families,
        "what dashboards and rules name, and what the gateway has"
    );
}

#[test]
fn every_recorded_name_that_is_used_is_recorded() {
    let recorded: BTreeSet<_> = recorded().into_iter().collect();
    for text in files(&monitoring()) {
        for level in ["pool:", "job:", "key:", "model_kind:", "key_kind:"] {
            for (at, _) in text.match_indices(level) {
                let is_end = |c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':');
                let name = text[at..].split(is_end).next().unwrap();
                // `pool: …` in prose and YAML is none.
                if name.matches(':').count() == 2 {
                    assert!(recorded.contains(name), "{name} is not recorded");
                }
            }
        }
    }
}

#[test]
fn dashboards_are_whole() {
    let boards = boards();
    let names: Vec<_> = boards.iter().map(|board| &*board.file).collect();
    let expected = [
        "Instinct_Dashboard.json",
        "NVIDIA_Dashboard.json",
        "SGLang_Dashboard.json",
        "gateway.json",
        "k6.json",
        "node.json",
        "vLLM_Dashboard.json",
    ];
    assert_eq!(names, expected);
    let uids: BTreeSet<_> = boards
        .iter()
        .map(|board| board.json["uid"].as_str())
        .collect();
    assert_eq!(uids.len(), boards.len());
    for board in &boards {
        is_whole(board);
    }
}

fn is_whole(board: &Board) {
    let file = &board.file;
    assert_eq!(board.json["schemaVersion"], 41, "{file}");
    assert!(board.json["id"].is_null(), "{file}: Grafana gives the id");
    let panels = board.json["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len(), "{file}: two panels have one id");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(
            at("x") + at("w") <= 24,
            "{file}: {} is too wide",
            panel["title"]
        );
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(
                    taken.insert((x, y)),
                    "{file}: {} lies on another",
                    panel["title"]
                );
            }
        }
    }
    for panel in board.panels() {
        let title = &panel["title"];
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(
            panel["description"]
                .as_str()
                .is_some_and(|d| d.ends_with('.')),
            "{file}: {title}"
        );
        assert!(defaults["unit"].is_string(), "{file}: {title} has no unit");
        assert_eq!(
            panel["datasource"]["uid"], "${datasource}",
            "{file}: {title}"
        );
        assert_eq!(
            panel["datasource"]["type"],
            board.source(),
            "{file}: {title}"
        );
        let targets = panel["targets"].as_array().unwrap();
        let references: BTreeSet<_> = targets.iter().map(|t| t["refId"].as_str()).collect();
        assert_eq!(references.len(), targets.len(), "{file}: {title}");
    }
    for query in board.queries() {
        assert!(
            !query.text.contains("://") && !query.text.contains("127."),
            "{query}"
        );
        // A fixed window is wrong for every other zoom and every other scrape interval.
        let is_fixed = query
            .text
            .split('[')
            .skip(1)
            .any(|rest| !rest.starts_with("$__rate_interval]"));
        assert!(!is_fixed, "{query} has a window of its own");
    }
}

/// A counter that is drawn as it is only ever rises, and falls when its process starts anew: nobody sees when it counted.
#[test]
fn no_panel_draws_a_counter_as_it_is() {
    let boards = boards();
    let mut counters = 0;
    for board in boards.iter().filter(|board| board.source() == "prometheus") {
        // A stat is one number now, and draws no line.
        let drawn: BTreeSet<_> = board
            .panels()
            .filter(|panel| panel["type"] != "stat")
            .map(|panel| panel["title"].as_str().unwrap())
            .collect();
        for query in board.queries() {
            let (found, raw) = counted(query.text);
            counters += found;
            assert!(
                raw.is_empty() || !drawn.contains(query.panel),
                "{query}: {raw:?} without rate() or increase()"
            );
        }
    }
    assert!(counters > 80, "{counters}");
}

#[test]
fn a_counter_is_told_from_its_rate() {
    let raw = |text| counted(text).1;
    assert_eq!(raw("sum(a_total{b=\"c\"})"), ["a_total"]);
    assert_eq!(raw("a_bucket"), ["a_bucket"]);
    assert_eq!(raw("rate(a_total{b=\"c\"}[5m]) + a_total"), ["a_total"]);
    assert_eq!(raw("a_total - a_total offset 15m or b_total"), ["b_total"]);
    assert!(raw("rate(a_total[5m]) / a_total_bytes + count by (b) (a_total{c=\"d\"})").is_empty());
}

/// How many times counters are named in PromQL, and those whose value is taken as it is: over no range, not to be held
/// against itself at another time, and not merely for how many series there are.
fn counted(text: &str) -> (usize, Vec<&str>) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let mut names = Vec::new();
    let mut at = 0;
    while let Some(start) = text[at..].find(is_name) {
        let start = at + start;
        let length = text[start..].find(|c| !is_name(c));
        let end = length.map_or(text.len(), |length| start + length);
        // What stands between braces or quotes is a label.
        let is_label = text[..start].matches('{').count() > text[..start].matches('}').count();
        let name = &text[start..end];
        let is_counter = ["_total", "_bucket", "_count", "_sum", "_REMAPPED_ROWS"]
            .iter()
            .any(|end| name.ends_with(end));
        if is_counter && !is_label {
            names.push((start, end, name));
        }
        at = end;
    }
    let after = |end: usize| {
        let rest = &text[end..];
        let selector = rest.starts_with('{').then(|| rest.find('}')).flatten();
        &rest[selector.map_or(0, |at| at + 1)..]
    };
    let is_differenced = |name: &str| {
        let mut uses = names.iter().filter(|(.., other)| *other == name);
        uses.any(|(_, end, _)| after(*end).starts_with(" offset "))
    };
    let is_counted = |start: usize| {
        let before = text[..start].trim_end_matches('(').trim_end();
        let by = before.strip_suffix(')').and_then(|b| b.rsplit_once("by ("));
        let before = by
            .filter(|(_, labels)| !labels.contains(['(', ')']))
            .map_or(before, |(before, _)| before);
        before.trim_end().ends_with("count")
    };
    let raw = names
        .iter()
        .filter(|(start, end, name)| {
            !after(*end).starts_with('[') && !is_differenced(name) && !is_counted(*start)
        })
        .map(|(.., name)| *name)
        .collect();
    (names.len(), raw)
}

#[test]
fn every_alert_says_what_to_do() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/monitoring.md");
    let page = fs::read_to_string(page).unwrap();
    let headings: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect();
    let alerts = rules("alerts.yml");
    for rule in &alerts {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            headings.contains(name),
            "docs/monitoring.md has nothing on {name}"
        );
        let runbook = format!("docs/monitoring.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook"], runbook.as_str(), "{name}");
        assert!(
            rule["annotations"]["summary"].is_string(),
            "{name} has no summary"
        );
        let severity = rule["labels"]["severity"].as_str();
        assert!(
            matches!(severity, Some("critical" | "warning" | "info")),
            "{name}: {severity:?}"
        );
    }
    let told = headings
        .iter()
        .filter(|heading| !heading.contains(' '))
        .count();
    assert_eq!(
        told,
        alerts.len(),
        "docs/monitoring.md tells of alerts that are none: {headings:?}"
    );
}

#[test]
fn images_and_what_they_need_are_pinned() {
    let compose = fs::read_to_string(monitoring().join("docker-compose.yml")).unwrap();
    let images: Vec<_> = compose
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image: "))
        .collect();
    assert_eq!(images.len(), 4);
    for image in images {
        let version = image.rsplit(':').next().unwrap().trim_start_matches('v');
        assert_eq!(
            version.split('.').count(),
            3,
            "{image} is not pinned to a release"
        );
    }
    // Whatever has to be set is in the example, and nothing else is unset there.
    let example = fs::read_to_string(monitoring().join(".env.example")).unwrap();
    let variable = |rest: &str| rest.split([':', '}']).next().unwrap().to_owned();
    for rest in compose.split("${").skip(1) {
        let name = variable(rest);
        let is_needed = rest[name.len()..].starts_with(":?");
        let line = example.lines().find(|line| {
            line.trim_start_matches('#')
                .starts_with(&format!("{name}="))
        });
        let line = line.unwrap_or_else(|| panic!(".env.example has no {name}"));
        assert_eq!(line == format!("{name}="), is_needed, "{line}");
        if !is_needed {
            let default = rest[name.len()..]
                .strip_prefix(":-")
                .unwrap()
                .split('}')
                .next()
                .unwrap();
            assert_eq!(line, format!("#{name}={default}"));
        }
    }
}

#[test]
fn the_rules_do_what_their_tests_say() {
    let Some(promtool) = find("promtool") else {
        return;
    };
    let directory = monitoring().join("prometheus");
    let run = |arguments: &[&str], directory: &Path| {
        let output = Command::new(&promtool)
            .args(arguments)
            .current_dir(directory)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
    };
    run(&["check", "config", "prometheus.yml"], &directory);
    let tests = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/monitoring"));
    run(
        &["test", "rules", "alerts.test.yml", "rules.test.yml"],
        tests,
    );
    let tested: String = ["alerts.test.yml", "rules.test.yml"]
        .map(|file| fs::read_to_string(tests.join(file)).unwrap())
        .concat();
    for name in alerts().into_iter().chain(recorded()) {
        assert!(tested.contains(&name), "no test of {name}");
    }
}
