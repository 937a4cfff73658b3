//! The structure of a JSON text, piece by piece.

use std::ops::Range;

use super::fault::BodyFault;
use super::fields::{Field, Fields, Peeked, RAW_KEY_LIMIT, Scope, UNKNOWN, is_model_in_other_case};
use super::onward::Key;
use super::tokens::{
    BLOCK, Literal, NUMBER_LIMIT, Number, Step, closing_quote, goes_on_with_integers,
    leading_whitespace,
};
use super::value::{RAW_TEXT_LIMIT, Raw, unescape};

/// How many arrays and objects may lie within one another.
pub const MAX_DEPTH: u8 = 128;

/// A string that is longer, in bytes, and looks like an encoding of bytes is taken for a picture or a sound.
pub const ENCODED: usize = 4096;
/// Whether a byte can stand in base64, or in a `data:` URL with it. Text has blanks, or letters beyond ASCII.
fn may_encode(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        | b"+/=_-:;,.%\\"
            .iter()
            .fold(false, |is, one| is | (byte == *one))
}

/// Whether all of them can. Without a branch a byte, so that many are looked at at once.
fn may_all_encode(bytes: &[u8]) -> bool {
    let mut chunks = bytes.chunks(64);
    chunks.all(|chunk| chunk.iter().fold(true, |all, byte| all & may_encode(*byte)))
}

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

    fn is_in_object(&self) -> bool {
        self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1
    }

    fn behind_comma(&self) -> State {
        if self.is_in_object() {
            State::Key
        } else {
            State::Value
        }
    }

    fn open(&mut self, is_object: bool, at: usize) -> Result<(), BodyFault> {
        if self.depth == MAX_DEPTH {
            return Err(BodyFault::TooDeep { at });
        }
        self.count_prompt();
        let bit = 1 << self.depth;
        self.objects = if is_object {
            self.objects | bit
        } else {
            self.objects & !bit
        };
        self.depth += 1;
        self.state = if is_object {
            State::FirstKey
        } else {
            State::FirstElement
        };
        if self.depth == 1 {
            self.object_start = at;
        }
        if let Some(field) = self.wanted.take() {
            let raw = if is_object { Raw::Object } else { Raw::Array };
            self.fields.set(field, raw, at..at + 1)?;
            let is_looked_into = matches!(
                field,
                Field::StreamOptions
                    | Field::SamplingParams
                    | Field::Xargs
                    | Field::Prompts
                    | Field::Onward(Key::Prompt | Key::ResponseFormat | Key::Messages)
            );
            if self.depth == 2 && is_looked_into {
                self.inside = Some(field);
                self.options_start = at;
            }
            self.in_parts |= self.depth == 4 && field == Field::Onward(Key::Content);
            if self.depth == 2 {
                self.spanning = field.spans().map(|key| (key, at));
            }
        }
        self.rescope();
        Ok(())
    }

    fn close(&mut self, at: usize, is_empty: bool) {
        if self.scope == Scope::StreamOptions {
            self.fields
                .end_stream_options(self.options_start..at + 1, is_empty);
        }
        self.depth -= 1;
        self.state = State::Next;
        if self.depth == 0 {
            self.object = self.object_start..at + 1;
            self.is_empty_object = is_empty;
            self.state = State::End;
        } else if self.depth == 3 {
            self.in_parts = false;
        } else if self.depth == 1 {
            self.inside = None;
            if let Some((key, start)) = self.spanning.take() {
                self.fields.end_span(key, start..at + 1, is_empty);
            }
        }
        self.rescope();
    }

    /// The scope of the keys at the depth that was just reached. `sampling_params` may be a list of
    /// objects.
    fn rescope(&mut self) {
        let is_list = self.objects >> 1 & 1 == 0;
        self.scope = match (self.depth, self.inside) {
            (1, _) => Scope::Top,
            (2, Some(Field::StreamOptions)) if !is_list => Scope::StreamOptions,
            (2, Some(Field::Onward(Key::ResponseFormat))) if !is_list => Scope::ResponseFormat,
            (3, Some(Field::Onward(Key::Messages))) if is_list => Scope::Message,
            (5, _) if self.in_parts => Scope::Part,
            (2, Some(Field::SamplingParams)) if !is_list => Scope::SamplingParams,
            (2, Some(Field::Xargs)) if !is_list => Scope::Xargs,
            (3, Some(Field::SamplingParams)) if is_list => Scope::SamplingParams,
            _ => Scope::Other,
        };
    }

    /// A text or a list begins: where it is an element of a list of prompts, it is one of them.
    fn count_prompt(&mut self) {
        let is_inside = matches!(
            self.inside,
            Some(Field::Prompts | Field::Onward(Key::Prompt))
        );
        if self.depth == 2 && is_inside {
            self.fields.count_prompt();
        }
    }

    /// Adds up what is longer than [`ENCODED`] and looks encoded. `from`: where the string's content goes on;
    /// `end`: where its quote stands.
    fn weigh(&mut self, piece: &[u8], from: usize, end: Option<usize>) {
        let before = self.base + from - self.token_start - 1;
        let part = &piece[from..end.unwrap_or(piece.len())];
        let length = before + part.len();
        // Nearly always.
        if end.is_some() && length <= ENCODED {
            return;
        }
        self.looks_encoded = (before == 0 || self.looks_encoded) && may_all_encode(part);
        if end.is_some() && self.looks_encoded {
            self.encoded += length - ENCODED;
        }
    }

    /// Goes on in a key or string, up to its quote or the end of the piece; gives where.
    fn string(&mut self, piece: &[u8], from: usize) -> Result<usize, BodyFault> {
        let end = closing_quote(piece, from, &mut self.escaped);
        if self.state == State::Text {
            self.weigh(piece, from, end);
        }
        if self.captures {
            self.capture(&piece[from..end.unwrap_or(piece.len())], end)?;
        }
        let Some(end) = end else {
            return Ok(piece.len());
        };
        // Nearly always a colon or a comma follows at once.
        let next = piece.get(end + 1);
        if self.state == State::KeyText {
            self.state = State::Colon;
            if next == Some(&b':') {
                self.state = State::Value;
                return Ok(end + 2);
            }
        } else {
            self.state = State::Next;
            if next == Some(&b',') {
                self.state = self.behind_comma();
                return Ok(end + 2);
            }
        }
        Ok(end + 1)
    }

    /// Takes what of a key or string lies in this piece; `end` is where its quote stands there.
    fn capture(&mut self, part: &[u8], end: Option<usize>) -> Result<(), BodyFault> {
        let limit = match self.state {
            State::KeyText => RAW_KEY_LIMIT,
            _ => RAW_TEXT_LIMIT,
        };
        if end.is_none() || !self.held.is_empty() {
            self.hold(part, limit);
        }
        let Some(end) = end else {
            return Ok(());
        };
        self.overlong |= part.len() > limit;
        let held = std::mem::take(&mut self.held);
        let raw = if held.is_empty() { part } else { &held };
        let raw = (!self.overlong).then_some(raw);
        if self.state == State::KeyText {
            raw.map_or(Ok(()), |raw| self.end_key(raw))
        } else {
            self.end_value(Raw::Text(raw), self.base + end + 1)
        }
    }

    /// Keeps what of a key or value lies in this piece for the next one.
    fn hold(&mut self, part: &[u8], limit: usize) {
        self.overlong |= part.len() > limit - self.held.len();
        if self.overlong {
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(part);
        }
    }

    fn end_key(&mut self, raw: &[u8]) -> Result<(), BodyFault> {
        let key = unescape(raw).map_err(|flaw| flaw.at(self.token_start + 1))?;
        self.wanted = self.scope.field(&key.bytes);
        if self.scope == Scope::Top
            && self.wanted == Some(UNKNOWN)
            && is_model_in_other_case(&key.bytes)
        {
            return Err(BodyFault::ModelInOtherCase {
                at: self.token_start,
            });
        }
        Ok(())
    }

    fn end_value(&mut self, raw: Raw<'_>, after: usize) -> Result<(), BodyFault> {
        match self.wanted.take() {
            Some(field) => self.fields.set(field, raw, self.token_start..after),
            None => Ok(()),
        }
    }

    fn number(
        &mut self,
        piece: &[u8],
        from: usize,
        mut number: Number,
    ) -> Result<usize, BodyFault> {
        let mut at = from;
        if number == Number::Whole {
            let is_other = |byte: &u8| !byte.is_ascii_digit();
            let rest = &piece[from..];
            at += rest.iter().position(is_other).unwrap_or(rest.len());
        }
        while let Some(&byte) = piece.get(at) {
            match number.then(byte) {
                Step::On(next) => number = next,
                Step::End => break,
                Step::Fault => {
                    self.state = State::Number(number);
                    return Err(self.unexpected(byte, self.base + at));
                }
            }
            at += 1;
        }
        self.state = State::Number(number);
        if self.captures {
            let part = &piece[from..at];
            if at == piece.len() || !self.held.is_empty() {
                self.hold(part, NUMBER_LIMIT);
            }
            if at < piece.len() {
                let held = std::mem::take(&mut self.held);
                let raw = if held.is_empty() { part } else { &held };
                self.overlong |= raw.len() > NUMBER_LIMIT;
                self.end_value(Raw::Number((!self.overlong).then_some(raw)), self.base + at)?;
            }
        }
        if at < piece.len() {
            self.state = State::Next;
        }
        Ok(at)
    }

    /// Behind a comma in an array: passes over whole numbers at several bytes a cycle, as long as
    /// nothing else comes (a prompt of token ids). Gives where it stopped, `from` if at once.
    fn integers(&mut self, piece: &[u8], from: usize) -> usize {
        let mut at = from;
        while let Some(window) = at
            .checked_sub(2)
            .and_then(|at| piece.get(at..)?.first_chunk())
        {
            if !goes_on_with_integers(window) {
                break;
            }
            at += BLOCK;
        }
        if at > from {
            self.captures = false;
            self.state = match piece[at - 2..at] {
                [_, b',' | b' '] => State::Value,
                [b'0'..=b'9', _] => State::Number(Number::Whole),
                [_, b'0'] => State::Number(Number::Zero),
                _ => State::Number(Number::Whole),
            };
        }
        at
    }

    fn literal(
        &mut self,
        piece: &[u8],
        from: usize,
        literal: Literal,
        seen: u8,
    ) -> Result<usize, BodyFault> {
        let word = literal.word();
        let mut seen = usize::from(seen);
        let mut at = from;
        while let (Some(&byte), Some(&expected)) = (piece.get(at), word.get(seen)) {
            if byte != expected {
                return Err(self.unexpected(byte, self.base + at));
            }
            seen += 1;
            at += 1;
        }
        if seen < word.len() {
            // At most five.
            self.state = State::Literal(literal, seen as u8);
            return Ok(at);
        }
        self.state = State::Next;
        if self.captures {
            let raw = match literal {
                Literal::True => Raw::True,
                Literal::False => Raw::False,
                Literal::Null => Raw::Null,
            };
            self.end_value(raw, self.base + at)?;
        }
        Ok(at)
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
