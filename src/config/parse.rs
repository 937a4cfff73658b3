//! YAML text to a tree that knows where everything was written. The only place that knows YAML.
//!
//! The tree is bounded in size, in depth and in what aliases may multiply.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{self, ErrorKind, Event, Parser, ScalarStyle, ScanError};

use super::diagnostic::shown;

/// Bytes of a configuration file.
pub(super) const LARGEST_FILE: usize = 1 << 20;
/// Collections within collections; the schema needs 6.
const DEEPEST: usize = 32;
/// What all aliases of a file may add to its tree, in bytes.
const LARGEST_EXPANSION: usize = 4 << 20;

/// A place in the file, both from 1; `column` counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    pub const START: Self = Self { line: 1, column: 1 };
    /// Of what was not read from a file.
    pub const NOWHERE: Self = Self { line: 0, column: 0 };

    /// Of the character that follows `text`. LF, CR and CRLF end a line (YAML 1.2.2 section 5.4).
    pub fn after(text: &str) -> Self {
        let mut at = Self::START;
        let mut before = ' ';
        for c in text.chars() {
            match (before, c) {
                ('\r', '\n') => {}
                (_, '\r' | '\n') => {
                    at.line += 1;
                    at.column = 1;
                }
                _ => at.column += 1,
            }
            before = c;
        }
        at
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub at: Position,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    /// As written, `${…}` included.
    pub text: Box<str>,
    /// Without quotes: only then can it be null.
    pub plain: bool,
    /// From the command line, where `${…}` is the shell's.
    pub literal: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: Box<str>,
    pub at: Position,
    pub node: Node,
}

impl Node {
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(s)
            if s.plain && matches!(&*s.text, "null" | "Null" | "NULL" | "~"))
    }

    /// A key with nothing after its colon.
    pub fn is_empty(&self) -> bool {
        matches!(&self.value, Value::Scalar(s) if s.plain && s.text.is_empty())
    }

    fn cost(&self) -> usize {
        size_of::<Self>()
            + match &self.value {
                Value::Scalar(s) => s.text.len(),
                Value::List(items) => items.iter().map(Self::cost).sum(),
                Value::Map(entries) => entries
                    .iter()
                    .map(|e| size_of::<Entry>() + e.key.len() + e.node.cost())
                    .sum(),
            }
    }

    fn height(&self) -> usize {
        match &self.value {
            Value::Scalar(_) => 0,
            Value::List(items) => 1 + items.iter().map(Self::height).max().unwrap_or(0),
            Value::Map(entries) => 1 + entries.iter().map(|e| e.node.height()).max().unwrap_or(0),
        }
    }
}

/// A mapping without keys that nobody wrote.
pub(super) static NOTHING: Node = Node {
    at: Position::NOWHERE,
    value: Value::Map(Vec::new()),
};

/// A mistake in the YAML itself.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub at: Position,
    /// The path of the key where there is one.
    pub path: String,
    pub message: String,
    pub help: String,
}

impl Mistake {
    fn new(at: Position, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            at,
            path: String::new(),
            message: message.into(),
            help: help.into(),
        }
    }
}

/// Reads one document. An empty one is an empty scalar. Keys that are written twice are reported
/// beside the tree, which then holds the first; any other mistake ends the reading.
pub(super) fn tree(text: &str) -> Result<(Node, Vec<Mistake>), Mistake> {
    tree_within(text, LARGEST_FILE)
}

/// [`tree`] of a text of at most `largest` bytes.
pub(crate) fn tree_within(text: &str, largest: usize) -> Result<(Node, Vec<Mistake>), Mistake> {
    if text.len() > largest {
        return Err(Mistake::new(
            Position::START,
            format!("the file has {} bytes", text.len()),
            format!("it may have {largest}"),
        ));
    }
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: DEEPEST,
        block_nesting_limit: DEEPEST,
    };
    let mut builder = Builder::default();
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| syntax(text, &error))?;
        let at = Position {
            line: span.start.line(),
            column: span.start.col() + 1,
        };
        if span.tag_start().is_some() {
            return Err(Mistake::new(
                at,
                "a YAML tag is not supported",
                "remove the word that begins with \"!\"",
            ));
        }
        let event = match event {
            // The parser's word for nothing at all, which is not null here.
            Event::Scalar(word, style, anchor, tag)
                if word == "~" && !span.slice(text).is_some_and(|source| source.contains('~')) =>
            {
                Event::Scalar("".into(), style, anchor, tag)
            }
            event => event,
        };
        builder.event(event, at)?;
    }
    let root = builder.root.unwrap_or_else(|| Node {
        at: Position::START,
        value: Value::Scalar(Scalar {
            text: "".into(),
            plain: true,
            literal: true,
        }),
    });
    Ok((root, builder.twice))
}

fn syntax(text: &str, error: &ScanError) -> Mistake {
    let at = Position {
        line: error.marker().line(),
        column: error.marker().col() + 1,
    };
    let line = text
        .lines()
        .nth(at.line.saturating_sub(1))
        .unwrap_or_default();
    let help = match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => "indent with spaces",
        ErrorKind::UnknownAnchor => "put the value in quotes if it begins with \"*\"",
        ErrorKind::RecursionLimitExceeded => "a configuration needs 6 levels at most",
        _ if line.contains("[::") => "put an IPv6 address in quotes, as in \"[::]:80\"",
        _ if line.contains("${") => {
            "within { } and [ ] put a variable in quotes, as in \"${NAME}\""
        }
        _ => {
            "look for wrong indentation, an open quote or bracket, or a value that needs quotes, here or just above"
        }
    };
    Mistake::new(at, format!("not valid YAML: {}", error.info()), help)
}

