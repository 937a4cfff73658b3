//! Arrays and objects within one another, and which keys count where.

use super::super::fault::BodyFault;
use super::super::fields::{Field, Scope};
use super::super::onward::Key;
use super::super::value::Raw;
use super::{MAX_DEPTH, Scanner, State};

impl Scanner {
    pub(super) fn is_in_object(&self) -> bool {
        self.depth > 0 && self.objects >> (self.depth - 1) & 1 == 1
    }

    pub(super) fn behind_comma(&self) -> State {
        if self.is_in_object() {
            State::Key
        } else {
            State::Value
        }
    }

    pub(super) fn open(&mut self, is_object: bool, at: usize) -> Result<(), BodyFault> {
        if self.depth == MAX_DEPTH {
            return Err(BodyFault::TooDeep { at });
        }
        self.count_prompt();
        let bit = 1 << self.depth;
        self.objects = if is_object {
            self.objects | bit
        } else {
            self.objects & !bit
        };
        self.depth += 1;
        self.state = if is_object {
            State::FirstKey
        } else {
            State::FirstElement
        };
        if self.depth == 1 {
            self.object_start = at;
        }
        if let Some(field) = self.wanted.take() {
            let raw = if is_object { Raw::Object } else { Raw::Array };
            self.fields.set(field, raw, at..at + 1)?;
            let is_looked_into = matches!(
                field,
                Field::StreamOptions
                    | Field::SamplingParams
                    | Field::Xargs
                    | Field::Prompts
                    | Field::Onward(Key::Prompt | Key::ResponseFormat | Key::Messages)
            );
            if self.depth == 2 && is_looked_into {
                self.inside = Some(field);
                self.options_start = at;
            }
            self.in_parts |= self.depth == 4 && field == Field::Onward(Key::Content);
            if self.depth == 2 {
                self.spanning = field.spans().map(|key| (key, at));
            }
        }
        self.rescope();
        Ok(())
    }

    pub(super) fn close(&mut self, at: usize, is_empty: bool) {
        if self.scope == Scope::StreamOptions {
            self.fields
                .end_stream_options(self.options_start..at + 1, is_empty);
        }
        self.depth -= 1;
        self.state = State::Next;
        if self.depth == 0 {
            self.object = self.object_start..at + 1;
            self.is_empty_object = is_empty;
            self.state = State::End;
        } else if self.depth == 3 {
            self.in_parts = false;
        } else if self.depth == 1 {
            self.inside = None;
            if let Some((key, start)) = self.spanning.take() {
                self.fields.end_span(key, start..at + 1, is_empty);
            }
        }
        self.rescope();
    }

    /// The scope of the keys at the depth that was just reached. `sampling_params` may be a list of
    /// objects.
    fn rescope(&mut self) {
        let is_list = self.objects >> 1 & 1 == 0;
        self.scope = match (self.depth, self.inside) {
            (1, _) => Scope::Top,
            (2, Some(Field::StreamOptions)) if !is_list => Scope::StreamOptions,
            (2, Some(Field::Onward(Key::ResponseFormat))) if !is_list => Scope::ResponseFormat,
            (3, Some(Field::Onward(Key::Messages))) if is_list => Scope::Message,
            (5, _) if self.in_parts => Scope::Part,
            (2, Some(Field::SamplingParams)) if !is_list => Scope::SamplingParams,
            (2, Some(Field::Xargs)) if !is_list => Scope::Xargs,
            (3, Some(Field::SamplingParams)) if is_list => Scope::SamplingParams,
            _ => Scope::Other,
        };
    }

    /// A text or a list begins: where it is an element of a list of prompts, it is one of them.
    pub(super) fn count_prompt(&mut self) {
        let is_inside = matches!(
            self.inside,
            Some(Field::Prompts | Field::Onward(Key::Prompt))
        );
        if self.depth == 2 && is_inside {
            self.fields.count_prompt();
        }
    }
}
