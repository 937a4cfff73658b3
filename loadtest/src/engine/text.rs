//! What a simulated engine says: a small vocabulary, a reversible tokenizer and a generator.
//!
//! The next token depends only on the tokens before it, as greedy decoding does. So the same prompt
//! has the same answer on every engine, and an answer that is cut and continued elsewhere, by token
//! ids or by text, goes on as it would have.

use std::collections::HashMap;
use std::sync::LazyLock;

/// A token that is a whole word.
pub(super) const WHOLE_WORD: u32 = FIRST_WORD;

/// Ends a message. Never a token of the text.
pub const EOS: u32 = 0;
/// Begins every prompt.
pub const BOS: u32 = 1;
/// Begins a message of anyone but the assistant.
pub const USER: u32 = 2;
/// The answer begins after the last of these.
pub const ASSISTANT: u32 = 3;

/// Ends the reasoning of models that reason.
pub const END_OF_REASONING: u32 = 4;
const END_OF_REASONING_TEXT: &[u8] = b"</think>";

/// Tokens of an explicit answer ([`super::Script::answer`]) are numbered from here.
pub const EXPLICIT: u32 = 1000;

const FIRST_WORD: u32 = 100;
/// Ids of bytes outside the vocabulary: the number of bytes (1 to 3) in the high bits, then the bytes.
const BYTES: u32 = 1 << 24;
const LONGEST_WORD: usize = 24;

/// Words of one token, and words of two whose seam lies inside a character, as byte-level tokenizers
/// cut them. Each starts with its blank, so that a blank always starts a token.
const WORDS: &[&str] = &[
    " the",
    " a",
    " gateway",
    " stands",
    " in",
    " front",
    " of",
    " engines",
    " and",
    " picks",
    " one",
    " for",
    " each",
    " request",
    " it",
    " counts",
    " what",
    " is",
    " under",
    " way",
    " exactly",
    " so",
    " that",
    " no",
    " node",
    " waits",
    " while",
    " another",
    " works",
    " tokens",
    " arrive",
    " when",
    " they",
    " are",
    " made",
    " never",
    " later",
    " a",
    " stream",
    " which",
    " breaks",
    " goes",
    " on",
    " elsewhere",
    " nothing",
    " lost",
    " twice",
    " over",
    " again",
    " then",
    " rests",
    " here.\n\nThe",
    " said:",
    " \"yes\"",
    " C:\\path",
    " naïve",
    " schön",
    " Äpfel",
    " кофе",
    " 日本",
    " teatime",
    " 1,",
    " {x}",
    " if:\n",
    " 🚀",
    " ☕",
    " 語",
    " 👩‍💻",
];
/// Words that are two tokens, and where the second begins.
const SPLIT: &[(&str, usize)] = &[(" 🚀", 3), (" ☕", 2), (" 語", 3), (" 👩‍💻", 3)];

struct Vocabulary {
    /// By `id - FIRST_WORD`.
    tokens: Vec<&'static [u8]>,
    first_halves: Vec<bool>,
    by_word: HashMap<&'static [u8], u32>,
    /// What a generator may begin a word with.
    starts: Vec<u32>,
}

static VOCABULARY: LazyLock<Vocabulary> = LazyLock::new(|| {
    let mut vocabulary = Vocabulary {
        tokens: Vec::new(),
        first_halves: Vec::new(),
        by_word: HashMap::new(),
        starts: Vec::new(),
    };
    for word in WORDS {
        let id = FIRST_WORD + vocabulary.tokens.len() as u32;
        let bytes = word.as_bytes();
        if vocabulary.by_word.contains_key(bytes) {
            continue;
        }
        vocabulary.by_word.insert(bytes, id);
        vocabulary.starts.push(id);
        match SPLIT.iter().find(|(split, _)| split == word) {
            Some((_, at)) => {
                vocabulary.tokens.extend([&bytes[..*at], &bytes[*at..]]);
                vocabulary.first_halves.extend([true, false]);
            }
            None => {
                vocabulary.tokens.push(bytes);
                vocabulary.first_halves.push(false);
            }
        }
    }
    vocabulary
});

/// Whether `id` is the first half of a character cut in two.
pub(super) fn is_first_half(id: u32) -> bool {
    id >= FIRST_WORD
        && VOCABULARY
            .first_halves
            .get((id - FIRST_WORD) as usize)
            .copied()
            .unwrap_or(false)
}

