//! Where a response's id leads: engines that store responses know only their own, and no key may reach
//! another's.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;

/// The oldest ids are forgotten first.
const MOST: usize = 65_536;
/// Longer ids are no engine's.
pub const LONGEST: usize = 128;

/// The ids of responses that engines have made, and whose they are.
#[derive(Debug, Default)]
pub struct Bindings(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    bound: HashMap<Arc<str>, Bound>,
    /// In the order they were made.
    order: VecDeque<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    /// [`crate::pool::EndpointState::id`].
    endpoint: u64,
    /// The key's name; `None` where keys are not configured.
    key: Option<Arc<str>>,
}

impl Bindings {
    /// Notes that this endpoint made `id` for a request with this key. An id that is known already stays
    /// with its first owner.
    pub fn bind(&self, id: &str, endpoint: u64, key: Option<&Arc<str>>) {
        if id.is_empty() || id.len() > LONGEST {
            return;
        }
        let mut ids = self.0.lock();
        if ids.bound.contains_key(id) {
            return;
        }
        if ids.order.len() >= MOST
            && let Some(oldest) = ids.order.pop_front()
        {
            ids.bound.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        ids.order.push_back(Arc::clone(&id));
        let key = key.cloned();
        ids.bound.insert(id, Bound { endpoint, key });
    }

    /// The endpoint that made `id`, if it was for this key.
    pub fn find(&self, id: &str, key: Option<&Arc<str>>) -> Option<u64> {
        let ids = self.0.lock();
        let bound = ids.bound.get(id)?;
        (bound.key.as_ref() == key).then_some(bound.endpoint)
    }
}

/// The id that a whole answer, or the first events of a stream, give a response.
pub fn id_of(answer: &[u8], is_stream: bool) -> Option<String> {
    #[derive(Deserialize)]
    struct Made {
        id: String,
    }
    #[derive(Deserialize)]
    struct Event {
        response: Made,
    }
    if !is_stream {
        return serde_json::from_slice::<Made>(answer)
            .ok()
            .map(|made| made.id);
    }
    let mut data = answer
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"data:"));
    data.find_map(|data| serde_json::from_slice::<Event>(data).ok())
        .map(|event| event.response.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_of_both_forms() {
        let whole = br#"{"id":"resp_1","object":"response","output":[{"id":"msg_1"}]}"#;
        assert_eq!(id_of(whole, false).as_deref(), Some("resp_1"));
        let stream = b"event: response.created\ndata: {\"response\":{\"id\":\"resp_2\",\"status\":\"in_progress\"}}\n\n\
            event: response.output_text.delta\ndata: {\"delta\":\"a\"}\n\n";
        assert_eq!(id_of(stream, true).as_deref(), Some("resp_2"));
        assert_eq!(id_of(b"{\"error\":1}", false), None);
        assert_eq!(id_of(b"data: [DONE]\n\n", true), None);
    }

    #[test]
    fn an_id_is_for_its_key_alone() {
        let bindings = Bindings::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        bindings.bind("resp_1", 7, Some(&a));
        bindings.bind("resp_2", 8, None);
        assert_eq!(bindings.find("resp_1", Some(&a)), Some(7));
        assert_eq!(bindings.find("resp_1", Some(&b)), None);
        assert_eq!(bindings.find("resp_1", None), None);
        assert_eq!(bindings.find("resp_2", None), Some(8));
        bindings.bind("resp_1", 9, Some(&b));
        assert_eq!(bindings.find("resp_1", Some(&a)), Some(7));
        bindings.bind("", 9, None);
        assert_eq!(bindings.find("", None), None);
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let bindings = Bindings::default();
        for n in 0..=MOST as u64 {
            bindings.bind(&format!("resp_{n}"), n, None);
        }
        assert_eq!(bindings.find("resp_0", None), None);
        assert_eq!(bindings.find("resp_1", None), Some(1));
        assert_eq!(bindings.0.lock().bound.len(), MOST);
    }
}
