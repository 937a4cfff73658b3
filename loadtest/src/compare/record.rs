//! A comparison in a file: what was measured, of what, where and how.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gateway::{Gateway, Kind};
use super::table::{Cell, Figure, table};
use super::{Settings, process};

/// Of the file. It rises when an older file cannot be read as this one, or its figures mean something else.
pub const SCHEMA: u64 = 1;

/// A comparison as it is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub schema: u64,
    /// The version that wrote it.
    pub loadtest: String,
    pub machine: Machine,
    pub setup: Setup,
    /// By name.
    pub plans: BTreeSet<String>,
    /// The gateway that ratios are to.
    pub base: String,
    /// Those that were measured, without `direct`.
    pub gateways: Vec<Measured>,
    pub notes: Vec<String>,
    pub figures: Vec<Cell>,
}

/// Where it was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            processor,
            cores,
            kernel,
        } = self;
        write!(f, "{processor} × {cores}, Linux {kernel}")
    }
}

/// A gateway that was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    pub name: String,
    pub version: String,
}

/// What of [`Settings`] a figure depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    pub logs: bool,
    pub engines: usize,
    pub warm_up_seconds: f64,
    pub duration_seconds: f64,
    pub clients: usize,
    pub streams: usize,
    pub gap_streams: usize,
    pub memory_streams: usize,
    pub mixed_requests: u64,
    pub prompt_bytes: usize,
    /// `None`: half of what the base can do.
    pub rate: Option<f64>,
}

impl Record {
    /// What is known before anything is measured.
    /// nginx is what ratios are to; without it, the first gateway.
    pub fn begun(settings: &Settings) -> Self {
        let nginx = (settings.gateways.iter()).find(|gateway| gateway.kind == Kind::Nginx);
        let base = nginx.or(settings.gateways.first());
        let measured = |gateway: &Gateway| Measured {
            name: gateway.name.clone(),
            version: gateway.version(),
        };
        Self {
            schema: SCHEMA,
            loadtest: env!("CARGO_PKG_VERSION").to_owned(),
            machine: process::machine(),
            setup: Setup {
                logs: settings.logs,
                engines: settings.engines,
                warm_up_seconds: settings.warm_up.as_secs_f64(),
                duration_seconds: settings.duration.as_secs_f64(),
                clients: settings.clients,
                streams: settings.streams,
                gap_streams: settings.gap_streams,
                memory_streams: settings.memory_streams,
                mixed_requests: settings.mixed_requests,
                prompt_bytes: settings.prompt_bytes,
                rate: settings.rate,
            },
            plans: (settings.plans.iter())
                .map(|plan| plan.name().to_owned())
                .collect(),
            base: base.map_or_else(String::new, |gateway| gateway.name.clone()),
            gateways: settings.gateways.iter().map(measured).collect(),
            notes: Vec::new(),
            figures: Vec::new(),
        }
    }

