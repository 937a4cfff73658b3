//! Going on with a stream at another engine, so that its client sees one answer.
//!
//! A [`Plan`] says whether a request allows it and how. [`Kept`] reads the events on their way to the client,
//! keeps what another engine must be told, and takes out what only the gateway asked for. When the engine fails,
//! the next one gets a body of [`Plan::by_ids`] or [`Plan::by_text`], and from then on [`Kept`] puts what comes
//! into the form of the first engine's events.
//!
//! By token ids the answer is the one it would have been, if the engine decodes greedily: ids that end inside a
//! character or ahead of the text are dropped, and what then comes a second time is skipped ([`seam`]). By text it
//! mostly is.

mod alike;
mod chunk;
mod dress;
mod kept;
mod onward;
mod plan;
mod quick;
mod seam;

pub use alike::Alike;
pub use kept::Kept;
pub use onward::END_OF_REASONING;
pub use plan::{NothingLeft, Plan};

#[cfg(any(test, fuzzing))]
#[path = "../../../tests/fuzz/src/splices.rs"]
pub mod splices;

#[cfg(test)]
mod tests;
