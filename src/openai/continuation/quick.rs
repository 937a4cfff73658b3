//! The short way of events that are like one that was read: what is kept of them is the same.

use super::super::Dialect;
use super::alike::{Alike, Found};
use super::chunk;
use super::kept::{By, Kept, Source};

impl Kept {
    /// Takes whole events that are all alike another one before them, if they are; adds them to `out` as the client
    /// gets them, where that is otherwise.
    pub fn take_alike(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Alike {
        if self.source != Source::First || self.is_finished {
            return Alike::No;
        }
        if !self.has_given_up && self.by == By::Unknown {
            return Alike::No;
        }
        // All are looked at before one is taken; mostly there is one.
        let Some(first) = self.find(piece) else {
            return Alike::No;
        };
        let mut at = first;
        while at < piece.len() {
            let Some(length) = self.find(&piece[at..]) else {
                return Alike::No;
            };
            at += length;
        }
        let (mut at, mut shown) = (0, 0);
        while let Some(found) = self.pattern.find(&piece[at..]) {
            at += found.length;
            shown += u32::from(!found.text.is_empty());
            if self.hides_ids && !is_hidden(self.dialect, &found) {
                self.pattern.write(&found, out);
            }
            if !self.has_given_up {
                // It borrows from the piece alone.
                let Found { text, ids, .. } = found;
                self.keep_alike(text, ids);
            }
        }
        match self.hides_ids {
            true => Alike::Rewritten(shown),
            false => Alike::AsTheyAre(shown),
        }
    }

    /// The length of the event that `bytes` begin with, if it is alike and its ids can be read.
    fn find(&self, bytes: &[u8]) -> Option<usize> {
        let found = self.pattern.find(bytes)?;
        let are_ids = !self.hides_ids || found.ids.split(|&byte| byte == b',').all(is_id);
        are_ids.then_some(found.length)
    }

    fn keep_alike(&mut self, text: &[u8], ids: &[u8]) {
        if !text.is_empty() {
            self.part = self.pattern_part;
        }
        if self.by == By::Text {
            self.events += u64::from(!text.is_empty());
            return self.text.extend_from_slice(text);
        }
        let mut count = 0;
        for digits in ids.split(|&byte| byte == b',') {
            if self.ids.len() == self.ids.capacity() {
                // Not doubled: a prompt may have a million.
                self.ids.reserve_exact(self.ids.len() / 8 + 256);
            }
            let number = |number, digit: &u8| number * 10 + u32::from(digit.wrapping_sub(b'0'));
            self.ids.push(digits.iter().fold(0, number));
            count += 1;
        }
        match (count, text.is_empty()) {
            (1, false) if self.seam.is_tight() => self.seam.advance(self.ids.len()),
            (_, true) => {}
            (_, false) => {
                let texts = [(self.pattern_part, chunk::decode(text))];
                self.seam.take(&texts, &texts, count, self.ids.len(), false);
            }
        }
    }
}

/// So few digits that no number is too large.
fn is_id(digits: &[u8]) -> bool {
    (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
}

/// A token without text has an event only because ids were asked for.
fn is_hidden(dialect: Dialect, found: &Found<'_>) -> bool {
    dialect == Dialect::Chat && found.text.is_empty()
}
