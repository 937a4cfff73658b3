//! Where an endpoint is.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::tls::TlsClient;

/// Where to connect to, and how. Cheap to clone; lives in the endpoint's state.
#[derive(Debug, Clone)]
pub struct Target {
    pub address: Address,
    /// Host and port as configured: the Host field of a request whose client gave none.
    pub authority: String,
    /// `None` = plaintext.
    pub tls: Option<Arc<TlsClient>>,
}

/// The address of a stream socket, names already resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "{address}"),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
