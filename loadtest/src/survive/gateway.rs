//! The gateway under trial: its process, also after upgrades, and its signals.

use std::fs;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::watch;
use crate::compare::gateway::{Gateway, Kind, free_address};
use crate::compare::process::Process;
use crate::compare::site::Site;

/// Until the first answer, and until a reload or an upgrade is done. Gateways in Python import for long.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct Trial {
    gateway: Gateway,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    engines: Vec<SocketAddr>,
    pool: String,
    directory: PathBuf,
    process: Process,
    /// Every process that has served.
    served: Vec<u32>,
    rewritten: u64,
}

impl Trial {
    /// Starts it; returns when it accepts connections.
    pub(super) fn start(
        gateway: &Gateway,
        engines: Vec<SocketAddr>,
        pool: &str,
        directory: &Path,
    ) -> Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let site = Site {
            address,
            admin,
            engines: &engines,
            logs: true,
            directory,
            pool,
            keys: "",
        };
        site.write(gateway.kind)?;
        let log = directory.join("output.log");
        let mut process = Process::start(site.command(gateway.kind, &gateway.program), &log)?;
        let begun = Instant::now();
        while watch::get(address, "/health").is_err() {
            let output = || fs::read_to_string(&log).unwrap_or_default();
            process
                .check()
                .map_err(|error| Error::other(format!("{error}\n{}", output())))?;
            if begun.elapsed() > PATIENCE {
                let name = &gateway.name;
                return Err(Error::other(format!(
                    "{name} does not answer\n{}",
                    output()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self {
            gateway: gateway.clone(),
            address,
            admin,
            engines,
            pool: pool.to_owned(),
            directory: directory.to_owned(),
            served: vec![process.id()],
            process,
            rewritten: 0,
        })
    }

    /// Whether it has endpoints, epochs and upgrades to ask for.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self.gateway.kind, Kind::Sluicegate | Kind::SluicegateLlm)
    }

    /// The process that serves now; the last one known while its file is being written.
    pub(super) fn serving(&self) -> u32 {
        let file = fs::read_to_string(self.directory.join("sluicegate.pid"));
        let pid = file.ok().and_then(|text| text.trim().parse().ok());
        let last = self.served.last().copied();
        pid.filter(|_| self.is_ours())
            .unwrap_or(last.unwrap_or(self.process.id()))
    }

    /// Changes a limit that nothing meets, and has the file read; returns when it is in force.
    pub(super) fn reload(&mut self) -> Result<()> {
        self.rewritten += 1;
        let keys = format!("limits: {{ n: {} }}\n", 16 + self.rewritten % 2);
        let site = Site {
            address: self.address,
            admin: self.admin,
            engines: &self.engines,
            logs: true,
            directory: &self.directory,
            pool: &self.pool,
            keys: &keys,
        };
        site.write(self.gateway.kind)?;
        let before = self.epoch()?;
        signal("HUP", self.serving())?;
        self.wait("reload", || self.epoch().is_ok_and(|epoch| epoch != before))
    }

    /// Has the process replaced by a new one of the same program.
    pub(super) fn upgrade(&mut self) -> Result<()> {
        let before = self.serving();
        signal("USR2", before)?;
        self.wait("upgrade", || self.serving() != before)?;
        self.served.push(self.serving());
        Ok(())
    }

    fn epoch(&self) -> Result<u64> {
        let metrics = watch::get(self.admin, "/metrics")?;
        Ok(watch::sum(&metrics, "sluicegate_config_epoch", "") as u64)
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !done() {
            if begun.elapsed() > PATIENCE {
                return Err(Error::other(format!("no {what} in {PATIENCE:?}")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let program = fs::canonicalize(&self.gateway.program);
        for pid in self.served.iter().skip(1) {
            // Not another's process that has the id by now.
            let runs = fs::read_link(format!("/proc/{pid}/exe"));
            if runs.is_ok_and(|runs| program.as_ref().is_ok_and(|program| *program == runs)) {
                _ = signal("KILL", *pid);
            }
        }
    }
}

fn signal(name: &str, pid: u32) -> Result<()> {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .stderr(Stdio::null())
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::other(format!("kill -{name} {pid}: {status}"))),
    }
}
