//! `listen`, and the certificates that belong to it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::import::yaml::Yaml;

use super::choice::Choice;
use super::notes::Notes;
use super::scope::Scope;
use super::site::Server;
use super::tree::{Directive, quoted};
use super::value;

/// More are a mistake, as of a range.
const MOST_ADDRESSES: usize = 1000;

/// One address, once.
struct Listener {
    address: String,
    /// Where a second one says the same.
    socket: Option<SocketAddr>,
    tls: Option<(String, String)>,
    http2: bool,
}

/// The value of `listen`: every address of the servers that are carried. Relative files begin at
/// `base`, as in nginx.
pub(super) fn listen(choice: &Choice<'_>, base: &Path, notes: &mut Notes) -> Yaml {
    let mut all: Vec<Listener> = Vec::new();
    for server in &choice.servers {
        let mut here = 0;
        for listen in server.directive.named("listen") {
            for listener in listeners(server, listen, base, notes) {
                here += 1;
                add(&mut all, listener, listen, server, notes);
            }
            if all.len() > MOST_ADDRESSES {
                let what = format!("is more than {MOST_ADDRESSES} addresses to listen on");
                notes.mistake(listen, what);
                break;
            }
        }
        if here == 0 && server.directive.named("listen").next().is_none() {
            let listener = Listener {
                address: "80".to_owned(),
                socket: "0.0.0.0:80".parse().ok(),
                tls: None,
                http2: false,
            };
            add(&mut all, listener, server.directive, server, notes);
        }
    }
    if all.is_empty()
        && !notes.has_mistakes()
        && let Some(server) = choice.servers.first()
    {
        notes.mistake(
            server.directive,
            "none of its addresses can be listened on; write listen 80",
        );
    }
    let mut items: Vec<Yaml> = all.into_iter().map(yaml).collect();
    match items.len() {
        1 => items.remove(0),
        _ => Yaml::List(items),
    }
}

fn add(
    all: &mut Vec<Listener>,
    new: Listener,
    at: &Directive,
    server: &Server<'_>,
    notes: &mut Notes,
) {
    let name = server.directive.named("server_name").next();
    if let Some(same) = all.iter().find(|l| l.address == new.address) {
        if let Some(name) = name {
            notes.not_carried(name, format!(
                "another server listens on {} as well, and which Host a client asks for is not looked at",
                same.address
            ));
        }
        if same.tls != new.tls {
            notes.not_carried(
                at,
                "an address has one certificate, that of the first server",
            );
        }
        return;
    }
    // nginx has one socket for both, too.
    let wide = |l: &&Listener| match (l.socket, new.socket) {
        (Some(a), Some(b)) => {
            a.port() == b.port()
                && a.is_ipv4() == b.is_ipv4()
                && (a.ip().is_unspecified() || b.ip().is_unspecified())
        }
        _ => false,
    };
    if let Some(i) = all.iter().position(|l| wide(&l)) {
        let is_wider = new.socket.is_some_and(|s| s.ip().is_unspecified());
        let (kept, lost) = if is_wider {
            let lost = std::mem::replace(&mut all[i], new);
            (all[i].address.clone(), lost.address)
        } else {
            (all[i].address.clone(), new.address)
        };
        notes.differs(
            at,
            format!("{lost} is one of the addresses of {kept}, which has it all"),
        );
        return;
    }
    all.push(new);
}

fn yaml(listener: Listener) -> Yaml {
    let address = match listener.address.parse::<u16>() {
        Ok(port) => Yaml::plain(&port),
        Err(_) => Yaml::text(&listener.address),
    };
    let Some((certificate, key)) = listener.tls else {
        return address;
    };
    let mut keys = vec![
        ("address", address),
        (
            "tls",
            Yaml::Map(vec![
                ("certificate", Yaml::text(&certificate)),
                ("key", Yaml::text(&key)),
            ]),
        ),
    ];
    if !listener.http2 {
        keys.push(("http2", Yaml::plain("false")));
    }
    Yaml::Map(keys)
}

