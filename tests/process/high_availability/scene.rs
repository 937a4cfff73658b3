//! Hosts, gateways, keepaliveds and an engine.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use loadtest::engine::{Engine, Listen, Script};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime;
use tokio::sync::oneshot;

use super::traffic::{Answer, Traffic};
use crate::gateway::{Directory, Lines, PATIENCE, PROGRAM, ended};
use crate::network::{Host, Switch, until};

pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 21);
const GATEWAYS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 2, 0, 11), Ipv4Addr::new(10, 2, 0, 12)];
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 31);

/// A process on a host; ended by `end` when dropped.
pub struct Process {
    child: Child,
    end: Signal,
    log: Lines,
}

impl Process {
    fn start(command: &mut Command, end: Signal) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        Self { child, end, log }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), self.end);
        if ended(&mut self.child, PATIENCE).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("a process wrote:\n{}\n", self.log.all().join("\n"));
        }
    }
}

/// A simulated engine on a host; dead when dropped.
pub struct RunningEngine {
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl RunningEngine {
    fn on(host: &Host) -> Self {
        let (end, ended) = oneshot::channel();
        let (started, wait) = mpsc::channel();
        let thread = host.spawn(move || {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                // Streams that outlast every test.
                let script = Script {
                    listen: Listen::Tcp(SocketAddr::from((NODE, 8000))),
                    tokens: 10_000,
                    itl: Duration::from_millis(10),
                    ..Script::default()
                };
                let _engine = Engine::start(script).await.unwrap();
                started.send(()).unwrap();
                let _ = ended.await;
            });
        });
        wait.recv().unwrap();
        Self {
            end: Some(end),
            thread: Some(thread),
        }
    }
}

impl Drop for RunningEngine {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A host with a gateway and a keepalived.
pub struct Pair {
    pub host: Host,
    pub gateway: Option<Process>,
    pub keepalived: Option<Process>,
}

/// Two gateways, a node and a client, on one switch.
pub struct Scene {
    directory: Directory,
    pub pairs: [Pair; 2],
    node: Host,
    pub engine: Option<RunningEngine>,
    pub client: Host,
    pub switch: Switch,
}

impl Scene {
    pub fn new() -> Self {
        let directory = Directory::new();
        // The checks run as nobody, who must be able to get at the program.
        let program = directory.path().join("sluicegate");
        fs::hard_link(PROGRAM, &program)
            .or_else(|_| fs::copy(PROGRAM, &program).map(|_| ()))
            .unwrap();
        for path in [directory.path(), &program] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let switch = Switch::new();
        let pairs = GATEWAYS.map(|address| {
            let host = switch.connect(address);
            for file in ["ha/90-sluicegate-ha.conf", "gateway/90-sluicegate.conf"] {
                host.set(&fs::read_to_string(shipped(file)).unwrap());
            }
            Pair {
                host,
                gateway: None,
                keepalived: None,
            }
        });
        let mut scene = Self {
            directory,
            pairs,
            node: switch.connect(NODE),
            engine: None,
            client: switch.connect(CLIENT),
            switch,
        };
        scene.start_engine();
        for number in [0, 1] {
            scene.start_gateway(number);
            scene.start_keepalived(number);
            // One after the other: at the same moment both would take the address, and settle it between them.
            let started = ["Entering MASTER STATE", "Entering BACKUP STATE"][number];
            for said in [
                started,
                "VRRP_Script(alive) succeeded",
                "VRRP_Script(ready) succeeded",
            ] {
                scene.log(number).wait_for(1, said);
            }
        }
        scene
    }

    pub fn start_engine(&mut self) {
        self.engine = Some(RunningEngine::on(&self.node));
    }

    pub fn start_gateway(&mut self, number: usize) {
        let file = self.directory.write(
            &format!("gateway{number}.yaml"),
            &format!(
                "listen: 80\nadmin: 127.0.0.1:9180\npid_file: null\naccess_log: null\npools:\n  default:\n    \
                 endpoints: [\"{NODE}:8000\"]\n    health: {{ interval: 500ms, timeout: 400ms, fall: 2, rise: 1 }}\n"
            ),
        );
        let pair = &mut self.pairs[number];
        let mut command = pair.host.command(PROGRAM);
        command.arg("-c").arg(file).stdout(Stdio::null());
        let gateway = Process::start(&mut command, Signal::SIGKILL);
        gateway.log.wait_for(1, " serves ");
        pair.gateway = Some(gateway);
    }

    /// With the file that is shipped, but for its addresses and the program's place.
    fn start_keepalived(&mut self, number: usize) {
        let conf = fs::read_to_string(shipped("ha/keepalived.conf")).unwrap();
        let program = self.directory.path().join("sluicegate");
        assert_eq!(conf.matches("\"/usr/sbin/sluicegate ").count(), 2);
        let text = conf.replace("/usr/sbin/sluicegate", program.to_str().unwrap());
        let text = define(&text, "ADDRESS", &format!("{ADDRESS}/24"));
        let text = define(&text, "THIS_HOST", &GATEWAYS[number].to_string());
        let text = define(&text, "OTHER_HOST", &GATEWAYS[1 - number].to_string());
        let file = self
            .directory
            .write(&format!("keepalived{number}.conf"), &text);
        let name = |what: &str| self.directory.path().join(format!("{what}{number}.pid"));
        let pair = &mut self.pairs[number];
        // An /etc/keepalived of its own: what root runs has to be where root alone writes.
        let mut command = pair.host.command("unshare");
        command
            .args(["--mount", "sh", "-euc"])
            .arg(
                "mount -t tmpfs -o mode=755 none /etc/keepalived
                cp \"$1\" /etc/keepalived/keepalived.conf
                cp \"$2\" /etc/keepalived/
                shift 2
                exec keepalived \"$@\"",
            )
            .arg("sh")
            .arg(file)
            .arg(shipped("ha/end-connections"))
            .args(["--dont-fork", "--vrrp", "--log-console", "--log-detail"])
            .arg("--pid")
            .arg(name("keepalived"))
            .arg("--vrrp_pid")
            .arg(name("vrrp"));
        // Killed, it would leave its child behind for a moment.
        pair.keepalived = Some(Process::start(&mut command, Signal::SIGTERM));
    }

    /// Which of the two has the address, when exactly one has it.
    pub fn holder(&self) -> Option<usize> {
        let has = [0, 1].map(|number| self.pairs[number].host.has(ADDRESS));
        match has {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        }
    }

    /// Waits until one has it, and an answer comes from there.
    pub fn settled(&self, traffic: &Traffic) -> usize {
        let mut holder = None;
        until("one gateway holds the address", || {
            holder = self.holder();
            holder.is_some() && traffic.last() == Some(Answer::Status(200))
        });
        holder.unwrap()
    }

    pub fn log(&self, number: usize) -> &Lines {
        &self.pairs[number].keepalived.as_ref().unwrap().log
    }

    /// How often either has taken the address.
    pub fn moves(&self) -> usize {
        [0, 1]
            .map(|number| self.log(number).count("Entering MASTER STATE"))
            .iter()
            .sum()
    }
}

fn shipped(name: &str) -> String {
    format!("{}/conf/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A file of keepalived's with another value for one of its definitions.
fn define(text: &str, name: &str, value: &str) -> String {
    let before = format!("\n${name}=");
    let (head, rest) = text.split_once(&before).unwrap();
    let (_, tail) = rest.split_once('\n').unwrap();
    format!("{head}{before}{value}\n{tail}")
}
