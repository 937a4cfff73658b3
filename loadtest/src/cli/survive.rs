//! `loadtest survive`.

use std::io::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use loadtest::compare::Gateway;
use loadtest::survive::{
    AbortSettings, Aborts, Fault, Faults, Outcome, Settings, aborts, markdown, run,
};

use super::units::duration;
use super::write;

/// Streams over simulated engines that are killed, stopped and ended as stock vLLM ends, one after the other; every
/// text is known and held against what comes. Starts and ends everything itself, on loopback. Exits 1 when the
/// first gateway lost, cut or changed anything, or counts requests that are over.
#[derive(Debug, Args)]
pub struct Flags {
    /// sluicegate, sluicegate-llm (with keys and models), nginx, haproxy, smg, vllm-router, each perhaps with
    /// =PROGRAM; the first is judged
    #[arg(long = "gateway", required = true)]
    gateways: Vec<Gateway>,
    #[arg(long, default_value_t = 4)]
    engines: usize,
    #[arg(long, default_value_t = 1000)]
    streams: usize,
    /// Time between tokens
    #[arg(long, default_value = "40ms", value_parser = duration)]
    itl: Duration,
    /// Of the longest answer
    #[arg(long, default_value_t = 500)]
    tokens: usize,
    /// Short requests a second, each on a new connection
    #[arg(long, default_value_t = 20.0)]
    connects: f64,
    /// The longest silence that a client bears
    #[arg(long, default_value = "90s", value_parser = duration)]
    patience: Duration,
    /// New requests begin for so long (10m)
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// In this order, over and over: kill, hang, and SIGTERM as freeze, abort and error; or none
    #[arg(
        long,
        default_value = "kill,hang,freeze,abort,error",
        value_delimiter = ','
    )]
    faults: Vec<String>,
    /// Before the first fault, and from an engine's recovery to the next one
    #[arg(long, default_value = "15s", value_parser = duration)]
    pause: Duration,
    /// How long an engine is gone before it is started again
    #[arg(long, default_value = "15s", value_parser = duration)]
    outage: Duration,
    /// How long one hangs
    #[arg(long, default_value = "75s", value_parser = duration)]
    hang: Duration,
    /// Reloads of Sluicegate, spread over the run
    #[arg(long, default_value_t = 0)]
    reloads: u32,
    /// Upgrades of Sluicegate, spread over the run
    #[arg(long, default_value_t = 0)]
    upgrades: u32,
    /// Requests with models, keys and paths that do not exist, spread over the run
    #[arg(long)]
    junk: Option<u64>,
    /// 30 minutes with 10000 junk requests, unless --duration and --junk say otherwise; memory, files and metric
    /// series must not grow
    #[arg(long)]
    soak: bool,
    /// In place of all this: so many clients that leave in the middle of a request, and when the engine hears of it.
    /// Exits 1 when that takes longer than 50 ms (p99) or anything is still counted afterwards
    #[arg(long)]
    aborts: Option<u64>,
    /// Clients at the same time that leave
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Further keys of Sluicegate's pool: 'health: { stall: 5s }'
    #[arg(long, default_value = "")]
    pool: String,
    /// Write everything here, too, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Keep configurations and logs here
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl Flags {
    pub(super) fn run(self) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let keep = self.keep.is_some();
        let directory = self.directory();
        let survived = runtime.block_on(async {
            tokio::select! {
                survived = async {
                    match self.aborts {
                        Some(aborts) => self.leave(aborts).await,
                        None => self.survive().await,
                    }
                } => survived,
                // Dropping the run ends what it started.
                _ = tokio::signal::ctrl_c() => Err(Error::other("interrupted")),
            }
        });
        if !keep {
            _ = std::fs::remove_dir_all(&directory);
        }
        Ok(match survived? {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        })
    }

    async fn survive(&self) -> Result<bool> {
        let outcomes = run(&self.settings()?, |line| eprintln!("{line}")).await?;
        println!("{}", markdown(&outcomes));
        self.save(&outcomes)?;
        Ok(outcomes.first().is_some_and(Outcome::survived))
    }

    async fn leave(&self, count: u64) -> Result<bool> {
        let mut all = Vec::new();
        for gateway in &self.gateways {
            let settings = AbortSettings {
                gateway: gateway.clone(),
                aborts: count,
                engines: self.engines,
                clients: self.clients,
                pool: self.pool.clone(),
                directory: self.directory(),
            };
            let outcome = aborts(&settings, |line| eprintln!("{line}")).await?;
            println!("{}", outcome.markdown());
            all.push(outcome);
        }
        self.save(&all)?;
        Ok(all.first().is_some_and(Aborts::survived))
    }

    fn save(&self, outcomes: &impl serde::Serialize) -> Result<()> {
        match &self.json {
            Some(path) => write(path, &serde_json::to_string_pretty(outcomes)?),
            None => Ok(()),
        }
    }

    fn directory(&self) -> PathBuf {
        let own = || std::env::temp_dir().join(format!("loadtest-survive-{}", std::process::id()));
        self.keep.clone().unwrap_or_else(own)
    }

    fn settings(&self) -> Result<Settings> {
        let kinds = match self.faults.as_slice() {
            [none] if none == "none" => Vec::new(),
            names => (names.iter())
                .map(|name| name.parse::<Fault>().map_err(Error::other))
                .collect::<Result<_>>()?,
        };
        let minutes = if self.soak { 30 } else { 10 };
        let junk = if self.soak { 10_000 } else { 0 };
        Ok(Settings {
            gateways: self.gateways.clone(),
            engines: self.engines.max(1),
            engine_program: std::env::current_exe()?,
            streams: self.streams,
            itl: self.itl,
            tokens: self.tokens.max(1),
            connects: self.connects,
            patience: self.patience,
            duration: self.duration.unwrap_or(Duration::from_secs(minutes * 60)),
            faults: Faults {
                kinds,
                pause: self.pause,
                outage: self.outage,
                hang: self.hang,
            },
            reloads: self.reloads,
            upgrades: self.upgrades,
            junk: self.junk.unwrap_or(junk),
            is_soak: self.soak,
            pool: self.pool.clone(),
            directory: self.directory(),
        })
    }
}