/// Whether `id` can be a token of a prompt.
pub fn is_known(id: u32) -> bool {
    id <= END_OF_REASONING || id < EXPLICIT + 100_000 || (id >> 24 >= 1 && id >> 24 <= 3)
}

/// Adds the bytes of a token to `out`; special tokens have none.
pub fn decode(id: u32, out: &mut Vec<u8>) {
    if id == END_OF_REASONING {
        out.extend_from_slice(END_OF_REASONING_TEXT);
    } else if id >= BYTES {
        let count = (id >> 24).min(3) as usize;
        out.extend_from_slice(&id.to_be_bytes()[1..=count]);
    } else if id >= FIRST_WORD
        && let Some(bytes) = VOCABULARY.tokens.get((id - FIRST_WORD) as usize)
    {
        out.extend_from_slice(bytes);
    }
}

/// Calls `token` with each token of `text`. Text joined from generated words gives their tokens again.
pub fn tokenize(text: &[u8], mut token: impl FnMut(u32)) {
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(END_OF_REASONING_TEXT) {
            token(END_OF_REASONING);
            rest = after;
            continue;
        }
        let end = memchr::memchr(b' ', &rest[1..]).map_or(rest.len(), |at| at + 1);
        let (piece, after) = rest.split_at(end);
        rest = after;
        if piece.len() <= LONGEST_WORD
            && let Some(id) = VOCABULARY.by_word.get(piece)
        {
            token(*id);
            if is_first_half(*id) {
                token(id + 1);
            }
            continue;
        }
        for group in piece.chunks(3) {
            let mut id = (group.len() as u32) << 24;
            for (index, byte) in group.iter().enumerate() {
                id |= u32::from(*byte) << (16 - 8 * index);
            }
            token(id);
        }
    }
}

/// Everything the next token depends on.
#[derive(Debug, Clone)]
pub struct Context {
    hash: u64,
    last: u32,
    /// Tokens since the last [`ASSISTANT`]: the length of the answer so far.
    pub answered: usize,
    /// All tokens, special ones included.
    pub length: usize,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            hash: 0x9e37_79b9_7f4a_7c15,
            last: BOS,
            answered: 0,
            length: 0,
        }
    }
}

impl Context {
    /// The context of a chat with these `(role, content)` messages, ready to answer.
    pub fn chat<'a>(messages: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut context = Self::default();
        render_chat(messages, true, |id| context.push(id));
        context
    }

    /// The context of a plain prompt, ready to answer.
    pub fn prompt(text: &str) -> Self {
        let mut context = Self::default();
        render_prompt(text, |id| context.push(id));
        context
    }

    /// Takes one more token in.
    pub fn push(&mut self, id: u32) {
        self.length += 1;
        self.last = id;
        match id {
            ASSISTANT => self.answered = 0,
            EOS | BOS | USER => {}
            _ => {
                self.answered += 1;
                self.hash = mix(self.hash ^ u64::from(id));
            }
        }
    }

    /// Makes the `index`-th of several answers to one prompt differ from the first.
    pub fn vary(&mut self, index: usize) {
        if index > 0 {
            self.hash = mix(self.hash.wrapping_add(index as u64));
        }
    }

    /// The next token of the answer; it is not yet taken in.
    pub fn next(&self) -> u32 {
        if is_first_half(self.last) {
            return self.last + 1;
        }
        let starts = &VOCABULARY.starts;
        starts[(self.hash >> 32) as usize % starts.len()]
    }

    /// Whether the context ends inside a character.
    pub fn in_character(&self) -> bool {
        is_first_half(self.last)
    }
}

/// Calls `token` with the tokens of a rendered chat. With `answer`, the last is [`ASSISTANT`]; without,
/// the last message is an unfinished one of the assistant and the answer goes on from its end.
pub fn render_chat<'a>(
    messages: impl IntoIterator<Item = (&'a str, &'a str)>,
    answer: bool,
    mut token: impl FnMut(u32),
) {
    token(BOS);
    let mut messages = messages.into_iter().peekable();
    while let Some((role, content)) = messages.next() {
        token(if role == "assistant" { ASSISTANT } else { USER });
        tokenize(content.as_bytes(), &mut token);
        if role == "assistant" && (answer || messages.peek().is_some()) {
            token(EOS);
        }
    }
    if answer {
        token(ASSISTANT);
    }
}

