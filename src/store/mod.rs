//! Run state in SQL, and only here: SQLite and Postgres from one text.
