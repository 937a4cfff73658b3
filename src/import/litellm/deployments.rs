//! `model_list`: what of it can be an endpoint.

use std::time::Duration;

use super::notes::Notes;
use super::provider::{Server, server};
use super::settings::{Settings, seconds};
use super::source::Section;
use super::tree::{Field, Word};

/// One server for one name.
pub(super) struct Deployment<'a> {
    /// Its place in the list.
    pub at: Field<'a>,
    pub params: Field<'a>,
    pub server: Server,
    pub api_key: Option<Word>,
    /// As LiteLLM's simple-shuffle looks at them, in this order.
    pub weights: [Option<f64>; 3],
    pub max_in_flight: Option<u64>,
    pub retries: Option<u64>,
    pub times: Times,
    /// Whether a time is in force for answers that are no streams.
    pub has_timeout: bool,
    /// False where any certificate is taken.
    pub verify: Option<bool>,
}

/// How long LiteLLM waits for an engine; `None` where nothing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Times {
    pub first_byte: Option<Duration>,
    pub read: Option<Duration>,
}

/// The deployments that clients ask for by one name, in the order of the first of each.
pub(super) struct Group<'a> {
    pub name: &'a str,
    pub deployments: Vec<Deployment<'a>>,
}

pub(super) fn groups<'a>(
    list: &Section<'a>,
    settings: &Settings<'_>,
    notes: &mut Notes,
) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut numbers = std::collections::HashMap::new();
    for item in list.parts.iter().flat_map(Field::items) {
        let Some((name, deployment)) = deployment(&item, settings, notes) else {
            continue;
        };
        let number = *numbers.entry(name).or_insert_with(|| {
            groups.push(Group {
                name,
                deployments: Vec::new(),
            });
            groups.len() - 1
        });
        groups[number].deployments.push(deployment);
    }
    groups
}

fn deployment<'a>(
    item: &Field<'a>,
    settings: &Settings<'_>,
    notes: &mut Notes,
) -> Option<(&'a str, Deployment<'a>)> {
    let Some(name) = item.get("model_name") else {
        notes.mistake(
            item,
            "has no model_name; write the name that clients ask for",
        );
        return None;
    };
    let params = item.get("litellm_params").filter(Field::is_map);
    let Some(params) = params else {
        notes.mistake(
            item,
            "has no litellm_params; write model and api_base below it",
        );
        return None;
    };
    if params.get("model").is_none() {
        notes.mistake(
            &params,
            "has no model; write PROVIDER/NAME, as in hosted_vllm/llama",
        );
        return None;
    }
    let public = public_name(&name, notes)?;
    let blocked = item.get("model_info").and_then(|info| info.get("blocked"));
    if let Some(blocked) = blocked.filter(|blocked| blocked.flag() != Some(false)) {
        notes.differs(&blocked, "the deployment is left out");
        return None;
    }
    let server = server(&params, notes)?;
    let number = |key: &str, notes: &mut Notes| {
        let field = params.get(key)?;
        let number = field.number();
        if number.is_none() {
            notes.mistake(&field, "is no number");
        }
        number
    };
    let weights = [
        number("weight", notes),
        number("rpm", notes),
        number("tpm", notes),
    ];
    let (times, has_timeout) = times(&params, settings, notes);
    let deployment = Deployment {
        at: item.clone(),
        api_key: api_key(&params, settings, notes),
        weights,
        max_in_flight: max_in_flight(&params, notes),
        retries: params
            .get("num_retries")
            .and_then(|field| settings.retries(&field, notes)),
        times,
        has_timeout,
        verify: params.get("ssl_verify").and_then(|f| f.flag()),
        server,
        params,
    };
    Some((public, deployment))
}

/// The name as a key of `models`, where it can be one.
fn public_name<'a>(name: &Field<'a>, notes: &mut Notes) -> Option<&'a str> {
    const LONGEST: usize = 256;
    let Some(Word::Text(text)) = name.word() else {
        notes.not_carried(name, "it stands in a variable; write the name");
        return None;
    };
    if text.len() > LONGEST || text.is_empty() || text.contains(char::is_control) {
        notes.not_carried(
            name,
            format!("a model's name has 1 to {LONGEST} bytes, and no control characters"),
        );
        return None;
    }
    if text.contains('*') && text != "*" {
        notes.not_carried(
            name,
            "it is a pattern; write each name, or \"*\" for every name that no other entry has",
        );
        return None;
    }
    name.scalar()
}

fn api_key(params: &Field<'_>, settings: &Settings<'_>, notes: &mut Notes) -> Option<Word> {
    let Some(field) = params.get("api_key") else {
        settings.no_api_key(params, notes);
        return None;
    };
    let key = field.word();
    match &key {
        None => notes.mistake(&field, "is no text"),
        Some(Word::Text(text)) if !text.chars().all(|c| c.is_ascii_graphic()) => {
            notes.mistake(&field, "has a character that cannot be sent in a header");
        }
        Some(_) => {}
    }
    key
}

fn max_in_flight(params: &Field<'_>, notes: &mut Notes) -> Option<u64> {
    let field = params.get("max_parallel_requests")?;
    let Some(count) = field.count() else {
        notes.mistake(&field, "is no whole number");
        return None;
    };
    notes.differs(
        &field,
        "it is max_in_flight of the endpoint, counted for the gateway and not for each worker; where all endpoints are at theirs requests wait, as queue of the pool says",
    );
    Some(count.clamp(1, 1_000_000))
}

/// What is in force for a deployment, in LiteLLM's order, and whether it is for all answers.
fn times(params: &Field<'_>, settings: &Settings<'_>, notes: &mut Notes) -> (Times, bool) {
    let mut own = |key| {
        let field = params.get(key)?;
        let time = seconds(&field, notes)?;
        settings.say_time(&field, notes);
        Some(time)
    };
    let (timeout, request_timeout, stream) = (
        own("timeout"),
        own("request_timeout"),
        own("stream_timeout"),
    );
    let whole = timeout.or(request_timeout).or(settings.timeout());
    let stream = stream.or(settings.stream_timeout());
    let ours = settings.defaults.pools[0].timeouts.first_byte;
    let times = Times {
        // One for both kinds of answers: no request is cut shorter than before.
        first_byte: match (whole, stream) {
            (Some(whole), Some(stream)) => Some(whole.max(stream)),
            (None, Some(stream)) => Some(stream).filter(|stream| *stream > ours),
            (whole, None) => whole,
        },
        read: stream.or(whole),
    };
    (times, whole.is_some())
}
