//! The head of a request: built from parts that are checked one by one, never forwarded.

use super::chunked::{is_text, is_token};
use super::error::HeadError;

/// Builds a request head. There is exactly one Content-Length, which the caller has counted, and
/// never a Transfer-Encoding, so the engine can read the request in one way only.
///
/// After an error the head is worthless; the buffer is lost with it.
#[derive(Debug)]
pub struct RequestHead {
    buf: Vec<u8>,
}

/// Room for the fields of a usual request, so that its head does not grow piece by piece.
const USUAL: usize = 480;

/// Whether any byte is so. Looks at all of them, several at once: a loop that ends early takes them one by one.
fn holds(bytes: &[u8], is_so: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(false, |found, byte| found | is_so(*byte))
}

impl RequestHead {
    /// The request line, HTTP/1.1. `buf` is cleared and used, so that its memory can serve many
    /// requests. `target` goes out as it is: any bytes but spaces, control characters and DEL.
    pub fn start(mut buf: Vec<u8>, method: &str, target: &[u8]) -> Result<Self, HeadError> {
        if method.is_empty() || !method.bytes().all(is_token) {
            return Err(HeadError::Method);
        }
        if target.is_empty() || holds(target, |byte| byte <= b' ' || byte == 0x7f) {
            return Err(HeadError::Target);
        }
        buf.clear();
        buf.reserve(method.len() + target.len() + USUAL);
        for part in [method.as_bytes(), b" ", target, b" HTTP/1.1\r\n"] {
            buf.extend_from_slice(part);
        }
        Ok(RequestHead { buf })
    }

    /// Puts another request line in place of the first; what comes after it moves.
    pub fn retarget(&mut self, method: &str, target: &[u8]) -> Result<(), HeadError> {
        let line = Self::start(Vec::new(), method, target)?.buf;
        let end = memchr::memchr(b'\n', &self.buf).map_or(self.buf.len(), |at| at + 1);
        self.buf.splice(..end, line);
        Ok(())
    }

    /// Adds a field. Order and case of the name are kept; Content-Length and Transfer-Encoding are
    /// refused.
    pub fn field(
        &mut self,
        name: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), HeadError> {
        let (name, value) = (name.as_ref(), value.as_ref());
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(HeadError::Name);
        }
        let frames = match name.len() {
            14 => name.eq_ignore_ascii_case(b"content-length"),
            17 => name.eq_ignore_ascii_case(b"transfer-encoding"),
            _ => false,
        };
        if frames {
            return Err(HeadError::Framing);
        }
        if holds(value, |byte| !is_text(byte)) {
            return Err(HeadError::Value);
        }
        self.buf.reserve(name.len() + value.len() + 4);
        for part in [name, b": ", value, b"\r\n"] {
            self.buf.extend_from_slice(part);
        }
        Ok(())
    }

    /// The finished head. `content_length`: bytes of the body that will be sent; `None` = the request
    /// has none and says nothing about it (GET).
    pub fn finish(mut self, content_length: Option<u64>) -> Vec<u8> {
        self.complete(content_length);
        self.buf
    }

    /// The finished head, to be sent now. After [`rewind`](Self::rewind) it can be finished again, for
    /// another endpoint.
    pub fn complete(&mut self, content_length: Option<u64>) -> &[u8] {
        if let Some(length) = content_length {
            self.buf.extend_from_slice(b"Content-Length: ");
            push_decimal(&mut self.buf, length);
            self.buf.extend_from_slice(b"\r\n");
        }
        self.buf.extend_from_slice(b"\r\n");
        &self.buf
    }

    /// The place reached, for [`rewind`](Self::rewind).
    pub fn mark(&self) -> usize {
        self.buf.len()
    }

    /// Takes back everything that came after `mark`.
    pub fn rewind(&mut self, mark: usize) {
        self.buf.truncate(mark);
    }

    /// The memory, to be used for the next head.
    pub fn into_buffer(self) -> Vec<u8> {
        self.buf
    }
}

/// Whether a field concerns one connection only and must not be passed on, in either direction
/// (RFC 9110 §7.6.1). Fields named by [`connection_options`] come on top.
pub fn is_hop_by_hop(name: &[u8]) -> bool {
    let is = |hop: &[u8]| name.eq_ignore_ascii_case(hop);
    match name.len() {
        2 => is(b"te"),
        7 => is(b"trailer") || is(b"upgrade"),
        10 => is(b"connection") || is(b"keep-alive"),
        14 => is(b"http2-settings"),
        16 => is(b"proxy-connection"),
        17 => is(b"transfer-encoding"),
        18 => is(b"proxy-authenticate"),
        19 => is(b"proxy-authorization"),
        _ => false,
    }
}

/// The names that the values of the Connection fields nominate (with `close` and `keep-alive` among
/// them): comma-separated, as they came, spaces taken off, empty ones left out.
pub fn connection_options<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
) -> impl Iterator<Item = &'a [u8]> {
    values
        .into_iter()
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|option| !option.is_empty())
}

