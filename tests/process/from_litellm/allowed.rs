//! What may differ, and where the page says so.

/// Whose line it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    LiteLlm,
    Sluicegate,
}

/// A place in docs/from-litellm.md, and what is different by it.
#[derive(Debug)]
pub struct Allowed {
    /// The anchor.
    pub id: &'static str,
    /// None is any.
    pub cases: &'static [&'static str],
    pub side: Side,
    /// How the line begins, the number of the engine's request left out.
    pub line: &'static str,
}

impl Allowed {
    pub fn covers(&self, case: &str, side: Side, line: &str) -> bool {
        (self.cases.is_empty() || self.cases.contains(&case))
            && self.side == side
            && unnumbered(line).starts_with(self.line)
    }
}

/// `engine 0 asked` without the number.
fn unnumbered(line: &str) -> String {
    let mut words: Vec<&str> = line.splitn(3, ' ').collect();
    if words.len() == 3 && words[1].parse::<usize>().is_ok() {
        words.remove(1);
    }
    words.join(" ")
}

const fn litellm(id: &'static str, cases: &'static [&'static str], line: &'static str) -> Allowed {
    Allowed {
        id,
        cases,
        side: Side::LiteLlm,
        line,
    }
}

const fn sluicegate(
    id: &'static str,
    cases: &'static [&'static str],
    line: &'static str,
) -> Allowed {
    Allowed {
        id,
        cases,
        side: Side::Sluicegate,
        line,
    }
}

pub static ALLOWED: &[Allowed] = &[];
