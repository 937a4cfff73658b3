//! `router_settings`, `litellm_settings` and `general_settings`: what holds for every deployment.

use std::cell::Cell;
use std::time::Duration;

use crate::config::{Config, show_duration};

use super::notes::Notes;
use super::source::Section;
use super::tree::{Field, Word};

/// `health.eject_after` has no "never".
const NEVER: u64 = 1000;
const MOST_RETRIES: u64 = 10;
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const LONGEST_EJECTION: Duration = Duration::from_secs(3600);

/// How LiteLLM chooses among deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// At random, by weight.
    Shuffle,
    Other,
}

#[derive(Default)]
struct Said {
    no_api_key: Cell<bool>,
    total: Cell<bool>,
    stream: Cell<bool>,
}

pub(super) struct Settings<'a> {
    pub defaults: &'a Config,
    router: Option<Field<'a>>,
    litellm: Option<Field<'a>>,
    general: Option<Field<'a>>,
    pub strategy: Strategy,
    /// For pools whose deployments have none of their own.
    pub num_retries: Option<u64>,
    router_timeout: Option<Duration>,
    request_timeout: Option<Duration>,
    router_stream_timeout: Option<Duration>,
    /// What has been said once, and is not said of each deployment.
    said: Said,
}

impl<'a> Settings<'a> {
    pub fn of(sections: &[Section<'a>], defaults: &'a Config, notes: &mut Notes) -> Self {
        let section = |name: &str| -> Option<Field<'a>> {
            let section = sections.iter().find(|s| s.name == name)?;
            section.parts.last().filter(|f| f.is_given()).cloned()
        };
        let mut settings = Self {
            defaults,
            router: section("router_settings"),
            litellm: section("litellm_settings"),
            general: section("general_settings"),
            strategy: Strategy::Shuffle,
            num_retries: None,
            router_timeout: None,
            request_timeout: None,
            router_stream_timeout: None,
            said: Said::default(),
        };
        settings.strategy = settings.routing_strategy(notes);
        let read = |field: Option<Field<'_>>, notes: &mut Notes| {
            let field = field?;
            seconds(&field, notes)
        };
        settings.router_timeout = read(settings.router("timeout"), notes);
        settings.router_stream_timeout = read(settings.router("stream_timeout"), notes);
        settings.request_timeout = read(settings.litellm("request_timeout"), notes);
        settings.num_retries = (settings.router_or_litellm("num_retries", notes))
            .and_then(|field| settings.retries(&field, notes));
        settings.say_times(notes);
        settings
    }

    pub fn router(&self, key: &str) -> Option<Field<'a>> {
        self.router.as_ref()?.get(key)
    }

    pub fn litellm(&self, key: &str) -> Option<Field<'a>> {
        self.litellm.as_ref()?.get(key)
    }

    /// What either section may have; the router's comes first, as in LiteLLM.
    fn router_or_litellm(&self, key: &str, notes: &mut Notes) -> Option<Field<'a>> {
        let (router, litellm) = (self.router(key), self.litellm(key));
        if let (Some(router), Some(litellm)) = (&router, &litellm)
            && router.scalar() != litellm.scalar()
        {
            let why = format!("router_settings.{key} takes its place, as in LiteLLM");
            notes.not_carried(litellm, why);
        }
        router.or(litellm)
    }

    pub fn general(&self, key: &str) -> Option<Field<'a>> {
        self.general.as_ref()?.get(key)
    }

    fn routing_strategy(&self, notes: &mut Notes) -> Strategy {
        let Some(field) = self.router("routing_strategy") else {
            return Strategy::Shuffle;
        };
        let why = match field.scalar() {
            Some("least-busy") => return Strategy::Other,
            Some("simple-shuffle") => {
                notes.differs(&field, RANDOM);
                return Strategy::Shuffle;
            }
            Some("latency-based-routing") => {
                "the fastest: the endpoint with the fewest requests in flight is taken, whatever its speed (policy: least_inflight)"
            }
            Some("usage-based-routing" | "usage-based-routing-v2") => {
                "the one with the fewest tokens this minute: the endpoint with the fewest requests in flight is taken (policy: least_inflight)"
            }
            Some("cost-based-routing") => {
                "the cheapest: the endpoint with the fewest requests in flight is taken (policy: least_inflight)"
            }
            _ => {
                "the endpoint with the fewest requests in flight is taken (policy: least_inflight)"
            }
        };
        notes.not_carried(&field, why);
        Strategy::Other
    }

    /// That nothing is written about choosing, where there is a choice.
    pub fn say_unwritten_strategy(&self, list: &Field<'_>, notes: &mut Notes) {
        if self.router("routing_strategy").is_none() {
            let within = self.router.as_ref().unwrap_or(list);
            notes.unwritten(within, "router_settings.routing_strategy", RANDOM);
        }
    }

    /// `retries` of a pool.
    pub fn retries(&self, field: &Field<'_>, notes: &mut Notes) -> Option<u64> {
        match field.count() {
            None => {
                notes.mistake(field, "is no whole number");
                None
            }
            Some(count) if count > MOST_RETRIES => {
                notes.differs(field, format!("retries is {MOST_RETRIES} at most"));
                Some(MOST_RETRIES)
            }
            count => count,
        }
    }

    /// For answers that are no streams, where a deployment has none of its own.
    pub fn timeout(&self) -> Option<Duration> {
        self.request_timeout.or(self.router_timeout)
    }

    /// For streams, where something else is written for them.
    pub fn stream_timeout(&self) -> Option<Duration> {
        self.router_stream_timeout
    }

    /// What a written time means here.
    fn say_times(&self, notes: &mut Notes) {
        if let Some(field) = self.router("timeout") {
            if self.request_timeout.is_some() {
                notes.differs(
                    &field,
                    "litellm_settings.request_timeout comes before it, as in LiteLLM",
                );
            } else {
                self.say_time(&field, notes);
            }
        }
        let others = [
            self.litellm("request_timeout"),
            self.router("stream_timeout"),
        ];
        for field in others.into_iter().flatten() {
            self.say_time(&field, notes);
        }
    }

    /// What the time in `field` means here; once for each kind of time.
    pub fn say_time(&self, field: &Field<'_>, notes: &mut Notes) {
        let (said, what) = match field.key {
            "stream_timeout" => (&self.said.stream, STREAM),
            _ => (&self.said.total, TOTAL),
        };
        if !said.replace(true) {
            notes.differs(field, what);
        }
    }

    /// That nothing is written about time, where a deployment has none either.
    pub fn say_unwritten_timeout(&self, list: &Field<'_>, notes: &mut Notes) {
        let ours = show_duration(&self.defaults.pools[0].timeouts.first_byte);
        let within = self.router.as_ref().unwrap_or(list);
        notes.unwritten(
            within,
            "router_settings.timeout",
            format!("LiteLLM waits 6000s, the gateway {ours} (timeouts.first_byte, timeouts.read)"),
        );
    }

    /// That a deployment has no `api_key`; once.
    pub fn no_api_key(&self, params: &Field<'_>, notes: &mut Notes) {
        if !self.said.no_api_key.replace(true) {
            notes.unwritten(
                params,
                "api_key",
                "LiteLLM sends what is in OPENAI_API_KEY (hosted_vllm: HOSTED_VLLM_API_KEY), the gateway sends none; write api_key at the endpoints if engines ask for one",
            );
        }
    }

    /// `health.eject_after` of every pool, where it is not our default.
    pub fn eject_after(&self, notes: &mut Notes) -> Option<u64> {
        let default = u64::from(self.defaults.pools[0].health.eject_after);
        if let Some(field) = self
            .router("disable_cooldowns")
            .filter(|f| f.flag() != Some(false))
        {
            notes.differs(&field, format!("health.eject_after is {NEVER}; failed probes and refused connections still take an endpoint out"));
            return Some(NEVER);
        }
        let field = self.router_or_litellm("allowed_fails", notes)?;
        let Some(allowed) = field.count() else {
            notes.mistake(&field, "is no whole number");
            return None;
        };
        let after = allowed.saturating_add(1).min(NEVER);
        notes.differs(
            &field,
            format!(
                "LiteLLM counts the failures of a minute; health.eject_after is {after} in a row"
            ),
        );
        (after != default).then_some(after)
    }

    /// `health.eject_for` of every pool, where it is not our default.
    pub fn eject_for(&self, notes: &mut Notes) -> Option<Duration> {
        let field = self.router("cooldown_time")?;
        let time = seconds(&field, notes)?.min(LONGEST_EJECTION);
        notes.differs(
            &field,
            format!(
                "health.eject_for is {}, and doubles each time",
                show_duration(&time)
            ),
        );
        (time != self.defaults.pools[0].health.eject_for).then_some(time)
    }

    /// `max_in_flight` of every pool.
    pub fn max_in_flight(&self, notes: &mut Notes) -> Option<u64> {
        let field = self.router("default_max_parallel_requests")?;
        let Some(count) = field.count() else {
            notes.mistake(&field, "is no whole number");
            return None;
        };
        notes.differs(
            &field,
            "it is max_in_flight of each endpoint, counted for the gateway and not for each worker; where all are at theirs requests wait, as queue of the pool says",
        );
        Some(count.clamp(1, 1_000_000))
    }

    /// The secret of the one key.
    pub fn master_key(&self, notes: &mut Notes) -> Word {
        const NAME: &str = "LITELLM_MASTER_KEY";
        let unwritten = || Word::Variable(NAME.to_owned());
        let Some(field) = self.general("master_key") else {
            return unwritten();
        };
        field.word().unwrap_or_else(|| {
            notes.mistake(&field, format!("is no text; write os.environ/{NAME}"));
            unwritten()
        })
    }

    /// `limits.body` in bytes.
    pub fn body(&self, notes: &mut Notes) -> Option<u64> {
        const MIB: f64 = 1_048_576.0;
        let field = self.general("max_request_size_mb")?;
        let Some(size) = field.number() else {
            notes.mistake(&field, "is no number");
            return None;
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is bounded"
        )]
        let kib = (size * MIB / 1024.0).clamp(1.0, 64.0 * MIB) as u64;
        Some(kib << 10)
    }

    /// Whether the gateway's log is JSON.
    pub fn json_logs(&self) -> bool {
        self.litellm("json_logs").and_then(|f| f.flag()) == Some(true)
    }

    /// A file of authorities for engines' certificates: a path in place of a truth value.
    pub fn ca(&self) -> Option<String> {
        let field = self.litellm("ssl_verify")?;
        match (field.flag(), field.word()) {
            (None, Some(Word::Text(path))) => Some(path),
            _ => None,
        }
    }

    /// False where engines may show any certificate.
    pub fn verify(&self) -> bool {
        self.litellm("ssl_verify").and_then(|f| f.flag()) != Some(false)
    }
}

