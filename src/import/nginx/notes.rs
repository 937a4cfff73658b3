//! What is said about a file: what was not carried over as it is, and what is wrong.

use super::tree::{Directive, Place, quoted};

/// Mistakes beyond these are only counted.
const MOST_MISTAKES: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    /// Clients can do more than before; such notes come before all others.
    opens: bool,
    /// Where in the order of the directives.
    number: usize,
    at: Place,
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
    pub fn not_carried(&mut self, of: &Directive, why: impl AsRef<str>) {
        self.say(of, &format!("not carried: {}", why.as_ref()));
    }

    /// The result does something else in its place.
    pub fn differs(&mut self, of: &Directive, how: impl AsRef<str>) {
        self.say(of, &format!("differs: {}", how.as_ref()));
    }

    /// As [`Self::not_carried`], of what kept clients out or held them back.
    pub fn unguarded(&mut self, of: &Directive, why: impl AsRef<str>) {
        self.opens_note(of, &format!("not carried: {}", why.as_ref()));
    }

    /// As [`Self::differs`], where clients can do more by it than before.
    pub fn opens(&mut self, of: &Directive, how: impl AsRef<str>) {
        self.opens_note(of, &format!("differs: {}", how.as_ref()));
    }

    fn opens_note(&mut self, of: &Directive, what: &str) {
        self.notes.push(Note {
            opens: true,
            ..note(of, what)
        });
    }

    /// A directive that the file does not have, and whose default in nginx is another than ours.
    pub fn unwritten(&mut self, within: &Directive, name: &str, how: impl AsRef<str>) {
        self.notes.push(Note {
            opens: false,
            number: within.number,
            at: within.at.clone(),
            text: format!("{name}: differs: not written; {}", how.as_ref()),
        });
    }

    pub fn say(&mut self, of: &Directive, what: &str) {
        self.notes.push(note(of, what));
    }

    /// nginx would not take it, or what is asked for cannot be done.
    pub fn mistake(&mut self, of: &Directive, what: impl AsRef<str>) {
        self.mistakes.push(note(of, what.as_ref()));
    }

    /// Whether one more would be shown.
    pub fn is_full(&self) -> bool {
        self.mistakes.len() >= MOST_MISTAKES
    }

    pub fn has_mistakes(&self) -> bool {
        !self.mistakes.is_empty()
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

    /// A line for each: first where clients can do more than before, and each part in the order of the
    /// file.
    pub fn lines(self) -> Vec<String> {
        lines(self.notes)
    }
}

fn note(of: &Directive, what: &str) -> Note {
    Note {
        opens: false,
        number: of.number,
        at: of.at.clone(),
        text: format!("{}: {what}", shown(of)),
    }
}

fn lines(mut notes: Vec<Note>) -> Vec<String> {
    notes.sort_by_key(|note| (!note.opens, note.number));
    let mut lines: Vec<String> = (notes.iter())
        .map(|note| format!("{}: {}", note.at, note.text))
        .collect();
    lines.dedup();
    lines
}

/// A directive as messages name it. Of its arguments only those that tell it from its like are
/// shown: a value may be a secret.
fn shown(directive: &Directive) -> String {
    let name: String = directive
        .name
        .chars()
        .take(64)
        .flat_map(char::escape_debug)
        .collect();
    match name.as_str() {
        "location" | "upstream" => {
            let words: Vec<_> = directive.args.iter().map(|arg| plain(arg)).collect();
            format!("{name} {}", words.join(" ")).trim_end().to_owned()
        }
        // Which header it is; the value may be a key.
        "proxy_set_header" => format!("{name} {}", plain(directive.arg(0))),
        _ => name,
    }
}

fn plain(word: &str) -> String {
    let quoted = quoted(word);
    if word.chars().all(|c| c.is_ascii_graphic()) && !word.contains(['"', '\\']) {
        quoted.trim_matches('"').to_owned()
    } else {
        quoted
    }
}
