//! Files as a tree of directives, includes put in where they stand.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::lexer::{Fault, Kind, Lexer};

/// Of all files together.
const LARGEST: usize = 8 << 20;
const MOST_FILES: usize = 1000;
const MOST_DIRECTIVES: usize = 50_000;
/// Blocks within blocks; a location within a location within a server has 4.
const DEEPEST_BLOCK: usize = 20;
/// Files that include files.
const DEEPEST_INCLUDE: usize = 16;

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

/// An include that added nothing.
pub(super) struct Missed {
    pub include: Directive,
    pub why: &'static str,
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
    let directives = files.parse(&name, &text, 0)?;
    Ok(Tree {
        directives,
        missed: files.missed,
    })
}

struct Files {
    base: PathBuf,
    /// The files that are being read, the outermost first.
    open: Vec<PathBuf>,
    /// Bytes that may still be read.
    left: usize,
    files: usize,
    directives: usize,
    missed: Vec<Missed>,
}

/// A block that is not closed yet.
struct Unclosed {
    head: Option<Directive>,
    inside: Vec<Directive>,
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
                    "include: {} cannot be read: {e}; copy it to where it is looked for, or remove the line",
                    path.display()
                )),
            })?;
        if text.len() > self.left {
            let most = LARGEST >> 20;
            return Err(fault(format!("more than {most} MiB of configuration")));
        }
        self.left -= text.len();
        Ok(text)
    }

    fn parse(
        &mut self,
        file: &Rc<str>,
        text: &[u8],
        depth: usize,
    ) -> Result<Vec<Directive>, Unreadable> {
        let mut lexer = Lexer::new(text);
        let place = |line| Place {
            file: Rc::clone(file),
            line,
        };
        let unreadable = |fault: Fault| Unreadable {
            at: place(fault.line),
            what: fault.what,
        };
        let mut blocks = vec![Unclosed {
            head: None,
            inside: Vec::new(),
        }];
        let mut words: Vec<String> = Vec::new();
        let mut line = 0;
        loop {
            let token = lexer.next().map_err(unreadable)?;
            let wrong = |what: String| Err(unreadable(Fault::new(token.line, what)));
            match token.kind {
                Kind::Word(word) => {
                    if words.is_empty() {
                        line = token.line;
                    }
                    words.push(word);
                }
                Kind::Semicolon => {
                    if words.is_empty() {
                        return wrong("unexpected \";\"; remove it".to_owned());
                    }
                    let directive = self.directive(place(line), &mut words)?;
                    if directive.name == "include" {
                        let included = self.include(&directive, depth + blocks.len() - 1)?;
                        top(&mut blocks).extend(included);
                    } else {
                        top(&mut blocks).push(directive);
                    }
                }
                Kind::Open => {
                    if words.is_empty() {
                        return wrong("unexpected \"{\"; write what block it is".to_owned());
                    }
                    if words
                        .first()
                        .is_some_and(|name| name.ends_with("_by_lua_block"))
                    {
                        let what = "a block of Lua is not read; move it to a file, and name that (…_by_lua_file)";
                        return wrong(what.to_owned());
                    }
                    if depth + blocks.len() > DEEPEST_BLOCK {
                        return wrong(format!("blocks are nested more than {DEEPEST_BLOCK} deep"));
                    }
                    let head = self.directive(place(line), &mut words)?;
                    blocks.push(Unclosed {
                        head: Some(head),
                        inside: Vec::new(),
                    });
                }
                Kind::Close => {
                    if let Some(name) = words.first() {
                        let what = format!(
                            "unexpected \"}}\": {} of line {line} is not ended; write \";\" after it",
                            quoted(name)
                        );
                        return wrong(what);
                    }
                    let closed = blocks.pop();
                    let Some(Unclosed {
                        head: Some(mut head),
                        inside,
                    }) = closed
                    else {
                        return wrong(
                            "unexpected \"}\": no block is open here; remove it".to_owned(),
                        );
                    };
                    head.block = Some(inside);
                    top(&mut blocks).push(head);
                }
                Kind::End => {
                    if let Some(name) = words.first() {
                        let what = format!(
                            "unexpected end of file: {} of line {line} is not ended; write \";\" after it",
                            quoted(name)
                        );
                        return wrong(what);
                    }
                    let last = blocks.pop();
                    let Some(Unclosed { head, inside }) = last else {
                        return Ok(Vec::new());
                    };
                    return match head {
                        None => Ok(inside),
                        Some(head) => wrong(format!(
                            "unexpected end of file: the block {} of line {} is not closed; write \"}}\"",
                            quoted(&head.name),
                            head.at.line
                        )),
                    };
                }
            }
        }
    }

    fn directive(&mut self, at: Place, words: &mut Vec<String>) -> Result<Directive, Unreadable> {
        self.directives += 1;
        if self.directives > MOST_DIRECTIVES {
            let what = format!("more than {MOST_DIRECTIVES} directives");
            return Err(Unreadable { at, what });
        }
        let mut words = std::mem::take(words).into_iter();
        Ok(Directive {
            at,
            number: self.directives,
            name: words.next().unwrap_or_default(),
            args: words.collect(),
            block: None,
        })
    }

    /// What an include puts in its place. `depth` is that of its block.
    fn include(&mut self, include: &Directive, depth: usize) -> Result<Vec<Directive>, Unreadable> {
        let fault = |what: String| {
            Err(Unreadable {
                at: include.at.clone(),
                what,
            })
        };
        let [pattern] = include.args.as_slice() else {
            return fault("include: name one file, or a pattern with \"*\"".to_owned());
        };
        if self.open.len() >= DEEPEST_INCLUDE {
            return fault(format!(
                "include: files include each other more than {DEEPEST_INCLUDE} deep"
            ));
        }
        let path = self.base.join(pattern);
        let paths = if pattern.contains(['*', '?', '[']) {
            match matching(&path) {
                Ok(paths) => paths,
                Err(what) => return fault(format!("include: {what}")),
            }
        } else if !path.exists() && path.ends_with("mime.types") {
            self.missed.push(Missed {
                include: include.clone(),
                why: "not carried: the gateway sends no files, and needs no types of them",
            });
            return Ok(Vec::new());
        } else {
            vec![path]
        };
        if paths.is_empty() {
            self.missed.push(Missed {
                include: include.clone(),
                why: "no file has such a name: nothing was included",
            });
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
        let fault = |what: String| {
            Err(Unreadable {
                at: include.at.clone(),
                what,
            })
        };
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
        let directives = self.parse(&Rc::from(shown), &text, depth);
        self.open.pop();
        directives
    }
}

fn top(blocks: &mut [Unclosed]) -> &mut Vec<Directive> {
    // The outermost is closed by the end of the file alone.
    &mut blocks.last_mut().expect("a block is open").inside
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

/// Text from a file, short and on one line.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
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
