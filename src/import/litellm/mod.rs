//! LiteLLM's configuration as ours.
//!
//! In the order of the work: `source` reads the files into places of a `tree`; `settings` is what holds
//! for all, `deployments` (with `provider`) what can be an endpoint, `pool` (with `weights`) and `pools` make
//! pools and models of them; `rest` says by `table` what became of every other key. What LiteLLM does was read
//! in LiteLLM 1.106.2 and tried with it.

mod deployments;
mod notes;
mod pool;
mod pools;
mod provider;
mod rest;
mod settings;
mod source;
mod table;
mod tree;
mod weights;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::config::{self, Config, show_size};

use super::yaml::Yaml;
use super::{Broken, Imported};
use notes::Notes;
use pools::Served;
use settings::Settings;
use source::{Section, Source};

/// Where the guide's LiteLLM listens.
const LISTEN: &str = "0.0.0.0:4000";

/// Reads the config.yaml of a LiteLLM proxy at `path`, and what it includes.
///
/// # Errors
/// What is no YAML, what LiteLLM would not start with, or what no configuration can be made of; each
/// with file and line.
pub fn import(path: &Path) -> Result<Imported, Broken> {
    let source = Source::read(path)?;
    let sections = source.sections();
    let mut notes = Notes::default();
    let Some(list) = sections.iter().find(|s| s.name == "model_list") else {
        return Err(Broken::one(no_list(path, &sections)));
    };
    let defaults = defaults();
    let keys = Maker {
        source: &source,
        sections: &sections,
        list,
        defaults: &defaults,
    }
    .make(&mut notes);
    rest::rest(&sections, &mut notes);
    if let Some(lines) = notes.broken() {
        return Err(Broken { lines });
    }
    let Some(keys) = keys else {
        let mut lines = notes.lines();
        lines.push(format!(
            "{}: no deployment of model_list can be an endpoint",
            path.display()
        ));
        return Err(Broken { lines });
    };
    let yaml = Yaml::document(&keys);
    accepted(path, &yaml)?;
    Ok(Imported {
        yaml,
        notes: notes.lines(),
    })
}

fn no_list(path: &Path, sections: &[Section<'_>]) -> String {
    let file = path.display();
    let has = |name: &str| sections.iter().any(|section| section.name == name);
    if has("endpoints") || has("pools") {
        return format!("{file}: is a sluicegate.yaml already; `sluicegate -t -c {file}` tests it");
    }
    format!("{file}: has no model_list, by which a configuration of LiteLLM is known")
}

/// A configuration in which nothing but an endpoint is written.
fn defaults() -> Config {
    config::parse_str("endpoints: [\"a:1\"]\n", "", Path::new("/"), &|_| None)
        .expect("an endpoint is a configuration")
}

/// What is made must be what the gateway takes, whatever the environment holds.
fn accepted(path: &Path, yaml: &str) -> Result<(), Broken> {
    let name = format!("{}: as sluicegate.yaml", path.display());
    // An address, and a secret that is nobody else's.
    let variable = |name: &str| {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        Some(format!("http://v{:x}:8000", hasher.finish()))
    };
    let read = config::parse_str(yaml, &name, Path::new("/"), &variable);
    read.map(|_| ()).map_err(|mistakes| Broken {
        lines: mistakes.iter().map(ToString::to_string).collect(),
    })
}

struct Maker<'a> {
    source: &'a Source,
    sections: &'a [Section<'a>],
    list: &'a Section<'a>,
    defaults: &'a Config,
}

impl Maker<'_> {
    /// The keys of the file, in the order a person would write them; `None` without any endpoint.
    fn make(&self, notes: &mut Notes) -> Option<Vec<(&'static str, Yaml)>> {
        let top = self.source.main().root();
        let list = self.list.parts.last().unwrap_or(&top);
        let settings = Settings::of(self.sections, self.defaults, notes);
        let groups = deployments::groups(self.list, &settings, notes);
        let served = Served::of(&groups, &settings, list, notes);
        let master = settings.master_key(notes);
        let limits = self.limits(settings.body(notes));
        if served.is_empty() {
            return None;
        }
        let mut keys = vec![("listen", Yaml::text(LISTEN))];
        let mut section = |key, inner: Vec<(&'static str, Yaml)>| {
            if !inner.is_empty() {
                keys.push((key, Yaml::Map(inner)));
            }
        };
        if settings.json_logs() {
            section("log", vec![("format", Yaml::plain("json"))]);
        }
        section("limits", limits);
        section("timeouts", served.timeouts(self.defaults));
        keys.push(served.pools(self.defaults));
        keys.push(("models", served.models()));
        let key = vec![("name", Yaml::text("master")), ("key", master.yaml())];
        keys.push(("keys", Yaml::List(vec![Yaml::Map(key)])));
        Some(keys)
    }

    fn limits(&self, body: Option<u64>) -> Vec<(&'static str, Yaml)> {
        let default = &self.defaults.limits;
        let Some(body) = body.filter(|body| *body != default.body as u64) else {
            return Vec::new();
        };
        let mut keys = vec![("body", Yaml::plain(&show_size(body)))];
        // Of all bodies, one client has half.
        if body > default.body_memory as u64 / 2 {
            keys.push(("body_memory", Yaml::plain(&show_size(body * 2))));
        }
        keys
    }
}

#[cfg(test)]
mod tests;
