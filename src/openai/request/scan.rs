//! The structure of a JSON text, piece by piece.

mod nesting;
mod numbers;
mod text;

use std::ops::Range;

use super::fault::BodyFault;
use super::fields::{Field, Fields, Peeked, Scope};
use super::onward::Key;
use super::tokens::{Literal, Number, leading_whitespace};

pub use text::ENCODED;

/// How many arrays and objects may lie within one another.
pub const MAX_DEPTH: u8 = 128;

/// Reads a request's JSON as it arrives.
#[derive(Debug)]
pub struct Scanner {
    state: State,
    /// Containers that are open.
    depth: u8,
    /// For each open container, the outermost in bit 0, whether it is an object.
    objects: u128,
    /// Bytes in the pieces before this one.
    base: usize,
    /// Where the top-level object, `stream_options`, and the current key or value begin.
    object_start: usize,
    options_start: usize,
    token_start: usize,
    object: Range<usize>,
    is_empty_object: bool,
    /// An odd number of backslashes ended the piece before, inside a string.
    escaped: bool,
    /// The current key or value is read, and this much of it lay in the pieces before.
    captures: bool,
    held: Vec<u8>,
    /// The current key or value is longer than any that counts.
    overlong: bool,
    /// The field whose value comes next.
    wanted: Option<Field>,
    scope: Scope,
    /// The container at depth 2 whose keys or elements are looked at, too.
    inside: Option<Field>,
    /// So far nothing in the current string is unlike an encoding of bytes.
    looks_encoded: bool,
    /// See [`Peeked::encoded`].
    encoded: usize,
    /// Inside the content of a message, which is a list of parts.
    in_parts: bool,
    /// The value at depth 2 whose end matters, and where it begins.
    spanning: Option<(Key, usize)>,
    fields: Fields,
    fault: Option<BodyFault>,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The top-level object.
    Start,
    /// Behind `{`: a key or the end.
    FirstKey,
    /// Behind a comma in an object.
    Key,
    Colon,
    /// Behind `[`: a value or the end.
    FirstElement,
    Value,
    /// Behind a value: a comma or the container's end.
    Next,
    /// Behind the top-level object: whitespace.
    End,
    /// The rest of a key.
    KeyText,
    /// The rest of a string.
    Text,
    Number(Number),
    /// The rest of `true`, `false` or `null`, of which this many bytes were seen.
    Literal(Literal, u8),
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    pub fn new() -> Self {
        Self {
            state: State::Start,
            depth: 0,
            objects: 0,
            base: 0,
            object_start: 0,
            options_start: 0,
            token_start: 0,
            object: 0..0,
            is_empty_object: false,
            escaped: false,
            captures: false,
            held: Vec::new(),
            overlong: false,
            wanted: None,
            scope: Scope::Other,
            inside: None,
            looks_encoded: false,
            encoded: 0,
            in_parts: false,
            spanning: None,
            fields: Fields::default(),
            fault: None,
        }
    }

    /// Reads the next piece. After the first fault nothing more is read.
    pub fn feed(&mut self, piece: &[u8]) {
        if self.fault.is_none() {
            self.fault = self.read(piece).err();
            self.base += piece.len();
        }
    }

    /// The first fault so far, if any: the rest of the body can be refused unread.
    pub fn fault(&self) -> Option<BodyFault> {
        self.fault
    }

    /// The body is complete.
    pub fn finish(self) -> Result<Peeked, BodyFault> {
        match (self.fault, self.state) {
            (Some(fault), _) => Err(fault),
            (None, State::End) => {
                let read = self.fields.finish(self.object, self.is_empty_object)?;
                Ok(Peeked {
                    encoded: self.encoded,
                    ..read
                })
            }
            (None, State::Start) => Err(BodyFault::Empty),
            (None, _) => Err(BodyFault::CutShort { length: self.base }),
        }
    }

    fn read(&mut self, piece: &[u8]) -> Result<(), BodyFault> {
        let mut at = 0;
        while at < piece.len() {
            at = match self.state {
                State::KeyText | State::Text => self.string(piece, at)?,
                State::Number(number) => self.number(piece, at, number)?,
                State::Literal(literal, seen) => self.literal(piece, at, literal, seen)?,
                _ => {
                    let at = at + leading_whitespace(&piece[at..]);
                    let Some(&byte) = piece.get(at) else {
                        break;
                    };
                    self.structure(byte, self.base + at)?;
                    match (self.state, byte) {
                        // It is read from its first byte on.
                        (State::Number(_), _) => at,
                        (State::Value, b',') => self.integers(piece, at + 1),
                        _ => at + 1,
                    }
                }
            };
        }
        Ok(())
    }

    /// Takes the one byte that is no whitespace between keys and values. `at`: in the whole body.
    fn structure(&mut self, byte: u8, at: usize) -> Result<(), BodyFault> {
        match (self.state, byte) {
            (State::FirstKey | State::Key, b'"') => {
                self.begin(at, self.scope != Scope::Other);
                self.state = State::KeyText;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::Value | State::FirstElement, b'"') => {
                self.count_prompt();
                self.begin(at, self.wanted.is_some());
                self.state = State::Text;
            }
            (State::Value | State::FirstElement | State::Start, b'{') => self.open(true, at)?,
            (State::Value | State::FirstElement, _) => self.value(byte, at)?,
            (State::Next, b',') => self.state = self.behind_comma(),
            (State::FirstKey, b'}') => self.close(at, true),
            (State::Next, b'}') if self.is_in_object() => self.close(at, false),
            (State::Next, b']') if !self.is_in_object() => self.close(at, false),
            _ => return Err(self.unexpected(byte, at)),
        }
        Ok(())
    }

    /// The first byte of a value that is neither a string nor an object.
    fn value(&mut self, byte: u8, at: usize) -> Result<(), BodyFault> {
        let state = match byte {
            b'[' => return self.open(false, at),
            b']' if self.state == State::FirstElement => {
                self.close(at, true);
                return Ok(());
            }
            b'-' | b'0'..=b'9' => State::Number(Number::Start),
            b't' => State::Literal(Literal::True, 1),
            b'f' => State::Literal(Literal::False, 1),
            b'n' => State::Literal(Literal::Null, 1),
            _ => return Err(self.unexpected(byte, at)),
        };
        self.begin(at, self.wanted.is_some());
        self.state = state;
        Ok(())
    }

    fn begin(&mut self, at: usize, captures: bool) {
        self.token_start = at;
        self.captures = captures;
        if captures {
            self.held.clear();
            self.overlong = false;
        }
    }

    #[cold]
    fn unexpected(&self, found: u8, at: usize) -> BodyFault {
        if at == 0 && found == 0xef {
            return BodyFault::ByteOrderMark;
        }
        if found == 0 || (at == 0 && found >= 0xfe) {
            return BodyFault::WideEncoding { at };
        }
        let expected = match self.state {
            State::Start => return BodyFault::NotAnObject { at, found },
            State::FirstKey => "a key in double quotes or `}`",
            State::Key => "a key in double quotes (behind the last member stands no comma)",
            State::Colon => "`:`",
            State::FirstElement => "a value or `]`",
            State::Value => "a value",
            State::Next if self.is_in_object() => "`,` or `}`",
            State::Next => "`,` or `]`",
            State::End => "nothing behind the object",
            State::Number(_) => "a digit",
            State::Literal(..) => "`true`, `false` or `null`",
            State::KeyText | State::Text => "a string",
        };
        BodyFault::Unexpected {
            at,
            found,
            expected,
        }
    }
}
