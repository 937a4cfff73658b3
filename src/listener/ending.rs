//! What the end of a gateway means to its listeners and connections.

use super::Role;

/// How the workers come to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// They do not.
    No,
    /// Another process accepts on the sockets. Nothing is accepted here, and each connection's next answer is its last;
    /// until then it stays open, because its client may be sending. If that process dies, there is no end after all.
    HandedOver,
    /// The same, and that process has handed over in its turn: the sockets are no business of this one any more.
    Replaced,
    /// Nothing is accepted but on the admin listener, and idle connections close.
    Stopping,
}

impl Ending {
    /// Whether a listener for `role` still accepts. Who watches a gateway that stops wants to see how far it is.
    pub fn accepts(self, role: Role) -> bool {
        match self {
            Self::No => true,
            Self::HandedOver | Self::Replaced => false,
            Self::Stopping => role == Role::Admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_stops_can_be_watched_and_one_that_was_replaced_cannot_be_met() {
        use Ending::{HandedOver, No, Replaced, Stopping};
        let accepts = |ending: Ending| [Role::Public, Role::Admin].map(|role| ending.accepts(role));
        assert_eq!(accepts(No), [true, true]);
        assert_eq!(accepts(Stopping), [false, true]);
        assert_eq!(accepts(HandedOver), [false, false]);
        assert_eq!(accepts(Replaced), [false, false]);
    }
}
