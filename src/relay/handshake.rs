//! The handshake of a WebSocket (RFC 6455 §4): whether a request is one, and the key that a browser can
//! give in no other way.
//!
//! What the two sides agree on (`Sec-WebSocket-*`) is theirs and passes as it is, but for that key.

use http::header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Version};
use pingora::http::RequestHeader;

use crate::openai::Call;
use crate::upstream::connection_options;

use super::request::declared_length;

/// A browser's script can set no field of the handshake but the list of subprotocols, so OpenAI's clients
/// give the key as the name of one.
const KEY: &[u8] = b"openai-insecure-api-key.";
/// The subprotocol that OpenAI's realtime API speaks.
const REALTIME: &[u8] = b"realtime";

/// Whether the client wants to speak WebSocket, where that can be. Any other `Upgrade` is dropped.
pub fn is_websocket(request: &RequestHeader, call: Call) -> bool {
    if !call.websocket {
        return false;
    }
    let headers = &request.headers;
    let mut protocols = headers.get_all(UPGRADE).iter();
    let (Some(only), None) = (protocols.next(), protocols.next()) else {
        return false;
    };
    let mut options = connection_options(values(headers, CONNECTION.as_str()));
    request.method == http::Method::GET
        && request.version == Version::HTTP_11
        && only.as_bytes().eq_ignore_ascii_case(b"websocket")
        && options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && !headers.contains_key(TRANSFER_ENCODING)
        && declared_length(request).unwrap_or(0) == 0
}

/// The keys among the subprotocols that are offered.
pub fn keys(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    offered(headers).filter_map(key_of)
}

/// The subprotocols that are offered without the keys among them; empty where none is left.
pub fn without_keys(headers: &HeaderMap) -> Vec<u8> {
    let mut list = Vec::new();
    for name in offered(headers).filter(|name| key_of(name).is_none()) {
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(name);
    }
    list
}

/// What is agreed on where the engine has named no subprotocol: a browser that offers some takes no
/// answer without one, and one that gives its key so has to offer some.
pub fn agreed(headers: &HeaderMap) -> Option<HeaderValue> {
    let has_key = keys(headers).next().is_some();
    (has_key && offered(headers).any(|name| name == REALTIME))
        .then_some(HeaderValue::from_static("realtime"))
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    // A list of names has the same form as one of options.
    connection_options(values(headers, SEC_WEBSOCKET_PROTOCOL.as_str()))
}

fn key_of(protocol: &[u8]) -> Option<&[u8]> {
    let (prefix, key) = protocol.split_at_checked(KEY.len())?;
    prefix.eq_ignore_ascii_case(KEY).then_some(key)
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Expose;
    use crate::openai::{Verdict, paths};

    fn request(method: &str, version: Version, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build(method, b"/v1/realtime", None).unwrap();
        request.set_version(version);
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    fn call(path: &str) -> Call {
        match paths::lookup(&Expose::All, "GET", path.as_bytes()) {
            Verdict::Exposed(call) => call,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_handshake_is_one_in_every_part_or_none() {
        let upgrade = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
        ];
        let with = |more| [&upgrade[..], &[more]].concat();
        let new = Version::HTTP_11;
        for (method, version, fields, path, expected) in [
            ("GET", new, upgrade.to_vec(), "/v1/realtime", true),
            ("GET", new, upgrade.to_vec(), "/realtime", true),
            (
                "GET",
                new,
                with(("content-length", "0")),
                "/v1/realtime",
                true,
            ),
            (
                "GET",
                new,
                with(("connection", "close")),
                "/v1/realtime",
                true,
            ),
            ("GET", new, upgrade.to_vec(), "/v1/models", false),
            ("GET", new, upgrade.to_vec(), "/v1/realtime/x", false),
            ("POST", new, upgrade.to_vec(), "/v1/realtime", false),
            ("HEAD", new, upgrade.to_vec(), "/v1/realtime", false),
            (
                "GET",
                Version::HTTP_10,
                upgrade.to_vec(),
                "/v1/realtime",
                false,
            ),
            (
                "GET",
                Version::HTTP_2,
                upgrade.to_vec(),
                "/v1/realtime",
                false,
            ),
            ("GET", new, upgrade[..1].to_vec(), "/v1/realtime", false),
            ("GET", new, upgrade[1..].to_vec(), "/v1/realtime", false),
            (
                "GET",
                new,
                with(("upgrade", "websocket")),
                "/v1/realtime",
                false,
            ),
            (
                "GET",
                new,
                with(("content-length", "5")),
                "/v1/realtime",
                false,
            ),
            (
                "GET",
                new,
                with(("transfer-encoding", "chunked")),
                "/v1/realtime",
                false,
            ),
            (
                "GET",
                new,
                vec![("connection", "upgrade"), ("upgrade", "h2c")],
                "/v1/realtime",
                false,
            ),
            (
                "GET",
                new,
                vec![("connection", "upgrade"), ("upgrade", "websocket, h2c")],
                "/v1/realtime",
                false,
            ),
        ] {
            let request = request(method, version, &fields);
            let is = is_websocket(&request, call(path));
            assert_eq!(is, expected, "{method} {version:?} {fields:?} {path}");
        }
    }

    #[test]
    fn a_key_among_the_subprotocols_is_found_and_cut() {
        let offer = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(SEC_WEBSOCKET_PROTOCOL, value.parse().unwrap());
            }
            let keys = keys(&headers).map(<[u8]>::to_vec).collect::<Vec<_>>();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let keys: Vec<String> = keys.into_iter().map(text).collect();
            (
                keys,
                text(without_keys(&headers)),
                agreed(&headers).is_some(),
            )
        };
        let key = "openai-insecure-api-key.sk-1";
        assert_eq!(
            offer(&[&format!("realtime, {key},openai-beta.realtime-v1")]),
            (
                vec!["sk-1".into()],
                "realtime, openai-beta.realtime-v1".into(),
                true
            )
        );
        assert_eq!(
            offer(&["realtime", "OpenAI-Insecure-API-Key.x", key]),
            (vec!["x".into(), "sk-1".into()], "realtime".into(), true)
        );
        assert_eq!(offer(&[key]), (vec!["sk-1".into()], String::new(), false));
        assert_eq!(offer(&["a, b"]), (vec![], "a, b".into(), false));
        assert_eq!(offer(&[]), (vec![], String::new(), false));
        assert_eq!(
            offer(&["openai-insecure-api-key."]),
            (vec![String::new()], String::new(), false)
        );
    }
}
