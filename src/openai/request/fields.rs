//! The fields that are read: where each may stand, what it may hold, and what comes of them.

use std::ops::Range;

use super::fault::BodyFault;
use super::onward::{Key, Onward, Reading, USER};
use super::steering::STEERING;
use super::value::{Raw, Slot, amount, text, truth};

/// What the gateway knows of a request from its body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peeked {
    /// Where the object stands in the body, from its `{` up to and with its `}`.
    pub object: Range<usize>,
    pub is_empty_object: bool,
    pub model: Option<Text>,
    pub stream: Option<bool>,
    /// The most tokens the client wants: the largest of `max_completion_tokens`, `max_tokens`, `max_output_tokens`
    /// (responses) and `sampling_params.max_new_tokens` (SGLang), since each API counts one of them alone.
    pub max_tokens: Option<u64>,
    /// How many prompts there are: the elements of a list of texts or of lists of tokens, at least 1.
    pub prompts: u64,
    /// Bytes of pictures and sounds, as far as each goes beyond [`super::ENCODED`]: of long strings that look
    /// like an encoding. What they cost the engine has nothing to do with their length.
    pub encoded: usize,
    /// How many answers are computed for each prompt: the largest of `n`, `best_of` and
    /// `sampling_params.n`, at least 1.
    pub completions: u64,
    pub stream_options: StreamOptions,
    /// `stream_options.include_usage` and where its value stands; `null` is false.
    pub include_usage: Option<(bool, Range<usize>)>,
    /// `stream_options.continuous_usage_stats` (vLLM) and where its value stands; `null` is false.
    pub continuous_usage: Option<(bool, Range<usize>)>,
    /// None also where it is no string or longer than [`super::TEXT_LIMIT`].
    pub user: Option<String>,
    pub previous_response_id: Option<String>,
    /// The first field of [`STEERING`] that stands in the body.
    pub steering: Option<&'static str>,
    pub onward: Onward,
}

/// A string of the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// Decoded.
    pub value: String,
    /// Where it stands in the body as it was sent, with its quotes where it has some.
    pub range: Range<usize>,
}

/// The value of `stream_options`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StreamOptions {
    #[default]
    Absent,
    /// Where the `null` stands.
    Null(Range<usize>),
    /// Where the object stands, and whether it has no member.
    Object { range: Range<usize>, is_empty: bool },
}

/// A field that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Model,
    Stream,
    MaxCompletionTokens,
    MaxTokens,
    MaxOutputTokens,
    N,
    BestOf,
    User,
    PreviousResponseId,
    StreamOptions,
    IncludeUsage,
    ContinuousUsage,
    SamplingParams,
    /// What else vLLM's sampler is given: `vllm_xargs`.
    Xargs,
    /// Where a list makes several requests of one, as in `prompt`: SGLang's `text` and `input_ids`.
    Prompts,
    SamplingN,
    SamplingBestOf,
    SamplingMaxTokens,
    /// An index into [`STEERING`].
    Steering(u8),
    Onward(Key),
}

impl Field {
    /// For what its end matters, if it is an array or object.
    pub fn spans(self) -> Option<Key> {
        match self {
            Onward(key) if key.spans() => Some(key),
            _ => None,
        }
    }
}

/// The object whose keys are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// One that has nothing to read.
    Other,
    Top,
    StreamOptions,
    SamplingParams,
    Xargs,
    ResponseFormat,
    Message,
    /// Of the content of a message.
    Part,
}

use Field::*;

