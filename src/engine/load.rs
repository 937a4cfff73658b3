//! How loaded an engine says that it is.

use std::fmt;

use serde_json::Value;

/// Schedulers looked at in an answer of `/v1/loads`.
const MOST_RANKS: usize = 1024;

/// An engine's own figures. `None` = it does not say. Those of several schedulers (data parallel ranks) are one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Requests that it works on.
    pub running: Option<u64>,
    /// Requests in its queue.
    pub waiting: Option<u64>,
    /// Counted since its start.
    pub prompt_tokens: Option<u64>,
    /// Counted since its start.
    pub generation_tokens: Option<u64>,
    /// The part of its cache that is in use, 0 to 1, of the fullest scheduler.
    pub kv_usage: Option<f64>,
}

impl Load {
    /// Whether it counts tokens.
    pub fn has_counters(&self) -> bool {
        self.prompt_tokens.is_some() || self.generation_tokens.is_some()
    }

    /// Whether it has worked since it said `before`: its counters are others, or its cache has filled further, as it
    /// does in the course of a long prefill, whose tokens are counted at its end.
    pub fn has_gone_on(&self, before: &Load) -> bool {
        let counts = |load: &Load| (load.prompt_tokens, load.generation_tokens);
        let filled = matches!((before.kv_usage, self.kv_usage), (Some(was), Some(is)) if is > was);
        counts(self) != counts(before) || filled
    }

    /// With what `other` says where this one says nothing.
    pub fn or(self, other: Load) -> Load {
        Load {
            running: self.running.or(other.running),
            waiting: self.waiting.or(other.waiting),
            prompt_tokens: self.prompt_tokens.or(other.prompt_tokens),
            generation_tokens: self.generation_tokens.or(other.generation_tokens),
            kv_usage: self.kv_usage.or(other.kv_usage),
        }
    }

    /// Reads SGLang's answer to `GET /v1/loads`: one entry a scheduler. It has no counters.
    ///
    /// # Errors
    /// It is no list of loads, or an empty one.
    pub fn of_loads(answer: &[u8]) -> Result<Load, OddLoads> {
        let answer: Value = serde_json::from_slice(answer).map_err(|_| OddLoads::NotJson)?;
        let ranks = answer.get("loads").unwrap_or(&answer).as_array();
        let ranks = ranks.ok_or(OddLoads::NotAList)?;
        let mut load = Load::default();
        for rank in ranks.iter().take(MOST_RANKS) {
            let figure = |name| rank.get(name).and_then(Value::as_f64);
            add(&mut load.running, figure("num_running_reqs"));
            add(&mut load.waiting, figure("num_waiting_reqs"));
            let part = || {
                let (used, all) = (figure("num_used_tokens")?, figure("max_total_num_tokens")?);
                (all > 0.0).then_some(used / all)
            };
            // The share itself is rounded.
            fuller(&mut load.kv_usage, part().or_else(|| figure("token_usage")));
        }
        if load == Load::default() {
            return Err(OddLoads::NoFigure);
        }
        Ok(load)
    }
}

/// Why an answer says nothing of an engine's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OddLoads {
    NotJson,
    /// No `{"loads":[…]}`.
    NotAList,
    /// No entry has a figure that can be read.
    NoFigure,
}

impl fmt::Display for OddLoads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJson => "the answer is not JSON",
            Self::NotAList => "the answer is no list of loads",
            Self::NoFigure => "no load in the answer can be read",
        })
    }
}

/// Adds a count; what is no count changes nothing.
pub(super) fn add(sum: &mut Option<u64>, figure: Option<f64>) {
    let Some(figure) = figure.filter(|figure| figure.is_finite() && *figure >= 0.0) else {
        return;
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it saturates, and negative ones are gone"
    )]
    let count = figure as u64;
    *sum = Some(sum.unwrap_or(0).saturating_add(count));
}

