//! What is measured, and how: each plan puts one gateway under one load and takes its figures.

use std::io::{Error, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::{self, Clients, SHORT_PROMPT};
use super::gateway::{Gateway, Running};
use super::process::Process;
use super::table::Figure;
use super::{Settings, reload};
use crate::load::{Schedule, Spacing};

/// Asked of a stream: half an hour at the fastest, and of all streams together less than a key may have in a minute.
const STREAM_TOKENS: usize = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// CPU of a short request, keep-alive, and how many a second.
    Short,
    /// CPU of a streamed token, and whether each event comes on its own.
    Token,
    /// CPU of a long prompt.
    Prompt,
    /// Memory of an open stream: the second wave, after mixed requests.
    Memory,
    /// The same with prompts of 100 KB.
    MemoryPrompt,
    /// Latency at half of nginx's load, and the gaps in streams, against none in between.
    Latency,
    /// Requests a second with a new connection for each.
    Throughput,
    /// Start to first answer, idle memory.
    Start,
    /// Reload with 200 endpoints.
    Reload,
}

impl Plan {
    pub const ALL: [Self; 9] = [
        Self::Short,
        Self::Token,
        Self::Prompt,
        Self::Memory,
        Self::MemoryPrompt,
        Self::Latency,
        Self::Throughput,
        Self::Start,
        Self::Reload,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Token => "token",
            Self::Prompt => "prompt",
            Self::Memory => "memory",
            Self::MemoryPrompt => "memory-prompt",
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Start => "start",
            Self::Reload => "reload",
        }
    }

    /// Flags of the engines behind the gateways. Latency has a second kind, see [`gap`].
    pub(super) fn engine_flags(self) -> &'static [&'static str] {
        match self {
            Self::Token => &["--ttft", "20ms", "--itl", "20ms", "--whole-characters"],
            Self::Memory | Self::MemoryPrompt => &["--ttft", "10ms", "--itl", "1s"],
            _ => &["--fixed"],
        }
    }

    /// Whether it makes sense without a gateway.
    pub(super) fn works_direct(self) -> bool {
        matches!(
            self,
            Self::Short | Self::Token | Self::Latency | Self::Throughput
        )
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let known: Vec<_> = Self::ALL.iter().map(|plan| plan.name()).collect();
        let found = Self::ALL.into_iter().find(|plan| plan.name() == text);
        found.ok_or_else(|| format!("{text:?} is none of {}", known.join(", ")))
    }
}

/// One gateway in one round.
pub(super) struct Subject<'a> {
    pub settings: &'a Settings,
    pub gateway: &'a Gateway,
    pub engines: &'a [SocketAddr],
    pub directory: &'a Path,
    /// Requests a second of the latency plan.
    pub rate: f64,
}

type Figures = Vec<(Figure, f64)>;

