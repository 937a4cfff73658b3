//! Single values, read as leniently as the engines' pydantic reads them.

use std::borrow::Cow;
use std::ops::Range;

use super::fault::BodyFault;
use super::fields::Text;

/// The longest text that is read, in bytes once decoded.
pub const TEXT_LIMIT: usize = 1024;

/// The longest raw text that can decode to [`TEXT_LIMIT`]: all `\uXXXX` of one byte each.
pub(super) const RAW_TEXT_LIMIT: usize = 6 * TEXT_LIMIT;

/// What the last value of a field came to: a wrong one is forgiven where another follows.
pub(super) type Slot<T> = Result<Option<T>, BodyFault>;

/// A value as it stands in the body. Texts are raw and without their quotes; what is longer than
/// any value that counts is not kept.
#[derive(Debug, Clone, Copy)]
pub(super) enum Raw<'a> {
    Text(Option<&'a [u8]>),
    Number(Option<&'a [u8]>),
    True,
    False,
    Null,
    Array,
    Object,
}

/// What is wrong with the inside of a string, and where in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    Control { offset: usize, found: u8 },
    Escape { offset: usize },
}

/// A string's content with its escapes resolved.
#[derive(Debug)]
pub(super) struct Unescaped<'a> {
    /// Not checked to be UTF-8. Halves of surrogate pairs are U+FFFD in it.
    pub bytes: Cow<'a, [u8]>,
    /// Where the first half of a surrogate pair stands that has no other half.
    pub lone_surrogate: Option<usize>,
}

/// Resolves the escapes of RFC 8259 §7.
pub(super) fn unescape(raw: &[u8]) -> Result<Unescaped<'_>, Flaw> {
    let is_special = |&byte: &u8| byte < 0x20 || byte == b'\\';
    let Some(first) = raw.iter().position(is_special) else {
        return Ok(Unescaped {
            bytes: Cow::Borrowed(raw),
            lone_surrogate: None,
        });
    };
    let mut bytes = Vec::with_capacity(raw.len());
    bytes.extend_from_slice(&raw[..first]);
    let mut lone_surrogate = None;
    let mut at = first;
    while let Some(&byte) = raw.get(at) {
        if byte < 0x20 {
            return Err(Flaw::Control {
                offset: at,
                found: byte,
            });
        }
        if byte != b'\\' {
            bytes.push(byte);
            at += 1;
            continue;
        }
        let (character, length) = escape(&raw[at..]).ok_or(Flaw::Escape { offset: at })?;
        if character.is_none() {
            lone_surrogate.get_or_insert(at);
        }
        let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
        bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        at += length;
    }
    Ok(Unescaped {
        bytes: Cow::Owned(bytes),
        lone_surrogate,
    })
}

/// The character of the escape that `raw` begins with (`None` within: half of a surrogate pair) and
/// the escape's length.
fn escape(raw: &[u8]) -> Option<(Option<char>, usize)> {
    let simple = match raw.get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(raw),
        _ => return None,
    };
    Some((Some(simple), 2))
}

fn unicode_escape(raw: &[u8]) -> Option<(Option<char>, usize)> {
    let unit = code_unit(raw)?;
    if !(0xd800..0xdc00).contains(&unit) {
        return Some((char::from_u32(unit), 6));
    }
    let low = raw.get(6..).and_then(code_unit);
    match low.filter(|low| (0xdc00..0xe000).contains(low)) {
        Some(low) => {
            let pair = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            Some((char::from_u32(pair), 12))
        }
        None => Some((None, 6)),
    }
}

/// The `XXXX` of the `\uXXXX` that `raw` begins with.
fn code_unit(raw: &[u8]) -> Option<u32> {
    let digits = raw.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| {
        Some(unit << 4 | char::from(digit).to_digit(16)?)
    })
}

/// A truth value: `true`, `false`, and as pydantic has it 0, 1 and a dozen words.
fn boolean(raw: Raw<'_>) -> Option<bool> {
    match raw {
        Raw::True => Some(true),
        Raw::False => Some(false),
        Raw::Number(Some(number)) => {
            let value: f64 = std::str::from_utf8(number).ok()?.parse().ok()?;
            (value == 0.0 || value == 1.0).then_some(value == 1.0)
        }
        Raw::Text(Some(text)) => word(&unescape(text).ok()?.bytes),
        _ => None,
    }
}

