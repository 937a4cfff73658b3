//! Configurations of other gateways, carried over: `sluicegate import`.
//!
//! What is carried is printed as a `sluicegate.yaml` that behaves the same; what is not, or is
//! different, is listed with file and line. docs/from-nginx.md and
//! docs/from-litellm.md have the rules.

pub mod litellm;
pub mod nginx;
mod yaml;

pub(crate) use yaml::quoted;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// What a file comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The configuration.
    pub yaml: String,
    /// What was not carried over, or differs: a line for each, with file and line.
    pub notes: Vec<String>,
}

/// Why nothing was made of a file: at least one line, each with file and line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub lines: Vec<String>,
}

impl Broken {
    pub(crate) fn one(line: String) -> Self {
        Self { lines: vec![line] }
    }
}

/// The arguments of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The nginx.conf, or LiteLLM's config.yaml; what it includes is read as well
    file: PathBuf,
    /// The upstream of an nginx.conf to import, by its name [default: where the first server sends requests]
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Fail, and print no configuration, unless everything was carried over as it is
    #[arg(long)]
    strict: bool,
}

impl Import {
    /// Prints the configuration to standard output, and to standard error what was not carried over
    /// (exit status 0) or what is wrong with the file (1). With `strict` the first is wrong, too.
    pub fn run(&self) -> ExitCode {
        let file = self.file.display();
        let is_yaml = self
            .file
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml");
        let imported = match (is_yaml, &self.upstream) {
            (false, upstream) => nginx::import(&self.file, upstream.as_deref()),
            (true, None) => litellm::import(&self.file),
            (true, Some(_)) => Err(Broken::one(format!(
                "{file}: has no upstreams: every model of LiteLLM's is imported; leave out --upstream"
            ))),
        };
        let imported = match imported {
            Ok(imported) => imported,
            Err(Broken { lines }) => {
                say(&lines);
                return ExitCode::FAILURE;
            }
        };
        say(&imported.notes);
        if self.strict && !imported.notes.is_empty() {
            let count = imported.notes.len();
            say(&[format!(
                "{file}: {count} things were not carried over as they are; no configuration is printed (--strict)"
            )]);
            return ExitCode::FAILURE;
        }
        // Who closed the pipe does not want it.
        match std::io::stdout().write_all(imported.yaml.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    }
}

fn say(lines: &[String]) {
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    // There is nobody to tell that it cannot be told.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
