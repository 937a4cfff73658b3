//! Reads the values of a tree by the schema: a mistake is noted and the default taken in its
//! place, so that one reading finds every mistake.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnostic::{Diagnostic, Diagnostics, Fault, Severity, quoted};
use super::environment;
use super::parse::{Node, Position, Value};
use super::schema::{self, Key, Kind};
use super::units;
use super::unknown_key;

/// What is the same for the whole file.
pub(super) struct Reader<'a> {
    pub file: &'a str,
    /// Where relative paths begin.
    pub base: &'a Path,
    pub env: &'a dyn Fn(&str) -> Option<String>,
    problems: RefCell<Vec<Diagnostic>>,
    unlisted: RefCell<usize>,
    places: RefCell<Places>,
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
    pub fn new(file: &'a str, base: &'a Path, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            file,
            base,
            env,
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
        let mut problems = self.problems.borrow_mut();
        if problems.len() >= Diagnostics::LIMIT {
            *self.unlisted.borrow_mut() += 1;
            return;
        }
        problems.push(Diagnostic {
            severity: Severity::Error,
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
            path: path.to_owned(),
            message: message.into(),
            help: help.into(),
        });
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

    /// The places where everything was written, if there was no mistake.
    pub fn finish(self) -> Result<Places, Diagnostics> {
        let problems = self.problems.into_inner();
        if problems.is_empty() {
            Ok(self.places.into_inner())
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
        let node = match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    unknown_key::check(self, entry, schema, &path);
                }
                Some(node)
            }
            _ if path.is_empty() && (node.is_null() || node.is_empty()) => None,
            _ => {
                let first = schema::names(schema).next().unwrap_or("default");
                let message = format!("{} where a mapping belongs", what(node));
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
                    let message = format!("{shown} {}", fault.what);
                    self.problem(node.at, path, message, fault.fix.unwrap_or_default());
                }
                Noted
            })?
        };
        parse(&value).map(Some).map_err(|fault| {
            let from_environment = matches!(value, Cow::Owned(_));
            let fix = match fault.fix {
                Some(fix) if fault.hide || !(from_environment || field.secret) => fix,
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

/// One of a few names.
pub(super) trait Named: Copy + 'static {
    const NAMES: &'static [(&'static str, Self)];
    /// Other names, and what to say of them.
    const OTHERS: &'static [(&'static str, &'static str)] = &[];
}

/// A mapping of the file and the part of the schema that it follows.
pub(super) struct Section<'a> {
    pub reader: &'a Reader<'a>,
    /// `None`: everything has its default.
    node: Option<&'a Node>,
    schema: &'static str,
    pub path: String,
}

impl<'a> Section<'a> {
    /// The path of a key in it.
    pub fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// Whether the file has the key.
    pub fn has(&self, name: &str) -> bool {
        self.node_of(name).is_some()
    }

    /// Whether it was written, and as a mapping.
    pub fn is_mapping(&self) -> bool {
        self.node.is_some()
    }

    fn node_of(&self, name: &str) -> Option<(&'a Node, Position)> {
        let Value::Map(entries) = &self.node?.value else {
            return None;
        };
        let entry = entries.iter().find(|entry| *entry.key == *name)?;
        Some((&entry.node, entry.at))
    }

