//! What `-t` looks at beyond the text: certificates, names, directories.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::diagnostic::{Diagnostic, Diagnostics, Severity};
use super::models::WILDCARD;
use super::validate::{endpoint_path, listener_path};
use super::{Config, ListenAddress, ListenTls, Pool, Url};

/// Looks up a host name and returns how many addresses it has.
pub type LookUp<'a> = dyn Fn(&str, u16) -> io::Result<usize> + Sync + 'a;

/// Certificates are reported this long before they expire.
const EXPIRY_NOTICE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Names that are looked up at the same time.
const LOOKUPS: usize = 16;

/// Looks up `host` with the system's resolver. May block for as long as that does.
///
/// # Errors
/// The resolver's.
pub fn look_up(host: &str, port: u16) -> io::Result<usize> {
    use std::net::ToSocketAddrs;
    Ok((host, port).to_socket_addrs()?.count())
}

impl Config {
    /// What is wrong with the surroundings of a configuration that is right in itself. Errors
    /// (a certificate that cannot be used) would keep the gateway from starting; the rest are
    /// warnings. Reads files and calls `look_up` for every name.
    pub fn check(&self, now: SystemTime, look_up: &LookUp<'_>) -> Diagnostics {
        let mut findings = Findings {
            config: self,
            list: self.remarks.iter().cloned().collect(),
        };
        findings.certificates(now);
        findings.authorities();
        findings.admin_addresses();
        findings.trusted_proxies();
        findings.log_directory();
        findings.models();
        findings.names(look_up);
        Diagnostics::new(findings.list, 0)
    }
}

struct Findings<'a> {
    config: &'a Config,
    list: Vec<Diagnostic>,
}

