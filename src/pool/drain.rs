//! Endpoints that get no new requests on purpose, and finish those that they have.

use std::fmt;

use tokio::time::Instant;

/// Whose word keeps new requests from an endpoint.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct DrainedBy {
    /// An operator's, by `sluicegate drain`: until it is taken back.
    pub command: bool,
    /// The configuration's, by `drain: true`.
    pub configuration: bool,
    /// The configuration has the endpoint no more, but for requests that it still holds.
    pub removal: bool,
}

impl DrainedBy {
    pub fn anybody(self) -> bool {
        self != Self::default()
    }
}

/// For a person: `by command`.
impl fmt::Display for DrainedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.command, "by command"),
            (self.configuration, "by the configuration"),
            (self.removal, "removed from the configuration"),
        ];
        let mut said = words.iter().filter(|(holds, _)| *holds);
        if let Some((_, first)) = said.next() {
            f.write_str(first)?;
        }
        said.try_for_each(|(_, word)| write!(f, " and {word}"))
    }
}

/// Whether an endpoint drains, since when, and by whom.
#[derive(Debug, Default)]
pub(super) struct Drain {
    by: DrainedBy,
    since: Option<Instant>,
}

/// What a change of [`Drain`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Begun,
    /// It may be used again.
    Over,
}

impl Drain {
    pub fn by(&self) -> DrainedBy {
        self.by
    }

    /// `None` = it does not drain.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    pub fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// `None` = it drains, or does not, as before.
    pub fn set(&mut self, by: DrainedBy, now: Instant) -> Option<Turn> {
        self.by = by;
        match (self.is_on(), by.anybody()) {
            (false, true) => {
                self.since = Some(now);
                Some(Turn::Begun)
            }
            (true, false) => {
                self.since = None;
                Some(Turn::Over)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_lasts_until_nobody_wants_it_any_more() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut drain = Drain::default();
        let nobody = DrainedBy::default();
        assert_eq!(drain.set(nobody, now), None);
        let command = DrainedBy {
            command: true,
            ..nobody
        };
        assert_eq!(drain.set(command, now), Some(Turn::Begun));
        let both = DrainedBy {
            configuration: true,
            ..command
        };
        assert_eq!(drain.set(both, later), None);
        assert_eq!((drain.since(), drain.by()), (Some(now), both));
        let file = DrainedBy {
            command: false,
            ..both
        };
        assert_eq!(drain.set(file, later), None);
        assert_eq!(drain.set(nobody, later), Some(Turn::Over));
        assert_eq!((drain.is_on(), drain.since()), (false, None));
    }

    #[test]
    fn it_is_told_in_words() {
        let mut by = DrainedBy::default();
        assert_eq!(by.to_string(), "");
        by.configuration = true;
        assert_eq!(by.to_string(), "by the configuration");
        by.command = true;
        assert_eq!(by.to_string(), "by command and by the configuration");
    }
}
