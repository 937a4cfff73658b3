//! Reads a streamed answer as it passes: when it starts, when it has ended, when it has failed.
//!
//! [`SseScanner`] takes the bytes in whatever pieces they come and reports the same events for
//! every cutting of them (WHATWG HTML §9.2.6). It never changes or holds the stream; it copies
//! only an event that lies in two pieces or more, up to its limit. Once the stream has started an
//! event costs two searches of its bytes, and JSON is parsed only where one of them hits.

mod alike;
mod event;
mod fault;
#[cfg(any(test, fuzzing))]
#[path = "../../tests/fuzz/src/streams.rs"]
pub mod streams;

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memchr2;

use super::{Dialect, Usage};
use alike::Alike;
pub use event::gave_up;
use event::{Meaning, Reader};

/// Watches one streamed answer.
#[derive(Debug)]
pub struct SseScanner {
    reader: Reader,
    limit: usize,
    lines: Lines,
    /// The bytes so far of an event that lies in more than one piece.
    partial: Vec<u8>,
    /// No event was looked at yet, so a byte order mark may come.
    first: bool,
    state: State,
    /// The last content event.
    alike: Alike,
}

/// What stays true once it was.
#[derive(Debug, Default, Clone, Copy)]
struct State {
    started: bool,
    done: bool,
    aborted: bool,
    failed: bool,
    blind: bool,
}

/// What one piece of the stream brought, and what holds for the stream as a whole.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    /// A content event has completed, in this piece or before. Also true once `overflow` is: the
    /// stream can no longer be held.
    pub started: bool,
    /// Content events completed in this piece. Before the start that is judged by their JSON, and the
    /// dialect's end is one; afterwards every event with data counts but pings, errors, mere counts of
    /// tokens, the end, and what carries no content by its name.
    pub content_events: u32,
    /// Events with data completed in this piece, errors included.
    pub data_events: u32,
    /// The answer is whole: the dialect's end was seen, or every choice, those that were asked for and those
    /// known of, gave a `finish_reason`. Never after an error or an abort.
    pub ended: bool,
    /// The dialect's last event was seen: `[DONE]`, `message_stop`, `response.completed`,
    /// `.incomplete` or `.failed`. Unlike `ended` also after an error.
    pub done: bool,
    /// A `finish_reason` of "abort" or "error" was seen: the engine gave the request up, which no
    /// client asked for.
    pub aborted: bool,
    /// The first error event of this piece.
    pub error: Option<ErrorEvent>,
    /// How many of the last bytes fed belong to an event that is not complete.
    pub incomplete: usize,
    /// How many of the last bytes fed lie at or behind the start of the first error event or abort
    /// completed in this piece; 0 where there is none. May reach back into earlier pieces.
    pub faulty: usize,
    /// An event was longer than the limit: from then on the stream is not read.
    pub overflow: bool,
    /// The first event of this piece that `include_usage` adds: a count of tokens and no choice.
    pub extra: Option<Span>,
}

/// Where an event lies that was completed by the bytes fed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// It begins this many bytes before the end of the bytes fed; may reach back into earlier pieces.
    pub back: usize,
    /// Its blank line included.
    pub length: usize,
}

/// An error that an engine sent as an event, mostly inside a 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorEvent {
    /// The HTTP status the event names, as a number, a numeric string, or by its type.
    pub status: Option<u16>,
    /// The engine is full, not broken: 429, 503 or Anthropic's 529.
    pub overloaded: bool,
    /// The event's data, fit to be the body of a proper answer.
    pub body: Bytes,
}

/// How a stream ended whose connection ended cleanly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The answer is whole.
    Whole,
    /// It stops short: neither an end nor a `finish_reason`, an error, or an abort.
    Cut,
    /// Nobody can tell: an event was too long to be read, or the dialect has no known end.
    Unknown,
}

impl SseScanner {
    /// `event_limit` bounds one event, and with it the memory of the scanner, in bytes.
    pub fn new(dialect: Dialect, event_limit: usize) -> Self {
        Self {
            reader: Reader::new(dialect),
            limit: event_limit,
            lines: Lines::default(),
            partial: Vec::new(),
            first: true,
            state: State::default(),
            alike: Alike::default(),
        }
    }

    /// Every event may bring a count of tokens (`continuous_usage_stats`), so all of them are parsed.
    pub fn read_each(&mut self) {
        self.reader.read_each();
    }

    /// The answer is to have so many choices: before all of them have finished it is not whole.
    pub fn expect(&mut self, choices: u64) {
        self.reader.expect(choices);
    }