impl Findings<'_> {
    fn note(&mut self, severity: Severity, path: &str, message: String, help: &str) {
        let at = self.config.places.of(path);
        let file = self.config.file.as_ref();
        self.list.push(Diagnostic {
            severity,
            file: file.map_or("command line".into(), |file| file.display().to_string()),
            line: at.line,
            column: at.column,
            path: path.to_owned(),
            message,
            help: help.to_owned(),
        });
    }

    fn warn(&mut self, path: &str, message: impl Into<String>, help: &str) {
        self.note(Severity::Warning, path, message.into(), help);
    }

    fn error(&mut self, path: &str, message: impl Into<String>, help: &str) {
        self.note(Severity::Error, path, message.into(), help);
    }

    fn listener(&self, name: &str, index: usize) -> String {
        listener_path(name, index, &|path| self.config.places.has(path))
    }

    fn certificates(&mut self, now: SystemTime) {
        for (i, listen) in self.config.listen.iter().enumerate() {
            if let Some(tls) = &listen.tls {
                let path = self.listener("listen", i);
                self.certificate(&format!("{path}.tls"), tls, now);
            }
        }
    }

    fn certificate(&mut self, path: &str, tls: &ListenTls, now: SystemTime) {
        let at = format!("{path}.certificate");
        let chain = match certificates(&tls.certificate) {
            Ok(chain) => {
                if let Some(leaf) = chain.first() {
                    self.validity(&at, &tls.certificate, leaf, now);
                }
                Some(chain)
            }
            Err(wrong) => {
                self.error(
                    &at,
                    wrong,
                    "write the path of a PEM file with the chain, leaf first",
                );
                None
            }
        };
        let at = format!("{path}.key");
        match PrivateKeyDer::from_pem_file(&tls.key) {
            Err(error) => {
                let help = "write the path of a PEM file with the private key, unencrypted";
                self.error(&at, unusable(&tls.key, &error), help);
            }
            Ok(key) => {
                let mode = std::fs::metadata(&tls.key).map_or(0, |m| m.permissions().mode());
                if mode & 0o004 != 0 {
                    let message = format!("{} can be read by everyone", tls.key.display());
                    self.warn(&at, message, "take the right away: chmod o-r");
                }
                if let Some(wrong) = chain.and_then(|chain| mismatch(chain, key)) {
                    let message = format!("{} {wrong}", tls.key.display());
                    self.error(
                        &at,
                        message,
                        "write the key that the certificate was made for",
                    );
                }
            }
        }
    }

    fn validity(&mut self, at: &str, file: &Path, leaf: &CertificateDer<'_>, now: SystemTime) {
        let file = file.display();
        let Ok((_, leaf)) = x509_parser::parse_x509_certificate(leaf) else {
            let message = format!("{file} holds no valid certificate");
            self.error(at, message, "have it issued again");
            return;
        };
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
        let validity = leaf.validity();
        let left = validity.not_after.timestamp().saturating_sub(now);
        let days = left.unsigned_abs() / (24 * 3600);
        let help = "renew it; a reload takes the new one";
        if validity.not_before.timestamp() > now {
            let message = format!("{file} is not valid yet");
            self.warn(at, message, "set this machine's clock, or wait");
        } else if left < 0 {
            self.warn(at, format!("{file} expired {days} days ago"), help);
        } else if left.unsigned_abs() < EXPIRY_NOTICE.as_secs() {
            self.warn(at, format!("{file} expires in {days} days"), help);
        }
    }

    fn authorities(&mut self) {
        for pool in &self.config.pools {
            let at = format!("pools.{}.tls", pool.name);
            if let Some(ca) = &pool.tls.ca
                && let Err(wrong) = certificates(ca)
            {
                let help = "write the path of a PEM file with the authorities to trust";
                self.error(&format!("{at}.ca"), wrong, help);
            }
            if !has_tls(pool) {
                if pool.tls.ca.is_some() || pool.tls.server_name.is_some() || !pool.tls.verify {
                    let message = "has no effect: no endpoint of this pool is https";
                    self.warn(
                        &at,
                        message,
                        "write https:// before the endpoints that speak TLS",
                    );
                }
            } else if !pool.tls.verify {
                let message = "anyone between here and the engines can read and change requests";
                let help = "trust the engines' own authority with ca";
                self.warn(&format!("{at}.verify"), message, help);
            }
        }
    }

    fn admin_addresses(&mut self) {
        for (i, listen) in self.config.admin.iter().enumerate() {
            if let ListenAddress::Tcp(address) = &listen.address
                && !address.ip().is_loopback()
            {
                let path = self.listener("admin", i);
                let message = format!("{address} can be reached from other machines");
                let help = "write 127.0.0.1 unless a firewall lets in nobody but operators";
                self.warn(&path, message, help);
            }
        }
    }

    fn trusted_proxies(&mut self) {
        let everyone = |net: &IpNet| net.prefix_len() == 0;
        if self.config.trusted_proxies.iter().any(everyone) {
            let message = "every client may say that it is another";
            self.warn(
                "trusted_proxies",
                message,
                "list the proxies' own addresses",
            );
        }
    }

    fn log_directory(&mut self) {
        let path = self
            .config
            .access_log
            .as_ref()
            .and_then(|log| log.path.as_ref());
        if let Some(directory) = path.and_then(|path| path.parent())
            && !directory.as_os_str().is_empty()
            && !directory.is_dir()
        {
            let message = format!("there is no directory {}", directory.display());
            self.warn(
                "access_log.path",
                message,
                "make it, writable for the gateway's user",
            );
        }
    }

    fn models(&mut self) {
        let config = self.config;
        if !config.models.is_configured() {
            return;
        }
        let mut served = vec![0_usize; config.pools.len()];
        for model in config.models.list.iter().chain(&config.models.wildcard) {
            if let Some(count) = served.get_mut(model.pool) {
                // The wildcard stands for any number of models.
                *count += if *model.name == *WILDCARD { 2 } else { 1 };
            }
        }
        for (pool, served) in config.pools.iter().zip(served) {
            if served == 0 {
                let path = format!("pools.{}", pool.name);
                let help = "give a model this pool, or remove it";
                self.warn(&path, "no model is served by this pool", help);
            }
            for (i, endpoint) in pool.endpoints.iter().enumerate() {
                if endpoint.model.is_some() && served > 1 {
                    let path = endpoint_path(&pool.name, i, &|p| self.config.places.has(p));
                    let message = "every request to this endpoint names this model, whichever of the pool's models it was for";
                    let help = "give each model a pool of its own";
                    self.warn(&format!("{path}.model"), message, help);
                }
            }
        }
    }

    fn names(&mut self, look_up: &LookUp<'_>) {
        // By name, the first endpoint that has it.
        let mut names: BTreeMap<(&str, u16), String> = BTreeMap::new();
        for pool in &self.config.pools {
            for (i, endpoint) in pool.endpoints.iter().enumerate() {
                if let Url::Tcp { host, port, .. } = &endpoint.url
                    && host.parse::<std::net::IpAddr>().is_err()
                {
                    let path = endpoint_path(&pool.name, i, &|p| self.config.places.has(p));
                    names.entry((host, *port)).or_insert(path);
                }
            }
        }
        let names: Vec<_> = names.into_iter().collect();
        for group in names.chunks(LOOKUPS) {
            let answers: Vec<_> = std::thread::scope(|scope| {
                let running: Vec<_> = group
                    .iter()
                    .map(|((host, port), _)| scope.spawn(move || look_up(host, *port)))
                    .collect();
                running.into_iter().map(|lookup| lookup.join()).collect()
            });
            for (((host, _), path), answer) in group.iter().zip(answers) {
                let reason = match answer {
                    Ok(Ok(n)) if n > 0 => continue,
                    Ok(Err(error)) => format!(": {error}"),
                    _ => String::new(),
                };
                let message = format!("the name {host} does not resolve{reason}");
                let help = "it is looked up again while the gateway runs; write an address if it has no name";
                self.warn(path, message, help);
            }
        }
    }
}

fn has_tls(pool: &Pool) -> bool {
    (pool.endpoints.iter()).any(|endpoint| matches!(endpoint.url, Url::Tcp { tls: true, .. }))
}

/// The certificates of a PEM file, at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(file, &error))?;
    if chain.is_empty() {
        return Err(format!("{} holds no certificate", file.display()));
    }
    Ok(chain)
}

fn unusable(file: &Path, error: &impl Display) -> String {
    format!("{} cannot be used: {error}", file.display())
}

/// What keeps the key from serving the chain.
fn mismatch(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Option<String> {
    let provider = rustls::crypto::ring::default_provider();
    match rustls::sign::CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => None,
        Err(rustls::Error::InconsistentKeys(_)) => {
            Some("does not belong to the certificate".into())
        }
        Err(error) => Some(format!("cannot be used: {error}")),
    }
}

#[cfg(test)]
mod tests;
