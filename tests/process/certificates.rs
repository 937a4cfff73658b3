//! Certificates made for the occasion, and a client that trusts them.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::gateway::Directory;

/// A certificate for `localhost`, signed by itself.
pub struct Certificate {
    pub der: CertificateDer<'static>,
    certificate: String,
    key: String,
}

impl Certificate {
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        Self {
            der: made.cert.der().clone(),
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    }

    /// Puts it where [`LISTEN`] looks, each file whole at once.
    pub fn install(&self, directory: &Directory) {
        for (name, content) in [("chain.pem", &self.certificate), ("key.pem", &self.key)] {
            let new = directory.write(&format!("{name}.new"), content);
            std::fs::rename(new, directory.path().join(name)).unwrap();
        }
    }
}

/// `listen:` with TLS and HTTP/2.
pub const LISTEN: &str =
    "{ address: \"127.0.0.1:0\", tls: { certificate: chain.pem, key: key.pem }, http2: true }";

/// A TLS connection that offers `protocol`, to one who has any of `trusted`.
pub async fn connect(
    address: std::net::SocketAddr,
    trusted: &[&Certificate],
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.der.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// The certificate the other side showed.
pub fn shown<T>(stream: &TlsStream<T>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0]
        .clone()
        .into_owned()
}
