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
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address)).unwrap();
    let good = fs::read_to_string(&gateway.file).unwrap();
    let mut waiting = idle(&gateway).await;
    let mut stream = Stream::begin(&gateway).await;
    let everywhere = format!("0.0.0.0:{}", gateway.public.port());
    let with = |listen: &str| good.replace("[\"127.0.0.1:0\"", &format!("[\"{listen}\""));
    let excluded = format!(
        "the process that is to be replaced listens on 127.0.0.1:{}: this change needs a restart",
        gateway.public.port()
    );

    let said = |expected: &str| {
        let failures = gateway.log.count(FAILED);
        gateway.signal(SIGUSR2);
        let line = gateway.log.wait_for(failures + 1, FAILED);
        assert!(line.contains(expected), "{line}");
        assert_eq!(gateway.serving(), Some(gateway.pid()));
    };
    tokio::task::block_in_place(|| {
        fs::write(&gateway.file, format!("{good}nonsense: 1\n")).unwrap();
        said("nonsense: ");
        fs::write(&gateway.file, with(&taken.1.to_string())).unwrap();
        said(&format!("cannot listen on {}: ", taken.1));
        // The old process must have said its port for this.
        fs::write(&gateway.file, with(&gateway.public.to_string())).unwrap();
    });
    tokio::task::block_in_place(|| gateway.upgrade());
    let gateway_of_ports = gateway.serving().unwrap();
    tokio::task::block_in_place(|| {
        fs::write(&gateway.file, with(&everywhere)).unwrap();
        let failures = gateway.log.count(FAILED);
        gateway.signal_serving(SIGUSR2);
        let line = gateway.log.wait_for(failures + 1, FAILED);
        assert!(line.contains(&excluded), "{line}");
        fs::write(&gateway.file, &good).unwrap();
        for (script, expected) in [
            (
                "echo 'no such library' >&2; exit 3",
                "it ended with exit status: 3",
            ),
            ("kill -SEGV $$", "it ended with signal: 11 (SIGSEGV)"),
        ] {
            installed.is_script(script);
            let failures = gateway.log.count(FAILED);
            gateway.signal_serving(SIGUSR2);
            let line = gateway.log.wait_for(failures + 1, FAILED);
            assert!(line.contains(expected), "{line}");
        }
        gateway.log.wait_for(1, "no such library");
        installed.is_gone();
        let failures = gateway.log.count(FAILED);
        gateway.signal_serving(SIGUSR2);
        let line = gateway.log.wait_for(failures + 1, FAILED);
        assert!(line.contains("No such file or directory"), "{line}");
    });
    assert_eq!(gateway.serving(), Some(gateway_of_ports));
    assert!(gateway.directory.path().join("g.sock").exists());
    assert_eq!(ask(gateway.public, "GET", "/health", "").await.status, 200);
    waiting.send(request("GET", "/health", "", "")).await;
    assert_eq!(waiting.answer().await.unwrap().status, 200);
    assert!(is_complete(&stream.rest().await));

    installed.is_mended();
    let pid = tokio::task::block_in_place(|| gateway.upgrade());
    assert_ne!(pid, gateway_of_ports);
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
