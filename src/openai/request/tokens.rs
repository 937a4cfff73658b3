//! Single tokens: where a string ends, what a number may go on with, which words there are.

use memchr::memchr;

/// The longest number that is read.
pub(super) const NUMBER_LIMIT: usize = 64;

/// What of a number was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Start,
    Minus,
    Zero,
    Whole,
    Point,
    Fraction,
    E,
    ExponentSign,
    Exponent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Literal {
    True,
    False,
    Null,
}

impl Literal {
    pub fn word(self) -> &'static [u8] {
        match self {
            Self::True => b"true",
            Self::False => b"false",
            Self::Null => b"null",
        }
    }
}

pub(super) enum Step {
    On(Number),
    End,
    Fault,
}

impl Number {
    /// What one more byte makes of the number.
    pub fn then(self, byte: u8) -> Step {
        match (self, byte) {
            (Self::Start, b'-') => Step::On(Self::Minus),
            (Self::Start | Self::Minus, b'0') => Step::On(Self::Zero),
            (Self::Start | Self::Minus, b'1'..=b'9') | (Self::Whole, b'0'..=b'9') => {
                Step::On(Self::Whole)
            }
            (Self::Zero | Self::Whole, b'.') => Step::On(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Step::On(Self::Fraction),
            (Self::Zero | Self::Whole | Self::Fraction, b'e' | b'E') => Step::On(Self::E),
            (Self::E, b'+' | b'-') => Step::On(Self::ExponentSign),
            (Self::E | Self::ExponentSign | Self::Exponent, b'0'..=b'9') => {
                Step::On(Self::Exponent)
            }
            (Self::Zero | Self::Whole | Self::Fraction | Self::Exponent, _) => Step::End,
            _ => Step::Fault,
        }
    }
}

/// How much of an array of integers is looked at together.
pub(super) const BLOCK: usize = 32;

/// Whether all but the first two bytes go on with an array of whole numbers, written `1,2` or `1, 2`.
/// Free of branches, so that it becomes vector code.
pub(super) fn goes_on_with_integers(window: &[u8; BLOCK + 2]) -> bool {
    let is_digit = |byte: u8| byte.wrapping_sub(b'0') < 10;
    let mut fits = true;
    for i in 0..BLOCK {
        let (second_last, last, byte) = (window[i], window[i + 1], window[i + 2]);
        let leads_with_zero = (last == b'0') & !is_digit(second_last);
        fits &= (is_digit(byte) & !leads_with_zero)
            | ((byte == b',') & is_digit(last))
            | ((byte == b' ') & (last == b','));
    }
    fits
}

/// How many bytes of whitespace `bytes` begin with.
pub(super) fn leading_whitespace(bytes: &[u8]) -> usize {
    let is_other = |&byte: &u8| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    bytes.iter().position(is_other).unwrap_or(bytes.len())
}

/// Where the string ends whose content goes on at `from`. `escaped` says whether an odd number of
/// backslashes stands before `from`, and without an end whether one ends the piece.
pub(super) fn closing_quote(piece: &[u8], from: usize, escaped: &mut bool) -> Option<usize> {
    let was_escaped = std::mem::take(escaped);
    let mut searched = from;
    loop {
        let quote = memchr(b'"', &piece[searched..]).map(|found| searched + found);
        let end = quote.unwrap_or(piece.len());
        let content = &piece[searched..end];
        let run = content
            .iter()
            .rev()
            .take_while(|&&byte| byte == b'\\')
            .count();
        let is_whole = run == end - from;
        let is_escaped = (run % 2 == 1) != (is_whole && was_escaped);
        match quote {
            Some(quote) if !is_escaped => return Some(quote),
            Some(quote) => searched = quote + 1,
            None => {
                *escaped = is_escaped;
                return None;
            }
        }
    }
}
