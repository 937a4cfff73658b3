//! What the command line answers, and with which exit status.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use loadtest::engine::{Engine, Script};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::certificates::Certificate;
use crate::gateway::{Directory, Lines, PATIENCE, PROGRAM, Start, ended};
use crate::wire::ask;

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it exits")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn t_says_whether_a_file_is_good() {
    let directory = Directory::new();
    let good = directory.write(
        "good.yaml",
        "listen: 8080\nendpoints: [\"127.0.0.1:8000\"]\n",
    );
    let good = good.to_str().unwrap();
    let tested = run(&["-t", "-c", good]);
    assert_eq!(code(&tested), 0, "{}", err(&tested));
    assert!(err(&tested).contains(&format!("configuration file {good} test is successful")));

    let bad = directory.write(
        "bad.yaml",
        "listen: 8080\nendpoint: [\"127.0.0.1:8000\"]\nlimits: { body: 5 parsecs }\n",
    );
    let bad = bad.to_str().unwrap();
    let tested = run(&["-t", "-c", bad]);
    assert_eq!(code(&tested), 1);
    let said = err(&tested);
    assert!(
        said.contains(&format!("{bad}:2:1: endpoint: ")) && said.contains("endpoints"),
        "{said}"
    );
    assert!(
        said.contains(&format!("{bad}:3:17: limits.body: ")),
        "{said}"
    );
    assert!(
        said.contains(&format!("configuration file {bad} test failed")),
        "{said}"
    );

    let none = directory.path().join("none.yaml");
    let tested = run(&["-t", "-c", none.to_str().unwrap()]);
    assert_eq!(code(&tested), 1);
    assert!(err(&tested).contains("none.yaml"));
    // The same words when it is to run.
    let started = run(&["-c", bad]);
    assert_eq!(code(&started), 1);
    assert!(err(&started).contains(&format!("{bad}:2:1: endpoint: ")));
}

#[test]
fn a_warning_is_a_failure_only_for_strict() {
    let directory = Directory::new();
    let file = directory.write(
        "warned.yaml",
        "listen: 8080\nadmin: \"0.0.0.0:9180\"\nendpoints: [\"127.0.0.1:8000\"]\n",
    );
    let file = file.to_str().unwrap();
    let tested = run(&["-t", "-c", file]);
    assert_eq!(code(&tested), 0);
    assert!(err(&tested).contains("warned.yaml:2:"), "{}", err(&tested));
    let strict = run(&["-t", "--strict", "-c", file]);
    assert_eq!(code(&strict), 2);
    assert!(err(&strict).contains("--strict takes no warnings"));
    assert_ne!(code(&run(&["--strict", "-c", file])), 0);
}

#[test]
fn a_certificate_that_cannot_be_used_fails_the_test() {
    let directory = Directory::new();
    let certificate = Certificate::new();
    certificate.install(&directory);
    let listen = "listen: { address: 8443, tls: { certificate: chain.pem, key: key.pem } }\nendpoints: [\"127.0.0.1:8000\"]\n";
    let file = directory.write("tls.yaml", listen);
    let file = file.to_str().unwrap();
    assert_eq!(code(&run(&["-t", "-c", file])), 0);
    // The key of another certificate.
    let other = Directory::new();
    Certificate::new().install(&other);
    std::fs::copy(
        other.path().join("key.pem"),
        directory.path().join("key.pem"),
    )
    .unwrap();
    let tested = run(&["-t", "-c", file]);
    assert_eq!(code(&tested), 1);
    assert!(
        err(&tested).contains("key.pem") || err(&tested).contains("chain.pem"),
        "{}",
        err(&tested)
    );
    directory.write("key.pem", "nonsense");
    assert_eq!(code(&run(&["-t", "-c", file])), 1);
}

