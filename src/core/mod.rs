//! The heart: what should run, where a run stands, and what follows from what happened. Pure: no clock, no
//! chance, no IO, no hash-map order; equal arguments give equal answers.
//!
//! Read [`state`] (the one table), [`dag`], [`run`], then [`step`](mod@step), which uses `apply` for inputs,
//! `plan` for what follows and `admit` for limits. [`timetable`] says when runs are due, [`select`] chooses
//! instances for a clear, [`version`] carries a run over to another version of its DAG, [`why`](mod@why) says what an instance waits for. [`alert`] says what people
//! should hear of.

mod admit;
pub mod alert;
mod apply;
pub mod dag;
pub mod decision;
mod graph;
pub mod ids;
mod index;
pub mod mutant;
mod plan;
pub mod reason;
pub mod retry;
mod rule;
pub mod run;
pub mod select;
pub mod state;
pub mod step;
pub mod task;
pub mod timetable;
pub mod version;
pub mod why;
