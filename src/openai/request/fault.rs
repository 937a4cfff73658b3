//! Why a body is refused. Each message says where, counted in bytes from 0, and how to mend it.

use std::fmt;

/// A body that the gateway cannot act on: a 400 before an engine is bothered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// There is nothing but whitespace.
    Empty,
    /// It begins with a UTF-8 byte order mark, which RFC 8259 §8.1 forbids.
    ByteOrderMark,
    /// A NUL, or the mark of UTF-16 or UTF-32, outside any string.
    WideEncoding { at: usize },
    /// The first byte that is no whitespace begins no object.
    NotAnObject { at: usize, found: u8 },
    /// Something else than the grammar has there.
    Unexpected {
        at: usize,
        found: u8,
        expected: &'static str,
    },
    /// The text ends before its object does; `length` of the body.
    CutShort { length: usize },
    /// More than [`super::MAX_DEPTH`] arrays and objects within one another.
    TooDeep { at: usize },
    /// A raw control character in a key or in a value that is read.
    ControlCharacter { at: usize, found: u8 },
    /// A backslash that begins no escape, in a key or in a value that is read.
    BadEscape { at: usize },
    /// A value that is read is not UTF-8, or holds half of a surrogate pair.
    NotUnicode { at: usize, field: &'static str },
    /// The value of a field is of a type that its readers refuse.
    WrongType {
        at: usize,
        field: &'static str,
        expected: &'static str,
    },
    /// The value of a field is longer than `limit`, in bytes once decoded.
    TooLong {
        at: usize,
        field: &'static str,
        limit: usize,
    },
    /// A top-level field is `model` but for its case: some readers (Go's) take it for the model.
    ModelInOtherCase { at: usize },
    /// The Content-Type of a multipart body names no boundary (RFC 2046 §5.1.1) or an odd one.
    Boundary { problem: &'static str },
    /// A multipart body that cannot be read in exactly one way; `problem` says how to mend it.
    Form { at: usize, problem: &'static str },
}

impl BodyFault {
    /// The error's `code`: `invalid_json` where the body is no JSON object, else `invalid_value`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotUnicode { .. }
            | Self::WrongType { .. }
            | Self::TooLong { .. }
            | Self::ModelInOtherCase { .. }
            | Self::Boundary { .. }
            | Self::Form { .. } => "invalid_value",
            _ => "invalid_json",
        }
    }

    /// The error's `param`: the field that is at fault, if it is one.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::NotUnicode { field, .. }
            | Self::WrongType { field, .. }
            | Self::TooLong { field, .. } => Some(field),
            Self::ModelInOtherCase { .. } => Some("model"),
            _ => None,
        }
    }
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Empty => f.write_str("The body is empty: send one JSON object."),
            Self::ByteOrderMark => f.write_str(
                "The body begins with a byte order mark: leave it out, JSON is UTF-8 without one.",
            ),
            Self::WideEncoding { at } => write!(
                f,
                "The body is not UTF-8 (byte {at} looks like UTF-16 or UTF-32): encode it as UTF-8."
            ),
            Self::NotAnObject { at, found } => write!(
                f,
                "The body is not a JSON object: byte {at} is {}. Begin it with `{{`; if it is \
                 compressed or a form, send plain JSON.",
                Shown(found)
            ),
            Self::Unexpected {
                at,
                found,
                expected,
            } => write!(
                f,
                "The body is not valid JSON: byte {at} is {}, expected {expected}.",
                Shown(found)
            ),
            Self::CutShort { length } => write!(
                f,
                "The body is not valid JSON: it ends after {length} bytes, before its object does. \
                 Close every string, array and object, and check the length that was sent."
            ),
            Self::TooDeep { at } => write!(
                f,
                "The body is nested too deep: byte {at} opens more than {} arrays and objects \
                 within one another. Flatten it.",
                super::MAX_DEPTH
            ),
            Self::ControlCharacter { at, found } => write!(
                f,
                "The body is not valid JSON: byte {at} is the control character 0x{found:02x} \
                 within a string. Write it as \\u{found:04x}."
            ),
            Self::BadEscape { at } => write!(
                f,
                "The body is not valid JSON: the backslash at byte {at} begins no escape. Write a \
                 backslash as \\\\, other characters as \\uXXXX."
            ),
            Self::NotUnicode { at, field } => write!(
                f,
                "`{field}` is not text: byte {at} is no UTF-8 or begins half of a surrogate pair. \
                 Encode it as UTF-8."
            ),
            Self::WrongType {
                at,
                field,
                expected,
            } => write!(f, "`{field}` (byte {at}) must be {expected}."),
            Self::TooLong { at, field, limit } => write!(
                f,
                "`{field}` (byte {at}) is longer than {limit} bytes: shorten it."
            ),
            Self::ModelInOtherCase { at } => write!(
                f,
                "The field at byte {at} is `model` in another case: write it as `model`."
            ),
            Self::Boundary { problem } => {
                write!(
                    f,
                    "The Content-Type of the multipart body cannot be used: {problem}."
                )
            }
            Self::Form { at, problem } => {
                write!(
                    f,
                    "The multipart body cannot be read at byte {at}: {problem}."
                )
            }
        }
    }
}

impl std::error::Error for BodyFault {}

/// A byte as a message shows it.
struct Shown(u8);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_ascii_graphic() {
            write!(f, "`{}`", char::from(self.0))
        } else {
            write!(f, "0x{:02x}", self.0)
        }
    }
}
