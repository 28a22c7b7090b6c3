//! The heart: every "should it?" question, as values in and values out.
//!
//! Invariants of this floor: no IO, no waiting, no clock, no chance, no wire format, no order that is
//! chance. One function ([`step::step`]) decides; one table ([`state::next`]) says which state may follow;
//! one place moves an instance. A broken invariant panics.

mod apply;
pub mod dag;
pub mod ids;
mod index;
mod plan;
mod reason;
pub mod retry;
pub mod rule;
pub mod run;
pub mod select;
pub mod state;
pub mod step;
pub mod why;

pub use apply::LOST_MAX;
