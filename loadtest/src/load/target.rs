//! Where load goes, and that it goes no further than this machine.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

/// Whose certificates are believed on https.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// Anyone's: for self-signed certificates on loopback.
    #[default]
    Any,
    /// These authorities, a PEM file.
    Authorities(PathBuf),
}

/// A resolved `http://` or `https://` address.
#[derive(Clone)]
pub(crate) struct Target {
    pub address: SocketAddr,
    /// For the Host field.
    pub authority: String,
    /// The path prefix of the URL, without a slash at its end.
    pub prefix: String,
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// Resolves `url`. A host that is not this machine is refused unless `allow_remote`.
    pub(crate) fn resolve(
        url: &str,
        trust: &Trust,
        http2: bool,
        allow_remote: bool,
    ) -> Result<Self, String> {
        let uri: hyper::Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("{url}: begins with neither http:// nor https://")),
        };
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let addresses: Vec<_> = (host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| format!("{host}: {error}"))?
            .collect();
        if !allow_remote
            && let Some(remote) = addresses.iter().find(|address| !address.ip().is_loopback())
        {
            return Err(format!(
                "{host} is {}, not this machine; --allow-remote sends load there",
                remote.ip()
            ));
        }
        let address = *addresses
            .first()
            .ok_or_else(|| format!("{host} has no address"))?;
        let tls = if tls {
            let name =
                ServerName::try_from(host.clone()).map_err(|error| format!("{host}: {error}"))?;
            Some((connector(trust, http2)?, name))
        } else {
            None
        };
        let authority = uri
            .authority()
            .map_or_else(String::new, ToString::to_string);
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self {
            address,
            authority,
            prefix,
            tls,
        })
    }
}

fn connector(trust: &Trust, http2: bool) -> Result<TlsConnector, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = match trust {
        Trust::Any => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth(),
        Trust::Authorities(path) => {
            let mut roots = RootCertStore::empty();
            let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![if http2 {
        b"h2".to_vec()
    } else {
        b"http/1.1".to_vec()
    }];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Believes any certificate; signatures are still checked.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_stays_on_this_machine_unless_it_is_allowed_to_leave() {
        let resolve = |url, remote| Target::resolve(url, &Trust::Any, false, remote);
        assert_eq!(
            resolve("http://127.0.0.1:8080/prefix/", false).map(|t| t.prefix),
            Ok("/prefix".to_owned())
        );
        assert!(resolve("http://[::1]:8080", false).is_ok());
        assert!(
            resolve("http://192.0.2.1:80", false)
                .is_err_and(|error| error.contains("--allow-remote"))
        );
        assert!(resolve("http://192.0.2.1:80", true).is_ok());
        assert!(resolve("ftp://127.0.0.1", false).is_err());
        assert!(resolve("https://127.0.0.1:1", false).is_ok_and(|target| target.tls.is_some()));
    }
}
