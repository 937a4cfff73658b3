/// The endpoints of one pool, by index, that a request has tried already. No allocation up to 64.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tried {
    first: u64,
    /// Indexes from 64 on, 64 a word.
    rest: Vec<u64>,
}

impl Tried {
    pub fn new() -> Self {
        Self::default()
    }

    /// As if all of `count` but one had been.
    pub fn all_but(one: usize, count: usize) -> Self {
        let mut tried = Self::default();
        for index in (0..count).filter(|&index| index != one) {
            tried.insert(index);
        }
        tried
    }

    pub fn insert(&mut self, index: usize) {
        let bit = 1 << (index % 64);
        match (index / 64).checked_sub(1) {
            None => self.first |= bit,
            Some(word) => {
                if word >= self.rest.len() {
                    self.rest.resize(word + 1, 0);
                }
                self.rest[word] |= bit;
            }
        }
    }

    /// Inserts it, if there is one.
    pub(super) fn extend(&mut self, index: Option<usize>) {
        if let Some(index) = index {
            self.insert(index);
        }
    }

    pub fn contains(&self, index: usize) -> bool {
        let word = match (index / 64).checked_sub(1) {
            None => self.first,
            Some(word) => self.rest.get(word).copied().unwrap_or(0),
        };
        word & (1 << (index % 64)) != 0
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn len(&self) -> u32 {
        self.first.count_ones() + self.rest.iter().map(|word| word.count_ones()).sum::<u32>()
    }

    /// All may be tried again: once a content event has reached the client, a further failure is a
    /// new one.
    pub fn clear(&mut self) {
        self.first = 0;
        self.rest.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(indexes in prop::collection::vec(0usize..300, 0..40)) {
            let mut tried = Tried::new();
            let mut model = BTreeSet::new();
            for index in indexes {
                tried.insert(index);
                model.insert(index);
            }
            prop_assert_eq!(tried.len() as usize, model.len());
            prop_assert_eq!(tried.is_empty(), model.is_empty());
            for index in 0..400 {
                prop_assert_eq!(tried.contains(index), model.contains(&index));
            }
            tried.clear();
            prop_assert_eq!(tried.len(), 0);
        }
    }

    #[test]
    fn sixty_four_need_no_allocation() {
        let mut tried = Tried::new();
        for index in 0..64 {
            tried.insert(index);
        }
        assert_eq!(tried.len(), 64);
        assert_eq!(tried.rest.capacity(), 0);
    }
}
