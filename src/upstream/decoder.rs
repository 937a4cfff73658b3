//! An answer, decoded without I/O: bytes in, events out, the same however the bytes are cut.

use std::ops::Range;

use memchr::memchr_iter;

use super::chunked::{ChunkDecoder, Step};
use super::error::DecodeError;
use super::response_head::{BodyKind, ResponseHead};

/// Header fields that any head may have.
pub const MAX_FIELDS: usize = 256;
/// Interim (1xx) answers before the final one.
const MAX_INTERIM: u8 = 8;
/// What every answer begins with. Judged at once, so that a peer that speaks something else is not
/// waited for.
const PROTOCOL: &[u8] = b"HTTP/1.";

/// Bounds of one head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, the final empty line included.
    pub bytes: usize,
    /// Header fields; [`MAX_FIELDS`] at most.
    pub fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        HeadLimits {
            bytes: 64 * 1024,
            fields: MAX_FIELDS,
        }
    }
}

/// Whether an answer to this request may have a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestKind {
    /// HEAD: the answer describes a body and has none.
    Head,
    /// The handshake of a WebSocket: behind a 101 there is no HTTP any more, and all that comes is payload.
    WebSocket,
    #[default]
    Other,
}

/// What [`Decoder::decode`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The final head (never 1xx).
    Head(ResponseHead),
    /// Payload, at this range of the input.
    Data(Range<usize>),
    /// The input is used up; the answer is not over.
    More,
    /// The answer is over.
    End,
}

/// Decodes one answer. After an error every further call fails in the same way.
#[derive(Debug)]
pub struct Decoder {
    request: RequestKind,
    limits: HeadLimits,
    state: State,
    /// The first part of a head that did not come in one piece; otherwise empty.
    partial: Vec<u8>,
    scan: Scan,
    interim: u8,
    keep_alive: bool,
    content_length: Option<u64>,
    excess: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Head,
    Sized(u64),
    Chunked(ChunkDecoder),
    UntilClose,
    Done,
    Failed(DecodeError),
}

/// How far the search for the end of a head has come.
#[derive(Debug, Default)]
struct Scan {
    seen: usize,
    line_start: usize,
    lines: usize,
}

impl Decoder {
    pub fn new(request: RequestKind, limits: HeadLimits) -> Self {
        Decoder {
            request,
            limits,
            state: State::Head,
            partial: Vec::new(),
            scan: Scan::default(),
            interim: 0,
            keep_alive: false,
            content_length: None,
            excess: false,
        }
    }

    /// Has an effect until the head is complete.
    pub fn set_request(&mut self, request: RequestKind) {
        self.request = request;
    }

    /// Has an effect until the head is complete.
    pub fn set_limits(&mut self, limits: HeadLimits) {
        self.limits = limits;
    }