    /// Reads what [`Record::write`] wrote.
    ///
    /// # Errors
    /// What is wrong with the file and what to do, with its name.
    pub fn read(path: &Path) -> Result<Self, String> {
        const ANEW: &str = "write it anew with `loadtest compare --save`";
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| {
            format!(
                "{shown} cannot be read: {error}; name a file that `loadtest compare --save` wrote"
            )
        })?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| format!("{shown} is not JSON: {error}; {ANEW}"))?;
        match value.get("schema").map(Value::as_u64) {
            Some(Some(SCHEMA)) => {}
            Some(Some(other)) => {
                let age = if other < SCHEMA {
                    "an older"
                } else {
                    "a newer"
                };
                return Err(format!(
                    "{shown} was written by {age} loadtest: it has schema {other}, and this one reads {SCHEMA}; {ANEW}"
                ));
            }
            _ => {
                return Err(format!(
                    "{shown} is no comparison: it has no \"schema\"; {ANEW}"
                ));
            }
        }
        // From the text, so that the place is known.
        let record: Self = serde_json::from_str(&text)
            .map_err(|error| format!("{shown} is damaged: {error}; {ANEW}"))?;
        match record.figures.iter().find(|cell| !cell.is_whole()) {
            None => Ok(record),
            Some(cell) => Err(format!(
                "{shown} is damaged: {} of {} has no rounds; {ANEW}",
                cell.figure.label(),
                cell.gateway
            )),
        }
    }

    /// # Errors
    /// That it cannot be written, with its name.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        fs::write(path, text)
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))
    }

    /// Why figures of `self` say nothing about those of `then`, if they do not. Nothing needs to have been
    /// measured yet.
    ///
    /// # Errors
    /// Every difference, and what to do.
    pub fn comparable(&self, then: &Self) -> Result<(), String> {
        let mut differences = Vec::new();
        let mut differs = |what: &str, then: String, now: String| {
            if then != now {
                differences.push(format!("{what}: {then} then, {now} now"));
            }
        };
        let machine =
            |record: &Self| format!("{} × {}", record.machine.processor, record.machine.cores);
        differs("machine", machine(then), machine(self));
        differs("ratios to", then.base.clone(), self.base.clone());
        let [was, is] =
            [&then.setup, &self.setup].map(|setup| serde_json::to_value(setup).unwrap_or_default());
        for (name, is) in is.as_object().into_iter().flatten() {
            differs(name, was[name].to_string(), is.to_string());
        }
        let missing = |what: &str, names: Vec<&str>| {
            (!names.is_empty()).then(|| format!("{what} not measured then: {}", names.join(", ")))
        };
        let plans = self.plans.difference(&then.plans).map(String::as_str);
        differences.extend(missing("plans", plans.collect()));
        let known = |name: &&str| then.gateways.iter().any(|gateway| gateway.name == **name);
        let gateways = self.gateways.iter().map(|gateway| gateway.name.as_str());
        differences.extend(missing(
            "gateways",
            gateways.filter(|name| !known(name)).collect(),
        ));
        if differences.is_empty() {
            return Ok(());
        }
        Err(format!(
            "the figures cannot be held against each other: {}; measure the same on the same machine, or save a \
             new baseline",
            differences.join("; ")
        ))
    }

    /// The table and what must be known to read it, in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = table(&self.figures, &self.columns());
        _ = write!(
            text,
            "\nMedians; in brackets the ratio to {} in the same round and its quartiles.\n\n",
            self.base
        );
        for note in &self.notes {
            _ = writeln!(text, "- {note}");
        }
        text
    }

    /// The figures that there are, in order.
    pub fn measured(&self) -> Vec<Figure> {
        let all: BTreeSet<Figure> = self.figures.iter().map(|cell| cell.figure).collect();
        all.into_iter().collect()
    }

    /// One figure of every gateway that has it.
    pub fn of(&self, figure: Figure) -> Vec<&Cell> {
        let columns = self.columns();
        let mut cells: Vec<&Cell> = (self.figures.iter())
            .filter(|cell| cell.figure == figure)
            .collect();
        cells.sort_by_key(|cell| columns.iter().position(|name| *name == cell.gateway));
        cells
    }

    /// The gateways in their order, and `direct` where it was measured.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns: Vec<&str> = (self.gateways.iter())
            .map(|gateway| gateway.name.as_str())
            .collect();
        for cell in &self.figures {
            if !columns.contains(&cell.gateway.as_str()) {
                columns.push(&cell.gateway);
            }
        }
        columns
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;

    use super::super::table::Results;
    use super::*;

    /// Rounds of nginx and sluicegate: CPU of a short request, and no failures.
    pub(crate) fn record(rounds: &[(f64, f64)]) -> Record {
        let mut results = Results::default();
        for (round, (nginx, ours)) in rounds.iter().enumerate() {
            for (gateway, value) in [("nginx", nginx), ("sluicegate", ours)] {
                results.add(Figure::CpuShort, gateway, round, *value);
                results.add(Figure::Failed, gateway, round, 0.0);
            }
        }
        let measured = |name: &str| Measured {
            name: name.to_owned(),
            version: "1".to_owned(),
        };
        Record {
            schema: SCHEMA,
            loadtest: "0".to_owned(),
            machine: Machine {
                processor: "Processor".to_owned(),
                cores: 2,
                kernel: "6.1".to_owned(),
            },
            setup: Setup {
                logs: false,
                engines: 2,
                warm_up_seconds: 2.0,
                duration_seconds: 5.0,
                clients: 64,
                streams: 500,
                gap_streams: 200,
                memory_streams: 4000,
                mixed_requests: 50_000,
                prompt_bytes: 220_000,
                rate: None,
            },
            plans: BTreeSet::from(["short".to_owned()]),
            base: "nginx".to_owned(),
            gateways: vec![measured("nginx"), measured("sluicegate")],
            notes: vec!["round 1: machine load 0.1".to_owned()],
            figures: results.cells("nginx"),
        }
    }

    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("loadtest-{}-{name}", std::process::id());
            let file = Self(std::env::temp_dir().join(name));
            fs::write(&file.0, text).unwrap();
            file
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let file = File::new("whole.json", "");
        let record = record(&[(10.0, 12.0), (0.1 + 0.2, 1.0 / 3.0)]);
        record.write(&file.0).unwrap();
        assert_eq!(Record::read(&file.0), Ok(record));
    }

    #[test]
    fn a_file_that_is_something_else_is_refused_by_name_with_a_remedy() {
        let whole = serde_json::to_value(record(&[(10.0, 12.0)])).unwrap();
        let with = |key: &str, value: Value| {
            let mut changed = whole.clone();
            changed[key] = value;
            changed.to_string()
        };
        for (name, text, said) in [
            (
                "garbage",
                "{ nonsense".to_owned(),
                "is not JSON: key must be a string at line 1",
            ),
            ("empty", String::new(), "is not JSON: EOF"),
            (
                "other",
                r#"{"base":"nginx"}"#.to_owned(),
                "is no comparison: it has no \"schema\"",
            ),
            ("list", "[1]".to_owned(), "is no comparison"),
            (
                "older",
                with("schema", 0.into()),
                "by an older loadtest: it has schema 0, and this one reads 1",
            ),
            ("newer", with("schema", 2.into()), "by a newer loadtest"),
            (
                "figure",
                with("figures", serde_json::json!([{ "figure": "speed" }])),
                "is damaged: unknown variant `speed`",
            ),
            ("setup", with("setup", 1.into()), "is damaged: invalid type"),
            (
                "rounds",
                {
                    let mut changed = whole.clone();
                    changed["figures"][0]["rounds"] = serde_json::json!([]);
                    changed.to_string()
                },
                "is damaged: CPU µs a short request of nginx has no rounds",
            ),
        ] {
            let file = File::new(name, &text);
            let error = Record::read(&file.0).unwrap_err();
            assert!(error.contains(said), "{name}: {error}");
            assert!(error.starts_with(&file.0.display().to_string()), "{error}");
            assert!(error.ends_with("with `loadtest compare --save`"), "{error}");
        }
        let error = Record::read(Path::new("/nowhere/base.json")).unwrap_err();
        assert!(
            error.starts_with("/nowhere/base.json cannot be read: No such file"),
            "{error}"
        );
    }

    #[test]
    fn figures_of_other_plans_and_machines_are_not_compared() {
        let then = record(&[(10.0, 12.0)]);
        assert_eq!(then.comparable(&then), Ok(()));
        let mut now = then.clone();
        now.machine.kernel = "6.2".to_owned();
        assert_eq!(
            now.comparable(&then),
            Ok(()),
            "a kernel is replaced every week"
        );
        now.machine.cores = 64;
        now.setup.clients = 10;
        now.setup.rate = Some(100.0);
        now.plans.insert("token".to_owned());
        now.gateways[1].name = "haproxy".to_owned();
        assert_eq!(
            now.comparable(&then).unwrap_err(),
            "the figures cannot be held against each other: machine: Processor × 2 then, Processor × 64 now; \
             clients: 64 then, 10 now; rate: null then, 100.0 now; plans not measured then: token; gateways not \
             measured then: haproxy; measure the same on the same machine, or save a new baseline"
        );
        // Less than then is fine.
        let mut now = then.clone();
        now.gateways.truncate(1);
        now.plans.clear();
        assert_eq!(now.comparable(&then), Ok(()));
    }
}