/// A truth value as a word, in any case: what a form field has.
pub(super) fn word(text: &[u8]) -> Option<bool> {
    let is_one_of = |words: [&str; 6]| {
        let mut words = words.into_iter();
        words.any(|word| text.eq_ignore_ascii_case(word.as_bytes()))
    };
    if is_one_of(["true", "1", "yes", "on", "t", "y"]) {
        Some(true)
    } else if is_one_of(["false", "0", "no", "off", "f", "n"]) {
        Some(false)
    } else {
        None
    }
}

/// A count: 16, 16.0, "16" and, as Python has it, `true` for 1. Negative is 0; what does not fit is
/// the largest.
fn count(raw: Raw<'_>) -> Option<u64> {
    match raw {
        Raw::True => Some(1),
        Raw::False => Some(0),
        Raw::Number(Some(number)) => whole_number(number),
        Raw::Text(Some(text)) => whole_number(unescape(text).ok()?.bytes.trim_ascii()),
        _ => None,
    }
}

fn whole_number(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_negative = digits.len() < text.len();
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    let value = if digits.iter().all(u8::is_ascii_digit) {
        digits.iter().fold(0_u64, |value, digit| {
            value
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'))
        })
    } else {
        let is_numeric = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
        let text = std::str::from_utf8(digits).ok()?;
        let value: f64 = text
            .parse()
            .ok()
            .filter(|_| digits.iter().all(is_numeric))?;
        if value.is_finite() && value.fract() != 0.0 {
            return None;
        }
        // A cast from f64 saturates, also from infinity.
        value as u64
    };
    Some(if is_negative { 0 } else { value })
}

/// `at`: where the value stands.
pub(super) fn truth(field: &'static str, raw: Raw<'_>, at: &Range<usize>) -> Slot<bool> {
    match (raw, boolean(raw)) {
        (Raw::Null, _) => Ok(None),
        (_, Some(value)) => Ok(Some(value)),
        _ => Err(BodyFault::WrongType {
            at: at.start,
            field,
            expected: "true or false",
        }),
    }
}

/// `at`: where the value stands.
pub(super) fn amount(field: &'static str, raw: Raw<'_>, at: &Range<usize>) -> Slot<u64> {
    match (raw, count(raw)) {
        (Raw::Null, _) => Ok(None),
        (_, Some(value)) => Ok(Some(value)),
        _ => Err(BodyFault::WrongType {
            at: at.start,
            field,
            expected: "a whole number",
        }),
    }
}

/// The outer failure is one of the JSON, the inner one of the value.
pub(super) fn text(
    field: &'static str,
    raw: Raw<'_>,
    range: Range<usize>,
) -> Result<Slot<Text>, BodyFault> {
    let at = range.start;
    let wrong = |expected| {
        Err(BodyFault::WrongType {
            at,
            field,
            expected,
        })
    };
    let too_long = BodyFault::TooLong {
        at,
        field,
        limit: TEXT_LIMIT,
    };
    let raw = match raw {
        Raw::Null => return Ok(Ok(None)),
        Raw::Text(Some(raw)) => raw,
        Raw::Text(None) => return Ok(Err(too_long)),
        _ => return Ok(wrong("a string")),
    };
    let content = at + 1;
    let unescaped = unescape(raw).map_err(|flaw| flaw.at(content))?;
    if unescaped.bytes.len() > TEXT_LIMIT {
        return Ok(Err(too_long));
    }
    if let Some(offset) = unescaped.lone_surrogate {
        return Ok(Err(BodyFault::NotUnicode {
            at: content + offset,
            field,
        }));
    }
    Ok(match String::from_utf8(unescaped.bytes.into_owned()) {
        Ok(value) => Ok(Some(Text { value, range })),
        Err(_) => Err(BodyFault::NotUnicode { at, field }),
    })
}

impl Flaw {
    /// The fault it is in a string whose content begins at `content`.
    pub fn at(self, content: usize) -> BodyFault {
        match self {
            Self::Control { offset, found } => BodyFault::ControlCharacter {
                at: content + offset,
                found,
            },
            Self::Escape { offset } => BodyFault::BadEscape {
                at: content + offset,
            },
        }
    }
}
