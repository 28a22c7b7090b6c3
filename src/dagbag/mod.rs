//! YAML files to [`Dag`](crate::core::dag::Dag)s, or to a complete list of problems.
