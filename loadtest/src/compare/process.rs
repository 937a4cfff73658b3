//! Processes that a comparison starts, measures and ends: its own children and what they started, by id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Error, Result};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::record::Machine;

/// Clock ticks a second in `/proc` (USER_HZ), the same on every architecture Rust's Linux targets have.
const TICKS: f64 = 100.0;
const PATIENCE: Duration = Duration::from_secs(5);

/// A child process. Dropping it ends it and what it started.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `command` with its output in `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = command
            .spawn()
            .map_err(|error| Error::new(error.kind(), format!("{name}: {error}")))?;
        Ok(Self { child, name })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails when the process has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(Error::other(format!("{} ended: {status}", self.name))),
        }
    }

    /// The process and everything it started that still runs.
    pub(crate) fn tree(&self) -> BTreeSet<u32> {
        tree(self.id())
    }

    /// CPU time of the tree so far, user and system, with that of its processes that ended.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks: u64 = self
            .tree()
            .into_iter()
            .filter_map(stat)
            .map(|stat| stat.ticks)
            .sum();
        Duration::from_secs_f64(ticks as f64 / TICKS)
    }

    /// Bytes of memory of the tree, pages that its processes share counted once (PSS).
    pub(crate) fn memory(&self) -> u64 {
        self.tree().into_iter().filter_map(pss).sum()
    }

    /// Sends a signal to the process alone.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        signal(self.id(), name)
    }

    fn end(&mut self) {
        let tree = self.tree();
        if signal(self.id(), "TERM").is_ok() {
            let start = Instant::now();
            while start.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // What is left did not listen. A process with the same id that is no longer of this tree is spared.
        let left = |pid: u32| {
            stat(pid).is_some_and(|stat| tree.contains(&stat.parent) || stat.parent == 1)
        };
        if matches!(self.child.try_wait(), Ok(None)) {
            _ = self.child.kill();
            _ = self.child.wait();
        }
        let id = self.id();
        for pid in tree.iter().copied().filter(|pid| *pid != id && left(*pid)) {
            _ = signal(pid, "KILL");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn signal(pid: u32, name: &str) -> Result<()> {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .stderr(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::other(format!("kill -{name} {pid}: {status}")))
    }
}

struct Stat {
    parent: u32,
    /// utime, stime and those of children waited for.
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc(5): the name in parentheses may hold anything, so fields are counted from its end.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = fields
        .get(11..15)?
        .iter()
        .map(|field| field.parse::<u64>())
        .sum::<std::result::Result<u64, _>>();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        ticks: ticks.ok()?,
    })
}

fn tree(root: u32) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeSet::from([root]);
    };
    for pid in entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    {
        if let Some(stat) = stat(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut tree = BTreeSet::from([root]);
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            tree.insert(child);
            open.push(child);
        }
    }
    tree
}

fn pss(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_ascii_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The 1, 5 and 15 minute load of the machine.
pub(crate) fn machine_load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_ascii_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// This machine.
pub(crate) fn machine() -> Machine {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(": unknown processor");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Machine {
        processor: model.trim_start_matches([' ', '\t', ':']).to_owned(),
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        kernel: kernel.trim().to_owned(),
    }
}

/// How many files a process may open.
pub(crate) fn open_files() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_does_not_confuse_its_numbers() {
        let text = "12 (a) b (c) S 7 12 12 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 100 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 100));
        assert!(parse_stat("nonsense").is_none());
    }

    #[test]
    fn a_tree_is_measured_and_ended_whole() {
        let log = std::env::temp_dir().join(format!("process-{}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 60 & sleep 60 & wait"]);
        let mut process = Process::start(command, &log).unwrap();
        let start = Instant::now();
        while process.tree().len() < 3 && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        let tree = process.tree();
        assert_eq!(tree.len(), 3);
        assert!(process.memory() > 0);
        process.check().unwrap();
        drop(process);
        std::thread::sleep(Duration::from_millis(50));
        let gone = |pid: &u32| {
            stat(*pid).is_none()
                || fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .unwrap_or_default()
                    .is_empty()
        };
        assert!(tree.iter().all(gone));
        fs::remove_file(log).unwrap();
    }
}
