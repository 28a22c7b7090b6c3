//! The single door to a run, for people and workers.
