//! What no compiler checks: who may import whom, how long a file may be, and that README, the docs and the
//! reference name only what exists, and all of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::too_many_lines, reason = "tables of cases are long")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

mod packaging;

/// Longer than this, a file holds more than one idea. Lists of cases may be longer.
const LINES: usize = 600;
const LINES_OF_TESTS: usize = 800;
const LINES_OF_README: usize = 250;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every file beneath `directory`, relative to the root, but for what is built, fetched or under `.git`.
fn files(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![root().join(directory)];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let is_ours = !matches!(
                name,
                "target" | ".git" | "corpus" | "artifacts" | "node_modules"
            );
            if path.is_dir() && is_ours {
                left.push(path);
            } else if path.is_file() {
                found.push(
                    path.strip_prefix(root())
                        .expect("beneath the root")
                        .to_owned(),
                );
            }
        }
    }
    found.sort();
    found
}

fn sources(directory: &str) -> Vec<PathBuf> {
    let mut sources = files(directory);
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(!sources.is_empty(), "{directory} has no source");
    sources
}

/// The code of a file without its comments.
fn code(path: &Path) -> String {
    let lines = read(path);
    let lines = lines
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn module_of(path: &Path) -> String {
    let first = path
        .iter()
        .nth(1)
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    first.trim_end_matches(".rs").to_owned()
}

/// What stands behind each occurrence of `before`, as far as it is a name.
fn names_after<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let rests = text.split(before).skip(1);
    rests
        .map(|rest| rest.split(|c| !is_name(c)).next().unwrap_or_default())
        .collect()
}

#[test]
fn pingora_is_known_at_the_edges_alone() {
    let edges = ["listener", "local", "proxy", "relay", "server", "tasks"];
    for path in sources("src") {
        let imports = code(&path).contains("pingora::") || code(&path).contains("pingora_");
        // The log's list of noisy libraries names it and imports nothing.
        let is_edge = edges.contains(&&*module_of(&path)) || path.ends_with("telemetry/logging.rs");
        assert!(!imports || is_edge, "{} imports Pingora", path.display());
    }
}

#[test]
fn the_lowest_modules_import_nothing_of_ours() {
    for module in ["config", "openai", "upstream"] {
        for path in sources(&format!("src/{module}")) {
            for other in names_after(&code(&path), "crate::") {
                let is_own = other == module;
                let is_known_exception = path.ends_with("openai/paths.rs") && other == "config";
                let is_in_tests = path.ends_with("tests.rs");
                assert!(
                    is_own || is_known_exception || is_in_tests,
                    "{} imports {other}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn no_file_is_too_long() {
    for path in sources("src").into_iter().chain(sources("loadtest/src")) {
        let most = if path.ends_with("tests.rs") {
            LINES_OF_TESTS
        } else {
            LINES
        };
        let lines = read(&path).lines().count();
        assert!(
            lines <= most,
            "{} has {lines} lines, more than {most}: split it by idea",
            path.display()
        );
    }
    let lines = read("README.md").lines().count();
    assert!(
        lines <= LINES_OF_README,
        "README.md has {lines} lines, more than {LINES_OF_README}"
    );
}

#[test]
fn no_file_names_a_place_on_the_machine_it_was_written_on() {
    let places = ["work", "tmp/w", "home/"].map(|place| format!("/{place}/").replace("//", "/"));
    for path in files(".") {
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            continue;
        };
        for place in &places {
            assert!(!text.contains(place), "{} names {place}", path.display());
        }
    }
}

/// The cells of every table row beneath a heading of README, without the two rows of the table's head.
fn rows(heading: &str) -> Vec<Vec<String>> {
    rows_of("README.md", heading)
}

fn rows_of(path: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(path);
    let section = text
        .split("\n## ")
        .find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("{path} has no section {heading}"));
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    };
    rows.map(cells).collect()
}

/// What stands `between backticks`.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_docs_have_every_metric_and_no_other() {
    let families = read("src/telemetry/metrics/families.rs");
    let known: BTreeSet<String> = names_after(&families, "family(\"")
        .into_iter()
        .map(|name| format!("sluicegate_{name}"))
        .collect();
    assert!(known.len() > 10, "{known:?}");
    let told: BTreeSet<String> = rows_of("docs/monitoring.md", "Metrics")
        .iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    assert_eq!(told, known);
    for path in [
        "README.md",
        "docs/guide.md",
        "docs/models-and-keys.md",
        "docs/operations.md",
        "docs/streams.md",
        "docs/tuning.md",
    ] {
        for name in names_after(&read(path), "sluicegate_") {
            // The package's file has a version there.
            let is_metric = name.starts_with(|c: char| c.is_ascii_lowercase());
            assert!(
                !is_metric || known.contains(&format!("sluicegate_{name}")),
                "{path} names sluicegate_{name}"
            );
        }
    }
}

#[test]
fn readme_tells_the_labels_of_every_metric() {
    let families = read("src/telemetry/metrics/families.rs");
    for row in rows_of("docs/monitoring.md", "Metrics") {
        let name = row[0].trim_matches('`').trim_start_matches("sluicegate_");
        let line = families
            .lines()
            .find(|line| line.contains(&format!("family(\"{name}\", ")));
        let labels = line
            .and_then(|line| line.split(['[', ']']).nth(1))
            .unwrap_or("?");
        assert_eq!(row[1], labels.replace('"', ""), "the labels of {name}");
    }
}

