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
/// untrusted entry of X-Forwarded-For; where that cannot be read, the last hop that can.
pub fn client_address(origin: Origin<'_>, trusted_proxies: &[IpNet]) -> IpAddr {
    let peer = peer_address(origin.peer);
    if origin.forwarded_for.is_empty() || !contains(trusted_proxies, peer) {
        return peer;
    }
    match walk(origin.forwarded_for, trusted_proxies) {
        Walk::Client(client) => client,
        Walk::Unreadable(last_hop) => last_hop.unwrap_or(peer),
    }
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
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().unwrap()).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const ALLOW: &[&str] = &["127.0.0.0/8", "::1/128", "192.0.2.0/24"];
    const TRUSTED: &[&str] = &["10.0.0.0/8", "fd00::/8"];

    fn judge(peer: &str, lines: &[&str], otherwise: bool) -> Result<(), Denied> {
        let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
        let origin = Origin {
            peer: Some(ip(peer)),
            forwarded_for: &lines,
            forwarded_otherwise: otherwise,
        };
        may_read_status(origin, &nets(ALLOW), &nets(TRUSTED))
    }

    #[test]
    fn a_direct_client_is_judged_by_its_own_address() {
        for peer in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "192.0.2.7",
            "::ffff:127.0.0.1",
            "::ffff:192.0.2.1",
        ] {
            assert_eq!(judge(peer, &[], false), Ok(()), "{peer}");
        }
        for peer in ["198.51.100.1", "10.0.0.1", "::2", "::ffff:198.51.100.1"] {
            let client = ip(peer).to_canonical();
            assert_eq!(
                judge(peer, &[], false),
                Err(Denied::NotListed { client }),
                "{peer}"
            );
        }
        let local = Origin {
            peer: None,
            forwarded_for: &[],
            forwarded_otherwise: false,
        };
        assert_eq!(may_read_status(local, &nets(ALLOW), &[]), Ok(()));
        assert!(may_read_status(local, &nets(&["192.0.2.0/24"]), &[]).is_err());
    }

    #[test]
    fn a_forwarding_header_of_an_untrusted_peer_is_refused_whatever_it_says() {
        for lines in [&["127.0.0.1"][..], &[""], &["192.0.2.1, 127.0.0.1"]] {
            let peer = ip("127.0.0.1");
            assert_eq!(
                judge("127.0.0.1", lines, false),
                Err(Denied::UntrustedProxy { peer })
            );
        }
        assert!(judge("127.0.0.1", &[], true).is_err());
    }

    #[test]
    fn behind_a_trusted_proxy_the_rightmost_untrusted_address_counts() {
        for lines in [
            &["192.0.2.1"][..],
            &["198.51.100.9, 192.0.2.1"],
            &["198.51.100.9", "192.0.2.1, 10.9.9.9"],
            &["192.0.2.1:4711 ,10.0.0.2"],
            &["[::1]:80, [fd00::1]"],
            &["::ffff:192.0.2.1"],
            &["junk, 192.0.2.1"],
        ] {
            assert_eq!(judge("10.0.0.1", lines, false), Ok(()), "{lines:?}");
        }
        for lines in [
            &["192.0.2.1, 198.51.100.9"][..],
            &["127.0.0.1", "198.51.100.9"],
        ] {
            assert_eq!(
                judge("10.0.0.1", lines, true),
                Err(Denied::NotListed {
                    client: ip("198.51.100.9")
                }),
                "{lines:?}"
            );
        }
        // All are proxies: the first of them asks for itself.
        assert_eq!(
            judge("10.0.0.1", &["10.0.0.3, 10.0.0.2"], false),
            Err(Denied::NotListed {
                client: ip("10.0.0.3")
            })
        );
    }

    #[test]
    fn a_trusted_proxy_that_does_not_say_for_whom_is_refused() {
        let peer = ip("10.0.0.1");
        for lines in [
            &["unknown"][..],
            &[""],
            &["192.0.2.1, unknown"],
            &["192.0.2.1,"],
            &["192.0.2.1", ""],
        ] {
            assert_eq!(
                judge("10.0.0.1", lines, false),
                Err(Denied::UnknownClient { peer }),
                "{lines:?}"
            );
        }
        assert_eq!(
            judge("10.0.0.1", &[], true),
            Err(Denied::UnknownClient { peer })
        );
    }

    #[test]
    fn the_address_for_logs_is_never_one_that_an_untrusted_peer_chose() {
        let address = |peer: &str, lines: &[&str]| {
            let lines: Vec<&[u8]> = lines.iter().map(|line| line.as_bytes()).collect();
            let origin = Origin {
                peer: Some(ip(peer)),
                forwarded_for: &lines,
                forwarded_otherwise: false,
            };
            client_address(origin, &nets(TRUSTED))
        };
        assert_eq!(address("198.51.100.1", &["127.0.0.1"]), ip("198.51.100.1"));
        assert_eq!(
            address("10.0.0.1", &["127.0.0.1, 198.51.100.1"]),
            ip("198.51.100.1")
        );
        assert_eq!(address("10.0.0.1", &["unknown, 10.0.0.2"]), ip("10.0.0.2"));
        assert_eq!(address("10.0.0.1", &["unknown"]), ip("10.0.0.1"));
        assert_eq!(address("::ffff:10.0.0.1", &[]), ip("10.0.0.1"));
    }

    #[test]
    fn a_refusal_names_the_address_and_the_key() {
        let denied = judge("198.51.100.1", &[], false).unwrap_err();
        assert_eq!(
            (denied.address(), denied.key()),
            (ip("198.51.100.1"), "status_allow")
        );
        assert_eq!(denied.to_string(), "198.51.100.1 is not in `status_allow`");
        assert_eq!(
            judge("198.51.100.1", &["1.2.3.4"], false)
                .unwrap_err()
                .key(),
            "trusted_proxies"
        );
    }
}
