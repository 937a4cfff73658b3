//! Addresses to listen on: `80`, `:80`, `127.0.0.1:80`, `[::]:80`, `unix:/path`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::ListenAddress;
use super::diagnostic::Fault;

/// Whom a listener serves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    Public,
    Admin,
}

impl Audience {
    /// How an address is written, for a message.
    pub fn form(self) -> &'static str {
        match self {
            Self::Public => "write PORT, ADDRESS:PORT or unix:/path",
            Self::Admin => "write ADDRESS:PORT or unix:/path, as in 127.0.0.1:9180",
        }
    }
}

/// Reads an address. A port alone means 0.0.0.0, as nginx has it, but not for the admin listener,
/// which nobody should open to the world by leaving something out. Port 0 is any free port.
pub(super) fn parse(text: &str, base: &Path, audience: Audience) -> Result<ListenAddress, Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty"));
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(ListenAddress::Unix(unix_path(path, base)?));
    }
    let bare = text.strip_prefix(':').unwrap_or(text);
    if !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit()) {
        let Ok(port) = bare.parse() else {
            return Err(Fault::new("is too large for a port").fix("a port is at most 65535"));
        };
        if audience == Audience::Admin {
            return Err(Fault::new("has no address").fix(format!(
                "write 127.0.0.1:{port} for this machine alone, 0.0.0.0:{port} for everyone"
            )));
        }
        return Ok(ListenAddress::Tcp((Ipv4Addr::UNSPECIFIED, port).into()));
    }
    match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V6(v6)) if v6.ip().to_ipv4_mapped().is_some() => {
            let v4 = v6.ip().to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED);
            Err(Fault::new("is an IPv4 address in IPv6's dress")
                .fix(format!("write {v4}:{}", v6.port())))
        }
        Ok(SocketAddr::V6(v6)) if v6.scope_id() != 0 => {
            Err(Fault::new("has an IPv6 zone, which is not supported"))
        }
        Ok(address) => Ok(ListenAddress::Tcp(address)),
        Err(_) => Err(wrong(text)),
    }
}

fn wrong(text: &str) -> Fault {
    if text.contains("://") {
        return Fault::new("is a URL").fix("write ADDRESS:PORT; TLS is switched on by tls");
    }
    if let Some(bracketed) = with_brackets(text) {
        return Fault::new("has an IPv6 address without brackets")
            .fix(format!("write \"{bracketed}\""));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Fault::new("has no port").fix(match ip {
            IpAddr::V4(ip) => format!("write {ip}:80"),
            IpAddr::V6(ip) => format!("write \"[{ip}]:80\""),
        });
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Fault::new("is no address to listen on");
    };
    if port.parse::<u16>().is_err() {
        return Fault::new("has a port that is not a number up to 65535");
    }
    match host {
        "*" => Fault::new("is no address to listen on").fix(format!("write 0.0.0.0:{port}")),
        "localhost" => {
            Fault::new("has a name in place of an address").fix(format!("write 127.0.0.1:{port}"))
        }
        _ => Fault::new("has no valid IP address before its port").fix(format!(
            "write an address of this machine, or 0.0.0.0:{port} for all of them"
        )),
    }
}

/// `::1:8000` as it was most likely meant: `[::1]:8000`, although it is a valid address by itself.
pub(super) fn with_brackets(text: &str) -> Option<String> {
    let (host, port) = text.rsplit_once(':')?;
    let is_port = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().ok()? >= 80;
    (is_port && host.parse::<Ipv6Addr>().is_ok()).then(|| format!("[{host}]:{port}"))
}

