//! What is said about a mistake, and where it is.

use std::fmt;

/// Whether the configuration can be used in spite of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// One thing to say about the configuration, shown as
/// `file:line:column: path: what is wrong; how to fix it`.
///
/// Values are quoted as they were written in the file, never as they came out of the environment,
/// and the values of secret keys are not quoted at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// As the operator named it, or `command line`.
    pub file: String,
    /// From 1; 0 where there is no line to point at.
    pub line: usize,
    /// From 1, counted in characters.
    pub column: usize,
    /// The key, as `pools.default.endpoints[0].url`; empty for the file as a whole.
    pub path: String,
    pub message: String,
    /// How to fix it; may be empty.
    pub help: String,
}

impl Diagnostic {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if !self.help.is_empty() {
            write!(f, "; {}", self.help)?;
        }
        Ok(())
    }
}

/// Everything wrong with a configuration, by file and position. `Display` writes a line for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    /// Mistakes beyond the [`Self::LIMIT`], which are only counted.
    more: usize,
}

impl Diagnostics {
    /// A file that is no configuration at all may hold a mistake a line.
    pub(super) const LIMIT: usize = 1000;

    pub(super) fn new(mut list: Vec<Diagnostic>, more: usize) -> Self {
        list.sort_by(|a, b| {
            let place = |d: &Diagnostic| (d.line, d.column);
            (&a.file, place(a), &a.path).cmp(&(&b.file, place(b), &b.path))
        });
        Self { list, more }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// Whether there is more than warnings.
    pub fn has_errors(&self) -> bool {
        self.list
            .iter()
            .any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(only: Diagnostic) -> Self {
        Self::new(vec![only], 0)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// What a parser of one value says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Follows the quoted value: `has no port`. Never holds the value or a part of it, which may
    /// have come from the environment.
    pub what: String,
    /// May hold the value: shown only when that was written in the file.
    pub fix: Option<String>,
    /// The value is not to be quoted.
    pub hide: bool,
}

impl Fault {
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            fix: None,
            hide: false,
        }
    }

    pub fn hide(mut self) -> Self {
        self.hide = true;
        self
    }

    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

/// `text` in quotes, as [`shown`] has it.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

/// `text` escaped, so that a message has one line, and no longer than a line of a log should be.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(line: usize, path: &str) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            file: "a.yaml".into(),
            line,
            column: 3,
            path: path.into(),
            message: "is wrong".into(),
            help: "write it right".into(),
        }
    }

    #[test]
    fn names_place_key_mistake_and_remedy_on_one_line() {
        assert_eq!(
            diagnostic(2, "limits.body").to_string(),
            "a.yaml:2:3: limits.body: is wrong; write it right"
        );
        assert_eq!(
            diagnostic(0, "").to_string(),
            "a.yaml: is wrong; write it right"
        );
    }

    #[test]
    fn sorts_by_position() {
        let all = Diagnostics::new(vec![diagnostic(9, "b"), diagnostic(1, "c")], 2);
        let text = all.to_string();
        assert!(text.starts_with("a.yaml:1:3: c"));
        assert!(text.ends_with("\nand 2 more"));
    }

    #[test]
    fn a_quoted_value_can_neither_break_the_line_nor_fill_the_log() {
        assert_eq!(quoted("a\nb\u{1b}[2J"), r#""a\nb\u{1b}[2J""#);
        assert!(quoted(&"x".repeat(10_000)).chars().count() < 100);
    }
}