/// What one `listen` asks for; nothing where it cannot be had.
fn listeners(
    server: &Server<'_>,
    listen: &Directive,
    base: &Path,
    notes: &mut Notes,
) -> Vec<Listener> {
    let is_on = |name: &str| (server.scope.setting(name)).is_some_and(|d| d.arg(0) == "on");
    let mut secured = is_on("ssl");
    let mut http2 = is_on("http2");
    let mut also_ipv4 = false;
    for parameter in listen.args.iter().skip(1) {
        let name = parameter.split('=').next().unwrap_or_default();
        match parameter.as_str() {
            "ssl" => secured = true,
            "http2" => http2 = true,
            "ipv6only=off" => also_ipv4 = true,
            "default_server" | "default" | "ipv6only=on" | "bind" => {}
            "quic" => {
                notes.not_carried(listen, "HTTP/3 is not supported");
                return Vec::new();
            }
            "proxy_protocol" => notes.not_carried(listen, "PROXY protocol is not supported: let the load balancer send X-Forwarded-For, and write it into trusted_proxies"),
            _ if ["backlog", "rcvbuf", "sndbuf", "reuseport", "deferred", "fastopen", "so_keepalive", "setfib", "accept_filter", "multipath"].contains(&name) => {
                notes.not_carried(listen, format!("{name}: how the sockets listen is not set"));
            }
            _ => notes.mistake(listen, format!("{} is no parameter of listen", quoted(parameter))),
        }
    }
    let addresses = match addresses(listen.arg(0), also_ipv4) {
        Ok(addresses) => addresses,
        Err(Wrong::Mistake(what)) => {
            notes.mistake(listen, what);
            return Vec::new();
        }
        Err(Wrong::NotHere(why)) => {
            notes.not_carried(listen, why);
            return Vec::new();
        }
    };
    if http2 && !secured {
        notes.not_carried(listen, "HTTP/2 without TLS is not supported, HTTP/1.1 is");
    }
    let mut tls = None;
    if secured {
        tls = certificate(&server.scope, base, notes);
        if tls.is_none() {
            notes.mistake(listen, "has ssl, and its server has no ssl_certificate and ssl_certificate_key that are files; write both");
            return Vec::new();
        }
    }
    (addresses.into_iter())
        .map(|(address, socket)| Listener {
            address,
            socket,
            tls: tls.clone(),
            http2,
        })
        .collect()
}

fn certificate(scope: &Scope<'_>, base: &Path, notes: &mut Notes) -> Option<(String, String)> {
    let mut file = |name: &str| {
        let mut written = scope.effective(name).iter();
        let first = written.next()?;
        for further in written {
            notes.not_carried(further, "a listener has one certificate, the first");
        }
        let path = first.arg(0);
        if path.is_empty() || path.contains('$') || path.contains(':') {
            notes.not_carried(first, "the certificate is not a file");
            return None;
        }
        Some(absolute(base, path))
    };
    Some((file("ssl_certificate")?, file("ssl_certificate_key")?))
}

/// A path of the file's: relative ones begin where the nginx.conf is.
pub(super) fn absolute(base: &Path, path: &str) -> String {
    base.join(path).display().to_string()
}

/// Where a server listens; addresses that cannot be read are left out.
pub(super) fn sockets(server: &Directive) -> Vec<Address> {
    let mut found = Vec::new();
    let mut written = server.named("listen").peekable();
    if written.peek().is_none() {
        return addresses("80", false).unwrap_or_default();
    }
    for listen in written {
        let also_ipv4 = listen.args.iter().any(|arg| arg == "ipv6only=off");
        found.extend(addresses(listen.arg(0), also_ipv4).unwrap_or_default());
        if found.len() > MOST_ADDRESSES {
            break;
        }
    }
    found
}

