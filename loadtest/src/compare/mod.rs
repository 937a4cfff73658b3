//! Several gateways against the same engines and the same plans, in interleaved rounds.
//!
//! Absolute figures move with the machine; what counts is the ratio to nginx in the same round. CPU time is that
//! of the gateway's own processes, from `/proc`, over a window that begins after a warm-up. Everything runs on
//! loopback and ends by itself; only processes started here are measured or ended.

mod changes;
mod client;
pub(crate) mod engines;
pub(crate) mod gateway;
mod plans;
pub(crate) mod process;
pub(crate) mod record;
mod reload;
pub(crate) mod site;
mod table;

use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

use engines::Engines;
use plans::Subject;
use table::Results;

pub use changes::Changes;
pub use gateway::{Gateway, Kind};
pub use plans::Plan;
pub use record::Record;
pub use table::{Cell, Figure, Spread};

/// What to compare, and how long to look.
#[derive(Debug, Clone)]
pub struct Settings {
    pub gateways: Vec<Gateway>,
    /// Measure without a gateway, too. The latency plan does so in any case.
    pub direct: bool,
    pub plans: Vec<Plan>,
    pub rounds: usize,
    /// Access logs on in all, or off in all.
    pub logs: bool,
    pub engines: usize,
    /// The program whose `engine` subcommand is an engine: this one.
    pub engine_program: PathBuf,
    pub warm_up: Duration,
    /// Of one measurement.
    pub duration: Duration,
    /// Connections of the plans for short requests.
    pub clients: usize,
    /// Streams of the token plan.
    pub streams: usize,
    /// Streams whose gaps the latency plan looks at.
    pub gap_streams: usize,
    /// Streams of the memory plans, and requests before them.
    pub memory_streams: usize,
    pub mixed_requests: u64,
    pub prompt_bytes: usize,
    /// Requests a second of the latency plan; `None`: half of what nginx can do, or the first gateway.
    pub rate: Option<f64>,
    /// Where configurations and logs are written. It is not emptied first.
    pub directory: PathBuf,
}

/// Measures everything. `say` gets a line for each step.
///
/// # Errors
/// When there is no gateway, or a gateway or an engine does not start, ends early, or lets nothing through.
pub async fn run(settings: &Settings, mut say: impl FnMut(&str)) -> Result<Record> {
    if settings.gateways.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "no gateway to measure"));
    }
    fs::create_dir_all(&settings.directory)?;
    let mut comparison = Comparison::new(settings);
    let mut rate = settings.rate;
    for round in 0..settings.rounds {
        comparison.note(
            format!(
                "round {}: machine load {}",
                round + 1,
                process::machine_load()
            ),
            &mut say,
        );
        for plan in &settings.plans {
            comparison
                .round(settings, *plan, round, &mut rate, &mut say)
                .await?;
        }
    }
    let Comparison { results, record } = comparison;
    Ok(Record {
        figures: results.cells(&record.base),
        ..record
    })
}

/// What has been measured so far.
struct Comparison {
    results: Results,
    record: Record,
}

impl Comparison {
    fn new(settings: &Settings) -> Self {
        let mut record = Record::begun(settings);
        let mut notes = vec![record.machine.to_string()];
        notes.extend(
            (record.gateways.iter())
                .map(|gateway| format!("{}: {}", gateway.name, gateway.version)),
        );
        notes.push(format!(
            "access logs {}; {} engines; {} rounds; windows of {:?} after {:?}; {} clients; {} streams; memory with {} \
             streams after {} requests; prompts of {} bytes",
            if settings.logs { "on" } else { "off" },
            settings.engines,
            settings.rounds,
            settings.duration,
            settings.warm_up,
            settings.clients,
            settings.streams,
            settings.memory_streams,
            settings.mixed_requests,
            settings.prompt_bytes
        ));
        for gateway in &settings.gateways {
            if let Some(bears) = gateway.kind.bears() {
                notes.push(format!("{}: {bears}", gateway.name));
            }
        }
        record.notes = notes;
        Self {
            results: Results::default(),
            record,
        }
    }

