//! Mainspring runs a company's customer-data platform from YAML files: one engine from the nightly
//! batch to the sub-second event.
//!
//! Four nouns, one function, one write: a [`Dag`](core::dag::Dag) says what should run, a
//! [`Run`](core::run::Run) is one execution as a plain value, an [`Input`](core::run::Input) is what
//! happened, a [`Change`](core::run::Change) is what follows. [`core::step`](core::step::step) decides,
//! without clock, chance or IO; the store's `commit` is the only writer of a state.
//!
//! # The house
//! Imports go down only; rooms on one floor do not see each other (`tests/it/architecture.rs` holds it).
//!
//! | floor | room | owns |
//! |---|---|---|
//! | 0 | [`core`] | scheduling, pure |
//! | 0 | [`segment`] | numerics, pure |
//! | 0 | [`secret`] | a value that is never printed |
//! | 1 | [`store`] | SQL run state |
//! | 1 | [`sim`] | the deterministic simulator: the core among faults |
//! | 1 | [`data`] | datasets, formats, sources, warehouses |
//! | 1 | [`alerts`] | a channel per file: how people are told |
//! | 1 | [`report`] | a clustering as one page that needs nothing else |
//! | 2 | [`tasks`] | one file per kind of work |
//! | 3 | [`dagbag`] | YAML to a DAG, all problems at once |
//! | 4 | [`control`] | the single door to a run |
//! | 5 | [`engine`], [`worker`], [`web`], [`config`] | the loops and the API; async begins here |
//! | 6 | [`cli`] | one file per subcommand |
//!
//! Reading order: [`core::state`], [`core::dag`], [`core::run`], [`core::step`], three files of
//! `tests/scenarios/`, then [`tasks`].

pub mod alerts;
pub mod cli;
pub mod config;
pub mod control;
pub mod core;
pub mod dagbag;
#[cfg(feature = "data")]
pub mod data;
pub mod engine;
#[cfg(feature = "ml")]
pub mod report;
pub mod secret;
#[cfg(feature = "ml")]
pub mod segment;
pub mod sim;
pub mod store;
pub mod tasks;
pub mod web;
pub mod worker;
