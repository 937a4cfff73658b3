use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::Certificate;

/// An engine behind TLS.
pub struct TlsNode {
    address: SocketAddr,
    acceptor: JoinHandle<()>,
}

impl TlsNode {
    /// It says yes to everything.
    pub async fn start(certificate: &Certificate) -> Self {
        Self::launch(certificate, None).await
    }

    /// It is another engine, without TLS, that answers.
    pub async fn before(engine: SocketAddr, certificate: &Certificate) -> Self {
        Self::launch(certificate, Some(engine)).await
    }

    async fn launch(certificate: &Certificate, engine: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let tls = TlsAcceptor::from(certificate.server());
        let acceptor = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    // A client that does not trust us leaves here.
                    let Ok(mut stream) = tls.accept(stream).await else {
                        return;
                    };
                    if let Some(engine) = engine {
                        let mut engine = TcpStream::connect(engine).await.expect("an engine");
                        // How it ended is seen by both sides.
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut engine).await;
                        return;
                    }
                    let mut input = vec![0; 64 * 1024];
                    while stream.read(&mut input).await.is_ok_and(|read| read > 0) {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, acceptor }
    }

    pub fn authority(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for TlsNode {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}
