//! Connections, loads, validation, clustering and SQL statements, through their public doors, on SQLite and
//! on a real Postgres.

mod load;
mod server;
