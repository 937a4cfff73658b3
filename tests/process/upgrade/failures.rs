//! Upgrades that come to nothing: the old process serves on.

use nix::sys::signal::{SIGTERM, SIGUSR1, SIGUSR2};

use super::*;
use crate::wire::ask;

const FAILED: &str = "upgrade failed; this process serves on: ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_process_that_does_not_start_changes_nothing() {
    let engine = engine(100).await;
    let (installed, start) = Installed::in_place_of(Start::new(&[engine.authority()], ""));
    let gateway = start.listen("[\"127.0.0.1:0\", \"unix:g.sock\"]").run();
    // The port is named from here on, so that it is another's business.
    let port = gateway.public.port();
    let chosen = fs::read_to_string(&gateway.file).unwrap();
    let with = |listen: &str| chosen.replace("[\"127.0.0.1:0\"", &format!("[\"{listen}\""));
    let good = with(&gateway.public.to_string());
    fs::write(&gateway.file, &good).unwrap();
    let pid = tokio::task::block_in_place(|| gateway.upgrade());

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_by_us = taken.local_addr().unwrap().to_string();
    // The process that was replaced may take a last connection, whose answer then closes it.
    let mut waiting = loop {
        let mut waiting = idle(&gateway).await;
        waiting.send(request("GET", "/health", "", "")).await;
        if !closes(&waiting.answer().await.unwrap()) {
            break waiting;
        }
    };
    let mut stream = Stream::begin(&gateway).await;
    let fails = |expected: &str| {
        let failures = gateway.log.count(FAILED);
        gateway.signal_serving(SIGUSR2);
        let line = gateway.log.wait_for(failures + 1, FAILED);
        assert!(line.contains(expected), "{line}");
        assert_eq!(gateway.serving(), Some(pid));
    };
    tokio::task::block_in_place(|| {
        for (file, expected) in [
            (
                format!("{good}nonsense: 1\n"),
                "sluicegate.yaml:5:1: nonsense: ".to_owned(),
            ),
            (
                with(&taken_by_us),
                format!("cannot listen on {taken_by_us}: "),
            ),
            (
                with(&format!("0.0.0.0:{port}")),
                format!(
                    "the process that is to be replaced listens on 127.0.0.1:{port}: this change needs a restart"
                ),
            ),
        ] {
            fs::write(&gateway.file, file).unwrap();
            fails(&expected);
        }
        fs::write(&gateway.file, &good).unwrap();
        installed.is_script("echo 'no such library' >&2; exit 3");
        fails("it ended with exit status: 3");
        gateway.log.wait_for(1, "no such library");
        installed.is_script("kill -SEGV $$");
        fails("it ended with signal: 11 (SIGSEGV)");
        installed.is_gone();
        fails("No such file or directory");
    });
    assert!(gateway.directory.path().join("g.sock").exists());
    assert_eq!(ask(gateway.public, "GET", "/health", "").await.status, 200);
    waiting.send(request("GET", "/health", "", "")).await;
    let answer = waiting.answer().await.unwrap();
    assert!(answer.status == 200 && !closes(&answer));
    assert!(is_complete(&stream.rest().await));

    installed.is_mended();
    assert_ne!(tokio::task::block_in_place(|| gateway.upgrade()), pid);
    assert_eq!(ask(gateway.public, "GET", "/health", "").await.status, 200);
}

/// It hangs before it serves: orders are obeyed meanwhile, another upgrade is refused, and the end calls it off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_is_under_way_is_the_only_one_and_ends_with_the_old_process() {
    let engine = engine(4).await;
    let (installed, start) = Installed::in_place_of(Start::new(&[engine.authority()], ""));
    let mut gateway = start.run();
    let pid_file = gateway.directory.path().join("hung.pid");
    installed.is_script(&format!("echo $$ > {}; exec sleep 600", pid_file.display()));
    let hung = || {
        fs::read_to_string(&pid_file)
            .ok()?
            .trim()
            .parse::<u32>()
            .ok()
    };
    gateway.signal(SIGUSR2);
    tokio::task::block_in_place(|| wait_until("it is started", || hung().is_some()));
    gateway.signal(SIGUSR2);
    gateway
        .log
        .wait_for(1, "USR2: refused, an upgrade is under way");
    gateway.signal(SIGUSR1);
    gateway.log.wait_for(1, "reopening the access log");
    assert_eq!(ask(gateway.public, "GET", "/health", "").await.status, 200);
    gateway.signal(SIGTERM);
    let status = tokio::task::block_in_place(|| gateway.ended(5 * SECOND));
    assert!(status.expect("it ends").success());
    gateway.log.wait_for(1, "it is called off");
    assert!(!runs(hung().unwrap()));
    assert!(!gateway.pid_file().exists());
}
