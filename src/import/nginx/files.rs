//! The files of a configuration: what is read, and what an include puts in its place.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::parser::parse;
use super::tree::{Directive, Place, quoted};

/// Of all files together.
const LARGEST: usize = 8 << 20;
const MOST_FILES: usize = 1000;
const MOST_DIRECTIVES: usize = 50_000;
/// Files that include files.
const DEEPEST_INCLUDE: usize = 16;

/// An include that added nothing.
pub(super) struct Missed {
    pub include: Directive,
    pub why: String,
    /// Whether what is looked for may be missing.
    pub is_needless: bool,
}

/// What could be read.
pub(super) struct Tree {
    pub directives: Vec<Directive>,
    pub missed: Vec<Missed>,
}

/// Why a file cannot be read.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub at: Place,
    pub what: String,
}

impl Unreadable {
    fn of(directive: &Directive, what: String) -> Self {
        Self {
            at: directive.at.clone(),
            what,
        }
    }
}

/// Reads the file at `path` and all that it includes. Relative includes begin at its directory,
/// also those of included files (nginx: at the prefix, where its nginx.conf is).
pub(super) fn read(path: &Path) -> Result<Tree, Unreadable> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut files = Files {
        base: path.parent().unwrap_or(Path::new("")).to_owned(),
        open: Vec::new(),
        left: LARGEST,
        files: 0,
        directives: 0,
        missed: Vec::new(),
    };
    let name = Rc::from(path.display().to_string());
    let nowhere = Place {
        file: Rc::clone(&name),
        line: 0,
    };
    let text = files.text(path, &nowhere)?;
    files.open.push(absolute.canonicalize().unwrap_or(absolute));
    let directives = parse(&mut files, &name, &text, 0)?;
    Ok(Tree {
        directives,
        missed: files.missed,
    })
}

pub(super) struct Files {
    base: PathBuf,
    /// The files that are being read, the outermost first.
    open: Vec<PathBuf>,
    /// Bytes that may still be read.
    left: usize,
    files: usize,
    directives: usize,
    missed: Vec<Missed>,
}

impl Files {
    /// The text of a file; `at` is blamed where it cannot be read.
    fn text(&mut self, path: &Path, at: &Place) -> Result<Vec<u8>, Unreadable> {
        let fault = |what: String| Unreadable {
            at: at.clone(),
            what,
        };
        self.files += 1;
        if self.files > MOST_FILES {
            return Err(fault(format!("more than {MOST_FILES} files are included")));
        }
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| {
                // One more than is allowed, so that a device or a huge file ends too.
                file.take(self.left as u64 + 1).read_to_end(&mut text)
            })
            .map_err(|e| match at.line {
                0 => fault(format!("cannot be read: {e}")),
                _ => fault(format!(
                    "include: {} cannot be read: {e}; copy it to where it is looked for, {}, or remove the line",
                    path.display(),
                    directory_of(path).display()
                )),
            })?;
        if text.len() > self.left {
            let most = LARGEST >> 20;
            return Err(fault(format!("more than {most} MiB of configuration")));
        }
        self.left -= text.len();
        Ok(text)
    }

    /// One more directive, made of these words.
    pub fn directive(&mut self, at: Place, words: Vec<String>) -> Result<Directive, Unreadable> {
        self.directives += 1;
        if self.directives > MOST_DIRECTIVES {
            let what = format!("more than {MOST_DIRECTIVES} directives");
            return Err(Unreadable { at, what });
        }
        let mut words = words.into_iter();
        Ok(Directive {
            at,
            number: self.directives,
            name: words.next().unwrap_or_default(),
            args: words.collect(),
            block: None,
        })
    }

    /// What an include puts in its place. `depth` is that of its block.
    pub fn include(
        &mut self,
        include: &Directive,
        depth: usize,
    ) -> Result<Vec<Directive>, Unreadable> {
        let fault = |what: String| Err(Unreadable::of(include, what));
        let [pattern] = include.args.as_slice() else {
            return fault("include: name one file, or a pattern with \"*\"".to_owned());
        };
        if self.open.len() >= DEEPEST_INCLUDE {
            return fault(format!(
                "include: files include each other more than {DEEPEST_INCLUDE} deep"
            ));
        }
        let path = self.base.join(pattern);
        let mut paths = Vec::new();
        if pattern.contains(['*', '?', '[']) {
            match matching(&path) {
                Ok(found) => paths = found,
                Err(what) => return fault(format!("include: {what}")),
            }
            if paths.is_empty() {
                self.missed.push(Missed {
                    include: include.clone(),
                    why: nothing_there(&path, pattern),
                    is_needless: false,
                });
            }
        } else if !path.exists() && path.ends_with("mime.types") {
            self.missed.push(Missed {
                include: include.clone(),
                why: "not carried: the gateway sends no files, and needs no types of them"
                    .to_owned(),
                is_needless: true,
            });
            return Ok(Vec::new());
        } else {
            paths.push(path);
        }
        let mut included = Vec::new();
        for path in paths {
            included.extend(self.included(include, &path, depth)?);
        }
        Ok(included)
    }

    fn included(
        &mut self,
        include: &Directive,
        path: &Path,
        depth: usize,
    ) -> Result<Vec<Directive>, Unreadable> {
        let fault = |what: String| Err(Unreadable::of(include, what));
        let shown = path.display().to_string();
        // A device or a pipe could hold us up for ever.
        if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
            return fault(format!("include: {shown} is not a file"));
        }
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if self.open.contains(&real) {
            return fault(format!(
                "include: {shown} includes itself, by itself or through others"
            ));
        }
        let text = self.text(path, &include.at)?;
        self.open.push(real);
        let directives = parse(self, &Rc::from(shown), &text, depth);
        self.open.pop();
        directives
    }
}

/// Where a file is looked for.
fn directory_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).to_owned()
}

/// Why a pattern has no files: where they were looked for.
fn nothing_there(path: &Path, pattern: &str) -> String {
    let is_pattern = |part: &Path| part.to_string_lossy().contains(['*', '?', '[']);
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let directory = absolute.ancestors().find(|part| !is_pattern(part));
    let directory = directory.unwrap_or(Path::new("/"));
    let is_there = if directory.is_dir() {
        ""
    } else {
        ", which is not there"
    };
    format!(
        "no file matches {}; looked for in {}{is_there}: nothing was included",
        quoted(pattern),
        directory.display().to_string().escape_debug()
    )
}

/// The files a pattern names, in the order of their names (glob(3)).
fn matching(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let shown = pattern.display();
    let paths = glob::glob_with(&pattern.to_string_lossy(), options)
        .map_err(|e| format!("{shown} is no pattern: {e}"))?;
    let mut found = Vec::new();
    for path in paths.take(MOST_FILES + 1) {
        found.push(path.map_err(|e| format!("{shown} cannot be looked up: {e}"))?);
    }
    Ok(found)
}
