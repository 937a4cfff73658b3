//! What changes the gateway's state: POST paths of the admin listeners, and who may ask for them.
//!
//! A unix socket is guarded by its mode. Over TCP a browser on the operator's machine is as near as the operator,
//! so pages of others must not be able to ask (CSRF, DNS rebinding): hence the header and the judgement of Host and
//! Origin, besides the key.

use std::borrow::Cow;
use std::net::IpAddr;

/// What is to be done, and to which endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order<'a> {
    pub action: Action,
    /// As `/endpoints` names it; one that a name's several addresses have in common stands for all of them.
    pub node: Cow<'a, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// No new requests.
    Drain,
    Undrain,
}

impl Action {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Undrain => "undrain",
        }
    }
}

/// The value of `Allow` for these paths.
pub const ALLOW: &str = "POST";
/// Must be there, with any value: no page of another origin can send it without being asked first (CORS).
pub const HEADER: &str = "x-sluicegate-admin";

/// `/endpoints/NODE/drain` or `/endpoints/NODE/undrain`, NODE percent-encoded or not.
pub fn order(raw_path: &[u8]) -> Option<Order<'_>> {
    let rest = raw_path.strip_prefix(b"/endpoints/")?;
    let slash = memchr::memrchr(b'/', rest)?;
    let action = match &rest[slash + 1..] {
        b"drain" => Action::Drain,
        b"undrain" => Action::Undrain,
        _ => return None,
    };
    let node = decoded(&rest[..slash]);
    (!node.is_empty()).then_some(Order { action, node })
}

/// The path that [`order`] reads.
pub fn path(action: Action, node: &str) -> String {
    let mut path = String::from("/endpoints/");
    for byte in node.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path.push('/');
    path.push_str(action.as_str());
    path
}

/// Whether the endpoint called `name` (`node0:8000`, `node0:8000@10.0.0.1`) is meant by `node`.
pub fn is_meant(node: &str, name: &str) -> bool {
    let node = node.strip_prefix("http://").unwrap_or(node);
    let node = node.strip_prefix("https://").unwrap_or(node);
    let all_addresses = || name.rsplit_once('@').map(|(authority, _)| authority);
    node.eq_ignore_ascii_case(name)
        || (!name.starts_with("unix:")
            && all_addresses().is_some_and(|all| node.eq_ignore_ascii_case(all)))
}

/// What is known of where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    pub over_unix_socket: bool,
    pub host: Option<&'a [u8]>,
    /// Browsers send one with every POST.
    pub has_origin: bool,
    /// [`HEADER`] is there.
    pub has_header: bool,
}

/// Who is to be asked for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged {
    Free,
    NeedsKey,
}

/// Judges all of a request but its key. `machine`: this one's name.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn judge(caller: Caller<'_>, machine: &str) -> Result<Judged, &'static str> {
    if caller.has_origin {
        return Err(
            "A browser sent this request (it has an Origin), and pages may not give orders. Use `sluicegate` or curl.",
        );
    }
    if caller.over_unix_socket {
        return Ok(Judged::Free);
    }
    if !caller.host.is_some_and(|host| is_ours(host, machine)) {
        return Err(
            "The Host is neither an address, nor localhost, nor this machine's name. Call it by one of these.",
        );
    }
    if !caller.has_header {
        return Err(
            "Orders over TCP need the header `X-Sluicegate-Admin: 1` and an admin key. Send both, or use the unix \
             socket.",
        );
    }
    Ok(Judged::NeedsKey)
}

/// Whether a name server of somebody else's cannot have made this Host lead here.
fn is_ours(host: &[u8], machine: &str) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let host = match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    if bare.unwrap_or(host).parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let short = machine.split('.').next().unwrap_or_default();
    !host.is_empty()
        && ["localhost", machine, short]
            .iter()
            .any(|ours| host.eq_ignore_ascii_case(ours))
}

