//! Who is told what: the command line, systemd, and the old process once it is replaced.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};

use loadtest::engine::Health;
use nix::sys::signal::{SIGHUP, SIGTERM, SIGUSR1, SIGUSR2};

use super::*;
use crate::wire::{Then, ask};

fn order(gateway: &Gateway, order: &str) -> Output {
    Command::new(PROGRAM)
        .arg("-c")
        .arg(&gateway.file)
        .args(["-s", order])
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s_upgrade_waits_for_what_comes_of_it() {
    let engine = engine(4).await;
    let (installed, start) = Installed::in_place_of(Start::new(&[engine.authority()], ""));
    let gateway = start.run();
    tokio::task::block_in_place(|| {
        installed.is_script("exit 1");
        let failed = order(&gateway, "upgrade");
        assert_eq!(failed.status.code(), Some(1));
        let said = String::from_utf8(failed.stderr).unwrap();
        let expected = format!("process {} serves on", gateway.pid());
        assert!(said.contains(&expected), "{said}");
        installed.is_mended();
        let upgraded = order(&gateway, "upgrade");
        assert_eq!(upgraded.status.code(), Some(0), "{upgraded:?}");
        let said = String::from_utf8(upgraded.stdout).unwrap();
        let pid = gateway.serving().unwrap();
        let expected = format!(
            "process {pid} serves in place of process {}\n",
            gateway.pid()
        );
        assert_eq!(said, expected);
        // The next order is for the new one.
        assert!(order(&gateway, "quit").status.success());
        wait_until("it ends", || !runs(pid));
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_process_still_writes_its_log_and_stops_when_told() {
    let engine = engine(100).await;
    let start = Start::new(&[engine.authority()], "access_log: { path: access.log }\n");
    let log = start.directory().path().join("access.log");
    let mut gateway = start.run();
    let mut waiting = idle(&gateway).await;
    let mut stream = Stream::begin(&gateway).await;
    tokio::task::block_in_place(|| gateway.upgrade());
    for signal in [SIGHUP, SIGUSR2] {
        gateway.signal(signal);
    }
    gateway.log.wait_for(2, "the signal is for that one");
    // Both processes write to one file.
    ask(gateway.public, "POST", "/v1/chat/completions", ANSWER).await;
    let lines = |path: &Path| fs::read_to_string(path).unwrap_or_default().lines().count();
    tokio::task::block_in_place(|| wait_until("a line of the new one", || lines(&log) == 1));
    let rotated = log.with_extension("1");
    fs::rename(&log, &rotated).unwrap();
    gateway.signal(SIGUSR1);
    gateway.log.wait_for(1, "reopening the access log");
    // Told to stop, it lets the stream finish and closes what idles.
    gateway.signal(SIGTERM);
    gateway
        .log
        .wait_for(1, "told to stop: idle connections are closed");
    assert_eq!(waiting.then(SECOND).await, Then::Closes);
    assert!(is_complete(&stream.rest().await));
    let status = tokio::task::block_in_place(|| gateway.ended(2 * SECOND));
    assert!(status.expect("it ends").success());
    assert_eq!((lines(&log), lines(&rotated)), (1, 1));
    assert_eq!(ask(gateway.public, "GET", "/health", "").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_twice_the_old_process_cuts_what_it_has() {
    let engine = engine(500).await;
    let mut gateway = Start::new(&[engine.authority()], "").run();
    let mut stream = Stream::begin(&gateway).await;
    tokio::task::block_in_place(|| gateway.upgrade());
    gateway.signal(SIGTERM);
    gateway.log.wait_for(1, "told to stop: ");
    gateway.signal(SIGTERM);
    let status = tokio::task::block_in_place(|| gateway.ended(2 * SECOND));
    assert!(status.expect("it ends").success());
    assert!(!stream.rest().await.is_whole);
    assert_eq!(
        gateway
            .log
            .count("1 requests are still in hand and are cut"),
        1
    );
    assert_eq!(ask(gateway.public, "GET", "/health", "").await.status, 200);
}

/// An engine that does not answer its probe, so that a process takes a while until it serves.
async fn slow_to_start() -> (Engine, String) {
    let engine = Engine::start(Script {
        health: Health::Silent,
        ..Script::default()
    })
    .await
    .unwrap();
    let keys = format!(
        "pools: {{ default: {{ endpoints: [\"{}\"], health: {{ interval: 1s, timeout: 700ms }} }} }}\n",
        engine.authority()
    );
    (engine, keys)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_that_is_asked_for_meanwhile_is_the_new_process_s() {
    let (_engine, keys) = slow_to_start().await;
    let gateway = Start::with_keys(&keys).run();
    gateway.signal(SIGUSR2);
    gateway.log.wait_for(1, "upgrading: ");
    gateway.signal(SIGHUP);
    gateway.log.wait_for(1, "HUP came meanwhile: process ");
    gateway.log.wait_for(1, " reloaded: ");
}

fn next(socket: &UnixDatagram) -> String {
    let mut message = [0; 4096];
    let length = socket.recv(&mut message).expect("systemd is told");
    String::from_utf8(message[..length].to_vec()).unwrap()
}

/// The next that is not of the watchdog.
fn next_state(socket: &UnixDatagram) -> String {
    loop {
        let message = next(socket);
        if message.trim() != "WATCHDOG=1" {
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_is_told_which_process_serves_and_that_it_is_alive() {
    let engine = engine(4).await;
    let start = Start::new(&[engine.authority()], "");
    let path = start.directory().path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    // As systemd sets it: for this process alone.
    let wrapper = start.directory().write(
        "wrapper",
        &format!("#!/bin/sh\nexport WATCHDOG_PID=$$\nexec {PROGRAM} \"$@\"\n"),
    );
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let mut gateway = start
        .program(wrapper)
        .environment("NOTIFY_SOCKET", path.to_str().unwrap())
        .environment("WATCHDOG_USEC", "4000000")
        .run();
    let has = |message: &str, line: &str| message.lines().any(|has| has == line);
    tokio::task::block_in_place(|| {
        assert!(has(&next(&socket), "READY=1"));
        for _ in 0..3 {
            assert_eq!(next(&socket).trim(), "WATCHDOG=1");
        }
        let good = fs::read_to_string(&gateway.file).unwrap();
        fs::write(&gateway.file, "nonsense: 1\n").unwrap();
        gateway.signal(SIGUSR2);
        let reloading = next_state(&socket);
        assert!(has(&reloading, "RELOADING=1") && has(&reloading, "STATUS=upgrading"));
        let failed = next_state(&socket);
        assert!(has(&failed, "READY=1"), "{failed}");
        assert!(
            failed.contains("\nSTATUS=serving; upgrade failed: "),
            "{failed}"
        );

        fs::write(&gateway.file, good).unwrap();
        let pid = gateway.upgrade();
        assert!(has(&next_state(&socket), "RELOADING=1"));
        assert_eq!(next_state(&socket).trim(), format!("MAINPID={pid}"));
        let ready = next_state(&socket);
        assert!(has(&ready, "READY=1") && has(&ready, "STATUS=serving"));
        // The old one ends without a word, and the new one shows itself, though WATCHDOG_PID was another's.
        assert!(gateway.ended(PATIENCE).expect("it ends").success());
        let begun = Instant::now();
        while begun.elapsed() < 2 * SECOND {
            assert_eq!(next(&socket).trim(), "WATCHDOG=1");
        }
        gateway.signal_serving(SIGTERM);
        assert!(has(&next_state(&socket), "STOPPING=1"));
    });
}
