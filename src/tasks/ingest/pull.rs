//! The work of an `ingest`: from each kind of source to one commit.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures_util::{TryStreamExt, stream};
use reqwest::Url;
use serde_json::{Map, Value, json};

use super::super::datasets;
use super::super::{TaskContext, TaskOutput};
use super::Ingest;
use super::source::{Cursor, Kind};
use crate::data::connections::{Connection, Secret};
use crate::data::files::{self, Source, Text};
use crate::data::http_pages::{Request, fetch};
use crate::data::intake::{Bad, Column, Intake, Taken, quarantine_rows, schema_of};
use crate::data::lake::{CursorMove, WriteMode, Written};
use crate::data::pipe::rows_of;
use crate::data::session::of_datafusion;
use crate::data::warehouse::{Warehouse, quoted};
use crate::data::{DataError, DatasetName, cells};

/// What an ingest did besides writing rows.
#[derive(Default)]
struct Figures {
    files: Option<usize>,
    pages: Option<u64>,
    duplicates_dropped: u64,
    quarantined: usize,
    cursor: Option<Value>,
}

/// A file that is removed when it is done with.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file = %self.0.display(), %error, "a scratch file was left");
        }
    }
}

impl Ingest {
    pub(super) async fn pull(&self, cx: &TaskContext) -> Result<TaskOutput, DataError> {
        let into = DatasetName::parse(&self.into).map_err(DataError::Permanent)?;
        let (written, figures) = match self.from.kind().map_err(DataError::Permanent)? {
            Kind::Text => {
                let sources = self.sources(cx).await?;
                self.pull_text(cx, &into, sources, self.from.text()?).await?
            }
            Kind::Parquet => self.pull_parquet(cx, &into).await?,
            Kind::Http => self.pull_pages(cx, &into).await?,
            Kind::Query => self.pull_query(cx, &into).await?,
        };
        cx.log.line(&format!("wrote {} rows to `{into}`, version {}", written.rows, written.version));
        if figures.quarantined > 0 {
            cx.log.line(&format!("{} bad records are in `{into}__quarantine`", figures.quarantined));
        }
        let mut outputs = json!({
            "rows": written.rows,
            "bytes": written.bytes,
            "dataset": into.as_str(),
            "version": written.version,
            "quarantined": figures.quarantined,
            "duplicates_dropped": figures.duplicates_dropped,
        });
        let extra = [
            ("files", figures.files.map(Value::from)),
            ("pages", figures.pages.map(Value::from)),
            ("cursor", figures.cursor),
        ];
        for (name, value) in extra {
            if let Some(value) = value {
                outputs[name] = value;
            }
        }
        Ok(TaskOutput::of(outputs))
    }

    async fn sources(&self, cx: &TaskContext) -> Result<Vec<Source>, DataError> {
        let patterns = self.from.file.as_ref().map(datasets::Columns::list).unwrap_or_default();
        let root = cx.shared.dags_dir.clone();
        blocking(move || files::find(&root, &patterns)).await
    }

    async fn pull_text(
        &self,
        cx: &TaskContext,
        into: &DatasetName,
        sources: Vec<Source>,
        text: Text,
    ) -> Result<(Written, Figures), DataError> {
        let (sources, text) = (Arc::new(sources), Arc::new(text));
        let columns = {
            let (sources, text, declared) = (Arc::clone(&sources), Arc::clone(&text), self.schema.clone());
            blocking(move || files::text_columns(&sources, &text, &declared)).await?
        };
        let dedupe = self.dedupe();
        self.check_key(&columns)?;
        let allowance = self.allowance();
        let files = sources.len();
        let (rows, leaves) = rows_of(schema_of(&columns), move |outlet| {
            let dedupe = dedupe.as_ref().map(|(key, keep)| (key.as_slice(), *keep));
            let mut intake = Intake::new(columns.clone(), dedupe, allowance, outlet);
            files::read_text(&sources, &text, &columns, &mut intake)?;
            intake.end()
        });
        let written = self.write(cx, into, rows).await?;
        let Taken { duplicates_dropped, bad } =
            leaves.take().await.ok_or_else(|| DataError::Retryable("the reader left nothing".to_owned()))?;
        self.quarantine(cx, into, &bad).await?;
        let figures = Figures { files: Some(files), duplicates_dropped, quarantined: bad.len(), ..Figures::default() };
        Ok((written, figures))
    }

