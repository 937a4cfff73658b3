//! Whether clients notice what befalls engines: faults by a schedule under streams whose every byte is known.
//!
//! Engines are processes of this program and meet real signals: SIGKILL, SIGSTOP, and SIGTERM in the three ways in
//! which stock vLLM ends its streams. Reloads and upgrades of the gateway may happen meanwhile. What a client is
//! told is held against the one text that its prompt has, on whichever engines it was made.

mod aborts;
mod answer;
mod ask;
mod clients;
mod events;
mod fleet;
mod gateway;
mod growth;
mod report;
mod schedule;
mod tally;
mod watch;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::compare::Gateway;
use crate::compare::process::open_files;
use clients::Clients;
use events::{Changes, Happened};
use fleet::Fleet;
use gateway::Trial;

pub use aborts::{AbortSettings, Aborts, aborts};
pub use events::{FaultRecord, HeldSample};
pub use growth::Growth;
pub use report::{Outcome, markdown};
pub use schedule::{Fault, Faults};
pub use tally::{Counts, Silence};

/// How long counts may take to become zero after the last client has left.
const SETTLES: Duration = Duration::from_secs(5);

/// A run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Each goes through the same, one after the other; the first is the one that is judged.
    pub gateways: Vec<Gateway>,
    pub engines: usize,
    /// What has `engine` as its first argument.
    pub engine_program: PathBuf,
    pub streams: usize,
    /// Time between two tokens.
    pub itl: Duration,
    /// Of the longest answer.
    pub tokens: usize,
    /// Short requests a second, each on a new connection.
    pub connects: f64,
    /// The longest silence a client bears.
    pub patience: Duration,
    /// New requests begin for so long.
    pub duration: Duration,
    pub faults: Faults,
    pub reloads: u32,
    pub upgrades: u32,
    /// Requests with models, keys and paths that do not exist, spread over the run.
    pub junk: u64,
    /// Memory, files and series must not grow, either.
    pub is_soak: bool,
    /// Further keys of Sluicegate's pool, as YAML has them between braces.
    pub pool: String,
    /// For configurations and logs.
    pub directory: PathBuf,
}

/// Puts each gateway through it.
///
/// # Errors
/// What could not be started or signalled. What clients met is in the outcomes.
pub async fn run(
    settings: &Settings,
    say: impl Fn(&str) + Copy + Send + 'static,
) -> Result<Vec<Outcome>> {
    // Each stream takes one here, two in the gateway, and all may be on one engine.
    let needed = settings.streams as u64 * 2 + 500;
    if open_files() < needed {
        let limit = open_files();
        return Err(Error::other(format!(
            "a process may open {limit} files here, and {needed} are needed: ulimit -n {needed}"
        )));
    }
    let mut outcomes = Vec::new();
    for gateway in &settings.gateways {
        say(&format!("{}:", gateway.name));
        let directory = settings.directory.join(&gateway.name);
        _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory)?;
        outcomes.push(one(settings, gateway, &directory, say).await?);
    }
    Ok(outcomes)
}

async fn one(
    settings: &Settings,
    gateway: &Gateway,
    directory: &Path,
    say: impl Fn(&str) + Copy + Send + 'static,
) -> Result<Outcome> {
    let planned = settings.faults.plan(settings.duration, settings.engines);
    let mut fleet = Fleet::start(
        settings.engine_program.clone(),
        settings.engines,
        vec![
            format!("--itl={}us", settings.itl.as_micros()),
            format!("--tokens={}", settings.tokens),
        ],
        planned.clone(),
        directory.to_owned(),
    )?;
    let mut trial = Trial::start(gateway, fleet.addresses(), &settings.pool, directory)?;
    let authority = trial.address.to_string();
    let clients = Clients::new(
        &authority,
        gateway.kind.caller(),
        settings.patience,
        settings.tokens,
    )
    .map_err(Error::other)?;
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    let ramp = settings.duration.div_f64(20.0).min(Duration::from_secs(10));
    clients.streams(settings.streams, ramp, &mut tasks);
    clients.connects(settings.connects, &mut tasks);
    clients.junk(settings.junk, settings.duration.mul_f64(0.95), &mut tasks);
    let changes = Changes {
        duration: settings.duration,
        reloads: settings.reloads,
        upgrades: settings.upgrades,
        sample: settings.duration.div_f64(200.0),
    };
    // Blocking: a thread of its own. The processes come back with what happened.
    let driver = tokio::task::spawn_blocking(move || {
        let happened = events::run(&mut fleet, &mut trial, &planned, changes, &say);
        (fleet, trial, happened)
    });
    let (fleet, trial, happened) = driver.await.map_err(Error::other)?;
    let happened = happened?;
    clients.stop();
    say("the last streams end");
    // Their own patience ends those that hang, and tokens those that do not.
    let longest = settings.itl.mul_f64(settings.tokens as f64 * 2.0) + settings.patience * 2;
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(longest, all).await.is_err() {
        say("streams go on although they should have ended");
    }
    tasks.shutdown().await;
    let seconds = start.elapsed().as_secs_f64();
    let left_over = left_over(&fleet, &trial).await;
    let metrics = metrics(&trial);
    let tally = clients.tally.lock().unwrap_or_else(PoisonError::into_inner);
    let Happened {
        faults,
        samples,
        reloads,
        upgrades,
    } = happened;
    Ok(Outcome {
        gateway: gateway.name.clone(),
        version: gateway.version(),
        seconds,
        counts: tally.counts,
        reasons: tally.reasons(),
        silence: tally.silence(),
        faults,
        reloads,
        upgrades,
        metrics,
        left_over,
        junk: tally.junk(),
        growth: Growth::of(&samples),
        must_be_flat: settings.is_soak,
        samples,
    })
}

/// Requests that the gateway and the engines still count, once they have had time to notice the end.
async fn left_over(fleet: &Fleet, trial: &Trial) -> u64 {
    let count = || {
        let of_engines: f64 = (fleet.addresses().into_iter())
            .map(|engine| watch::get(engine, "/metrics").unwrap_or_default())
            .map(|text| {
                watch::sum(&text, "vllm:num_requests_running", "")
                    + watch::sum(&text, "vllm:num_requests_waiting", "")
            })
            .sum();
        let own = match trial.is_ours() {
            true => watch::get(trial.admin, "/metrics").unwrap_or_default(),
            false => String::new(),
        };
        (of_engines + watch::sum(&own, "sluicegate_endpoint_in_flight", "")) as u64
    };
    let begun = Instant::now();
    loop {
        let left = count();
        if left == 0 || begun.elapsed() > SETTLES {
            return left;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// What the gateway counted of what it did.
fn metrics(trial: &Trial) -> BTreeMap<String, f64> {
    let mut metrics = BTreeMap::new();
    let text = match trial.is_ours() {
        true => watch::get(trial.admin, "/metrics").unwrap_or_default(),
        false => return metrics,
    };
    for name in [
        "continuations",
        "retries",
        "ejections",
        "refused",
        "suspects",
        "retry_budget_exhausted",
        "log_lines_dropped",
    ] {
        let metric = format!("sluicegate_{name}_total");
        if text.contains(&metric) {
            metrics.insert(name.to_owned(), watch::sum(&text, &metric, ""));
        }
    }
    metrics
}
