//! `loadtest compare`.

use std::io::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use loadtest::compare::{Changes, Gateway, Plan, Record, Settings, run};

use super::units::{duration, percent};
use super::write;

/// Each gateway gets the same engines and the same load, in rounds that take turns; the table shows medians and
/// the ratios to nginx. It starts and ends everything itself, on loopback. Exits 1 when a figure is worse than in
/// the baseline, 2 when it could not be measured or compared.
#[derive(Debug, Args)]
pub struct Flags {
    /// nginx, haproxy, sluicegate, sluicegate-llm (with keys and models), smg, vllm-router, litellm, each perhaps
    /// with =PROGRAM; LABEL:sluicegate=PROGRAM tells builds apart
    #[arg(long = "gateway", required_unless_present = "from")]
    gateways: Vec<Gateway>,
    /// Measure without a gateway, too
    #[arg(long)]
    direct: bool,
    /// short, token, prompt, memory, memory-prompt, latency, throughput, start, reload; or all
    #[arg(
        long,
        default_value = "short,token,prompt,memory,latency,throughput",
        value_delimiter = ','
    )]
    plans: Vec<String>,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Access logs in all gateways
    #[arg(long, value_enum, default_value = "off")]
    logs: Switch,
    #[arg(long, default_value_t = 2)]
    engines: usize,
    /// Load before each measurement
    #[arg(long, default_value = "2s", value_parser = duration)]
    warm_up: Duration,
    /// Of each measurement
    #[arg(long, default_value = "5s", value_parser = duration)]
    duration: Duration,
    #[arg(long, default_value_t = 64)]
    clients: usize,
    #[arg(long, default_value_t = 500)]
    streams: usize,
    #[arg(long, default_value_t = 200)]
    gap_streams: usize,
    #[arg(long, default_value_t = 4000)]
    memory_streams: usize,
    #[arg(long, default_value_t = 50_000)]
    mixed_requests: u64,
    #[arg(long, default_value_t = 220_000)]
    prompt_bytes: usize,
    /// Requests a second of the latency plan; without it half of what nginx does
    #[arg(long)]
    rate: Option<f64>,
    /// Write all figures here, as JSON: what --against and --from take
    #[arg(long, visible_alias = "json")]
    save: Option<PathBuf>,
    /// Measure nothing: take the figures from a file that --save wrote
    #[arg(long, conflicts_with_all = ["gateways", "save"])]
    from: Option<PathBuf>,
    /// Hold the figures against those of a file that --save wrote
    #[arg(long)]
    against: Option<PathBuf>,
    /// How much worse than in --against is worse
    #[arg(long, default_value = "10%", value_parser = percent, requires = "against")]
    threshold: f64,
    /// Write a page with plots here
    #[arg(long)]
    html: Option<PathBuf>,
    /// Keep configurations and logs here
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Flags {
    pub(super) fn run(self) -> Result<ExitCode> {
        Ok(self.compare().unwrap_or_else(|error| {
            eprintln!("loadtest: {error}");
            // 1 is what a regression exits with.
            ExitCode::from(2)
        }))
    }

    fn compare(self) -> Result<ExitCode> {
        let (save, html, threshold) = (self.save.clone(), self.html.clone(), self.threshold);
        let read = |path: &PathBuf| Record::read(path).map_err(Error::other);
        let then = self.against.as_ref().map(read).transpose()?;
        let record = match self.from.as_ref().map(read).transpose()? {
            Some(record) => record,
            None => self.measure(then.as_ref())?,
        };
        println!("{}", record.markdown());
        if let Some(path) = &save {
            record.write(path).map_err(Error::other)?;
        }
        let changes = (then.as_ref())
            .map(|then| Changes::between(then, &record, threshold).map_err(Error::other))
            .transpose()?;
        if let Some(path) = &html {
            write(path, &loadtest::html::comparison(&record, changes.as_ref()))?;
        }
        let Some(changes) = changes else {
            return Ok(ExitCode::SUCCESS);
        };
        println!("{}", changes.markdown());
        Ok(match changes.worse() {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }

    /// What `then` cannot be compared with is not even measured.
    fn measure(self, then: Option<&Record>) -> Result<Record> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let keep = self.keep.is_some();
        let settings = self.settings()?;
        if let Some(then) = then {
            Record::begun(&settings)
                .comparable(then)
                .map_err(Error::other)?;
        }
        let interrupted = async {
            _ = tokio::signal::ctrl_c().await;
        };
        let record = runtime.block_on(async {
            tokio::select! {
                record = run(&settings, |line| eprintln!("{line}")) => record,
                // Dropping the run ends what it started.
                () = interrupted => Err(Error::other("interrupted")),
            }
        });
        if !keep {
            _ = std::fs::remove_dir_all(&settings.directory);
        }
        record
    }

    fn settings(self) -> Result<Settings> {
        let plans = if self.plans == ["all"] {
            Plan::ALL.to_vec()
        } else {
            self.plans
                .iter()
                .map(|plan| plan.parse().map_err(Error::other))
                .collect::<Result<_>>()?
        };
        let own = || std::env::temp_dir().join(format!("loadtest-compare-{}", std::process::id()));
        Ok(Settings {
            gateways: self.gateways,
            direct: self.direct,
            plans,
            rounds: self.rounds,
            logs: self.logs == Switch::On,
            engines: self.engines.max(1),
            engine_program: std::env::current_exe()?,
            warm_up: self.warm_up,
            duration: self.duration,
            clients: self.clients,
            streams: self.streams,
            gap_streams: self.gap_streams,
            memory_streams: self.memory_streams,
            mixed_requests: self.mixed_requests,
            prompt_bytes: self.prompt_bytes,
            rate: self.rate,
            directory: self.keep.unwrap_or_else(own),
        })
    }
}
