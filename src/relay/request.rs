//! The request as an engine gets it: built, never forwarded.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Version};
use pingora::http::RequestHeader;

use crate::openai::ApiError;
use crate::openai::query::{self, QueryModel};
use crate::pool::Endpoint;
use crate::upstream::{HeadError, RequestHead, connection_options, is_hop_by_hop};

use super::handshake;
use super::timing;
use super::tracing::ContextFields;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_FOR: &str = "X-Forwarded-For";
const FORWARDED_PROTO: &str = "X-Forwarded-Proto";

/// What every try of one request has in common.
pub struct Parts<'a> {
    pub request: &'a RequestHeader,
    /// Path and query as they came, without the scheme and authority of an absolute form.
    pub target: Target<'a>,
    pub host: Option<Host<'a>>,
    pub peer: Option<IpAddr>,
    /// The peer's own `X-Forwarded-Proto` is kept.
    pub peer_is_trusted: bool,
    pub tls: bool,
    pub request_id: &'a HeaderValue,
    /// Of the client's body; an engine's may be a few bytes longer.
    pub body_len: usize,
    pub credentials: Credentials,
    pub context: ContextFields,
    /// Fields that steer an engine's insides go no further.
    pub is_inference: bool,
    /// It is the handshake of one.
    pub is_websocket: bool,
    /// The model where the query names it.
    pub model: Option<ModelInQuery<'a>>,
}

/// A model that the query names.
#[derive(Debug, Clone, Copy)]
pub struct ModelInQuery<'a> {
    pub model: &'a QueryModel,
    /// What the engines call it, but for endpoints that have a name of their own.
    pub upstream: Option<&'a Arc<str>>,
}

/// What becomes of a client's own `Authorization` and `x-api-key`, and of a key among the subprotocols of a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credentials {
    /// The engines that have no key of their own get them.
    UnlessOwn,
    /// They were for the gateway: no engine gets them.
    Keep,
}

/// The target in two pieces, because some calls get `/v1` in front.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub prefix: &'static str,
    pub path_and_query: &'a [u8],
}

/// A host name without port, to be sent in lower case (nginx `$host`).
#[derive(Debug, Clone, Copy)]
pub struct Host<'a>(pub &'a [u8]);

/// Splits a raw target into the authority of an absolute form, if it is one, and path with query.
pub fn split_target(raw: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let rest = match raw.first() {
        Some(b'/') | None => return (None, raw),
        _ => raw,
    };
    let Some(colon) = rest.windows(3).position(|w| w == b"://") else {
        return (None, raw);
    };
    let is_scheme = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    if colon == 0 || !rest[..colon].iter().all(is_scheme) {
        return (None, raw);
    }
    let authority_on = &rest[colon + 3..];
    match authority_on.iter().position(|b| matches!(b, b'/' | b'?')) {
        Some(end) if authority_on[end] == b'/' => {
            (Some(&authority_on[..end]), &authority_on[end..])
        }
        Some(end) => (Some(&authority_on[..end]), b"/"),
        None => (Some(authority_on), b"/"),
    }
}

/// The host of an authority, without port and without user information.
pub fn host_of(authority: &[u8]) -> Host<'_> {
    let authority = match authority.iter().rposition(|&b| b == b'@') {
        Some(at) => &authority[at + 1..],
        None => authority,
    };
    if authority.first() == Some(&b'[')
        && let Some(end) = authority.iter().position(|&b| b == b']')
    {
        return Host(&authority[..=end]);
    }
    let end = authority
        .iter()
        .position(|&b| b == b':')
        .unwrap_or(authority.len());
    Host(&authority[..end])
}

/// Refuses a request whose `Connection` names a field that the gateway's own meaning hangs on.
pub fn check_nominations(headers: &HeaderMap) -> Result<(), ApiError> {
    let values = headers
        .get_all(header::CONNECTION)
        .iter()
        .map(HeaderValue::as_bytes);
    for name in connection_options(values) {
        let is_ours = name.eq_ignore_ascii_case(b"host")
            || name.eq_ignore_ascii_case(b"content-length")
            || (name.len() >= 12 && name[..12].eq_ignore_ascii_case(b"x-forwarded-"));
        if is_ours {
            return Err(ApiError::invalid(
                "`Connection` may not name Host, Content-Length or X-Forwarded fields; \
                 remove it from the Connection header",
            ));
        }
    }
    Ok(())
}

