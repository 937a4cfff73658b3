//! Keys and strings: what of them is read, and which of them look like a picture.

use super::super::fault::BodyFault;
use super::super::fields::{RAW_KEY_LIMIT, Scope, UNKNOWN, is_model_in_other_case};
use super::super::tokens::closing_quote;
use super::super::value::{RAW_TEXT_LIMIT, Raw, unescape};
use super::{Scanner, State};

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

impl Scanner {
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
    pub(super) fn string(&mut self, piece: &[u8], from: usize) -> Result<usize, BodyFault> {
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
    pub(super) fn hold(&mut self, part: &[u8], limit: usize) {
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

    pub(super) fn end_value(&mut self, raw: Raw<'_>, after: usize) -> Result<(), BodyFault> {
        match self.wanted.take() {
            Some(field) => self.fields.set(field, raw, self.token_start..after),
            None => Ok(()),
        }
    }
}
