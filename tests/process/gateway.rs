//! A gateway as a process: its directory, its file, what it says, and its end.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_sluicegate");
/// Far longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that is removed when dropped.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "process-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Relaxed)
        );
        // Short: the path of a Unix socket has at most 107 bytes.
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Lines that a process wrote, as they come.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    pub fn of(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let into = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                into.0.lock().unwrap().push(line);
            }
        });
        lines
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn count(&self, part: &str) -> usize {
        self.all().iter().filter(|line| line.contains(part)).count()
    }

    /// Waits for the `n`th line that has `part` in it, counted from 1.
    pub fn wait_for(&self, n: usize, part: &str) -> String {
        let begun = Instant::now();
        loop {
            let all = self.all();
            if let Some(line) = all.iter().filter(|line| line.contains(part)).nth(n - 1) {
                return line.clone();
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{part:?} was not written {n} times: {all:#?}"
            );
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// How a gateway is started.
pub struct Start {
    /// The keys besides `listen`, `admin`, `pid_file`; indented by nothing.
    keys: String,
    listen: String,
    admin: String,
    environment: Vec<(&'static str, String)>,
    open_files: Option<u64>,
    program: PathBuf,
    directory: Directory,
}

/// A process that is killed when dropped, also by a test that fails while it starts.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A gateway with one TCP listener for clients and one for the admin; killed when dropped.
pub struct Gateway {
    child: Guarded,
    pub directory: Directory,
    pub file: PathBuf,
    /// The first of the listeners.
    pub public: SocketAddr,
    pub listeners: Vec<SocketAddr>,
    pub admin: SocketAddr,
    pub log: Lines,
    /// Standard output: the access log, unless the file says otherwise.
    pub output: Lines,
    listen: String,
    admin_keys: String,
}

impl Start {
    /// A gateway in front of `endpoints`, with these keys at the top of its file.
    pub fn new(endpoints: &[String], keys: &str) -> Self {
        Self {
            keys: format!("endpoints: [{}]\n{keys}", quoted(endpoints)),
            listen: "127.0.0.1:0".into(),
            admin: "127.0.0.1:0".into(),
            environment: Vec::new(),
            open_files: None,
            program: PROGRAM.into(),
            directory: Directory::new(),
        }
    }

    /// These keys alone; they hold the endpoints.
    pub fn with_keys(keys: &str) -> Self {
        Self {
            keys: keys.into(),
            ..Self::new(&[], "")
        }
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What `listen:` says, with port 0.
    pub fn listen(mut self, listen: impl Into<String>) -> Self {
        self.listen = listen.into();
        self
    }

    /// What `admin:` says, with an address of port 0 in it.
    pub fn admin(mut self, admin: impl Into<String>) -> Self {
        self.admin = admin.into();
        self
    }

    pub fn environment(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Both limits of open files, which the gateway cannot raise again.
    pub fn open_files(mut self, most: u64) -> Self {
        self.open_files = Some(most);
        self
    }

    /// Another file than the program under test, which leads to it.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = path.into();
        self
    }

    /// Starts it and waits until it serves.
    pub fn run(self) -> Gateway {
        let file = self.directory.path().join("sluicegate.yaml");
        fs::write(
            &file,
            content(&self.listen, &self.admin, self.directory.path(), &self.keys),
        )
        .unwrap();
        let mut command = match self.open_files {
            None => Command::new(&self.program),
            Some(most) => {
                let mut limited = Command::new("prlimit");
                limited
                    .arg(format!("--nofile={most}:{most}"))
                    .arg(&self.program);
                limited
            }
        };
        command
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env_remove("RUST_LOG")
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .envs(self.environment.clone());
        let mut child = Guarded(command.spawn().unwrap());
        let log = Lines::of(child.0.stderr.take().unwrap());
        let output = Lines::of(child.0.stdout.take().unwrap());
        // Its last line; what an endpoint serves may be told before.
        while log.count("INFO sluicegate ") == 0 {
            let ended = child.0.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "it ended at once, {ended:?}: {:#?}",
                log.all()
            );
            thread::sleep(Duration::from_millis(2));
        }
        let addresses = |what: &str| -> Vec<SocketAddr> {
            let all = log.all();
            let lines = all.iter().filter(|line| line.contains(what));
            // Not those of Unix sockets.
            lines
                .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
                .collect()
        };
        let listeners = addresses("listening on ");
        Gateway {
            child,
            public: listeners[0],
            listeners,
            admin: addresses("admin on ")[0],
            file,
            log,
            output,
            listen: self.listen,
            admin_keys: self.admin,
            directory: self.directory,
        }
    }
}

impl Gateway {
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    pub fn pid_file(&self) -> PathBuf {
        self.directory.path().join("sluicegate.pid")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// The process that serves: another one after an upgrade.
    pub fn serving(&self) -> Option<u32> {
        let text = fs::read_to_string(self.pid_file()).ok()?;
        text.trim().parse().ok()
    }

    pub fn signal_serving(&self, signal: Signal) {
        kill(Pid::from_raw(self.serving().unwrap() as i32), signal).unwrap();
    }

    /// Has the process that serves replaced; the new one's id.
    pub fn upgrade(&self) -> u32 {
        let before = self.log.count(" serves now; ");
        self.signal_serving(Signal::SIGUSR2);
        self.log.wait_for(before + 1, " serves now; ");
        self.serving().unwrap()
    }

    /// All that run with its file, the oldest first.
    fn processes(&self) -> Vec<i32> {
        let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let entry = entry.ok()?;
            let command = fs::read(entry.path().join("cmdline")).ok()?;
            let mut arguments = command.split(|byte| *byte == 0);
            let is_ours = arguments.any(|one| one == self.file.as_os_str().as_encoded_bytes());
            is_ours.then(|| entry.file_name().to_str()?.parse().ok())?
        });
        let mut pids: Vec<_> = pids.collect();
        pids.sort_unstable();
        pids
    }

    /// Changes the file; the listeners stay.
    pub fn rewrite(&self, keys: &str) {
        fs::write(
            &self.file,
            content(&self.listen, &self.admin_keys, self.directory.path(), keys),
        )
        .unwrap();
    }

    /// Changes the file and has it read; waits until that is done.
    pub fn reload(&self, keys: &str) -> String {
        let before = self.log.count(" reloaded: ");
        self.rewrite(keys);
        self.signal(Signal::SIGHUP);
        self.log.wait_for(before + 1, " reloaded: ")
    }

    pub fn is_running(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn ended(&mut self, within: Duration) -> Option<ExitStatus> {
        ended(&mut self.child.0, within)
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// CPU time used so far.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let after_name = stat.rsplit(')').next().unwrap();
        // Fields 14 and 15 (proc_pid_stat(5)), in hundredths of a second.
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|f| f.parse::<u64>().unwrap())
            .sum();
        Duration::from_millis(ticks * 10)
    }

    fn status(&self, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Each before its successor, for which it would serve again.
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if thread::panicking() {
            eprintln!("the gateway's log:\n{}", self.log.all().join("\n"));
        }
    }
}

/// Waits for the end of a process.
pub fn ended(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if begun.elapsed() > within {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// `a, b` in quotes, as a YAML list holds them.
pub fn quoted(endpoints: &[String]) -> String {
    let quoted: Vec<_> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    quoted.join(", ")
}

fn content(listen: &str, admin: &str, directory: &Path, keys: &str) -> String {
    let pid_file = directory.join("sluicegate.pid");
    format!(
        "listen: {listen}\nadmin: {admin}\npid_file: {}\n{keys}",
        pid_file.display()
    )
}
