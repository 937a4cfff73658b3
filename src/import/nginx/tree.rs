//! Directives, as they are written.

use std::fmt;
use std::rc::Rc;

/// Where something is written. `Display` gives `file:line`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub file: Rc<str>,
    /// From 1; 0 is the file as a whole.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        match self.line {
            0 => Ok(()),
            line => write!(f, ":{line}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive {
    pub at: Place,
    /// Counts the directives in the order they are read.
    pub number: usize,
    pub name: String,
    pub args: Vec<String>,
    pub block: Option<Vec<Directive>>,
}

impl Directive {
    pub fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", String::as_str)
    }

    /// What is in its block; nothing where it has none.
    pub fn children(&self) -> &[Directive] {
        self.block.as_deref().unwrap_or_default()
    }

    /// The directives of this name right in its block.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Directive> {
        self.children().iter().filter(move |d| d.name == name)
    }
}

/// Text from a file, short and on one line, without the name and password that a URL may have.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let text = match text.rsplit_once('@') {
        Some((before, host)) if before.contains(':') => &format!("…@{host}"),
        _ => text,
    };
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}
