//! One event of a completion or a chat, by where its values stand: nothing is decoded that is not needed.

use std::ops::Range;

/// What stands in the JSON of one event.
#[derive(Debug, Default)]
pub(super) struct Chunk<'a> {
    pub id: Option<&'a [u8]>,
    pub object: Option<&'a [u8]>,
    pub created: Option<&'a [u8]>,
    pub model: Option<&'a [u8]>,
    pub usage: Option<&'a [u8]>,
    pub choices: usize,
    /// The last choice.
    pub choice: Choice<'a>,
    /// Where the lists of ids stand, of the prompt and of the answer, in the order they stand.
    pub ids: Vec<Range<usize>>,
    pub prompt_ids: Option<&'a [u8]>,
}

#[derive(Debug, Default)]
pub(super) struct Choice<'a> {
    /// Its `index` is not 0.
    pub is_other: bool,
    pub delta: Option<&'a [u8]>,
    pub text: Option<Text<'a>>,
    pub finish_reason: Option<&'a [u8]>,
    pub stop_reason: Option<&'a [u8]>,
    pub token_ids: Option<&'a [u8]>,
    /// Where [`Self::token_ids`] stand.
    pub token_ids_at: Range<usize>,
    pub role: bool,
    pub content: Option<Text<'a>>,
    /// The name under which reasoning came, and the text.
    pub reasoning: Option<(&'a [u8], Text<'a>)>,
    /// Something of a delta that is neither text nor a role.
    pub has_more: bool,
}

/// The content of a JSON string, escapes as they are, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub raw: &'a [u8],
    pub at: usize,
}

impl Text<'_> {
    /// Decoded; what is no text is empty.
    pub fn decode(&self) -> String {
        decode(self.raw)
    }
}

/// The characters of a JSON string's content.
pub(super) fn decode(raw: &[u8]) -> String {
    if !raw.contains(&b'\\') {
        return String::from_utf8_lossy(raw).into_owned();
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice(&quoted).unwrap_or_default()
}

impl<'a> Chunk<'a> {
    /// Reads `event[from..]`, which begins with the JSON of the event; `None` where that is no object.
    pub fn read(event: &'a [u8], from: usize) -> Option<Self> {
        let mut chunk = Self::default();
        let mut ids = Vec::new();
        members(event, from, |name, value| {
            let json = &event[value.clone()];
            match name {
                b"id" => chunk.id = Some(json),
                b"object" => chunk.object = Some(json),
                b"created" => chunk.created = Some(json),
                b"model" => chunk.model = Some(json),
                b"usage" => chunk.usage = given(json),
                b"prompt_token_ids" => {
                    chunk.prompt_ids = given(json).or(chunk.prompt_ids);
                    ids.extend(given(json).map(|_| value));
                }
                b"choices" => {
                    elements(event, value.start, |element| {
                        chunk.choices += 1;
                        let (choice, prompt_ids) = Choice::read(event, element.start, &mut ids)?;
                        chunk.choice = choice;
                        chunk.prompt_ids = prompt_ids.or(chunk.prompt_ids);
                        Some(())
                    })?;
                }
                _ => {}
            }
            Some(())
        })?;
        chunk.ids = ids;
        Some(chunk)
    }
}

impl<'a> Choice<'a> {
    fn read(
        event: &'a [u8],
        from: usize,
        ids: &mut Vec<Range<usize>>,
    ) -> Option<(Self, Option<&'a [u8]>)> {
        let mut choice = Self::default();
        let mut prompt_ids = None;
        members(event, from, |name, value| {
            let json = &event[value.clone()];
            match name {
                b"index" => choice.is_other = json != b"0",
                b"delta" => {
                    choice.delta = given(json);
                    if choice.delta.is_some() {
                        choice.read_delta(event, value.start)?;
                    }
                }
                b"text" => choice.text = text(json, &value),
                b"finish_reason" => choice.finish_reason = given(json),
                b"stop_reason" => choice.stop_reason = given(json),
                b"token_ids" if given(json).is_some() => {
                    choice.token_ids = Some(json);
                    choice.token_ids_at = value.clone();
                    ids.push(value);
                }
                b"prompt_token_ids" if given(json).is_some() => {
                    prompt_ids = Some(json);
                    ids.push(value);
                }
                _ => {}
            }
            Some(())
        })?;
        Some((choice, prompt_ids))
    }

    fn read_delta(&mut self, event: &'a [u8], from: usize) -> Option<()> {
        members(event, from, |name, value| {
            let json = &event[value.clone()];
            match name {
                b"role" => self.role = true,
                b"content" => self.content = text(json, &value),
                b"reasoning" | b"reasoning_content" => {
                    let text = text(json, &value).filter(|text| !text.raw.is_empty());
                    self.reasoning = text.map(|text| (name, text)).or(self.reasoning);
                }
                _ => self.has_more |= !is_nothing(json),
            }
            Some(())
        })?;
        Some(())
    }

    /// The text of a completion, or the content of a chat, if there is some.
    pub fn shown(&self) -> Option<Text<'a>> {
        let text = self.text.or(self.content);
        text.filter(|text| !text.raw.is_empty())
    }
}

