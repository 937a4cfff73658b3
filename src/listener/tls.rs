//! Certificates of the listeners, replaced under running connections on reload.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use pingora::listeners::tls::Acceptor;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::ListenTls;

/// A certificate or key that cannot be used; names the file.
#[derive(Debug)]
pub struct CertificateError(String);

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CertificateError {}

/// The certificate one listener shows; [`Certificates::replace`] changes it for new handshakes.
#[derive(Debug)]
pub struct Certificates(ArcSwap<CertifiedKey>);

impl Certificates {
    pub fn load(tls: &ListenTls) -> Result<(Arc<Self>, Option<SystemTime>), CertificateError> {
        let (key, expires) = read(tls)?;
        Ok((Arc::new(Self(ArcSwap::from_pointee(key))), expires))
    }

    /// Reads and checks the files without showing them yet. The time is when the certificate expires.
    pub fn read(tls: &ListenTls) -> Result<(CertifiedKey, Option<SystemTime>), CertificateError> {
        read(tls)
    }

    /// Shows this certificate from the next handshake on. Whether it is another one than before.
    pub fn show(&self, key: CertifiedKey) -> bool {
        let is_new = self.0.load().cert != key.cert;
        self.0.store(Arc::new(key));
        is_new
    }

    /// The acceptor Pingora handshakes with.
    pub fn acceptor(self: &Arc<Self>, http2: bool) -> Result<Acceptor, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| CertificateError(format!("TLS cannot be set up: {e}")))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        if http2 {
            config.alpn_protocols.push(b"h2".to_vec());
        }
        config.alpn_protocols.push(b"http/1.1".to_vec());
        Ok(Acceptor::from_server_config(Arc::new(config)))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn read(tls: &ListenTls) -> Result<(CertifiedKey, Option<SystemTime>), CertificateError> {
    let chain = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| failed("certificate", &tls.certificate, &e))?;
    if chain.is_empty() {
        return Err(failed(
            "certificate",
            &tls.certificate,
            &"it holds no certificate",
        ));
    }
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| failed("key", &tls.key, &e))?;
    let expires = expiry(&chain[0]);
    let provider = rustls::crypto::ring::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => {
            let why = format!("it is not the key of {}", tls.certificate.display());
            failed("key", &tls.key, &why)
        }
        e => failed("key", &tls.key, &e),
    })?;
    Ok((certified, expires))
}

fn expiry(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds))
}

fn failed(what: &str, path: &Path, why: &dyn fmt::Display) -> CertificateError {
    CertificateError(format!("cannot use the {what} {}: {why}", path.display()))
}
