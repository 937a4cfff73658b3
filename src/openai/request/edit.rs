//! Changing single values of a body without touching the rest.

use std::ops::Range;

use bytes::Bytes;

use super::fields::{Peeked, StreamOptions};

/// Puts `with` in the place of the bytes at `range` of the body; an empty range inserts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    pub range: Range<usize>,
    pub with: Bytes,
}

impl Edit {
    /// Puts `with` in front of the byte at `at`.
    pub fn before(at: usize, with: impl Into<Bytes>) -> Self {
        Self {
            range: at..at,
            with: with.into(),
        }
    }

    fn insert(at: usize, text: &'static str) -> Self {
        Self::replace(at..at, text)
    }

    fn replace(range: Range<usize>, text: &'static str) -> Self {
        Self {
            range,
            with: Bytes::from_static(text.as_bytes()),
        }
    }
}

/// Makes the edits in the body that lies in `pieces`; gives the new pieces, which share all bytes
/// that stay, and their length together. The edits must not overlap; their order does not matter.
/// What reaches beyond the body ends with it.
pub fn apply(pieces: &[Bytes], edits: &[Edit]) -> (Vec<Bytes>, usize) {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut body = Rest {
        pieces,
        skipped: 0,
        position: 0,
        out: Vec::with_capacity(pieces.len() + 2 * edits.len()),
    };
    for edit in edits {
        body.advance(edit.range.start, true);
        body.push(edit.with.clone());
        body.advance(edit.range.end, false);
    }
    body.advance(usize::MAX, true);
    let length = body.out.iter().map(Bytes::len).sum();
    (body.out, length)
}

/// What is left of a body.
struct Rest<'a> {
    pieces: &'a [Bytes],
    /// Bytes of the first piece that are done.
    skipped: usize,
    /// Bytes of the body that are done.
    position: usize,
    out: Vec<Bytes>,
}

impl Rest<'_> {
    /// Goes on to `to`, and keeps or drops what lies between.
    fn advance(&mut self, to: usize, keeps: bool) {
        while let Some((first, others)) = self.pieces.split_first() {
            let left = first.len() - self.skipped;
            let taken = left.min(to.saturating_sub(self.position));
            if keeps {
                self.push(first.slice(self.skipped..self.skipped + taken));
            }
            self.position += taken;
            if taken < left {
                self.skipped += taken;
                return;
            }
            self.pieces = others;
            self.skipped = 0;
        }
    }

    fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.out.push(piece);
        }
    }
}

impl Peeked {
    /// Asks for the model `to` instead; `None` where the body names no model or that one already.
    pub fn rename(&self, to: &str) -> Option<Edit> {
        let model = self.model.as_ref().filter(|model| model.value != to)?;
        Some(Edit {
            range: model.range.clone(),
            with: quoted(to).into(),
        })
    }

    /// Asks for the ids of the tokens (vLLM); at the end, so that it is the last word.
    pub fn ask_for_token_ids(&self) -> Edit {
        let end = self.object.end.saturating_sub(1);
        Edit::insert(
            end,
            match self.is_empty_object {
                true => "\"return_token_ids\":true",
                false => ",\"return_token_ids\":true",
            },
        )
    }

    /// Asks for the usage chunk at the end of a stream (`stream_options.include_usage`), and for no count
    /// before it: vLLM leaves `continuous_usage_stats` out of account where no chunk is asked for. Nothing
    /// where the body asks for no stream, or for the chunk already.
    pub fn ask_for_usage(&self) -> Vec<Edit> {
        if self.stream != Some(true) || matches!(self.include_usage, Some((true, _))) {
            return Vec::new();
        }
        let mut edits = vec![self.include_usage()];
        if let Some((true, value)) = &self.continuous_usage {
            edits.push(Edit::replace(value.clone(), "false"));
        }
        edits
    }

    fn include_usage(&self) -> Edit {
        if let Some((_, value)) = &self.include_usage {
            return Edit::replace(value.clone(), "true");
        }
        match &self.stream_options {
            StreamOptions::Object { range, is_empty } => Edit::insert(
                range.start + 1,
                match is_empty {
                    true => "\"include_usage\":true",
                    false => "\"include_usage\":true,",
                },
            ),
            StreamOptions::Null(value) => Edit::replace(value.clone(), "{\"include_usage\":true}"),
            // It has a member, the `stream` that is true.
            StreamOptions::Absent => Edit::insert(
                self.object.start + 1,
                "\"stream_options\":{\"include_usage\":true},",
            ),
        }
    }
}

/// `text` as a JSON string, quotes included; everything but quotes, backslashes and controls as it is.
fn quoted(text: &str) -> Vec<u8> {
    let mut json = Vec::with_capacity(text.len() + 2);
    json.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => json.extend_from_slice(&[b'\\', byte]),
            0..0x20 => json.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => json.push(byte),
        }
    }
    json.push(b'"');
    json
}