const TOP: &[(&str, Field)] = &[
    ("model", Model),
    ("messages", Onward(Key::Messages)),
    ("stream", Stream),
    ("max_tokens", MaxTokens),
    ("temperature", Onward(Key::Carried(0))),
    ("max_completion_tokens", MaxCompletionTokens),
    ("max_output_tokens", MaxOutputTokens),
    ("n", N),
    ("best_of", BestOf),
    ("user", User),
    ("previous_response_id", PreviousResponseId),
    ("stream_options", StreamOptions),
    ("sampling_params", SamplingParams),
    ("vllm_xargs", Xargs),
    ("text", Prompts),
    ("input_ids", Prompts),
    ("prompt", Onward(Key::Prompt)),
    ("top_p", Onward(Key::Carried(1))),
    ("top_k", Onward(Key::Carried(2))),
    ("min_p", Onward(Key::Carried(3))),
    ("seed", Onward(Key::Carried(4))),
    ("repetition_penalty", Onward(Key::Carried(6))),
    ("logit_bias", Onward(Key::Carried(7))),
    ("ignore_eos", Onward(Key::Carried(8))),
    ("stop", Onward(Key::Carried(9))),
    ("min_tokens", Onward(Key::MinTokens)),
    ("metadata", Onward(Key::Harmless)),
    ("chat_template_kwargs", Onward(Key::Harmless)),
    ("tools", Onward(Key::Tools)),
    ("tool_choice", Onward(Key::ToolChoice)),
    ("response_format", Onward(Key::ResponseFormat)),
    ("frequency_penalty", Onward(Key::Zero)),
    ("presence_penalty", Onward(Key::Zero)),
    ("top_logprobs", Onward(Key::Zero)),
    ("logprobs", Onward(Key::Off)),
    ("echo", Onward(Key::Off)),
];

const IN_STREAM_OPTIONS: &[(&str, Field)] = &[
    ("include_usage", IncludeUsage),
    ("continuous_usage_stats", ContinuousUsage),
];

const IN_SAMPLING_PARAMS: &[(&str, Field)] = &[
    ("n", SamplingN),
    ("best_of", SamplingBestOf),
    ("max_new_tokens", SamplingMaxTokens),
];

/// A key that is none of a field.
pub(super) const UNKNOWN: Field = Onward(Key::Unknown);

/// The longest key that can be one of a field, raw: every character as `\uXXXX`.
pub(super) const RAW_KEY_LIMIT: usize = 6 * 31;

/// For every first byte the lengths of the fields that begin with it, as a set of bits: nearly every
/// other key is told by it.
const LENGTHS: [u32; 256] = {
    let mut lengths = [0; 256];
    let mut i = 0;
    while i < TOP.len() {
        lengths[TOP[i].0.as_bytes()[0] as usize] |= 1 << TOP[i].0.len();
        i += 1;
    }
    i = 0;
    while i < STEERING.len() {
        lengths[STEERING[i].0.as_bytes()[0] as usize] |= 1 << STEERING[i].0.len();
        i += 1;
    }
    lengths
};

impl Scope {
    /// The field that `key`, decoded, is in this scope. At the top every key is one.
    pub fn field(self, key: &[u8]) -> Option<Field> {
        match self {
            Self::Other => None,
            Self::Top => {
                let Some(&first) = key.first() else {
                    return Some(UNKNOWN);
                };
                let lengths = LENGTHS[usize::from(first)];
                if key.len() > 31 || lengths >> key.len() & 1 == 0 {
                    return Some(UNKNOWN);
                }
                find(TOP, key).or_else(|| steering(key)).or(Some(UNKNOWN))
            }
            Self::StreamOptions => find(IN_STREAM_OPTIONS, key),
            Self::SamplingParams => find(IN_SAMPLING_PARAMS, key),
            Self::Xargs => steering(key),
            Self::ResponseFormat if key == b"type" => Some(Onward(Key::ResponseFormatType)),
            Self::ResponseFormat => Some(UNKNOWN),
            Self::Message => (key == b"content").then_some(Onward(Key::Content)),
            Self::Part => match key {
                b"type" => Some(Onward(Key::PartType)),
                b"text" | b"cache_control" => None,
                _ => Some(Onward(Key::PartOther)),
            },
        }
    }
}

fn find(table: &[(&str, Field)], key: &[u8]) -> Option<Field> {
    let row = table.iter().find(|(name, _)| name.as_bytes() == key);
    row.map(|(_, field)| *field)
}

fn steering(key: &[u8]) -> Option<Field> {
    let mut names = STEERING.iter().map(|(name, _)| name.as_bytes());
    let index = names.position(|name| name == key)?;
    u8::try_from(index).ok().map(Steering)
}

/// The field of [`STEERING`] that `name`, decoded, is.
pub(super) fn steering_field(name: &[u8]) -> Option<&'static str> {
    let mut names = STEERING.iter().map(|(known, _)| *known);
    names.find(|known| known.as_bytes() == name)
}

/// Whether a top-level key that is no field could still be read as the model by somebody.
pub(super) fn is_model_in_other_case(key: &[u8]) -> bool {
    key.len() == 5 && key.eq_ignore_ascii_case(b"model")
}

