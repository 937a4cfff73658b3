//! HTTP/1.1 as far as an engine needs it: request heads and bodies in, response heads and chunks out.
//! Written by hand because the bytes must be uvicorn's, and wrong when a script says so.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

/// A parsed request head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub method: String,
    pub target: String,
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub body: Framing,
    pub keep_alive: bool,
    pub expects_continue: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

/// The request is not HTTP, or not safely framed: uvicorn's bare 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Invalid;

impl Head {
    /// Parses a head that ends in a blank line.
    pub(super) fn parse(head: &[u8]) -> Result<Self, Invalid> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let mut parts = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Invalid);
        };
        let valid_method =
            !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        let valid_target = target.starts_with('/') || target.starts_with("http") || target == "*";
        if !valid_method || !valid_target || !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
            return Err(Invalid);
        }
        let mut parsed = Self {
            method: method.to_owned(),
            target: target.to_owned(),
            version: version.to_owned(),
            headers: Vec::new(),
            body: Framing::Length(0),
            // uvicorn never keeps a connection of HTTP/1.0.
            keep_alive: version == "HTTP/1.1",
            expects_continue: false,
        };
        for line in lines.take_while(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').ok_or(Invalid)?;
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(Invalid);
            }
            parsed
                .headers
                .push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        parsed.interpret()?;
        Ok(parsed)
    }

    fn interpret(&mut self) -> Result<(), Invalid> {
        let mut length = None;
        let mut chunked = false;
        for (name, value) in &self.headers {
            if name.eq_ignore_ascii_case("content-length") {
                let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                if !digits || length.is_some() {
                    return Err(Invalid);
                }
                length = Some(value.parse().map_err(|_| Invalid)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || !value.eq_ignore_ascii_case("chunked") {
                    return Err(Invalid);
                }
                chunked = true;
            } else if name.eq_ignore_ascii_case("connection") {
                if value
                    .split(',')
                    .any(|token| token.trim().eq_ignore_ascii_case("close"))
                {
                    self.keep_alive = false;
                }
            } else if name.eq_ignore_ascii_case("expect") {
                self.expects_continue = value.eq_ignore_ascii_case("100-continue");
            }
        }
        self.body = match (length, chunked) {
            (Some(_), true) => return Err(Invalid),
            (_, true) => Framing::Chunked,
            (length, false) => Framing::Length(length.unwrap_or(0)),
        };
        Ok(())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The target without scheme, authority and query.
    pub(super) fn path(&self) -> &str {
        let target = match self.target.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => &self.target,
        };
        target.split(['?', '#']).next().unwrap_or(target)
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Where the head in `buffer` ends, its blank line included.
pub(super) fn head_end(buffer: &[u8]) -> Option<usize> {
    memchr::memmem::find(buffer, b"\r\n\r\n").map(|at| at + 4)
}

/// A decoder of chunked bodies that is fed as bytes arrive.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    left: usize,
    state: ChunkState,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum ChunkState {
    #[default]
    Size,
    Data,
    DataEnd,
    Trailer,
    Done,
}

impl Chunked {
    /// Moves body bytes from `input` (which it drains) to `body`; true at the end of the body.
    pub(super) fn feed(
        &mut self,
        input: &mut Vec<u8>,
        mut body: impl FnMut(&[u8]),
    ) -> Result<bool, Invalid> {
        let mut used = 0;
        while self.state != ChunkState::Done {
            let rest = &input[used..];
            match self.state {
                ChunkState::Size | ChunkState::Trailer => {
                    let Some(end) = memchr::memmem::find(rest, b"\r\n") else {
                        if rest.len() > 16 << 10 {
                            return Err(Invalid);
                        }
                        break;
                    };
                    let line = &rest[..end];
                    used += end + 2;
                    if self.state == ChunkState::Trailer {
                        if line.is_empty() {
                            self.state = ChunkState::Done;
                        }
                        continue;
                    }
                    self.left = chunk_size(line)?;
                    self.state = if self.left == 0 {
                        ChunkState::Trailer
                    } else {
                        ChunkState::Data
                    };
                }
                ChunkState::Data => {
                    let take = rest.len().min(self.left);
                    if take == 0 {
                        break;
                    }
                    body(&rest[..take]);
                    used += take;
                    self.left -= take;
                    if self.left == 0 {
                        self.state = ChunkState::DataEnd;
                    }
                }
                ChunkState::DataEnd => {
                    if rest.len() < 2 {
                        break;
                    }
                    if &rest[..2] != b"\r\n" {
                        return Err(Invalid);
                    }
                    used += 2;
                    self.state = ChunkState::Size;
                }
                ChunkState::Done => {}
            }
        }
        input.drain(..used);
        Ok(self.state == ChunkState::Done)
    }
}

fn chunk_size(line: &[u8]) -> Result<usize, Invalid> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default();
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(Invalid);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| Invalid)?;
    usize::from_str_radix(digits, 16).map_err(|_| Invalid)
}

