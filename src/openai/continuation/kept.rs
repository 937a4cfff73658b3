//! What is kept of a stream, and what of it the client gets.

use bytes::Bytes;

use super::super::{Dialect, Usage};
use super::alike::Pattern;
use super::chunk::{self, Chunk};
use super::dress::{DONE, End, Frame};
use super::plan::Plan;
use super::seam::{Overlap, Part, Seam};

/// Reads the events of one stream on their way to the client.
#[derive(Debug)]
pub struct Kept {
    pub(super) dialect: Dialect,
    /// The engine was asked for token ids, which the client has not asked for.
    pub(super) hides_ids: bool,
    pub(super) may_by_text: bool,
    pub(super) wants_usage: bool,
    pub(super) hold: usize,
    /// The same ids may be followed by others.
    pub(super) is_sampled: bool,
    pub(super) by: By,
    pub(super) source: Source,
    pub(super) frame: Option<Frame>,
    /// Of the prompt and of the answer.
    pub(super) ids: Vec<u32>,
    /// How many of them are the prompt's.
    pub(super) prompt: usize,
    pub(super) seam: Seam,
    pub(super) overlap: Overlap,
    /// Where the last text belonged, and what reasoning is called.
    pub(super) part: Part,
    pub(super) reasoning: Vec<u8>,
    pub(super) end_of_reasoning: Option<u32>,
    /// The beginning of what may be [`super::END_OF_REASONING`].
    pub(super) marker: String,
    /// The answer so far, as JSON has it.
    pub(super) text: Vec<u8>,
    /// Events with text, where ids do not count the tokens; and the tokens before ids no longer did.
    pub(super) events: u64,
    /// Tokens of the answer before this engine's.
    pub(super) before: u64,
    pub(super) pattern: Pattern,
    pub(super) pattern_part: Part,
    pub(super) counted: Option<Usage>,
    pub(super) is_finished: bool,
    pub(super) is_counted: bool,
    pub(super) is_done: bool,
    pub(super) has_given_up: bool,
    pub(super) has_diverged: bool,
}

/// Where a stream stands by the ids of its own engine.
#[derive(Debug)]
pub struct Mark {
    seam: Seam,
    /// Ids behind it.
    behind: Vec<u32>,
}

/// What another engine is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The first event will tell.
    Unknown,
    Ids,
    Text,
}

/// Whose events come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The first engine's, which the client gets but for what it did not ask for.
    First,
    /// Those of another, which are put into the first one's form.
    Completion,
    Chat,
}

impl Kept {
    /// `asks_for_ids`: the engine was asked for the token ids of the stream.
    pub fn new(plan: &Plan, asks_for_ids: bool) -> Self {
        Self {
            dialect: plan.dialect,
            hides_ids: asks_for_ids,
            may_by_text: plan.by_text,
            wants_usage: plan.wants_usage,
            hold: plan.hold,
            is_sampled: plan.is_sampled,
            by: By::Unknown,
            source: Source::First,
            frame: None,
            ids: Vec::new(),
            prompt: 0,
            seam: Seam::new(plan.hold),
            overlap: Overlap::default(),
            part: Part::Content,
            reasoning: Vec::new(),
            end_of_reasoning: None,
            marker: String::new(),
            text: Vec::new(),
            events: 0,
            before: 0,
            pattern: Pattern::default(),
            pattern_part: Part::Content,
            counted: None,
            is_finished: false,
            is_counted: false,
            is_done: false,
            has_given_up: false,
            has_diverged: false,
        }
    }

    /// The answer so far can be gone on with elsewhere.
    pub fn can_go_on(&self) -> bool {
        !self.has_given_up
            && !self.has_diverged
            && !self.is_finished
            && self.by != By::Unknown
            && self.frame.is_some()
    }

    /// The client has the whole answer, and perhaps not the events behind it.
    pub fn is_finished(&self) -> bool {
        self.is_finished && self.frame.is_some() && !self.has_given_up
    }

    /// It goes on by token ids; else by text.
    pub fn is_by_ids(&self) -> bool {
        self.by == By::Ids
    }

    /// Another engine gave another answer than the client has seen: nothing more of it may be shown.
    pub fn has_diverged(&self) -> bool {
        self.has_diverged
    }

    /// Another engine has gone on.
    pub fn has_crossed(&self) -> bool {
        self.source != Source::First
    }

    /// Keeps nothing more; only hides what the client has not asked for, and what it has already.
    pub fn give_up(&mut self) {
        if self.has_given_up {
            return;
        }
        if self.by == By::Ids {
            self.events = self.ids.len().saturating_sub(self.prompt) as u64;
        }
        self.has_given_up = true;
        self.ids = Vec::new();
        self.text = Vec::new();
        self.seam = Seam::new(self.hold);
    }

    /// Whatever it was, it is not kept any more.
    pub fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    /// It goes on by text, or may yet turn out to: the request's own body is needed for that.
    pub fn may_need_body(&self) -> bool {
        let is_over = self.has_given_up || self.has_diverged || self.is_finished;
        !is_over && self.may_by_text && self.by != By::Ids
    }