    fn note(&mut self, text: String, say: &mut impl FnMut(&str)) {
        say(&text);
        self.record.notes.push(text);
    }

    /// One plan for every gateway, in an order that turns with the rounds.
    async fn round(
        &mut self,
        settings: &Settings,
        plan: Plan,
        round: usize,
        rate: &mut Option<f64>,
        say: &mut impl FnMut(&str),
    ) -> Result<()> {
        let mut subjects = settings.gateways.clone();
        subjects.rotate_left(round % settings.gateways.len().max(1));
        if plan == Plan::Latency || (settings.direct && plan.works_direct()) {
            subjects.push(Gateway::direct());
        }
        let directory = settings.directory.join(format!("{}-{round}", plan.name()));
        fs::create_dir_all(&directory)?;
        let engines = Engines::start(
            &settings.engine_program,
            settings.engines,
            plan.engine_flags(),
            &directory,
        )?;
        let streaming = if plan == Plan::Latency {
            Some(Engines::start(
                &settings.engine_program,
                settings.engines,
                Plan::Token.engine_flags(),
                &fresh(&directory, "gap")?,
            )?)
        } else {
            None
        };
        if plan == Plan::Latency && rate.is_none() {
            let directory = fresh(&directory, "capacity")?;
            let base = settings
                .gateways
                .iter()
                .position(|gateway| gateway.name == self.record.base);
            let gateway = &settings.gateways[base.unwrap_or(0)];
            let subject = Subject {
                settings,
                gateway,
                engines: &engines.addresses,
                directory: &directory,
                rate: 0.0,
            };
            let half = (plans::capacity(&subject).await? / 2.0).max(1.0);
            self.note(
                format!(
                    "latency at {half:.0} requests/s, half of what {} does",
                    gateway.name
                ),
                say,
            );
            *rate = Some(half);
        }
        for gateway in &subjects {
            if plan == Plan::Reload && !gateway.kind.reloads() {
                continue;
            }
            say(&format!(
                "round {} {} {}",
                round + 1,
                plan.name(),
                gateway.name
            ));
            let place = fresh(&directory, &gateway.name)?;
            let rate = rate.unwrap_or(1.0);
            let subject = Subject {
                settings,
                gateway,
                engines: &engines.addresses,
                directory: &place,
                rate,
            };
            let mut figures = subject.measure(plan).await?;
            if let Some(streaming) = &streaming {
                let place = fresh(&directory, &format!("{}-gap", gateway.name))?;
                figures.extend(
                    plans::gap(&Subject {
                        engines: &streaming.addresses,
                        directory: &place,
                        ..subject
                    })
                    .await?,
                );
            }
            for (figure, value) in figures {
                self.results.add(figure, &gateway.name, round, value);
            }
        }
        if plan == Plan::Latency {
            self.subtract_direct(settings, round);
        }
        Ok(())
    }

    /// What a gateway adds to the latency and the gaps without it, in the same round.
    fn subtract_direct(&mut self, settings: &Settings, round: usize) {
        let direct = Gateway::direct().name;
        for (figure, added) in [
            (Figure::LatencyP50, Figure::AddedLatencyP50),
            (Figure::LatencyP99, Figure::AddedLatencyP99),
            (Figure::GapP99, Figure::AddedGapP99),
        ] {
            for gateway in &settings.gateways {
                let with = self.results.value(figure, &gateway.name, round);
                if let Some((with, without)) = with.zip(self.results.value(figure, &direct, round))
                {
                    self.results
                        .add(added, &gateway.name, round, with - without);
                }
            }
        }
    }
}

/// A directory below another, with nothing of an earlier run in it.
fn fresh(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::create_dir_all(&path)?;
    Ok(path)
}
