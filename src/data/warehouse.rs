//! Warehouses: SQLite files and Postgres databases that connections name.
//!
//! Owns pools, transactions, and what the two databases call a type. Does not know what a load is, nor
//! the store: the run state may live in the same kind of database but never meets this code.
//! SQL is built from quoted names and bound values; only an author's own statement is taken as it is.

use std::time::Duration;

use datafusion::arrow::datatypes::DataType;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::sql::sqlparser::dialect::{Dialect as Syntax, PostgreSqlDialect, SQLiteDialect};
use serde_json::{Map, Value};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Postgres, Row, Sqlite, Transaction};

use super::DataError;
use super::cells::{Cell, no_cell};
use super::connections::Connection;
use super::sql::bind_text;

mod copy;
mod postgres;
mod sqlite;

/// Connections of one warehouse at once.
const POOL_CONNECTIONS_MAX: u32 = 4;
/// The longest wait for a lock or a connection before the attempt fails and may be retried.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest name of a table or column; Postgres cuts longer ones silently.
const NAME_BYTES_MAX: usize = 63;

/// A database with its pool. Cloning shares it.
#[derive(Clone)]
pub struct Warehouse {
    name: String,
    pool: Pool,
}

#[derive(Clone)]
enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// Which SQL a database speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// Postgres.
    Postgres,
}

impl Warehouse {
    /// Opens the database; a SQLite file and its folder are made if they are not there.
    ///
    /// # Errors
    /// [`DataError::Permanent`] if the connection is no database or its address cannot be read;
    /// [`DataError::Retryable`] if it does not answer.
    pub async fn open(name: &str, connection: &Connection) -> Result<Self, DataError> {
        let name = name.to_owned();
        let pool = match connection {
            Connection::Sqlite { path } => {
                if let Some(folder) = path.parent() {
                    tokio::fs::create_dir_all(folder).await.map_err(|e| {
                        DataError::Retryable(format!("connection `{name}`: {}: {e}", folder.display()))
                    })?;
                }
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(PATIENCE);
                let pool =
                    SqlitePoolOptions::new().max_connections(POOL_CONNECTIONS_MAX).acquire_timeout(PATIENCE);
                Pool::Sqlite(pool.connect_with(options).await.map_err(|e| explain(&name, e))?)
            }
            Connection::Postgres { url } => {
                let options = url.expose().parse::<PgConnectOptions>().map_err(|_| {
                    DataError::Permanent(format!(
                        "connection `{name}`: its address cannot be read, expected `postgres://user:password@host:port/database`"
                    ))
                })?;
                let pool =
                    PgPoolOptions::new().max_connections(POOL_CONNECTIONS_MAX).acquire_timeout(PATIENCE);
                Pool::Postgres(pool.connect_with(options).await.map_err(|e| explain(&name, e))?)
            }
            Connection::Http { .. } => {
                return Err(DataError::Permanent(format!(
                    "connection `{name}` is an HTTP address, expected a database (`sqlite://…` or `postgres://…`)"
                )));
            }
        };
        Ok(Self { name, pool })
    }

    /// The name of the connection.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which SQL it speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.pool {
            Pool::Sqlite(_) => Dialect::Sqlite,
            Pool::Postgres(_) => Dialect::Postgres,
        }
    }

    fn syntax(&self) -> &'static dyn Syntax {
        match self.dialect() {
            Dialect::Sqlite => &SQLiteDialect {},
            Dialect::Postgres => &PostgreSqlDialect {},
        }
    }

    /// The rows of a query, as a stream of Arrow batches of at most 8,192 rows. `:name` in `sql` is bound
    /// to `params`.
    ///
    /// Postgres gives its own types; `numeric` is a decimal with as many digits after the point as the
    /// first batch shows. SQLite, whose columns have no fixed type, gives what the first batch shows, with
    /// declared booleans, dates and times kept.
    ///
    /// # Errors
    /// [`DataError::Permanent`] for a wrong query or a type without an Arrow counterpart; in the stream also
    /// for a later value that does not fit the type the first batch showed.
    pub async fn read(
        &self,
        sql: &str,
        params: &Map<String, Value>,
    ) -> Result<SendableRecordBatchStream, DataError> {
        let (sql, values) = bind_text(sql, self.syntax(), params)?;
        let values = values.iter().map(Cell::of_json).collect();
        match &self.pool {
            Pool::Sqlite(pool) => sqlite::read(&self.name, pool.clone(), sql, values).await,
            Pool::Postgres(pool) => postgres::read(&self.name, pool.clone(), sql, values).await,
        }
    }

    /// Runs one statement of an author in a transaction of its own; `:name` is bound to `params`. Returns
    /// how many rows it changed, or `None` if it is a query: then nothing has been run.
    ///
    /// # Errors
    /// [`DataError::Permanent`] for a wrong statement.
    pub async fn change(&self, sql: &str, params: &Map<String, Value>) -> Result<Option<u64>, DataError> {
        let (sql, values) = bind_text(sql, self.syntax(), params)?;
        let values: Vec<Cell> = values.iter().map(Cell::of_json).collect();
        let changed = match &self.pool {
            Pool::Sqlite(pool) => sqlite::change(pool, sql, &values).await,
            Pool::Postgres(pool) => postgres::change(pool, sql, &values).await,
        };
        changed.map_err(|e| explain(&self.name, e))
    }

    /// Begins a transaction that may write.
    ///
    /// # Errors
    /// [`DataError::Retryable`] if the database does not answer.
    pub async fn begin(&self) -> Result<Tx, DataError> {
        let open = match &self.pool {
            // Immediate: a transaction that reads before it writes would fail at once under concurrency.
            Pool::Sqlite(pool) => pool.begin_with("BEGIN IMMEDIATE").await.map(Open::Sqlite),
            Pool::Postgres(pool) => pool.begin().await.map(Open::Postgres),
        };
        Ok(Tx { name: self.name.clone(), open: open.map_err(|e| explain(&self.name, e))? })
    }
}

