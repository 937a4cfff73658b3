//! Hosts of our own: network namespaces on one switch. Nothing of them has a name, so nothing is left behind: a
//! namespace ends with its last process, and every process here ends with the thread that started it.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use crate::gateway::PATIENCE;
use crate::programs::find;

/// What is between the hosts.
pub struct Switch(Namespace);

/// A host with one interface, `eth0`.
pub struct Host {
    namespace: Namespace,
    /// The switch's end of its cable.
    cable: String,
}

/// A network namespace, held by a process that does nothing.
struct Namespace(Child);

/// Whether this machine has what [`Switch::new`] needs, and `programs`; says what it lacks. Only root can make
/// namespaces: nobody else is asked to, not even in CI.
pub fn possible(programs: &[&str]) -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("left out: only root can make network namespaces");
        return false;
    }
    let needed = ["ip", "nsenter", "setpriv", "unshare"];
    needed
        .iter()
        .chain(programs)
        .all(|program| find(program).is_some())
}

impl Namespace {
    fn new() -> Self {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net"])
            .args(["sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let namespace = Self(child);
        let ours = Path::new("/proc/self/ns/net").read_link().unwrap();
        until("a network namespace of its own", || {
            let theirs = Path::new(&namespace.path()).read_link();
            theirs.is_ok_and(|theirs| theirs != ours)
        });
        namespace
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// A command whose process runs in here, and ends when the calling thread does.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path()))
            .args(["setpriv", "--pdeathsig", "KILL"])
            .arg(program.as_ref())
            .stdin(Stdio::null());
        command
    }

    fn ip(&self, arguments: &str) -> String {
        let mut command = self.command("ip");
        let output = command.args(arguments.split(' ')).output().unwrap();
        let problem = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {arguments}: {problem}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Switch {
    pub fn new() -> Self {
        let namespace = Namespace::new();
        namespace.ip("link add switch type bridge");
        namespace.ip("link set switch up");
        Self(namespace)
    }

    /// Connects a new host; its network is `address`/24.
    pub fn connect(&self, address: Ipv4Addr) -> Host {
        let namespace = Namespace::new();
        let cable = format!("cable{}", address.octets()[3]);
        self.0.ip(&format!(
            "link add {cable} type veth peer name eth0 netns {}",
            namespace.0.id()
        ));
        self.0.ip(&format!("link set {cable} master switch up"));
        namespace.ip("link set lo up");
        namespace.ip(&format!("addr add {address}/24 dev eth0"));
        namespace.ip("link set eth0 up");
        Host { namespace, cable }
    }

    /// As if the host had lost its power: nobody is told.
    pub fn pull_the_cable_of(&self, host: &Host) {
        self.0.ip(&format!("link set {} nomaster", host.cable));
    }

    pub fn plug_the_cable_of(&self, host: &Host) {
        self.0.ip(&format!("link set {} master switch", host.cable));
    }
}

impl Host {
    /// A command whose process runs on this host, and ends when the calling thread does.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        self.namespace.command(program)
    }

    pub fn ip(&self, arguments: &str) -> String {
        self.namespace.ip(arguments)
    }

    /// Sets what a file of sysctl.d(5) sets.
    pub fn set(&self, sysctls: &str) {
        let settings = sysctls.lines().filter(|line| !line.starts_with('#'));
        for (key, value) in settings.filter_map(|line| line.split_once('=')) {
            let path = format!("/proc/sys/{}", key.trim().replace('.', "/"));
            let mut command = self.command("tee");
            command
                .arg(&path)
                .stdin(Stdio::piped())
                .stdout(Stdio::null());
            let mut child = command.spawn().unwrap();
            let mut input = child.stdin.take().unwrap();
            input.write_all(value.trim().as_bytes()).unwrap();
            drop(input);
            assert!(child.wait().unwrap().success(), "{path}");
        }
    }

    pub fn has(&self, address: Ipv4Addr) -> bool {
        self.ip("-brief -4 address show dev eth0")
            .contains(&format!(" {address}/"))
    }

    /// Runs `work` in a thread of this host.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let namespace = std::fs::File::open(self.namespace.path()).unwrap();
        thread::spawn(move || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }
}

/// Waits until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not in {PATIENCE:?}");
        thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}
