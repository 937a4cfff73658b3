//! What a request's body asks for, read as it arrives and never rebuilt.
//!
//! [`Scanner`] takes the pieces of a JSON body in whatever cutting they come and gives the same
//! [`Peeked`] for each of them. It checks the structure of the whole text (RFC 8259), so that no
//! engine is bothered with half an object, but reads only the few small values the gateway acts on:
//! what stands in all other strings is the engine's to judge. Its memory does not grow with the body.
//! Where a key stands twice the last one counts, as in Python's `json`, which the engines use.
//!
//! [`Edit`] and [`apply`] change single values and share every other byte. [`multipart`] reads the
//! forms of audio uploads in the same way.
//!
//! What the engines take leniently (pydantic: `"stream": "yes"`, `"n": "2"`, `16.0`) is read the way
//! they read it; what they would refuse anyway is a [`BodyFault`].

mod edit;
mod fault;
mod fields;
pub mod multipart;
mod onward;
mod scan;
mod steering;
mod tokens;
mod value;

pub use edit::{Edit, apply};
pub use fault::BodyFault;
pub use fields::{Peeked, StreamOptions, Text};
pub use onward::{CARRIED, Onward, STOP, TEMPERATURE, TOP_K};
pub use scan::{ENCODED, MAX_DEPTH, Scanner};
pub use steering::STEERING;
pub use value::TEXT_LIMIT;

#[cfg(any(test, fuzzing))]
#[path = "../../../tests/fuzz/src/bodies.rs"]
pub mod bodies;
#[cfg(any(test, fuzzing))]
#[path = "../../../tests/fuzz/src/forms.rs"]
pub mod forms;
#[cfg(test)]
mod tests;