    /// It stands in the middle of reasoning, and what ends that has to be known: the id of [`super::END_OF_REASONING`].
    pub fn needs_end_of_reasoning(&self) -> bool {
        self.by == By::Ids && self.part == Part::Reasoning && self.end_of_reasoning.is_none()
    }

    /// The id that was asked for.
    pub fn reasoning_ends_with(&mut self, id: u32) {
        self.end_of_reasoning = Some(id);
    }

    /// The text that the client has and the ids up to the seam do not give, where the next engine would hardly say
    /// it once more: it draws its tokens, or has said something else. Not where the text ends inside a token, if
    /// that can be helped.
    pub fn text_to_tokenize(&self) -> Option<&str> {
        let is_needed = self.has_diverged || (self.is_sampled && self.hold == 0);
        let text = self.seam.text_behind();
        text.filter(|_| self.by == By::Ids && is_needed)
    }

    /// The ids of that text.
    pub fn tokenized(&mut self, ids: &[u32]) {
        self.ids.truncate(self.seam.ids());
        self.ids.extend_from_slice(ids);
        self.seam.close_up(self.ids.len());
        self.has_diverged = false;
    }

    /// What [`Self::tokenized`] changes, as it is now.
    pub fn mark(&self) -> Mark {
        let seam = self.seam.clone();
        Mark {
            behind: self.ids[seam.ids().min(self.ids.len())..].to_vec(),
            seam,
        }
    }

    /// Nobody went on from the ids of other engines: this one's own count again.
    pub fn back_to(&mut self, mark: Mark) {
        self.ids.truncate(mark.seam.ids());
        self.ids.extend_from_slice(&mark.behind);
        self.seam = mark.seam;
    }

    /// Bytes it takes.
    pub fn memory(&self) -> usize {
        let frame = self.frame.as_ref().map_or(0, Frame::memory);
        let seam = self.seam.memory() + self.overlap.memory();
        self.ids.capacity() * size_of::<u32>() + self.text.capacity() + frame + seam
    }

    /// The ids up to where the next engine goes on.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids[..self.seam.ids().min(self.ids.len())]
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Tokens of the answer up to where the next engine goes on.
    pub(super) fn produced(&self) -> u64 {
        match self.by {
            By::Ids => self.ids().len().saturating_sub(self.prompt) as u64,
            _ => self.events,
        }
    }

    /// What the whole answer cost so far, by what an engine counted, or by the ids; without either nobody knows.
    pub fn usage(&self) -> Usage {
        let by_ids = || self.ids.len().saturating_sub(self.prompt) as u64;
        self.counted.unwrap_or_else(|| match self.by {
            By::Ids => Usage {
                prompt: Some(self.prompt as u64),
                completion: (!self.has_given_up).then(by_ids),
                cached: None,
            },
            _ => Usage::default(),
        })
    }

    /// Tokens that the answer has at least.
    pub fn at_least(&self) -> u64 {
        self.before.max(self.events)
    }

    /// From now on the events of another engine come, of a completion or of a chat, which goes on.
    pub fn cross(&mut self) {
        self.before = self.produced();
        self.pattern.forget();
        self.marker.clear();
        if self.by == By::Ids {
            self.ids.truncate(self.seam.ids());
            self.overlap = self.seam.cross();
            self.source = Source::Completion;
        } else {
            self.source = match self.dialect {
                Dialect::Chat => Source::Chat,
                _ => Source::Completion,
            };
        }
    }

    /// What is missing behind a finished answer.
    pub fn ending(&mut self) -> Bytes {
        let mut out = Vec::new();
        if self.wants_usage && !self.is_counted && self.by == By::Ids {
            let usage = self.usage();
            if let Some(frame) = &self.frame {
                frame.usage(&mut out, usage);
            }
            self.is_counted = true;
        }
        if !self.is_done {
            out.extend_from_slice(DONE);
            self.is_done = true;
        }
        out.into()
    }

    /// Finishes an answer that has as many tokens as it may have.
    pub fn end_at_length(&mut self) -> Bytes {
        let mut out = Vec::new();
        if let Some(frame) = &self.frame {
            let end = End {
                reason: Some(b"\"length\""),
                stop: None,
            };
            frame.text(&mut out, self.dialect, b"content", None, end);
        }
        self.is_finished = true;
        out.extend_from_slice(&self.ending());
        out.into()
    }

    /// Takes whole events; gives what of them the client is shown.
    pub fn take(&mut self, events: &Bytes) -> Bytes {
        let mut out = Vec::with_capacity(events.len());
        let mut rest = &events[..];
        while !rest.is_empty() {
            let (event, others) = rest.split_at(event_length(rest));
            self.event(event, &mut out);
            rest = others;
        }
        // Nothing was changed, mostly.
        if out.len() == events.len() && out == events[..] {
            return events.clone();
        }
        out.into()
    }

