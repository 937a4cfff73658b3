//! `loadtest load`.

use std::io::{IsTerminal as _, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use loadtest::load::{Arrivals, LONGEST_RUN, Plan, Progress, Protocol, Report, Trust, run_with};
use tokio::time::{Instant, sleep};

use super::units::duration;
use super::write;

/// Ends by itself: after --duration (30 s unless --requests is given), or after --requests.
#[derive(Debug, Args)]
pub struct Flags {
    /// http://HOST:PORT or https://HOST:PORT of a gateway or an engine
    #[arg(long)]
    url: String,
    /// closed:CLIENTS, or open:RATE/s[:uniform] with latency counted from when a request should have begun
    #[arg(long, default_value = "closed:64")]
    arrivals: Arrivals,
    /// New requests begin for so long
    #[arg(long, value_parser = duration)]
    duration: Option<Duration>,
    /// So many requests, within the duration
    #[arg(long)]
    requests: Option<u64>,
    /// Ask for streams
    #[arg(long)]
    stream: bool,
    #[arg(long, default_value_t = 100)]
    prompt_bytes: usize,
    #[arg(long)]
    max_tokens: Option<usize>,
    /// Sent as the model; empty sends none
    #[arg(long, default_value = "DeepSeek-R1")]
    model: String,
    #[arg(long)]
    api_key: Option<String>,
    /// Speak HTTP/1.0, as ab does
    #[arg(long = "http1.0", conflicts_with = "http2")]
    http10: bool,
    /// Speak HTTP/2: by ALPN on https, by prior knowledge on http
    #[arg(long)]
    http2: bool,
    /// A new connection for each request
    #[arg(long)]
    no_keepalive: bool,
    /// PEM file of the authorities believed on https; without it any certificate is
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Of one request
    #[arg(long, default_value = "60s", value_parser = duration)]
    timeout: Duration,
    /// Open arrivals: more than these in flight are counted as dropped
    #[arg(long, default_value_t = 10_000)]
    max_in_flight: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Do not read the texts: for engines other than `loadtest engine`
    #[arg(long)]
    no_verify: bool,
    /// Allow a target that is not this machine
    #[arg(long)]
    allow_remote: bool,
    /// Write the report here, too, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// And here as a page with plots
    #[arg(long)]
    html: Option<PathBuf>,
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

impl Flags {
    pub(super) fn run(self) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.threads.max(1))
            .enable_all()
            .build()?;
        let (json, html) = (self.json.clone(), self.html.clone());
        let report = runtime.block_on(measure(self.plan()))?;
        print!("\n{report}");
        if let Some(path) = json {
            write(&path, &serde_json::to_string_pretty(&report)?)?;
        }
        if let Some(path) = html {
            write(&path, &loadtest::html::run(&report))?;
        }
        Ok(if report.failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn plan(self) -> Plan {
        let whole_run = if self.requests.is_some() {
            Duration::from_secs(600)
        } else {
            Duration::from_secs(30)
        };
        Plan {
            arrivals: self.arrivals,
            duration: self.duration.unwrap_or(whole_run).min(LONGEST_RUN),
            requests: self.requests.unwrap_or(u64::MAX),
            stream: self.stream,
            prompt_bytes: self.prompt_bytes,
            max_tokens: self.max_tokens,
            model: Some(self.model).filter(|model| !model.is_empty()),
            api_key: self.api_key,
            protocol: match (self.http10, self.http2) {
                (true, _) => Protocol::Http10,
                (_, true) => Protocol::Http2,
                _ => Protocol::Http11,
            },
            keep_alive: !self.no_keepalive,
            trust: self.ca.map_or(Trust::Any, Trust::Authorities),
            timeout: self.timeout,
            max_in_flight: self.max_in_flight,
            seed: self.seed,
            verify: !self.no_verify,
            allow_remote: self.allow_remote,
            ..Plan::new(self.url)
        }
    }
}

/// Runs the plan, with a bar on a terminal.
async fn measure(plan: Plan) -> Result<Report> {
    let progress = Arc::new(Progress::default());
    let bar = bar(&plan);
    let by_count = plan.requests != u64::MAX;
    let start = Instant::now();
    let run = run_with(plan, Arc::clone(&progress));
    tokio::pin!(run);
    loop {
        tokio::select! {
            report = &mut run => {
                bar.finish_and_clear();
                return report;
            }
            () = sleep(Duration::from_millis(200)) => {
                let (finished, failed) = (progress.finished.load(Relaxed), progress.failed.load(Relaxed));
                bar.set_position(if by_count { finished } else { start.elapsed().as_millis() as u64 });
                let rate = finished as f64 / start.elapsed().as_secs_f64();
                bar.set_message(format!("{finished} requests, {rate:.0}/s, {failed} failed"));
            }
        }
    }
}

fn bar(plan: &Plan) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let length = if plan.requests == u64::MAX {
        plan.duration.as_millis() as u64
    } else {
        plan.requests
    };
    let style = ProgressStyle::with_template("{elapsed_precise} [{bar:40}] {percent}%  {msg}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
