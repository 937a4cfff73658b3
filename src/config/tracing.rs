//! Where spans go, and of how many requests.

use std::fmt;
use std::path::Path;

use super::diagnostic::{Fault, quoted};
use super::section::Section;
use super::{Url, endpoint_url};

const FORM: &str = "write the URL of a receiver of OTLP over HTTP, as in http://127.0.0.1:4318, or null for no spans";

/// Where a receiver takes traces when its URL names no path (OTLP 1.x, "OTLP/HTTP Request").
const TRACES: &str = "/v1/traces";
/// Where receivers listen for OTLP over gRPC.
const GRPC: u16 = 4317;
/// Longer paths are a slip of the keyboard.
const LONGEST_PATH: usize = 1024;

/// Spans of requests: whether, whither, how many.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// `None` = no spans, and `traceparent` passes untouched.
    pub otlp: Option<OtlpUrl>,
    /// The share of the traces begun here that is recorded, 0 to 1.
    pub sample: f64,
}

/// A receiver of OTLP over HTTP. `Display` gives the normal form: `http://host:4318/v1/traces`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpUrl {
    pub tls: bool,
    /// Lower case; a name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
    /// With its query, if it has one.
    pub path: String,
}

impl OtlpUrl {
    /// `host:port`, for the Host field.
    pub fn authority(&self) -> String {
        self.url().authority()
    }

    fn url(&self) -> Url {
        Url::Tcp {
            tls: self.tls,
            host: self.host.clone(),
            port: self.port,
        }
    }
}

impl fmt::Display for OtlpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.url(), self.path)
    }
}

pub(super) fn tracing(section: &Section<'_>) -> Tracing {
    let otlp = section.nullable("otlp", FORM, parse);
    if let (Some(url), Some(field)) = (&otlp, section.written("otlp"))
        && url.port == GRPC
    {
        section.reader.remark(
            field.node.at,
            &field.path,
            "has port 4317, where receivers listen for gRPC; spans go out over HTTP",
            "most receivers take HTTP on port 4318",
        );
    }
    Tracing {
        otlp,
        sample: section.ratio("sample"),
    }
}

/// Reads a receiver's URL. As in any URL the port may be left out (80, 443). A path is used as it is.
fn parse(text: &str) -> Result<OtlpUrl, Fault> {
    let parts = text.split_once("://");
    let rest = parts.map_or(text, |(_, rest)| rest);
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(Fault::new("holds a user name or a password")
            .fix("take it out: let a collector on this machine log in to the receiver")
            .hide());
    }
    let Some((scheme, _)) = parts else {
        let fix = match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                format!("write {}", quoted(&format!("http://{text}")))
            }
            _ => FORM.to_owned(),
        };
        return Err(Fault::new("has no scheme").fix(fix));
    };
    if text.contains('#') {
        return Err(Fault::new("has a fragment"));
    }
    let base = format!("{scheme}://{authority}");
    let is_plain = |b: u8| b.is_ascii_graphic();
    if !path.bytes().all(is_plain) || path.len() > LONGEST_PATH {
        return Err(Fault::new("has a path that no request can name"));
    }
    match endpoint_url::parse(&base, Path::new("/"))? {
        Url::Tcp { tls, host, port } => Ok(OtlpUrl {
            tls,
            host,
            port,
            path: match path {
                "" | "/" => TRACES.to_owned(),
                query if query.starts_with('?') => format!("{TRACES}{query}"),
                path => path.to_owned(),
            },
        }),
        Url::Unix(_) => Err(Fault::new("is not reached over TCP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_means_the_path_of_traces() {
        for (text, expected) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://Collector:4318/", "http://collector:4318/v1/traces"),
            ("https://otel.example", "https://otel.example:443/v1/traces"),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
            (
                "http://h:3000/api/public/otel/v1/traces",
                "http://h:3000/api/public/otel/v1/traces",
            ),
            ("http://h:1/otlp?tenant=a", "http://h:1/otlp?tenant=a"),
            ("http://h:1?tenant=a", "http://h:1/v1/traces?tenant=a"),
        ] {
            let url = parse(text).unwrap_or_else(|_| panic!("{text} is refused"));
            assert_eq!(url.to_string(), expected);
            // As `-T` shows it.
            assert_eq!(parse(&url.to_string()).ok(), Some(url));
        }
    }

    #[test]
    fn what_is_no_receivers_url_is_refused() {
        for text in [
            "",
            "collector:4318",
            "grpc://h:4317",
            "unix:/run/otel.sock",
            "http://unix:/run/otel.sock",
            "http://",
            "http://h:0",
            "http://h:99999",
            "http://user:secret@h:4318",
            "http://h:4318/a b",
            "http://h:4318/a\r\nX: y",
            "http://h:4318/#x",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
