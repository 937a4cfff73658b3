//! The signals of the process, and what systemd is told.
//!
//! HUP, USR1 and USR2 would kill a process that does not handle them, so [`Signals::take`] is the first
//! act of `main`.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use log::{error, info, warn};
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use tokio::sync::mpsc;

use crate::config::{self, Config};
use crate::server::Server;

/// What the process was told to do, in order.
pub struct Signals {
    arriving: mpsc::UnboundedReceiver<i32>,
    /// Arrived while another was obeyed.
    waiting: VecDeque<i32>,
}

impl Signals {
    /// Takes over every signal that has a meaning here.
    pub fn take() -> io::Result<Signals> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut signals = signal_hook::iterator::Signals::new([
            SIGHUP, SIGUSR1, SIGUSR2, SIGTERM, SIGQUIT, SIGINT,
        ])?;
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    if sender.send(signal).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Signals {
            arriving: receiver,
            waiting: VecDeque::new(),
        })
    }

    async fn next(&mut self) -> i32 {
        let signal = match self.waiting.pop_front() {
            Some(signal) => signal,
            None => self.arrival().await,
        };
        if signal == SIGHUP {
            // One reading of the file answers all that have come before it.
            while let Ok(more) = self.arriving.try_recv() {
                self.waiting.push_back(more);
            }
            self.waiting.retain(|waiting| *waiting != SIGHUP);
        }
        signal
    }

    async fn arrival(&mut self) -> i32 {
        // The sender lives as long as the process; without it, stopping is all that is left.
        self.arriving.recv().await.unwrap_or(SIGINT)
    }

    /// Resolves when an order to stop has come, which is then the next; what comes before it waits.
    async fn ordered_to_stop(&mut self) {
        loop {
            let signal = self.arrival().await;
            if matches!(signal, SIGTERM | SIGQUIT | SIGINT) {
                return self.waiting.push_front(signal);
            }
            self.waiting.push_back(signal);
        }
    }
}

/// Serves until a signal ends it. `file` is read again on HUP; `None` = there is none to read.
pub async fn supervise(server: Server, mut signals: Signals, file: Option<&Path>) -> ExitCode {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
    loop {
        match signals.next().await {
            // Looking names up may take seconds, for which nobody who stops the gateway has to wait.
            SIGHUP => tokio::select! {
                () = reload(&server, file) => {}
                () = signals.ordered_to_stop() => {}
            },
            SIGUSR1 => {
                info!("reopening the access log");
                server.shared().reopen_access_log();
            }
            SIGUSR2 => warn!("USR2: upgrading in place is not supported yet; restart to upgrade"),
            SIGTERM | SIGQUIT => break,
            _ => {
                info!("stopping now");
                tell(&[NotifyState::Stopping]);
                server.stop().await;
                return ExitCode::SUCCESS;
            }
        }
    }
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
    let grace = server.shared().snapshot.load().config.shutdown_grace;
    info!(
        "draining: no new connections; {} requests in hand have {} s",
        server.requests_in_hand(),
        grace.as_secs()
    );
    let drained = tokio::select! {
        drained = server.drain(grace) => drained,
        () = told_to_stop(&mut signals) => {
            info!("told again: stopping now");
            false
        }
    };
    if !drained {
        let requests = server.requests_in_hand();
        warn!(
            "{requests} requests are still in hand and are cut; the access log has no line for them"
        );
    }
    server.stop().await;
    ExitCode::SUCCESS
}

/// While draining only a second order to stop counts.
async fn told_to_stop(signals: &mut Signals) {
    loop {
        match signals.next().await {
            SIGTERM | SIGINT => return,
            SIGHUP | SIGUSR1 | SIGUSR2 => warn!("draining already: the signal is ignored"),
            _ => {}
        }
    }
}

async fn reload(server: &Server, file: Option<&Path>) {
    let Some(file) = file else {
        return warn!("HUP: there is no configuration file to read again");
    };
    let mut reloading = vec![NotifyState::Reloading];
    reloading.extend(NotifyState::monotonic_usec_now().ok());
    tell(&reloading);
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
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
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

/// Tells systemd, if there is one to be told.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        warn!("systemd could not be told: {e}");
    }
}