#[test]
fn what_capital_t_prints_is_a_file_that_means_the_same() {
    let directory = Directory::new();
    let file = directory.write(
        "short.yaml",
        "listen: 8080\nendpoints: [\"127.0.0.1:8000\", { url: \"127.0.0.1:8001\", api_key: \"${KEY_OF_AN_ENGINE}\" }]\n",
    );
    let print = |file: &str| {
        let output = Command::new(PROGRAM)
            .args(["-T", "-c", file])
            .env("KEY_OF_AN_ENGINE", "a-secret-of-the-engine")
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{}", err(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let printed = print(file.to_str().unwrap());
    assert!(
        printed.contains("header_timeout") && printed.contains("retry_budget"),
        "{printed}"
    );
    assert!(!printed.contains("a-secret-of-the-engine"), "{printed}");
    // Whoever saves it has to fill the secrets in: all the world knows what stands in their places.
    let again = directory.write("long.yaml", &printed);
    let refused = run(&["-t", "-c", again.to_str().unwrap()]);
    assert_eq!(code(&refused), 1);
    assert!(err(&refused).contains("what -T prints in place of a secret"));
    directory.write("long.yaml", &printed.replace("***", "${KEY_OF_AN_ENGINE}"));
    assert_eq!(print(again.to_str().unwrap()), printed);
}

#[test]
fn version_help_and_what_it_does_not_know() {
    for flag in ["-V", "--version"] {
        let output = run(&[flag]);
        assert_eq!(code(&output), 0);
        let expected = format!("sluicegate {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), expected);
    }
    assert_eq!(code(&run(&["--help"])), 0);
    for wrong in [
        &["--lissten", "80"][..],
        &["-s", "relaod"],
        &["nonsense"],
        &["--listen"],
        &["-c", "sluicegate.yaml", "ready"],
        &["-c", "sluicegate.yaml", "127.0.0.1:8000"],
        &["-c", "sluicegate.yaml", "--admin", "off"],
        &["-s", "reload", "127.0.0.1:8000"],
    ] {
        let output = run(wrong);
        assert_eq!(code(&output), 2, "{wrong:?}");
        assert!(err(&output).contains("'--help'"), "{wrong:?}");
    }
    let output = run(&["--listen", ":0"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("no endpoints"), "{}", err(&output));
}

/// Secrets are in the environment of the service, not in that of whoever signals it.
#[test]
fn a_signal_needs_no_secrets() {
    let directory = Directory::new();
    let file = directory.write(
        "secrets.yaml",
        "pid_file: p.pid\nendpoints: [{ url: \"127.0.0.1:1\", api_key: \"${NO_SUCH_SECRET}\" }]\n",
    );
    let told = run(&["-s", "quit", "-c", file.to_str().unwrap()]);
    assert_eq!(code(&told), 1);
    assert!(
        err(&told).contains("cannot read the pid file"),
        "{}",
        err(&told)
    );
    let tested = run(&["-t", "-c", file.to_str().unwrap()]);
    assert!(err(&tested).contains("NO_SUCH_SECRET"), "{}", err(&tested));
}

#[test]
fn a_port_that_is_taken_is_one_error_within_a_second() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = Directory::new();
    let endpoints = "endpoints: [\"127.0.0.1:1\"]\npid_file: p.pid\n";
    for (name, keys) in [
        (
            "public.yaml",
            format!("listen: {address}\nadmin: null\n{endpoints}"),
        ),
        (
            "admin.yaml",
            format!("listen: 127.0.0.1:0\nadmin: {address}\n{endpoints}"),
        ),
    ] {
        let file = directory.write(name, &keys);
        let begun = Instant::now();
        let output = run(&["-c", file.to_str().unwrap()]);
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(code(&output), 1);
        let said = err(&output);
        let key = if name == "admin.yaml" {
            "admin"
        } else {
            "listen"
        };
        let remedy = format!("stop that one, or change `{key}`");
        assert!(
            said.contains(&format!("cannot listen on {address}")) && said.contains(&remedy),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!directory.path().join("p.pid").exists());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_file() {
    let engine = Engine::start(Script::default()).await.unwrap();
    let mut child = Command::new(PROGRAM)
        .args(["--listen", "127.0.0.1:0", &engine.authority()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Lines::of(child.stderr.take().unwrap());
    let address = |what: &str| -> std::net::SocketAddr {
        log.wait_for(1, what)
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let (public, admin) = (address("listening on "), address("admin on "));
    let body = r#"{"model":"DeepSeek-R1","prompt":"Hi"}"#;
    assert_eq!(
        ask(public, "POST", "/v1/completions", body).await.status,
        200
    );
    assert_eq!(ask(admin, "GET", "/endpoints", "").await.status, 200);
    let pid = Pid::from_raw(child.id() as i32);
    // There is nothing to read again, and that ends nothing.
    kill(pid, Signal::SIGHUP).unwrap();
    log.wait_for(1, "HUP: ");
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(
        ended(&mut child, Duration::from_secs(3))
            .expect("it ends")
            .success()
    );
}

/// The gateway alone has a meaning of its own for each signal.
#[test]
fn a_command_that_waits_can_be_interrupted() {
    for arguments in [
        &["key", "--hash"][..],
        &["import", "/dev/stdin"],
        &["-t", "-c", "/dev/stdin"],
    ] {
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !handles_signals(&child) {
            std::thread::sleep(Duration::from_millis(1));
        }
        kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
        let status = ended(&mut child, PATIENCE);
        let status = status.unwrap_or_else(|| panic!("{arguments:?} waits on"));
        assert_eq!(status.signal(), Some(Signal::SIGINT as i32));
    }
}

/// Whether it has come so far as to take its signals over.
fn handles_signals(child: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
    caught & 1 << (Signal::SIGINT as i32 - 1) != 0
}

/// Runs `sluicegate key` with `input`.
fn key(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(PROGRAM)
        .arg("key")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that reads nothing is not told.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn a_key_that_is_made_can_be_pasted_and_hashed_again() {
    let made: Vec<(String, String)> = (0..2)
        .map(|_| {
            let output = key(&["--name", "team a"], b"");
            assert_eq!(code(&output), 0, "{}", err(&output));
            let text = String::from_utf8(output.stdout).unwrap();
            let (secret, entry) = text.split_once('\n').unwrap();
            assert_eq!(entry.lines().count(), 1, "{entry}");
            (secret.to_owned(), entry.to_owned())
        })
        .collect();
    let (secret, entry) = &made[0];
    assert_ne!(*secret, made[1].0);
    assert!(secret.len() == 46 && secret.starts_with("sk-"), "{secret}");
    let hashed = key(&["--hash"], format!("{secret}\n").as_bytes());
    let hash = String::from_utf8(hashed.stdout).unwrap();
    assert!(hash.len() == 65 && entry.contains(hash.trim()), "{hash}");
    assert!(!entry.contains(secret.as_str()));

    let directory = Directory::new();
    let file = format!("listen: 8080\nendpoints: [\"127.0.0.1:8000\"]\nkeys:\n  {entry}");
    let file = directory.write("keys.yaml", &file);
    // Without a warning of a weak one.
    let tested = run(&["-t", "--strict", "-c", file.to_str().unwrap()]);
    assert_eq!(code(&tested), 0, "{}", err(&tested));
}

#[test]
fn a_key_that_cannot_be_made_or_hashed_says_why() {
    let too_long = "n".repeat(65);
    for (arguments, input, problem) in [
        (&["--name", ""][..], "", "--name is empty"),
        (&["--name", &too_long], "", "longer than 64"),
        (&["--name", "a", "--hash"], "sk-1", "cannot be used with"),
        (&["--hash"], "", "no key"),
        (&["--hash"], "two words", "a space"),
    ] {
        let output = key(arguments, input.as_bytes());
        assert_ne!(code(&output), 0, "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(err(&output).contains(problem), "{}", err(&output));
    }
    // A key that nobody has seen must not pass for one that was made.
    let full = std::fs::File::create("/dev/full").unwrap();
    let output = Command::new(PROGRAM)
        .arg("key")
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("cannot print the key"),
        "{}",
        err(&output)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_asks_whether_it_can_serve() {
    let engine = Engine::start(Script::default()).await.unwrap();
    let gateway = Start::new(&[engine.authority()], "").run();
    let ready = |url: String| tokio::task::block_in_place(|| run(&["ready", &url]));
    let alive = |url: String| tokio::task::block_in_place(|| run(&["ready", "--alive", &url]));
    assert_eq!(code(&ready(format!("http://{}", gateway.admin))), 0);
    assert_eq!(code(&ready(format!("http://{}/", gateway.public))), 0);
    assert_eq!(code(&alive(format!("http://{}", gateway.admin))), 0);
    drop(gateway);

    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let gateway = Start::new(&[nobody.to_string()], "").run();
    let output = ready(format!("http://{}", gateway.admin));
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("503"), "{}", err(&output));
    // It lives all the same.
    assert_eq!(code(&alive(format!("http://{}", gateway.admin))), 0);
    let output = alive(format!("http://{nobody}"));
    assert_eq!(code(&output), 1);
    assert!(err(&output).starts_with("not alive: "), "{}", err(&output));
    assert_eq!(code(&ready(format!("http://{nobody}"))), 1);
    assert_eq!(code(&ready("https://localhost".into())), 1);
    assert_eq!(code(&ready("nonsense".into())), 1);
}