/// A value other than null.
fn given(json: &[u8]) -> Option<&[u8]> {
    (json != b"null").then_some(json)
}

fn is_nothing(json: &[u8]) -> bool {
    matches!(json, b"null" | b"\"\"" | b"[]" | b"{}")
}

fn text<'a>(json: &'a [u8], at: &Range<usize>) -> Option<Text<'a>> {
    let raw = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(Text {
        raw,
        at: at.start + 1,
    })
}

/// The members of the object at `from`: their names as they are written and where their values stand.
/// `None` where it is no object, or where `each` says so.
pub(super) fn members<'a>(
    json: &'a [u8],
    from: usize,
    mut each: impl FnMut(&'a [u8], Range<usize>) -> Option<()>,
) -> Option<()> {
    let mut at = open(json, from, b'{')?;
    if *json.get(at)? == b'}' {
        return Some(());
    }
    loop {
        let name_end = string_end(json, at)?;
        let name = &json[at + 1..name_end - 1];
        at = blank(json, name_end);
        if *json.get(at)? != b':' {
            return None;
        }
        let start = blank(json, at + 1);
        let end = value_end(json, start)?;
        each(name, start..end)?;
        at = blank(json, end);
        match json.get(at)? {
            b',' => at = blank(json, at + 1),
            b'}' => return Some(()),
            _ => return None,
        }
    }
}

fn elements(
    json: &[u8],
    from: usize,
    mut each: impl FnMut(Range<usize>) -> Option<()>,
) -> Option<()> {
    if json[from..].starts_with(b"null") {
        return Some(());
    }
    let mut at = open(json, from, b'[')?;
    if *json.get(at)? == b']' {
        return Some(());
    }
    loop {
        let end = value_end(json, at)?;
        each(at..end)?;
        at = blank(json, end);
        match json.get(at)? {
            b',' => at = blank(json, at + 1),
            b']' => return Some(()),
            _ => return None,
        }
    }
}

fn open(json: &[u8], from: usize, bracket: u8) -> Option<usize> {
    let at = blank(json, from);
    (*json.get(at)? == bracket).then(|| blank(json, at + 1))
}