    /// Takes bytes from the front of `input`: how many, and what they were. To be called again with
    /// the rest until it answers [`Event::More`] or [`Event::End`].
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, Event), DecodeError> {
        match self.step(input) {
            Err(error) => {
                self.state = State::Failed(error);
                Err(error)
            }
            found => found,
        }
    }

    /// The peer has closed its side. Fails unless the answer is complete with that.
    pub fn end_of_input(&mut self) -> Result<(), DecodeError> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Failed(error) => Err(error),
            State::Head | State::Sized(_) | State::Chunked(_) => {
                self.state = State::Failed(DecodeError::Closed);
                Err(DecodeError::Closed)
            }
        }
    }

    /// The whole answer has been decoded.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Why nothing more can be decoded.
    pub fn failure(&self) -> Option<DecodeError> {
        match self.state {
            State::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// The Content-Length of the head, also where no body follows it (HEAD, 304).
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// The answer is complete, the peer keeps the connection, and it sent nothing after the end.
    pub fn is_reusable(&self) -> bool {
        self.is_done() && self.keep_alive && !self.excess
    }

    fn step(&mut self, input: &[u8]) -> Result<(usize, Event), DecodeError> {
        if input.is_empty() && !matches!(self.state, State::Done | State::Failed(_)) {
            return Ok((0, Event::More));
        }
        match &mut self.state {
            State::Head => self.step_head(input),
            State::Sized(left) => {
                let taken = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::Done;
                }
                Ok((taken, Event::Data(0..taken)))
            }
            State::Chunked(chunks) => {
                let (used, step) = chunks.decode(input).map_err(DecodeError::Malformed)?;
                let event = match step {
                    Step::Data(range) => Event::Data(range),
                    Step::More => Event::More,
                    Step::End => {
                        self.state = State::Done;
                        self.excess = used < input.len();
                        return Ok((input.len(), Event::End));
                    }
                };
                Ok((used, event))
            }
            State::UntilClose => Ok((input.len(), Event::Data(0..input.len()))),
            State::Done => {
                self.excess |= !input.is_empty();
                Ok((input.len(), Event::End))
            }
            State::Failed(error) => Err(*error),
        }
    }

    fn step_head(&mut self, input: &[u8]) -> Result<(usize, Event), DecodeError> {
        let mut at = 0;
        loop {
            let head = if self.partial.is_empty() {
                let rest = &input[at..];
                let Some(end) = self.scan.find_end(rest, self.limits)? else {
                    self.partial.extend_from_slice(rest);
                    return Ok((input.len(), Event::More));
                };
                at += end;
                ResponseHead::parse(&rest[..end])?
            } else {
                let before = self.partial.len();
                self.partial.extend_from_slice(&input[at..]);
                let Some(end) = self.scan.find_end(&self.partial, self.limits)? else {
                    return Ok((input.len(), Event::More));
                };
                at += end - before;
                let partial = std::mem::take(&mut self.partial);
                ResponseHead::parse(&partial[..end])?
            };
            self.scan = Scan::default();
            if self.take_head(&head)? {
                return Ok((at, Event::Head(head)));
            }
        }
    }

    /// Whether this is the final head. An interim one is dropped.
    fn take_head(&mut self, head: &ResponseHead) -> Result<bool, DecodeError> {
        let framing = head.framing(self.request)?;
        match head.status {
            101 if self.request == RequestKind::WebSocket => {
                if !head.opens_websocket() {
                    return Err(DecodeError::Malformed("101 to what is no WebSocket"));
                }
                self.state = State::UntilClose;
                return Ok(true);
            }
            101 => return Err(DecodeError::Malformed("101 that nobody asked for")),
            100..200 if self.interim == MAX_INTERIM => {
                return Err(DecodeError::Malformed("too many interim answers"));
            }
            100..200 => {
                self.interim += 1;
                return Ok(false);
            }
            _ => {}
        }
        self.keep_alive = framing.keep_alive;
        self.content_length = framing.content_length;
        self.state = match framing.body {
            BodyKind::Sized(0) => State::Done,
            BodyKind::Sized(length) => State::Sized(length),
            BodyKind::Chunked => State::Chunked(ChunkDecoder::new()),
            BodyKind::UntilClose => State::UntilClose,
        };
        Ok(true)
    }
}

impl Scan {
    /// Where the head that `text` begins with ends. Looks at every byte once and in order, so that
    /// the first broken rule is the same however the text grew.
    fn find_end(&mut self, text: &[u8], limits: HeadLimits) -> Result<Option<usize>, DecodeError> {
        let window = &text[..text.len().min(limits.bytes)];
        let begun = window.len().min(PROTOCOL.len());
        if self.seen < PROTOCOL.len() && window[..begun] != PROTOCOL[..begun] {
            return Err(DecodeError::Malformed("not an answer of HTTP/1"));
        }
        // The limit may have shrunk below what was seen; then nothing is left to look at.
        for newline in memchr_iter(b'\n', window.get(self.seen..).unwrap_or_default()) {
            let at = self.seen + newline;
            // The first byte cannot be a newline: it is the H of the protocol.
            if window[at - 1] != b'\r' {
                return Err(DecodeError::Malformed("line of the head not ended by CRLF"));
            }
            if at == self.line_start + 1 {
                return Ok(Some(at + 1));
            }
            self.lines += 1;
            if self.lines > limits.fields.min(MAX_FIELDS) + 1 {
                return Err(DecodeError::HeadTooLarge);
            }
            self.line_start = at + 1;
        }
        self.seen = window.len();
        if window.len() == limits.bytes {
            return Err(DecodeError::HeadTooLarge);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