    /// Keys that the operator names.
    pub fn entries(&self) -> &'a [super::parse::Entry] {
        match self.node.map(|node| &node.value) {
            Some(Value::Map(entries)) => entries,
            _ => &[],
        }
    }

    fn key(&self, name: &str) -> &'static Key {
        schema::find(self.schema, name).expect("every key that is read is in the schema")
    }

    /// What the file has for the key.
    pub fn written(&self, name: &str) -> Option<Field<'a>> {
        let (node, _) = self.node_of(name)?;
        let field = self.field(name, node);
        self.reader.mark(&field.path, node.at);
        Some(field)
    }

    /// The key's default.
    pub fn default(&self, name: &str) -> Option<Field<'static>> {
        let node = schema::default_node(self.key(name))?;
        Some(self.field(name, node))
    }

    fn field<'n>(&self, name: &str, node: &'n Node) -> Field<'n> {
        let key = self.key(name);
        Field {
            node,
            path: self.path_of(name),
            nullable: key.nullable,
            secret: matches!(key.kind, Kind::Secret),
        }
    }

    /// A key's value; `None` is null, or a mistake that was noted where there is no default.
    pub fn nullable<T>(
        &self,
        name: &str,
        form: &str,
        parse: impl Fn(&str) -> Result<T, Fault>,
    ) -> Option<T> {
        if let Some(field) = self.written(name)
            && let Ok(value) = self.reader.scalar(&field, form, &parse)
        {
            return value;
        }
        match self.default(name) {
            Some(field) => self.reader.scalar(&field, form, &parse).ok().flatten(),
            None => {
                self.require(name, form);
                None
            }
        }
    }

    /// Notes that the key is missing, if it is.
    pub fn require(&self, name: &str, form: &str) {
        // Of what is no mapping that has been said already.
        if self.is_mapping() && !self.has(name) {
            self.reader
                .problem_at(&self.path, format!("has no {name}"), form);
        }
    }

    pub fn section(&self, name: &str) -> Section<'a> {
        let schema = match self.key(name).kind {
            Kind::Overrides(section) => section,
            _ => self.key(name).path,
        };
        let path = self.path_of(name);
        match self.written(name) {
            Some(field) => self.reader.section(field.node, schema, path),
            None => Section {
                reader: self.reader,
                node: None,
                schema,
                path,
            },
        }
    }

    /// `None` where the section is null, as written or by default.
    pub fn section_or_null(&self, name: &str) -> Option<Section<'a>> {
        let null = match self.node_of(name) {
            Some((node, _)) => node.is_null(),
            None => self.default(name).is_some_and(|field| field.node.is_null()),
        };
        (!null).then(|| self.section(name))
    }

    pub fn duration(&self, name: &str) -> Duration {
        let Kind::Duration(min, max) = self.key(name).kind else {
            unreachable!("{name} is no duration in the schema")
        };
        self.nullable(name, units::DURATION_FORM, |text| {
            let value = units::duration(text)?;
            units::within(value, min, max, units::show_duration)
        })
        .unwrap_or_default()
    }

    pub fn size(&self, name: &str) -> usize {
        let Kind::Size(min, max) = self.key(name).kind else {
            unreachable!("{name} is no size in the schema")
        };
        self.nullable(name, units::SIZE_FORM, |text| {
            let value = units::size(text)?;
            let value = units::within(value, min, max, |bytes| units::show_size(*bytes))?;
            usize::try_from(value).map_err(|_| Fault::new("is too large for this machine"))
        })
        .unwrap_or_default()
    }

    /// A whole number; `None` is null or, where the schema says so, `auto`.
    pub fn count_or_none<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        let key = self.key(name);
        let Kind::Count(min, max) = key.kind else {
            unreachable!("{name} is no number in the schema")
        };
        let auto = key.default == Some("auto");
        let form = format!(
            "write a whole number from {min} to {max}{}",
            match (auto, key.nullable) {
                (true, _) => ", or auto",
                (_, true) => ", or null for none",
                _ => "",
            }
        );
        self.nullable(name, &form, |text| {
            if auto && text == "auto" {
                return Ok(None);
            }
            let value = units::within(units::count(text)?, min, max, u64::to_string)?;
            let value = T::try_from(value).map_err(|_| Fault::new("is too large"))?;
            Ok(Some(value))
        })
        .flatten()
    }

    pub fn count<T: TryFrom<u64> + Default>(&self, name: &str) -> T {
        self.count_or_none(name).unwrap_or_default()
    }

    pub fn ratio(&self, name: &str) -> f64 {
        let Kind::Ratio(max) = self.key(name).kind else {
            unreachable!("{name} is no ratio in the schema")
        };
        let form = format!("write a number from 0 to {max}");
        self.nullable(name, &form, |text| {
            units::within(units::ratio(text)?, 0.0, max, f64::to_string)
        })
        .unwrap_or_default()
    }

    pub fn switch(&self, name: &str) -> Option<bool> {
        self.nullable(name, "write true or false", |text| {
            match text {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => {
                    let fault = Fault::new("is neither true nor false");
                    // What YAML 1.1 and nginx take for a switch.
                    Err(match text.to_ascii_lowercase().as_str() {
                        "yes" | "on" | "y" | "true" | "1" => fault.fix("write true"),
                        "no" | "off" | "n" | "false" | "0" => fault.fix("write false"),
                        _ => fault,
                    })
                }
            }
        })
    }

    /// One of a few names; `None` only after a mistake.
    pub fn choice<T: Named>(&self, name: &str) -> Option<T> {
        let names: Vec<&str> = T::NAMES.iter().map(|(name, _)| *name).collect();
        let form = format!("write {}", names.join(" or "));
        self.nullable(name, &form, |text| {
            if let Some((_, value)) = T::NAMES.iter().find(|(name, _)| *name == text) {
                return Ok(*value);
            }
            if let Some((_, what)) = T::OTHERS.iter().find(|(name, _)| *name == text) {
                return Err(Fault::new(*what));
            }
            let fault = Fault::new("is not known here");
            Err(match unknown_key::nearest(text, names.iter().copied()) {
                Some(name) => fault.fix(format!("did you mean {name}? {form}")),
                None => fault,
            })
        })
    }

    /// A path, joined to the file's directory when it is relative.
    pub fn path(&self, name: &str, form: &str) -> Option<PathBuf> {
        self.nullable(name, form, |text| file_path(self.reader, text))
    }
}

pub(super) fn file_path(reader: &Reader<'_>, text: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() {
        Err(Fault::new("is empty"))
    } else if text.contains('\0') {
        Err(Fault::new("has a NUL character"))
    } else {
        Ok(reader.join(text))
    }
}

fn what(node: &Node) -> &'static str {
    match &node.value {
        Value::List(_) => "a list",
        Value::Map(_) => "a mapping",
        Value::Scalar(_) if node.is_null() => "null",
        Value::Scalar(_) if node.is_empty() => "nothing",
        Value::Scalar(_) => "a single value",
    }
}