/// The path after `unix:`, joined to `base` when it is relative.
pub(super) fn unix_path(path: &str, base: &Path) -> Result<PathBuf, Fault> {
    // sun_path of unix(7) has 108 bytes with the NUL.
    const LONGEST: usize = 107;
    if path.is_empty() {
        return Err(Fault::new("has no path").fix("write unix:/run/NAME.sock"));
    }
    // `unix:///path` is how others write it, and `unix://path` how that goes wrong.
    let path = match path.strip_prefix("//") {
        Some(rest) if rest.starts_with('/') => rest,
        Some(rest) => {
            return Err(
                Fault::new("has two slashes after \"unix:\"").fix(format!("write unix:/{rest}"))
            );
        }
        None => path,
    };
    if path.starts_with('@') {
        return Err(Fault::new(
            "names an abstract socket, which is not supported",
        ));
    }
    if path.contains('\0') || path.ends_with('/') {
        return Err(Fault::new("has a path that cannot be a socket's"));
    }
    let path = base.join(path);
    if path.as_os_str().len() > LONGEST {
        return Err(
            Fault::new("has a path that is too long for a socket").fix(format!(
                "the kernel takes {LONGEST} bytes, its directory included"
            )),
        );
    }
    Ok(path)
}

impl ListenAddress {
    /// Whether the kernel would refuse to bind both. `[::]` is IPv6 alone, as in nginx.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(a), Self::Unix(b)) => a == b,
            (Self::Tcp(a), Self::Tcp(b)) => {
                a.port() == b.port()
                    && a.port() != 0
                    && a.is_ipv4() == b.is_ipv4()
                    && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
            }
            _ => false,
        }
    }
}

/// The normal form: `0.0.0.0:80`, `[::]:80`, `unix:/path`.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, Fault> {
        parse(text, Path::new("/etc"), Audience::Public).map(|a| a.to_string())
    }

    #[test]
    fn reads_every_form() {
        for (text, normal) in [
            ("80", "0.0.0.0:80"),
            (":8080", "0.0.0.0:8080"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::]:80", "[::]:80"),
            ("[0:0::1]:80", "[::1]:80"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:x.sock", "unix:/etc/x.sock"),
            ("unix:///run/x.sock", "unix:/run/x.sock"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(normal), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_how_to_write_it() {
        for (text, fix) in [
            ("65536", "at most 65535"),
            ("127.0.0.1", "127.0.0.1:80"),
            ("[::1]", "\"[::1]:80\""),
            ("::1", "\"[::1]:80\""),
            ("::1:8080", "\"[::1]:8080\""),
            ("unix://run/x.sock", "unix:/run/x.sock"),
            ("localhost:80", "127.0.0.1:80"),
            ("*:80", "0.0.0.0:80"),
            ("gateway:80", "0.0.0.0:80"),
            ("http://0.0.0.0:80", "tls"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("2001:db8:1:2:3:4:5:6:80", "\"[2001:db8:1:2:3:4:5:6]:80\""),
            ("unix:", "unix:/run"),
        ] {
            let fault = parsed(text).expect_err(text);
            assert!(fault.fix.unwrap_or_default().contains(fix), "{text}");
        }
        for text in [
            "",
            ":",
            "x",
            "127.0.0.1:x",
            "unix:@x",
            "unix:/x/",
            "-1",
            "[fe80::1%2]:80",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert!(parsed(&format!("unix:/{}", "x".repeat(107))).is_err());
    }

    #[test]
    fn the_admin_listener_needs_an_address() {
        let fault = parse("9180", Path::new("/"), Audience::Admin).expect_err("no address");
        assert!(fault.fix.unwrap_or_default().contains("127.0.0.1:9180"));
    }

    #[test]
    fn knows_which_addresses_exclude_each_other() {
        let overlap = |a, b| {
            let [a, b] = [a, b].map(|t| parse(t, Path::new("/"), Audience::Public).expect(t));
            assert_eq!(a.overlaps(&b), b.overlaps(&a));
            a.overlaps(&b)
        };
        assert!(overlap("80", "127.0.0.1:80"));
        assert!(overlap("[::]:80", "[::1]:80"));
        assert!(overlap("unix:/a", "unix:/a"));
        assert!(!overlap("80", "[::]:80"));
        assert!(!overlap("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!overlap("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!overlap("80", "81"));
    }
}
