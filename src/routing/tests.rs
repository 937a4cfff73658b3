use std::path::Path;

use super::*;
use crate::config::parse_str;

const TWO_POOLS: &str = r#"
pools:
  large: { endpoints: [node0:8000] }
  small: { endpoints: [node1:8000] }
models:
  DeepSeek-R1: { pool: large, upstream_model: deepseek-ai/DeepSeek-R1, rename_response: true }
  gpt-oss-20b: { pool: small }
  r1: DeepSeek-R1
  oss: gpt-oss-20b
"#;

fn routes(text: &str) -> Routes {
    let config = parse_str(text, "t.yaml", Path::new("/"), &|_| None)
        .unwrap_or_else(|mistakes| panic!("{mistakes}"));
    Routes::build(&config)
}

fn with_wildcard() -> Routes {
    routes(&format!(
        "{TWO_POOLS}  \"*\": {{ pool: small, upstream_model: fallback }}\n"
    ))
}

fn everything(_: &str) -> bool {
    true
}

fn nothing(_: &str) -> bool {
    false
}

/// Pool, label, upstream name, whether answers are renamed.
fn told<'a>(
    route: &Result<Route<'a>, NoRoute>,
) -> Result<(usize, &'a str, Option<&'a str>, bool), NoRoute> {
    let route = route.clone()?;
    let upstream = route.upstream_model.map(|name| &**name);
    Ok((route.pool, route.label, upstream, route.rename_response))
}

fn not_allowed<T>(model: Option<&str>) -> Result<T, NoRoute> {
    Err(NoRoute::NotAllowed {
        model: model.map(str::to_owned),
    })
}

#[test]
fn a_model_goes_to_its_pool_under_its_upstream_name() {
    let routes = routes(TWO_POOLS);
    let to = |model| told(&routes.resolve(Some(model), &everything));
    let r1 = (0, "DeepSeek-R1", Some("deepseek-ai/DeepSeek-R1"), true);
    assert_eq!(to("DeepSeek-R1"), Ok(r1));
    assert_eq!(to("r1"), Ok(r1));
    assert_eq!(to("gpt-oss-20b"), Ok((1, "gpt-oss-20b", None, false)));
    // The engines know nothing of an alias.
    assert_eq!(
        to("oss"),
        Ok((1, "gpt-oss-20b", Some("gpt-oss-20b"), false))
    );
}

#[test]
fn names_are_matched_exactly() {
    let routes = routes(TWO_POOLS);
    for model in [
        "",
        "*",
        "R1",
        "deepseek-r1",
        "DeepSeek-R1 ",
        "gpt-oss-20b\0",
    ] {
        let error = routes.resolve(Some(model), &everything);
        assert!(
            matches!(&error, Err(NoRoute::Unknown { model: echoed, .. }) if echoed == model),
            "{error:?}"
        );
    }
}

#[test]
fn without_models_every_name_goes_to_the_only_pool_as_it_is() {
    let routes = routes("endpoints: [node0:8000]");
    let only = Ok((0, OTHER, None, false));
    for model in [Some("anything"), Some("*"), Some(""), None] {
        assert_eq!(told(&routes.resolve(model, &everything)), only);
        assert_eq!(
            told(&routes.resolve(model, &nothing)),
            not_allowed(model),
            "{model:?}"
        );
    }
    let may_llama = |name: &str| name == "llama";
    assert_eq!(told(&routes.resolve(Some("llama"), &may_llama)), only);
    assert_eq!(
        told(&routes.resolve(Some("gpt"), &may_llama)),
        not_allowed(Some("gpt"))
    );
    assert_eq!(told(&routes.resolve(None, &may_llama)), not_allowed(None));
    assert_eq!(told(&routes.without_model(&everything)), only);
    assert_eq!(routes.names().count(), 0);
}

#[test]
fn the_wildcard_takes_other_names_and_none() {
    let routes = with_wildcard();
    let other = Ok((1, OTHER, Some("fallback"), false));
    for model in [Some("anything"), Some("*"), None] {
        assert_eq!(told(&routes.resolve(model, &everything)), other);
        assert_eq!(told(&routes.resolve(model, &nothing)), not_allowed(model));
    }
    assert_eq!(told(&routes.without_model(&everything)), other);
    let label = routes.resolve(Some("r1"), &everything).unwrap().label;
    assert_eq!(&**label, "DeepSeek-R1");
    // A key for one name that only the wildcard serves.
    let may = |name: &str| name == "llama";
    assert_eq!(told(&routes.resolve(Some("llama"), &may)), other);
    assert_eq!(told(&routes.resolve(None, &may)), not_allowed(None));
}