/// A transaction; dropped without [`commit`](Self::commit) it has not happened.
pub struct Tx {
    name: String,
    open: Open,
}

enum Open {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    /// Which SQL it speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        match self.open {
            Open::Sqlite(_) => Dialect::Sqlite,
            Open::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Runs one statement and returns how many rows it changed. `sql` has quoted names and `$1`, … for
    /// `values`, which are whole numbers, texts or nulls.
    ///
    /// # Errors
    /// What the database says, with the name of the connection.
    pub async fn execute(&mut self, sql: &str, values: &[Cell]) -> Result<u64, DataError> {
        let text = AssertSqlSafe(sql.to_owned());
        let changed = match &mut self.open {
            Open::Sqlite(tx) => {
                let query = sqlite::bound(sqlx::query(text), values);
                query.execute(&mut **tx).await.map(|done| done.rows_affected())
            }
            Open::Postgres(tx) => {
                let query = postgres::bound(sqlx::query(text), values);
                query.execute(&mut **tx).await.map(|done| done.rows_affected())
            }
        };
        changed.map_err(|e| explain(&self.name, e))
    }

    /// The rows of a query whose columns are all text.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn texts(&mut self, sql: &str, values: &[Cell]) -> Result<Vec<Vec<Option<String>>>, DataError> {
        let text = AssertSqlSafe(sql.to_owned());
        let rows = match &mut self.open {
            Open::Sqlite(tx) => {
                let rows = sqlite::bound(sqlx::query(text), values).fetch_all(&mut **tx).await;
                rows.and_then(|rows| {
                    rows.iter().map(|row| (0..row.len()).map(|at| row.try_get(at)).collect()).collect()
                })
            }
            Open::Postgres(tx) => {
                let rows = postgres::bound(sqlx::query(text), values).fetch_all(&mut **tx).await;
                rows.and_then(|rows| {
                    rows.iter().map(|row| (0..row.len()).map(|at| row.try_get(at)).collect()).collect()
                })
            }
        };
        rows.map_err(|e| explain(&self.name, e))
    }

    /// The one whole number that a query gives.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn number(&mut self, sql: &str, values: &[Cell]) -> Result<i64, DataError> {
        let text = AssertSqlSafe(sql.to_owned());
        let number = match &mut self.open {
            Open::Sqlite(tx) => sqlite::bound(sqlx::query(text), values)
                .fetch_one(&mut **tx)
                .await
                .and_then(|row| row.try_get(0)),
            Open::Postgres(tx) => postgres::bound(sqlx::query(text), values)
                .fetch_one(&mut **tx)
                .await
                .and_then(|row| row.try_get(0)),
        };
        number.map_err(|e| explain(&self.name, e))
    }

    /// The columns of a table in their order; empty if there is no such table.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn columns(&mut self, table: &TableName) -> Result<Vec<String>, DataError> {
        let (sql, name) = match self.dialect() {
            Dialect::Sqlite => ("SELECT name FROM pragma_table_info($1)", table.table.clone()),
            Dialect::Postgres => (
                "SELECT attname::text FROM pg_attribute \
                 WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
                table.quoted(),
            ),
        };
        let rows = self.texts(sql, &[Cell::Text(name)]).await?;
        Ok(rows.into_iter().flatten().flatten().collect())
    }

    /// Makes it so, durably.
    ///
    /// # Errors
    /// [`DataError::Retryable`] if the database went away: it may or may not have happened.
    pub async fn commit(self) -> Result<(), DataError> {
        let done = match self.open {
            Open::Sqlite(tx) => tx.commit().await,
            Open::Postgres(tx) => tx.commit().await,
        };
        done.map_err(|e| explain(&self.name, e))
    }
}