/// Takes the larger of two shares; what is no share changes nothing.
pub(super) fn fuller(most: &mut Option<f64>, figure: Option<f64>) {
    let Some(figure) = figure.filter(|figure| figure.is_finite() && *figure >= 0.0) else {
        return;
    };
    let figure = figure.min(1.0);
    *most = Some(most.map_or(figure, |most| most.max(figure)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_of_several_schedulers_are_one() {
        let answer = br#"{"timestamp":"x","loads":[
            {"dp_rank":0,"num_running_reqs":3,"num_waiting_reqs":1,"num_used_tokens":250,"max_total_num_tokens":1000,
             "token_usage":0.25,"gen_throughput":10.5},
            {"dp_rank":1,"num_running_reqs":4,"num_waiting_reqs":0,"num_used_tokens":512,"max_total_num_tokens":1024,
             "token_usage":0.49,"gen_throughput":0.0}],"aggregate":{"num_running_reqs":7}}"#;
        assert_eq!(
            Load::of_loads(answer),
            Ok(Load {
                running: Some(7),
                waiting: Some(1),
                kv_usage: Some(0.5),
                ..Load::default()
            })
        );
        // Older ones answer with the list alone.
        let bare = br#"[{"num_running_reqs":2,"token_usage":0.125}]"#;
        let load = Load::of_loads(bare).unwrap();
        assert_eq!((load.running, load.waiting), (Some(2), None));
        assert_eq!(load.kv_usage, Some(0.125));
    }

    #[test]
    fn what_is_no_load_is_said_to_be_none() {
        for (answer, odd) in [
            (&b"<html>"[..], OddLoads::NotJson),
            (b"", OddLoads::NotJson),
            (b"{}", OddLoads::NotAList),
            (br#"{"loads":7}"#, OddLoads::NotAList),
            (br#"{"loads":[]}"#, OddLoads::NoFigure),
            (
                br#"{"loads":[{"num_running_reqs":"3"},4]}"#,
                OddLoads::NoFigure,
            ),
            (
                br#"{"loads":[{"num_running_reqs":-3}]}"#,
                OddLoads::NoFigure,
            ),
        ] {
            assert_eq!(Load::of_loads(answer), Err(odd));
        }
        let starting =
            br#"{"loads":[{"num_running_reqs":0,"num_used_tokens":0,"max_total_num_tokens":0}]}"#;
        assert_eq!(Load::of_loads(starting).unwrap().kv_usage, None);
        let huge = br#"{"loads":[{"num_running_reqs":1e300},{"num_running_reqs":1}]}"#;
        assert_eq!(Load::of_loads(huge).unwrap().running, Some(u64::MAX));
    }

    #[test]
    fn an_engine_goes_on_when_it_counts_or_fills_its_cache() {
        let before = Load {
            running: Some(1),
            waiting: Some(0),
            prompt_tokens: Some(100),
            generation_tokens: Some(50),
            kv_usage: Some(0.5),
        };
        let with = |change: fn(&mut Load)| {
            let mut after = before;
            change(&mut after);
            after.has_gone_on(&before)
        };
        assert!(!with(|_| ()));
        assert!(with(|load| load.generation_tokens = Some(51)));
        assert!(with(|load| load.prompt_tokens = Some(101)));
        // It was started anew.
        assert!(with(|load| load.generation_tokens = Some(0)));
        assert!(with(|load| load.kv_usage = Some(0.51)));
        // Requests come to a hung engine, and leave it.
        assert!(!with(|load| load.waiting = Some(9)));
        assert!(!with(|load| load.running = Some(0)));
        assert!(!with(|load| load.kv_usage = Some(0.4)));
        assert!(!with(|load| load.kv_usage = None));
    }

    #[test]
    fn one_source_fills_in_for_the_other() {
        let loads = Load {
            running: Some(1),
            ..Load::default()
        };
        let metrics = Load {
            running: Some(2),
            generation_tokens: Some(3),
            ..Load::default()
        };
        let both = loads.or(metrics);
        assert_eq!((both.running, both.generation_tokens), (Some(1), Some(3)));
        assert!(both.has_counters() && !loads.has_counters());
    }
}
