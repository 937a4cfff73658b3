//! Two gateways that share one address by `conf/ha/keepalived.conf` and the real keepalived, on hosts of their own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::gateway::{Directory, Lines, PROGRAM};
use crate::network::{Host, Switch, possible, until};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);
const GATEWAYS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 2, 0, 11), Ipv4Addr::new(10, 2, 0, 12)];
const NODE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 21);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 31);
/// How long clients may be without an answer.
const WITHIN: Duration = Duration::from_secs(3);
/// Long enough for an address that wanders to do so.
const WATCHED: Duration = Duration::from_secs(3);

/// A process on a host; killed when dropped.
struct Process {
    child: Child,
    log: Lines,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        Self { child, log }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("a process wrote:\n{}\n", self.log.all().join("\n"));
        }
    }
}

/// A host with a gateway and a keepalived.
struct Pair {
    host: Host,
    gateway: Option<Process>,
    keepalived: Option<Process>,
}

/// Two gateways, a node and a client, on one switch.
struct Scene {
    directory: Directory,
    pairs: [Pair; 2],
    node: Host,
    engine: Option<Process>,
    client: Host,
    switch: Switch,
}

impl Scene {
    fn new() -> Self {
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
        let pairs = GATEWAYS.map(|address| Pair {
            host: switch.connect(address),
            gateway: None,
            keepalived: None,
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
        }
        scene
    }

    fn start_engine(&mut self) {
        let mut command = self.node.command(PROGRAM);
        command
            .args(["demo-engine", "--listen", &format!("{NODE}:8000")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        self.engine = Some(Process::start(&mut command));
    }

    fn start_gateway(&mut self, number: usize) {
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
        let gateway = Process::start(&mut command);
        gateway.log.wait_for(1, " serves ");
        pair.gateway = Some(gateway);
    }

    /// With the file that is shipped, but for its addresses and the program's place.
    fn start_keepalived(&mut self, number: usize) {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/ha/keepalived.conf");
        let shipped = fs::read_to_string(shipped).unwrap();
        let program = self.directory.path().join("sluicegate");
        assert_eq!(shipped.matches("\"/usr/sbin/sluicegate ").count(), 2);
        let text = shipped.replace("/usr/sbin/sluicegate", program.to_str().unwrap());
        let text = define(&text, "ADDRESS", &format!("{ADDRESS}/24"));
        let text = define(&text, "THIS_HOST", &GATEWAYS[number].to_string());
        let text = define(&text, "OTHER_HOST", &GATEWAYS[1 - number].to_string());
        let file = self
            .directory
            .write(&format!("keepalived{number}.conf"), &text);
        let name = |what: &str| self.directory.path().join(format!("{what}{number}.pid"));
        let pair = &mut self.pairs[number];
        let mut command = pair.host.command("keepalived");
        command
            .args(["--dont-fork", "--vrrp", "--log-console", "--log-detail"])
            .arg("--use-file")
            .arg(file)
            .arg("--pid")
            .arg(name("keepalived"))
            .arg("--vrrp_pid")
            .arg(name("vrrp"));
        pair.keepalived = Some(Process::start(&mut command));
    }

    /// Which of the two has the address, when exactly one has it.
    fn holder(&self) -> Option<usize> {
        let has = [0, 1].map(|number| self.pairs[number].host.has(ADDRESS));
        match has {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        }
    }

    /// Waits until one has it, and an answer comes from there.
    fn settled(&self, traffic: &Traffic) -> usize {
        let mut holder = None;
        until("one gateway holds the address", || {
            holder = self.holder();
            holder.is_some() && traffic.last() == Some(Answer::Status(200))
        });
        holder.unwrap()
    }

    fn log(&self, number: usize) -> &Lines {
        &self.pairs[number].keepalived.as_ref().unwrap().log
    }

    /// How often either has taken the address.
    fn moves(&self) -> usize {
        [0, 1]
            .map(|number| self.log(number).count("Entering MASTER STATE"))
            .iter()
            .sum()
    }
}

/// A file of keepalived's with another value for one of its definitions.
fn define(text: &str, name: &str, value: &str) -> String {
    let before = format!("\n${name}=");
    let (head, rest) = text.split_once(&before).unwrap();
    let (_, tail) = rest.split_once('\n').unwrap();
    format!("{head}{before}{value}\n{tail}")
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Status(u16),
    None(String),
}

/// A client that asks all the time, each time over a new connection.
struct Traffic {
    /// When each was asked and what came.
    answers: Arc<Mutex<Vec<(Instant, Answer)>>>,
    is_over: Arc<AtomicBool>,
    client: Option<thread::JoinHandle<()>>,
}

impl Traffic {
    fn of(scene: &Scene) -> Self {
        let answers = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (into, end) = (Arc::clone(&answers), Arc::clone(&is_over));
        let client = scene.client.spawn(move || {
            while !end.load(Relaxed) {
                let asked = Instant::now();
                let answer = match ask() {
                    Ok(status) => Answer::Status(status),
                    Err(problem) => Answer::None(problem.to_string()),
                };
                into.lock().unwrap().push((asked, answer));
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self {
            answers,
            is_over,
            client: Some(client),
        }
    }

    fn last(&self) -> Option<Answer> {
        let answers = self.answers.lock().unwrap();
        answers.last().map(|(_, answer)| answer.clone())
    }

    /// What came to the requests of `from` and later.
    fn since(&self, from: Instant) -> Vec<(Duration, Answer)> {
        let answers = self.answers.lock().unwrap();
        answers
            .iter()
            .filter(|(asked, _)| *asked >= from)
            .map(|(asked, answer)| (asked.duration_since(from), answer.clone()))
            .collect()
    }

    /// Until something answers again with `status`: how long after `from` that was asked.
    fn answered_after(&self, from: Instant, status: u16) -> Duration {
        let mut after = None;
        until("clients are answered again", || {
            let answers = self.since(from);
            after = answers
                .iter()
                .find(|(_, answer)| *answer == Answer::Status(status))
                .map(|(asked, _)| *asked);
            after.is_some()
        });
        after.unwrap()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(client) = self.client.take() {
            let _ = client.join();
        }
        if thread::panicking() {
            eprintln!("what the client saw: {:#?}", self.answers.lock().unwrap());
        }
    }
}

fn request(stream: bool) -> String {
    let body = format!(
        r#"{{"model":"DeepSeek-R1","messages":[{{"role":"user","content":"Hi"}}],"max_tokens":{},"stream":{stream}}}"#,
        if stream { 64 } else { 1 }
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// One request, and the status of its whole answer.
fn ask() -> std::io::Result<u16> {
    let address = SocketAddr::from((ADDRESS, 80));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(300))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(request(false).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    status.ok_or_else(|| std::io::Error::other("closed without an answer"))
}

#[test]
fn the_address_of_a_killed_gateway_moves_and_does_not_come_back() {
    if !possible(&["keepalived"]) {
        return;
    }
    let mut scene = Scene::new();
    let traffic = Traffic::of(&scene);
    let (first, moves) = (scene.settled(&traffic), scene.moves());

    let killed = Instant::now();
    scene.pairs[first].gateway = None;
    let gap = traffic.answered_after(killed, 200);
    eprintln!("clients were without an answer for {gap:?}");
    assert!(gap < WITHIN, "{gap:?}");
    let second = scene.settled(&traffic);
    assert_ne!(first, second);

    // Back, it is no better than the other, and leaves the address where it is.
    let back = Instant::now();
    scene.start_gateway(first);
    let recovered = "Changing effective priority from 80 to 100";
    scene.log(first).wait_for(1, recovered);
    thread::sleep(WATCHED);
    assert_eq!(scene.holder(), Some(second));
    assert_eq!(scene.moves(), moves + 1);
    for (asked, answer) in traffic.since(back) {
        assert_eq!(answer, Answer::Status(200), "asked after {asked:?}");
    }
}
