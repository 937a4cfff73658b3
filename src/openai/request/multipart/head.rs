//! The Content-Type of a form, and the head of each of its parts.

use super::super::fault::BodyFault;

/// What the head of a part says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub name: &'a [u8],
    /// It is no file, and its data stands as it is.
    pub is_plain: bool,
}

/// The boundary that a Content-Type names (RFC 2046 §5.1.1); `None` where it is no form's.
pub(super) fn boundary(content_type: &[u8]) -> Option<Result<&[u8], BodyFault>> {
    let (kind, parameters) = split_at(content_type, b';');
    if !kind
        .trim_ascii()
        .eq_ignore_ascii_case(b"multipart/form-data")
    {
        return None;
    }
    Some(boundary_of(parameters).map_err(|problem| BodyFault::Boundary { problem }))
}

fn boundary_of(parameters: &[u8]) -> Result<&[u8], &'static str> {
    let mut boundary = None;
    for parameter in Parameters(parameters) {
        let Parameter { name, value } = parameter?;
        if name.eq_ignore_ascii_case(b"boundary") {
            if boundary.replace(value).is_some() {
                return Err("it names two boundaries: name one");
            }
        } else if starts_with(name, b"boundary*") {
            return Err("write the boundary as boundary=…, without `*`");
        }
    }
    let boundary = boundary.ok_or("it names no boundary: add boundary=…")?;
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    if !(1..=70).contains(&boundary.len())
        || boundary.ends_with(b" ")
        || !boundary.iter().all(is_allowed)
    {
        return Err("the boundary must be 1 to 70 letters, digits and '()+_,-./:=?");
    }
    Ok(boundary)
}

/// Reads a part's head, its empty line included.
pub(super) fn part(head: &[u8]) -> Result<Part<'_>, &'static str> {
    let mut disposition = None;
    let mut is_encoded = false;
    let mut rest = head;
    while rest != b"\r\n" {
        let (line, after) = line(rest).ok_or("a line of a part's head is not ended by CRLF")?;
        rest = after;
        let (name, value) = split_at(line, b':');
        if name.len() == line.len() || name.is_empty() || !name.iter().all(is_token) {
            return Err("a line of a part's head is no field: write it as `Name: value`");
        }
        if name.eq_ignore_ascii_case(b"content-disposition") {
            if disposition.replace(value).is_some() {
                return Err("a part has two Content-Disposition fields: send one");
            }
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            let identities: [&[u8]; 3] = [b"7bit", b"8bit", b"binary"];
            let value = value.trim_ascii();
            is_encoded |= !identities
                .iter()
                .any(|known| value.eq_ignore_ascii_case(known));
        }
    }
    let disposition = disposition.ok_or("a part has no Content-Disposition: name it there")?;
    let (kind, parameters) = split_at(disposition, b';');
    if !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
        return Err("the Content-Disposition of a part must be form-data");
    }
    let (name, is_file) = name_of(parameters)?;
    Ok(Part {
        name,
        is_plain: !is_file && !is_encoded,
    })
}

fn name_of(parameters: &[u8]) -> Result<(&[u8], bool), &'static str> {
    let mut found = None;
    let mut is_file = false;
    for parameter in Parameters(parameters) {
        let Parameter { name, value } = parameter?;
        if name.eq_ignore_ascii_case(b"name") {
            if found.replace(value).is_some() {
                return Err("a part has two names: give it one");
            }
        } else if starts_with(name, b"name*") {
            return Err("write a part's name as name=\"…\", without `*`");
        } else if name.eq_ignore_ascii_case(b"filename") || starts_with(name, b"filename*") {
            is_file = true;
        }
    }
    let name = found.ok_or("a part has no name: add name=\"…\" to its Content-Disposition")?;
    if name.contains(&b'\\') {
        return Err("a part's name has a backslash, which readers take in two ways: leave it out");
    }
    Ok((name, is_file))
}

fn starts_with(name: &[u8], beginning: &[u8]) -> bool {
    let start = name.get(..beginning.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(beginning))
}

/// The first line, without its CRLF, and the rest; `None` where it has another control character.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes
        .iter()
        .position(|&byte| byte < b' ' && byte != b'\t')?;
    let rest = bytes[end..].strip_prefix(b"\r\n")?;
    Some((&bytes[..end], rest))
}

/// What is before and behind the first `byte`; without one all is before.
fn split_at(bytes: &[u8], byte: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|&other| other == byte) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, b""),
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// A value is as it stands between its quotes, if it has some.
struct Parameter<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

/// The parameters that a field's value goes on with behind its first `;` (RFC 9110 §5.6.6).
struct Parameters<'a>(&'a [u8]);

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<Parameter<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_between = |byte: &u8| matches!(byte, b' ' | b'\t' | b';');
        let start = self.0.iter().position(|byte| !is_between(byte))?;
        let outcome = parameter(&self.0[start..]);
        self.0 = outcome.as_ref().map_or(b"", |(_, rest)| rest);
        Some(outcome.map(|(parameter, _)| parameter))
    }
}

/// The first parameter, and what is behind it.
fn parameter(bytes: &[u8]) -> Result<(Parameter<'_>, &[u8]), &'static str> {
    const FORM: &str = "write parameters as name=value or name=\"value\", with `;` between them";
    let (name, rest) = split_at(bytes, b'=');
    if name.len() == bytes.len() || name.is_empty() || !name.iter().all(is_token) {
        return Err(FORM);
    }
    let (value, rest) = match rest.strip_prefix(b"\"") {
        None => {
            let end = rest.iter().position(|byte| !is_token(byte));
            let (value, rest) = rest.split_at(end.unwrap_or(rest.len()));
            if value.is_empty() {
                return Err(FORM);
            }
            (value, rest)
        }
        Some(quoted) => {
            let end = quoted.iter().position(|&byte| byte == b'"').ok_or(FORM)?;
            let value = &quoted[..end];
            let backslashes = value
                .iter()
                .rev()
                .take_while(|&&byte| byte == b'\\')
                .count();
            if backslashes % 2 == 1 {
                return Err("a quote behind a backslash is taken in two ways: write it as %22");
            }
            (value, &quoted[end + 1..])
        }
    };
    let rest = rest.trim_ascii_start();
    if !rest.is_empty() && !rest.starts_with(b";") {
        return Err(FORM);
    }
    Ok((Parameter { name, value }, rest))
}
