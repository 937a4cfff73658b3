//! multipart/form-data (RFC 7578), as audio is uploaded: which model, and whether a stream.
//!
//! Forms have more readers than rules. What two of them could read in two ways is refused, as are a
//! second `model` and all that RFC 2046 allows and no client sends: a preamble, an epilogue, blanks
//! behind a boundary, folded fields. Files are passed over by a search for the boundary.

mod head;

use memchr::{memmem, memrchr};

use super::edit::Edit;
use super::fault::BodyFault;
use super::fields::{Text, is_model_in_other_case, steering_field};
use super::value::{TEXT_LIMIT, word};

/// The longest head of a part, in bytes.
pub const HEAD_LIMIT: usize = 8 * 1024;

/// What the gateway knows of a request from its form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    pub model: Option<Text>,
    pub stream: Option<bool>,
    /// The first part that is named as a field of [`super::STEERING`].
    pub steering: Option<&'static str>,
}

impl Form {
    /// Asks for the model `to` instead; `None` where the form names no model or that one already, or
    /// `to` has a line break, which could end the part.
    pub fn rename(&self, to: &str) -> Option<Edit> {
        let model = self.model.as_ref().filter(|model| model.value != to)?;
        (!to.contains(['\r', '\n'])).then(|| Edit {
            range: model.range.clone(),
            with: to.to_owned().into(),
        })
    }
}

/// Reads a form as it arrives.
#[derive(Debug)]
pub struct Scanner {
    /// CRLF, `--` and the boundary. Its CR is its only one, so that a match that fails can only
    /// begin anew with the byte it failed at.
    delimiter: Vec<u8>,
    finder: memmem::Finder<'static>,
    state: State,
    /// Bytes in the pieces before this one.
    base: usize,
    /// How much of the delimiter the last bytes are.
    matched: usize,
    /// How much of it, less its CRLF, the part's data began with and is up to now.
    early: Option<usize>,
    /// The head of the current part, or the value that is read of it.
    held: Vec<u8>,
    wanted: Option<Wanted>,
    value_start: usize,
    form: Form,
    fault: Option<BodyFault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The first delimiter, whose CRLF may be missing.
    Start,
    /// Behind a delimiter: CRLF or `--`, and which of the two bytes was seen.
    Behind(Option<u8>),
    Head,
    Data,
    /// Behind the last delimiter: line breaks.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Model,
    Stream,
}

impl Scanner {
    /// A scanner for the body with this Content-Type; `None` if that is another one.
    pub fn new(content_type: &[u8]) -> Option<Result<Self, BodyFault>> {
        let boundary = head::boundary(content_type)?;
        Some(boundary.map(|boundary| {
            let delimiter = [b"\r\n--", boundary].concat();
            Self {
                finder: memmem::Finder::new(&delimiter).into_owned(),
                delimiter,
                state: State::Start,
                base: 0,
                matched: 0,
                early: None,
                held: Vec::new(),
                wanted: None,
                value_start: 0,
                form: Form::default(),
                fault: None,
            }
        }))
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
    pub fn finish(self) -> Result<Form, BodyFault> {
        match (self.fault, self.state) {
            (Some(fault), _) => Err(fault),
            (None, State::End) => Ok(self.form),
            (None, _) => Err(BodyFault::Form {
                at: self.base,
                problem: "it ends without its last boundary (with -- behind it); check the length \
                          that was sent",
            }),
        }
    }

    fn read(&mut self, piece: &[u8]) -> Result<(), BodyFault> {
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            at = match self.state {
                State::Data => self.data(piece, at)?,
                State::Start => self.start(byte, self.base + at).map(|()| at + 1)?,
                State::Behind(seen) => self.behind(seen, byte, self.base + at).map(|()| at + 1)?,
                State::Head => self.head(byte, self.base + at).map(|()| at + 1)?,
                State::End if matches!(byte, b'\r' | b'\n' | b' ' | b'\t') => at + 1,
                State::End => {
                    return Err(fault(
                        self.base + at,
                        "nothing may stand behind the last boundary",
                    ));
                }
            };
        }
        Ok(())
    }

    fn start(&mut self, byte: u8, at: usize) -> Result<(), BodyFault> {
        if at == 0 && byte != b'\r' {
            self.matched = 2;
        }
        if self.delimiter.get(self.matched) != Some(&byte) {
            return Err(fault(
                at,
                "it must begin with -- and the boundary that its Content-Type names",
            ));
        }
        self.matched += 1;
        if self.matched == self.delimiter.len() {
            self.state = State::Behind(None);
        }
        Ok(())
    }

    fn behind(&mut self, seen: Option<u8>, byte: u8, at: usize) -> Result<(), BodyFault> {
        self.state = match (seen, byte) {
            (None, b'\r' | b'-') => State::Behind(Some(byte)),
            (Some(b'\r'), b'\n') => {
                self.held.clear();
                State::Head
            }
            (Some(b'-'), b'-') => State::End,
            _ => {
                return Err(fault(
                    at,
                    "behind a boundary comes a line break, or -- at the end; choose a boundary that \
                     begins no line of the content",
                ));
            }
        };
        Ok(())
    }

    fn head(&mut self, byte: u8, at: usize) -> Result<(), BodyFault> {
        self.held.push(byte);
        if self.held.ends_with(b"\r\n\r\n") || self.held == b"\r\n" {
            return self.begin_part(at + 1);
        }
        if self.held.len() == HEAD_LIMIT {
            return Err(fault(
                at,
                "the head of a part is longer than 8 KiB: shorten it",
            ));
        }
        Ok(())
    }

