//! One JSON body, read by our scanner and by serde_json.
//!
//! Whatever the cutting, the scanner says the same. It takes a body exactly if serde_json takes it
//! with the insides of its strings blanked, but for what README.md lists. Where serde_json takes the body as
//! it is, both read the same values, and what our edits make of it reads as it should.

use std::ops::Range;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::{BodyFault, MAX_DEPTH, Peeked, STEERING, Scanner, TEXT_LIMIT, apply};

/// What the two do not agree on, if anything.
pub fn disagreement(body: &[u8]) -> Option<String> {
    let ours = scan(body.chunks(usize::MAX));
    for length in [1, 2, 7, 61] {
        let cut = scan(body.chunks(length));
        if cut != ours {
            return Some(format!("whole: {ours:?}; in pieces of {length}: {cut:?}"));
        }
    }
    let theirs = serde_json::from_slice::<Value>(body).ok();
    let wrong = match &ours {
        Err(fault) => of_a_refused_body(*fault, body, theirs.as_ref()),
        Ok(peeked) => of_a_taken_body(peeked, body, theirs.as_ref()),
    };
    wrong.map(|wrong| format!("{wrong}\nours: {ours:?}\ntheirs: {theirs:?}"))
}

pub fn scan<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Peeked, BodyFault> {
    let mut scanner = Scanner::new();
    for piece in pieces {
        scanner.feed(piece);
    }
    scanner.finish()
}

fn of_a_refused_body(fault: BodyFault, body: &[u8], theirs: Option<&Value>) -> Option<String> {
    let message = fault.to_string();
    if message.contains(char::is_control) || message.len() > 300 {
        return Some("the message is no short line".into());
    }
    match fault {
        BodyFault::ControlCharacter { .. } | BodyFault::BadEscape { .. } => theirs
            .is_some()
            .then(|| "serde_json takes the string".into()),
        BodyFault::ModelInOtherCase { .. } => None,
        BodyFault::WrongType { at, field, .. }
        | BodyFault::TooLong { at, field, .. }
        | BodyFault::NotUnicode { at, field } => {
            if !is_well_formed(body) {
                return Some("the structure should have been refused".into());
            }
            let is_long_number = || {
                let is_number = |byte: &&u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
                body[at..].iter().take_while(is_number).count() > 64
            };
            // Only of these the last value need not be the one that is judged.
            let is_summed_up = field.starts_with("sampling_params.");
            let expected = expected(theirs?)?;
            (expected.is_ok() && !is_summed_up && !is_long_number())
                .then(|| "the values are good".into())
        }
        _ => is_well_formed(body).then(|| "serde_json takes the structure".into()),
    }
}

fn of_a_taken_body(peeked: &Peeked, body: &[u8], theirs: Option<&Value>) -> Option<String> {
    if !is_well_formed(body) {
        return Some("serde_json refuses the structure".into());
    }
    let object = body.get(peeked.object.clone())?;
    if !(object.starts_with(b"{") && object.ends_with(b"}")) {
        return Some("the object is elsewhere".into());
    }
    let theirs = theirs?;
    let expected = match expected(theirs)? {
        Ok(expected) => expected,
        Err(field) => return Some(format!("{field} should have been refused")),
    };
    let read = Values {
        model: peeked.model.as_ref().map(|text| text.value.clone()),
        stream: peeked.stream,
        max_tokens: peeked.max_tokens,
        completions: peeked.completions,
        include_usage: peeked.include_usage.as_ref().map(|(asked, _)| *asked),
        continuous_usage: is_true(peeked.continuous_usage.as_ref()),
        user: peeked.user.clone(),
        previous_response_id: peeked.previous_response_id.clone(),
        is_empty: peeked.is_empty_object,
    };
    let is_capped = read.completions >= expected.completions;
    let is_summed_up = theirs.get("sampling_params").is_some();
    let expected = Values {
        completions: if is_summed_up && is_capped {
            read.completions
        } else {
            expected.completions
        },
        max_tokens: if is_summed_up {
            read.max_tokens.max(expected.max_tokens)
        } else {
            expected.max_tokens
        },
        ..expected
    };
    if read != expected {
        return Some(format!("expected {expected:?}"));
    }
    let arguments = theirs.get("vllm_xargs");
    let steers = |(name, _): &(&str, &str)| {
        let values = [
            theirs.get(name),
            arguments.and_then(|inner| inner.get(name)),
        ];
        let mut values = values.into_iter().flatten();
        values.any(|value| !matches!(value, Value::Null | Value::Bool(false)))
    };
    match peeked.steering {
        None if STEERING.iter().any(steers) => return Some("it steers".into()),
        // Of arguments that stand twice the first may be the one.
        Some(name) if theirs.get(name).is_none() && arguments.is_none() => {
            return Some("it does not steer".into());
        }
        _ => {}
    }
    if peeked.prompts < prompts(theirs) {
        return Some("it has more prompts".into());
    }
    of_the_edits(peeked, body, theirs)
}

