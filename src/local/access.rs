//! Who a client is, behind proxies or not, and whether it may read the gateway's status.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

/// What is known of where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The other end of the connection; `None` on a unix socket, which counts as 127.0.0.1.
    pub peer: Option<IpAddr>,
    /// The values of every X-Forwarded-For line, in the order they came.
    pub forwarded_for: &'a [&'a [u8]],
    /// There is another field that says the request was forwarded: see [`says_forwarded`].
    pub forwarded_otherwise: bool,
}

/// Why a client may not read the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The client's address is in no range of `status_allow`.
    NotListed { client: IpAddr },
    /// The peer says it forwards for another, and is in no range of `trusted_proxies`.
    UntrustedProxy { peer: IpAddr },
    /// A trusted proxy does not say for whom it forwards in a way that can be read.
    UnknownClient { peer: IpAddr },
}

/// Decides whether a request may read `/stub_status`, `/metrics` and the JSON of `/health`.
///
/// # Errors
/// It may not; the reason names an address and the key to change.
pub fn may_read_status(
    origin: Origin<'_>,
    status_allow: &[IpNet],
    trusted_proxies: &[IpNet],
) -> Result<(), Denied> {
    let peer = peer_address(origin.peer);
    let client = if origin.forwarded_for.is_empty() && !origin.forwarded_otherwise {
        peer
    } else if !contains(trusted_proxies, peer) {
        return Err(Denied::UntrustedProxy { peer });
    } else {
        match walk(origin.forwarded_for, trusted_proxies) {
            Walk::Client(client) => client,
            Walk::Unreadable(_) => return Err(Denied::UnknownClient { peer }),
        }
    };
    if contains(status_allow, client) {
        Ok(())
    } else {
        Err(Denied::NotListed { client })
    }
}

/// The client's address for logs and limits: the peer, or behind a trusted proxy the rightmost
/// untrusted entry of X-Forwarded-For; where that cannot be read, the last hop that can. `None` on a unix
/// socket, if nobody says for whom.
pub fn client_address(origin: Origin<'_>, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
    let peer = origin.peer.map(|peer| peer.to_canonical());
    if origin.forwarded_for.is_empty() || !is_trusted(peer, trusted_proxies) {
        return peer;
    }
    match walk(origin.forwarded_for, trusted_proxies) {
        Walk::Client(client) => Some(client),
        Walk::Unreadable(last_hop) => last_hop.or(peer),
    }
}

/// Whether `peer` is a proxy whose word is taken. A unix socket counts as 127.0.0.1.
pub fn is_trusted(peer: Option<IpAddr>, trusted_proxies: &[IpNet]) -> bool {
    contains(trusted_proxies, peer_address(peer))
}

/// The field says that the request was forwarded (X-Forwarded-For aside). `name` in lower case.
pub fn says_forwarded(name: &str) -> bool {
    matches!(name, "forwarded" | "x-real-ip")
}

enum Walk {
    Client(IpAddr),
    /// Holds the hop before the entry that cannot be read, if there is one.
    Unreadable(Option<IpAddr>),
}

/// Goes from the last entry back to the first that is no trusted proxy; if all are, it is the
/// first of all.
fn walk(forwarded_for: &[&[u8]], trusted: &[IpNet]) -> Walk {
    let mut last_hop = None;
    for entry in forwarded_for
        .iter()
        .rev()
        .flat_map(|line| line.rsplit(|&byte| byte == b','))
    {
        let Some(address) = parse(entry.trim_ascii()) else {
            return Walk::Unreadable(last_hop);
        };
        if !contains(trusted, address) {
            return Walk::Client(address);
        }
        last_hop = Some(address);
    }
    last_hop.map_or(Walk::Unreadable(None), Walk::Client)
}

/// An address, in brackets or not, with a port or without.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok().map(|address| address.to_canonical())
}

fn peer_address(peer: Option<IpAddr>) -> IpAddr {
    peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.to_canonical())
}

fn contains(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

impl Denied {
    /// The address the refusal is about.
    pub fn address(&self) -> IpAddr {
        match *self {
            Self::NotListed { client } => client,
            Self::UntrustedProxy { peer } | Self::UnknownClient { peer } => peer,
        }
    }

    /// The configuration's key to change.
    pub fn key(&self) -> &'static str {
        match self {
            Self::NotListed { .. } => "status_allow",
            Self::UntrustedProxy { .. } | Self::UnknownClient { .. } => "trusted_proxies",
        }
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotListed { client } => write!(f, "{client} is not in `status_allow`"),
            Self::UntrustedProxy { peer } => {
                write!(
                    f,
                    "{peer} sent a forwarding header and is not in `trusted_proxies`"
                )
            }
            Self::UnknownClient { peer } => {
                write!(
                    f,
                    "{peer}, of `trusted_proxies`, sent no X-Forwarded-For that can be read"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;
