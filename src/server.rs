//! The composition root: what a running gateway is made of, and the order in which it starts and stops.

mod shared;
mod sockets;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use log::{info, warn};
use parking_lot::Mutex;
use pingora::server::configuration::ServerConf;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::config::{Config, Listen, ListenAddress, ListenTls, restart_needed};
use crate::listener::handover::{Inherited, drain_announcements};
use crate::listener::{
    self, Beats, BindError, Bound, CertificateError, Certificates, Role, Service, SocketFile,
    Workers, stop_listening,
};
use crate::proxy::Gateway;
use crate::snapshot::{BuildError, Snapshot, SnapshotCell};
use crate::tasks::canary::{Canary, HttpCanary};
use crate::tasks::catalog::{self, Ask, HttpAsk};
use crate::tasks::hung;
use crate::tasks::presence;
use crate::tasks::prober::{self, HttpProbe, Probe};
use crate::tasks::resolver::{self, Failing, Resolve, SystemResolver};
use crate::tasks::scraper::{self, HttpScrape, Scrape};
use crate::tasks::{drainer, series, sweeper};
use crate::telemetry::tracing::{Exporter, Tracer};
use crate::telemetry::{AccessLog, Metrics};

pub use shared::{Orders, Shared};

/// How often a draining gateway looks whether it is empty.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// Connections that have not begun a request hold a drain up no longer than this.
const DRAIN_IDLE: Duration = Duration::from_secs(1);
/// How long the last lines of the access log may take to be written.
const LOG_FLUSH: Duration = Duration::from_secs(2);
/// The same for the last spans.
const SPAN_FLUSH: Duration = Duration::from_secs(3);

/// A running gateway. Dropping it without [`Server::stop`] leaves its threads running.
pub struct Server {
    shared: Arc<Shared>,
    workers: Workers,
    addresses: Vec<(Role, ListenAddress)>,
    /// For a successor; empty once nothing is accepted any more.
    sockets: Mutex<Vec<Bound>>,
    socket_files: Vec<SocketFile>,
    /// The sockets and their files are another process's.
    handed_over: AtomicBool,
    /// What runs until the process ends, whatever a reload reads.
    started: Arc<Config>,
    certificates: Vec<Shown>,
    /// Sends the spans that requests leave with the tracer.
    exporter: Mutex<Option<Exporter>>,
    tasks: Vec<JoinHandle<()>>,
    end_tasks: watch::Sender<bool>,
}

/// The certificate a listener shows.
struct Shown {
    certificates: Arc<Certificates>,
    /// Where its files are, by the last configuration that said so.
    listen: Mutex<Listen>,
}

/// A certificate that was read anew, when it expires, and the listener it is for.
type Renewed = (Listen, CertifiedKey, Option<SystemTime>);

impl Shown {
    fn load(shared: &Shared, listen: &Listen, tls: &ListenTls) -> Result<Self, CertificateError> {
        let (certificates, expires) = Certificates::load(tls)?;
        note_expiry(shared, listen, expires);
        Ok(Self {
            certificates,
            listen: Mutex::new(listen.clone()),
        })
    }

