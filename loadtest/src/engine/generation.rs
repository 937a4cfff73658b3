//! The answer, one token after the other.

use std::sync::Arc;

use super::render::Whole;
use super::request::{Ask, Prompt};
use super::script::Script;
use super::text::{self, Context};

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finish {
    /// The end-of-sequence token, or this stop string.
    Stop(Option<String>),
    Length,
    Abort,
}

impl Finish {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Stop(_) => "stop",
            Self::Length => "length",
            Self::Abort => "abort",
        }
    }
}

/// What one more token changed.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Often one token's text; empty inside a character and while a stop string may be beginning.
    pub text: String,
    pub id: u32,
    pub finish: Option<Finish>,
}

/// One answer in the making.
#[derive(Debug)]
pub(super) struct Choice {
    context: Context,
    explicit: Option<Arc<[String]>>,
    whole_characters: bool,
    /// Tokens of text after which the end-of-sequence token comes.
    length: usize,
    pub produced: usize,
    max_tokens: usize,
    min_tokens: usize,
    ignore_eos: bool,
    stop: Vec<String>,
    /// Bytes of a character that is not whole yet.
    bytes: Vec<u8>,
    /// Text held back because a stop string may be in it.
    held: String,
    pub finished: bool,
}

/// The limits of one answer, from the request.
pub(super) struct Bounds<'a> {
    pub max_tokens: usize,
    pub min_tokens: usize,
    pub ignore_eos: bool,
    pub stop: &'a [String],
}

impl Choice {
    /// The answers to each prompt, in the order of their index.
    pub(super) fn all(script: &Script, ask: &Ask) -> Vec<Self> {
        let bounds = Bounds {
            max_tokens: ask.max_tokens,
            min_tokens: ask.min_tokens,
            ignore_eos: ask.ignore_eos,
            stop: &ask.stop,
        };
        let of_prompt = |prompt| (0..ask.n).map(move |index| (prompt, index));
        ask.prompts
            .iter()
            .flat_map(of_prompt)
            .map(|(prompt, index)| Self::new(script, prompt, index, &bounds))
            .collect()
    }

    /// Makes the whole answer.
    pub(super) fn whole(&mut self) -> Whole {
        let (mut step, mut answer) = (Step::default(), Whole::default());
        while !self.finished {
            self.step(&mut step);
            answer.text.push_str(&step.text);
            answer.ids.push(step.id);
        }
        answer.finish = step.finish.take();
        answer
    }

    /// The `index`-th answer to this prompt.
    pub(super) fn new(script: &Script, prompt: &Prompt, index: usize, bounds: &Bounds<'_>) -> Self {
        let mut context = prompt.context.clone();
        context.vary(index);
        Self {
            context,
            explicit: script.answer.clone(),
            whole_characters: script.whole_characters,
            length: script
                .answer
                .as_ref()
                .map_or(script.tokens, |answer| answer.len()),
            produced: 0,
            max_tokens: bounds.max_tokens,
            min_tokens: bounds.min_tokens,
            ignore_eos: bounds.ignore_eos,
            stop: bounds.stop.to_vec(),
            bytes: prompt.repeated.clone(),
            held: String::new(),
            finished: false,
        }
    }

    /// Makes one token. Call it only while the answer is not finished.
    pub(super) fn step(&mut self, step: &mut Step) {
        step.text.clear();
        step.finish = None;
        let at_end = self.context.answered >= self.length && !self.context.in_character();
        self.produced += 1;
        if at_end && !self.ignore_eos && self.produced > self.min_tokens {
            step.id = text::EOS;
            step.finish = Some(Finish::Stop(None));
        } else {
            self.extend(step);
            if self.produced >= self.max_tokens {
                step.finish = Some(Finish::Length);
            }
        }
        if !self.stop.is_empty() {
            self.hold_back(step);
        }
        self.finished = step.finish.is_some();
    }

    fn extend(&mut self, step: &mut Step) {
        let position = self.context.answered;
        if let Some(words) = &self.explicit
            && let Some(word) = words.get(position)
        {
            step.id = text::EXPLICIT + position as u32;
            step.text.push_str(word);
        } else {
            step.id = self.context.next();
            if self.whole_characters && text::is_first_half(step.id) {
                step.id = text::WHOLE_WORD;
            }
            text::decode(step.id, &mut self.bytes);
            let valid = match std::str::from_utf8(&self.bytes) {
                Ok(text) => text,
                Err(error) => {
                    std::str::from_utf8(&self.bytes[..error.valid_up_to()]).unwrap_or_default()
                }
            };
            // A prompt that is said again waits for the end of its last character.
            if valid.len() == self.bytes.len() {
                step.text.push_str(valid);
                self.bytes.clear();
            }
        }
        self.context.push(step.id);
    }

    /// vLLM holds back as many characters as the longest stop string has, less one.
    fn hold_back(&mut self, step: &mut Step) {
        self.held.push_str(&step.text);
        step.text.clear();
        let found = self
            .stop
            .iter()
            .filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)))
            .min();
        if let Some((at, stop)) = found {
            step.finish = Some(Finish::Stop(Some(stop.clone())));
            self.held.truncate(at);
        }
        if step.finish.is_some() {
            step.text.push_str(&std::mem::take(&mut self.held));
            return;
        }
        let longest = self
            .stop
            .iter()
            .map(|stop| stop.chars().count())
            .max()
            .unwrap_or(1);
        let shown = self
            .held
            .chars()
            .count()
            .saturating_sub(longest.saturating_sub(1));
        let at = self
            .held
            .char_indices()
            .nth(shown)
            .map_or(self.held.len(), |(at, _)| at);
        step.text.push_str(&self.held[..at]);
        self.held.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &Script, max_tokens: usize, stop: &[String]) -> (String, Finish, usize) {
        let mut prompt = Prompt::default();
        text::render_prompt("x", |id| prompt.context.push(id));
        let bounds = Bounds {
            max_tokens,
            min_tokens: 0,
            ignore_eos: false,
            stop,
        };
        let mut choice = Choice::new(script, &prompt, 0, &bounds);
        let (mut step, mut text) = (Step::default(), String::new());
        loop {
            choice.step(&mut step);
            text.push_str(&step.text);
            if let Some(finish) = step.finish.take() {
                return (text, finish, choice.produced);
            }
        }
    }

    #[test]
    fn an_answer_ends_with_the_end_of_sequence_token_or_at_its_length() {
        let script = Script {
            tokens: 5,
            ..Script::default()
        };
        let (text, finish, produced) = run(&script, 100, &[]);
        assert_eq!((finish, produced), (Finish::Stop(None), 6));
        assert_eq!(text, text::answer(Context::prompt("x"), 5));
        let (_, finish, produced) = run(&script, 3, &[]);
        assert_eq!((finish, produced), (Finish::Length, 3));
    }

    #[test]
    fn a_stop_string_is_not_shown_not_even_its_beginning() {
        let words = ["one", " tw", "o th", "ree"].map(str::to_owned);
        let script = Script {
            answer: Some(Arc::from(words)),
            ..Script::default()
        };
        let stop = ["two".to_owned()];
        let (text, finish, _) = run(&script, 100, &stop);
        assert_eq!(
            (text.as_str(), finish),
            ("one ", Finish::Stop(Some("two".to_owned())))
        );
        let (text, finish, _) = run(&script, 100, &["four".to_owned()]);
        assert_eq!(
            (text.as_str(), finish),
            ("one two three", Finish::Stop(None))
        );
    }
}
