//! What a stream keeps so that another engine can go on with it, and what that takes of the memory for bodies.

use crate::openai::continuation::Kept;

use super::super::memory::Charge;

/// A stream that can be gone on with elsewhere.
#[derive(Debug)]
pub struct Continuable {
    pub kept: Kept,
    /// Bytes that are there for it besides.
    besides: usize,
    /// For all of that.
    charge: Charge,
    charged: usize,
    /// `limits.body_memory`.
    limit: usize,
}

/// What is kept is charged in steps of so many bytes.
const CHARGE_STEP: usize = 4096;

impl Continuable {
    /// `besides`: bytes that are there for as long as it is. `charge` is for them and for what is kept, `limit` the most
    /// that they may come to together with all else.
    pub fn new(kept: Kept, besides: usize, charge: Charge, limit: usize) -> Self {
        let mut new = Self {
            kept,
            besides,
            charge,
            charged: 0,
            limit,
        };
        new.settle();
        new
    }

    /// Charges what is kept by now; without room nothing is kept any more.
    pub(super) fn settle(&mut self) {
        let used = self.kept.memory() + self.besides;
        if used > self.charged {
            let more = (used - self.charged).next_multiple_of(CHARGE_STEP);
            if self.charge.add(more, self.limit) {
                self.charged += more;
            } else {
                self.kept.give_up();
            }
        }
    }
}
