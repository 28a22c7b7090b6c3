//! The loops of a long-lived process, and the one clock.
//!
//! Nothing below this floor reads a clock: `now` is an argument there.

use crate::core::ids::Timestamp;

pub mod courier;
pub mod files;
pub mod lease;
mod news;
pub mod retention;
pub mod scheduler;
pub mod watchdog;

/// The wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> Timestamp {
    chrono::Utc::now().into()
}
