//! The gateway as a process: logging, limits, the pid file, and its runtime.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use log::{error, info, warn};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;
use crate::listener::Role;
use crate::listener::handover::{Inherited, Predecessor};
use crate::server::Server;
use crate::tasks::pid_file::PidFile;
use crate::tasks::signals::Signals;
use crate::tasks::supervisor::{Process, supervise};
use crate::tasks::upgrade::Program;
use crate::telemetry::logging;

/// Runs the gateway until a signal ends it. `file` is what HUP reads again. From `predecessor`, a process that wants to
/// be replaced, it takes the sockets.
pub fn run(
    config: Config,
    file: Option<&Path>,
    signals: Signals,
    predecessor: Option<Predecessor>,
) -> ExitCode {
    logging::start(config.log.level, config.log.format);
    for remark in config.remarks.iter() {
        warn!("{remark}");
    }
    raise_file_limit();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(e) => {
            error!("the runtime could not be started: {e}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        let pid_file = config.pid_file.clone().filter(|_| file.is_some());
        let (server, inherited) = match start(config, predecessor.as_ref()).await {
            Ok(started) => started,
            Err(problem) => return refused(&problem, predecessor.as_ref()),
        };
        let mut process = Process {
            file,
            program: program(),
            pid_file: pid_file.and_then(PidFile::write),
            predecessor: None,
        };
        announce(&server);
        if let Some(predecessor) = predecessor {
            let ready = move || {
                predecessor.ready();
                predecessor
            };
            // A panic of `ready` would be one of this process.
            process.predecessor = tokio::task::spawn_blocking(ready).await.ok();
            inherited.discard();
        }
        supervise(server, signals, process).await
    });
    // A look-up of a name may hang in a thread of its own; nobody waits for it.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

/// One thread for what runs beside the requests; the workers have their own.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("tasks")
        .enable_all()
        .build()
}

/// The server, and those sockets of the predecessor that its configuration does not have.
async fn start(
    config: Config,
    predecessor: Option<&Predecessor>,
) -> Result<(Server, Inherited), String> {
    let mut inherited = match predecessor.map(Predecessor::sockets) {
        None => Inherited::default(),
        Some(Ok(inherited)) => inherited,
        Some(Err(e)) => {
            return Err(format!(
                "the process that is to be replaced does not hand its sockets over: {e}"
            ));
        }
    };
    match Server::start_with(config, &mut inherited).await {
        Ok(server) => Ok((server, inherited)),
        Err(e) => Err(e.to_string()),
    }
}

fn refused(problem: &str, predecessor: Option<&Predecessor>) -> ExitCode {
    error!("{problem}");
    if let Some(predecessor) = predecessor {
        predecessor.failed(problem);
    }
    ExitCode::FAILURE
}

fn program() -> Option<Program> {
    Program::of_this_process()
        .inspect_err(|e| warn!("this process cannot be upgraded in place: {e}"))
        .ok()
}

fn announce(server: &Server) {
    for (role, address) in server.addresses() {
        let role = match role {
            Role::Public => "listening on",
            Role::Admin => "admin on",
        };
        info!("{role} {address}");
    }
    let snapshot = server.shared().snapshot.load();
    let endpoints: usize = snapshot.pools.iter().map(|pool| pool.endpoints.len()).sum();
    info!(
        "sluicegate {} serves {endpoints} endpoints",
        env!("CARGO_PKG_VERSION")
    );
}

/// Every client and every stream takes a descriptor on each side: take as many as we may
/// (nginx `worker_rlimit_nofile`).
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(e) = raised {
        warn!("the limit of open files could not be raised: {e}");
    }
}
