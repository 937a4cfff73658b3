use std::time::Duration;

use tokio::time::Instant;

use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream as ServerStream;

use super::*;
use crate::upstream::connection::tests::peer;
use crate::upstream::{ConnectError, Connection, HeadLimits, IdlePool, ReadError};

const SOON: Duration = Duration::from_secs(5);
const QUESTION: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

/// A PEM file that goes away with the value.
struct PemFile(PathBuf);

impl PemFile {
    fn new(name: &str, text: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("sluicegate-{name}-{}.pem", std::process::id()));
        std::fs::write(&path, text).unwrap();
        PemFile(path)
    }
}

impl Drop for PemFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A server's side for `localhost`, and its certificate in PEM.
fn server() -> (TlsAcceptor, String) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
        certified.signing_key.serialize_der(),
    ));
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![certified.cert.der().clone()], key)
    .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), certified.cert.pem())
}

type Accepted = Option<ServerStream<tokio::net::TcpStream>>;

/// Connects `client` to `acceptor`.
async fn connect(
    client: TlsClient,
    acceptor: TlsAcceptor,
) -> (Result<Connection, ConnectError>, Accepted) {
    let (mut target, listener) = peer().await;
    target.tls = Some(Arc::new(client));
    let accepting = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        acceptor.accept(socket).await.ok()
    });
    let connection = Connection::connect(&target, SOON).await;
    (connection, accepting.await.unwrap())
}

async fn connected() -> (Connection, ServerStream<tokio::net::TcpStream>) {
    let (acceptor, _) = server();
    let client = TlsClient::new("localhost", None, false).unwrap();
    let (connection, socket) = connect(client, acceptor).await;
    (connection.unwrap(), socket.unwrap())
}

#[tokio::test]
async fn a_certificate_of_the_given_ca_is_trusted_and_http_1_1_agreed_on() {
    let (acceptor, pem) = server();
    let ca = PemFile::new("trusted", &pem);
    let client = TlsClient::new("localhost", Some(&ca.0), true).unwrap();
    let (connection, socket) = connect(client, acceptor).await;
    assert!(connection.is_ok());
    assert_eq!(
        socket.unwrap().get_ref().1.alpn_protocol(),
        Some(b"http/1.1".as_slice())
    );
}

#[tokio::test]
async fn a_certificate_of_another_ca_or_name_is_refused() {
    let (acceptor, pem) = server();
    let ca = PemFile::new("name", &pem);
    let client = TlsClient::new("node1", Some(&ca.0), true).unwrap();
    assert!(
        matches!(
            connect(client, acceptor.clone()).await.0,
            Err(ConnectError::Tls(_))
        ),
        "another name"
    );
    let (_, other) = server();
    let ca = PemFile::new("other", &other);
    let client = TlsClient::new("localhost", Some(&ca.0), true).unwrap();
    assert!(
        matches!(
            connect(client, acceptor.clone()).await.0,
            Err(ConnectError::Tls(_))
        ),
        "another CA"
    );
    let client = TlsClient::new("node1", None, false).unwrap();
    assert!(connect(client, acceptor).await.0.is_ok(), "not verified");
}

#[tokio::test]
async fn an_exchange_over_tls_leaves_a_connection_for_the_next() {
    let (mut connection, mut socket) = connected().await;
    let pool = IdlePool::new();
    for turn in 0..3 {
        assert_eq!(connection.is_reused(), turn > 0);
        connection.send(QUESTION, &[]).await.unwrap();
        socket.read_exact(&mut [0; QUESTION.len()]).await.unwrap();
        socket
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await
            .unwrap();
        socket.flush().await.unwrap();
        connection.read_head(HeadLimits::default()).await.unwrap();
        assert_eq!(connection.read_body().await.unwrap().unwrap(), "ok");
        pool.put(connection, Instant::now(), 8);
        connection = pool
            .take(Instant::now(), SOON)
            .expect("a silent connection");
    }
    connection.send(QUESTION, &[]).await.unwrap();
}

#[tokio::test]
async fn a_tls_connection_that_the_peer_closed_is_not_given_out() {
    let (mut connection, mut socket) = connected().await;
    let pool = IdlePool::new();
    connection.send(QUESTION, &[]).await.unwrap();
    socket
        .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .await
        .unwrap();
    socket.flush().await.unwrap();
    connection.read_head(HeadLimits::default()).await.unwrap();
    pool.put(connection, Instant::now(), 8);
    assert_eq!(pool.len(), 1);
    socket.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(pool.take(Instant::now(), SOON).is_none());
}

#[tokio::test]
async fn an_answer_that_runs_until_the_close_must_be_closed_by_tls() {
    for clean in [true, false] {
        let (mut connection, mut socket) = connected().await;
        connection.send(QUESTION, &[]).await.unwrap();
        socket.read_exact(&mut [0; QUESTION.len()]).await.unwrap();
        socket
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nhello")
            .await
            .unwrap();
        socket.flush().await.unwrap();
        if clean {
            socket.shutdown().await.unwrap();
        }
        drop(socket);
        connection.read_head(HeadLimits::default()).await.unwrap();
        assert_eq!(connection.read_body().await.unwrap().unwrap(), "hello");
        match connection.read_body().await {
            Ok(None) if clean => {}
            Err(ReadError::Closed) if !clean => {}
            end => panic!("clean: {clean}, {end:?}"),
        }
        assert!(!connection.reusable());
    }
}

#[tokio::test]
async fn a_large_request_over_tls_arrives_whole() {
    let (mut connection, mut socket) = connected().await;
    let body: Vec<bytes::Bytes> = (0..40_u8).map(|n| vec![n; 65_537].into()).collect();
    let expected = [QUESTION, &body.concat()].concat();
    let length = expected.len();
    let reading = tokio::spawn(async move {
        let mut read = vec![0; length];
        socket.read_exact(&mut read).await.unwrap();
        read
    });
    connection.send(QUESTION, &body).await.unwrap();
    assert!(reading.await.unwrap() == expected);
}

#[test]
fn what_is_wrong_with_a_ca_or_a_name_is_said_with_the_name() {
    let error = |name: &str, ca: &Path| {
        TlsClient::new(name, Some(ca), true)
            .unwrap_err()
            .to_string()
    };
    let missing = Path::new("/nonexistent/ca.pem");
    assert!(
        error("node1", missing).starts_with("/nonexistent/ca.pem: "),
        "{}",
        error("node1", missing)
    );
    let empty = PemFile::new("empty", "nothing here\n");
    assert!(error("node1", &empty.0).ends_with("holds no certificate in PEM format"));
    let broken = PemFile::new(
        "broken",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    assert!(
        error("node1", &broken.0).contains("broken"),
        "{}",
        error("node1", &broken.0)
    );
    assert!(error("not a name", missing).contains("'not a name'"));
}
