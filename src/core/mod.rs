//! The heart.
pub mod dag;
pub mod ids;
pub mod run;
pub mod state;
pub mod step;
