//! YAML files to [`Dag`](crate::core::dag::Dag)s, or to a complete list of problems.
//!
//! After this there is no text to interpret and no gap to fill. What a kind's settings mean is the kind's own;
//! when a DAG fires is [`Schedule`](crate::core::timetable::Schedule)'s. Nothing here reads a clock or runs anything.
//!
//! A file goes through: `yaml` (a tree that remembers places), `keys` and `schemas` (what may be said),
//! `shape` (the two compared), `drafts` and `task` (tasks one by one), `references` (templates), `links` (order).

mod drafts;
mod file;
mod folder;
mod format;
mod keys;
mod links;
mod params;
mod problem;
mod references;
mod routes;
mod schedule;
mod schemas;
mod shape;
mod task;
mod yaml;

pub use file::{DagFile, dag_from_source, file_from_source, load_text};
pub use folder::{Bag, files_of, load_file, load_path};
pub use format::format_text;
pub use params::{Param, ParamSpec, ParamType};
pub use problem::{Place, Problem};

/// The JSON Schema of one DAG document, for editors.
#[must_use]
pub fn file_schema() -> serde_json::Value {
    schemas::SCHEMAS.of_file()
}