/// Adds one chunk made of `parts` to `out`.
pub(super) fn chunk(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    push_hex(out, length);
    out.extend_from_slice(b"\r\n");
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

fn push_hex(out: &mut Vec<u8>, value: usize) {
    let digits = (usize::BITS - value.leading_zeros()).div_ceil(4).max(1);
    for shift in (0..digits).rev() {
        out.push(b"0123456789abcdef"[value >> (4 * shift) & 15]);
    }
}

pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Python's `http.HTTPStatus` phrases, which uvicorn uses.
pub(super) fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Request Entity Too Large",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

/// The clock of the `date` field, rendered once a second.
#[derive(Debug, Default)]
pub(super) struct DateClock(Mutex<(u64, String)>);

impl DateClock {
    pub(super) fn push(&self, out: &mut Vec<u8>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let mut cached = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if cached.0 != now || cached.1.is_empty() {
            *cached = (now, imf_date(now));
        }
        out.extend_from_slice(cached.1.as_bytes());
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// `Tue, 24 Nov 2026 14:08:11 GMT` (RFC 9110 section 5.6.7) for seconds since 1970.
pub(super) fn imf_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = seconds / 86_400;
    // The civil date by counting years from 1 March 0000, so that the leap day is the last of its year.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{}, {day:02} {} {year} {hour:02}:{minute:02}:{second:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[month as usize]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, Invalid> {
        Head::parse(text.as_bytes())
    }

    #[test]
    fn a_head_keeps_order_and_spelling() {
        let head = head("POST http://a:1/v1/x?y=1 HTTP/1.1\r\nHost: a\r\nX-One:  1 \r\ncontent-LENGTH: 12\r\n\r\n").unwrap();
        assert_eq!(head.path(), "/v1/x");
        assert_eq!(head.headers[1], ("X-One".to_owned(), "1".to_owned()));
        assert_eq!(head.body, Framing::Length(12));
        assert!(head.keep_alive);
    }

    #[test]
    fn unsafe_framing_is_refused() {
        for fields in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: +1\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Bad Name: 1\r\n",
            "no colon\r\n",
        ] {
            assert_eq!(
                head(&format!("POST / HTTP/1.1\r\n{fields}\r\n")),
                Err(Invalid),
                "{fields}"
            );
        }
        assert_eq!(head("PRI * HTTP/2.0\r\n\r\n"), Err(Invalid));
    }

    #[test]
    fn chunks_are_decoded_however_they_are_cut() {
        let wire = b"4;x=y\r\nWiki\r\n5\r\npedia\r\n0\r\nTrailer: 1\r\n\r\nNEXT";
        for step in 1..wire.len() {
            let (mut decoder, mut input, mut body, mut done) =
                (Chunked::default(), Vec::new(), Vec::new(), false);
            for piece in wire.chunks(step) {
                input.extend_from_slice(piece);
                done = done
                    || decoder
                        .feed(&mut input, |bytes| body.extend_from_slice(bytes))
                        .unwrap();
            }
            assert!(done);
            assert_eq!(
                (body.as_slice(), input.as_slice()),
                (b"Wikipedia".as_slice(), b"NEXT".as_slice())
            );
        }
        for bad in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "1\r\nab\r\n",
            "fffffffffffffffff\r\n",
        ] {
            assert_eq!(
                Chunked::default().feed(&mut bad.as_bytes().to_vec(), |_| ()),
                Err(Invalid),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn chunk_sizes_are_lower_case_hexadecimal_as_uvicorn_writes_them() {
        let mut out = Vec::new();
        chunk(&mut out, &[&[b'x'; 27]]);
        assert!(out.starts_with(b"1b\r\nx") && out.ends_with(b"x\r\n"));
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(imf_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(imf_date(951_782_400), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(imf_date(1_795_529_291), "Tue, 24 Nov 2026 14:08:11 GMT");
    }
}
