//! Numbers, `true`, `false` and `null`.

use super::super::fault::BodyFault;
use super::super::tokens::{BLOCK, Literal, NUMBER_LIMIT, Number, Step, goes_on_with_integers};
use super::super::value::Raw;
use super::{Scanner, State};

impl Scanner {
    pub(super) fn number(
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
    pub(super) fn integers(&mut self, piece: &[u8], from: usize) -> usize {
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

    pub(super) fn literal(
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
}