/// The values read so far.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    model: Slot<Text>,
    stream: Slot<bool>,
    max_completion_tokens: Slot<u64>,
    max_tokens: Slot<u64>,
    max_output_tokens: Slot<u64>,
    n: Slot<u64>,
    best_of: Slot<u64>,
    sampling: Sampling,
    options: Slot<Options>,
    user: Option<String>,
    previous_response_id: Slot<Text>,
    steering: Option<&'static str>,
    prompts: Prompts,
    onward: Reading,
}

/// The longest of all lists of prompts, for the same reason as [`Sampling`].
#[derive(Debug, Clone, Copy, Default)]
struct Prompts {
    longest: u64,
    current: u64,
}

#[derive(Debug, Clone)]
struct Options {
    place: self::StreamOptions,
    include_usage: Slot<(bool, Range<usize>)>,
    continuous_usage: Slot<(bool, Range<usize>)>,
}

impl Options {
    fn new(place: self::StreamOptions) -> Self {
        Self {
            place,
            include_usage: Ok(None),
            continuous_usage: Ok(None),
        }
    }
}

/// The largest of each over all objects of a list, and over keys that stand twice: a cap must hold
/// for every one of them.
#[derive(Debug, Clone, Copy)]
struct Sampling {
    completions: u64,
    max_tokens: Option<u64>,
    fault: Option<BodyFault>,
}

impl Sampling {
    const NONE: Self = Self {
        completions: 1,
        max_tokens: None,
        fault: None,
    };
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            model: Ok(None),
            stream: Ok(None),
            max_completion_tokens: Ok(None),
            max_tokens: Ok(None),
            max_output_tokens: Ok(None),
            n: Ok(None),
            best_of: Ok(None),
            sampling: Sampling::NONE,
            options: Ok(None),
            user: None,
            previous_response_id: Ok(None),
            steering: None,
            prompts: Prompts::default(),
            onward: Reading::default(),
        }
    }
}

impl Fields {
    /// Takes the value of a field. `at` is where it stands; for an array or object its first byte.
    /// Fails where the value's text is no JSON; what is merely wrong waits for [`Self::finish`].
    pub fn set(&mut self, field: Field, raw: Raw<'_>, at: Range<usize>) -> Result<(), BodyFault> {
        self.weigh(field, raw, &at);
        match field {
            Model => self.model = text("model", raw, at)?,
            PreviousResponseId => {
                self.previous_response_id = text("previous_response_id", raw, at)?
            }
            User => {
                let text = text("user", raw, at)?;
                self.user = text.ok().flatten().map(|text| text.value);
            }
            Stream => self.stream = truth("stream", raw, &at),
            MaxCompletionTokens => {
                self.max_completion_tokens = amount("max_completion_tokens", raw, &at);
            }
            MaxTokens => self.max_tokens = amount("max_tokens", raw, &at),
            MaxOutputTokens => self.max_output_tokens = amount("max_output_tokens", raw, &at),
            N => self.n = amount("n", raw, &at),
            BestOf => self.best_of = amount("best_of", raw, &at),
            StreamOptions => self.options = stream_options(raw, at),
            IncludeUsage | ContinuousUsage => self.set_option(field, raw, at),
            // Whatever it holds: its members are judged where they are read.
            SamplingParams => self.sampling = Sampling::NONE,
            Xargs => {}
            Field::Prompts | Onward(Key::Prompt) => self.prompts.current = 0,
            SamplingN => self.sampling.count("sampling_params.n", raw, &at),
            SamplingBestOf => self.sampling.count("sampling_params.best_of", raw, &at),
            SamplingMaxTokens => {
                let tokens = self
                    .sampling
                    .read("sampling_params.max_new_tokens", raw, &at);
                self.sampling.max_tokens = self.sampling.max_tokens.max(tokens);
            }
            Steering(index) => {
                if !matches!(raw, Raw::Null | Raw::False) && self.steering.is_none() {
                    let row = STEERING.get(usize::from(index));
                    self.steering = row.map(|(name, _)| *name);
                }
            }
            Onward(_) => {}
        }
        Ok(())
    }

    /// One more prompt of the list that is being read.
    pub fn count_prompt(&mut self) {
        self.prompts.current += 1;
        self.prompts.longest = self.prompts.longest.max(self.prompts.current);
    }

