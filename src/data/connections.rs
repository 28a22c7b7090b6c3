//! Connections: named in the configuration or the environment, never in a DAG file.

/// All connections by name. `warehouse` exists by default: SQLite in the home folder.
#[derive(Clone)]
pub struct Connections {}