impl Subject<'_> {
    /// Starts the gateway, measures, ends it.
    pub(super) async fn measure(&self, plan: Plan) -> Result<Figures> {
        if plan == Plan::Reload {
            return reload::measure(self).await;
        }
        let mut running = self
            .gateway
            .start(self.engines, self.settings.logs, self.directory)
            .await?;
        let figures = match plan {
            Plan::Short => self.short(&running).await,
            Plan::Token => self.token(&running).await,
            Plan::Prompt => self.prompt(&running).await,
            Plan::Memory => self.memory(&running, SHORT_PROMPT, Figure::KbStream).await,
            Plan::MemoryPrompt => {
                self.memory(&running, 100_000, Figure::KbStreamLongPrompt)
                    .await
            }
            Plan::Latency => self.latency(&running).await,
            Plan::Throughput => self.throughput(&running).await,
            Plan::Start | Plan::Reload => self.start(&running).await,
        };
        if let Some(process) = &mut running.process {
            process.check()?;
        }
        figures
    }

    /// So many, or what the gateway bears.
    fn streams(&self, wanted: usize) -> usize {
        let bears = self.gateway.kind.bears();
        bears.map_or(wanted, |bears| wanted.min(bears.streams))
    }

    async fn short(&self, running: &Running) -> Result<Figures> {
        let request = running.post(SHORT_PROMPT, 16, false);
        let clients = Clients::closed(
            running.address,
            &[request],
            self.settings.clients,
            true,
            u64::MAX,
        );
        let window = self.window(running, clients).await?;
        Ok(window.figures(Figure::CpuShort, Some(Figure::RateKeepAlive)))
    }

    async fn prompt(&self, running: &Running) -> Result<Figures> {
        let request = running.post(self.settings.prompt_bytes, 16, false);
        let clients = Clients::closed(running.address, &[request], 8, true, u64::MAX);
        Ok(self
            .window(running, clients)
            .await?
            .figures(Figure::CpuPrompt, None))
    }

    async fn throughput(&self, running: &Running) -> Result<Figures> {
        let request = client::closing(&running.post(SHORT_PROMPT, 16, false));
        let clients = Clients::closed(
            running.address,
            &[request],
            self.settings.clients,
            false,
            u64::MAX,
        );
        let window = self.window(running, clients).await?;
        Ok(vec![
            (Figure::RateNewConnections, window.rate()),
            (Figure::Failed, window.failed),
        ])
    }

    async fn token(&self, running: &Running) -> Result<Figures> {
        let streams = self.streams(self.settings.streams);
        let request = running.post(SHORT_PROMPT, STREAM_TOKENS, true);
        let clients = Clients::streams(running.address, &request, streams, Duration::from_secs(1));
        clients
            .wait_for_open(streams as u64, Duration::from_secs(20))
            .await;
        let window = self.window(running, clients).await?;
        let mut figures = window.figures(Figure::CpuToken, None);
        figures.push((
            Figure::MergedEvents,
            window.merged * 100.0 / window.done.max(1.0),
        ));
        Ok(figures)
    }

    /// Loads for the warm-up, then takes what a window of time brought.
    async fn window(&self, running: &Running, clients: Clients) -> Result<Window> {
        sleep(self.settings.warm_up).await;
        let counts = &clients.counts;
        let read = || {
            (
                counts.done.load(Relaxed),
                counts.failed.load(Relaxed),
                counts.merged.load(Relaxed),
            )
        };
        let cpu = || running.process.as_ref().map(Process::cpu);
        let ((done, failed, merged), start, before) = (read(), Instant::now(), cpu());
        sleep(self.settings.duration).await;
        let ((done_then, failed_then, merged_then), seconds, after) =
            (read(), start.elapsed().as_secs_f64(), cpu());
        clients.stop().await;
        if done_then == done {
            return Err(Error::other(format!(
                "{}: nothing came through",
                self.gateway.name
            )));
        }
        Ok(Window {
            done: (done_then - done) as f64,
            failed: (failed_then - failed) as f64,
            merged: (merged_then - merged) as f64,
            seconds,
            cpu: before
                .zip(after)
                .map(|(before, after)| (after - before).as_secs_f64()),
        })
    }

    async fn memory(&self, running: &Running, prompt: usize, figure: Figure) -> Result<Figures> {
        let Some(process) = &running.process else {
            return Ok(Vec::new());
        };
        sleep(Duration::from_millis(500)).await;
        let idle = process.memory();
        let mixed = [
            (SHORT_PROMPT, false),
            (SHORT_PROMPT, true),
            (2_000, false),
            (SHORT_PROMPT, false),
            (20_000, true),
        ]
        .map(|(bytes, stream)| running.post(bytes, 1, stream));
        let requests = [
            &mixed[..],
            &[client::closing(&mixed[0]), running.post(100_000, 1, false)],
        ]
        .concat();
        let wanted = self.settings.mixed_requests;
        let bears = self.gateway.kind.bears();
        let limit = bears.map_or(wanted, |bears| wanted.min(bears.requests));
        let mut clients = Clients::closed(running.address, &requests, 64, true, limit);
        clients.finish().await;
        let mut failed = clients.counts.failed.load(Relaxed);
        let streams = self.streams(self.settings.memory_streams);
        let request = running.post(prompt, STREAM_TOKENS, true);
        let mut open_then = 0;
        for wave in 1..=2 {
            let ramp = Duration::from_secs_f64(streams as f64 / 1000.0);
            let clients = Clients::streams(running.address, &request, streams, ramp);
            clients
                .wait_for_open(streams as u64, ramp + Duration::from_secs(30))
                .await;
            sleep(Duration::from_secs(1)).await;
            if wave == 2 {
                open_then = process.memory();
            }
            failed += clients.counts.failed.load(Relaxed) + streams as u64
                - clients.counts.open.load(Relaxed);
            clients.stop().await;
            sleep(Duration::from_secs(1)).await;
        }
        let kilobytes = open_then.saturating_sub(idle) as f64 / 1024.0 / streams as f64;
        Ok(vec![(figure, kilobytes), (Figure::Failed, failed as f64)])
    }

    async fn latency(&self, running: &Running) -> Result<Figures> {
        let request = running.post(SHORT_PROMPT, 16, false);
        let bears = self.gateway.kind.bears();
        let rate = bears.map_or(self.rate, |bears| self.rate.min(bears.rate));
        let open = |seed, duration| {
            let schedule = Schedule::new(rate, Spacing::Poisson, seed);
            Clients::open(running.address, &request, schedule, duration, 1000)
        };
        open(2, self.settings.warm_up).finish().await;
        let mut clients = open(1, self.settings.duration);
        clients.finish().await;
        Ok(vec![
            (Figure::LatencyP50, clients.time(0.5)),
            (Figure::LatencyP99, clients.time(0.99)),
            (Figure::Failed, clients.counts.failed.load(Relaxed) as f64),
        ])
    }

    async fn start(&self, running: &Running) -> Result<Figures> {
        let Some(process) = &running.process else {
            return Ok(Vec::new());
        };
        sleep(Duration::from_millis(500)).await;
        let megabytes = process.memory() as f64 / 1e6;
        Ok(vec![
            (Figure::StartMs, running.ready.as_secs_f64() * 1e3),
            (Figure::IdleMb, megabytes),
        ])
    }
}