    /// What a field says of going on elsewhere.
    fn weigh(&mut self, field: Field, raw: Raw<'_>, at: &Range<usize>) {
        let onward = &mut self.onward;
        let is_one = || amount("n", raw, at).is_ok_and(|count| count.is_none_or(|n| n == 1));
        match field {
            Onward(key) => onward.set(key, raw, at.clone()),
            User => onward.set(Key::Carried(USER), raw, at.clone()),
            N | BestOf if is_one() => {}
            ContinuousUsage if matches!(raw, Raw::False | Raw::Null) => {}
            N | BestOf | ContinuousUsage => onward.bar(),
            PreviousResponseId
            | MaxOutputTokens
            | SamplingParams
            | Xargs
            | Field::Prompts
            | Steering(_) => {
                onward.set(Key::Unknown, raw, at.clone());
            }
            _ => {}
        }
    }

    /// An array or object at the top has ended.
    pub fn end_span(&mut self, key: Key, range: Range<usize>, is_empty: bool) {
        self.onward.end(key, range, is_empty);
    }

    /// The object of `stream_options` has ended.
    pub fn end_stream_options(&mut self, range: Range<usize>, is_empty: bool) {
        if let Ok(Some(options)) = &mut self.options {
            options.place = self::StreamOptions::Object { range, is_empty };
        }
    }

    fn set_option(&mut self, field: Field, raw: Raw<'_>, at: Range<usize>) {
        let Ok(Some(options)) = &mut self.options else {
            return;
        };
        if field == IncludeUsage {
            let value = truth("stream_options.include_usage", raw, &at);
            options.include_usage = value.map(|value| Some((value.unwrap_or(false), at)));
        } else {
            let value = truth("stream_options.continuous_usage_stats", raw, &at);
            options.continuous_usage = value.map(|value| Some((value.unwrap_or(false), at)));
        }
    }

    /// What they come to; fails where a field's last value is wrong.
    pub fn finish(
        mut self,
        object: Range<usize>,
        is_empty_object: bool,
    ) -> Result<Peeked, BodyFault> {
        let absent = Options::new(self::StreamOptions::Absent);
        let options = self.options?.unwrap_or(absent);
        if let Some(fault) = self.sampling.fault {
            return Err(fault);
        }
        let asked = [
            self.max_completion_tokens?,
            self.max_tokens?,
            self.max_output_tokens?,
        ];
        let [completion, plain, _] = asked;
        self.onward.limited(completion.is_some(), plain.is_some());
        // Chat counts the one, completions the other.
        if completion
            .zip(plain)
            .is_some_and(|(one, other)| one != other)
        {
            self.onward.bar();
        }
        let completions = [self.n?, self.best_of?, Some(self.sampling.completions)];
        Ok(Peeked {
            object,
            is_empty_object,
            model: self.model?,
            stream: self.stream?,
            max_tokens: asked
                .into_iter()
                .chain([self.sampling.max_tokens])
                .flatten()
                .max(),
            prompts: self.prompts.longest.max(1),
            encoded: 0,
            completions: completions.into_iter().flatten().max().unwrap_or(1),
            stream_options: options.place,
            include_usage: options.include_usage?,
            continuous_usage: options.continuous_usage?,
            user: self.user,
            previous_response_id: self.previous_response_id?.map(|text| text.value),
            steering: self.steering,
            onward: self.onward.finish(),
        })
    }
}

impl Sampling {
    fn count(&mut self, field: &'static str, raw: Raw<'_>, at: &Range<usize>) {
        let completions = self.read(field, raw, at);
        self.completions = self.completions.max(completions.unwrap_or(1));
    }

    fn read(&mut self, field: &'static str, raw: Raw<'_>, at: &Range<usize>) -> Option<u64> {
        amount(field, raw, at).unwrap_or_else(|fault| {
            self.fault.get_or_insert(fault);
            None
        })
    }
}

fn stream_options(raw: Raw<'_>, at: Range<usize>) -> Slot<Options> {
    match raw {
        Raw::Null => Ok(Some(Options::new(self::StreamOptions::Null(at)))),
        // Its end is not known yet.
        Raw::Object => Ok(Some(Options::new(self::StreamOptions::Absent))),
        _ => Err(BodyFault::WrongType {
            at: at.start,
            field: "stream_options",
            expected: "an object such as {\"include_usage\": true}",
        }),
    }
}