    fn check_key(&self, columns: &[Column]) -> Result<(), DataError> {
        let Some((key, _)) = self.dedupe() else { return Ok(()) };
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        match key.iter().find(|name| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let names = names.join("`, `");
                Err(DataError::Permanent(format!("`dedupe.key` names the column `{name}`, there are `{names}`")))
            }
        }
    }

    async fn pull_parquet(&self, cx: &TaskContext, into: &DatasetName) -> Result<(Written, Figures), DataError> {
        let sources = Arc::new(self.sources(cx).await?);
        let schema = {
            let sources = Arc::clone(&sources);
            blocking(move || files::parquet_schema(&sources)).await?
        };
        let figures = Figures { files: Some(sources.len()), ..Figures::default() };
        let (rows, _) = rows_of(schema, move |outlet| files::read_parquet(&sources, outlet));
        Ok((self.write(cx, into, rows).await?, figures))
    }

    async fn pull_pages(&self, cx: &TaskContext, into: &DatasetName) -> Result<(Written, Figures), DataError> {
        let (url, token) = self.address(cx)?;
        let request = Request {
            url,
            headers: &self.from.headers,
            token: token.as_ref(),
            next: self.from.next().map_err(DataError::Permanent)?,
            pages_max: self.from.pages_max(),
            items: &self.from.items,
            interval: self.from.interval(),
            timeout: self.from.timeout(),
            retries: self.from.retries(),
            bytes_max: self.from.bytes_max(),
        };
        let name = format!("ingest-{}-{}-{}.jsonl", cx.task_id, cx.run_id, cx.fence.0).replace(':', "-");
        let file = Scratch(cx.shared.lake.scratch().join(name));
        let fetched = fetch(&cx.shared.http, &request, &file.0, &cx.cancel).await?;
        cx.log.line(&format!("fetched {} records on {} pages, {} bytes", fetched.items, fetched.pages, fetched.bytes));
        let (written, mut figures) = if fetched.items == 0 {
            (self.write(cx, into, self.no_rows(into)?).await?, Figures::default())
        } else {
            let mut shown = request.url.clone();
            shown.set_query(None);
            let source = Source { path: file.0.clone(), name: shown.to_string(), is_gzip: false };
            self.pull_text(cx, into, vec![source], Text::JsonLines).await?
        };
        (figures.pages, figures.files) = (Some(fetched.pages), None);
        Ok((written, figures))
    }

    /// The first page's address, and the token to send.
    fn address(&self, cx: &TaskContext) -> Result<(Url, Option<Secret<String>>), DataError> {
        let text = self.from.http.as_deref().unwrap_or_default();
        let bad = || DataError::Permanent("`from.http` cannot be read as an address".to_owned());
        let Some(token) = &self.from.token else { return Ok((Url::parse(text).map_err(|_| bad())?, None)) };
        let Connection::Http { url: base, token: secret } = cx.shared.connections.get(&token.connection)? else {
            return Err(DataError::Permanent(format!("connection `{}` is no http service", token.connection)));
        };
        let base = Url::parse(&base).map_err(|_| bad())?;
        let url = if text.starts_with('/') {
            let whole = format!("{}{text}", base.as_str().trim_end_matches('/'));
            Url::parse(&whole).map_err(|_| bad())?
        } else {
            Url::parse(text).map_err(|_| bad())?
        };
        if url.origin() != base.origin() {
            return Err(DataError::Permanent(format!(
                "`from.http` is on another host than connection `{}`, whose token is to be sent",
                token.connection
            )));
        }
        Ok((url, secret))
    }

    fn no_rows(&self, into: &DatasetName) -> Result<SendableRecordBatchStream, DataError> {
        if self.schema.is_empty() {
            return Err(DataError::Permanent(format!(
                "there are no records, so the columns of `{into}` are not known\nhint: declare them in `schema`"
            )));
        }
        let column = |(name, column_type): (&String, &_)| Column { name: name.clone(), column_type: *column_type };
        let columns: Vec<Column> = self.schema.iter().map(column).collect();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema_of(&columns), stream::empty())))
    }

    async fn pull_query(&self, cx: &TaskContext, into: &DatasetName) -> Result<(Written, Figures), DataError> {
        let connection = self.from.connection.as_deref().unwrap_or_default();
        let query = self.from.query.as_deref().unwrap_or_default().trim().trim_end_matches(';');
        let warehouse = cx.shared.connections.warehouse(connection).await?;
        let mut values = datasets::bound_values(cx, &Map::new());
        let Some(cursor) = &self.from.cursor else {
            let rows = warehouse.read(query, &values).await?;
            return Ok((self.write(cx, into, rows).await?, Figures::default()));
        };
        let window = self.window(cx, into, &warehouse, query, cursor).await?;
        let sql = windowed(query, cursor, window.as_ref());
        if let Some(window) = &window {
            values.insert(FROM.to_owned(), start_of(window, cursor));
            values.insert(TO.to_owned(), window.to.clone());
        }
        let rows = warehouse.read(&sql, &values).await?;
        let key = datasets::write_key(cx);
        let by = self.partition_by.list();
        let lake = &cx.shared.lake;
        let written = lake.write_moving(into, rows, WriteMode::Append, &by, &key, window.as_ref()).await?;
        let figures = Figures { cursor: window.map(|window| window.to), ..Figures::default() };
        Ok((written, figures))
    }

    /// The rows to read: after the dataset's cursor, up to the greatest there is now. A run that is
    /// repeated reads the window it had. `None` if the source has no rows at all.
    async fn window(
        &self,
        cx: &TaskContext,
        into: &DatasetName,
        warehouse: &Warehouse,
        query: &str,
        cursor: &Cursor,
    ) -> Result<Option<CursorMove>, DataError> {
        let lake = &cx.shared.lake;
        let key = datasets::write_key(cx);
        let mut from = None;
        if lake.exists(into).await? {
            let described = lake.describe(into).await?;
            let before = described.commits.iter().find(|commit| commit.key.app_id == key.app_id);
            if let Some((from, to)) = before.and_then(|commit| commit.cursor.clone()) {
                return Ok(Some(CursorMove { from, to, repeated: true }));
            }
            from = described.cursor;
        }
        let mut values = datasets::bound_values(cx, &Map::new());
        let start = from.clone().or_else(|| cursor.start.clone());
        let column = quoted(&cursor.column);
        let sql = match start {
            None => format!("SELECT max({column}) AS greatest FROM ({query}) AS source"),
            Some(start) => {
                values.insert(FROM.to_owned(), start);
                format!("SELECT max({column}) AS greatest FROM ({query}) AS source WHERE {column} > :{FROM}")
            }
        };
        let batches: Vec<_> = warehouse.read(&sql, &values).await?.try_collect().await.map_err(of_datafusion)?;
        let mut greatest = Value::Null;
        for batch in &batches {
            for row in cells::rows(batch)? {
                greatest = row.first().map(cells::Cell::to_json).unwrap_or_default();
            }
        }
        // Nothing new: the window ends where it begins.
        let to = if greatest.is_null() { from.clone().or_else(|| cursor.start.clone()) } else { Some(greatest) };
        Ok(to.map(|to| CursorMove { from, to, repeated: false }))
    }

    async fn write(
        &self,
        cx: &TaskContext,
        into: &DatasetName,
        rows: SendableRecordBatchStream,
    ) -> Result<Written, DataError> {
        let by = self.partition_by.list();
        cx.shared.lake.write(into, rows, self.write_mode(), &by, &datasets::write_key(cx)).await
    }

    /// Keeps the bad records; an earlier attempt's are replaced, with none if there are none now.
    async fn quarantine(&self, cx: &TaskContext, into: &DatasetName, bad: &[Bad]) -> Result<(), DataError> {
        let dataset = DatasetName::parse(&format!("{into}__quarantine")).map_err(DataError::Permanent)?;
        let key = datasets::write_key(cx);
        let lake = &cx.shared.lake;
        if bad.is_empty() && !lake.was_written_by(&dataset, &key).await? {
            return Ok(());
        }
        let batch = quarantine_rows(bad, &cx.run_id.to_string());
        let rows = RecordBatchStreamAdapter::new(batch.schema(), stream::iter([Ok(batch)]));
        lake.write(&dataset, Box::pin(rows), WriteMode::Append, &[], &key).await?;
        Ok(())
    }
}

/// The parameters that bound a window.
const FROM: &str = "mainspring_from";
const TO: &str = "mainspring_to";

fn start_of(window: &CursorMove, cursor: &Cursor) -> Value {
    window.from.clone().or_else(|| cursor.start.clone()).unwrap_or_default()
}

fn windowed(query: &str, cursor: &Cursor, window: Option<&CursorMove>) -> String {
    let column = quoted(&cursor.column);
    let Some(window) = window else { return query.to_owned() };
    let upper = format!("SELECT * FROM ({query}) AS source WHERE {column} <= :{TO}");
    if start_of(window, cursor).is_null() { upper } else { format!("{upper} AND {column} > :{FROM}") }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DataError> + Send + 'static,
) -> Result<T, DataError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|stopped| Err(DataError::Permanent(format!("reading stopped: {stopped}"))))
}
