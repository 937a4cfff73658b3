//! The new process ends while the old one still finishes what it has.

use std::os::unix::net::UnixDatagram;

use nix::sys::signal::{SIGKILL, SIGTERM};

use super::*;
use crate::wire::ask;

const AGAIN: &str = "this process serves again, as before the upgrade";

async fn health(gateway: &Gateway) -> u16 {
    ask(gateway.public, "GET", "/health", "").await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_process_serves_again_when_the_new_one_dies() {
    let engine = engine(200).await;
    let start = Start::new(&[engine.authority()], "").listen("[\"127.0.0.1:0\", \"unix:g.sock\"]");
    let systemd = start.directory().path().join("notify.sock");
    let notified = UnixDatagram::bind(&systemd).unwrap();
    notified.set_read_timeout(Some(PATIENCE)).unwrap();
    let gateway = start
        .environment("NOTIFY_SOCKET", systemd.to_str().unwrap())
        .run();
    let mut stream = Stream::begin(&gateway).await;
    let new = tokio::task::block_in_place(|| gateway.upgrade());
    assert_ne!(new, gateway.pid());
    assert_eq!(health(&gateway).await, 200);
    gateway.signal_serving(SIGKILL);
    // Who connects before the old process knows of it waits.
    assert_eq!(health(&gateway).await, 200);
    let line = gateway.log.wait_for(1, AGAIN);
    assert!(line.contains("SIGKILL"), "{line}");
    tokio::task::block_in_place(|| {
        wait_until("the pid file is its own", || {
            gateway.serving() == Some(gateway.pid())
        });
    });
    let main_process = format!("MAINPID={}\n", gateway.pid());
    tokio::task::block_in_place(|| {
        let mut room = [0; 1024];
        while {
            let length = notified.recv(&mut room).expect("systemd is told");
            room[..length] != *main_process.as_bytes()
        } {}
        let length = notified.recv(&mut room).unwrap();
        let said = String::from_utf8_lossy(&room[..length]);
        assert!(
            said.contains("READY=1") && said.contains("STATUS=serving;"),
            "{said}"
        );
    });
    let socket = gateway.directory.path().join("g.sock");
    let mut wire = Wire::over(tokio::net::UnixStream::connect(&socket).await.unwrap());
    wire.send(request("GET", "/health", "", "")).await;
    let answer = wire.answer().await.unwrap();
    assert!(answer.status == 200 && !closes(&answer));
    // As if nothing had been: it reloads, drains nothing, and is upgraded.
    gateway.reload(&format!("endpoints: [\"{}\"]\n", engine.authority()));
    let mut later = Stream::begin(&gateway).await;
    let newer = tokio::task::block_in_place(|| gateway.upgrade());
    assert!(newer != new && newer != gateway.pid());
    assert_eq!(health(&gateway).await, 200);
    for stream in [&mut stream, &mut later] {
        assert!(is_complete(&stream.rest().await));
    }
}

/// The first process would not know of the third one's death: whoever connects is refused, and does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_one_that_was_replaced_twice() {
    let engine = engine(200).await;
    let gateway = Start::new(&[engine.authority()], "")
        .listen("[\"127.0.0.1:0\", \"unix:g.sock\"]")
        .run();
    let mut stream = Stream::begin(&gateway).await;
    let second = tokio::task::block_in_place(|| gateway.upgrade());
    tokio::task::block_in_place(|| gateway.upgrade());
    gateway.log.wait_for(1, "has handed over itself and ended");
    assert!(!runs(second));
    assert_eq!(health(&gateway).await, 200);
    gateway.signal_serving(SIGKILL);
    let refused = async {
        while TcpStream::connect(gateway.public).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused)
        .await
        .expect("it is closed");
    assert!(is_complete(&stream.rest().await));
    assert_eq!(gateway.log.count(AGAIN), 0);
}

/// The new process closes it, and the old one may be looking at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_that_is_no_more_leaves_nobody_spinning() {
    let engine = engine(4).await;
    let gateway = Start::new(&[engine.authority()], "").run();
    let without = fs::read_to_string(&gateway.file).unwrap();
    let with = "admin: [\"127.0.0.1:0\", \"unix:admin.sock\"]";
    let with = without.replacen("admin: 127.0.0.1:0", with, 1);
    assert_ne!(with, without);
    let mut replaced = vec![gateway.pid()];
    for turn in 0..12 {
        let file = if turn % 2 == 0 { &with } else { &without };
        fs::write(&gateway.file, file).unwrap();
        replaced.push(tokio::task::block_in_place(|| gateway.upgrade()));
    }
    replaced.pop();
    tokio::task::block_in_place(|| {
        wait_until("all that were replaced end", || {
            !replaced.iter().any(|pid| runs(*pid))
        });
    });
    assert_eq!(health(&gateway).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_gateway_whose_new_process_has_stopped() {
    let engine = engine(200).await;
    let gateway = Start::new(&[engine.authority()], "").run();
    let mut stream = Stream::begin(&gateway).await;
    let new = tokio::task::block_in_place(|| gateway.upgrade());
    gateway.signal_serving(SIGTERM);
    tokio::task::block_in_place(|| {
        gateway.log.wait_for(1, "which had taken over, has ended");
        wait_until("it has ended", || !runs(new));
    });
    assert!(TcpStream::connect(gateway.public).await.is_err());
    // The address is free for another.
    let other = std::net::TcpListener::bind(gateway.public);
    assert!(other.is_ok(), "{other:?}");
    assert!(is_complete(&stream.rest().await));
    assert_eq!(gateway.log.count(AGAIN), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_has_handed_over_may_die() {
    let engine = engine(200).await;
    let gateway = Start::new(&[engine.authority()], "").run();
    let mut stream = Stream::begin(&gateway).await;
    let second = tokio::task::block_in_place(|| gateway.upgrade());
    let mut lost = Stream::begin(&gateway).await;
    let third = tokio::task::block_in_place(|| gateway.upgrade());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(second as i32), SIGKILL).unwrap();
    gateway.log.wait_for(1, "has handed over itself and ended");
    assert!(!lost.rest().await.is_whole);
    assert_eq!(gateway.serving(), Some(third));
    assert_eq!(health(&gateway).await, 200);
    assert!(is_complete(&stream.rest().await));
    assert_eq!(gateway.log.count(AGAIN), 0);
}
