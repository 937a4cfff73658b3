//! Where an endpoint is: `HOST:PORT`, `http://HOST[:PORT]`, `https://HOST[:PORT]`, `unix:/path`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::Url;
use super::diagnostic::Fault;
use super::listen::{unix_path, with_brackets};

/// How an endpoint is written, for a message.
pub(super) const FORM: &str = "write HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:/path";

/// Reads an endpoint. With a scheme the port may be left out: 80 for http, 443 for https, as in any
/// URL. Without one it must be given, since engines listen on 8000 or 30000 and not on 80.
pub(super) fn parse(text: &str, base: &Path) -> Result<Url, Fault> {
    if text.is_empty() {
        return Err(Fault::new("is empty"));
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Url::Unix(unix_path(path, base)?));
    }
    if text.contains('@') {
        return Err(Fault::new("holds a user name or a password")
            .fix("take it out: the key that an endpoint asks for goes into api_key")
            .hide());
    }
    let (tls, rest, default_port) = match text.split_once("://") {
        None => (false, text, None),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest, Some(80)),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest, Some(443)),
        Some(_) => {
            return Err(Fault::new("has a scheme that is not http, https or unix"));
        }
    };
    // nginx's `http://unix:/path`.
    if rest.starts_with("unix:") {
        return Err(Fault::new("has a scheme before its \"unix:\"").fix(format!("write {rest}")));
    }
    let scheme = &text[..text.len() - rest.len()];
    let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !matches!(tail, "" | "/") {
        let what = match tail.chars().find(|c| *c != '/') {
            Some('?') => "has a query",
            Some('#') => "has a fragment",
            _ => "has a path",
        };
        return Err(Fault::new(what).fix(format!(
            "write {scheme}{authority}: each request brings its own path"
        )));
    }
    let (host, port) = split_port(authority)?;
    let host = normal_host(host)?;
    let port = match (port, default_port) {
        (Some(port), _) => port_number(port)?,
        (None, Some(port)) => port,
        (None, None) => {
            let shown = bracketed(&host);
            return Err(Fault::new("has no port").fix(format!(
                "write {shown}:8000, or whatever port the engine listens on"
            )));
        }
    };
    Ok(Url::Tcp { tls, host, port })
}

/// Whether `text` is an endpoint, as another configuration may have it.
pub(crate) fn is_endpoint(text: &str) -> bool {
    parse(text, Path::new("/")).is_ok()
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), Fault> {
    if let Some(inner) = authority.strip_prefix('[') {
        let Some((host, after)) = inner.split_once(']') else {
            return Err(Fault::new("has a \"[\" that is never closed"));
        };
        if host.parse::<Ipv6Addr>().is_err() {
            let what = if host.contains('%') {
                "has an IPv6 zone, which is not supported"
            } else {
                "has something other than an IPv6 address in its brackets"
            };
            return Err(Fault::new(what));
        }
        return match after.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if after.is_empty() => Ok((host, None)),
            None => Err(Fault::new(
                "has something other than a port after its brackets",
            )),
        };
    }
    if authority.matches(':').count() > 1 {
        let fault = Fault::new("has more than one colon");
        return Err(match with_brackets(authority) {
            Some(bracketed) => {
                fault.fix(format!("put an IPv6 address in brackets: \"{bracketed}\""))
            }
            None if authority.parse::<Ipv6Addr>().is_ok() => fault.fix(format!(
                "put an IPv6 address in brackets, as in \"[{authority}]:8000\""
            )),
            None => fault,
        });
    }
    Ok(match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    })
}

fn port_number(text: &str) -> Result<u16, Fault> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(Fault::new(
            "has a port that is not a number from 1 to 65535",
        )),
    }
}

/// The host in lower case, addresses in their shortest form.
fn normal_host(host: &str) -> Result<String, Fault> {
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Ok(address.to_string());
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(address.to_string());
    }
    if host.is_empty() {
        return Err(Fault::new("has no host"));
    }
    if !host.is_ascii() {
        return Err(Fault::new("has a host with letters beyond ASCII")
            .fix("write the name as DNS has it, beginning with xn--"));
    }
    if host.chars().any(char::is_whitespace) {
        return Err(Fault::new("has a space in its host"));
    }
    let labels = host.strip_suffix('.').unwrap_or(host);
    let valid = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if labels.len() > 253 || !labels.split('.').all(valid) {
        return Err(Fault::new(
            "has a host that is neither a name nor an address",
        ));
    }
    // A name never ends in a number: this was meant to be an address.
    let last = labels.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::new(
            "has a host that looks like an IPv4 address and is none",
        ));
    }
    Ok(host.to_ascii_lowercase())
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

