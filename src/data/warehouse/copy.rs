//! Rows in both directions in bulk: a producer of rows as a stream of Arrow batches, and a stream of
//! batches into a table.

use std::sync::Arc;

use datafusion::arrow::array::{RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::{StreamExt, stream};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use tokio::sync::mpsc;

use super::super::DataError;
use super::super::cells::{self, Cell, CellKind};
use super::super::session::{in_stream, of_datafusion};
use super::{Pool, TableName, Warehouse, explain, quoted, sqlite};

/// Rows of one batch that is read.
const BATCH_ROWS: usize = 8_192;
/// Batches that wait for their reader.
const BATCHES_WAITING: usize = 2;
/// Values of one `INSERT`; SQLite takes 32,766.
const VALUES_MAX: usize = 16_000;

/// A column that is about to be read.
pub(super) struct Header {
    pub(super) name: String,
    /// What the database says of its type; `None` if only values can tell.
    pub(super) declared: Option<CellKind>,
}

/// Collects rows into batches and hands them on. The types are settled by the first batch.
pub(super) struct Gathered {
    headers: Vec<Header>,
    settled: Option<(Vec<CellKind>, SchemaRef)>,
    rows: Vec<Vec<Cell>>,
    rows_before: usize,
    out: mpsc::Sender<Result<RecordBatch, DataError>>,
}

impl Gathered {
    pub(super) fn headers(&mut self, headers: Vec<Header>) {
        self.headers = headers;
    }

    pub(super) async fn row(&mut self, row: Vec<Cell>) -> Result<(), DataError> {
        self.rows.push(row);
        if self.rows.len() == BATCH_ROWS { self.hand_on().await } else { Ok(()) }
    }

    /// Hands on the rest, or how it ended.
    pub(super) async fn end(mut self, ended: Result<(), DataError>) {
        let rest = !self.rows.is_empty() || self.settled.is_none();
        let ended = match ended {
            Ok(()) if rest => self.hand_on().await,
            other => other,
        };
        if let Err(error) = ended
            && self.out.send(Err(error)).await.is_err()
        {
            tracing::debug!("a query's reader has gone before its end");
        }
    }

    async fn hand_on(&mut self) -> Result<(), DataError> {
        let batch = self.batch()?;
        self.rows_before += self.rows.len();
        self.rows.clear();
        // The reader has gone: nobody wants the rest, and nobody will see this error.
        self.out.send(Ok(batch)).await.map_err(|_| DataError::Retryable("the reader has gone".to_owned()))
    }

    fn batch(&mut self) -> Result<RecordBatch, DataError> {
        let (kinds, schema) = self.settled.get_or_insert_with(|| settle(&self.headers, &self.rows));
        let mut columns = Vec::with_capacity(kinds.len());
        for (at, kind) in kinds.iter().enumerate() {
            let array = kind.array(self.rows.iter().map(|row| &row[at])).map_err(|cell| {
                DataError::Permanent(format!(
                    "column `{}` holds {} among the rows after {}, expected {} as in the rows before\n\
                     hint: cast the column in the query",
                    self.headers[at].name,
                    cell.to_text().map_or("null".to_owned(), |text| format!("`{text}`")),
                    self.rows_before,
                    kind.data_type()
                ))
            })?;
            columns.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows.len()));
        Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)
            .expect("columns are made after the schema, one cell per row"))
    }
}

fn settle(headers: &[Header], rows: &[Vec<Cell>]) -> (Vec<CellKind>, SchemaRef) {
    let kinds: Vec<CellKind> = headers
        .iter()
        .enumerate()
        .map(|(at, h)| kind_of(h.declared, rows.iter().map(|row| &row[at])))
        .collect();
    let fields: Vec<Field> =
        headers.iter().zip(&kinds).map(|(h, kind)| Field::new(&h.name, kind.data_type(), true)).collect();
    (kinds, Arc::new(Schema::new(fields)))
}

/// The declared kind if every cell fits it, otherwise the narrowest that does.
fn kind_of<'a>(declared: Option<CellKind>, cells: impl Iterator<Item = &'a Cell> + Clone) -> CellKind {
    let scale = cells
        .clone()
        .filter_map(|c| if let Cell::Decimal { scale, .. } = c { Some(*scale) } else { None })
        .max();
    let declared = match declared {
        Some(CellKind::Decimal(_)) => return CellKind::Decimal(scale.unwrap_or(0)),
        other => other,
    };
    let narrowest = [CellKind::Int64, CellKind::Float64, CellKind::Bytes];
    let all_null = cells.clone().all(|c| *c == Cell::Null);
    if all_null {
        return declared.unwrap_or(CellKind::Text);
    }
    declared
        .into_iter()
        .chain(narrowest)
        .find(|kind| kind.array(cells.clone()).is_ok())
        .unwrap_or(CellKind::Text)
}

