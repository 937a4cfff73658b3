//! Which sockets and which configuration the new process has.

use std::net::SocketAddr;

use tokio::net::UnixStream;

use super::*;
use crate::certificates::{Certificate, connect};
use crate::wire::ask;

/// A port that nobody has, most likely.
fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_new_process_has_the_new_configuration() {
    let (first, second) = (engine(4).await, engine(4).await);
    let gateway = Start::new(&[first.authority()], "").run();
    let public = gateway.public;
    let chat = async || ask(public, "POST", "/v1/chat/completions", STREAM).await;
    assert!(is_complete(&chat().await));
    gateway.rewrite(&format!(
        "endpoints: [\"{}\"]\nthreads: 1\nlog: {{ level: info }}\n",
        second.authority()
    ));
    let pid = tokio::task::block_in_place(|| gateway.upgrade());
    assert!(is_complete(&chat().await));
    let of = |engine: &loadtest::engine::Engine| engine.inferences().len();
    assert_eq!((of(&first), of(&second)), (1, 1));
    // What a reload cannot change: the number of workers.
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let workers = tasks
        .map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
        .filter(|name| name.starts_with("worker-"));
    assert_eq!(workers.count(), 1);
    // Nothing of the old process but its listeners: no client's connection, no engine's.
    let sockets = |pid| -> Vec<_> {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        descriptors
            .filter_map(|descriptor| fs::read_link(descriptor.unwrap().path()).ok())
            .filter(|link| link.to_str().unwrap().starts_with("socket:"))
            .collect()
    };
    let _waiting = idle(&gateway).await;
    let mut before = sockets(pid);
    let again = tokio::task::block_in_place(|| gateway.upgrade());
    let after = sockets(again);
    before.sort();
    before.dedup();
    let inherited = before.iter().filter(|socket| after.contains(socket));
    assert_eq!(inherited.count(), 2, "{before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_come_stay_and_go() {
    let engine = engine(4).await;
    let [kept, gone, come] = [free(), free(), free()];
    let certificate = Certificate::new();
    let file = |listen: &str| {
        format!(
            "endpoints: [\"{}\"]\npid_file: sluicegate.pid\nadmin: \"127.0.0.1:0\"\nlisten: [{listen}]\n",
            engine.authority()
        )
    };
    let start = Start::new(&[engine.authority()], "").listen(format!(
        "[\"{kept}\", \"{gone}\", \"unix:kept.sock\", \"unix:gone.sock\"]"
    ));
    certificate.install(start.directory());
    let mut gateway = start.run();
    let directory = gateway.directory.path().to_owned();
    let path = |name: &str| directory.join(name);
    let before = inode(&path("kept.sock"));
    // TLS on what had none, other ports, other files.
    fs::write(
        &gateway.file,
        file(&format!(
            "{{ address: \"{kept}\", tls: {{ certificate: chain.pem, key: key.pem }} }}, \"{come}\", \
             \"unix:kept.sock\", \"unix:come.sock\""
        )),
    )
    .unwrap();
    let pid = tokio::task::block_in_place(|| gateway.upgrade());
    let status = tokio::task::block_in_place(|| gateway.ended(PATIENCE));
    assert!(status.expect("nobody holds it").success());

    connect(kept, &[&certificate], "http/1.1").await.unwrap();
    assert_eq!(ask(come, "GET", "/health", "").await.status, 200);
    assert!(TcpStream::connect(gone).await.is_err());
    assert_eq!(inode(&path("kept.sock")), before);
    for name in ["kept.sock", "come.sock"] {
        let mut wire = Wire::over(UnixStream::connect(path(name)).await.unwrap());
        wire.send(request("GET", "/health", "", "")).await;
        assert_eq!(wire.answer().await.unwrap().status, 200, "{name}");
    }
    tokio::task::block_in_place(|| {
        wait_until("the file of a closed socket goes", || {
            !path("gone.sock").exists()
        });
    });
    assert_eq!(gateway.serving(), Some(pid));
}

/// A socket whose file somebody removed is of no use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_that_cannot_be_reached_is_made_anew() {
    let engine = engine(4).await;
    let gateway = Start::new(&[engine.authority()], "")
        .listen("[\"127.0.0.1:0\", \"unix:g.sock\"]")
        .run();
    let path = gateway.directory.path().join("g.sock");
    fs::remove_file(&path).unwrap();
    tokio::task::block_in_place(|| gateway.upgrade());
    let mut wire = Wire::over(UnixStream::connect(&path).await.unwrap());
    wire.send(request("GET", "/health", "", "")).await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
}