    /// See [`Seen::overflow`].
    pub fn is_blind(&self) -> bool {
        self.state.blind
    }

    /// The engine's count of tokens so far.
    pub fn usage(&self) -> Option<Usage> {
        self.reader.usage()
    }

    /// Reads the next piece of the stream.
    pub fn feed(&mut self, bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        let mut start = 0;
        let mut faulty_from: Option<isize> = None;
        while !self.state.blind && start < bytes.len() {
            if self.is_between_content()
                && let Some(length) = self.alike.length(&bytes[start..])
                && length <= self.limit
            {
                seen.data_events += 1;
                seen.content_events += 1;
                start += length;
                continue;
            }
            let content_before = seen.content_events;
            let Some(found) = self.lines.next_event(&bytes[start..]) else {
                self.keep(&bytes[start..]);
                break;
            };
            let piece = &bytes[start..start + found.length];
            let event_start = offset(start) - offset(self.partial.len());
            let fault = if self.partial.is_empty() {
                let fault = self.complete(piece, found.only_line, &mut seen);
                if seen.content_events > content_before && self.is_between_content() {
                    self.alike.learn(piece);
                }
                fault
            } else {
                self.complete_partial(piece, &mut seen)
            };
            if fault {
                faulty_from.get_or_insert(event_start);
            }
            start += found.length;
            if self.reader.take_only_counts() && seen.extra.is_none() && !self.state.blind {
                seen.extra = Some(Span {
                    back: (offset(bytes.len()) - event_start).unsigned_abs(),
                    length: (offset(start) - event_start).unsigned_abs(),
                });
            }
        }
        if let Some(from) = faulty_from {
            seen.faulty = (offset(bytes.len()) - from).unsigned_abs();
        }
        self.report(&mut seen);
        seen
    }

    /// The stream is over, by a clean end of its body.
    pub fn finish(&mut self) -> Ending {
        self.partial = Vec::new();
        self.ending()
    }

    /// How it ends if nothing more comes.
    pub fn ending(&self) -> Ending {
        if self.ended() {
            Ending::Whole
        } else if self.state.aborted || self.state.failed {
            Ending::Cut
        } else if self.state.blind || !self.reader.has_known_end() {
            Ending::Unknown
        } else {
            Ending::Cut
        }
    }

    /// The stream is in its middle and an event is about to begin: one that is content and brings nothing new
    /// changes nothing, and need not be read.
    pub fn is_between_content(&self) -> bool {
        let State {
            started,
            done,
            aborted,
            failed,
            blind,
        } = self.state;
        started
            && !(done || aborted || failed || blind)
            && self.partial.is_empty()
            && self.lines.is_at_start()
            && self.reader.looks_for_ends_only()
    }

    fn ended(&self) -> bool {
        let fault = self.state.aborted || self.state.failed;
        !fault && (self.state.done || self.reader.all_finished())
    }

    fn report(&self, seen: &mut Seen) {
        seen.started = self.state.started || self.state.blind;
        seen.ended = self.ended();
        seen.done = self.state.done;
        seen.aborted = self.state.aborted;
        seen.overflow = self.state.blind;
        seen.incomplete = self.partial.len();
    }

