//! What is kept of a stream, and what of it the client gets.

use bytes::Bytes;

use super::super::{Dialect, Usage};
use super::alike::{Alike, Found, Pattern};
use super::chunk::{self, Chunk, members};
use super::dress::{DONE, End, Frame};
use super::plan::Plan;
use super::seam::{Overlap, Part, Seam};

/// What ends the reasoning of the models whose engines tell it from the answer (DeepSeek-R1, Qwen3 and their like).
const END_OF_REASONING: &str = "</think>";

/// Reads the events of one stream on their way to the client.
#[derive(Debug)]
pub struct Kept {
    dialect: Dialect,
    /// The engine was asked for token ids, which the client has not asked for.
    hides_ids: bool,
    may_by_text: bool,
    wants_usage: bool,
    hold: usize,
    by: By,
    source: Source,
    frame: Option<Frame>,
    /// Of the prompt and of the answer.
    ids: Vec<u32>,
    /// How many of them are the prompt's.
    prompt: usize,
    seam: Seam,
    overlap: Overlap,
    /// Where the last text belonged, and what reasoning is called.
    part: Part,
    reasoning: Vec<u8>,
    /// The beginning of what may be [`END_OF_REASONING`].
    marker: String,
    /// The answer so far, as JSON has it.
    text: Vec<u8>,
    /// Events with text, where ids do not count the tokens.
    events: u64,
    /// Tokens of the answer before this engine's.
    before: u64,
    pattern: Pattern,
    pattern_part: Part,
    counted: Option<Usage>,
    is_finished: bool,
    is_counted: bool,
    is_done: bool,
    has_given_up: bool,
    has_diverged: bool,
}

/// What another engine is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The first event will tell.
    Unknown,
    Ids,
    Text,
}