    fn event(&mut self, event: &[u8], out: &mut Vec<u8>) {
        if self.has_diverged {
            // It ends an answer that is not the client's.
            return;
        }
        let from = match (event.strip_prefix(b"data: "), event.strip_prefix(b"data:")) {
            (Some(_), _) => 6,
            (None, Some(_)) => 5,
            // A comment.
            (None, None) if event.starts_with(b":") => return out.extend_from_slice(event),
            (None, None) => {
                self.give_up();
                return out.extend_from_slice(event);
            }
        };
        let data = event[from..].trim_ascii();
        if data == b"[DONE]" {
            self.is_done = true;
            return out.extend_from_slice(event);
        }
        match Chunk::read(event, from) {
            Some(chunk) if self.source == Source::First => self.first(event, &chunk, out),
            Some(chunk) => self.another(&chunk, out),
            None => {
                self.give_up();
                out.extend_from_slice(event);
            }
        }
    }

    /// An event of the engine that was asked first.
    fn first(&mut self, event: &[u8], chunk: &Chunk<'_>, out: &mut Vec<u8>) {
        if self.frame.is_none() {
            self.frame = Frame::new(chunk.id, chunk.object, chunk.created, chunk.model);
        }
        if chunk.choices == 0 {
            self.is_counted |= chunk.usage.is_some();
            return out.extend_from_slice(event);
        }
        let choice = &chunk.choice;
        let is_token_alone = self.hides_ids
            && self.dialect == Dialect::Chat
            && choice.token_ids.is_some()
            && chunk.usage.is_none()
            && choice.shown().is_none()
            && choice.reasoning.is_none()
            && choice.finish_reason.is_none()
            && !(choice.role || choice.has_more);
        if !self.has_given_up && self.keep(chunk).is_none() {
            self.give_up();
        }
        if !is_token_alone {
            without_ids(event, chunk, self.hides_ids, out);
        }
        let is_plain = !(choice.role || choice.has_more || chunk.choices > 1)
            && choice.finish_reason.is_none()
            && chunk.usage.is_none()
            && chunk.ids.len() == usize::from(self.hides_ids)
            && (self.hides_ids || self.by == By::Text);
        let (part, text) = match (choice.shown(), choice.reasoning) {
            (Some(text), None) => (Part::Content, text),
            (None, Some((_, text))) => (Part::Reasoning, text),
            _ => return,
        };
        if is_plain {
            self.pattern
                .learn(event, text, &choice.token_ids_at, self.hides_ids);
            self.pattern_part = part;
        }
    }

    /// Keeps what an event of the first engine says; `None` where it cannot be gone on with.
    fn keep(&mut self, chunk: &Chunk<'_>) -> Option<()> {
        let choice = &chunk.choice;
        if chunk.choices > 1 || choice.is_other || choice.has_more {
            return None;
        }
        if self.by == By::Unknown {
            self.by = match chunk.prompt_ids {
                Some(ids) if self.hides_ids => {
                    self.prompt = chunk::ids(ids, &mut self.ids)?;
                    self.seam.begin(self.prompt);
                    By::Ids
                }
                _ if self.may_by_text => By::Text,
                _ => return None,
            };
            // An engine that does not know of ids has none to hide.
            self.hides_ids &= self.by == By::Ids || !chunk.ids.is_empty();
        }
        if let Some((name, _)) = choice.reasoning {
            if self.by == By::Text || self.hold > 0 {
                return None;
            }
            self.reasoning = name.to_vec();
            self.part = Part::Reasoning;
        }
        let content = choice.shown();
        if content.is_some() {
            self.part = Part::Content;
        }
        self.is_finished |= choice.finish_reason.is_some();
        if self.by == By::Text {
            if let Some(text) = content {
                self.text.extend_from_slice(text.raw);
                self.events += 1;
            }
            return Some(());
        }
        let count = match choice.token_ids {
            Some(ids) => chunk::ids(ids, &mut self.ids)?,
            None => 0,
        };
        if count == 0 && (content.is_some() || choice.reasoning.is_some()) {
            return None;
        }
        let reasoning = choice
            .reasoning
            .map(|(_, text)| (Part::Reasoning, text.decode()));
        let content = content.map(|text| (Part::Content, text.decode()));
        let texts: Vec<_> = reasoning.into_iter().chain(content).collect();
        self.seam.take(&texts, &texts, count, self.ids.len(), false);
        Some(())
    }
}

/// Writes the event without the ids that the client has not asked for.
fn without_ids(event: &[u8], chunk: &Chunk<'_>, hides: bool, out: &mut Vec<u8>) {
    let mut from = 0;
    for range in chunk.ids.iter().filter(|_| hides) {
        out.extend_from_slice(&event[from..range.start]);
        out.extend_from_slice(b"null");
        from = range.end;
    }
    out.extend_from_slice(&event[from..]);
}

/// The length of the event that `bytes` begin with.
fn event_length(bytes: &[u8]) -> usize {
    let end = memchr::memmem::find(bytes, b"\n\n").map(|at| at + 2);
    let event = &bytes[..end.unwrap_or(bytes.len())];
    if memchr::memchr(b'\r', event).is_none() {
        return event.len();
    }
    let ends = [&b"\r\n\r\n"[..], b"\r\r"];
    let found = ends
        .iter()
        .filter_map(|end| Some(memchr::memmem::find(event, end)? + end.len()));
    found.min().unwrap_or(event.len())
}
