//! What an endpoint last said that it serves.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use crate::config::Engine;
use crate::openai::models::Catalog;

/// Names in one line of the log.
const SHOWN: usize = 8;

/// An endpoint's last answer about itself. It stays while the endpoint is down, and over reloads.
#[derive(Debug, Default)]
pub struct LastCatalog(ArcSwapOption<Catalog>);

impl LastCatalog {
    /// `None` = it has not said yet.
    pub fn get(&self) -> Option<Arc<Catalog>> {
        self.0.load_full()
    }

    /// What it runs, by its word; `None` = it has not said yet.
    pub fn engine(&self) -> Option<Engine> {
        self.0.load().as_deref().map(engine)
    }

    /// Takes a new answer. The first one, and what is different in a later one, is logged under `name`.
    pub fn set(&self, catalog: Catalog, name: &str) {
        let before = self.0.load();
        let Some(news) = news(before.as_deref(), &catalog) else {
            return;
        };
        log::info!("endpoint {name} {news}");
        self.0.store(Some(Arc::new(catalog)));
    }
}

fn engine(catalog: &Catalog) -> Engine {
    if catalog.is_signed("vllm") {
        Engine::Vllm
    } else if catalog.is_signed("sglang") {
        Engine::Sglang
    } else {
        Engine::OpenAi
    }
}

/// What is to be said of `catalog`; `None` where it says the same as `before`.
fn news(before: Option<&Catalog>, catalog: &Catalog) -> Option<String> {
    if before == Some(catalog) {
        return None;
    }
    let names: Vec<&str> = catalog.names().take(SHOWN).collect();
    let models = match catalog.models.len() {
        0 => "no model".to_owned(),
        1 => format!("the model {}", names.concat()),
        count if count > names.len() => {
            format!(
                "the models {} and {} more",
                names.join(", "),
                count - names.len()
            )
        }
        _ => format!("the models {}", names.join(", ")),
    };
    let now = engine(catalog);
    Some(match before.map(engine) {
        Some(before) if before == now => format!("now has {models}"),
        _ => format!("is {} with {models}", now.as_str()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog(owned_by: &str, names: &[&str]) -> Catalog {
        let data: Vec<_> = (names.iter())
            .map(|id| serde_json::json!({ "id": id, "owned_by": owned_by }))
            .collect();
        let answer = serde_json::json!({ "data": data }).to_string();
        Catalog::parse(answer.as_bytes()).unwrap()
    }

    #[test]
    fn only_news_are_told() {
        let first = catalog("vllm", &["R1"]);
        let said = |before: Option<&Catalog>, now| news(before, now);
        assert_eq!(
            said(None, &first).as_deref(),
            Some("is vllm with the model R1")
        );
        let same = first.clone();
        assert_eq!(said(Some(&first), &same), None);
        let more = catalog("vllm", &["R1", "V3"]);
        assert_eq!(
            said(Some(&first), &more).as_deref(),
            Some("now has the models R1, V3")
        );
        let other = catalog("sglang", &["R1"]);
        assert_eq!(
            said(Some(&first), &other).as_deref(),
            Some("is sglang with the model R1")
        );
        let none = catalog("", &[]);
        assert_eq!(
            said(None, &none).as_deref(),
            Some("is openai with no model")
        );
        let many = catalog("", &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"]);
        assert_eq!(
            said(Some(&none), &many).as_deref(),
            Some("now has the models 1, 2, 3, 4, 5, 6, 7, 8 and 2 more")
        );
    }

    #[test]
    fn the_last_answer_is_kept() {
        let last = LastCatalog::default();
        assert_eq!(last.get(), None);
        last.set(catalog("vllm", &["R1"]), "node0:8000");
        last.set(catalog("vllm", &["V3"]), "node0:8000");
        assert_eq!(last.get().as_deref(), Some(&catalog("vllm", &["V3"])));
    }
}