thread_local! {
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The head of a request, all but what depends on the endpoint. Its memory goes back to the thread
/// when it is dropped.
pub struct Prepared {
    head: Option<RequestHead>,
    mark: usize,
    has_host: bool,
    /// It says how long its body is, be it empty.
    has_length: bool,
    /// What endpoints get with the client's own credentials or without them.
    credentials: Vec<Credential>,
    named: Option<Box<Named>>,
}

/// A field that not all endpoints get.
struct Credential {
    name: Box<[u8]>,
    value: HeaderValue,
    /// For those that have a key of their own: what is left of it without the client's. Else for the others.
    is_for_keyed: bool,
}

/// A request line with a model in it.
struct Named {
    method: String,
    before: Vec<u8>,
    /// As the client wrote it.
    public: Vec<u8>,
    after: Vec<u8>,
    upstream: Option<Arc<str>>,
}

impl Named {
    fn of(parts: &Parts<'_>) -> Option<Box<Self>> {
        let ModelInQuery { model, upstream } = parts.model?;
        let Target {
            prefix,
            path_and_query,
        } = parts.target;
        let query = memchr::memchr(b'?', path_and_query)? + 1;
        let (start, end) = (query + model.range.start, query + model.range.end);
        // The client's own name may be that of its engines.
        let upstream = upstream.filter(|name| ***name != model.value).cloned();
        Some(Box::new(Self {
            method: parts.request.method.as_str().to_owned(),
            before: [prefix.as_bytes(), path_and_query.get(..start)?].concat(),
            public: path_and_query.get(start..end)?.to_vec(),
            after: path_and_query.get(end..)?.to_vec(),
            upstream,
        }))
    }

    fn target(&self, endpoint: &Endpoint) -> Vec<u8> {
        let upstream = endpoint.model.as_ref().or(self.upstream.as_ref());
        let name = upstream.map(|name| query::encode(name));
        let name = name.as_deref().unwrap_or(&self.public);
        [&self.before, name, &self.after].concat()
    }
}

impl Prepared {
    /// The whole head for one endpoint and a body of so many bytes. `traceparent`: in place of the client's.
    pub fn for_endpoint(
        &mut self,
        endpoint: &Endpoint,
        body_len: usize,
        traceparent: Option<&str>,
    ) -> Result<&[u8], HeadError> {
        let Some(head) = &mut self.head else {
            return Err(HeadError::Target);
        };
        head.rewind(self.mark);
        if let Some(named) = &self.named {
            head.retarget(&named.method, &named.target(endpoint))?;
            self.mark = head.mark();
        }
        if !self.has_host {
            head.field("Host", &endpoint.state.target.authority)?;
        }
        if let Some(traceparent) = traceparent {
            head.field("traceparent", traceparent)?;
        }
        if let Some(key) = &endpoint.api_key {
            let mut bearer = b"Bearer ".to_vec();
            bearer.extend_from_slice(key.reveal().as_bytes());
            head.field("Authorization", bearer)?;
        }
        for field in &self.credentials {
            if field.is_for_keyed == endpoint.api_key.is_some() {
                head.field(&field.name, field.value.as_bytes())?;
            }
        }
        Ok(head.complete(self.has_length.then_some(body_len as u64)))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        const KEEP: usize = 16 * 1024;
        if let Some(head) = self.head.take() {
            let buf = head.into_buffer();
            if buf.capacity() <= KEEP {
                SPARE.set(buf);
            }
        }
    }
}

/// Builds the head. Our own fields come first, as nginx's do, then the client's in their order, without
/// what belongs to one hop.
pub fn prepare(parts: &Parts<'_>) -> Result<Prepared, HeadError> {
    let request = parts.request;
    let buf = SPARE.take();
    let method = request.method.as_str();
    let mut head = if parts.target.prefix.is_empty() {
        RequestHead::start(buf, method, parts.target.path_and_query)?
    } else {
        let mut target = parts.target.prefix.as_bytes().to_vec();
        target.extend_from_slice(parts.target.path_and_query);
        RequestHead::start(buf, method, &target)?
    };
    match parts.host {
        Some(Host(host)) if host.iter().any(u8::is_ascii_uppercase) => {
            head.field("Host", host.to_ascii_lowercase())?;
        }
        Some(Host(host)) => head.field("Host", host)?,
        None => {}
    }
    forwarding_fields(&mut head, parts)?;
    head.field("X-Request-Id", parts.request_id.as_bytes())?;
    let nominated = nominated(&request.headers);
    let mut credentials = Vec::new();
    let has_key_protocol = handshake::keys(&request.headers).next().is_some();
    let mut protocols = has_key_protocol.then(|| handshake::without_keys(&request.headers));
    if parts.is_websocket {
        head.field("Connection", "Upgrade")?;
        head.field("Upgrade", "websocket")?;
    }
    let mut each = |name: &HeaderName, as_sent: &[u8], value: &HeaderValue| {
        // An engine behind CGI or WSGI reads `X_Real_IP` as `X-Real-IP` (nginx `underscores_in_headers off`).
        let has_underscore = name.as_str().as_bytes().contains(&b'_');
        if has_underscore || is_replaced(name) || is_hop_by_hop(name.as_str().as_bytes()) {
            return Ok(());
        }
        if !nominated.is_empty()
            && nominated
                .iter()
                .any(|n| n.eq_ignore_ascii_case(name.as_str()))
        {
            return Ok(());
        }
        if matches!(name.as_str(), "authorization" | "x-api-key")
            || (has_key_protocol && name == header::SEC_WEBSOCKET_PROTOCOL)
        {
            let mut push = |value, is_for_keyed| {
                let name = as_sent.into();
                credentials.push(Credential {
                    name,
                    value,
                    is_for_keyed,
                });
            };
            let is_kept = parts.credentials == Credentials::Keep;
            if !is_kept {
                push(value.clone(), false);
            }
            let is_list = name == header::SEC_WEBSOCKET_PROTOCOL;
            let left = protocols.take_if(|left| is_list && !left.is_empty());
            return match left.map(HeaderValue::try_from) {
                Some(Ok(left)) if is_kept => head.field(as_sent, left.as_bytes()),
                Some(Ok(left)) => {
                    push(left, true);
                    Ok(())
                }
                _ => Ok(()),
            };
        }
        if parts.context.drops(name.as_str()) {
            return Ok(());
        }
        if parts.is_inference && STEERING_FIELDS.contains(&name.as_str()) {
            return Ok(());
        }
        head.field(as_sent, value.as_bytes())
    };
    if request.has_case() {
        for ((name, value), (as_sent, _)) in request.headers.iter().zip(request.case_header_iter())
        {
            each(name, as_sent.as_slice(), value)?;
        }
    } else {
        for (name, value) in &request.headers {
            each(name, name.as_str().as_bytes(), value)?;
        }
    }
    let has_length = parts.body_len > 0
        || request.headers.contains_key(header::CONTENT_LENGTH)
        || request.headers.contains_key(header::TRANSFER_ENCODING)
        || matches!(method, "POST" | "PUT" | "PATCH");
    Ok(Prepared {
        mark: head.mark(),
        head: Some(head),
        has_host: parts.host.is_some(),
        has_length,
        credentials,
        named: Named::of(parts),
    })
}

fn forwarding_fields(head: &mut RequestHead, parts: &Parts<'_>) -> Result<(), HeadError> {
    let headers = &parts.request.headers;
    let mut text = AddressText::new();
    let peer = parts.peer.map(|peer| text.write(peer).as_bytes());
    if let Some(peer) = peer {
        head.field("X-Real-IP", peer)?;
    }
    if headers.contains_key(X_FORWARDED_FOR) {
        let mut joined = Vec::with_capacity(128);
        for value in headers.get_all(X_FORWARDED_FOR) {
            joined.extend_from_slice(value.as_bytes());
            joined.extend_from_slice(b", ");
        }
        match peer {
            Some(peer) => joined.extend_from_slice(peer),
            None => joined.truncate(joined.len() - 2),
        }
        head.field(FORWARDED_FOR, joined)?;
    } else if let Some(peer) = peer {
        head.field(FORWARDED_FOR, peer)?;
    }
    let theirs = headers
        .get(X_FORWARDED_PROTO)
        .filter(|_| parts.peer_is_trusted);
    let own: &[u8] = if parts.tls { b"https" } else { b"http" };
    head.field(FORWARDED_PROTO, theirs.map_or(own, HeaderValue::as_bytes))
}

/// Room for an address as text, so that writing one takes no memory. The longest has 45 characters.
pub struct AddressText([u8; 48]);

impl AddressText {
    pub fn new() -> Self {
        Self([0; 48])
    }

    pub fn write(&mut self, address: IpAddr) -> &str {
        if let IpAddr::V4(address) = address {
            return self.write_v4(address.octets());
        }
        let mut cursor = std::io::Cursor::new(&mut self.0[..]);
        // There is room.
        let _ = write!(cursor, "{address}");
        let length = usize::try_from(cursor.position()).unwrap_or(0);
        std::str::from_utf8(&self.0[..length]).unwrap_or("-")
    }

    /// Without the machinery of formatting, which is dearer than the rest of a request's head.
    fn write_v4(&mut self, octets: [u8; 4]) -> &str {
        let mut at = 0;
        let mut push = |byte| {
            self.0[at] = byte;
            at += 1;
        };
        for (index, octet) in octets.into_iter().enumerate() {
            if index > 0 {
                push(b'.');
            }
            if octet >= 100 {
                push(b'0' + octet / 100);
            }
            if octet >= 10 {
                push(b'0' + octet / 10 % 10);
            }
            push(b'0' + octet % 10);
        }
        std::str::from_utf8(&self.0[..at]).unwrap_or("-")
    }
}

/// The values of every X-Forwarded-For line, in the order they came.
pub fn forwarded_for(request: &RequestHeader) -> Vec<&[u8]> {
    let lines = request.headers.get_all(X_FORWARDED_FOR);
    lines.iter().map(HeaderValue::as_bytes).collect()
}

/// The Content-Length a request declares. Of a list of equal lengths, which Pingora lets through, the
/// first speaks for all.
pub fn declared_length(request: &RequestHeader) -> Option<u64> {
    let value = request.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    value.split(',').next()?.trim().parse().ok()
}

/// Fields by which vLLM, SGLang and their routers let a client choose the rank, the worker or the peer of
/// its request, and one that asks for the engine's load.
const STEERING_FIELDS: [&str; 6] = [
    "x-data-parallel-rank",
    "x-data-parallel-host",
    "x-prefiller-host-port",
    "x-prefiller-url",
    "x-smg-target-worker",
    "endpoint-load-metrics-format",
];

/// Fields that we write ourselves or that end here.
fn is_replaced(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "host"
            | "content-length"
            | "expect"
            | "x-real-ip"
            | "x-forwarded-for"
            | "x-forwarded-proto"
            | "x-request-id"
            | timing::ASKS
    )
}

fn nominated(headers: &HeaderMap) -> Vec<&str> {
    let mut names = Vec::new();
    for value in headers.get_all(header::CONNECTION) {
        let value = value.as_bytes();
        // The two values nearly every client sends nominate nothing.
        if value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close") {
            continue;
        }
        names.extend(connection_options([value]).filter_map(|name| std::str::from_utf8(name).ok()));
    }
    names
}

/// The bytes of a head as the limit counts them: names, values and four bytes a field.
pub fn head_bytes(request: &RequestHeader) -> usize {
    let fields: usize = request
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    request.method.as_str().len() + request.raw_path().len() + 12 + fields
}

/// Whether the client asked to be told to go on before it sends its body (RFC 9110 §10.1.1).
pub fn expects_continue(request: &RequestHeader) -> bool {
    request.version == Version::HTTP_11
        && request
            .headers
            .get(header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
