//! Events in the form of the first engine's.

use super::super::{Dialect, Usage};
use super::chunk::Choice;

/// What all events of the first engine have in common, as JSON.
#[derive(Debug, Default)]
pub(super) struct Frame {
    id: Vec<u8>,
    object: Vec<u8>,
    created: Vec<u8>,
    model: Vec<u8>,
}

/// What ends a choice, as JSON.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct End<'a> {
    pub reason: Option<&'a [u8]>,
    pub stop: Option<&'a [u8]>,
}

impl<'a> End<'a> {
    pub fn of(choice: &Choice<'a>) -> Self {
        Self {
            reason: choice.finish_reason,
            stop: choice.stop_reason,
        }
    }
}

pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

impl Frame {
    /// `None` where an event lacks what it needs.
    pub fn new(
        id: Option<&[u8]>,
        object: Option<&[u8]>,
        created: Option<&[u8]>,
        model: Option<&[u8]>,
    ) -> Option<Self> {
        Some(Self {
            id: id?.to_vec(),
            object: object?.to_vec(),
            created: created?.to_vec(),
            model: model?.to_vec(),
        })
    }

    /// Bytes it takes.
    pub fn memory(&self) -> usize {
        self.id.len() + self.object.len() + self.created.len() + self.model.len()
    }

    fn open(&self, out: &mut Vec<u8>) {
        for (name, value) in [
            (&b"data: {\"id\":"[..], &self.id),
            (b",\"object\":", &self.object),
            (b",\"created\":", &self.created),
            (b",\"model\":", &self.model),
        ] {
            out.extend_from_slice(name);
            out.extend_from_slice(value);
        }
        out.extend_from_slice(b",\"choices\":[");
    }

    /// One event of the one choice. `name`: what its text is called; `text` raw, without quotes; `None`: no text.
    pub fn text(
        &self,
        out: &mut Vec<u8>,
        dialect: Dialect,
        name: &[u8],
        text: Option<&[u8]>,
        end: End<'_>,
    ) {
        let delta = match text {
            Some(text) => [b"\"", name, b"\":\"", text, b"\""].concat(),
            None if dialect == Dialect::Chat => Vec::new(),
            None => b"\"text\":\"\"".to_vec(),
        };
        self.delta(out, dialect, &delta, end);
    }

    /// The same, with the members of a delta, or of a completion's choice, as they are.
    pub fn delta(&self, out: &mut Vec<u8>, dialect: Dialect, members: &[u8], end: End<'_>) {
        self.open(out);
        out.extend_from_slice(b"{\"index\":0,");
        if dialect == Dialect::Chat {
            out.extend_from_slice(b"\"delta\":{");
            out.extend_from_slice(members);
            out.push(b'}');
        } else {
            out.extend_from_slice(members);
        }
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":");
        out.extend_from_slice(end.reason.unwrap_or(b"null"));
        if end.reason.is_some() {
            out.extend_from_slice(b",\"stop_reason\":");
            out.extend_from_slice(end.stop.unwrap_or(b"null"));
        }
        out.extend_from_slice(b"}]}\n\n");
    }

    /// The event that counts the tokens.
    pub fn usage(&self, out: &mut Vec<u8>, usage: Usage) {
        let (prompt, completion) = (usage.prompt.unwrap_or(0), usage.completion.unwrap_or(0));
        self.open(out);
        let total = prompt.saturating_add(completion);
        let counts = format!(
            "],\"usage\":{{\"prompt_tokens\":{prompt},\"total_tokens\":{total},\"completion_tokens\":{completion}"
        );
        out.extend_from_slice(counts.as_bytes());
        if let Some(cached) = usage.cached {
            let details = format!(",\"prompt_tokens_details\":{{\"cached_tokens\":{cached}}}");
            out.extend_from_slice(details.as_bytes());
        }
        out.extend_from_slice(b"}}\n\n");
    }
}
