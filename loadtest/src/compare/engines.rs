//! The engines behind the gateways: processes of this same program.

use std::io::{Error, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::process::Process;

/// Engines that run; dropping them ends them.
pub(super) struct Engines {
    pub addresses: Vec<SocketAddr>,
    _processes: Vec<Process>,
}

impl Engines {
    /// Starts `count` engines of `program engine` with these flags.
    pub(super) fn start(
        program: &Path,
        count: usize,
        flags: &[&str],
        directory: &Path,
    ) -> Result<Self> {
        let (mut addresses, mut processes) = (Vec::new(), Vec::new());
        for number in 0..count {
            let log = directory.join(format!("engine{number}.log"));
            let mut command = Command::new(program);
            command
                .args(["engine", "--listen", "0", "--tokens", "1000000000"])
                .args(flags);
            let mut process = Process::start(command, &log)?;
            addresses.push(address(&log, &mut process)?);
            processes.push(process);
        }
        Ok(Self {
            addresses,
            _processes: processes,
        })
    }
}

/// An engine says where it listens in its first line.
pub(crate) fn address(log: &Path, process: &mut Process) -> Result<SocketAddr> {
    let start = Instant::now();
    loop {
        let text = std::fs::read_to_string(log)?;
        if let Some((line, _)) = text.split_once('\n') {
            let address = line
                .strip_prefix("listening on ")
                .and_then(|address| address.parse().ok());
            return address.ok_or_else(|| Error::other(text));
        }
        process.check()?;
        if start.elapsed() > Duration::from_secs(5) {
            return Err(Error::other("an engine does not start"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
