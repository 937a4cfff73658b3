//! One file's words and signs as directives and blocks.

use std::rc::Rc;

use super::files::{Files, Unreadable};
use super::lexer::{Fault, Kind, Lexer};
use super::tree::{Directive, Place, quoted};

/// Blocks within blocks; a location within a location within a server has 4.
const DEEPEST_BLOCK: usize = 20;

/// Reads a file that stands within `depth` blocks.
pub(super) fn parse(
    files: &mut Files,
    file: &Rc<str>,
    text: &[u8],
    depth: usize,
) -> Result<Vec<Directive>, Unreadable> {
    let unreadable = |fault: Fault| Unreadable {
        at: Place {
            file: Rc::clone(file),
            line: fault.line,
        },
        what: fault.what,
    };
    let mut parser = Parser {
        files,
        file,
        depth,
        outermost: Vec::new(),
        open: Vec::new(),
        words: Vec::new(),
        line: 0,
    };
    let mut lexer = Lexer::new(text);
    loop {
        let token = lexer.next().map_err(unreadable)?;
        let fault = |what| unreadable(Fault::new(token.line, what));
        match token.kind {
            Kind::Word(word) => parser.word(word, token.line),
            Kind::Semicolon => {
                parser.refuse_nothing("\";\"; remove it").map_err(fault)?;
                parser.end_directive()?;
            }
            Kind::Open => {
                parser
                    .refuse_nothing("\"{\"; write what block it is")
                    .map_err(fault)?;
                parser.refuse_block().map_err(fault)?;
                parser.open_block()?;
            }
            Kind::Close => {
                parser.refuse_unended("\"}\"").map_err(fault)?;
                parser.close_block().map_err(fault)?;
            }
            Kind::End => {
                parser.refuse_unended("end of file").map_err(fault)?;
                return parser.end().map_err(fault);
            }
        }
    }
}

struct Parser<'a> {
    files: &'a mut Files,
    file: &'a Rc<str>,
    depth: usize,
    /// What is in no block of this file.
    outermost: Vec<Directive>,
    /// The blocks that are not closed yet, with what they hold so far.
    open: Vec<(Directive, Vec<Directive>)>,
    /// Of the directive that is not ended yet.
    words: Vec<String>,
    /// Where it begins.
    line: usize,
}

impl Parser<'_> {
    fn word(&mut self, word: String, line: usize) {
        if self.words.is_empty() {
            self.line = line;
        }
        self.words.push(word);
    }

    fn end_directive(&mut self) -> Result<(), Unreadable> {
        let directive = self.directive()?;
        if directive.name == "include" {
            let included = self
                .files
                .include(&directive, self.depth + self.open.len())?;
            self.here().extend(included);
        } else {
            self.here().push(directive);
        }
        Ok(())
    }

    fn open_block(&mut self) -> Result<(), Unreadable> {
        let head = self.directive()?;
        self.open.push((head, Vec::new()));
        Ok(())
    }

    fn close_block(&mut self) -> Result<(), String> {
        let Some((mut head, inside)) = self.open.pop() else {
            return Err("unexpected \"}\": no block is open here; remove it".to_owned());
        };
        head.block = Some(inside);
        self.here().push(head);
        Ok(())
    }

    fn end(self) -> Result<Vec<Directive>, String> {
        match self.open.last() {
            None => Ok(self.outermost),
            Some((head, _)) => Err(format!(
                "unexpected end of file: the block {} of line {} is not closed; write \"}}\"",
                quoted(&head.name),
                head.at.line
            )),
        }
    }

    fn directive(&mut self) -> Result<Directive, Unreadable> {
        let at = Place {
            file: Rc::clone(self.file),
            line: self.line,
        };
        self.files.directive(at, std::mem::take(&mut self.words))
    }

    /// What the innermost open block holds so far.
    fn here(&mut self) -> &mut Vec<Directive> {
        match self.open.last_mut() {
            Some((_, inside)) => inside,
            None => &mut self.outermost,
        }
    }

    fn refuse_nothing(&self, sign: &str) -> Result<(), String> {
        if self.words.is_empty() {
            return Err(format!("unexpected {sign}"));
        }
        Ok(())
    }

    fn refuse_unended(&self, sign: &str) -> Result<(), String> {
        match self.words.first() {
            None => Ok(()),
            Some(name) => Err(format!(
                "unexpected {sign}: {} of line {} is not ended; write \";\" after it",
                quoted(name),
                self.line
            )),
        }
    }

    fn refuse_block(&self) -> Result<(), String> {
        let name = self.words.first().map_or("", String::as_str);
        if name.ends_with("_by_lua_block") {
            return Err(
                "a block of Lua is not read; move it to a file, and name that (…_by_lua_file)"
                    .to_owned(),
            );
        }
        if self.depth + self.open.len() >= DEEPEST_BLOCK {
            return Err(format!("blocks are nested more than {DEEPEST_BLOCK} deep"));
        }
        Ok(())
    }
}
