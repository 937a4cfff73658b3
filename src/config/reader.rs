//! Reads the values of a tree by the schema: a mistake is noted and the default taken in its
//! place, so that one reading finds every mistake.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Diagnostics, Fault, Severity, quoted};
use super::environment;
use super::other_file::ReadOther;
use super::parse::{Node, Position, Value};
use super::schema;
use super::section::Section;
use super::unknown_key;

/// What is the same for the whole file.
pub(super) struct Reader<'a> {
    pub file: &'a str,
    /// Where relative paths begin.
    pub base: &'a Path,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    pub read_other: &'a ReadOther<'a>,
    problems: RefCell<Vec<Diagnostic>>,
    unlisted: RefCell<usize>,
    places: RefCell<Places>,
    remarks: RefCell<Remarks>,
}

/// What is worth a word and no mistake. Two configurations do not differ by it.
#[derive(Debug, Clone, Default)]
pub struct Remarks(Vec<Diagnostic>);

impl PartialEq for Remarks {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Remarks {
    /// All of them warnings, as they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }
}

/// Where keys were written. Two configurations do not differ by it.
#[derive(Debug, Clone, Default)]
pub struct Places(HashMap<String, Position>);

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Places {
    /// Where `path` was written, or what it is part of.
    pub(super) fn of(&self, path: &str) -> Position {
        let mut path = path;
        loop {
            if let Some(at) = self.0.get(path) {
                return *at;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return self.0.get("").copied().unwrap_or(Position::NOWHERE),
            }
        }
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}

impl<'a> Reader<'a> {
    pub fn new(
        file: &'a str,
        base: &'a Path,
        env: &'a dyn Fn(&str) -> Option<String>,
        read_other: &'a ReadOther<'a>,
    ) -> Self {
        Self {
            file,
            base,
            env,
            read_other,
            remarks: RefCell::default(),
            problems: RefCell::default(),
            unlisted: RefCell::default(),
            places: RefCell::default(),
        }
    }

    pub fn problem(
        &self,
        at: Position,
        path: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if self.is_full() {
            *self.unlisted.borrow_mut() += 1;
            return;
        }
        let problem = self.diagnostic(Severity::Error, at, path, message.into(), help.into());
        self.problems.borrow_mut().push(problem);
    }

    /// Whether further mistakes are only counted.
    pub fn is_full(&self) -> bool {
        self.problems.borrow().len() >= Diagnostics::LIMIT
    }

    /// Notes what is no mistake.
    pub fn remark(&self, at: Position, path: &str, message: impl Into<String>, help: &str) {
        let Remarks(remarks) = &mut *self.remarks.borrow_mut();
        if remarks.len() < Diagnostics::LIMIT {
            let help = help.to_owned();
            remarks.push(self.diagnostic(Severity::Warning, at, path, message.into(), help));
        }
    }

    fn diagnostic(
        &self,
        severity: Severity,
        at: Position,
        path: &str,
        message: String,
        help: String,
    ) -> Diagnostic {
        Diagnostic {
            severity,
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            path: path.to_owned(),
            message,
            help,
        }
    }

    /// Takes over what was noted in reading another file, but for its places.
    pub fn take_over(&self, other: Reader<'_>) {
        let mut problems = self.problems.borrow_mut();
        let found = other.problems.into_inner();
        let room = Diagnostics::LIMIT.saturating_sub(problems.len());
        *self.unlisted.borrow_mut() +=
            other.unlisted.into_inner() + found.len().saturating_sub(room);
        problems.extend(found.into_iter().take(room));
        let Remarks(remarks) = &mut *self.remarks.borrow_mut();
        remarks.extend(other.remarks.into_inner().0);
    }

    /// Notes a mistake in the key at `path`, wherever that was written.
    pub fn problem_at(&self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        let at = self.place(path);
        self.problem(at, path, message, help);
    }

    pub fn place(&self, path: &str) -> Position {
        self.places.borrow().of(path)
    }

    pub fn with_places<T>(&self, look: impl FnOnce(&Places) -> T) -> T {
        look(&self.places.borrow())
    }

    pub fn mark(&self, path: &str, at: Position) {
        self.places.borrow_mut().0.insert(path.to_owned(), at);
    }

    /// Where everything was written and what was remarked, if there was no mistake.
    pub fn finish(self) -> Result<(Places, Remarks), Diagnostics> {
        let problems = self.problems.into_inner();
        if problems.is_empty() {
            Ok((self.places.into_inner(), self.remarks.into_inner()))
        } else {
            Err(Diagnostics::new(problems, self.unlisted.into_inner()))
        }
    }

    /// The whole file as a section.
    pub fn root(&'a self, node: &'a Node) -> Section<'a> {
        self.mark("", node.at);
        self.section(node, "", String::new())
    }

    /// `node` as a mapping of the keys `schema` has; unknown ones are noted.
    pub fn section(&'a self, node: &'a Node, schema: &'static str, path: String) -> Section<'a> {
        let mut refused = false;
        let node = match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    unknown_key::check(self, entry, schema, &path);
                }
                Some(node)
            }
            _ if path.is_empty() && (node.is_null() || node.is_empty()) => None,
            _ => {
                refused = true;
                let first = schema::names(schema).next().unwrap_or("default");
                let subject = if path.is_empty() { "the file " } else { "" };
                let message = format!("{subject}is {} where a mapping belongs", what(node));
                self.problem(
                    node.at,
                    &path,
                    message,
                    format!("write keys and values, as in {{ {first}: … }}, or remove the key"),
                );
                None
            }
        };
        Section {
            reader: self,
            refused,
            node,
            schema,
            path,
        }
    }

    /// A scalar's value with the environment filled in, parsed. `Ok(None)` is null; `Err` means
    /// that a mistake was noted.
    pub fn scalar<T>(
        &self,
        field: &Field<'_>,
        form: &str,
        parse: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Result<Option<T>, Noted> {
        let (node, path) = (field.node, field.path.as_str());
        if node.is_null() {
            if field.nullable {
                return Ok(None);
            }
            self.problem(node.at, path, "cannot be null", form);
            return Err(Noted);
        }
        let Value::Scalar(scalar) = &node.value else {
            let message = format!("is {} where one value belongs", what(node));
            self.problem(node.at, path, message, form);
            return Err(Noted);
        };
        if node.is_empty() {
            let help = if field.nullable {
                "write null to switch it off, or remove the key for its default"
            } else {
                form
            };
            self.problem(node.at, path, "has no value", help);
            return Err(Noted);
        }
        let shown = if field.secret {
            "the value".to_owned()
        } else {
            quoted(&scalar.text)
        };
        let value = if scalar.literal {
            Cow::Borrowed(&*scalar.text)
        } else {
            environment::expand(&scalar.text, self.env).map_err(|faults| {
                for fault in faults {
                    let shown = if fault.hide { "the value" } else { &shown };
                    let message = format!("{shown} {}", fault.what);
                    self.problem(node.at, path, message, fault.fix.unwrap_or_default());
                }
                Noted
            })?
        };
        parse(&value).map(Some).map_err(|fault| {
            let from_environment = matches!(value, Cow::Owned(_));
            let fix = match fault.fix {
                Some(fix) if fault.hide => fix,
                Some(fix) if !(from_environment || field.secret) && fits(&fix) => fix,
                _ => form.to_owned(),
            };
            let shown = if fault.hide { "the value" } else { &shown };
            let source = if from_environment {
                " (from the environment)"
            } else {
                ""
            };
            let message = format!("{shown}{source} {}", fault.what);
            self.problem(node.at, path, message, fix);
            Noted
        })
    }

    /// The items of a list, or the single value as one; those beyond `most` are a mistake and left out.
    pub fn items<'n>(&self, field: &Field<'n>, most: usize) -> Vec<Field<'n>> {
        let mut items = field.items();
        if items.len() > most {
            let message = format!("has {} items", items.len());
            let help = format!("write at most {most}");
            self.problem(field.node.at, &field.path, message, help);
            items.truncate(most);
        }
        items
    }

    pub fn join(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }
}

/// A mistake has been noted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted;

/// A value and how it may be written.
pub(super) struct Field<'a> {
    pub node: &'a Node,
    pub path: String,
    pub nullable: bool,
    pub secret: bool,
}

impl<'a> Field<'a> {
    /// An item of a list.
    pub fn item(node: &'a Node, path: String) -> Self {
        Self {
            node,
            path,
            nullable: false,
            secret: false,
        }
    }

    /// Its items, if it is a list; else itself.
    pub fn items(&self) -> Vec<Field<'a>> {
        match &self.node.value {
            Value::List(items) => (items.iter().enumerate())
                .map(|(i, node)| Field::item(node, format!("{}[{i}]", self.path)))
                .collect(),
            _ => vec![Field::item(self.node, self.path.clone())],
        }
    }
}

/// Whether a fix, which may hold the value, can be part of a message of one line.
fn fits(fix: &str) -> bool {
    fix.len() <= 250 && !fix.contains(char::is_control)
}

/// What kind of value it is, for a message.
pub(super) fn what(node: &Node) -> &'static str {
    match &node.value {
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
        Value::Scalar(_) if node.is_null() => "null",
        Value::Scalar(_) if node.is_empty() => "empty",
        Value::Scalar(_) => "a single value",
    }
}
