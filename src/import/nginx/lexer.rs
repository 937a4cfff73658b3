//! Words, `;`, `{` and `}` of a file, by nginx' own rules (`ngx_conf_read_token`).
//!
//! A word is bare or in single or double quotes. A backslash takes the meaning from the next
//! character; before a quote or a backslash it is left out, `\t`, `\r` and `\n` are the characters
//! they stand for, and before anything else it stays. `#` begins a comment only where a word could
//! begin, and a bare word ends at a blank, `;` or `{`, but not at the `{` of `${name}`.

/// nginx reads a file through a buffer of this size, and a word must fit in it.
const LONGEST_WORD: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: Kind,
    /// Where it begins, from 1.
    pub line: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Word(String),
    Semicolon,
    Open,
    Close,
    End,
}

/// What is wrong with a file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub line: usize,
    pub what: String,
}

impl Fault {
    pub fn new(line: usize, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
        }
    }
}

pub(super) struct Lexer<'a> {
    rest: &'a [u8],
    line: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            // A byte order mark, which editors leave and nginx trips over.
            rest: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text),
            line: 1,
        }
    }

    /// The next token; after the last, [`Kind::End`] for ever.
    pub fn next(&mut self) -> Result<Token, Fault> {
        self.skip_blanks_and_comments();
        let line = self.line;
        let kind = match self.rest.first() {
            None => Kind::End,
            Some(b';') => self.sign(Kind::Semicolon),
            Some(b'{') => self.sign(Kind::Open),
            Some(b'}') => self.sign(Kind::Close),
            Some(quote @ (b'"' | b'\'')) => {
                let quote = *quote;
                Kind::Word(self.quoted(quote)?)
            }
            Some(_) => Kind::Word(self.bare()?),
        };
        Ok(Token { kind, line })
    }

    fn sign(&mut self, kind: Kind) -> Kind {
        self.take();
        kind
    }

    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        if *first == b'\n' {
            self.line += 1;
        }
        Some(*first)
    }

    fn skip_blanks_and_comments(&mut self) {
        while let Some(byte) = self.rest.first() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    self.take();
                }
                b'#' => {
                    let end = memchr::memchr(b'\n', self.rest).unwrap_or(self.rest.len());
                    self.rest = &self.rest[end..];
                }
                _ => return,
            }
        }
    }

    fn quoted(&mut self, quote: u8) -> Result<String, Fault> {
        let begun = self.line;
        self.take();
        let mut raw = Vec::new();
        loop {
            match self.take() {
                None => {
                    let quote = char::from(quote);
                    let what = format!("the {quote} that begins here is never closed; close it");
                    return Err(Fault::new(begun, what));
                }
                Some(b'\\') => self.escaped(&mut raw),
                Some(byte) if byte == quote => break,
                Some(byte) => raw.push(byte),
            }
            fits(&raw, begun)?;
        }
        // nginx takes a `)` for `if ("$a")`.
        if let Some(next) = self.rest.first()
            && !matches!(next, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b')')
        {
            let next = char::from(*next).escape_default();
            let what = format!(
                "\"{next}\" follows a closing quote; write a blank or \";\" between them, or \\ before a quote that belongs to the value"
            );
            return Err(Fault::new(self.line, what));
        }
        text(raw, begun)
    }

    fn bare(&mut self) -> Result<String, Fault> {
        let begun = self.line;
        let mut raw = Vec::new();
        let mut after_dollar = false;
        while let Some(byte) = self.rest.first().copied() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' => break,
                b'{' if !after_dollar => break,
                _ => {}
            }
            self.take();
            if byte == b'\\' {
                self.escaped(&mut raw);
            } else {
                raw.push(byte);
            }
            after_dollar = byte == b'$';
            fits(&raw, begun)?;
        }
        text(raw, begun)
    }

    /// What stands after a backslash, with or without it.
    fn escaped(&mut self, raw: &mut Vec<u8>) {
        match self.take() {
            None => raw.push(b'\\'),
            Some(byte @ (b'"' | b'\'' | b'\\')) => raw.push(byte),
            Some(b't') => raw.push(b'\t'),
            Some(b'r') => raw.push(b'\r'),
            Some(b'n') => raw.push(b'\n'),
            Some(byte) => raw.extend([b'\\', byte]),
        }
    }
}

