//! `Server-Timing` (<https://www.w3.org/TR/server-timing/>): where the time of one request went, for a
//! client that asks.

use std::fmt::Write as _;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

use super::ctx::RequestCtx;

/// The field by which a client asks: `X-Sluicegate-Timing: 1`. It goes no further.
pub const ASKS: &str = "x-sluicegate-timing";
const ASKS_NAME: HeaderName = HeaderName::from_static(ASKS);
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// What is known of a request's times when the head of its answer is written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Timing {
    /// In the pool's queue.
    queue: Duration,
    /// Until a connection to the engine stood; none on one that was open.
    connect: Option<Duration>,
    /// From the request's head to the first content of a stream, or to this answer's head.
    first_byte: Duration,
    /// The gateway's own share: what it did before the engine had the request, or all of it where none was
    /// asked. Not known of a request that was moved.
    gateway: Option<Duration>,
}

pub fn is_asked(headers: &HeaderMap) -> bool {
    headers.get(ASKS_NAME).is_some_and(|value| value == "1")
}

/// The value of the field.
pub fn value(ctx: &RequestCtx, now: Instant) -> Option<HeaderValue> {
    let so_far = now.saturating_duration_since(ctx.started);
    let queue = ctx.queue.unwrap_or_default();
    let timing = Timing {
        queue,
        connect: ctx.connect,
        first_byte: ctx.ttft.unwrap_or(so_far),
        gateway: match ctx.attempts {
            0 => Some(so_far.saturating_sub(queue)),
            _ => ctx.overhead,
        },
    };
    HeaderValue::try_from(timing.text()).ok()
}

impl Timing {
    /// In milliseconds, as the specification has them.
    fn text(&self) -> String {
        let mut text = String::with_capacity(96);
        let metrics = [
            ("queue", Some(self.queue)),
            ("connect", self.connect),
            ("ttfb", Some(self.first_byte)),
            ("gateway", self.gateway),
        ];
        for (name, duration) in metrics {
            let Some(duration) = duration else {
                continue;
            };
            let separator = if text.is_empty() { "" } else { ", " };
            let milliseconds = duration.as_secs_f64() * 1000.0;
            // Writing to a String does not fail.
            let _ = write!(text, "{separator}{name};dur={milliseconds:.3}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        let timing = Timing {
            queue: Duration::from_micros(8_250),
            connect: Some(Duration::from_micros(412)),
            first_byte: Duration::from_millis(1530),
            gateway: Some(Duration::from_nanos(98_400)),
        };
        assert_eq!(
            timing.text(),
            "queue;dur=8.250, connect;dur=0.412, ttfb;dur=1530.000, gateway;dur=0.098"
        );
        let reused = Timing {
            queue: Duration::ZERO,
            connect: None,
            gateway: None,
            ..timing
        };
        assert_eq!(reused.text(), "queue;dur=0.000, ttfb;dur=1530.000");
    }

    #[test]
    fn only_a_1_asks() {
        for (value, expected) in [("1", true), ("0", false), ("", false), ("true", false)] {
            let mut headers = HeaderMap::new();
            headers.insert(ASKS, HeaderValue::from_static(value));
            assert_eq!(is_asked(&headers), expected, "{value}");
        }
        assert!(!is_asked(&HeaderMap::new()));
    }
}
