//! What holds for every form, whatever its bytes: reading it ends, says the same for every cutting,
//! and points at the value that it names; and the name can be changed without a trace.

use bytes::Bytes;

use super::multipart::{Form, Scanner};
use super::{BodyFault, apply};

/// What does not hold, if anything; no form is no matter.
pub fn broken(content_type: &[u8], body: &[u8]) -> Option<String> {
    let whole = read(content_type, body.chunks(usize::MAX))?;
    for length in [1, 2, 3, 11, 64] {
        let cut = read(content_type, body.chunks(length))?;
        if cut != whole {
            return Some(format!("whole: {whole:?}; in pieces of {length}: {cut:?}"));
        }
    }
    let form = match whole {
        Ok(form) => form,
        Err(fault) => {
            let message = fault.to_string();
            let is_short_line = message.len() < 300 && !message.contains(char::is_control);
            return (!is_short_line).then(|| format!("no short line: {message}"));
        }
    };
    let model = form.model.as_ref()?;
    let (before, rest) = body.split_at(model.range.start);
    let is_at_home = before.ends_with(b"\r\n\r\n")
        && rest.starts_with(model.value.as_bytes())
        && rest[model.range.len()..].starts_with(b"\r\n--")
        && model.value.len() == model.range.len();
    if !is_at_home {
        return Some(format!("{model:?} is elsewhere"));
    }
    let name = format!("{}-é", model.value);
    let Some(edit) = form.rename(&name) else {
        return Some("the model cannot be renamed".into());
    };
    let pieces: Vec<Bytes> = body.chunks(9).map(Bytes::copy_from_slice).collect();
    let edited = apply(&pieces, &[edit]).0.concat();
    match read(content_type, edited.chunks(usize::MAX))? {
        // It may have become too long.
        Err(BodyFault::TooLong { .. }) => None,
        Ok(renamed) => {
            let found = renamed.model.map(|model| model.value);
            let is_good = found.as_ref() == Some(&name) && renamed.stream == form.stream;
            (!is_good).then(|| format!("renamed to {name:?}, it reads {found:?}"))
        }
        Err(fault) => Some(format!("renamed, it is refused: {fault}")),
    }
}

pub fn read<'a>(
    content_type: &[u8],
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Option<Result<Form, BodyFault>> {
    let mut scanner = match Scanner::new(content_type)? {
        Ok(scanner) => scanner,
        Err(fault) => return Some(Err(fault)),
    };
    for piece in pieces {
        scanner.feed(piece);
    }
    Some(scanner.finish())
}