    /// Reads the files that `config` names for this listener. One that is no longer in it runs on until a
    /// restart: its files are read where they were, and may be gone.
    fn read(&self, config: &Config) -> Result<Option<Renewed>, CertificateError> {
        let last = self.listen.lock().clone();
        let named = config
            .listen
            .iter()
            .chain(&config.admin)
            .find(|listen| listen.address == last.address && listen.tls.is_some());
        let listen = named.unwrap_or(&last);
        let Some(tls) = &listen.tls else {
            return Ok(None);
        };
        match Certificates::read(tls) {
            Ok((key, expires)) => Ok(Some((listen.clone(), key, expires))),
            Err(_) if named.is_none() => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// Why the gateway did not start.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

impl From<BindError> for StartError {
    fn from(error: BindError) -> Self {
        Self(error.to_string())
    }
}

impl From<CertificateError> for StartError {
    fn from(error: CertificateError) -> Self {
        Self(error.to_string())
    }
}

impl From<BuildError> for StartError {
    fn from(error: BuildError) -> Self {
        Self(error.to_string())
    }
}

impl StartError {
    fn because(what: &str, why: &dyn fmt::Display) -> Self {
        Self(format!("{what}: {why}"))
    }
}

impl Server {
    /// Binds every socket, looks up every name, probes every endpoint once, then accepts. Background
    /// tasks run on the calling runtime.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        Self::start_with(config, &mut Inherited::default()).await
    }

    /// The same, with those sockets of the process before that the configuration has too. The others are left in
    /// `inherited`.
    pub async fn start_with(
        config: Config,
        inherited: &mut Inherited,
    ) -> Result<Server, StartError> {
        // Two rustls providers are in the tree through Pingora; ours is installed first. An error
        // only means that another gateway of this process has done so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bound = sockets::bind(&config, inherited)?;
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
        let access_log = open_access_log(&config, &metrics)?;
        let (tracer, exporter) = start_tracing(&config, &metrics)?.unzip();
        let names: Arc<dyn Resolve> = Arc::new(SystemResolver::default());
        let round = resolver::resolve(&config, &names).await;
        let mut failing = Failing::default();
        failing.note(&round);
        let threads = config.threads.unwrap_or_else(cpus);
        let config = Arc::new(config);
        let (snapshot, _) = Snapshot::build(Arc::clone(&config), &round.resolved, None)?;
        let shared = Arc::new(Shared::new(
            SnapshotCell::new(snapshot),
            metrics,
            access_log,
        ));
        shared.replace_tracer(tracer);
        drain_again(&shared, inherited);
        let mut certificates = Vec::new();
        let mut listeners = Vec::new();
        for one in bound {
            let mut acceptor = None;
            if let Some(tls) = &one.listen.tls {
                let shown = Shown::load(&shared, &one.listen, tls)?;
                acceptor = Some(Arc::new(shown.certificates.acceptor(one.listen.http2)?));
                certificates.push(shown);
            }
            listeners.push((one, acceptor));
        }
        let probe: Arc<dyn Probe> = Arc::new(HttpProbe);
        let ask: Arc<dyn Ask> = Arc::new(HttpAsk);
        let probes = prober::first_round(&shared.snapshot, &probe);
        catalog::first_round(&shared.snapshot, &ask, prober::FIRST_ROUND, probes).await;

        let addresses = listeners
            .iter()
            .map(|(l, _)| (l.role, l.address()))
            .collect();
        let socket_files = listeners
            .iter()
            .filter_map(|(l, _)| l.socket_file())
            .collect();
        let proxy = Arc::new(pingora_proxy::http_proxy(
            &Arc::new(server_conf(threads)),
            Gateway::new(Arc::clone(&shared)),
        ));
        let service = Arc::new(Service {
            proxy,
            gateway: Arc::clone(&shared),
        });
        let workers = listener::start(threads, &listeners, &service)
            .map_err(|e| StartError::because("the worker threads could not be started", &e))?;
        let sockets = listeners.into_iter().map(|(bound, _)| bound).collect();
        let (end_tasks, end) = watch::channel(false);
        let tasks = background(&shared, probe, ask, (names, failing), &end);
        Ok(Server {
            shared,
            workers,
            addresses,
            sockets: Mutex::new(sockets),
            socket_files,
            handed_over: AtomicBool::new(false),
            started: config,
            certificates,
            exporter: Mutex::new(exporter),
            tasks,
            end_tasks,
        })
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where it listens, with the ports that the kernel chose.
    pub fn addresses(&self) -> &[(Role, ListenAddress)] {
        &self.addresses
    }

    /// The first TCP address for `role`.
    pub fn tcp_address(&self, role: Role) -> Option<std::net::SocketAddr> {
        self.addresses
            .iter()
            .find_map(|(of, address)| match address {
                ListenAddress::Tcp(address) if *of == role => Some(*address),
                _ => None,
            })
    }

    /// Puts a new configuration into effect: all of it or, on an error, nothing. Returns what is
    /// different, in words. What needs a restart is named in a warning.
    pub async fn reload(&self, config: Config) -> Result<String, StartError> {
        let reloaded = self.try_reload(config).await;
        self.shared.metrics.config_reloaded(reloaded.is_ok());
        reloaded
    }

    async fn try_reload(&self, config: Config) -> Result<String, StartError> {
        let current = self.shared.snapshot.load_full();
        let mut renewed = Vec::new();
        for shown in &self.certificates {
            renewed.extend(shown.read(&config)?.map(|read| (shown, read)));
        }
        let new_log = match config.access_log == current.config.access_log {
            true => None,
            false => Some(open_access_log(&config, &self.shared.metrics)?),
        };
        let new_tracing = match config.tracing == current.config.tracing {
            true => None,
            false => Some(start_tracing(&config, &self.shared.metrics)?.unzip()),
        };
        let names: Arc<dyn Resolve> = Arc::new(SystemResolver::default());
        let round = resolver::resolve(&config, &names).await;
        Failing::default().note(&round);
        let restart = restart_needed(&self.started, &config);
        let log = config.log.clone();
        let mut diff = self
            .shared
            .snapshot
            .apply(Arc::new(config), &round.resolved)?;
        for (shown, (listen, key, expires)) in renewed {
            if shown.certificates.show(key) {
                diff.note(format!("new certificate for {}", listen.address));
            }
            note_expiry(&self.shared, &listen, expires);
            *shown.listen.lock() = listen;
        }
        if let Some(access_log) = new_log {
            self.shared.replace_access_log(access_log);
        }
        if let Some((tracer, exporter)) = new_tracing {
            self.shared.replace_tracer(tracer);
            // The old one ends by itself, when the last request that has its tracer does.
            *self.exporter.lock() = exporter;
        }
        let epoch = self.shared.snapshot.load().epoch;
        self.shared
            .metrics
            .config_epoch
            .set(i64::try_from(epoch).unwrap_or(i64::MAX));
        crate::telemetry::logging::set_level(log.level);
        if !restart.is_empty() {
            warn!(
                "these changes take effect after an upgrade (-s upgrade) or a restart: {}",
                restart.join(", ")
            );
        }
        Ok(diff.to_string())
    }

    /// Requests of clients that are being answered.
    pub fn requests_in_hand(&self) -> u64 {
        self.shared.metrics.connection_counts.now().writing
    }

    /// Stops accepting and closes idle connections; resolves when the last request is done, or after
    /// `grace`. Returns whether all were done.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.shared.start_draining();
        self.sockets.lock().clear();
        self.workers.drain();
        let begun = Instant::now();
        let mut quiet_since = begun;
        loop {
            // First of all the workers take those in who have connected already.
            tokio::time::sleep(DRAIN_POLL).await;
            if self.workers.connections() == 0 {
                return true;
            }
            let now = self.shared.metrics.connection_counts.now();
            if now.writing > 0 {
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() >= DRAIN_IDLE {
                return true;
            }
            if begun.elapsed() >= grace {
                return false;
            }
        }
    }

    /// The listening sockets, for a process that is to take them over.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn sockets(&self) -> io::Result<Vec<Bound>> {
        self.sockets.lock().iter().map(Bound::try_clone).collect()
    }

    /// What a process that takes over is told of the endpoints that operators drained. Orders are refused from then
    /// on, until [`Self::take_orders`].
    pub fn hand_over_orders(&self) -> Vec<Vec<u8>> {
        let mut orders = self.shared.orders.lock();
        *orders = Orders::HandedOver;
        let now = Instant::now();
        let snapshot = self.shared.snapshot.load();
        let states: Vec<_> = snapshot.endpoints().map(|state| &**state).collect();
        drain_announcements(&states, now)
    }

    /// No process has taken over: this one takes orders as before.
    pub fn take_orders(&self) {
        *self.shared.orders.lock() = Orders::Taken;
    }

    /// Stops accepting, as another process does it on the same sockets; resolves when the last connection is closed,
    /// or after `grace`. Returns whether all requests were done. The sockets stay open, so that this process can
    /// [serve again](Self::serve_again) if that one dies.
    ///
    /// A connection stays until its next answer, which tells its client to close, or until it has idled for
    /// `client.idle_timeout`: to close one at once would lose the request that its client may be sending.
    pub async fn hand_over(&self, grace: Duration) -> bool {
        self.handed_over.store(true, Ordering::Relaxed);
        self.workers.hand_over();
        let begun = Instant::now();
        while self.workers.accept() || self.workers.connections() > 0 {
            if begun.elapsed() >= grace {
                return self.requests_in_hand() == 0;
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
        true
    }

    /// The process that it was handed over to has handed over in its turn, and ended: whoever serves now, this process
    /// would not know of its death.
    pub fn give_up_sockets(&self) {
        self.sockets.lock().clear();
        self.workers.give_up_sockets();
    }

    /// The process that it was handed over to has ended in order: nobody is to wait for one that accepts.
    pub fn refuse(&self) {
        for bound in self.sockets.lock().drain(..) {
            stop_listening(&bound.socket);
        }
    }

    /// The process that it was handed over to is no more: accepts again.
    pub fn serve_again(&self) {
        self.handed_over.store(false, Ordering::Relaxed);
        self.workers.serve_again();
        self.take_orders();
    }

    /// When each worker last showed that it runs.
    pub fn beats(&self) -> Beats {
        self.workers.beats()
    }

    /// Ends everything at once. Requests in hand are cut.
    pub async fn stop(self) {
        self.sockets.lock().clear();
        self.end_tasks.send_replace(true);
        for task in self.tasks {
            if task.await.is_err() {
                warn!("a background task panicked");
            }
        }
        let workers = self.workers;
        // Joining threads blocks.
        let stopped = tokio::task::spawn_blocking(move || workers.stop()).await;
        if stopped.is_err() {
            warn!("a worker could not be stopped");
        }
        self.shared.flush_access_log(LOG_FLUSH);
        self.shared.replace_tracer(None);
        let exporter = self.exporter.into_inner();
        if let Some(exporter) = exporter {
            exporter.finish(Instant::now() + SPAN_FLUSH).await;
        }
        if !self.handed_over.load(Ordering::Relaxed) {
            self.socket_files.iter().for_each(SocketFile::remove);
        }
        info!("stopped");
    }
}

/// What runs beside the requests, until `end`.
fn background(
    shared: &Arc<Shared>,
    probe: Arc<dyn Probe>,
    ask: Arc<dyn Ask>,
    (names, failing): (Arc<dyn Resolve>, Failing),
    end: &watch::Receiver<bool>,
) -> Vec<JoinHandle<()>> {
    vec![
        tokio::spawn(prober::run(
            Arc::clone(&shared.snapshot),
            probe,
            ended(end.clone()),
        )),
        tokio::spawn(catalog::run(
            Arc::clone(&shared.snapshot),
            ask,
            ended(end.clone()),
        )),
        tokio::spawn(hung::run(
            Arc::clone(&shared.snapshot),
            Arc::new(HttpCanary) as Arc<dyn Canary>,
            ended(end.clone()),
        )),
        tokio::spawn(presence::run(
            Arc::clone(&shared.snapshot),
            ended(end.clone()),
        )),
        tokio::spawn(scraper::run(
            Arc::clone(&shared.snapshot),
            Arc::new(HttpScrape) as Arc<dyn Scrape>,
            ended(end.clone()),
        )),
        tokio::spawn(resolver::run(
            Arc::clone(&shared.snapshot),
            names,
            failing,
            ended(end.clone()),
        )),
        tokio::spawn(series::run(Arc::clone(shared), ended(end.clone()))),
        tokio::spawn(drainer::run(
            Arc::clone(&shared.snapshot),
            ended(end.clone()),
        )),
        tokio::spawn(sweeper::run(
            Arc::clone(&shared.snapshot),
            ended(end.clone()),
        )),
    ]
}

/// What operators drained in the process before is not used in this one either.
fn drain_again(shared: &Shared, inherited: &Inherited) {
    let now = Instant::now();
    for state in shared.snapshot.load().endpoints() {
        for drained in &inherited.drained {
            drained.apply(state, now);
        }
    }
}

async fn ended(mut end: watch::Receiver<bool>) {
    // An error means that the sender is gone, which ends the tasks as well.
    let _ = end.wait_for(|end| *end).await;
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Pingora's own settings: it has no listener, no upstream pool and no thread of ours to configure.
fn server_conf(threads: usize) -> ServerConf {
    ServerConf {
        threads,
        ..ServerConf::default()
    }
}

fn open_access_log(config: &Config, metrics: &Metrics) -> Result<Option<AccessLog>, StartError> {
    let Some(log) = &config.access_log else {
        return Ok(None);
    };
    let dropped = metrics.log_lines_dropped.clone();
    AccessLog::open(log.path.as_deref(), log.format, dropped)
        .map(Some)
        .map_err(|e: io::Error| {
            let path = log
                .path
                .as_deref()
                .map_or("-".into(), |p| p.display().to_string());
            StartError::because(&format!("cannot open the access log {path}"), &e)
        })
}

fn start_tracing(
    config: &Config,
    metrics: &Metrics,
) -> Result<Option<(Arc<Tracer>, Exporter)>, StartError> {
    Tracer::start(&config.tracing, metrics.spans_dropped.clone())
        .map_err(|e| StartError::because("tracing.otlp", &e))
}

fn note_expiry(shared: &Shared, listen: &Listen, expires: Option<SystemTime>) {
    if let Some(at) = expires {
        shared
            .metrics
            .certificate_expires(&listen.address.to_string(), at);
    }
}
