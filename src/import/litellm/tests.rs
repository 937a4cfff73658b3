//! No key is lost in the importer.

use super::table::{ALL, Fate, Place, fate};
use super::*;

/// A file with this below its one deployment or in its settings.
fn with(place: Place, text: &str) -> String {
    let of = |wanted: Place| if place == wanted { text } else { "" };
    format!(
        "model_list:\n- model_name: m\n  litellm_params: {{ model: openai/m, api_base: 'http://a:1/v1', api_key: k, {} }}\n  \
         model_info: {{ {} }}\n  {}\nrouter_settings: {{ timeout: 300, routing_strategy: least-busy, {} }}\n\
         litellm_settings: {{ {} }}\ngeneral_settings: {{ {} }}\n{}\n",
        of(Place::Params),
        of(Place::Info),
        of(Place::Deployment),
        of(Place::Router),
        of(Place::Litellm),
        of(Place::General),
        of(Place::Top),
    )
}

fn imported(text: &str, name: &str) -> Result<Imported, Broken> {
    let path = std::env::temp_dir().join(format!("litellm-{name}-{}.yaml", std::process::id()));
    std::fs::write(&path, text).expect("a temporary file");
    let imported = import(&path);
    let _ = std::fs::remove_file(&path);
    imported
}

fn shown(result: &Result<Imported, Broken>) -> String {
    match result {
        Ok(imported) => imported.notes.join("\n"),
        Err(broken) => broken.lines.join("\n"),
    }
}

#[test]
fn every_key_of_the_table_has_a_line_or_code() {
    for (place, table) in ALL {
        let mut seen = std::collections::HashSet::new();
        for (name, expected) in *table {
            assert!(seen.insert(name), "{name} is listed twice");
            let key = name.replace('*', "something");
            assert_eq!(
                fate(*place, &key),
                *expected,
                "{name} is hidden by another entry"
            );
            if *expected == Fate::Carried {
                continue;
            }
            let text = with(*place, &format!("{key}: hunter2"));
            let said = shown(&imported(&text, "table"));
            let line = said
                .lines()
                .find(|line| line.contains(&format!("{key}: not carried: ")));
            let line = line.unwrap_or_else(|| panic!("{key} has no line: {said}"));
            assert!(!line.contains("hunter2"), "{line}");
            if matches!(expected, Fate::Unguarded(_)) {
                assert_eq!(said.lines().next(), Some(line), "it comes first");
            }
            if let Fate::Same(values, _) = expected {
                for value in *values {
                    let text = with(*place, &format!("{key}: {value}"));
                    let said = shown(&imported(&text, "same"));
                    assert!(!said.contains(&key), "{key}: {value}: {said}");
                }
            }
        }
    }
}

#[test]
fn a_key_that_nobody_knows_has_a_line_wherever_it_is() {
    for (place, _) in ALL {
        let text = with(*place, "qwertz: hunter2");
        let result = imported(&text, "unknown");
        let said = shown(&result);
        assert!(said.contains("qwertz: not carried: "), "{place:?}: {said}");
        assert!(result.is_ok() && !said.contains("hunter2"), "{said}");
    }
    let said = shown(&imported(&with(Place::Top, "num_retries: 3"), "misplaced"));
    assert!(said.contains("within router_settings alone"), "{said}");
}

#[test]
fn what_two_sections_have_is_the_routers() {
    for key in ["num_retries", "allowed_fails"] {
        let both = with(Place::Router, &format!("{key}: 5"));
        let both = |litellm: u8| {
            both.replace(
                "litellm_settings: {",
                &format!("litellm_settings: {{ {key}: {litellm},"),
            )
        };
        let line = format!("litellm_settings.{key}: not carried: router_settings.{key} ");
        let result = imported(&both(6), "both").expect("it is imported");
        assert!(result.notes.iter().any(|note| note.contains(&line)));
        let carried = ["retries: 5", "eject_after: 6"];
        assert!(
            carried.iter().any(|text| result.yaml.contains(text)),
            "{}",
            result.yaml
        );
        let said = shown(&imported(&both(5), "both"));
        assert!(!said.contains("litellm_settings"), "{said}");
    }
}

#[test]
fn a_file_that_does_the_same_has_no_line() {
    let result = imported(&with(Place::Top, ""), "same-file").expect("it is imported");
    assert_eq!(result.notes.len(), 1, "{:?}", result.notes);
    assert!(result.notes[0].contains("router_settings.timeout: differs: "));
    assert_eq!(
        result.yaml,
        "listen: 0.0.0.0:4000\nendpoints:\n  - { url: a:1, api_key: k }\nmodels:\n  m: {}\nkeys:\n  - { name: master, key: \"${LITELLM_MASTER_KEY}\" }\n"
    );
}