/// A table of a warehouse: `table`, or `schema.table` in Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName {
    pub(super) schema: Option<String>,
    pub(super) table: String,
}

impl TableName {
    /// Parses `table` or `schema.table`: letters, digits and `_`, at most 63 bytes each.
    ///
    /// # Errors
    /// The rule that was broken, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (schema, table) = match text.split_once('.') {
            Some((schema, table)) => (Some(schema), table),
            None => (None, text),
        };
        let is_name = |part: &str| {
            !part.is_empty()
                && part.len() <= NAME_BYTES_MAX
                && !part.starts_with(|c: char| c.is_ascii_digit())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !schema.into_iter().chain([table]).all(is_name) {
            return Err(format!(
                "`{text}` is not a valid table name: expected `table` or `schema.table` of letters, digits and `_`"
            ));
        }
        if table.starts_with("mainspring_") || table.starts_with("stg_") {
            return Err(format!("`{text}` is not a valid table name: `mainspring_` and `stg_` are ours"));
        }
        Ok(Self { schema: schema.map(str::to_owned), table: table.to_owned() })
    }

    /// Another table beside this one.
    #[must_use]
    pub(super) fn beside(&self, table: String) -> Self {
        Self { schema: self.schema.clone(), table }
    }

    /// As it stands in SQL.
    #[must_use]
    pub fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&self.table)),
            None => quoted(&self.table),
        }
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.table),
            None => f.write_str(&self.table),
        }
    }
}

/// A name as it stands in SQL, whatever its letters.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Refuses names of columns that a warehouse would cut or could not keep.
///
/// # Errors
/// The rule that was broken, for people.
pub fn check_column(name: &str) -> Result<(), DataError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(DataError::Permanent(format!(
            "column `{name}` cannot be loaded: its name must have 1 to {NAME_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

impl Dialect {
    /// The type of a column that holds `data_type`.
    ///
    /// # Errors
    /// [`DataError::Permanent`] for nested types, naming the column.
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other type of Arrow is nested or a span")]
    pub fn column_type(self, column: &str, data_type: &DataType) -> Result<String, DataError> {
        use DataType as D;
        let (sqlite, postgres) = match data_type {
            D::Boolean => ("BOOLEAN", "BOOLEAN"),
            D::Int8 | D::Int16 | D::UInt8 => ("INTEGER", "SMALLINT"),
            D::Int32 | D::UInt16 => ("INTEGER", "INTEGER"),
            D::Int64 | D::UInt32 => ("INTEGER", "BIGINT"),
            D::UInt64 => ("NUMERIC", "NUMERIC(20)"),
            D::Float16 | D::Float32 => ("REAL", "REAL"),
            D::Float64 => ("REAL", "DOUBLE PRECISION"),
            D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s) | D::Decimal256(p, s) => {
                return Ok(match self {
                    Self::Sqlite => "NUMERIC".to_owned(),
                    Self::Postgres => format!("NUMERIC({p}, {s})"),
                });
            }
            D::Null | D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Time32(_) | D::Time64(_) => ("TEXT", "TEXT"),
            D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => ("BLOB", "BYTEA"),
            D::Date32 | D::Date64 => ("DATE", "DATE"),
            D::Timestamp(_, Some(_)) => ("TIMESTAMP", "TIMESTAMPTZ"),
            D::Timestamp(_, None) => ("DATETIME", "TIMESTAMP"),
            D::Dictionary(_, value) => return self.column_type(column, value),
            _ => return Err(no_cell(column, data_type)),
        };
        Ok(match self {
            Self::Sqlite => sqlite,
            Self::Postgres => postgres,
        }
        .to_owned())
    }
}

/// An error of the driver as ours. Trying again may help against locks, lost connections and full disks.
#[expect(clippy::wildcard_enum_match_arm, reason = "what the driver may add is told in its own words")]
fn explain(name: &str, error: sqlx::Error) -> DataError {
    let text = match &error {
        sqlx::Error::Database(said) => said.message().to_owned(),
        sqlx::Error::Configuration(_) => "its address cannot be read".to_owned(),
        _ => error.to_string(),
    };
    let text = format!("connection `{name}`: {text}");
    if may_pass(&error) { DataError::Retryable(text) } else { DataError::Permanent(text) }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what the driver may add is not tried again")]
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(said) => {
            let code = said.code().unwrap_or_default();
            // SQLite: primary codes busy, locked, io error, full, cannot open. Postgres: connection, conflict,
            // resources, lock, operator intervention.
            match code.parse::<i64>() {
                Ok(number) if code.len() < 5 => matches!(number & 0xff, 5 | 6 | 10 | 13 | 14),
                _ => ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class)),
            }
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        _ => false,
    }
}