#[test]
fn without_a_wildcard_a_model_must_be_named() {
    let routes = routes(TWO_POOLS);
    assert_eq!(routes.resolve(None, &everything), Err(NoRoute::Missing));
    assert_eq!(routes.resolve(None, &nothing), Err(NoRoute::Missing));
    assert_eq!(routes.without_model(&everything), Err(NoRoute::Missing));
}

#[test]
fn what_has_no_model_by_nature_goes_to_the_only_pool() {
    let routes = routes("endpoints: [node0:8000]\nmodels: { a: { upstream_model: b } }");
    assert_eq!(routes.resolve(None, &everything), Err(NoRoute::Missing));
    assert_eq!(
        told(&routes.without_model(&everything)),
        Ok((0, OTHER, None, false))
    );
    let may_a = |name: &str| name == "a";
    assert_eq!(told(&routes.without_model(&may_a)), not_allowed(None));
}

#[test]
fn a_key_for_a_model_may_use_its_aliases_and_no_more() {
    let routes = routes(TWO_POOLS);
    let model = |name: &str| name == "DeepSeek-R1";
    let alias = |name: &str| name == "r1";
    assert!(routes.resolve(Some("DeepSeek-R1"), &model).is_ok());
    assert!(routes.resolve(Some("r1"), &model).is_ok());
    assert!(routes.resolve(Some("r1"), &alias).is_ok());
    assert_eq!(
        routes.resolve(Some("DeepSeek-R1"), &alias),
        not_allowed(Some("DeepSeek-R1"))
    );
    assert_eq!(
        routes.resolve(Some("oss"), &model),
        not_allowed(Some("oss"))
    );
}

#[test]
fn an_unknown_model_is_answered_with_near_names_that_the_key_may_use() {
    let routes = routes(
        "endpoints: [node0:8000]\n\
         models: { llama-3-8b: {}, llama-3-70b: {}, llama-3-8c: {}, llama-3-8d: {}, l38: llama-3-8b }",
    );
    let near = |model, may: &dyn Fn(&str) -> bool| match routes.resolve(Some(model), may) {
        Err(NoRoute::Unknown { suggestions, .. }) => suggestions,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        near("Llama-3-8B-", &everything),
        ["llama-3-8b", "llama-3-8c", "llama-3-8d"]
    );
    assert_eq!(near("meta/llama-3-70b", &everything), ["llama-3-70b"]);
    assert_eq!(
        near("llama-3-8x", &|name| name == "llama-3-8d"),
        ["llama-3-8d"]
    );
    assert_eq!(near("llama-3-8x", &nothing), [""; 0]);
    assert_eq!(near("L38", &|name| name == "llama-3-8b"), ["l38"]);
    assert_eq!(near("gpt-4", &everything), [""; 0]);
    assert_eq!(near(&"l".repeat(1 << 20), &everything), [""; 0]);
}

#[test]
fn names_are_listed_in_the_order_of_the_file_without_the_wildcard() {
    let names: Vec<String> = with_wildcard().names().map(str::to_owned).collect();
    assert_eq!(names, ["DeepSeek-R1", "gpt-oss-20b", "r1", "oss"]);
}

proptest::proptest! {
    /// Whoever may use everything is never refused for it, and whoever may use nothing gets nowhere.
    #[test]
    fn rights_decide_and_nothing_else_does(model in "(DeepSeek-R1|r1|oss|\\*|[a-z0-9-]{0,12})") {
        for routes in [routes(TWO_POOLS), with_wildcard(), routes("endpoints: [a:1]")] {
            let all = routes.resolve(Some(&model), &everything);
            let is_refused = matches!(all, Err(NoRoute::NotAllowed { .. } | NoRoute::Missing));
            proptest::prop_assert!(!is_refused);
            let own = routes.resolve(Some(&model), &|name| name == model);
            proptest::prop_assert_eq!(own.is_ok(), all.is_ok());
            proptest::prop_assert!(routes.resolve(Some(&model), &nothing).is_err());
        }
    }
}
