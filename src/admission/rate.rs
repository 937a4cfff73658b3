//! What a client is told of its limits.

use std::fmt::Write;
use std::time::Duration;

use crate::openai::{ApiError, RateLimit};

/// What is left of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// A minute.
    pub limit: u64,
    /// What could be used now, in whole requests or tokens.
    pub remaining: u64,
    /// How long until all of `limit` could, if nothing were used.
    pub reset: Duration,
}

/// The limits that a key has; `None` = it has no such limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimits {
    pub requests: Option<Limit>,
    pub tokens: Option<Limit>,
}

/// Why a request is not taken. It has cost nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// The limit that holds it up longest.
    pub by: RateLimit,
    /// After exactly that long the same request would be taken, if nothing else came in between; at least 1 ms. For
    /// requests in flight it is a guess. `None`: never, it is larger than its limit.
    pub retry_after: Option<Duration>,
    pub rate: RateLimits,
}

impl RateLimits {
    /// The fields of an answer, as OpenAI names and writes them: `put(name, value)`, in no case more than six times.
    ///
    /// See <https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers>.
    pub fn each_field(&self, mut put: impl FnMut(&'static str, &str)) {
        const REQUESTS: [&str; 3] = [
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests",
        ];
        const TOKENS: [&str; 3] = [
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
        ];
        let mut digits = itoa::Buffer::new();
        for (state, [limit, remaining, reset]) in [(self.requests, REQUESTS), (self.tokens, TOKENS)]
        {
            let Some(state) = state else { continue };
            put(limit, digits.format(state.limit));
            put(remaining, digits.format(state.remaining));
            put(reset, &duration(state.reset));
        }
    }
}

impl Limited {
    /// The fields of the 429 besides `Retry-After`, which [`ApiError::retry_after`] has: those of the limits, and what
    /// OpenAI's and Anthropic's SDKs heed first, `retry-after-ms` or, where it would never be taken,
    /// `x-should-retry: false`.
    pub fn each_field(&self, mut put: impl FnMut(&'static str, &str)) {
        match self.retry_after {
            Some(wait) => put(
                "retry-after-ms",
                itoa::Buffer::new().format(milliseconds(wait)),
            ),
            None => put("x-should-retry", "false"),
        }
        self.rate.each_field(put);
    }
}

impl From<&Limited> for ApiError {
    fn from(limited: &Limited) -> Self {
        Self::RateLimitExceeded {
            limit: limited.by,
            retry_after: limited.retry_after.unwrap_or_default(),
        }
    }
}

/// Rounded up: who waits so long does not wait in vain.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// As Go writes it, which OpenAI does, in whole milliseconds: `120ms`, `8.64s`, `6m0s`.
fn duration(duration: Duration) -> String {
    let milliseconds = milliseconds(duration);
    let mut text = String::with_capacity(16);
    // Writing to a string does not fail.
    let _ = match milliseconds {
        0 => text.write_str("0s"),
        1..1000 => write!(text, "{milliseconds}ms"),
        _ => {
            let seconds = milliseconds / 1000;
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            if hours > 0 {
                let _ = write!(text, "{hours}h");
            }
            if seconds >= 60 {
                let _ = write!(text, "{minutes}m");
            }
            let _ = write!(text, "{}", seconds % 60);
            let thousandths = milliseconds % 1000;
            if thousandths > 0 {
                let _ = write!(text, ".{thousandths:03}");
                text.truncate(text.trim_end_matches('0').len());
            }
            text.write_str("s")
        }
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(
        each: impl FnOnce(&mut dyn FnMut(&'static str, &str)),
    ) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        each(&mut |name, value| fields.push((name, value.to_owned())));
        fields
    }

    #[test]
    fn durations_are_written_as_openai_does() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ms"),
            (120_000_000, "120ms"),
            (999_000_001, "1s"),
            (1_000_000_000, "1s"),
            (8_640_000_000, "8.64s"),
            (10_000_000_000, "10s"),
            (10_050_000_000, "10.05s"),
            (59_999_999_999, "1m0s"),
            (90_951_000_000, "1m30.951s"),
            (360_000_000_000, "6m0s"),
            (600_500_000_000, "10m0.5s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_001_000_000, "25h1m1.001s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), text);
        }
        assert!(duration(Duration::MAX).ends_with('s'));
    }

    #[test]
    fn only_limits_that_exist_are_told() {
        let requests = Some(Limit {
            limit: 600,
            remaining: 599,
            reset: Duration::from_millis(100),
        });
        let tokens = Some(Limit {
            limit: u64::MAX,
            remaining: 0,
            reset: Duration::from_secs(90),
        });
        let told = fields(|put| RateLimits { requests, tokens }.each_field(put));
        let value = |name| {
            told.iter()
                .find(|field| field.0 == name)
                .unwrap()
                .1
                .as_str()
        };
        assert_eq!(told.len(), 6);
        assert_eq!(value("x-ratelimit-limit-requests"), "600");
        assert_eq!(value("x-ratelimit-remaining-requests"), "599");
        assert_eq!(value("x-ratelimit-reset-requests"), "100ms");
        assert_eq!(value("x-ratelimit-limit-tokens"), "18446744073709551615");
        assert_eq!(value("x-ratelimit-remaining-tokens"), "0");
        assert_eq!(value("x-ratelimit-reset-tokens"), "1m30s");
        let told = fields(|put| {
            RateLimits {
                requests: None,
                tokens,
            }
            .each_field(put);
        });
        assert!(told.len() == 3 && told.iter().all(|(name, _)| name.ends_with("-tokens")));
        assert!(fields(|put| RateLimits::default().each_field(put)).is_empty());
    }

    #[test]
    fn a_refusal_says_when_and_whether_to_come_again() {
        let mut limited = Limited {
            by: RateLimit::Requests(600),
            retry_after: Some(Duration::from_nanos(2_000_000_001)),
            rate: RateLimits::default(),
        };
        let told = fields(|put| limited.each_field(put));
        assert_eq!(told, [("retry-after-ms", "2001".to_owned())]);
        assert_eq!(ApiError::from(&limited).retry_after(), Some(3));
        limited.retry_after = Some(Duration::from_millis(1));
        assert_eq!(ApiError::from(&limited).retry_after(), Some(1));
        let (limit, asked) = (1000, 1024);
        limited.by = RateLimit::OneRequest { limit, asked };
        limited.retry_after = None;
        let told = fields(|put| limited.each_field(put));
        assert_eq!(told, [("x-should-retry", "false".to_owned())]);
        assert_eq!(ApiError::from(&limited).retry_after(), None);
        assert_eq!(ApiError::from(&limited).status(), 429);
    }
}
