//! Who sends a request, and whether it may be sent now: keys, and what each may use in a minute and at a time.
//!
//! Pure: the time is an argument, and so is what a request is estimated at.

mod account;
mod bucket;
mod keyring;
mod rate;
mod tenant;

pub use keyring::{Keyring, LONGEST_SECRET};
pub use rate::{Limit, Limited, RateLimits};
pub use tenant::{Permit, Tenant};

#[cfg(test)]
mod tests;