fn fits(raw: &[u8], line: usize) -> Result<(), Fault> {
    if raw.len() < LONGEST_WORD {
        return Ok(());
    }
    let what = format!("a word of more than {LONGEST_WORD} bytes begins here; is a quote missing?");
    Err(Fault::new(line, what))
}

fn text(raw: Vec<u8>, line: usize) -> Result<String, Fault> {
    if raw.contains(&0) {
        let what = "a NUL byte: this is not a text file; name the nginx.conf";
        return Err(Fault::new(line, what));
    }
    String::from_utf8(raw).map_err(|_| Fault::new(line, "is not UTF-8; save the file as UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<Kind>, Fault> {
        let mut lexer = Lexer::new(text.as_bytes());
        let mut kinds = Vec::new();
        loop {
            match lexer.next()?.kind {
                Kind::End => return Ok(kinds),
                kind => kinds.push(kind),
            }
        }
    }

    fn words(text: &str) -> Vec<String> {
        let kinds = all(text).unwrap();
        let word = |kind| match kind {
            Kind::Word(word) => Some(word),
            _ => None,
        };
        kinds.into_iter().filter_map(word).collect()
    }

    #[test]
    fn words_end_where_nginx_ends_them() {
        for (text, expected) in [
            ("a b;c{d}", &["a", "b", "c", "d}"][..]),
            ("a#b c # d\ne", &["a#b", "c", "e"]),
            ("\"a b\" 'c;d{e}' \"\"", &["a b", "c;d{e}", ""]),
            (r#"a"b"c"#, &[r#"a"b"c"#]),
            (r#""a\"b" 'c\'d' e\ f"#, &["a\"b", "c'd", r"e\ f"]),
            (r"a\;b \{ '\n\t\x'", &[r"a\;b", r"\{", "\n\t\\x"]),
            ("$a ${b}c x${d}{", &["$a", "${b}c", "x${d}"]),
            ("('a')", &["('a')"]),
            ("\"a\") b", &["a", ")", "b"]),
            ("\u{feff}a", &["a"]),
            ("ä \u{2603}", &["ä", "\u{2603}"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn signs_stand_by_themselves() {
        use Kind::{Close, Open, Semicolon};
        assert_eq!(all(" ;{ }"), Ok(vec![Semicolon, Open, Close]));
        assert_eq!(all(""), Ok(vec![]));
        assert_eq!(all("# only this"), Ok(vec![]));
    }

    #[test]
    fn lines_are_counted_through_quotes_and_comments() {
        let mut lexer = Lexer::new(b"# one\n'two\nthree' four\r\nfive");
        let mut lines = Vec::new();
        loop {
            let token = lexer.next().unwrap();
            lines.push(token.line);
            if token.kind == Kind::End {
                break;
            }
        }
        assert_eq!(lines, [2, 3, 4, 4]);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (text, line, part) in [
            ("a\n\"b\nc", 2, "never closed"),
            ("a 'b'c;", 1, "closing quote"),
            ("a\n\0;", 2, "NUL"),
        ] {
            let fault = all(text).unwrap_err();
            assert_eq!(fault.line, line, "{text}");
            assert!(fault.what.contains(part), "{fault:?}");
        }
        let long = "x".repeat(LONGEST_WORD);
        assert!(all(&long).unwrap_err().what.contains("4096"));
        assert!(all(&long[1..]).is_ok());
        let mut lexer = Lexer::new(b"a \xff;");
        lexer.next().unwrap();
        assert!(lexer.next().unwrap_err().what.contains("UTF-8"));
        // Latin-1 in a comment hurts nobody.
        assert_eq!(
            Lexer::new(b"# \xe4\n").next().map(|t| t.kind),
            Ok(Kind::End)
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_come_to_an_end(bytes in proptest::collection::vec(0_u8..=255, 0..300)) {
            let mut lexer = Lexer::new(&bytes);
            let ended = (0..=bytes.len() + 1).any(|_| {
                matches!(lexer.next(), Ok(Token { kind: Kind::End, .. }) | Err(_))
            });
            proptest::prop_assert!(ended, "more tokens than bytes");
        }

        #[test]
        fn a_quoted_word_reads_back(word in "[^\0]{0,40}") {
            let escaped = word.replace('\\', "\\\\").replace('"', "\\\"");
            proptest::prop_assert_eq!(words(&format!("\"{escaped}\"")), vec![word]);
        }
    }
}
