//! What the process does when it is signalled, until it ends.

use std::path::Path;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::time::Duration;

use log::{error, info, warn};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

use crate::config::{self, Config};
use crate::listener::handover::Predecessor;
use crate::server::Server;

use super::pid_file::PidFile;
use super::signals::{Signals, orders_stop};
use super::upgrade::{Failure, Program, Successor};
use super::{systemd, watchdog};

/// The process around the server.
#[derive(Debug, Default)]
pub struct Process<'a> {
    /// Read again on HUP; `None` = there is none to read.
    pub file: Option<&'a Path>,
    /// Started anew on USR2; `None` = this is no process of its own.
    pub program: Option<Program>,
    pub pid_file: Option<PidFile>,
    /// The process that handed over to this one, while it may still finish what it has.
    pub predecessor: Option<Predecessor>,
}

/// Serves until a signal ends it, or another process has taken over.
pub async fn supervise(server: Server, mut signals: Signals, process: Process<'_>) -> ExitCode {
    systemd::serving();
    let mut watchdog = watchdog::start(server.beats());
    loop {
        match signals.next().await {
            // Looking names up may take seconds, for which nobody who stops the gateway has to wait.
            SIGHUP => tokio::select! {
                () = reload(&server, process.file) => {}
                () = signals.ordered_to_stop() => {}
            },
            SIGUSR1 => reopen(&server),
            SIGUSR2 => {
                if let Some(successor) = upgrade(&server, &mut signals, &process).await {
                    if let Some(watchdog) = watchdog.take() {
                        watchdog.abort();
                    }
                    if let Some(predecessor) = &process.predecessor {
                        predecessor.left();
                    }
                    // The new one may have written its own elsewhere.
                    if let Some(pid_file) = &process.pid_file {
                        pid_file.remove();
                    }
                    match leave(&server, &mut signals, successor).await {
                        Left::Done(drained) => return end(server, drained).await,
                        Left::Alone(problem) => serve_again(&server, &process, &problem),
                    }
                    watchdog = watchdog::start(server.beats());
                }
            }
            SIGTERM | SIGQUIT => return stop(server, signals).await,
            _ => {
                info!("stopping now");
                systemd::stopping("stopping");
                server.stop().await;
                return ExitCode::SUCCESS;
            }
        }
    }
}

/// Ends when the requests in hand are done.
async fn stop(server: Server, mut signals: Signals) -> ExitCode {
    systemd::stopping("draining");
    let grace = grace(&server);
    info!(
        "draining: no new connections; {} requests in hand have {} s",
        server.requests_in_hand(),
        grace.as_secs()
    );
    let drained = {
        let mut drained = pin!(server.drain(grace));
        loop {
            tokio::select! {
                drained = &mut drained => break drained,
                signal = signals.next() => match signal {
                    SIGTERM | SIGINT => {
                        info!("told again: stopping now");
                        break false;
                    }
                    SIGUSR1 => reopen(&server),
                    SIGHUP | SIGUSR2 => warn!("draining already: the signal is ignored"),
                    _ => {}
                },
            }
        }
    };
    end(server, drained).await
}

/// What came of handing over.
enum Left {
    /// It is over, and whether all requests were done.
    Done(bool),
    /// Nobody serves: why.
    Alone(String),
}

/// Ends when the clients of this process have gone to its successor, or that has died.
async fn leave(server: &Server, signals: &mut Signals, mut successor: Successor) -> Left {
    let (pid, grace) = (successor.pid(), grace(server));
    info!(
        "process {pid} serves now; connections here end with their next answer, {} requests are in hand, for {} s at \
         most",
        server.requests_in_hand(),
        grace.as_secs()
    );
    if signals.revoke(SIGHUP) {
        info!("HUP came meanwhile: process {pid} is told");
        pass_on(pid, Signal::SIGHUP);
    }
    let (mut is_alive, mut is_told) = (true, false);
    let mut left: Pin<Box<dyn Future<Output = bool> + '_>> = Box::pin(server.hand_over(grace));
    loop {
        tokio::select! {
            drained = &mut left => return Left::Done(drained),
            status = successor.ended(), if is_alive => {
                is_alive = false;
                match status {
                    Ok(_) if successor.has_left() => {
                        info!("process {pid}, which had taken over, has handed over itself and ended");
                        server.give_up_sockets();
                    }
                    Ok(status) if status.success() => {
                        info!("process {pid}, which had taken over, has ended");
                        server.refuse();
                    }
                    Ok(status) => {
                        let problem = format!("process {pid}, which had taken over, has ended with {status}");
                        if !is_told {
                            return Left::Alone(problem);
                        }
                        error!("{problem}");
                    }
                    Err(e) => warn!("process {pid} cannot be watched: {e}"),
                }
            }
            signal = signals.next() => match signal {
                SIGUSR1 => reopen(server),
                SIGTERM | SIGQUIT if !is_told => {
                    is_told = true;
                    info!("told to stop: idle connections are closed, requests in hand have {} s", grace.as_secs());
                    left = Box::pin(server.drain(grace));
                }
                SIGTERM | SIGINT => {
                    info!("told to stop now");
                    return Left::Done(false);
                }
                SIGHUP | SIGUSR2 => warn!("process {pid} serves now: the signal is for that one"),
                _ => {}
            },
        }
    }
}

