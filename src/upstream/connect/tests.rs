use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::*;
use crate::upstream::{Connection, HeadLimits};

const SOON: Duration = Duration::from_secs(5);

fn target(address: Address) -> Target {
    Target {
        address,
        authority: "node1".to_owned(),
        tls: None,
    }
}

/// A path for a socket, in a directory that goes away with the value.
struct SocketPath(PathBuf);

impl SocketPath {
    fn new(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("sluicegate-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        SocketPath(directory.join("socket"))
    }

    fn target(&self) -> Target {
        target(Address::Unix(self.0.clone()))
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.parent().unwrap());
    }
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_refused() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = Connection::connect(&target(Address::Tcp(free)), SOON)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Refused), "{error}");
}

#[tokio::test]
async fn a_tcp_connection_has_nodelay_and_keepalive() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let Ok(Transport::Plain(Socket::Tcp(stream))) = connect(&target(address), SOON).await else {
        panic!("no TCP connection");
    };
    assert!(stream.nodelay().unwrap());
    let socket = SockRef::from(&stream);
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
}

#[tokio::test]
async fn a_unix_socket_answers() {
    let path = SocketPath::new("unix");
    let listener = UnixListener::bind(&path.0).unwrap();
    let mut connection = Connection::connect(&path.target(), SOON).await.unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    connection
        .send(b"GET / HTTP/1.1\r\n\r\n", &[])
        .await
        .unwrap();
    std::io::Write::write_all(
        &mut socket,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .unwrap();
    assert_eq!(
        connection
            .read_head(HeadLimits::default())
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(connection.read_body().await.unwrap().unwrap(), "ok");
    assert!(connection.reusable());
}

#[tokio::test]
async fn a_unix_socket_without_a_listener_is_refused() {
    let path = SocketPath::new("gone");
    let error = Connection::connect(&path.target(), SOON).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused), "no file: {error}");
    drop(UnixListener::bind(&path.0).unwrap());
    let error = Connection::connect(&path.target(), SOON).await.unwrap_err();
    assert!(
        matches!(error, ConnectError::Refused),
        "nobody behind the file: {error}"
    );
}

#[tokio::test]
async fn a_unix_socket_with_a_full_backlog_is_busy_and_not_refused() {
    let path = SocketPath::new("busy");
    let listener =
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener
        .bind(&socket2::SockAddr::unix(&path.0).unwrap())
        .unwrap();
    listener.listen(1).unwrap();
    let mut waiting = Vec::new();
    let error = loop {
        match Connection::connect(&path.target(), SOON).await {
            Ok(connection) => waiting.push(connection),
            Err(error) => break error,
        }
        assert!(waiting.len() < 10);
    };
    assert!(matches!(error, ConnectError::Busy), "{error}");
}

#[test]
fn where_no_way_leads_is_unreachable() {
    for code in [
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::ENETDOWN,
        libc::EHOSTDOWN,
    ] {
        let error = ConnectError::from_io(io::Error::from_raw_os_error(code));
        assert!(matches!(error, ConnectError::Unreachable(_)), "{error}");
    }
    let error = ConnectError::from_io(io::Error::from_raw_os_error(libc::EACCES));
    assert!(matches!(error, ConnectError::Io(_)), "{error}");
}

#[tokio::test]
async fn a_peer_that_does_not_answer_in_time_is_timed_out() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut target = target(Address::Tcp(listener.local_addr().unwrap()));
    // The kernel accepts; the handshake waits for ever.
    target.tls = Some(std::sync::Arc::new(
        crate::upstream::TlsClient::new("node1", None, false).unwrap(),
    ));
    let error = Connection::connect(&target, Duration::from_millis(30))
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut), "{error}");
}
