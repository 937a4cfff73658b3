use std::sync::Arc;

use super::*;
use crate::config::Alias;

fn listed(models: &[(&str, Option<u64>)]) -> Vec<Listed> {
    models
        .iter()
        .map(|&(id, max_model_len)| Listed {
            id: Arc::from(id),
            owned_by: Some(Arc::from("vllm")),
            max_model_len,
        })
        .collect()
}

fn offer(pool: usize, listed: &[Listed]) -> Offer<'_> {
    Offer {
        pool,
        asked_for: None,
        listed,
    }
}

fn model(name: &str, pool: usize, upstream: Option<&str>) -> Model {
    Model {
        name: Arc::from(name),
        pool,
        upstream_model: upstream.map(Arc::from),
        rename_response: false,
    }
}

/// `r1` and `v3` in two pools, and the alias `deep` of `r1`.
fn two_models() -> Models {
    Models {
        list: vec![
            model("v3", 1, None),
            model("r1", 0, Some("deepseek-ai/DeepSeek-R1")),
        ],
        aliases: vec![Alias {
            name: Arc::from("deep"),
            model: 1,
        }],
        wildcard: None,
    }
}

/// Name, owner, length.
fn shown<'a>(
    models: &'a Models,
    offers: &[Offer<'a>],
    may: &dyn Fn(&str) -> bool,
) -> Vec<(&'a str, &'a str, Option<u64>)> {
    let entries = available(models, offers, may);
    let each = entries.iter();
    each.map(|e| (e.id, e.owned_by, e.max_model_len)).collect()
}

const ALL: &dyn Fn(&str) -> bool = &|_| true;

#[test]
fn without_models_the_engines_lists_are_joined() {
    let none = Models::default();
    assert_eq!(shown(&none, &[], ALL), []);
    let first = listed(&[("b", Some(8192)), ("a", None)]);
    let second = listed(&[("b", Some(4096)), ("c", Some(1))]);
    let third = listed(&[("b", None), ("a", Some(7))]);
    let offers = [offer(0, &first), offer(0, &second), offer(0, &third)];
    let expected = [
        ("a", "vllm", Some(7)),
        ("b", "vllm", Some(4096)),
        ("c", "vllm", Some(1)),
    ];
    assert_eq!(shown(&none, &offers, ALL), expected);
    assert_eq!(
        shown(&none, &offers, &|name| name == "c"),
        [("c", "vllm", Some(1))]
    );
}

#[test]
fn configured_names_hide_the_engines_own() {
    let models = two_models();
    // Known before any engine has answered.
    assert_eq!(
        shown(&models, &[], ALL),
        [
            ("v3", "sluicegate", None),
            ("r1", "sluicegate", None),
            ("deep", "sluicegate", None)
        ]
    );
    let first = listed(&[("deepseek-ai/DeepSeek-R1", Some(8192)), ("v3", Some(1))]);
    let second = listed(&[("v3", Some(100)), ("other", None)]);
    let offers = [offer(0, &first), offer(1, &second)];
    assert_eq!(
        shown(&models, &offers, ALL),
        [
            ("v3", "vllm", Some(100)),
            ("r1", "vllm", Some(8192)),
            ("deep", "vllm", Some(8192))
        ]
    );
}

#[test]
fn a_wildcard_adds_what_its_own_pool_lists() {
    let mut models = two_models();
    models.wildcard = Some(model("*", 1, None));
    let first = listed(&[("deepseek-ai/DeepSeek-R1", None), ("hidden", None)]);
    let second = listed(&[("z", None), ("v3", None), ("other", Some(5))]);
    let offers = [offer(0, &first), offer(1, &second)];
    let names: Vec<_> = (shown(&models, &offers, ALL).iter())
        .map(|(name, ..)| *name)
        .collect();
    assert_eq!(names, ["v3", "r1", "deep", "other", "z"]);
    models = Models {
        wildcard: models.wildcard,
        ..Models::default()
    };
    let names: Vec<_> = (shown(&models, &offers, ALL).iter())
        .map(|(name, ..)| *name)
        .collect();
    assert_eq!(names, ["other", "v3", "z"]);
}

#[test]
fn a_key_sees_what_it_may_use() {
    let mut models = two_models();
    models.wildcard = Some(model("*", 0, None));
    let list = listed(&[("x", None), ("y", None)]);
    let offers = [offer(0, &list)];
    for (may, expected) in [
        (&["v3"][..], &["v3"][..]),
        // A key for a model may use its aliases, and one for an alias that alone.
        (&["r1"], &["r1", "deep"]),
        (&["deep"], &["deep"]),
        (&["y", "v3"], &["v3", "y"]),
        (&[], &[]),
    ] {
        let seen = shown(&models, &offers, &|name| may.contains(&name));
        let seen: Vec<_> = seen.iter().map(|(name, ..)| *name).collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn an_endpoint_with_a_name_of_its_own_counts_under_every_name() {
    let models = two_models();
    let (plain, own) = (
        listed(&[("deepseek-ai/DeepSeek-R1", Some(8192))]),
        listed(&[("r1-fp4", Some(2048)), ("other", Some(1))]),
    );
    let offers = [
        offer(0, &plain),
        Offer {
            asked_for: Some("r1-fp4"),
            ..offer(0, &own)
        },
    ];
    assert_eq!(shown(&models, &offers, ALL)[1], ("r1", "vllm", Some(2048)));
}
