//! One mapping of the file, read by the part of the schema that it follows.

use std::path::PathBuf;
use std::time::Duration;

use super::diagnostic::Fault;
use super::parse::{Entry, Node, Value};
use super::reader::{Field, Reader};
use super::schema::{self, Key, Kind};
use super::{units, unknown_key};

/// A mapping of the file and the part of the schema that it follows.
pub(super) struct Section<'a> {
    pub reader: &'a Reader<'a>,
    /// Something else was written in its place.
    pub(super) refused: bool,
    /// `None`: everything has its default.
    pub(super) node: Option<&'a Node>,
    pub(super) schema: &'static str,
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

    /// Whether something other than a mapping was written, which has been noted.
    pub fn is_something_else(&self) -> bool {
        self.refused
    }

    /// Whether it was written, and as a mapping.
    pub fn is_mapping(&self) -> bool {
        self.node.is_some()
    }

    fn node_of(&self, name: &str) -> Option<&'a Node> {
        let Value::Map(entries) = &self.node?.value else {
            return None;
        };
        let entry = entries.iter().find(|entry| *entry.key == *name)?;
        Some(&entry.node)
    }

    /// Keys that the operator names.
    pub fn entries(&self) -> &'a [Entry] {
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
        let node = self.node_of(name)?;
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
                refused: false,
                schema,
                path,
            },
        }
    }

    /// `None` where the section is null, as written or by default.
    pub fn section_or_null(&self, name: &str) -> Option<Section<'a>> {
        let null = match self.node_of(name) {
            Some(node) => node.is_null(),
            None => self.default(name).is_some_and(|field| field.node.is_null()),
        };
        (!null).then(|| self.section(name))
    }

    pub fn duration(&self, name: &str) -> Duration {
        self.duration_or_none(name).unwrap_or_default()
    }

    /// Where null is allowed, `None` is that.
    pub fn duration_or_none(&self, name: &str) -> Option<Duration> {
        let Kind::Duration(min, max) = self.key(name).kind else {
            unreachable!("{name} is no duration in the schema")
        };
        self.nullable(name, units::DURATION_FORM, |text| {
            let value = units::duration(text)?;
            units::within(value, min, max, units::show_duration)
        })
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
        let form = match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => {
                format!("write {} or {last}", rest.join(", "))
            }
            _ => format!("write {}", names.concat()),
        };
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

/// One of a few names.
pub(super) trait Named: Copy + 'static {
    const NAMES: &'static [(&'static str, Self)];
    /// Other names, and what to say of them.
    const OTHERS: &'static [(&'static str, &'static str)] = &[];
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
