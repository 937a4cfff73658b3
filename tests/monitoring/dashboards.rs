//! The dashboards as files: their panels and what each asks for.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

pub fn monitoring() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/monitoring"))
}

pub struct Board {
    /// Its file's name.
    pub file: String,
    pub json: Value,
}

/// One expression of one panel.
pub struct Query<'a> {
    pub board: &'a str,
    pub panel: &'a str,
    pub reference: &'a str,
    /// As it stands in the file, PromQL or InfluxQL.
    pub text: &'a str,
}

/// All that are shipped, by name.
pub fn boards() -> Vec<Board> {
    let directory = monitoring().join("grafana/dashboards");
    let mut boards: Vec<Board> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let file = path.file_name().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
            Board { file, json }
        })
        .collect();
    boards.sort_by(|a, b| a.file.cmp(&b.file));
    boards
}

impl Board {
    /// `prometheus` or `influxdb`.
    pub fn source(&self) -> &str {
        let variables = self.json["templating"]["list"].as_array().unwrap();
        let source = variables.iter().find(|v| v["name"] == "datasource");
        source.unwrap()["query"].as_str().unwrap()
    }

    /// Those that show something.
    pub fn panels(&self) -> impl Iterator<Item = &Value> {
        let all = self.json["panels"].as_array().unwrap().iter();
        all.filter(|panel| panel["type"] != "row")
    }

    pub fn queries(&self) -> Vec<Query<'_>> {
        let mut queries = Vec::new();
        for panel in self.panels() {
            let title = panel["title"].as_str().unwrap();
            for target in panel["targets"].as_array().unwrap() {
                let text = target["expr"].as_str().or(target["query"].as_str());
                queries.push(Query {
                    board: &self.file,
                    panel: title,
                    reference: target["refId"].as_str().unwrap(),
                    text: text
                        .unwrap_or_else(|| panic!("{}: {title}: a target asks nothing", self.file)),
                });
            }
        }
        queries
    }

    /// What the variables that are asked of the data source ask for.
    pub fn variable_queries(&self) -> Vec<&str> {
        let variables = self.json["templating"]["list"].as_array().unwrap().iter();
        variables
            .filter(|variable| variable["type"] == "query")
            .map(|variable| variable["definition"].as_str().unwrap())
            .collect()
    }
}

impl std::fmt::Display for Query<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} {}: {}",
            self.board, self.panel, self.reference, self.text
        )
    }
}

/// PromQL with every variable at All and the rate window at `window`.
pub fn with_variables(text: &str, window: &str) -> String {
    let mut text = text.replace("$__rate_interval", window);
    for name in [
        "instance",
        "pool",
        "vllm_instance",
        "sglang_instance",
        "model",
        "key",
        "hostname",
        "gpu",
    ] {
        text = text.replace(&format!("\"${name}\""), "\".*\"");
    }
    assert!(!text.contains('$'), "{text} has a variable that nobody set");
    text
}
