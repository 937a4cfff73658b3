//! Endpoints that operators drained, on their way from one process to the next.

use std::time::Duration;

use tokio::time::Instant;

use crate::pool::EndpointState;
use crate::upstream::Address;

const WORD: &str = "drained";
/// In place of an address: all that the url has, which may be others by then.
const ALL: &str = "*";

/// What the old process says of those of its endpoints that were drained by command.
pub fn announcements(states: &[&EndpointState], now: Instant) -> Vec<Vec<u8>> {
    let announce = |state: &EndpointState| {
        let since = state.drained_by_command_for(now)?.as_secs();
        let url = state.url();
        let mut same = states.iter().filter(|other| other.url() == url);
        let address = match same.all(|other| other.drained_by_command_for(now).is_some()) {
            true => ALL.to_owned(),
            false => address(state),
        };
        Some(format!("{WORD}\n{since}\n{address}\n{url}").into_bytes())
    };
    states.iter().copied().filter_map(announce).collect()
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
        if state.url() == self.url && (self.address == ALL || address(state) == self.address) {
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
        let at = |ip: [u8; 4], port| {
            let mut target = testing::target(port);
            target.address = Address::Tcp((ip, port).into());
            EndpointState::new(target, testing::settings("node"), now)
        };
        let (first, second) = (at([10, 0, 0, 1], 8000), at([10, 0, 0, 2], 8000));
        let old = [&first, &second];
        let said = || -> Vec<_> {
            let messages = announcements(&old, now + minute);
            let text = |message| String::from_utf8(message).unwrap();
            messages.into_iter().map(text).collect()
        };
        assert!(said().is_empty());
        first.drain(now);
        let url = first.url();
        assert_eq!(said(), [format!("drained\n60\n10.0.0.1:8000\n{url}")]);

        let drains = |message: &str, state: &EndpointState| {
            let drained = Drained::of(message.as_bytes()).unwrap();
            drained.apply(state, now + minute);
            state.drained_by_command_for(now + minute) == Some(minute) && state.is_draining()
        };
        let one = said().remove(0);
        assert!(drains(&one, &at([10, 0, 0, 1], 8000)));
        assert!(!drains(&one, &at([10, 0, 0, 2], 8000)));
        assert!(!drains(&one, &at([10, 0, 0, 1], 8001)));
        // All that the name has: it may have another address when the new process looks it up, or none yet.
        second.drain(now);
        let all = format!("drained\n60\n*\n{url}");
        assert_eq!(said(), [all.clone(), all.clone()]);
        let lost = EndpointState::unresolved(testing::target(8000), testing::settings("node"), now);
        for new in [at([10, 0, 0, 3], 8000), lost] {
            assert!(drains(&all, &new));
        }
        assert!(!drains(&all, &at([10, 0, 0, 1], 8001)));
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