/// Takes up again what was handed over: with the program and the configuration of before, which is better than nobody.
fn serve_again(server: &Server, process: &Process<'_>, problem: &str) {
    server.serve_again();
    if let Some(pid_file) = &process.pid_file {
        pid_file.write_again();
    }
    error!("{problem}; this process serves again, as before the upgrade");
    systemd::main_process(std::process::id());
    systemd::not_upgraded(problem);
}

async fn end(server: Server, drained: bool) -> ExitCode {
    let requests = server.requests_in_hand();
    if !drained && requests > 0 {
        warn!(
            "{requests} requests are still in hand and are cut; the access log has no line for them"
        );
    }
    server.stop().await;
    ExitCode::SUCCESS
}

fn grace(server: &Server) -> Duration {
    server.shared().snapshot.load().config.shutdown_grace
}

fn reopen(server: &Server) {
    info!("reopening the access log");
    server.shared().reopen_access_log();
}

fn pass_on(pid: u32, signal: Signal) {
    let told = i32::try_from(pid)
        .map_err(|_| nix::errno::Errno::ESRCH)
        .and_then(|pid| kill(Pid::from_raw(pid), signal));
    if let Err(e) = told {
        warn!("process {pid} cannot be signalled: {e}");
    }
}

/// Has the program, as it is installed now, take over. `None` when it did not, for whatever reason; then nothing is
/// different from before.
async fn upgrade(
    server: &Server,
    signals: &mut Signals,
    process: &Process<'_>,
) -> Option<Successor> {
    let Some(program) = &process.program else {
        warn!("USR2: the demo cannot be upgraded in place");
        return None;
    };
    info!("upgrading: {} is started", program.path.display());
    systemd::reloading("upgrading");
    match start_successor(server, signals, program).await {
        Ok(successor) => Some(successor),
        Err(failure) => {
            server.take_orders();
            if let Some(pid_file) = &process.pid_file {
                pid_file.write_again();
            }
            error!("upgrade failed; this process serves on: {failure}");
            systemd::not_upgraded(&failure.to_string());
            None
        }
    }
}

/// A successor that serves, and knows that it is alone.
async fn start_successor(
    server: &Server,
    signals: &mut Signals,
    program: &Program,
) -> Result<Successor, Failure> {
    let sockets = server.sockets().map_err(Failure::NotStarted)?;
    let drained = server.hand_over_orders();
    let mut successor = Successor::start(program)?;
    let pid = successor.pid();
    let served = {
        let mut serves = pin!(successor.serves(&sockets, &drained));
        loop {
            tokio::select! {
                served = &mut serves => break served,
                signal = signals.arrival() => match signal {
                    SIGUSR1 => reopen(server),
                    SIGUSR2 => warn!("USR2: refused, an upgrade is under way; process {pid} has not served yet"),
                    signal => {
                        signals.postpone(signal);
                        if orders_stop(signal) {
                            break Err(Failure::CalledOff);
                        }
                    }
                },
            }
        }
    };
    let told = match served {
        // Before it is told to go on: systemd hears it only once it knows of it.
        Ok(()) => {
            systemd::main_process(pid);
            successor.go().map_err(Failure::Channel)
        }
        Err(failure) => Err(failure),
    };
    match told {
        Ok(()) => Ok(successor),
        Err(failure) => {
            successor.kill().await;
            Err(failure)
        }
    }
}

async fn reload(server: &Server, file: Option<&Path>) {
    let Some(file) = file else {
        return warn!("HUP: there is no configuration file to read again");
    };
    systemd::reloading("reloading");
    match config::load(file, &|name| std::env::var(name).ok()) {
        Ok(config) => take(server, config).await,
        Err(diagnostics) => {
            server.shared().metrics.config_reloaded(false);
            for line in diagnostics.to_string().lines() {
                error!("{line}");
            }
            error!("reload refused; the configuration of before serves on");
        }
    }
    systemd::serving();
}

async fn take(server: &Server, config: Config) {
    for remark in config.remarks.iter() {
        warn!("{remark}");
    }
    match server.reload(config).await {
        Ok(diff) => info!("reloaded: {diff}"),
        Err(e) => error!("reload refused; the configuration of before serves on: {e}"),
    }
}