fn of_the_edits(peeked: &Peeked, body: &[u8], theirs: &Value) -> Option<String> {
    let name = "a \"name\" of \\ \u{1} \u{fc} \u{1f600}";
    let rename = peeked.rename(name);
    let ask = peeked.ask_for_usage();
    let mut wanted = theirs.clone();
    if rename.is_some() {
        wanted["model"] = json!(name);
    }
    if !ask.is_empty() {
        let options = wanted
            .as_object_mut()?
            .entry("stream_options")
            .or_insert(Value::Null);
        if options.is_null() {
            *options = Value::Object(Map::new());
        }
        options["include_usage"] = json!(true);
        if is_true(peeked.continuous_usage.as_ref()) {
            options["continuous_usage_stats"] = json!(false);
        }
    }
    if rename.is_some() != peeked.model.is_some() {
        return Some("the model cannot be renamed".into());
    }
    let asks = is_true(peeked.include_usage.as_ref());
    let should_ask = peeked.stream == Some(true) && !asks;
    if ask.is_empty() == should_ask {
        return Some("the usage is asked for at the wrong time".into());
    }
    let edits: Vec<_> = rename.into_iter().chain(ask).collect();
    let pieces: Vec<Bytes> = body.chunks(5).map(Bytes::copy_from_slice).collect();
    let (edited, length) = apply(&pieces, &edits);
    let edited = edited.concat();
    if edited.len() != length {
        return Some(format!("{length} is not the length"));
    }
    match serde_json::from_slice::<Value>(&edited) {
        Ok(value) if value == wanted => None,
        other => Some(format!("edited, it reads as {other:?}, not {wanted:?}")),
    }
}

fn is_true(value: Option<&(bool, Range<usize>)>) -> bool {
    value.is_some_and(|(value, _)| *value)
}

/// The longest list of prompts.
fn prompts(body: &Value) -> u64 {
    let lists =
        ["prompt", "text", "input_ids"].map(|name| body.get(name).and_then(Value::as_array));
    let is_one =
        |element: &&Value| !(element.is_number() || element.is_boolean() || element.is_null());
    let longest = lists
        .into_iter()
        .flatten()
        .map(|list| list.iter().filter(is_one).count());
    longest.max().unwrap_or(0).max(1) as u64
}

/// Whether the text is an object, whatever its strings hold, and not too deep.
fn is_well_formed(body: &[u8]) -> bool {
    let blank = blank_strings(body);
    let mut depth = 0_usize;
    let mut deepest = 0;
    for byte in &blank {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    blank.trim_ascii_start().starts_with(b"{")
        && deepest <= usize::from(MAX_DEPTH)
        && serde_json::from_slice::<IgnoredAny>(&blank).is_ok()
}

fn blank_strings(body: &[u8]) -> Vec<u8> {
    let mut is_string = false;
    let mut is_escaped = false;
    let blanked = body.iter().map(|&byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'"' if !was_escaped => {
                is_string = !is_string;
                byte
            }
            _ if is_string => {
                is_escaped = byte == b'\\' && !was_escaped;
                b'x'
            }
            _ => byte,
        }
    });
    blanked.collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Values {
    model: Option<String>,
    stream: Option<bool>,
    max_tokens: Option<u64>,
    completions: u64,
    include_usage: Option<bool>,
    continuous_usage: bool,
    user: Option<String>,
    previous_response_id: Option<String>,
    is_empty: bool,
}

