use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;
use super::{Limited, RateLimits};
use crate::config;
use crate::openai::RateLimit;

/// When one of the requests in flight ends is not known.
const BUSY: Duration = Duration::from_secs(1);
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// What a key may use; `None` = without limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    requests: Option<u64>,
    tokens: Option<u64>,
    in_flight: Option<u32>,
}

impl Limits {
    pub fn of(key: &config::Key) -> Self {
        Self {
            requests: key.requests_per_minute,
            tokens: key.tokens_per_minute,
            in_flight: key.max_in_flight,
        }
    }
}

/// What a key has used. Shared by all epochs of the key.
#[derive(Debug)]
pub(super) struct Account {
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    most_in_flight: Option<u32>,
    in_flight: u32,
}

impl Account {
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            requests: limits.requests.map(|limit| Bucket::new(limit, now)),
            tokens: limits.tokens.map(|limit| Bucket::new(limit, now)),
            most_in_flight: limits.in_flight,
            in_flight: 0,
        }
    }

    /// Other limits for what was used under the earlier ones. A limit that there was not begins unused.
    pub fn configure(&mut self, limits: Limits, now: Instant) {
        for (bucket, limit) in [
            (&mut self.requests, limits.requests),
            (&mut self.tokens, limits.tokens),
        ] {
            match (bucket.as_mut(), limit) {
                (Some(bucket), Some(limit)) => bucket.set_limit(limit, now),
                (_, limit) => *bucket = limit.map(|limit| Bucket::new(limit, now)),
            }
        }
        self.most_in_flight = limits.in_flight;
    }

    /// Takes a request of `tokens` in, or nothing at all. Returns the tokens that were charged, if they are limited.
    pub fn admit(&mut self, tokens: u64, now: Instant) -> Result<Option<u64>, Limited> {
        if let Some(bucket) = &self.tokens
            && tokens > bucket.limit()
        {
            let limit = bucket.limit();
            return Err(Limited {
                by: RateLimit::OneRequest {
                    limit,
                    asked: tokens,
                },
                retry_after: None,
                rate: self.rate(now),
            });
        }
        let requests = (self.requests.as_mut())
            .map(|bucket| (bucket.wait(1, now), RateLimit::Requests(bucket.limit())));
        let of_tokens = (self.tokens.as_mut())
            .map(|bucket| (bucket.wait(tokens, now), RateLimit::Tokens(bucket.limit())));
        let in_flight = (self.most_in_flight)
            .filter(|most| self.in_flight >= *most)
            .map(|most| (BUSY, RateLimit::InFlight(most)));
        let longest = [in_flight, of_tokens, requests]
            .into_iter()
            .flatten()
            .max_by_key(|(wait, _)| *wait);
        if let Some((wait, by)) = longest
            && !wait.is_zero()
        {
            return Err(Limited {
                by,
                retry_after: Some(wait.max(SHORTEST_WAIT)),
                rate: self.rate(now),
            });
        }
        if let Some(bucket) = &mut self.requests {
            bucket.take(1);
        }
        let charged = self.tokens.as_mut().map(|bucket| {
            bucket.take(tokens);
            tokens
        });
        self.in_flight = self.in_flight.saturating_add(1);
        Ok(charged)
    }

    /// Charges `tokens` more, as far as they can be owed; returns how many that was.
    pub fn charge(&mut self, tokens: u64, now: Instant) -> u64 {
        (self.tokens.as_mut()).map_or(0, |bucket| bucket.charge(tokens, now))
    }

    pub fn give_back(&mut self, tokens: u64) {
        if let Some(bucket) = &mut self.tokens {
            bucket.give_back(tokens);
        }
    }

    /// A request that was admitted is over.
    pub fn leave(&mut self, unused: u64) {
        self.give_back(unused);
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub fn rate(&mut self, now: Instant) -> RateLimits {
        RateLimits {
            requests: self.requests.as_mut().map(|bucket| bucket.state(now)),
            tokens: self.tokens.as_mut().map(|bucket| bucket.state(now)),
        }
    }
}
