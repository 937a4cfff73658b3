//! Events of an engine that goes on, in the form of the first one's.

use super::super::{Dialect, Usage};
use super::chunk::{self, Chunk, members};
use super::dress::End;
use super::kept::{By, Kept, Source};
use super::seam::Part;

/// What ends the reasoning of the models that can be gone on with in the middle of it (DeepSeek-R1, Qwen3, GLM and
/// their like): one token, and their engines' parsers look for it.
pub const END_OF_REASONING: &str = "</think>";

impl Kept {
    /// An event of an engine that goes on.
    pub(super) fn another(&mut self, chunk: &Chunk<'_>, out: &mut Vec<u8>) {
        if let Some(usage) = chunk.usage.filter(|_| chunk.choices == 0) {
            return self.count(usage, out);
        }
        if chunk.choices == 0 {
            return;
        }
        let choice = &chunk.choice;
        let before = (self.part, self.marker.clone());
        let written = match (self.by, self.source) {
            (By::Ids, _) => self.go_on_by_ids(chunk, out),
            (_, Source::Chat) => self.go_on_chat(chunk, out),
            _ => {
                let text = choice.shown();
                self.go_on_text(text.map(|text| text.raw), End::of(choice), out)
            }
        };
        if written.is_some() {
            self.is_finished |= choice.finish_reason.is_some();
        } else {
            // Nothing of it is shown, its end neither.
            self.has_diverged = true;
            (self.part, self.marker) = before;
        }
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
    fn go_on_chat(&mut self, chunk: &Chunk<'_>, out: &mut Vec<u8>) -> Option<()> {
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
        let text = choice.shown();
        self.go_on_text(text.map(|text| text.raw), End::of(choice), out)
    }

    fn go_on_by_ids(&mut self, chunk: &Chunk<'_>, out: &mut Vec<u8>) -> Option<()> {
        let choice = &chunk.choice;
        if self.has_given_up {
            // One of these may end the reasoning all the same.
            self.ids.clear();
        }
        let count = match choice.token_ids {
            Some(ids) => chunk::ids(ids, &mut self.ids)?,
            None => 0,
        };
        let text = choice.shown().map(|text| text.decode()).unwrap_or_default();
        self.look_for_end_of_reasoning(count, &text)?;
        let sent = self.split(text, choice.finish_reason.is_some());
        let mut new = Vec::with_capacity(sent.len());
        for (part, text) in &sent {
            new.push((*part, self.overlap.skip(*part, text)?));
        }
        if choice.finish_reason.is_some() && !self.overlap.is_empty() {
            return None;
        }
        if self.has_given_up {
            self.events += u64::from(new.iter().any(|(_, text)| !text.is_empty()));
        } else {
            let holds = !self.marker.is_empty();
            self.seam.take(&sent, &new, count, self.ids.len(), holds);
        }
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

    /// The token that ends reasoning may have no text of its own. `None` where nobody can tell the one from the other.
    fn look_for_end_of_reasoning(&mut self, count: usize, text: &str) -> Option<()> {
        let new = &self.ids[self.ids.len() - count..];
        let comes = self.part == Part::Reasoning
            && self.end_of_reasoning.is_some_and(|end| new.contains(&end));
        if !comes || [&self.marker, text].concat().contains(END_OF_REASONING) {
            return Some(());
        }
        (count == 1 && text.is_empty() && self.marker.is_empty()).then(|| {
            self.part = Part::Content;
        })
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

fn name_of(dialect: Dialect, part: Part, reasoning: &[u8]) -> &[u8] {
    match (dialect, part) {
        (Dialect::Chat, Part::Reasoning) => reasoning,
        (Dialect::Chat, Part::Content) => b"content",
        _ => b"text",
    }
}
