//! What is in force where: a block's own directives, and those of the blocks around it.

use std::collections::HashMap;
use std::rc::Rc;

use super::tree::Directive;

/// What is around a location: its server, and `http`.
const OUTSIDE_OF_LOCATIONS: usize = 2;

/// The directives right in one block.
struct Level<'a> {
    directives: &'a [Directive],
    by_name: HashMap<&'a str, Vec<&'a Directive>>,
}

/// A block and those around it, the innermost first.
#[derive(Clone)]
pub(super) struct Scope<'a>(Vec<Rc<Level<'a>>>);

impl<'a> Scope<'a> {
    /// The outermost block.
    pub fn of(directives: &'a [Directive]) -> Self {
        Self(Vec::new()).inner(directives)
    }

    /// A block within this one.
    pub fn inner(&self, directives: &'a [Directive]) -> Self {
        let mut by_name: HashMap<&str, Vec<&Directive>> = HashMap::new();
        for directive in directives {
            by_name.entry(&directive.name).or_default().push(directive);
        }
        let level = Rc::new(Level {
            directives,
            by_name,
        });
        Self(
            std::iter::once(level)
                .chain(self.0.iter().cloned())
                .collect(),
        )
    }

    /// The directives of a name that are in force: those of the innermost block that has any.
    pub fn effective(&self, name: &str) -> &[&'a Directive] {
        (self.0.iter())
            .find_map(|level| level.by_name.get(name))
            .map_or(&[], Vec::as_slice)
    }

    /// The last of them.
    pub fn setting(&self, name: &str) -> Option<&'a Directive> {
        self.effective(name).last().copied()
    }

    /// Those of the block itself.
    pub fn own(&self, name: &str) -> &[&'a Directive] {
        (self.0.first())
            .and_then(|level| level.by_name.get(name))
            .map_or(&[], Vec::as_slice)
    }

    /// As [`Self::effective`], for names that take effect together; in the order of the file.
    pub fn effective_of(&self, names: &[&str]) -> Vec<&'a Directive> {
        for level in &self.0 {
            let has = |name| level.by_name.contains_key(name);
            if names.iter().any(has) {
                let here = level.directives.iter();
                return here.filter(|d| names.contains(&d.name.as_str())).collect();
            }
        }
        Vec::new()
    }

    /// As [`Self::effective_of`], of locations alone: not what the server and the blocks around it have.
    pub fn effective_in_locations(&self, names: &[&str]) -> Vec<&'a Directive> {
        let locations = self.0.len().saturating_sub(OUTSIDE_OF_LOCATIONS);
        Self(self.0.iter().take(locations).cloned().collect()).effective_of(names)
    }

    /// Whether nginx answers before any `proxy_pass` is reached: a `return` right in the block, or in its
    /// server.
    pub fn answers(&self) -> bool {
        let server = self.0.iter().rev().nth(OUTSIDE_OF_LOCATIONS - 1);
        let has_return = |level: &Rc<Level<'_>>| level.by_name.contains_key("return");
        self.0.first().is_some_and(has_return) || server.is_some_and(has_return)
    }

    /// `text` with the variables filled in that are set once, to a constant, and their names.
    pub fn filled_in(&self, text: &str) -> (String, Vec<&'a str>) {
        let mut filled = String::new();
        let mut used = Vec::new();
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            filled.push_str(&rest[..dollar]);
            let after = &rest[dollar + 1..];
            let (name, end) = match after
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
            {
                Some((name, end)) => (name, end),
                None => {
                    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
                    after.split_at(after.find(|c| !is_name(c)).unwrap_or(after.len()))
                }
            };
            match self.constant(name) {
                Some((name, value)) => {
                    filled.push_str(value);
                    used.push(name);
                }
                None => filled.push_str(&rest[dollar..rest.len() - end.len()]),
            }
            rest = end;
        }
        (filled + rest, used)
    }

    fn constant(&self, name: &str) -> Option<(&'a str, &'a str)> {
        let all = self.0.iter().filter_map(|level| level.by_name.get("set"));
        let mut of_name = all.flatten().filter_map(|set| match set.args.as_slice() {
            [variable, value] => {
                let variable = variable.trim_start_matches('$');
                (variable == name).then_some((variable, value.as_str()))
            }
            _ => None,
        });
        let only = of_name.next().filter(|(_, value)| !value.contains('$'))?;
        of_name.next().is_none().then_some(only)
    }
}