#[test]
fn readme_has_every_error_and_no_other() {
    let source = read("src/openai/error.rs");
    let body_of = |function: &str| {
        let body = source
            .split(function)
            .nth(1)
            .and_then(|rest| rest.split("\n    }\n").next());
        body.expect("the function").to_owned()
    };
    let known: BTreeSet<String> = names_after(&body_of("pub fn code("), "=> \"")
        .into_iter()
        .map(str::to_owned)
        .collect();
    assert!(known.len() > 8, "{known:?}");
    let told: BTreeSet<String> = rows("Errors")
        .iter()
        .map(|row| row[1].trim_matches('`').to_owned())
        .collect();
    assert_eq!(told, known);
}

fn reference() -> Value {
    serde_saphyr::from_str(&read("conf/reference.yaml")).expect("conf/reference.yaml is YAML")
}

/// Whether `key`, with dots, is a key of the file, of a pool, or of an endpoint or a listener.
fn is_key(reference: &Value, key: &str) -> bool {
    let pool = &reference["pools"]["default"];
    let roots = [
        reference,
        pool,
        &pool["endpoints"][0],
        &reference["listen"][0],
    ];
    roots.iter().any(|from| {
        let mut at = Some(*from);
        for name in key.split('.') {
            at = at.and_then(|value| value.get(name));
        }
        at.is_some()
    })
}

#[test]
fn every_key_that_is_named_exists() {
    let reference = reference();
    let is_key_name =
        |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    // The second column of the table for nginx' operators is keys, policies, paths and header fields.
    for row in rows("Coming from nginx") {
        for key in quoted(&row[1])
            .into_iter()
            .filter(|key| key.split('.').all(is_key_name))
        {
            let is_policy = matches!(key, "least_inflight" | "round_robin");
            assert!(
                is_policy || key == "tls" || is_key(&reference, key),
                "README.md names the key {key}"
            );
        }
    }
    for path in [
        "README.md",
        "docs/guide.md",
        "docs/models-and-keys.md",
        "docs/operations.md",
        "docs/from-nginx.md",
        "docs/from-litellm.md",
        "docs/streams.md",
        "docs/tuning.md",
        "docs/high-availability.md",
        "docs/guide-errata.md",
    ] {
        let text = read(path);
        let prose: Vec<&str> = text.split("```").step_by(2).collect();
        for key in quoted(&prose.join(" ")) {
            if key.contains('.') && key.split('.').all(is_key_name) {
                assert!(is_key(&reference, key), "{path} names the key {key}");
            }
        }
    }
}

#[test]
fn every_configuration_that_is_shown_is_valid() {
    for path in [
        "README.md",
        "docs/from-nginx.md",
        "docs/from-litellm.md",
        "docs/guide.md",
        "docs/models-and-keys.md",
        "docs/operations.md",
    ] {
        for block in read(path).split("```yaml\n").skip(1) {
            let yaml = block.split("```").next().unwrap_or_default();
            let key = |_: &str| Some("sk-1234".to_owned());
            if let Err(mistakes) = sluicegate::config::parse_str(yaml, path, root(), &key) {
                panic!("{mistakes}\n{yaml}");
            }
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    for path in files(".")
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let text = read(&path);
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let there = root().join(&path).parent().expect("a directory").join(file);
            assert!(there.exists(), "{} links to {target}", path.display());
        }
    }
}

#[test]
fn every_path_that_is_named_exists() {
    let roots = ["conf/", "docs/", "loadtest/", "src/", "systemd/", "tests/"];
    let pages = files(".").into_iter().filter(|path| {
        // The transcripts' page speaks of another project's files too.
        path.extension().is_some_and(|e| e == "md") && !path.starts_with("loadtest/tests")
    });
    for page in pages {
        let text = read(&page);
        let prose: Vec<&str> = text.split("```").step_by(2).collect();
        for name in quoted(&prose.join(" ")) {
            let is_path = roots.iter().any(|root| name.starts_with(root))
                && !name.contains(|c: char| c.is_whitespace() || "*{<…".contains(c));
            let beside = root().join(&page).with_file_name(name);
            assert!(
                !is_path || root().join(name).exists() || beside.exists(),
                "{} names {name}",
                page.display()
            );
        }
    }
}

#[test]
fn the_exporter_on_the_nodes_is_told_every_metric_that_monitoring_asks_for() {
    let config: Value = serde_json::from_str(&read("conf/pool/config.json")).unwrap();
    let prefix = config["CommonConfig"]["MetricsFieldPrefix"]
        .as_str()
        .unwrap();
    let fields = config["GPUConfig"]["Fields"].as_array().unwrap();
    let told: BTreeSet<String> = fields
        .iter()
        .map(|field| field.as_str().unwrap().to_lowercase())
        .collect();
    let mut asked = 0;
    for path in files("conf/monitoring") {
        for name in names_after(&read(&path), prefix) {
            // The job is called amd_gpu_metrics; what ends in `_` is the start of a pattern.
            if name.is_empty() || name == "gpu_metrics" || name.ends_with('_') {
                continue;
            }
            asked += 1;
            assert!(
                told.contains(name),
                "{} asks for {prefix}{name}, which conf/pool/config.json does not have",
                path.display()
            );
        }
    }
    assert!(asked > 10, "{asked}");
}

#[test]
fn readme_shows_the_two_commands() {
    let readme = read("README.md");
    let blocks: Vec<&str> = readme
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert_eq!(
        blocks[..2],
        ["sh .ci/setup && cargo run -- demo\n", "sh .ci/test\n"]
    );
}
