//! Every key that nothing else has looked at: said why it is not carried, or that it asks for
//! nothing. None is passed over in silence.

use crate::config::is_variable;

use super::notes::Notes;
use super::source::Section;
use super::table::why::{CALLBACKS, GUARDRAILS, OTEL};
use super::table::{Fate, Place, fate};
use super::tree::{Field, Word};

/// Callbacks that refuse or mask what clients and engines say.
const GUARDS: &[&str] = &[
    "aim",
    "aporia",
    "azure_content_safety",
    "banned_keywords",
    "bedrock_guardrails",
    "blocked_user_check",
    "detect_prompt_injection",
    "google_text_moderation",
    "guardrails_ai",
    "hide_secrets",
    "lakera",
    "lakera_prompt_injection",
    "llamaguard_moderations",
    "llmguard_moderations",
    "openai_moderations",
    "pillar",
    "presidio",
];

/// Walks the whole of the file.
pub(super) fn rest(sections: &[Section<'_>], notes: &mut Notes) {
    for section in sections {
        for replaced in &section.replaced {
            if let Some(by) = section.parts.last() {
                notes.not_carried(
                    replaced,
                    format!(
                        "{} has it too, and takes its place, as in LiteLLM",
                        by.place()
                    ),
                );
            }
        }
        for part in section.parts.iter().filter(|part| part.is_given()) {
            one(Place::Top, part, notes);
            match section.name {
                "model_list" => part.items().iter().for_each(|item| deployment(item, notes)),
                "router_settings" => keys(Place::Router, part, notes),
                "litellm_settings" => keys(Place::Litellm, part, notes),
                "general_settings" => keys(Place::General, part, notes),
                "environment_variables" => variables(part, notes),
                _ => {}
            }
        }
    }
}

fn deployment(item: &Field<'_>, notes: &mut Notes) {
    keys(Place::Deployment, item, notes);
    for (key, place) in [
        ("litellm_params", Place::Params),
        ("model_info", Place::Info),
    ] {
        if let Some(inner) = item.get(key) {
            keys(place, &inner, notes);
        }
    }
    // LiteLLM takes it here, too.
    let params = item.get("litellm_params");
    if let Some(info) = params.and_then(|params| params.get("model_info")) {
        keys(Place::Info, &info, notes);
    }
}

fn keys(place: Place, of: &Field<'_>, notes: &mut Notes) {
    for field in of.entries() {
        if field.is_given() {
            one(place, &field, notes);
        }
    }
}

fn one(place: Place, field: &Field<'_>, notes: &mut Notes) {
    if matches!(
        field.key,
        "callbacks" | "success_callback" | "failure_callback"
    ) {
        return callbacks(field, notes);
    }
    match fate(place, field.key) {
        Fate::Carried => {
            // What holds keys and is no mapping: LiteLLM would not start.
            let is_section = matches!(
                field.key,
                "router_settings"
                    | "litellm_settings"
                    | "general_settings"
                    | "environment_variables"
            );
            if is_section && !field.is_map() {
                notes.mistake(
                    field,
                    "is no mapping; write its keys below it, with two spaces before each",
                );
            }
        }
        Fate::Same(values, why) => {
            if !field.scalar().is_some_and(|value| values.contains(&value)) {
                notes.not_carried(field, why);
            }
        }
        Fate::Not(why) => notes.not_carried(field, why),
        Fate::Unguarded(why) => notes.unguarded(field, why),
    }
}

fn callbacks(field: &Field<'_>, notes: &mut Notes) {
    let names = match field.items() {
        items if items.is_empty() => vec![field.clone()],
        items => items,
    };
    for name in names {
        match name.scalar() {
            Some("prometheus") => notes.differs(
                &name,
                "metrics are at /metrics with names of their own: docs/monitoring.md has them",
            ),
            Some("otel") => notes.not_carried(&name, OTEL),
            Some(guard) if GUARDS.contains(&guard) => notes.unguarded(&name, GUARDRAILS),
            _ => notes.not_carried(&name, CALLBACKS),
        }
    }
}

/// `environment_variables`: LiteLLM sets them for itself.
fn variables(of: &Field<'_>, notes: &mut Notes) {
    for field in of.entries() {
        let name = field.key;
        let is_same = matches!(field.word(), Some(Word::Variable(other)) if other == name);
        if is_variable(name) && !is_same {
            notes.not_carried(
                &field,
                "the gateway reads its environment and does not set it; if the configuration has a ${…} of this name, set it where the gateway starts (.env, EnvironmentFile=)",
            );
        }
    }
}