/// Whether nobody but this machine reaches the server.
pub(super) fn is_for_this_host(server: &super::site::Server<'_>) -> bool {
    let mut listens = server.directive.named("listen").peekable();
    let is_local = |listen: &Directive| {
        ["127.", "[::1]", "localhost", "unix:"]
            .iter()
            .any(|start| listen.arg(0).starts_with(start))
    };
    listens.peek().is_some() && listens.all(is_local)
}

enum Wrong {
    Mistake(String),
    NotHere(&'static str),
}

/// As it is shown; and the socket, where it is none of a file.
pub(super) type Address = (String, Option<SocketAddr>);

/// The addresses that a `listen` names, as our configuration writes them.
fn addresses(text: &str, also_ipv4: bool) -> Result<Vec<Address>, Wrong> {
    let no_address = || Wrong::Mistake(format!("{} is no address to listen on", quoted(text)));
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.starts_with('/') {
            return Err(no_address());
        }
        return Ok(vec![(text.to_owned(), None)]);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, port),
        _ if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') => ("*", text),
        _ => (text, "80"),
    };
    let ports = ports(port).ok_or_else(no_address)?;
    let ip: IpAddr = match host.trim_start_matches('[').trim_end_matches(']') {
        "*" => IpAddr::from([0, 0, 0, 0]),
        "localhost" => IpAddr::from([127, 0, 0, 1]),
        bare => match bare.parse() {
            Ok(ip) => ip,
            Err(_)
                if host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) =>
            {
                return Err(Wrong::NotHere(
                    "a name is no address to listen on; write the address",
                ));
            }
            Err(_) => return Err(no_address()),
        },
    };
    let mut found = Vec::new();
    for port in ports {
        if also_ipv4 && ip.is_unspecified() && ip.is_ipv6() {
            found.push((
                port.to_string(),
                Some(SocketAddr::new([0, 0, 0, 0].into(), port)),
            ));
        }
        let socket = SocketAddr::new(ip, port);
        let shown = match ip {
            IpAddr::V4(v4) if v4.is_unspecified() => port.to_string(),
            _ => socket.to_string(),
        };
        found.push((shown, Some(socket)));
    }
    Ok(found)
}

/// `80`, or `8080-8090`.
fn ports(text: &str) -> Option<Vec<u16>> {
    const MOST: usize = 100;
    let port = |text: &str| {
        let port = u16::try_from(value::count(text)?).ok()?;
        (port > 0).then_some(port)
    };
    match text.split_once('-') {
        None => Some(vec![port(text)?]),
        Some((first, last)) => {
            let ports: Vec<u16> = (port(first)?..=port(last)?).collect();
            (1..=MOST).contains(&ports.len()).then_some(ports)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<String>> {
        let found = addresses(text, false).ok()?;
        Some(found.into_iter().map(|(shown, _)| shown).collect())
    }

    #[test]
    fn every_form_of_listen() {
        for (text, expected) in [
            ("80", "80"),
            ("*:8080", "8080"),
            ("0.0.0.0:80", "80"),
            ("127.0.0.1", "127.0.0.1:80"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("[::]:80", "[::]:80"),
            ("[::1]", "[::1]:80"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
        ] {
            assert_eq!(read(text), Some(vec![expected.to_owned()]), "{text}");
        }
        assert_eq!(read("81-83").unwrap(), ["81", "82", "83"]);
        for text in [
            "",
            "0",
            "65536",
            "gateway:80",
            "unix:x",
            "1.2.3.4:x",
            "9-8",
            "1-65535",
            ":",
            "[x]:80",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_dual_stack_address_is_two() {
        let found = addresses("[::]:80", true).ok().unwrap();
        let shown: Vec<_> = found.iter().map(|(shown, _)| shown.as_str()).collect();
        assert_eq!(shown, ["80", "[::]:80"]);
    }
}
