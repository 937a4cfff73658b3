//! The same requests through nginx with a file and through Sluicegate with what `sluicegate import`
//! makes of it. What the engines received and what the clients got may differ only where
//! docs/from-nginx.md says so: each difference below is a place in that page.

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::gateway::{Directory, Gateway, PATIENCE, PROGRAM, Start};
use crate::programs::find;
use crate::recorder::{End, Recorder, good};
use crate::wire::Wire;

mod allowed;
mod requests;

use allowed::{ALLOWED, Side};
use requests::{Case, cases};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/from-nginx.md");
/// Asked on the same connection after a case, to see whether it is still open.
const AFTER: &str = "/still-open";

fn file(name: &str) -> String {
    format!(
        "{}/tests/import/files/{name}.conf",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// A running nginx; stopped when dropped.
struct Nginx(Child);

impl Nginx {
    /// `None` where it ended at once: its port was taken in the meantime.
    fn start(
        program: &std::path::Path,
        directory: &Directory,
        listening: SocketAddr,
    ) -> Option<Self> {
        let path = directory.path().display();
        let user = if nix::unistd::getuid().is_root() {
            "user root;"
        } else {
            ""
        };
        let mut child = Command::new(program)
            .args([
                "-p",
                &path.to_string(),
                "-c",
                "nginx.conf",
                "-e",
                "error.log",
                "-g",
            ])
            .arg(format!("daemon off; pid {path}/nginx.pid; {user}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(listening).is_err() {
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            assert!(begun.elapsed() < PATIENCE, "nginx does not listen");
            thread::sleep(Duration::from_millis(2));
        }
        Some(Self(child))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it.
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Both gateways with the same file, each in front of two engines of its own.
struct Pair {
    _nginx: Nginx,
    _directory: Directory,
    nginx: SocketAddr,
    nginx_engines: Vec<Recorder>,
    sluicegate: Gateway,
    sluicegate_engines: Vec<Recorder>,
}

/// Two engines that answer as the cases want it.
async fn engines() -> Vec<Recorder> {
    let mut engines = Vec::new();
    for _ in 0..2 {
        let engine = Recorder::start().await;
        engine.take_no_host();
        for (target, bytes, then) in requests::replies() {
            engine.reply(target, bytes, then);
        }
        engine.reply(AFTER, good("{}"), End::Keep);
        engines.push(engine);
    }
    engines
}

/// The guide's file with these addresses, and with places that nginx may write to.
fn written(name: &str, directory: &Directory, listen: SocketAddr, engines: &[String]) -> String {
    let path = directory.path().display();
    let mut places = String::from("http {\n    access_log off;\n");
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        places += &format!("    {kind}_temp_path {path}/{kind};\n");
    }
    let text = fs::read_to_string(file(name)).unwrap();
    let replaced = text
        .replace("http {\n", &places)
        .replace("listen 80;", &format!("listen {listen};"))
        .replace("node0:8000", &engines[0])
        .replace("node1:8000", &engines[1]);
    assert!(replaced != text);
    replaced
}

/// What `sluicegate import` prints for a file, which it lists the differences of.
fn imported(path: &std::path::Path) -> String {
    let output = Command::new(PROGRAM)
        .arg("import")
        .arg(path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

impl Pair {
    async fn start(name: &str, program: &std::path::Path, are_dead: bool) -> Self {
        let nginx_engines = engines().await;
        let sluicegate_engines = engines().await;
        let authorities = |engines: &[Recorder]| -> Vec<String> {
            let own = engines.iter().map(Recorder::authority);
            match are_dead {
                false => own.collect(),
                // Nobody listens at port 1.
                true => vec!["127.0.0.1:1".into(), "127.0.0.2:1".into()],
            }
        };
        let (directory, nginx, address) = loop {
            let directory = Directory::new();
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let text = written(name, &directory, address, &authorities(&nginx_engines));
            directory.write("nginx.conf", &text);
            directory.write("mime.types", "types { text/html html; }\n");
            if let Some(nginx) = Nginx::start(program, &directory, address) {
                break (directory, nginx, address);
            }
        };
        // The same file, but for the engines' addresses.
        let text = written(name, &directory, address, &authorities(&sluicegate_engines));
        let yaml = imported(&directory.write("sluicegate-nginx.conf", &text));
        let listen = format!("listen: {address}\n");
        assert!(yaml.starts_with(&listen), "{yaml}");
        // Its port comes from the system.
        let start = Start::with_keys(&yaml[listen.len()..]);
        Self {
            _nginx: nginx,
            _directory: directory,
            nginx: address,
            nginx_engines,
            sluicegate: start.run(),
            sluicegate_engines,
        }
    }

    /// What is different in a case, as lines of one side.
    async fn compare(&self, case: &Case) -> Vec<(Side, String)> {
        let nginx = observe(case, self.nginx, &self.nginx_engines).await;
        let ours = observe(case, self.sluicegate.public, &self.sluicegate_engines).await;
        let mut different = Vec::new();
        let mut rest = ours.clone();
        for line in nginx {
            match rest.iter().position(|other| *other == line) {
                Some(index) => drop(rest.remove(index)),
                None => different.push((Side::Nginx, line)),
            }
        }
        different.extend(rest.into_iter().map(|line| (Side::Sluicegate, line)));
        different
    }
}

/// Everything that can be seen of a case, a line each.
async fn observe(case: &Case, gateway: SocketAddr, engines: &[Recorder]) -> Vec<String> {
    let before: Vec<usize> = engines.iter().map(|e| e.received().len()).collect();
    let mut lines = Vec::new();
    let mut wire = Wire::to(gateway).await;
    wire.send(&case.bytes).await;
    for (index, method) in case.answers.iter().enumerate() {
        let Some(answer) = wire.answer_to(method).await else {
            lines.push(format!("client {index} closed"));
            break;
        };
        lines.push(format!("client {index} status {}", answer.status));
        for (name, value) in fields(&answer.head) {
            let value = if name == "date" {
                "…".to_owned()
            } else {
                shown(value.as_bytes())
            };
            lines.push(format!("client {index} field {name}: {value}"));
        }
        let body = shown(&answer.body);
        lines.push(format!("client {index} body {body}"));
        if !answer.is_whole && answer.status >= 200 {
            lines.push(format!("client {index} is cut"));
        }
    }
    wire.send(format!(
        "GET {AFTER} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    ))
    .await;
    let is_open = wire.answer_to("GET").await.is_some();
    lines.push(format!(
        "client connection {}",
        if is_open { "stays" } else { "closes" }
    ));
    let received = engines.iter().zip(before).flat_map(|(engine, before)| {
        let all = engine.received();
        all[before..].to_vec()
    });
    let mut received: Vec<_> = received.filter(|r| r.target != AFTER).collect();
    // Which of the two engines it was is not for the page to say.
    received.sort_by(|a, b| a.target.cmp(&b.target));
    for (index, request) in received.iter().enumerate() {
        lines.push(format!(
            "engine {index} target {} {}",
            request.method, request.target
        ));
        for (name, value) in &request.fields {
            lines.push(format!(
                "engine {index} field {}: {value}",
                name.to_lowercase()
            ));
        }
        lines.push(format!("engine {index} body {}", shown(&request.body)));
    }
    lines
}

fn fields(head: &str) -> Vec<(String, String)> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect()
}

/// A body as one line, a large one by its length.
fn shown(body: &[u8]) -> String {
    match body.len() {
        0..2000 => String::from_utf8_lossy(body).escape_debug().to_string(),
        length => format!("of {length} bytes"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_imported_file_does_what_nginx_does_but_for_what_the_page_lists() {
    let Some(program) = find("nginx") else { return };
    let page = fs::read_to_string(PAGE).unwrap();
    let cases = cases();
    assert!(cases.len() >= 30, "{}", cases.len());
    // Which part of which difference was seen, and in which case.
    let mut seen: BTreeSet<(usize, usize, &str)> = BTreeSet::new();
    let mut unexpected = Vec::new();
    let mut pairs: Vec<(&str, Pair)> = Vec::new();
    for case in &cases {
        let different = if case.alone || case.are_dead {
            // What an engine's failure leaves behind is not for the cases after it.
            let pair = Pair::start(case.file, &program, case.are_dead).await;
            pair.compare(case).await
        } else {
            let known = pairs.iter().position(|(name, _)| *name == case.file);
            let index = match known {
                Some(index) => index,
                None => {
                    pairs.push((case.file, Pair::start(case.file, &program, false).await));
                    pairs.len() - 1
                }
            };
            pairs[index].1.compare(case).await
        };
        for (side, line) in different {
            let parts: Vec<_> = (ALLOWED.iter().enumerate())
                .filter_map(|(i, allowed)| {
                    Some((i, allowed.covers(case.name, side, &line)?, case.name))
                })
                .collect();
            if parts.is_empty() {
                unexpected.push(format!("{}: {side:?}: {line}", case.name));
            }
            seen.extend(parts);
        }
    }
    assert!(
        unexpected.is_empty(),
        "differences that docs/from-nginx.md does not have:\n{}",
        unexpected.join("\n")
    );
    for (index, allowed) in ALLOWED.iter().enumerate() {
        assert!(
            page.contains(&format!("<a id=\"{}\"></a>", allowed.id)),
            "docs/from-nginx.md has no {}",
            allowed.id
        );
        for part in 0..allowed.parts() {
            let is_seen_in = |case: &str| seen.iter().any(|s| *s == (index, part, case));
            let is_seen = match allowed.cases {
                [] => cases.iter().any(|case| is_seen_in(case.name)),
                all => all.iter().all(|case| is_seen_in(case)),
            };
            assert!(
                is_seen,
                "part {part} is not different any more: {allowed:?}"
            );
        }
    }
}

#[test]
fn the_command_prints_the_configuration_and_says_what_it_left_out() {
    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM)
            .arg("import")
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let guide = file("guide");
    let (code, out, err) = run(&[&guide]);
    assert_eq!(code, Some(0));
    assert_eq!(
        out,
        "listen: 80\nendpoints: [node0:8000, node1:8000]\nexpose: all\n"
    );
    assert!(
        err.starts_with(&format!("{guide}:1: worker_processes: differs: ")),
        "{err}"
    );
    let lines = err.lines().count();

    let (code, out, err) = run(&["--strict", &guide]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(
        err.contains("no configuration is printed (--strict)"),
        "{err}"
    );
    assert_eq!(err.lines().count(), lines + 1);

    let directory = Directory::new();
    let same = "http { client_max_body_size 64m; keepalive_timeout 65; proxy_read_timeout 300; proxy_set_header Host $host;\n\
                server { location / { proxy_pass http://a:8000; } } }\n";
    let same = directory.write("same.conf", same);
    let (code, out, err) = run(&["--strict", same.to_str().unwrap()]);
    assert_eq!((code, &*err), (Some(0), ""));
    assert_eq!(out, "listen: 80\nendpoints: [a:8000]\nexpose: all\n");

    let sites = file("sites");
    let (code, out, _) = run(&["--upstream", "embed", &sites]);
    assert_eq!(code, Some(0));
    assert!(out.contains("endpoints: [embed0:8000]"), "{out}");

    for arguments in [
        &["none.conf"][..],
        &["litellm.yaml"],
        &["--upstream", "nobody", &guide],
    ] {
        let (code, out, err) = run(arguments);
        assert_eq!((code, &*out), (Some(1), ""), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    assert_eq!(run(&[]).0, Some(2));
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    let mut child = Command::new(PROGRAM)
        .args(["import", &file("guide")])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    // What it wrote may have found its way before the pipe was closed.
    assert!(matches!(status.code(), Some(0 | 1)), "{status}");
}
