//! What is said about a file: what was not carried over as it is, and what is wrong.

use super::tree::Field;

/// Mistakes beyond these are only counted.
const MOST_MISTAKES: usize = 100;

/// How soon it has to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// Clients can do more than before.
    Opens,
    Rest,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    rank: Rank,
    /// The file, the line, the column.
    at: (usize, usize, usize),
    text: String,
}

/// Collects them while the file is looked at.
#[derive(Default)]
pub(super) struct Notes {
    notes: Vec<Note>,
    mistakes: Vec<Note>,
}

impl Notes {
    /// Nothing in the result stands for it.
    pub fn not_carried(&mut self, of: &Field<'_>, why: impl AsRef<str>) {
        self.say(Rank::Rest, of, &format!("not carried: {}", why.as_ref()));
    }

    /// As [`Self::not_carried`], of what kept clients out or held them back.
    pub fn unguarded(&mut self, of: &Field<'_>, why: impl AsRef<str>) {
        self.say(Rank::Opens, of, &format!("not carried: {}", why.as_ref()));
    }

    /// The result does something else in its place.
    pub fn differs(&mut self, of: &Field<'_>, how: impl AsRef<str>) {
        self.say(Rank::Rest, of, &format!("differs: {}", how.as_ref()));
    }

    /// A key that the file does not have, and for which LiteLLM does something else than we do.
    pub fn unwritten(&mut self, within: &Field<'_>, key: &str, how: impl AsRef<str>) {
        self.notes.push(Note {
            rank: Rank::Rest,
            at: order(within),
            text: format!(
                "{}: {key}: differs: not written; {}",
                within.place(),
                how.as_ref()
            ),
        });
    }

    /// LiteLLM would not take it.
    pub fn mistake(&mut self, of: &Field<'_>, what: impl AsRef<str>) {
        self.mistakes.push(note(Rank::Rest, of, what.as_ref()));
    }

    fn say(&mut self, rank: Rank, of: &Field<'_>, what: &str) {
        self.notes.push(note(rank, of, what));
    }

    /// The mistakes, if there are any.
    pub fn broken(&mut self) -> Option<Vec<String>> {
        if self.mistakes.is_empty() {
            return None;
        }
        let mut lines = lines(std::mem::take(&mut self.mistakes));
        if let Some(more) = lines.len().checked_sub(MOST_MISTAKES).filter(|n| *n > 0) {
            lines.truncate(MOST_MISTAKES);
            lines.push(format!("and {more} more"));
        }
        Some(lines)
    }

    /// A line for each: first what clients can do more than before, then the rest, both in the order of the files.
    pub fn lines(self) -> Vec<String> {
        lines(self.notes)
    }
}

fn order(of: &Field<'_>) -> (usize, usize, usize) {
    (of.file.number, of.at.line, of.at.column)
}

/// Of a value nothing is shown: it may be a secret.
fn note(rank: Rank, of: &Field<'_>, what: &str) -> Note {
    let path = match &*of.path {
        "" => String::new(),
        path => format!("{path}: "),
    };
    Note {
        rank,
        at: order(of),
        text: format!("{}: {path}{what}", of.place()),
    }
}

fn lines(mut notes: Vec<Note>) -> Vec<String> {
    notes.sort();
    let mut lines: Vec<String> = notes.into_iter().map(|note| note.text).collect();
    lines.dedup();
    lines
}
