//! Two gateways that share one address by `conf/ha/keepalived.conf` and the real keepalived, on hosts of their own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use loadtest::engine::{Engine, Listen, Script};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime;
use tokio::sync::oneshot;

use crate::gateway::{Directory, Lines, PATIENCE, PROGRAM, ended};
use crate::network::{Host, Switch, possible, until};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 10);
const GATEWAYS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 2, 0, 11), Ipv4Addr::new(10, 2, 0, 12)];
const NODE: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 21);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 31);
/// How long clients may be without an answer.
const WITHIN: Duration = Duration::from_secs(3);
/// Long enough for an address that wanders to do so.
const WATCHED: Duration = Duration::from_secs(3);

/// A process on a host; ended by `end` when dropped.
struct Process {
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

    fn signal(&self, signal: Signal) {
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
struct RunningEngine {
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
    engine: Option<RunningEngine>,
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
        }
        scene
    }

    fn start_engine(&mut self) {
        self.engine = Some(RunningEngine::on(&self.node));
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
        if stream { 10_000 } else { 1 }
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
    let recovered = " to 100";
    scene.log(first).wait_for(1, recovered);
    thread::sleep(WATCHED);
    assert_eq!(scene.holder(), Some(second));
    assert_eq!(scene.moves(), moves + 1);
    for (asked, answer) in traffic.since(back) {
        assert_eq!(answer, Answer::Status(200), "asked after {asked:?}");
    }
}

#[test]
fn the_address_of_a_host_that_is_gone_moves() {
    if !possible(&["keepalived"]) {
        return;
    }
    let scene = Scene::new();
    let traffic = Traffic::of(&scene);
    let first = scene.settled(&traffic);

    scene.switch.pull_the_cable_of(&scene.pairs[first].host);
    let gone = Instant::now();
    let gap = traffic.answered_after(gone, 200);
    eprintln!("clients were without an answer for {gap:?}");
    assert!(gap < WITHIN, "{gap:?}");
    assert!(scene.pairs[1 - first].host.has(ADDRESS));

    // Both have it when the host is back, until one of them hears of the other.
    scene.switch.plug_the_cable_of(&scene.pairs[first].host);
    scene.settled(&traffic);
}

#[test]
fn a_gateway_that_hangs_loses_the_address() {
    if !possible(&["keepalived"]) {
        return;
    }
    let scene = Scene::new();
    let traffic = Traffic::of(&scene);
    let first = scene.settled(&traffic);

    let gateway = scene.pairs[first].gateway.as_ref().unwrap();
    gateway.signal(Signal::SIGSTOP);
    let hung = Instant::now();
    let gap = traffic.answered_after(hung, 200);
    eprintln!("clients were without an answer for {gap:?}");
    // The check itself waits two seconds for an answer.
    assert!(gap < WITHIN + Duration::from_secs(2), "{gap:?}");
    assert_eq!(scene.settled(&traffic), 1 - first);
}

#[test]
fn with_every_engine_dead_the_address_stays_and_answers_503() {
    if !possible(&["keepalived"]) {
        return;
    }
    let mut scene = Scene::new();
    let traffic = Traffic::of(&scene);
    scene.settled(&traffic);

    let died = Instant::now();
    scene.engine = None;
    for number in [0, 1] {
        let lowered = "Changing effective priority from 100 to 80";
        scene.log(number).wait_for(1, lowered);
    }
    let (held, moves) = (scene.holder(), scene.moves());
    let both_down = Instant::now();
    thread::sleep(WATCHED);
    for (asked, answer) in traffic.since(both_down) {
        assert_eq!(answer, Answer::Status(503), "asked after {asked:?}");
    }
    assert!(held.is_some());
    assert_eq!((scene.holder(), scene.moves()), (held, moves));

    scene.start_engine();
    let back = Instant::now();
    traffic.answered_after(back, 200);
    for number in [0, 1] {
        let raised = " to 100";
        scene.log(number).wait_for(1, raised);
        assert_eq!(scene.log(number).count("FAULT"), 0);
    }
    // Whichever saw the engine die last, and come back first, may have had the address for that while; nobody was
    // ever left without an answer.
    assert!(scene.moves() <= moves + 1);
    assert!(scene.holder().is_some());
    let mut last = Duration::ZERO;
    for (asked, answer) in traffic.since(died) {
        if matches!(answer, Answer::Status(_)) {
            assert!(asked - last < WITHIN, "no answer until {asked:?}");
            last = asked;
        }
    }
}

#[test]
fn a_gateway_that_alone_has_lost_its_engines_gives_the_address_away() {
    if !possible(&["keepalived"]) {
        return;
    }
    let scene = Scene::new();
    let traffic = Traffic::of(&scene);
    let first = scene.settled(&traffic);

    scene.pairs[first]
        .host
        .ip(&format!("route add unreachable {NODE}"));
    let lowered = "Changing effective priority from 100 to 80";
    scene.log(first).wait_for(1, lowered);
    let from = Instant::now();
    let gap = traffic.answered_after(from, 200);
    assert!(gap < WITHIN, "{gap:?}");
    assert_eq!(scene.settled(&traffic), 1 - first);
}

#[test]
fn streams_that_an_address_leaves_behind_end_at_once() {
    if !possible(&["keepalived"]) {
        return;
    }
    for by in ["the gateway's end", "keepalived's end"] {
        let scene = Scene::new();
        let traffic = Traffic::of(&scene);
        let first = scene.settled(&traffic);
        let (begun, has_begun) = mpsc::channel();
        let stream = scene.client.spawn(move || {
            let mut stream = TcpStream::connect((ADDRESS, 80)).unwrap();
            stream.write_all(request(true).as_bytes()).unwrap();
            stream.set_read_timeout(Some(WITHIN)).unwrap();
            let mut piece = [0; 4096];
            assert!(stream.read(&mut piece).unwrap() > 0);
            begun.send(()).unwrap();
            loop {
                match stream.read(&mut piece) {
                    Ok(0) => break "a clean end".to_owned(),
                    Ok(_) => {}
                    Err(problem) => break problem.kind().to_string(),
                }
            }
        });
        has_begun.recv().unwrap();

        let left = Instant::now();
        let pair = &scene.pairs[first];
        let ending = if by == "the gateway's end" {
            pair.gateway.as_ref()
        } else {
            pair.keepalived.as_ref()
        };
        ending.unwrap().signal(Signal::SIGTERM);
        // The gateway lets its streams finish, which the address does not wait for.
        assert_eq!(stream.join().unwrap(), "connection reset", "by {by}");
        eprintln!("by {by} a stream ended after {:?}", left.elapsed());
        assert!(left.elapsed() < WITHIN, "by {by}: {:?}", left.elapsed());
        assert_eq!(scene.settled(&traffic), 1 - first);
    }
}
