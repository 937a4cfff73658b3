//! `loadtest compare`.

use std::io::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use loadtest::compare::{Gateway, Plan, Settings, run};

use super::units::duration;

/// Each gateway gets the same engines and the same load, in rounds that take turns; the table shows medians and
/// the ratios to nginx. It starts and ends everything itself, on loopback.
#[derive(Debug, Args)]
pub struct Flags {
    /// nginx, haproxy, sluicegate, each perhaps with =PROGRAM; LABEL:sluicegate=PROGRAM tells builds apart
    #[arg(long = "gateway", required = true)]
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
    /// Write all figures here, too, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
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
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (json, keep) = (self.json.clone(), self.keep.is_some());
        let settings = self.settings()?;
        let interrupted = async {
            _ = tokio::signal::ctrl_c().await;
        };
        let comparison = runtime.block_on(async {
            tokio::select! {
                comparison = run(&settings, |line| eprintln!("{line}")) => comparison,
                // Dropping the run ends what it started.
                () = interrupted => Err(Error::other("interrupted")),
            }
        });
        if !keep {
            _ = std::fs::remove_dir_all(&settings.directory);
        }
        let comparison = comparison?;
        println!("{}", comparison.markdown());
        if let Some(path) = json {
            std::fs::write(path, serde_json::to_string_pretty(&comparison.json())?)?;
        }
        Ok(ExitCode::SUCCESS)
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