/// Calls `token` with the tokens of a plain prompt.
pub fn render_prompt(text: &str, mut token: impl FnMut(u32)) {
    token(BOS);
    tokenize(text.as_bytes(), &mut token);
    token(ASSISTANT);
}

/// The first `tokens` tokens of the answer in `context`, as text.
pub fn answer(mut context: Context, tokens: usize) -> String {
    let mut bytes = Vec::new();
    for _ in 0..tokens {
        let id = context.next();
        decode(id, &mut bytes);
        context.push(id);
    }
    // A cut inside a character shows the part before it, as an engine does.
    match std::str::from_utf8(&bytes) {
        Ok(text) => text.to_owned(),
        Err(error) => String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned(),
    }
}

fn mix(value: u64) -> u64 {
    let product = u128::from(value ^ 0xa076_1d64_78bd_642f) * 0xe703_7ed1_a0b4_28db_u128;
    (product as u64) ^ (product >> 64) as u64
}

/// A fast 64-bit hash to compare bodies by; no protection against anyone.
pub fn hash(bytes: &[u8]) -> u64 {
    let mut state = bytes.len() as u64 ^ 0x51_7c_c1_b7_27_22_0a_95;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        state = (state ^ u64::from_le_bytes(word.try_into().expect("eight bytes")))
            .wrapping_mul(0x9fb2_1c65_1e98_df25);
        state ^= state >> 29;
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    state = (state ^ u64::from_le_bytes(last)).wrapping_mul(0x9fb2_1c65_1e98_df25);
    state ^ (state >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_prompt_has_the_same_answer() {
        let ask = || answer(Context::chat([("user", "Hello, engine")]), 200);
        assert_eq!(ask(), ask());
        assert_ne!(
            ask(),
            answer(Context::chat([("user", "Hello, machine")]), 200)
        );
    }

    #[test]
    fn long_answers_hold_characters_of_several_bytes_and_do_not_loop() {
        let text = answer(Context::prompt("x"), 400);
        assert!(text.contains('🚀') || text.contains('語') || text.contains('☕'));
        let words: Vec<_> = text.split(' ').collect();
        assert!(!words.windows(40).any(|w| w[..20] == w[20..]), "{text}");
    }

    #[test]
    fn an_answer_continued_by_ids_or_by_text_goes_on_as_the_uncut_one() {
        let whole = answer(Context::chat([("user", "seams")]), 300);
        for cut in 0..300 {
            let mut context = Context::chat([("user", "seams")]);
            let mut shown = Vec::new();
            for _ in 0..cut {
                let id = context.next();
                decode(id, &mut shown);
                context.push(id);
            }
            let mut by_ids = shown.clone();
            for _ in cut..300 {
                let id = context.next();
                decode(id, &mut by_ids);
                context.push(id);
            }
            assert!(
                whole.as_bytes().starts_with(&by_ids[..whole.len()]),
                "by ids, cut at {cut}"
            );
            let Ok(text) = std::str::from_utf8(&shown) else {
                continue;
            };
            let mut by_text = Context::default();
            render_chat([("user", "seams"), ("assistant", text)], false, |id| {
                by_text.push(id)
            });
            assert_eq!(by_text.answered, cut, "{text:?}");
            assert_eq!(
                format!("{text}{}", answer(by_text, 300 - cut)),
                whole,
                "by text, cut at {cut}"
            );
        }
    }

    #[test]
    fn tokenizing_and_decoding_gives_the_bytes_again() {
        for text in [
            "",
            " ",
            "  two  blanks ",
            "ünïcödé 🚀 and 日本語",
            "x".repeat(1000).as_str(),
            " if:\n  ",
            "a if:\n    b",
        ] {
            let mut bytes = Vec::new();
            tokenize(text.as_bytes(), |id| decode(id, &mut bytes));
            assert_eq!(bytes, text.as_bytes());
        }
    }

    #[test]
    fn the_hash_tells_bodies_apart() {
        assert_ne!(hash(b""), hash(b"\0"));
        assert_ne!(hash(&[0; 64]), hash(&[0; 65]));
        assert_ne!(hash(b"abcdefgh1"), hash(b"abcdefgh2"));
    }
}