/// Whose events come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
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
            by: By::Unknown,
            source: Source::First,
            frame: None,
            ids: Vec::new(),
            prompt: 0,
            seam: Seam::new(plan.hold),
            overlap: Overlap::default(),
            part: Part::Content,
            reasoning: Vec::new(),
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

    /// Keeps nothing more; only hides what the client has not asked for.
    pub fn give_up(&mut self) {
        self.has_given_up = true;
        self.ids = Vec::new();
        self.text = Vec::new();
    }

    /// Bytes it takes.
    pub fn memory(&self) -> usize {
        let frame = self.frame.as_ref().map_or(0, Frame::memory);
        self.ids.capacity() * size_of::<u32>() + self.text.capacity() + frame
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

    /// What the whole answer cost so far, by the ids or by what an engine counted, or else the events of text alone.
    pub fn usage(&self) -> Usage {
        self.counted.unwrap_or_else(|| match self.by {
            By::Ids if !self.has_given_up => Usage {
                prompt: Some(self.prompt as u64),
                completion: Some(self.ids.len().saturating_sub(self.prompt) as u64),
                cached: None,
            },
            _ => Usage {
                completion: Some(self.before.max(self.events)),
                ..Usage::default()
            },
        })
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

    /// Takes whole events that are all alike another one before them, if they are; adds them to `out` as the client
    /// gets them, where that is otherwise.
    pub fn take_alike(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Alike {
        if self.source != Source::First || self.is_finished {
            return Alike::No;
        }
        let (ids, text, begun) = (self.ids.len(), self.text.len(), out.len());
        let seam = self.seam.ids();
        match self.try_alike(piece, out) {
            Some(shown) if self.hides_ids => Alike::Rewritten(shown),
            Some(shown) => {
                self.events += u64::from(shown);
                Alike::AsTheyAre(shown)
            }
            None => {
                out.truncate(begun);
                self.ids.truncate(ids);
                self.text.truncate(text);
                if self.by == By::Ids && self.hold == 0 {
                    self.seam.advance(seam);
                }
                Alike::No
            }
        }
    }

    fn try_alike(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Option<u32> {
        let keeps = !self.has_given_up;
        let (mut at, mut shown) = (0, 0);
        while at < piece.len() {
            let found = self.pattern.find(&piece[at..])?;
            if keeps {
                match self.by {
                    By::Ids => self.seam.is_tight().then_some(())?,
                    By::Text => self.text.extend_from_slice(found.text),
                    By::Unknown => return None,
                }
                if self.by == By::Ids {
                    push_id(found.ids, &mut self.ids)?;
                    if !found.text.is_empty() {
                        self.seam.advance(self.ids.len());
                    }
                }
            }
            if self.hides_ids && !is_hidden(self.dialect, &found) {
                self.pattern.write(&found, out);
            }
            shown += u32::from(!found.text.is_empty());
            at += found.length;
        }
        if keeps && shown > 0 {
            self.part = self.pattern_part;
        }
        Some(shown)
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
            Some(chunk) => self.another(event, &chunk, out),
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
        if is_plain && self.hold == 0 {
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

    /// An event of an engine that goes on.
    fn another(&mut self, event: &[u8], chunk: &Chunk<'_>, out: &mut Vec<u8>) {
        if let Some(usage) = chunk.usage.filter(|_| chunk.choices == 0) {
            return self.count(usage, out);
        }
        if chunk.choices == 0 || self.has_diverged {
            return;
        }
        let choice = &chunk.choice;
        let written = match (self.by, self.source) {
            (By::Ids, _) => self.go_on_by_ids(chunk, out),
            (_, Source::Chat) => self.go_on_chat(event, chunk, out),
            _ => {
                let text = choice.shown();
                self.go_on_text(text.map(|text| text.raw), End::of(choice), out)
            }
        };
        self.is_finished |= choice.finish_reason.is_some();
        self.has_diverged |= written.is_none();
    }

    fn go_on_text(&mut self, text: Option<&[u8]>, end: End<'_>, out: &mut Vec<u8>) -> Option<()> {
        let name = name_of(self.dialect, self.part, &self.reasoning);
        if let Some(text) = text {
            self.events += 1;
            if !self.has_given_up {
                self.text.extend_from_slice(text);
            }
        }
        if text.is_some() || end.reason.is_some() {
            let frame = self.frame.as_ref()?;
            frame.text(out, self.dialect, name, text, end);
        }
        Some(())
    }

    /// A chat goes on: its engine knows of tools and of reasoning.
    fn go_on_chat(&mut self, event: &[u8], chunk: &Chunk<'_>, out: &mut Vec<u8>) -> Option<()> {
        let choice = &chunk.choice;
        if choice.has_more || choice.reasoning.is_some() {
            self.give_up();
            let mut kept = Vec::new();
            if let Some(delta) = choice.delta {
                members(delta, 0, |name, value| {
                    if name != b"role" {
                        let comma: &[u8] = if kept.is_empty() { b"\"" } else { b",\"" };
                        kept.extend_from_slice(&[comma, name, b"\":", &delta[value]].concat());
                    }
                    Some(())
                })?;
            }
            let frame = self.frame.as_ref()?;
            frame.delta(out, self.dialect, &kept, End::of(choice));
            return Some(());
        }
        let _ = event;
        let text = choice.shown();
        self.go_on_text(text.map(|text| text.raw), End::of(choice), out)
    }

    fn go_on_by_ids(&mut self, chunk: &Chunk<'_>, out: &mut Vec<u8>) -> Option<()> {
        let choice = &chunk.choice;
        let count = match choice.token_ids {
            Some(ids) if !self.has_given_up => chunk::ids(ids, &mut self.ids)?,
            _ => 0,
        };
        let text = choice.shown().map(|text| text.decode()).unwrap_or_default();
        let sent = self.split(text, choice.finish_reason.is_some());
        let mut new = Vec::with_capacity(sent.len());
        for (part, text) in &sent {
            new.push((*part, self.overlap.skip(*part, text)?));
        }
        if choice.finish_reason.is_some() && !self.overlap.is_empty() {
            return None;
        }
        let holds = !self.marker.is_empty();
        self.seam.take(&sent, &new, count, self.ids.len(), holds);
        let frame = self.frame.as_ref()?;
        for (part, text) in new.iter().filter(|(_, text)| !text.is_empty()) {
            let quoted = serde_json::to_vec(text).ok()?;
            let raw = quoted.get(1..quoted.len() - 1)?;
            let name = name_of(self.dialect, *part, &self.reasoning);
            frame.text(out, self.dialect, name, Some(raw), End::default());
        }
        if choice.finish_reason.is_some() {
            frame.text(out, self.dialect, b"content", None, End::of(choice));
        }
        Some(())
    }

    /// Tells reasoning from the answer, as the first engine did. `is_last`: nothing follows.
    fn split(&mut self, text: String, is_last: bool) -> Vec<(Part, String)> {
        if self.part == Part::Content {
            return match text.is_empty() {
                true => Vec::new(),
                false => vec![(Part::Content, text)],
            };
        }
        let mut thought = std::mem::take(&mut self.marker);
        thought.push_str(&text);
        if let Some((thought, answer)) = thought.split_once(END_OF_REASONING) {
            self.part = Part::Content;
            let both = [(Part::Reasoning, thought), (Part::Content, answer)];
            return (both.into_iter())
                .filter(|(_, text)| !text.is_empty())
                .map(|(part, text)| (part, text.to_owned()))
                .collect();
        }
        if !is_last {
            let longest = (1..END_OF_REASONING.len())
                .rev()
                .find(|&length| thought.ends_with(&END_OF_REASONING[..length]));
            self.marker = thought.split_off(thought.len() - longest.unwrap_or(0));
        }
        match thought.is_empty() {
            true => Vec::new(),
            false => vec![(Part::Reasoning, thought)],
        }
    }

    /// The count of the engine that ended the answer, and that of those before it.
    fn count(&mut self, usage: &[u8], out: &mut Vec<u8>) {
        let json = [b"{\"usage\":", usage, b"}"].concat();
        let counted = Usage::of_json(&json).unwrap_or_default();
        let prompt = match self.by {
            By::Ids => Some(self.prompt as u64),
            // It has counted what the client has already as its prompt.
            _ => counted.prompt.map(|all| all.saturating_sub(self.before)),
        };
        let completion = counted.completion.map(|rest| self.before + rest);
        let cached = counted
            .cached
            .zip(prompt)
            .map(|(cached, prompt)| cached.min(prompt));
        let whole = Usage {
            prompt,
            completion,
            cached,
        };
        self.counted = Some(whole);
        if self.wants_usage
            && let Some(frame) = &self.frame
        {
            frame.usage(out, whole);
            self.is_counted = true;
        }
    }
}

fn name_of<'a>(dialect: Dialect, part: Part, reasoning: &'a [u8]) -> &'a [u8] {
    match (dialect, part) {
        (Dialect::Chat, Part::Reasoning) => reasoning,
        (Dialect::Chat, Part::Content) => b"content",
        _ => b"text",
    }
}

/// A token without text has an event only because ids were asked for.
fn is_hidden(dialect: Dialect, found: &Found<'_>) -> bool {
    dialect == Dialect::Chat && found.text.is_empty()
}

/// Adds the one id; `None` where there is another number of them.
fn push_id(digits: &[u8], ids: &mut Vec<u32>) -> Option<()> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    let id = digits.iter().try_fold(0_u32, |id, digit| {
        digit
            .is_ascii_digit()
            .then(|| id * 10 + u32::from(digit - b'0'))
    })?;
    ids.push(id);
    Some(())
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
    let ends = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"];
    let found = ends
        .iter()
        .filter_map(|end| Some(memchr::memmem::find(bytes, end)? + end.len()));
    found.min().unwrap_or(bytes.len())
}
