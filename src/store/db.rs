//! The whole difference between the two drivers: how a parameter is bound, a statement run, a value read.
//! Above this file SQL is plain functions; it must not know a table.

use std::future::Future;
use std::pin::Pin;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, Row as _};

use super::error::StoreError;

/// A future that is boxed because a write of any kind may stand in one queue.
pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A parameter: the three column types, each possibly null.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// `TEXT`.
    Text(Option<String>),
    /// `BIGINT`.
    Int(Option<i64>),
    /// `BOOLEAN`.
    Bool(Option<bool>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<Option<i64>> for Value {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Bool(Some(yes))
    }
}

/// A row of an answer; columns are read by place.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    pub(super) fn text(&self, column: usize) -> Result<String, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get_unchecked(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(super) fn text_or_null(&self, column: usize) -> Result<Option<String>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get_unchecked(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(super) fn int(&self, column: usize) -> Result<i64, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get_unchecked(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(super) fn int_or_null(&self, column: usize) -> Result<Option<i64>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get_unchecked(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(super) fn boolean(&self, column: usize) -> Result<bool, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get_unchecked(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }
}

fn encoding(error: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    StoreError::Bug(format!("database: a parameter cannot be encoded: {error}"))
}

macro_rules! bound {
    ($arguments:ty, $values:expr) => {{
        let mut arguments = <$arguments>::default();
        for value in $values {
            match value {
                Value::Text(text) => arguments.add(text.clone()),
                Value::Int(number) => arguments.add(*number),
                Value::Bool(yes) => arguments.add(*yes),
            }
            .map_err(encoding)?;
        }
        arguments
    }};
}

/// A connection in the middle of a transaction, or one that only reads.
pub(super) enum Tx<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

impl Tx<'_> {
    /// Runs one statement and returns how many rows it changed.
    pub(super) async fn execute(&mut self, sql: &'static str, values: &[Value]) -> Result<u64, StoreError> {
        Ok(match self {
            Self::Sqlite(connection) => {
                let arguments = bound!(SqliteArguments, values);
                sqlx::query_with(sql, arguments).execute(&mut **connection).await?.rows_affected()
            }
            Self::Postgres(connection) => {
                let arguments = bound!(PgArguments, values);
                sqlx::query_with(sql, arguments).execute(&mut **connection).await?.rows_affected()
            }
        })
    }

    /// Rows of a query, in its order.
    pub(super) async fn fetch_all(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        Ok(match self {
            Self::Sqlite(connection) => {
                let arguments = bound!(SqliteArguments, values);
                let rows = sqlx::query_with(sql, arguments).fetch_all(&mut **connection).await?;
                rows.into_iter().map(Row::Sqlite).collect()
            }
            Self::Postgres(connection) => {
                let arguments = bound!(PgArguments, values);
                let rows = sqlx::query_with(sql, arguments).fetch_all(&mut **connection).await?;
                rows.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// The only row of a query, if there is one; two rows are a bug.
    pub(super) async fn fetch_optional(
        &mut self,
        sql: &'static str,
        values: &[Value],
    ) -> Result<Option<Row>, StoreError> {
        let mut rows = self.fetch_all(sql, values).await?;
        if rows.len() > 1 {
            return Err(StoreError::Bug(format!("database: {} rows where one was expected", rows.len())));
        }
        Ok(rows.pop())
    }

    /// Runs a script of several statements without parameters.
    pub(super) async fn script(&mut self, sql: String) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(connection) => {
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut **connection).await?;
            }
            Self::Postgres(connection) => {
                sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut **connection).await?;
            }
        }
        Ok(())
    }
}

/// Something to be written in one transaction. It may be run again if the database was busy, so it changes
/// nothing but rows.
pub(super) trait Write: Send + Sync + 'static {
    /// What the asker is told after the commit.
    type Answer: Send + 'static;

    /// Runs it; an error takes everything back.
    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<Self::Answer, StoreError>>;
}

/// The simplest write: one statement. Answers with the rows changed.
pub(super) struct Statement {
    pub(super) sql: &'static str,
    pub(super) values: Vec<Value>,
}

impl Write for Statement {
    type Answer = u64;

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(tx.execute(self.sql, &self.values))
    }
}
