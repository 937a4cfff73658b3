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
        let mut at = first.length;
        while at < piece.len() {
            let Some(found) = self.find(&piece[at..]) else {
                return Alike::No;
            };
            at += found.length;
        }
        let mut shown = self.keep_alike(&first, out);
        at = first.length;
        while at < piece.len()
            && let Some(found) = self.pattern.find(&piece[at..])
        {
            shown += self.keep_alike(&found, out);
            at += found.length;
        }
        match self.hides_ids {
            true => Alike::Rewritten(shown),
            false => Alike::AsTheyAre(shown),
        }
    }

    /// The event that `bytes` begin with, if it is alike and its ids can be read.
    fn find<'a>(&self, bytes: &'a [u8]) -> Option<Found<'a>> {
        let found = self.pattern.find(bytes)?;
        (!self.hides_ids || are_ids(found.ids)).then_some(found)
    }

    /// Takes one event; gives how many are shown.
    fn keep_alike(&mut self, found: &Found<'_>, out: &mut Vec<u8>) -> u32 {
        if self.hides_ids && !is_hidden(self.dialect, found) {
            self.pattern.write(found, out);
        }
        if !self.has_given_up {
            self.keep_text(found.text, found.ids);
        }
        u32::from(!found.text.is_empty())
    }

    fn push_ids(&mut self, list: &[u8]) -> usize {
        chunk::make_room(&mut self.ids, 0);
        let before = self.ids.len();
        let mut number = 0;
        for byte in list {
            if *byte == b',' {
                self.ids.push(number);
                number = 0;
            } else {
                number = number * 10 + u32::from(byte.wrapping_sub(b'0'));
            }
        }
        self.ids.push(number);
        self.ids.len() - before
    }

    fn keep_text(&mut self, text: &[u8], ids: &[u8]) {
        if !text.is_empty() {
            self.part = self.pattern_part;
        }
        if self.by == By::Text {
            self.events += u64::from(!text.is_empty());
            return self.text.extend_from_slice(text);
        }
        let count = self.push_ids(ids);
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

/// Numbers of so few digits that none is too large.
fn are_ids(list: &[u8]) -> bool {
    let mut digits = 0;
    for byte in list {
        match byte {
            b',' if digits > 0 => digits = 0,
            b',' => return false,
            _ => digits += 1,
        }
        if digits > 9 {
            return false;
        }
    }
    digits > 0
}

/// A token without text has an event only because ids were asked for.
fn is_hidden(dialect: Dialect, found: &Found<'_>) -> bool {
    dialect == Dialect::Chat && found.text.is_empty()
}