impl Url {
    /// `host:port`, or `unix:/path`: the endpoint's name in logs, metrics and URLs.
    pub fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } => format!("{}:{port}", bracketed(host)),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { tls: true, .. } => f.write_str("https://")?,
            Self::Tcp { tls: false, .. } => f.write_str("http://")?,
            Self::Unix(_) => {}
        }
        f.write_str(&self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, Fault> {
        parse(text, Path::new("/etc/sluicegate")).map(|url| url.to_string())
    }

    #[test]
    fn reads_every_form() {
        for (text, normal) in [
            ("node0:8000", "http://node0:8000"),
            ("http://Node0:8000/", "http://node0:8000"),
            ("HTTP://node0", "http://node0:80"),
            ("https://api.example.com", "https://api.example.com:443"),
            ("https://10.0.0.1:8443", "https://10.0.0.1:8443"),
            ("[::1]:8000", "http://[::1]:8000"),
            ("http://[2001:DB8:0:0::1]:80", "http://[2001:db8::1]:80"),
            ("vllm_model0.svc.:8000", "http://vllm_model0.svc.:8000"),
            ("unix:/run/vllm.sock", "unix:/run/vllm.sock"),
            ("unix:vllm.sock", "unix:/etc/sluicegate/vllm.sock"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(normal), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_how_to_write_it() {
        for (text, what, fix) in [
            ("node0", "has no port", "write node0:8000"),
            ("[::1]", "has no port", "write [::1]:8000"),
            ("node0:", "has a port that is not", ""),
            ("node0:0", "has a port that is not", ""),
            ("node0:+80", "has a port that is not", ""),
            ("node0:65536", "has a port that is not", ""),
            (":8000", "has no host", ""),
            ("http://:8000", "has no host", ""),
            ("::1:8000", "has more than one colon", "\"[::1]:8000\""),
            (
                "2001:db8:1:2:3:4:5:6:8000",
                "has more than one colon",
                "\"[2001:db8:1:2:3:4:5:6]:8000\"",
            ),
            ("[::1", "never closed", ""),
            ("[fe80::1%eth0]:80", "zone", ""),
            ("[node0]:80", "brackets", ""),
            ("[::1]80", "after its brackets", ""),
            (
                "http://node0:8000/v1",
                "has a path",
                "write http://node0:8000:",
            ),
            ("node0:8000?x=1", "has a query", "write node0:8000:"),
            ("node0:8000/#x", "has a fragment", "write node0:8000:"),
            ("http://me:secret@node0:8000", "password", "api_key"),
            ("grpc://node0:8000", "scheme", ""),
            ("unix:", "no path", ""),
            ("http://unix:/run/x", "scheme", "write unix:/run/x"),
            ("10.0.0.256:80", "IPv4", ""),
            ("10.0.1:80", "IPv4", ""),
            ("nöde:80", "ASCII", "xn--"),
            ("a b:80", "space", ""),
            ("a..b:80", "neither", ""),
            ("*:80", "neither", ""),
            ("", "is empty", ""),
        ] {
            let fault = parsed(text).expect_err(text);
            assert!(fault.what.contains(what), "{text}: {}", fault.what);
            let said = fault.fix.unwrap_or_default();
            assert!(said.contains(fix), "{text}: {said}");
            assert!(!said.contains("secret"));
        }
    }

    #[test]
    fn a_name_for_logs_has_no_scheme() {
        let url = parse("https://[::1]:8443", Path::new("")).expect("a url");
        assert_eq!(url.authority(), "[::1]:8443");
    }

    proptest::proptest! {
        #[test]
        fn what_is_accepted_reads_back_as_the_same(text in "(https?://)?[a-zA-Z0-9.:\\[\\]_-]{0,20}(:[0-9]{0,6})?/?") {
            if let Ok(url) = parse(&text, Path::new("/x")) {
                proptest::prop_assert_eq!(parse(&url.to_string(), Path::new("/y")), Ok(url));
            }
        }

        #[test]
        fn no_text_breaks_it(text in ".*") {
            let _ = parse(&text, Path::new("/x"));
        }
    }
}
