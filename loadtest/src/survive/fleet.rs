//! The engines, as processes, so that real signals end them.

use std::fs;
use std::io::{Error, Result};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::schedule::{Fault, Planned};
use crate::compare::engines;
use crate::compare::process::Process;
use crate::engine::Death;

/// How long a new process may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Engines that run; dropping them ends them.
pub(super) struct Fleet {
    program: PathBuf,
    flags: Vec<String>,
    directory: PathBuf,
    engines: Vec<Engine>,
    /// The faults to come, by which an engine's process must know what SIGTERM means to it.
    planned: Vec<Planned>,
}

struct Engine {
    address: SocketAddr,
    process: Option<Process>,
}

impl Fleet {
    /// Starts `count` engines of `program engine` with these flags.
    pub(super) fn start(
        program: PathBuf,
        count: usize,
        flags: Vec<String>,
        planned: Vec<Planned>,
        directory: PathBuf,
    ) -> Result<Self> {
        let mut fleet = Self {
            program,
            flags,
            directory,
            engines: Vec::new(),
            planned,
        };
        for index in 0..count {
            let address = address_to_keep(&fleet.addresses())?;
            fleet.engines.push(Engine {
                address,
                process: None,
            });
            fleet.spawn(index, Duration::ZERO)?;
        }
        Ok(fleet)
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.engines.iter().map(|engine| engine.address).collect()
    }

    /// What this fault does to the engine.
    pub(super) fn strike(&mut self, planned: &Planned) -> Result<()> {
        let Some(process) = &self.engines[planned.engine].process else {
            return Err(Error::other("the engine has no process"));
        };
        process.signal(match planned.fault {
            Fault::Kill => "KILL",
            Fault::Hang => "STOP",
            Fault::Freeze | Fault::Abort | Fault::Error => "TERM",
        })
    }

    /// Ends the fault: the engine answers again, at the same address.
    pub(super) fn heal(&mut self, planned: &Planned) -> Result<()> {
        let engine = &mut self.engines[planned.engine];
        if planned.fault == Fault::Hang {
            return match &engine.process {
                Some(process) => process.signal("CONT"),
                None => Ok(()),
            };
        }
        if let Some(process) = engine.process.take() {
            // One that is frozen would wait for a second SIGTERM.
            _ = process.signal("KILL");
        }
        self.spawn(planned.engine, planned.heals)
    }

    fn spawn(&mut self, index: usize, now: Duration) -> Result<()> {
        let address = self.engines[index].address;
        let log = self.directory.join(format!("engine{index}.log"));
        let death = (self.planned.iter())
            .filter(|planned| planned.engine == index && planned.at >= now)
            .find_map(|planned| planned.fault.on_term());
        let begun = Instant::now();
        loop {
            let mut command = Command::new(&self.program);
            command
                .args(["engine", "--listen", &address.to_string()])
                .args(["--on-term", death_name(death.unwrap_or(Death::Close))])
                .args(&self.flags);
            let mut process = Process::start(command, &log)?;
            match engines::address(&log, &mut process) {
                Ok(_) => {
                    self.engines[index].process = Some(process);
                    return Ok(());
                }
                // The port is not free yet.
                Err(_) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in self.engines.iter().filter_map(|e| e.process.as_ref()) {
            // A stopped process does not hear SIGTERM, a frozen one waits for a second.
            _ = process.signal("KILL");
        }
    }
}

fn death_name(death: Death) -> &'static str {
    match death {
        Death::Close => "close",
        Death::Reset => "reset",
        Death::Freeze => "freeze",
        Death::Abort => "abort",
        Death::Error => "error",
    }
}

/// An address whose port no outgoing connection can take while the engine is away: below the kernel's own range,
/// where a connect to a dead port could even meet itself.
fn address_to_keep(taken: &[SocketAddr]) -> Result<SocketAddr> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range
        .split_ascii_whitespace()
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or(32_768_u16);
    let lowest = 10_000.min(first.saturating_sub(1));
    for _ in 0..1000 {
        let address = SocketAddr::from(([127, 0, 0, 1], fastrand::u16(lowest..first)));
        if !taken.contains(&address) && TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(Error::other("no port is free for an engine"))
}
