//! What can go wrong with the store, and whose affair it is.

use std::fmt;

/// Whose affair an error is; the command line makes an exit code of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// Somebody else was first: load again and decide again.
    Conflict,
    /// The request cannot be met as it stands.
    User,
    /// Disk, network, permission, another process.
    Environment,
    /// We contradict ourselves.
    Bug,
}

/// An error of the store, in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreError {
    /// The rows are not as the decision assumed; nothing was written.
    Conflict(String),
    /// Refused for what was asked; nothing was written.
    Refused(String),
    /// The surroundings are in the way.
    Environment(String),
    /// The database was busy with another writer, several times over.
    Busy(String),
    /// The database refused what should have been right, or holds what cannot be.
    Bug(String),
}

impl StoreError {
    /// Whose affair it is.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Conflict(_) => ErrorClass::Conflict,
            Self::Refused(_) => ErrorClass::User,
            Self::Environment(_) | Self::Busy(_) => ErrorClass::Environment,
            Self::Bug(_) => ErrorClass::Bug,
        }
    }

    /// A stored text that does not parse.
    pub(super) fn unreadable(column: &str, text: &str) -> Self {
        Self::Bug(format!("the database holds `{text}` as {column}, which this binary cannot read"))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict(text)
            | Self::Refused(text)
            | Self::Environment(text)
            | Self::Busy(text)
            | Self::Bug(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StoreError {}

/// Codes that mean "again": `SQLITE_BUSY` with its kin, and Postgres's serialization failure, deadlock and
/// lock timeout.
const BUSY: [&str; 7] = ["5", "6", "261", "517", "40001", "40P01", "55P03"];
/// `SQLITE_IOERR`, `SQLITE_FULL`, `SQLITE_CANTOPEN`, `SQLITE_READONLY`, `SQLITE_CORRUPT`, `SQLITE_NOTADB`, as
/// primary codes.
const SQLITE_SURROUNDINGS: [i64; 6] = [10, 13, 14, 8, 11, 26];
/// Postgres classes: connection, authorization, no such database, resources, operator, system.
const POSTGRES_SURROUNDINGS: [&str; 6] = ["08", "28", "3D", "53", "57", "58"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return if matches!(error, sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_)) {
                Self::Bug(format!("database: {error}"))
            } else {
                Self::Environment(format!("database: {error}"))
            };
        };
        let code = database.code().unwrap_or_default();
        let text = format!("database: {} (code {code})", database.message());
        let primary = code.parse::<i64>().map_or(0, |number| number % 256);
        if BUSY.contains(&&*code) {
            Self::Busy(text)
        } else if (code.len() < 5 && SQLITE_SURROUNDINGS.contains(&primary))
            || (code.len() == 5 && POSTGRES_SURROUNDINGS.iter().any(|class| code.starts_with(class)))
        {
            Self::Environment(text)
        } else {
            Self::Bug(text)
        }
    }
}