#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    /// Finished nodes by the number of their anchor, with what a copy costs.
    anchors: HashMap<usize, (Node, usize)>,
    expanded: usize,
    documents: usize,
    twice: Vec<Mistake>,
}

/// A collection whose end has not been seen.
struct Open {
    at: Position,
    anchor: usize,
    kind: Kind,
}

enum Kind {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// Where each key was first written.
        keys: HashMap<Box<str>, Position>,
        /// The key whose value is next.
        key: Option<(Box<str>, Position)>,
    },
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), Mistake> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Mistake::new(
                        at,
                        "a second document begins here",
                        "one file holds one configuration: remove the line \"---\"",
                    ));
                }
            }
            Event::Scalar(text, style, anchor, _) => {
                let value = Value::Scalar(Scalar {
                    text: text.into(),
                    plain: style == ScalarStyle::Plain,
                    literal: false,
                });
                self.finished(Node { at, value }, anchor)?;
            }
            Event::SequenceStart(_, anchor, _) => {
                self.begin(at, anchor, Kind::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, _) => {
                let kind = Kind::Map {
                    entries: Vec::new(),
                    keys: HashMap::new(),
                    key: None,
                };
                self.begin(at, anchor, kind)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { at, anchor, kind }) = self.open.pop() {
                    let value = match kind {
                        Kind::List(items) => Value::List(items),
                        Kind::Map { entries, .. } => Value::Map(entries),
                    };
                    self.finished(Node { at, value }, anchor)?;
                }
            }
            Event::Alias(anchor) => self.alias(anchor, at)?,
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, at: Position, anchor: usize, kind: Kind) -> Result<(), Mistake> {
        if self.open.len() >= DEEPEST {
            return Err(too_deep(at));
        }
        self.open.push(Open { at, anchor, kind });
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Position) -> Result<(), Mistake> {
        let Some((node, cost)) = self.anchors.get(&anchor) else {
            return Err(Mistake::new(
                at,
                "an alias refers to the value it is part of",
                "write the value out",
            ));
        };
        self.expanded += cost;
        if self.expanded > LARGEST_EXPANSION {
            return Err(Mistake::new(
                at,
                "the aliases of this file multiply it beyond measure",
                "write the values out",
            ));
        }
        if self.open.len() + node.height() > DEEPEST {
            return Err(too_deep(at));
        }
        let node = node.clone();
        self.finished(node, 0)
    }

    fn finished(&mut self, node: Node, anchor: usize) -> Result<(), Mistake> {
        if anchor != 0 {
            let cost = node.cost();
            // The copy kept for later is charged too: anchors on nested values would add up.
            self.expanded += cost;
            if self.expanded > LARGEST_EXPANSION {
                return Err(Mistake::new(
                    node.at,
                    "the anchors of this file hold too much",
                    "remove those that are not used",
                ));
            }
            self.anchors.insert(anchor, (node.clone(), cost));
        }
        let Some((open, outer)) = self.open.split_last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut open.kind {
            Kind::List(items) => items.push(node),
            Kind::Map { entries, keys, key } => match key.take() {
                Some((key, at)) => {
                    // Beside its first, a key written twice is only reported.
                    if keys.get(&key) == Some(&at) {
                        entries.push(Entry { key, at, node });
                    }
                }
                None => {
                    let (name, at) = key_name(node)?;
                    if name.as_ref() == "<<" {
                        return Err(Mistake::new(
                            at,
                            "the YAML merge key \"<<\" is not supported",
                            "write the keys out",
                        ));
                    }
                    match keys.get(&name) {
                        None => {
                            keys.insert(name.clone(), at);
                        }
                        Some(first) => self.twice.push(Mistake {
                            path: path(outer, &name),
                            ..Mistake::new(
                                at,
                                format!("is written twice, first on line {}", first.line),
                                "keep one of the two",
                            )
                        }),
                    }
                    *key = Some((name, at));
                }
            },
        }
        Ok(())
    }
}

/// The path of `name` within what is open.
fn path(open: &[Open], name: &str) -> String {
    let mut path = String::new();
    for outer in open {
        match &outer.kind {
            Kind::List(items) => path.push_str(&format!("[{}]", items.len())),
            Kind::Map { key, .. } => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key.as_ref().map_or_else(String::new, |(key, _)| shown(key)));
            }
        }
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(&shown(name));
    path
}

fn key_name(node: Node) -> Result<(Box<str>, Position), Mistake> {
    let wrong = |message| Err(Mistake::new(node.at, message, "write a name and a colon"));
    match node.value {
        Value::Scalar(Scalar { text, .. }) if text.is_empty() => wrong("a key has no name"),
        Value::Scalar(Scalar { text, .. }) => Ok((text, node.at)),
        _ => wrong("a list or a mapping is no key"),
    }
}

fn too_deep(at: Position) -> Mistake {
    Mistake::new(
        at,
        "collections are nested too deeply",
        "a configuration needs 6 levels at most",
    )
}

#[cfg(test)]
mod tests;