/// Runs `produce` in a task of its own and gives what it gathers as a stream, as soon as the first batch
/// settles the types. A dropped stream ends the task at its next batch.
pub(super) async fn stream_of<F>(
    produce: impl FnOnce(Gathered) -> F,
) -> Result<SendableRecordBatchStream, DataError>
where
    F: Future<Output = ()> + Send + 'static,
{
    let (out, mut batches) = mpsc::channel(BATCHES_WAITING);
    tokio::spawn(produce(Gathered {
        headers: Vec::new(),
        settled: None,
        rows: Vec::new(),
        rows_before: 0,
        out,
    }));
    let gone = || DataError::Retryable("the query ended without an answer".to_owned());
    let first = batches.recv().await.ok_or_else(gone)??;
    let schema = first.schema();
    let rest = stream::unfold(batches, |mut batches| async move { Some((batches.recv().await?, batches)) });
    let all = stream::once(async move { Ok(first) }).chain(rest);
    let all = all.map(|batch: Result<_, DataError>| batch.map_err(in_stream));
    Ok(Box::pin(RecordBatchStreamAdapter::new(schema, all)))
}

impl Warehouse {
    /// Adds the rows of `batches` to `table`, whose columns are those of the batches. Not atomic: for tables
    /// that nobody reads yet. Returns the number of rows.
    ///
    /// # Errors
    /// What the stream or the database says.
    pub(in super::super) async fn fill(
        &self,
        table: &TableName,
        mut batches: SendableRecordBatchStream,
    ) -> Result<u64, DataError> {
        let schema = batches.schema();
        let columns: Vec<String> = schema.fields().iter().map(|f| quoted(f.name())).collect();
        match &self.pool {
            Pool::Sqlite(pool) => {
                let into = format!("INSERT INTO {} ({}) VALUES ", table.quoted(), columns.join(", "));
                let mut rows = 0;
                while let Some(batch) = batches.next().await {
                    let cells = cells::rows(&batch.map_err(of_datafusion)?)?;
                    rows += cells.len() as u64;
                    insert(pool, &into, columns.len(), &cells).await.map_err(|e| explain(&self.name, e))?;
                }
                Ok(rows)
            }
            Pool::Postgres(pool) => {
                let into = format!("COPY {} ({}) FROM STDIN", table.quoted(), columns.join(", "));
                copy(&self.name, pool, &into, batches).await
            }
        }
    }
}

async fn insert(pool: &SqlitePool, into: &str, width: usize, rows: &[Vec<Cell>]) -> sqlx::Result<()> {
    let row = format!("({})", vec!["?"; width].join(", "));
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    for chunk in rows.chunks((VALUES_MAX / width.max(1)).max(1)) {
        let text = format!("{into}{}", vec![row.as_str(); chunk.len()].join(", "));
        let query =
            chunk.iter().fold(sqlx::query(AssertSqlSafe(text)), |query, row| sqlite::bound(query, row));
        query.execute(&mut *tx).await?;
    }
    tx.commit().await
}

async fn copy(
    name: &str,
    pool: &PgPool,
    into: &str,
    mut batches: SendableRecordBatchStream,
) -> Result<u64, DataError> {
    let explain = |e| explain(name, e);
    let mut connection = pool.acquire().await.map_err(explain)?;
    let mut sink = connection.copy_in_raw(into).await.map_err(explain)?;
    while let Some(batch) = batches.next().await {
        let rows = batch.map_err(of_datafusion).and_then(|batch| cells::rows(&batch));
        let text = match rows {
            Ok(rows) => copy_text(&rows),
            Err(error) => {
                sink.abort("the rows could not be read").await.map_err(explain)?;
                return Err(error);
            }
        };
        sink.send(text.as_bytes()).await.map_err(explain)?;
    }
    sink.finish().await.map_err(explain)
}

/// Rows in the text form of `COPY`: tabs between values, `\N` for null.
fn copy_text(rows: &[Vec<Cell>]) -> String {
    let mut text = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            if at > 0 {
                text.push('\t');
            }
            let Some(value) = cell.to_text() else {
                text.push_str("\\N");
                continue;
            };
            for c in value.chars() {
                match c {
                    '\\' => text.push_str("\\\\"),
                    '\t' => text.push_str("\\t"),
                    '\n' => text.push_str("\\n"),
                    '\r' => text.push_str("\\r"),
                    other => text.push(other),
                }
            }
        }
        text.push('\n');
    }
    text
}
