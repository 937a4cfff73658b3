//! The files, and the one configuration that LiteLLM makes of them.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use crate::config::other_file::{self, LARGEST};
use crate::config::parse::{self, Mistake, Node, Value};
use crate::import::Broken;

use super::tree::Field;

/// Files that `include` names.
const MOST_FILES: usize = 100;

/// A file that was read.
pub(super) struct File {
    /// As it was named.
    pub name: String,
    /// The place in the order of reading.
    pub number: usize,
    root: Node,
}

/// All files: the one that was named, and those that it includes.
pub(super) struct Source {
    files: Vec<File>,
}

/// A key at the top of a file. Lists that several files have under one name are one after the other.
pub(super) struct Section<'a> {
    pub name: &'a str,
    pub parts: Vec<Field<'a>>,
    /// What an included file has put something else in place of.
    pub replaced: Vec<Field<'a>>,
}

impl Source {
    /// Reads the file at `path` and what it includes, each file once.
    ///
    /// # Errors
    /// What cannot be read, and what is no YAML, with file, line, column and repair.
    pub fn read(path: &Path) -> Result<Self, Broken> {
        let base = directory(path);
        let mut files = vec![file(path, 0)?];
        let mut seen = HashSet::from([real(path)]);
        let mut wanted = VecDeque::from(includes(&files[0], &base)?);
        while let Some(include) = wanted.pop_front() {
            let path = include.path(&base);
            if !seen.insert(real(&path)) {
                continue;
            }
            if files.len() > MOST_FILES {
                return Err(include.broken(format!("more than {MOST_FILES} files are included")));
            }
            let included = file(&path, files.len()).map_err(|broken| match &*broken.lines {
                // A mistake within the file has its line there.
                [line] if !line.contains(": cannot be read: ") => broken,
                lines => include.broken(lines.join("; ")),
            })?;
            wanted.extend(includes(&included, &directory(&path))?);
            files.push(included);
        }
        Ok(Self { files })
    }

    pub fn main(&self) -> &File {
        &self.files[0]
    }

    /// The keys at the top, in the order of the files: an included list goes on where the first
    /// ends, any other value takes the place of the first.
    pub fn sections(&self) -> Vec<Section<'_>> {
        let mut sections: Vec<Section<'_>> = Vec::new();
        let fields = self.files.iter().flat_map(|file| file.root().entries());
        for field in fields {
            let known = sections.iter_mut().find(|s| s.name == field.key);
            match known {
                None => sections.push(Section {
                    name: field.key,
                    parts: vec![field],
                    replaced: Vec::new(),
                }),
                // The files are named one after the other: nothing is replaced.
                Some(section) if field.key == "include" => section.parts.push(field),
                Some(section) => {
                    let is_list = |field: &Field<'_>| matches!(field.node.value, Value::List(_));
                    if !(is_list(&field) && section.parts.iter().all(is_list)) {
                        section.replaced.append(&mut section.parts);
                    }
                    section.parts.push(field);
                }
            }
        }
        sections
    }
}

impl File {
    pub fn root(&self) -> Field<'_> {
        Field {
            file: self,
            at: self.root.at,
            path: String::new(),
            key: "",
            node: &self.root,
        }
    }
}

/// A file that another one names.
struct Include {
    name: String,
    /// Where it is named.
    at: String,
    /// Of the file that names it.
    directory: PathBuf,
}

impl Include {
    /// Beside the file that names it, else beside the first.
    fn path(&self, base: &Path) -> PathBuf {
        let beside = self.directory.join(&self.name);
        if beside.exists() {
            beside
        } else {
            base.join(&self.name)
        }
    }

    fn broken(&self, what: impl std::fmt::Display) -> Broken {
        Broken::one(format!("{}: include: {what}", self.at))
    }
}

fn includes(file: &File, directory: &Path) -> Result<Vec<Include>, Broken> {
    let Some(field) = file.root().get("include") else {
        return Ok(Vec::new());
    };
    let form = || {
        let at = field.place();
        Broken::one(format!(
            "{at}: include: is no list of files; write include: [models.yaml]"
        ))
    };
    let Value::List(_) = field.node.value else {
        return Err(form());
    };
    (field.items().iter())
        .map(|item| {
            let Value::Scalar(name) = &item.node.value else {
                return Err(form());
            };
            Ok(Include {
                name: name.text.to_string(),
                at: item.place(),
                directory: directory.to_owned(),
            })
        })
        .collect()
}

fn directory(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn file(path: &Path, number: usize) -> Result<File, Broken> {
    let name = path.display().to_string();
    let read = other_file::read(path).and_then(|file| {
        String::from_utf8(file.bytes)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
    });
    let text = read.map_err(|error| Broken::one(format!("{name}: cannot be read: {error}")))?;
    let (root, twice) = match parse::tree_within(&text, LARGEST) {
        Ok(read) => read,
        Err(mistake) => {
            let help = repair(&text, &mistake);
            return Err(Broken::one(line(&name, &Mistake { help, ..mistake })));
        }
    };
    if !twice.is_empty() {
        let lines = twice.iter().map(|mistake| line(&name, mistake)).collect();
        return Err(Broken { lines });
    }
    if !matches!(root.value, Value::Map(_)) {
        return Err(Broken::one(format!(
            "{name}: is no configuration of LiteLLM; name its config.yaml, which has a model_list"
        )));
    }
    Ok(File { name, number, root })
}

fn line(name: &str, mistake: &Mistake) -> String {
    let Mistake {
        at,
        path,
        message,
        help,
    } = mistake;
    let path = match path.as_str() {
        "" => String::new(),
        path => format!("{path}: "),
    };
    format!("{name}:{}:{}: {path}{message}; {help}", at.line, at.column)
}

/// What to do about text that is no YAML. That a key is indented further than its neighbour above
/// is what happens to files that are copied from a web page.
fn repair(text: &str, mistake: &Mistake) -> String {
    let lines: Vec<&str> = text.lines().take(mistake.at.line).collect();
    let written = |line: &&&str| !matches!(line.trim_start().chars().next(), None | Some('#'));
    let mut above = lines.iter().rev().filter(written);
    let (Some(line), Some(neighbour)) = (above.next(), above.next()) else {
        return mistake.help.clone();
    };
    let spaces = indentation(line);
    let key = line[spaces..].split(':').next().unwrap_or_default();
    // A list's item begins where its key does, after the dash.
    let mut column = indentation(neighbour);
    while let Some(item) = neighbour[column..].strip_prefix("- ") {
        column += 2 + indentation(item);
    }
    let is_name =
        |text: &str| !text.is_empty() && text.chars().all(|c| c == '_' || c.is_alphanumeric());
    let Some((other, value)) = neighbour[column..].split_once(':') else {
        return mistake.help.clone();
    };
    if !is_name(other) || !is_name(key) || value.trim().is_empty() || spaces <= column {
        return mistake.help.clone();
    }
    // Where a key without a value stands above the neighbour, it is the neighbour's section.
    let section = above.next().and_then(|line| {
        let name = line.trim_end().strip_suffix(':')?;
        (indentation(name) == column && is_name(&name[column..])).then(|| &name[column..])
    });
    match section {
        Some(section) => format!(
            "begin {other} with {spaces} spaces, as {key} below it, in place of {column}: both are settings of {section}"
        ),
        None => {
            format!("begin {key} with {column} spaces, as {other} above it, in place of {spaces}")
        }
    }
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}