const RANDOM: &str = "LiteLLM chooses at random; the endpoint with the fewest requests in flight is better informed (policy: least_inflight)";
const TOTAL: &str = "LiteLLM's pages have it as the time of a whole call, LiteLLM 1.106 as that of each wait; it is timeouts.first_byte and timeouts.read, each wait for a first content and for the next, and a connection has 5s (timeouts.connect)";
const STREAM: &str = "it is timeouts.read, between two pieces of an answer; timeouts.first_byte is one for streams and other answers, the longer of the two";

/// A time in seconds, as far as one can be written here.
pub(super) fn seconds(field: &Field<'_>, notes: &mut Notes) -> Option<Duration> {
    if let Some(Word::Variable(_)) = field.word() {
        notes.not_carried(
            field,
            "it stands in a variable; write it as a duration into timeouts, as in 300s",
        );
        return None;
    }
    let Some(number) = field.number() else {
        notes.mistake(field, "is no number of seconds");
        return None;
    };
    let time = Duration::try_from_secs_f64(number).unwrap_or(LONGEST);
    // Milliseconds are the smallest that can be written.
    let time = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let within = time.clamp(Duration::from_millis(1), LONGEST);
    if within != time && number != 0.0 {
        notes.differs(field, format!("it is {} here", show_duration(&within)));
    }
    // LiteLLM takes none for not written.
    (number != 0.0).then_some(within)
}