    /// The head of a part is complete, its data begins at `at`.
    fn begin_part(&mut self, at: usize) -> Result<(), BodyFault> {
        let start = at - self.held.len();
        let part = head::part(&self.held).map_err(|problem| fault(start, problem))?;
        self.wanted = match part.name {
            b"model" => Some(Wanted::Model),
            b"stream" => Some(Wanted::Stream),
            name if is_model_in_other_case(name) => {
                return Err(BodyFault::ModelInOtherCase { at: start });
            }
            name => {
                self.form.steering = self.form.steering.or_else(|| steering_field(name));
                None
            }
        };
        let has_it = match self.wanted {
            Some(Wanted::Model) => self.form.model.is_some(),
            Some(Wanted::Stream) => self.form.stream.is_some(),
            None => false,
        };
        if has_it {
            return Err(fault(
                start,
                "a second part has the same name: send `model` and `stream` once",
            ));
        }
        if self.wanted.is_some() && !part.is_plain {
            return Err(fault(
                start,
                "`model` and `stream` must be plain fields, no files and not encoded",
            ));
        }
        self.state = State::Data;
        self.held.clear();
        self.matched = 0;
        self.early = Some(0);
        self.value_start = at;
        Ok(())
    }

    /// Goes on in a part's data, up to the delimiter or the end of the piece; gives where.
    fn data(&mut self, piece: &[u8], from: usize) -> Result<usize, BodyFault> {
        let mut at = from;
        while let Some(&byte) = piece.get(at) {
            if self.matched == 0 && self.early.is_none() {
                return self.search(piece, at);
            }
            self.judge_start(byte, self.base + at)?;
            if byte == self.delimiter[self.matched] {
                self.matched += 1;
                if self.matched == self.delimiter.len() {
                    self.end_part(self.base + at + 1 - self.matched)?;
                    return Ok(at + 1);
                }
            } else {
                let passed = std::mem::take(&mut self.matched);
                if self.wanted.is_some() {
                    let data = self.delimiter[..passed].to_vec();
                    self.keep(&data)?;
                }
                if byte == b'\r' {
                    self.matched = 1;
                } else {
                    self.keep(&[byte])?;
                }
            }
            at += 1;
        }
        Ok(at)
    }

    /// The same, where nothing that was passed can belong to the delimiter.
    fn search(&mut self, piece: &[u8], from: usize) -> Result<usize, BodyFault> {
        let rest = &piece[from..];
        if let Some(length) = self.finder.find(rest) {
            self.keep(&rest[..length])?;
            self.end_part(self.base + from + length)?;
            return Ok(from + length + self.delimiter.len());
        }
        let begun = memrchr(b'\r', rest).filter(|&at| self.delimiter.starts_with(&rest[at..]));
        let data = begun.unwrap_or(rest.len());
        self.keep(&rest[..data])?;
        self.matched = rest.len() - data;
        Ok(piece.len())
    }

    /// Refuses data that begins with the boundary: some readers take the blank line's break for the
    /// delimiter's.
    fn judge_start(&mut self, byte: u8, at: usize) -> Result<(), BodyFault> {
        let Some(seen) = self.early else {
            return Ok(());
        };
        let expected = self.delimiter.get(seen + 2);
        self.early = (expected == Some(&byte)).then_some(seen + 1);
        if seen + 3 == self.delimiter.len() && self.early.is_some() {
            return Err(fault(
                at,
                "the content of a part begins with the boundary: put an empty line between an empty \
                 part's head and the boundary, or choose another boundary",
            ));
        }
        Ok(())
    }

    fn keep(&mut self, data: &[u8]) -> Result<(), BodyFault> {
        let Some(wanted) = self.wanted else {
            return Ok(());
        };
        if data.len() > TEXT_LIMIT - self.held.len() {
            return Err(BodyFault::TooLong {
                at: self.value_start,
                field: wanted.name(),
                limit: TEXT_LIMIT,
            });
        }
        self.held.extend_from_slice(data);
        Ok(())
    }

    /// The part's data ends at `end`, before its delimiter.
    fn end_part(&mut self, end: usize) -> Result<(), BodyFault> {
        self.state = State::Behind(None);
        let at = self.value_start;
        match self.wanted.take() {
            Some(Wanted::Model) => {
                let held = std::mem::take(&mut self.held);
                let field = "model";
                let value =
                    String::from_utf8(held).map_err(|_| BodyFault::NotUnicode { at, field })?;
                if value.contains(|c: char| c.is_ascii_control()) {
                    return Err(fault(at, "`model` holds a control character: leave it out"));
                }
                self.form.model = Some(Text {
                    value,
                    range: at..end,
                });
            }
            // Forms have no null: readers take an empty field for an absent one.
            Some(Wanted::Stream) if self.held.is_empty() => {}
            Some(Wanted::Stream) => {
                let value = word(&self.held).ok_or(BodyFault::WrongType {
                    at,
                    field: "stream",
                    expected: "true or false",
                })?;
                self.form.stream = Some(value);
            }
            None => {}
        }
        Ok(())
    }
}

impl Wanted {
    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Stream => "stream",
        }
    }
}

fn fault(at: usize, problem: &'static str) -> BodyFault {
    BodyFault::Form { at, problem }
}

#[cfg(test)]
mod tests;
