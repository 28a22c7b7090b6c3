//! Run state in SQL, and only here: SQLite and Postgres from one text.
//!
//! Owns the schema (`migrations/`), the guards of every write and the order of locks: session, run, task
//! instances, pools by name, problems by key, outbox, events, bells by name. It must not decide what follows from what, and reads no
//! clock but the database's own. Its invariant: a state changes only together with its line in the journal, in
//! one transaction, from the state and the fence the decision was made from.
//!
//! Only `db.rs`, `sqlite.rs` and `postgres.rs` know that there are two databases.

mod adopt;
pub mod bench;
mod chunked;
mod commit;
mod counts;
mod dags;
mod db;
mod error;
mod events;
mod history;
mod migrate;
mod moves;
mod outbox;
mod pools;
mod postgres;
mod problems;
mod prune;
mod room;
mod runs;
mod sessions;
mod sqlite;

pub use dags::{Backfill, DagRow, Firing, SkippedInstants};
pub use error::{ErrorClass, StoreError};
pub use events::{Arrival, Arrived, EventKind, EventSource, TakenEvent, WaitingEvent};
pub use history::{JournalLine, Try, TryEnd};
pub use outbox::{Delivery, Letter, LetterState};
pub use problems::{NumberedProblem, ProblemFilter};
pub use prune::OldRun;
pub use room::{Room, RoomAsked, Wanted};
pub use runs::{Created, InstanceRow, RunFilter, RunSummary};
pub use sessions::{Orphan, Session};

use crate::core::ids::Timestamp;
use db::{Row, Tx, Value, Write};

/// What a commit has survived when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The loss of power.
    Full,
    /// The end of the process; the last moments before a loss of power may be forgotten, consistently.
    Relaxed,
}

/// An open state database. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    database: Database,
    /// Whether commits count what other runs use.
    counted: bool,
}

#[derive(Debug, Clone)]
enum Database {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

/// Milliseconds are all that SQLite's clock has.
const NOW_SQLITE: &str = "SELECT CAST(unixepoch('subsec') * 1000 AS BIGINT) * 1000";
const SCHEMA_VERSION: &str = "SELECT CAST(COALESCE(MAX(version), 0) AS BIGINT) FROM schema_version";
const NOW_POSTGRES: &str = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";

impl Store {
    /// Opens `sqlite://path` or `postgres://…`. A SQLite file and its folder are made if missing, and
    /// migrated; a Postgres database must exist and is migrated by [`Store::migrate`].
    ///
    /// # Errors
    /// `Refused` for a url of another kind; `Environment` if the folder cannot be written, another process
    /// holds the SQLite home, the server is not there, or the database is from a newer version.
    pub async fn open(url: &str, durability: Durability) -> Result<Self, StoreError> {
        let database = match url.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() => {
                Database::Sqlite(sqlite::open(path.into(), durability).await?)
            }
            Some(("postgres" | "postgresql", _)) => {
                Database::Postgres(postgres::open(url, durability).await?)
            }
            _ => {
                return Err(StoreError::Refused(
                    "the url of the state database must be `sqlite://path` or `postgres://user@host/database`".into(),
                ));
            }
        };
        Ok(Self { database, counted: true })
    }

    /// Whether other processes may write to it too.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }

    /// The same database for a process that counts what its own runs use and does not ask what others do:
    /// commits are not refused for pools or limits of active runs and instances.
    #[must_use]
    pub fn uncounted(&self) -> Self {
        Self { counted: false, ..self.clone() }
    }

    /// Brings the schema up to date; nothing happens if it is.
    ///
    /// # Errors
    /// `Environment` if the database is from a newer version.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        match &self.database {
            // Opening has done it, under the lock of the home.
            Database::Sqlite(_) => Ok(()),
            Database::Postgres(postgres) => {
                let mut connection = postgres.pool.acquire().await?;
                migrate::migrate(&mut Tx::Postgres(&mut connection)).await
            }
        }
    }

    /// Opens for reading only, also while another process owns a SQLite home.
    ///
    /// # Errors
    /// `Refused` if there is no such SQLite file yet; `Environment` if the database has no schema; or as
    /// [`Store::open`].
    pub async fn open_reader(url: &str) -> Result<Self, StoreError> {
        let store = match url.split_once("://") {
            Some(("sqlite", path)) if !path.is_empty() => {
                let database = Database::Sqlite(sqlite::open_reader(path.into()).await?);
                Self { database, counted: true }
            }
            _ => Self::open(url, Durability::Full).await?,
        };
        migrate::refuse_newer(store.schema_version().await?)?;
        Ok(store)
    }

    /// The number of the schema that the database has.
    ///
    /// # Errors
    /// `Environment`, also if the database has no schema yet.
    pub async fn schema_version(&self) -> Result<i64, StoreError> {
        let rows = self.read(SCHEMA_VERSION, &[]).await?;
        rows.first().map_or(Ok(0), |row| row.int(0))
    }

    /// Checks that the database is sound, as far as it can tell by itself.
    ///
    /// # Errors
    /// `Environment` with what is broken.
    pub async fn check(&self) -> Result<(), StoreError> {
        if let Database::Postgres(_) = &self.database {
            return self.schema_version().await.map(|_version| ());
        }
        let mut broken = Vec::new();
        for row in self.read("PRAGMA integrity_check", &[]).await? {
            let line = row.text(0)?;
            if line != "ok" {
                broken.push(line);
            }
        }
        for row in self.read("PRAGMA foreign_key_check", &[]).await? {
            broken.push(format!("a row of `{}` refers to one that is not there", row.text(0)?));
        }
        if broken.is_empty() { Ok(()) } else { Err(StoreError::Environment(broken.join("; "))) }
    }

    /// Finishes what waits and lets go of the database; clones are closed with it.
    pub async fn close(&self) {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.close().await,
            Database::Postgres(postgres) => postgres.pool.close().await,
        }
    }

    /// The database's clock: the one that several schedulers share.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn now(&self) -> Result<Timestamp, StoreError> {
        let sql = match &self.database {
            Database::Sqlite(_) => NOW_SQLITE,
            Database::Postgres(_) => NOW_POSTGRES,
        };
        let rows = self.read(sql, &[]).await?;
        let row = rows.first().ok_or_else(|| StoreError::Bug("the database has no clock".into()))?;
        row.int(0).map(Timestamp)
    }

    async fn write<W: Write>(&self, write: W) -> Result<W::Answer, StoreError> {
        match &self.database {
            Database::Sqlite(sqlite) => sqlite.write(write).await,
            Database::Postgres(postgres) => postgres.write(write).await,
        }
    }

    async fn read(&self, sql: &'static str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        match &self.database {
            Database::Sqlite(sqlite) => {
                let mut connection = sqlite.readers.acquire().await?;
                Tx::Sqlite(&mut connection).fetch_all(sql, values).await
            }
            Database::Postgres(postgres) => {
                let mut connection = postgres.pool.acquire().await?;
                Tx::Postgres(&mut connection).fetch_all(sql, values).await
            }
        }
    }
}