fn blank(json: &[u8], mut at: usize) -> usize {
    while matches!(json.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Behind the quote that ends the string at `from`.
fn string_end(json: &[u8], from: usize) -> Option<usize> {
    if *json.get(from)? != b'"' {
        return None;
    }
    let mut at = from + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', json.get(at..)?)?;
        match json[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

fn value_end(json: &[u8], from: usize) -> Option<usize> {
    match json.get(from)? {
        b'"' => string_end(json, from),
        b'{' | b'[' => {
            let (mut at, mut depth) = (from, 0_usize);
            loop {
                at += json
                    .get(at..)?
                    .iter()
                    .position(|b| matches!(b, b'"' | b'{' | b'}' | b'[' | b']'))?;
                match json[at] {
                    b'"' => at = string_end(json, at)?,
                    b'{' | b'[' => (at, depth) = (at + 1, depth + 1),
                    _ => (at, depth) = (at + 1, depth - 1),
                }
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let ends =
                |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            let length = json[from..].iter().position(ends)?;
            (length > 0).then_some(from + length)
        }
    }
}

/// Room for `count` more ids and some to come, where there is none. Not doubled: a prompt may have a million.
pub(super) fn make_room(ids: &mut Vec<u32>, count: usize) {
    if ids.len() == ids.capacity() {
        ids.reserve_exact(count + ids.len() / 4 + 64);
    }
}

/// Adds the numbers of a JSON list to `out`; `None` where it is none of token ids.
pub(super) fn ids(json: &[u8], out: &mut Vec<u32>) -> Option<usize> {
    let inner = json.strip_prefix(b"[")?.strip_suffix(b"]")?;
    let before = out.len();
    if out.capacity() == before {
        make_room(out, memchr::memchr_iter(b',', inner).count() + 1);
    }
    if inner.trim_ascii().is_empty() {
        return Some(0);
    }
    for number in inner.split(|&byte| byte == b',') {
        out.push(id(number.trim_ascii())?);
    }
    Some(out.len() - before)
}

fn id(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u64::from(digit - b'0'))
    })?;
    u32::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_of_a_chat_is_read() {
        let event = br#"data: {"id":"c","object":"o","created":7,"model":"M","choices":[{"index":0,"delta":{"content":"a\"b"},"logprobs":null,"finish_reason":null,"token_ids":[3, 44]}]}"#;
        let chunk = Chunk::read(event, 6).unwrap();
        assert_eq!(chunk.id, Some(&b"\"c\""[..]));
        assert_eq!(chunk.created, Some(&b"7"[..]));
        assert_eq!(chunk.choices, 1);
        let text = chunk.choice.shown().unwrap();
        assert_eq!((text.raw, text.decode().as_str()), (&b"a\\\"b"[..], "a\"b"));
        assert_eq!(&event[text.at..text.at + text.raw.len()], text.raw);
        let mut out = vec![1];
        assert_eq!(ids(chunk.choice.token_ids.unwrap(), &mut out), Some(2));
        assert_eq!(out, [1, 3, 44]);
        assert!(!chunk.choice.has_more && !chunk.choice.role);
    }

    #[test]
    fn ids_of_prompts_stand_in_two_places() {
        for event in [
            &br#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"prompt_token_ids":[1,2]}"#[..],
            br#"{"choices":[{"index":0,"text":"","prompt_token_ids":[1,2],"token_ids":null}]}"#,
        ] {
            let chunk = Chunk::read(event, 0).unwrap();
            assert_eq!(chunk.prompt_ids, Some(&b"[1,2]"[..]));
            assert_eq!(chunk.ids.len(), 1);
            assert!(chunk.choice.shown().is_none());
        }
    }

    #[test]
    fn what_are_no_ids_are_none() {
        for none in [
            "[-1]",
            "[1.5]",
            "[\"a\"]",
            "[99999999999]",
            "[4294967296]",
            "{}",
            "[1,]",
            "[[1]]",
        ] {
            assert_eq!(ids(none.as_bytes(), &mut Vec::new()), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_too_odd_to_be_looked_at(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Chunk::read(&bytes, 0);
        }

        #[test]
        fn half_an_event_is_none(length in 0usize..150) {
            let event = br#"{"id":"c","choices":[{"index":0,"delta":{"content":"a\"b","tool_calls":[{"x":[1,{}]}]},"finish_reason":null,"token_ids":[3, 44]}],"usage":null}"#;
            if length < event.len() {
                prop_assert!(Chunk::read(&event[..length], 0).is_none());
            }
        }
    }
}
