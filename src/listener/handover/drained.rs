//! Endpoints that operators drained, on their way from one process to the next.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::EndpointState;
use crate::upstream::Address;

const WORD: &str = "drained";

/// What the old process says of an endpoint that was drained by command; `None` = it was not.
pub fn announcement(state: &EndpointState, now: Instant) -> Option<Vec<u8>> {
    let since = state.drained_by_command_for(now)?.as_secs();
    let (address, url) = (address(state), state.url());
    Some(format!("{WORD}\n{since}\n{address}\n{url}").into_bytes())
}

/// An endpoint that was drained in the process before.
#[derive(Debug, PartialEq, Eq)]
pub struct Drained {
    since: Duration,
    address: String,
    url: String,
}

impl Drained {
    /// `None` = the message says something else.
    pub(super) fn of(message: &[u8]) -> Option<Self> {
        let message = std::str::from_utf8(message).ok()?;
        let mut parts = message.splitn(4, '\n');
        if parts.next()? != WORD {
            return None;
        }
        let (since, address, url) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            since: Duration::from_secs(since.parse().ok()?),
            address: address.to_owned(),
            url: url.to_owned(),
        })
    }

    /// Drains `state` since then, if it is the same endpoint.
    pub fn apply(&self, state: &EndpointState, now: Instant) {
        if state.url() == self.url && address(state) == self.address {
            state.drain(now.checked_sub(self.since).unwrap_or(now));
        }
    }
}

fn address(state: &EndpointState) -> String {
    match &state.target.address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(_) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::testing;

    #[test]
    fn a_drain_goes_over_to_the_same_endpoint() {
        let now = Instant::now();
        let minute = Duration::from_secs(60);
        let old = testing::state(now);
        assert_eq!(announcement(&old, now), None);
        old.drain(now);
        let message = announcement(&old, now + minute).unwrap();
        let text = String::from_utf8(message.clone()).unwrap();
        assert_eq!(text, "drained\n60\n127.0.0.1:8000\nhttp://node:8000");

        let drained = Drained::of(&message).unwrap();
        let new = testing::state(now);
        drained.apply(&new, now + minute);
        let since = new.drained_by_command_for(now + minute);
        assert!(new.is_draining() && since.is_some());
        let settings = testing::settings("node:8001");
        let other = EndpointState::new(testing::target(8001), settings, now);
        drained.apply(&other, now + minute);
        assert!(!other.is_draining());
    }

    #[test]
    fn what_says_something_else_is_passed_over() {
        for message in [
            &b"drained"[..],
            b"drained\n1\nx",
            b"drained\nx\ny\nz",
            b"end",
            b"\xff",
        ] {
            assert_eq!(Drained::of(message), None);
        }
    }
}
