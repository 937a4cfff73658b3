//! What may differ, and where the page says so.

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Nginx,
    Sluicegate,
}

#[derive(Debug)]
pub struct Allowed {
    /// The anchor in docs/from-nginx.md.
    pub id: &'static str,
    /// The case; empty is any.
    case: &'static str,
    side: Side,
    /// How the line begins, the number of the answer or request left out.
    line: &'static str,
}

impl Allowed {
    pub fn covers(&self, case: &str, side: Side, line: &str) -> bool {
        // `client 0 status 200` without its number.
        let words = line
            .split(' ')
            .filter(|word| word.parse::<usize>().is_err() || word.len() > 1);
        let plain = words.collect::<Vec<_>>().join(" ");
        (self.case.is_empty() || self.case == case)
            && self.side == side
            && plain.starts_with(self.line)
    }
}

const fn allowed(id: &'static str, case: &'static str, side: Side, line: &'static str) -> Allowed {
    Allowed {
        id,
        case,
        side,
        line,
    }
}

use Side::{Nginx, Sluicegate};

pub static ALLOWED: &[Allowed] = &[allowed(
    "server-field",
    "",
    Nginx,
    "client field server: nginx",
)];
