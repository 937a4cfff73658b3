//! The head of an answer: one shared piece of memory and where the fields are in it.

use std::mem::MaybeUninit;
use std::ops::Range;

use bytes::Bytes;
use httparse::ParserConfig;

use super::decoder::{MAX_FIELDS, RequestKind};
use super::error::DecodeError;
use super::request_head::connection_options;

/// The head of an engine's answer, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseHead {
    /// 100 to 999.
    pub status: u16,
    /// The x of HTTP/1.x: 0 or 1.
    pub version_minor: u8,
    text: Bytes,
    reason: Span,
    fields: Vec<(Span, Span)>,
}

/// A range of the text. Half the size of a `Range<usize>`; heads are bounded far below 4 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    end: u32,
}

/// How the body of an answer is delimited (RFC 9112 §6.3), and what that leaves of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Framing {
    pub(super) body: BodyKind,
    /// The peer will take another request on this connection.
    pub(super) keep_alive: bool,
    /// As declared, also where no body follows (HEAD, 304).
    pub(super) content_length: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyKind {
    Sized(u64),
    Chunked,
    UntilClose,
}

impl ResponseHead {
    /// Parses a complete head, its last empty line included.
    pub(super) fn parse(text: &[u8]) -> Result<ResponseHead, DecodeError> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        match ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            text,
            &mut fields,
        ) {
            Ok(httparse::Status::Complete(end)) if end == text.len() => {}
            Ok(_) => {
                return Err(DecodeError::Malformed(
                    "head that does not end where it should",
                ));
            }
            Err(error) => return Err(refusal(error)),
        }
        let (Some(status), Some(version_minor)) = (parsed.code, parsed.version) else {
            return Err(DecodeError::Malformed("status line"));
        };
        if status < 100 {
            return Err(DecodeError::Malformed("status code below 100"));
        }
        let span = |part: &[u8]| Span::of(part, text);
        Ok(ResponseHead {
            status,
            version_minor,
            reason: parsed
                .reason
                .map_or(Span { start: 0, end: 0 }, |reason| span(reason.as_bytes())),
            fields: parsed
                .headers
                .iter()
                .map(|field| (span(field.name.as_bytes()), span(field.value)))
                .collect(),
            text: Bytes::copy_from_slice(text),
        })
    }

    /// The fields in the order they came: the name as it was sent, the value without the spaces
    /// around it. A value shares the head's memory and holds only what a
    /// `http::HeaderValue::from_maybe_shared` accepts.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], Bytes)> {
        self.fields
            .iter()
            .map(|(name, value)| (self.part(*name), self.text.slice(value.range())))
    }

    /// The value of the first field of this name; names are compared without regard to case.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The values of all fields of this name.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.borrowed()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// The reason phrase; empty when there is none, or when it is not ASCII.
    pub fn reason(&self) -> &[u8] {
        self.part(self.reason)
    }

    /// Whether the body is a stream of server-sent events (`text/event-stream`, any parameters).
    pub fn content_type_is_event_stream(&self) -> bool {
        const EVENT_STREAM: &[u8] = b"text/event-stream";
        self.get("content-type").is_some_and(|value| {
            value
                .split_at_checked(EVENT_STREAM.len())
                .is_some_and(|(media_type, rest)| {
                    media_type.eq_ignore_ascii_case(EVENT_STREAM)
                        && matches!(rest.first(), None | Some(b';' | b' ' | b'\t'))
                })
        })
    }

    /// Whether it says that WebSocket is spoken from here on (RFC 6455 §4.2.2), and nothing else.
    pub(super) fn opens_websocket(&self) -> bool {
        let mut protocols = self.values("upgrade");
        let only = (protocols.next(), protocols.next());
        let is_websocket =
            matches!(only, (Some(name), None) if name.eq_ignore_ascii_case(b"websocket"));
        let mut options = connection_options(self.values("connection"));
        is_websocket && options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
    }

    /// Judges everything in the head that says where the body ends. Two readings of one head are how
    /// answers are smuggled, so whatever could be read in two ways is an error.
    pub(super) fn framing(&self, request: RequestKind) -> Result<Framing, DecodeError> {
        let (mut length, mut chunked, mut close, mut keep) = (None, false, false, false);
        for (name, value) in self.borrowed() {
            match name.len() {
                14 if name.eq_ignore_ascii_case(b"content-length") => {
                    let value = content_length(value)?;
                    if length.replace(value).is_some() {
                        return Err(DecodeError::Malformed("more than one Content-Length"));
                    }
                }
                17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                    if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(DecodeError::Malformed(
                            "Transfer-Encoding other than chunked",
                        ));
                    }
                    chunked = true;
                }
                10 if name.eq_ignore_ascii_case(b"connection") => {
                    for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        close |= option.eq_ignore_ascii_case(b"close");
                        keep |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                _ => {}
            }
        }
        if chunked && length.is_some() {
            return Err(DecodeError::Malformed(
                "Transfer-Encoding together with Content-Length",
            ));
        }
        if chunked && self.version_minor == 0 {
            return Err(DecodeError::Malformed(
                "Transfer-Encoding in an HTTP/1.0 answer",
            ));
        }
        let body = if request == RequestKind::Head || matches!(self.status, 100..200 | 204 | 304) {
            BodyKind::Sized(0)
        } else if chunked {
            BodyKind::Chunked
        } else {
            length.map_or(BodyKind::UntilClose, BodyKind::Sized)
        };
        Ok(Framing {
            body,
            keep_alive: !close && (keep || self.version_minor == 1) && body != BodyKind::UntilClose,
            content_length: length,
        })
    }

    fn borrowed(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields
            .iter()
            .map(|(name, value)| (self.part(*name), self.part(*value)))
    }

    fn part(&self, span: Span) -> &[u8] {
        &self.text[span.range()]
    }
}

impl Span {
    /// Where `part`, which httparse cut out of `text`, lies in it.
    fn of(part: &[u8], text: &[u8]) -> Span {
        // An empty value may be a constant of the parser rather than a place in the text.
        let start = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        let end = start.wrapping_add(part.len());
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) if start < end && end as usize <= text.len() => {
                Span { start, end }
            }
            _ => Span { start: 0, end: 0 },
        }
    }

    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Digits only: no sign, no list (RFC 9110 §8.6 lets a recipient refuse equal copies).
fn content_length(value: &[u8]) -> Result<u64, DecodeError> {
    // Eighteen digits hold an exabyte and cannot overflow.
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return Err(DecodeError::Malformed(
            "Content-Length that is not one number",
        ));
    }
    Ok(value
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

fn refusal(error: httparse::Error) -> DecodeError {
    DecodeError::Malformed(match error {
        httparse::Error::TooManyHeaders => return DecodeError::HeadTooLarge,
        httparse::Error::HeaderName => "name of a header field",
        httparse::Error::HeaderValue => "value of a header field",
        httparse::Error::NewLine => "line of the head not ended by CRLF",
        httparse::Error::Status => "status line",
        httparse::Error::Version => "version of HTTP",
        httparse::Error::Token => "control character in the head",
    })
}

#[cfg(test)]
mod tests;