/// The gaps that clients of 200 streams see; its engines are those of [`Plan::Token`].
pub(super) async fn gap(subject: &Subject<'_>) -> Result<Figures> {
    let running = subject
        .gateway
        .start(subject.engines, subject.settings.logs, subject.directory)
        .await?;
    let request = running.post(SHORT_PROMPT, STREAM_TOKENS, true);
    let streams = subject.streams(subject.settings.gap_streams);
    let clients = Clients::streams(running.address, &request, streams, Duration::from_secs(1));
    clients
        .wait_for_open(streams as u64, Duration::from_secs(20))
        .await;
    sleep(subject.settings.warm_up).await;
    clients.timing.store(true, Relaxed);
    sleep(subject.settings.duration).await;
    clients.timing.store(false, Relaxed);
    let p99 = clients.time(0.99);
    let failed = clients.counts.failed.load(Relaxed);
    clients.stop().await;
    Ok(vec![(Figure::GapP99, p99), (Figure::Failed, failed as f64)])
}

/// Requests a second that a gateway can do, to load all with half of it.
pub(super) async fn capacity(subject: &Subject<'_>) -> Result<f64> {
    let running = subject
        .gateway
        .start(subject.engines, subject.settings.logs, subject.directory)
        .await?;
    let request = running.post(SHORT_PROMPT, 16, false);
    let clients = Clients::closed(
        running.address,
        &[request],
        subject.settings.clients,
        true,
        u64::MAX,
    );
    Ok(subject.window(&running, clients).await?.rate())
}

/// What a window of time brought.
struct Window {
    done: f64,
    failed: f64,
    merged: f64,
    seconds: f64,
    /// Of the gateway.
    cpu: Option<f64>,
}

impl Window {
    fn rate(&self) -> f64 {
        self.done / self.seconds
    }

    fn figures(&self, cpu: Figure, rate: Option<Figure>) -> Figures {
        let mut figures = vec![(Figure::Failed, self.failed)];
        if let Some(seconds) = self.cpu {
            figures.push((cpu, seconds * 1e6 / self.done));
        }
        figures.extend(rate.map(|figure| (figure, self.rate())));
        figures
    }
}
