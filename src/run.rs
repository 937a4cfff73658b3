//! The gateway as a process: logging, limits, the pid file, and its runtime.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use log::{error, info, warn};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::Config;
use crate::listener::Role;
use crate::server::{Server, StartError};
use crate::tasks::supervisor::{Signals, supervise};
use crate::telemetry::logging;

/// Runs the gateway until a signal ends it. `file` is what HUP reads again.
pub fn run(config: Config, file: Option<&Path>, signals: Signals) -> ExitCode {
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
        let pid_file = config.pid_file.clone();
        match Server::start(config).await {
            Ok(server) => {
                let pid_file = pid_file.and_then(|path| PidFile::write(path, file.is_some()));
                announce(&server);
                let code = supervise(server, signals, file).await;
                drop(pid_file);
                code
            }
            Err(e) => refused(&e),
        }
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

fn refused(e: &StartError) -> ExitCode {
    error!("{e}");
    ExitCode::FAILURE
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

/// The file that names this process; removed when dropped.
struct PidFile(PathBuf);

impl PidFile {
    fn write(path: PathBuf, is_wanted: bool) -> Option<PidFile> {
        if !is_wanted {
            return None;
        }
        if let Some(directory) = path.parent() {
            // If this fails, so does the write, and says why.
            let _ = std::fs::create_dir(directory);
        }
        match std::fs::write(&path, format!("{}\n", std::process::id())) {
            Ok(()) => Some(PidFile(path)),
            Err(e) => {
                warn!(
                    "no pid file: {}: {e}; `-s` will not find this process",
                    path.display()
                );
                None
            }
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another process may have taken it over.
        let ours = std::fs::read_to_string(&self.0)
            .is_ok_and(|text| text.trim() == std::process::id().to_string());
        if ours {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}