/// What the values should be, or which one is wrong; `None` where serde_json rounds a number so that
/// nobody can tell.
fn expected(body: &Value) -> Option<Result<Values, &'static str>> {
    let Value::Object(members) = body else {
        return None;
    };
    let options = body.get("stream_options").unwrap_or(&Value::Null);
    let sampling = match body.get("sampling_params") {
        Some(Value::Array(list)) => list.iter().filter(|item| item.is_object()).collect(),
        Some(object @ Value::Object(_)) => vec![object],
        _ => Vec::new(),
    };
    let numbers = [
        "n",
        "best_of",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "max_new_tokens",
    ];
    let all = sampling.iter().copied().chain([body]);
    for (name, object) in numbers
        .iter()
        .flat_map(|name| all.clone().map(move |object| (name, object)))
    {
        let read = |value: &Value| {
            value
                .as_f64()
                .or_else(|| value.as_str()?.trim().parse().ok())
        };
        let number = object.get(name).and_then(read);
        if number.is_some_and(|number| number.abs() > 1e15 || is_nearly_whole(number)) {
            return None;
        }
    }
    Some(values(members, options, &sampling))
}

fn is_nearly_whole(number: f64) -> bool {
    let distance = (number - number.round()).abs();
    distance != 0.0 && distance < 1e-6
}

fn values(
    members: &Map<String, Value>,
    options: &Value,
    sampling: &[&Value],
) -> Result<Values, &'static str> {
    let text = |name| match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.len() <= TEXT_LIMIT => Ok(Some(text.clone())),
        Some(_) => Err(name),
    };
    if !(options.is_null() || options.is_object()) {
        return Err("stream_options");
    }
    let amount_of = |name| amount(members.get(name)).ok_or(name);
    let mut completions = [amount_of("n")?, amount_of("best_of")?]
        .into_iter()
        .flatten()
        .max();
    let mut new_tokens = None;
    for params in sampling {
        for name in ["n", "best_of"] {
            completions = completions.max(amount(params.get(name)).ok_or("sampling_params")?);
        }
        new_tokens = new_tokens.max(amount(params.get("max_new_tokens")).ok_or("sampling_params")?);
    }
    Ok(Values {
        model: text("model")?,
        stream: truth(members.get("stream")).ok_or("stream")?,
        max_tokens: [
            amount_of("max_completion_tokens")?,
            amount_of("max_tokens")?,
            amount_of("max_output_tokens")?,
            new_tokens,
        ]
        .into_iter()
        .flatten()
        .max(),
        completions: completions.unwrap_or(1).max(1),
        include_usage: truth(options.get("include_usage"))
            .ok_or("include_usage")?
            .or(options.get("include_usage").map(|_| false)),
        continuous_usage: truth(options.get("continuous_usage_stats"))
            .ok_or("continuous_usage_stats")?
            .unwrap_or(false),
        user: text("user").unwrap_or(None),
        previous_response_id: text("previous_response_id")?,
        is_empty: members.is_empty(),
    })
}

/// The outer `None` is a wrong value, the inner an absent one.
fn truth(value: Option<&Value>) -> Option<Option<bool>> {
    let value = match value {
        None | Some(Value::Null) => return Some(None),
        Some(value) => value,
    };
    let word = value.as_str().map(str::to_ascii_lowercase);
    match (value, word.as_deref()) {
        (Value::Bool(value), _) => Some(Some(*value)),
        (_, Some("true" | "t" | "yes" | "y" | "on" | "1")) => Some(Some(true)),
        (_, Some("false" | "f" | "no" | "n" | "off" | "0")) => Some(Some(false)),
        _ if value.as_f64() == Some(0.0) => Some(Some(false)),
        _ if value.as_f64() == Some(1.0) => Some(Some(true)),
        _ => None,
    }
}

/// As [`truth`].
fn amount(value: Option<&Value>) -> Option<Option<u64>> {
    let number = match value {
        None | Some(Value::Null) => return Some(None),
        Some(Value::Bool(value)) => return Some(Some(u64::from(*value))),
        Some(Value::String(text)) => {
            let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
            let is_numeric = text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
            let begins = text.strip_prefix('-').unwrap_or(text);
            let number = text.parse().ok();
            number.filter(|_| is_numeric && begins.starts_with(|c: char| c.is_ascii_digit()))?
        }
        Some(value) => value.as_f64()?,
    };
    let is_whole = number == number.round();
    is_whole.then_some(Some(if number < 0.0 { 0 } else { number as u64 }))
}