fn push_decimal(buf: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    buf.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_is_what_was_asked_for() {
        let mut head = RequestHead::start(b"old".to_vec(), "POST", b"/v1/x?a=%20b").unwrap();
        head.field("Host", b"node1:8000").unwrap();
        head.field(b"X-Empty", b"").unwrap();
        assert_eq!(
            head.finish(Some(1234567890)),
            b"POST /v1/x?a=%20b HTTP/1.1\r\nHost: node1:8000\r\nX-Empty: \r\nContent-Length: 1234567890\r\n\r\n"
        );
        let head = RequestHead::start(Vec::new(), "GET", b"/").unwrap();
        assert_eq!(head.finish(None), b"GET / HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn the_request_line_can_be_another_for_another_endpoint() {
        let mut head = RequestHead::start(Vec::new(), "GET", b"/v1/realtime?model=a").unwrap();
        head.field("Host", b"gateway").unwrap();
        for target in ["/v1/realtime?model=a-longer-name", "/v1/realtime?model=b"] {
            let mark = head.mark();
            head.retarget("GET", target.as_bytes()).unwrap();
            let mark = head.mark().min(mark.max(head.mark()));
            let text = format!("GET {target} HTTP/1.1\r\nHost: gateway\r\n\r\n");
            assert_eq!(head.complete(None), text.as_bytes());
            head.rewind(mark);
        }
        assert_eq!(head.retarget("GET", b"/ /"), Err(HeadError::Target));
    }

    #[test]
    fn lengths_are_written_in_full() {
        for length in [0, 9, 10, u64::MAX] {
            let head = RequestHead::start(Vec::new(), "PUT", b"/")
                .unwrap()
                .finish(Some(length));
            assert_eq!(
                head,
                format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").into_bytes()
            );
        }
    }

    #[test]
    fn parts_that_could_end_a_line_are_refused() {
        let start = |method, target| RequestHead::start(Vec::new(), method, target).map(drop);
        for method in ["", "G T", "GET\r\n", "GET\0", "G\u{e9}T"] {
            assert_eq!(start(method, b"/"), Err(HeadError::Method), "{method:?}");
        }
        for target in [&b""[..], b"/ ", b"/\r\n", b"/\n", b"/\0", b"/\t", b"/\x7f"] {
            assert_eq!(start("GET", target), Err(HeadError::Target), "{target:?}");
        }
        let mut head = RequestHead::start(Vec::new(), "GET", b"/").unwrap();
        for name in [&b""[..], b"a b", b"a:", b"a\r\n", b"a\0", b" a"] {
            assert_eq!(head.field(name, b""), Err(HeadError::Name), "{name:?}");
        }
        for value in [&b"a\r\nb: c"[..], b"\n", b"\r", b"\0", b"\x1b"] {
            assert_eq!(head.field("a", value), Err(HeadError::Value), "{value:?}");
        }
        for name in ["Content-Length", "transfer-encoding", "TRANSFER-ENCODING"] {
            assert_eq!(head.field(name, b"5"), Err(HeadError::Framing));
        }
        assert_eq!(head.finish(None), b"GET / HTTP/1.1\r\n\r\n");
    }

    #[test]
    fn every_field_that_nginx_or_rfc_9110_keeps_to_one_hop_is_known() {
        for name in [
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "Proxy-Authenticate",
            "Proxy-Authorization",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "HTTP2-Settings",
        ] {
            assert!(is_hop_by_hop(name.as_bytes()), "{name}");
            assert!(
                is_hop_by_hop(name.to_ascii_lowercase().as_bytes()),
                "{name}"
            );
        }
        for name in [
            "Host",
            "Content-Length",
            "X-Forwarded-For",
            "Authorization",
            "Trailers",
            "",
        ] {
            assert!(!is_hop_by_hop(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn connection_options_of_all_fields_are_found() {
        let values: [&[u8]; 3] = [b"close , X-One,,", b"", b"\tx-two"];
        let expected: [&[u8]; 3] = [b"close", b"X-One", b"x-two"];
        assert!(connection_options(values).eq(expected));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the parts are, what an engine parses is what was meant, or nothing is built.
        #[test]
        fn a_built_head_parses_to_its_parts(
            method in "[A-Z \r\n]{1,8}",
            target in proptest::collection::vec(any::<u8>(), 0..24),
            fields in proptest::collection::vec(("[A-Za-z:\r-]{1,12}", proptest::collection::vec(any::<u8>(), 0..16)), 0..6),
            length in proptest::option::of(any::<u64>()),
        ) {
            let Ok(mut head) = RequestHead::start(Vec::new(), &method, &target) else { return Ok(()) };
            let kept: Vec<_> = fields.iter().filter(|(name, value)| head.field(name, value).is_ok()).collect();
            let text = head.finish(length);

            let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
            prop_assert_eq!(lines.len(), 1 + kept.len() + usize::from(length.is_some()) + 1);
            prop_assert!(lines.iter().all(|line| line.ends_with(b"\r\n")));
            // httparse refuses targets that are not UTF-8, which pass untouched.
            if std::str::from_utf8(&target).is_err() { return Ok(()) }
            let mut storage = [httparse::EMPTY_HEADER; 8];
            let mut parsed = httparse::Request::new(&mut storage);
            prop_assert_eq!(parsed.parse(&text), Ok(httparse::Status::Complete(text.len())));
            prop_assert_eq!(parsed.method, Some(method.as_str()));
            prop_assert_eq!(parsed.path.map(str::as_bytes), Some(target.as_slice()));
            for ((name, value), field) in kept.iter().zip(parsed.headers.iter()) {
                prop_assert_eq!(name.as_str(), field.name);
                prop_assert_eq!(value.trim_ascii(), field.value.trim_ascii());
            }
            let declared = length.map(|length| length.to_string().into_bytes());
            let found = parsed.headers.iter().find(|field| field.name == "Content-Length");
            prop_assert_eq!(declared.as_deref(), found.map(|field| field.value));
        }
    }
}
