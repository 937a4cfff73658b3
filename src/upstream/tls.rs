//! TLS towards an endpoint: rustls with ring, ALPN `http/1.1`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connect::Socket;

/// How to speak TLS to one endpoint. Keeps sessions for resumption, so it is worth sharing.
pub struct TlsClient {
    connector: TlsConnector,
    server_name: ServerName<'static>,
}

impl TlsClient {
    /// * `server_name`: sent as SNI and looked for in the certificate; a DNS name or an IP address.
    /// * `ca`: a PEM file of the only roots to trust (nginx `proxy_ssl_trusted_certificate`); `None` =
    ///   those of the system.
    /// * `verify`: `false` accepts every certificate (nginx `proxy_ssl_verify off`).
    ///
    /// Reads files: not for the request path.
    pub fn new(server_name: &str, ca: Option<&Path>, verify: bool) -> Result<TlsClient, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| TlsError::ServerName(server_name.to_owned()))?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Rustls)?
            .dangerous();
        let verifier: Arc<dyn ServerCertVerifier> = if verify {
            let roots = Arc::new(match ca {
                Some(file) => roots_of_file(file)?,
                None => roots_of_system()?,
            });
            WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| TlsError::SystemRoots(error.to_string()))?
        } else {
            Arc::new(AcceptAny(provider))
        };
        let mut config = builder
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsClient {
            connector: TlsConnector::from(Arc::new(config)),
            server_name,
        })
    }

    pub(super) async fn handshake(&self, socket: Socket) -> io::Result<TlsStream<Socket>> {
        self.connector
            .connect(self.server_name.clone(), socket)
            .await
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// Why a TLS client cannot be set up.
#[derive(Debug)]
pub enum TlsError {
    /// Neither a DNS name nor an IP address.
    ServerName(String),
    /// The CA file cannot be read or parsed, or holds no certificate.
    Ca {
        file: PathBuf,
        reason: String,
    },
    /// The system has no usable root certificates.
    SystemRoots(String),
    Rustls(rustls::Error),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::ServerName(name) => {
                write!(f, "'{name}' is neither a DNS name nor an IP address")
            }
            TlsError::Ca { file, reason } => write!(f, "{}: {reason}", file.display()),
            TlsError::SystemRoots(reason) => {
                write!(f, "no root certificates of the system: {reason}")
            }
            TlsError::Rustls(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for TlsError {}

fn roots_of_file(file: &Path) -> Result<RootCertStore, TlsError> {
    let fail = |reason: String| TlsError::Ca {
        file: file.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(file).map_err(|error| fail(pem_reason(error)))?
    {
        let certificate = certificate.map_err(|error| fail(pem_reason(error)))?;
        roots
            .add(certificate)
            .map_err(|error| fail(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fail("holds no certificate in PEM format".to_owned()));
    }
    Ok(roots)
}

fn pem_reason(error: rustls_pki_types::pem::Error) -> String {
    match error {
        rustls_pki_types::pem::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    }
}

fn roots_of_system() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Old roots that rustls cannot use are common in system stores and no reason to stop.
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let reason = found
            .errors
            .first()
            .map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::SystemRoots(reason));
    }
    Ok(roots)
}

/// Takes any certificate whose key the peer holds.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