    /// Keeps the bytes of an event that is not complete, within the limit.
    fn keep(&mut self, bytes: &[u8]) {
        if bytes.len() > self.limit.saturating_sub(self.partial.len()) {
            self.go_blind();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn go_blind(&mut self) {
        self.state.blind = true;
        self.partial = Vec::new();
    }

    fn complete_partial(&mut self, piece: &[u8], seen: &mut Seen) -> bool {
        self.keep(piece);
        if self.state.blind {
            return false;
        }
        let mut event = std::mem::take(&mut self.partial);
        let fault = self.complete(&event, None, seen);
        // The room is kept for the next such event, but not that of a huge one.
        if event.capacity() <= KEPT_CAPACITY {
            event.clear();
            self.partial = event;
        }
        fault
    }

    /// Takes one complete event, its blank line included; true if it is an error or an abort.
    /// `only_line`: the end of its first line, where that is the only one.
    fn complete(&mut self, event: &[u8], only_line: Option<usize>, seen: &mut Seen) -> bool {
        if event.len() > self.limit {
            self.go_blind();
            return false;
        }
        let unmarked = match std::mem::take(&mut self.first) {
            true => event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(event),
            false => event,
        };
        let only_line = only_line.filter(|_| unmarked.len() == event.len());
        let (name, data) = match only_line.and_then(|end| field(&event[..end])) {
            Some((b"data", value)) => (None, Some(Cow::Borrowed(value))),
            Some(_) => return false,
            None => fields(unmarked),
        };
        let Some(data) = data else {
            return false;
        };
        seen.data_events += 1;
        self.judge(name, &data, seen)
    }

    fn judge(&mut self, name: Option<&[u8]>, data: &[u8], seen: &mut Seen) -> bool {
        let state = &mut self.state;
        match self.reader.read(name, data, state.started) {
            Meaning::Error(error) => {
                state.failed = true;
                seen.error.get_or_insert(*error);
                true
            }
            Meaning::FailedAnswer(error) => {
                state.failed = true;
                state.done = true;
                seen.error.get_or_insert(*error);
                true
            }
            Meaning::Abort { content } => {
                state.aborted = true;
                if content {
                    state.started = true;
                    seen.content_events += 1;
                }
                true
            }
            Meaning::Content => {
                // A count of tokens is none, but as the first sign of life.
                if !(state.started && self.reader.only_counts()) {
                    seen.content_events += 1;
                }
                state.started = true;
                false
            }
            Meaning::Nothing => false,
            // What follows an error or an abort is the engine's tidying up, not an answer.
            Meaning::Done => {
                state.done = true;
                if !(state.failed || state.aborted || state.started) {
                    state.started = true;
                    seen.content_events += 1;
                }
                false
            }
        }
    }
}

/// The buffer for divided events keeps at most this much between two of them.
const KEPT_CAPACITY: usize = 16 * 1024;

fn offset(length: usize) -> isize {
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// Where the reading stands between lines and events.
#[derive(Debug, Default)]
struct Lines {
    /// Bytes of the current line were seen.
    inside_line: bool,
    /// The last byte was the CR of a line that was not blank: an LF that follows belongs to it.
    after_return: bool,
    /// Lines of the current event that have ended.
    ended_lines: usize,
}

struct Found {
    /// Up to the end of the event, its blank line included.
    length: usize,
    /// The end of the first line, if it is the only one and lies in this piece.
    only_line: Option<usize>,
}

impl Lines {
    /// Nothing of an event was seen yet.
    fn is_at_start(&self) -> bool {
        !self.inside_line && !self.after_return && self.ended_lines == 0
    }

    /// Finds the end of the current event; `None` if it is not in `bytes`, all of which were read.
    fn next_event(&mut self, bytes: &[u8]) -> Option<Found> {
        let mut at = 0;
        let mut only_line = None;
        while at < bytes.len() {
            if std::mem::take(&mut self.after_return) && bytes[at] == b'\n' {
                at += 1;
                continue;
            }
            let end = at + memchr2(b'\n', b'\r', &bytes[at..]).unwrap_or(bytes.len() - at);
            self.inside_line |= end > at;
            let &terminator = bytes.get(end)?;
            at = end + 1;
            if std::mem::take(&mut self.inside_line) {
                self.after_return = terminator == b'\r';
                self.ended_lines += 1;
                only_line = (self.ended_lines == 1).then_some(end);
                continue;
            }
            // An LF behind a blank line's CR makes one more blank line, which means nothing.
            self.ended_lines = 0;
            return Some(Found {
                length: at,
                only_line,
            });
        }
        None
    }
}

/// The event's name and its data, the data's lines joined by LF.
fn fields(event: &[u8]) -> (Option<&[u8]>, Option<Cow<'_, [u8]>>) {
    let mut name = None;
    let mut data: Option<Cow<'_, [u8]>> = None;
    for line in event.split(|&byte| matches!(byte, b'\n' | b'\r')) {
        match field(line) {
            Some((b"event", value)) => name = Some(value),
            Some((b"data", value)) => match &mut data {
                None => data = Some(Cow::Borrowed(value)),
                Some(so_far) => {
                    let joined = so_far.to_mut();
                    joined.push(b'\n');
                    joined.extend_from_slice(value);
                }
            },
            _ => {}
        }
    }
    (name.filter(|name| !name.is_empty()), data)
}

/// One line as name and value; an empty name is a comment. `None` for an empty line.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    if line.is_empty() {
        return None;
    }
    // Nearly every line is this one, and a name is short: no search over the whole line.
    let colon = if line.starts_with(b"data:") {
        Some(4)
    } else {
        line.iter().position(|&byte| byte == b':')
    };
    let Some(colon) = colon else {
        return Some((line, b""));
    };
    let value = &line[colon + 1..];
    Some((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)))
}

#[cfg(test)]
mod tests;
