//! Reading from SQLite: values as they are stored, types from what the first rows show.

use datafusion::execution::SendableRecordBatchStream;
use futures_util::TryStreamExt;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Column, Executor, Row, SqlSafeStr, Sqlite, Statement, TypeInfo, ValueRef};

use super::super::DataError;
use super::super::cells::{Cell, CellKind};
use super::copy::{Gathered, Header, stream_of};
use super::explain;

/// Binds cells: decimals as text, which a numeric column turns into a number; times as RFC 3339.
pub(super) fn bound<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    values: &[Cell],
) -> Query<'q, Sqlite, SqliteArguments> {
    values.iter().fold(query, |query, value| match value {
        Cell::Bool(b) => query.bind(*b),
        Cell::Int(i) => query.bind(*i),
        Cell::Float(f) => query.bind(*f),
        Cell::Bytes(bytes) => query.bind(bytes.clone()),
        Cell::Null | Cell::Decimal { .. } | Cell::Text(_) | Cell::Date(_) | Cell::Time { .. } => {
            query.bind(value.to_text())
        }
    })
}

/// See [`super::Warehouse::change`].
pub(super) async fn change(pool: &SqlitePool, sql: String, values: &[Cell]) -> sqlx::Result<Option<u64>> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let statement = tx.prepare(AssertSqlSafe(sql.clone()).into_sql_str()).await?;
    if !statement.columns().is_empty() {
        return Ok(None);
    }
    let done = bound(sqlx::query(AssertSqlSafe(sql)), values).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Some(done.rows_affected()))
}

/// See [`super::Warehouse::read`].
pub(super) async fn read(
    name: &str,
    pool: SqlitePool,
    sql: String,
    values: Vec<Cell>,
) -> Result<SendableRecordBatchStream, DataError> {
    let name = name.to_owned();
    stream_of(|mut gathered| async move {
        let ended = gather(&mut gathered, &name, &pool, sql, &values).await;
        gathered.end(ended).await;
    })
    .await
}

async fn gather(
    gathered: &mut Gathered,
    name: &str,
    pool: &SqlitePool,
    sql: String,
    values: &[Cell],
) -> Result<(), DataError> {
    let explain = |e| explain(name, e);
    let mut connection = pool.acquire().await.map_err(explain)?;
    let statement = connection.prepare(AssertSqlSafe(sql.clone()).into_sql_str()).await.map_err(explain)?;
    let headers = statement.columns().iter().map(|column| Header {
        name: column.name().to_owned(),
        declared: declared(column.type_info().name()),
    });
    gathered.headers(headers.collect());
    let mut rows = bound(sqlx::query(AssertSqlSafe(sql)), values).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(explain)? {
        gathered.row(cells(&row).map_err(explain)?).await?;
    }
    Ok(())
}

/// Only what a stored value does not say by itself; the rest is seen.
fn declared(type_name: &str) -> Option<CellKind> {
    match type_name {
        "BOOLEAN" => Some(CellKind::Bool),
        "DATE" => Some(CellKind::Date),
        "DATETIME" => Some(CellKind::TimeUtc),
        "INTEGER" => Some(CellKind::Int64),
        "REAL" => Some(CellKind::Float64),
        "BLOB" => Some(CellKind::Bytes),
        _ => None,
    }
}

fn cells(row: &SqliteRow) -> sqlx::Result<Vec<Cell>> {
    (0..row.len())
        .map(|at| {
            let value = row.try_get_raw(at)?;
            if value.is_null() {
                return Ok(Cell::Null);
            }
            let stored = value.type_info().name().to_owned();
            Ok(match stored.as_str() {
                "INTEGER" => Cell::Int(row.try_get_unchecked(at)?),
                "REAL" => Cell::Float(row.try_get_unchecked(at)?),
                "BLOB" => Cell::Bytes(row.try_get_unchecked(at)?),
                _ => Cell::Text(row.try_get_unchecked(at)?),
            })
        })
        .collect()
}