/// Once; what is no escape stays.
fn decoded(raw: &[u8]) -> Cow<'_, str> {
    if !raw.contains(&b'%') {
        return String::from_utf8_lossy(raw);
    }
    let hex = |at: usize| {
        let digit = raw
            .get(at)
            .and_then(|byte| char::from(*byte).to_digit(16))?;
        u8::try_from(digit).ok()
    };
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        match (byte, hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_orders() {
        for (path, expected) in [
            (
                "/endpoints/node0:8000/drain",
                Some((Action::Drain, "node0:8000")),
            ),
            (
                "/endpoints/node0:8000@10.0.0.1/undrain",
                Some((Action::Undrain, "node0:8000@10.0.0.1")),
            ),
            (
                "/endpoints/unix:/run/vllm.sock/drain",
                Some((Action::Drain, "unix:/run/vllm.sock")),
            ),
            (
                "/endpoints/unix%3a%2Frun%2fx/drain",
                Some((Action::Drain, "unix:/run/x")),
            ),
            (
                "/endpoints/[::1]:8000/drain",
                Some((Action::Drain, "[::1]:8000")),
            ),
            (
                "/endpoints/%5B::1%5D:8000/drain",
                Some((Action::Drain, "[::1]:8000")),
            ),
            ("/endpoints/100%/drain", Some((Action::Drain, "100%"))),
            ("/endpoints/%zz%4/drain", Some((Action::Drain, "%zz%4"))),
            ("/endpoints//drain", None),
            ("/endpoints/drain", None),
            ("/endpoints/node0:8000/drain/", None),
            ("/endpoints/node0:8000/Drain", None),
            ("/endpoints", None),
            ("/endpoint/node0:8000/drain", None),
        ] {
            let found = order(path.as_bytes());
            let found = found.as_ref().map(|order| (order.action, &*order.node));
            assert_eq!(found, expected, "{path}");
        }
    }

    #[test]
    fn a_path_is_read_back() {
        for node in [
            "node0:8000",
            "[::1]:8000",
            "unix:/run/a b%/ü.sock",
            "n:1@10.0.0.1",
        ] {
            let path = path(Action::Undrain, node);
            assert!(path.is_ascii() && !path.contains(' '), "{path}");
            let order = order(path.as_bytes()).unwrap();
            assert_eq!((order.action, &*order.node), (Action::Undrain, node));
        }
    }

    #[test]
    fn a_name_stands_for_all_of_its_addresses() {
        assert!(is_meant("node0:8000", "node0:8000"));
        assert!(is_meant("Node0:8000", "node0:8000"));
        assert!(is_meant("http://node0:8000", "node0:8000"));
        assert!(is_meant("node0:8000", "node0:8000@10.0.0.1"));
        assert!(is_meant("node0:8000@10.0.0.1", "node0:8000@10.0.0.1"));
        assert!(is_meant("unix:/run/a@b", "unix:/run/a@b"));
        assert!(!is_meant("unix:/run/a", "unix:/run/a@b"));
        assert!(!is_meant("node0:8000@10.0.0.2", "node0:8000@10.0.0.1"));
        assert!(!is_meant("node0", "node0:8000"));
        assert!(!is_meant("node0:800", "node0:8000"));
        assert!(!is_meant("", "node0:8000"));
    }

    fn caller(host: &str) -> Caller<'_> {
        Caller {
            over_unix_socket: false,
            host: Some(host.as_bytes()),
            has_origin: false,
            has_header: true,
        }
    }

    #[test]
    fn a_host_that_somebody_elses_name_server_may_have_made_is_refused() {
        for host in [
            "127.0.0.1:9180",
            "10.2.0.10",
            "[::1]:9180",
            "[::1]",
            "localhost",
            "LocalHost:9180",
            "localhost.:9180",
            "gw1.example.com",
            "GW1:9180",
        ] {
            let judged = judge(caller(host), "gw1.example.com");
            assert_eq!(judged, Ok(Judged::NeedsKey), "{host}");
        }
        for host in [
            "evil.example:9180",
            "gw1.evil.example",
            "gw1.example.com.evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            ":9180",
            ".",
        ] {
            assert!(judge(caller(host), "gw1.example.com").is_err(), "{host:?}");
        }
        // A machine that has no name is called by nothing.
        assert!(judge(caller(""), "").is_err());
        let none = Caller {
            host: None,
            ..caller("")
        };
        assert!(judge(none, "gw1").is_err());
    }

    #[test]
    fn a_unix_socket_is_free_but_not_for_browsers() {
        let plain = Caller {
            over_unix_socket: true,
            host: None,
            has_origin: false,
            has_header: false,
        };
        assert_eq!(judge(plain, "gw1"), Ok(Judged::Free));
        let page = Caller {
            has_origin: true,
            ..plain
        };
        assert!(judge(page, "gw1").is_err());
    }

    #[test]
    fn over_tcp_the_header_is_needed_and_no_origin() {
        let without = Caller {
            has_header: false,
            ..caller("localhost")
        };
        assert!(judge(without, "gw1").is_err());
        let page = Caller {
            has_origin: true,
            ..caller("localhost")
        };
        assert!(judge(page, "gw1").is_err());
    }
}
