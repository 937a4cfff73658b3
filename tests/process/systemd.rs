//! What systemd is told (`Type=notify`, sd_notify(3)), on a socket of the test's own.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use loadtest::engine::{Engine, Health, Script};
use nix::sys::signal::Signal::{SIGHUP, SIGTERM};

use crate::gateway::{Directory, PATIENCE, Start};
use crate::wire::ask;

fn next(socket: &UnixDatagram) -> String {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut message = [0; 4096];
    let length = socket.recv(&mut message).expect("systemd is told");
    String::from_utf8(message[..length].to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_when_it_serves_reloading_while_it_reads_stopping_when_it_ends() {
    // The first probes hold READY up for health.timeout at most.
    let slow = Script {
        health: Health::Silent,
        ..Script::default()
    };
    let engine = Engine::start(slow).await.unwrap();
    let directory = Directory::new();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let keys = format!(
        "pools: {{ default: {{ endpoints: [\"{}\"], health: {{ interval: 1s, timeout: 300ms }} }} }}\n",
        engine.authority()
    );
    let start = Start::with_keys(&keys).environment("NOTIFY_SOCKET", path.to_str().unwrap());
    let starting = tokio::task::spawn_blocking(move || start.run());
    let ready = next(&socket);
    assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    let mut gateway = starting.await.unwrap();
    for address in [gateway.public, gateway.admin] {
        assert_eq!(ask(address, "GET", "/health", "").await.status, 200);
    }

    // Also a reload that is refused ends in READY: systemd would wait for ever otherwise.
    for keys in [keys.clone(), "nonsense: 1\n".to_owned()] {
        gateway.rewrite(&keys);
        gateway.signal(SIGHUP);
        let reloading = next(&socket);
        assert!(
            reloading.lines().any(|line| line == "RELOADING=1"),
            "{reloading}"
        );
        let at = reloading
            .lines()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
            .unwrap();
        assert!(at.parse::<u64>().unwrap() > 0);
        let ready = next(&socket);
        assert!(ready.lines().any(|line| line == "READY=1"), "{ready}");
    }

    gateway.signal(SIGTERM);
    let stopping = next(&socket);
    assert!(
        stopping.lines().any(|line| line == "STOPPING=1"),
        "{stopping}"
    );
    assert!(
        gateway
            .ended(Duration::from_secs(3))
            .expect("it ends")
            .success()
    );
}
