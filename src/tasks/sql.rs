//! `sql`: one statement on a connection. A query's first rows go to the log as a table and to the outputs.
//!
//! A statement that changes something runs in a transaction of its own, at least once: write it so that a
//! repetition does no harm.

use futures_util::TryStreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::datasets;
use super::{SpecProblem, TaskContext, TaskError, TaskKind, TaskOutput};
use crate::data::DataError;
use crate::data::cells::{self, Cell};
use crate::data::session::of_datafusion;

/// Rows kept of a query's answer.
const ROWS_SHOWN_MAX: usize = 20;

/// Runs one statement on a connection.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sql {
    /// The connection; default `warehouse`.
    #[serde(default = "datasets::default_connection")]
    connection: String,
    /// The statement. `:name` is a bound parameter: one of `params`, a parameter of the run, or `ds`, `ts`,
    /// `logical_date`, `data_interval_start`, `data_interval_end`, `run_id`.
    sql: String,
    /// Values for `:name`.
    #[serde(default)]
    params: Map<String, Value>,
}

impl TaskKind for Sql {
    const NAME: &'static str = "sql";
    const VERBATIM: &'static [&'static str] = &["sql"];

    fn check(&self) -> Vec<SpecProblem> {
        if self.sql.trim().is_empty() {
            return vec![datasets::problem(&["sql"], "there is no statement")];
        }
        Vec::new()
    }

    async fn run(&self, cx: &TaskContext) -> Result<TaskOutput, TaskError> {
        datasets::unless_cancelled(cx, self.answer(cx)).await
    }
}

impl Sql {
    async fn answer(&self, cx: &TaskContext) -> Result<TaskOutput, DataError> {
        let warehouse = cx.shared.connections.warehouse(&self.connection).await?;
        let values = datasets::bound_values(cx, &self.params);
        if let Some(changed) = warehouse.change(&self.sql, &values).await? {
            cx.log.line(&format!("{changed} rows changed on `{}`", self.connection));
            return Ok(TaskOutput::of(json!({"connection": self.connection, "rows": changed})));
        }
        let mut batches = warehouse.read(&self.sql, &values).await?;
        let names: Vec<String> = batches.schema().fields().iter().map(|f| f.name().clone()).collect();
        let (mut count, mut shown) = (0, Vec::new());
        while let Some(batch) = batches.try_next().await.map_err(of_datafusion)? {
            count += batch.num_rows();
            let wanted = ROWS_SHOWN_MAX - shown.len();
            shown.extend(cells::rows(&batch.slice(0, wanted.min(batch.num_rows())))?);
        }
        let header: Vec<&str> = names.iter().map(String::as_str).collect();
        let texts: Vec<Vec<String>> =
            shown.iter().map(|row| row.iter().map(|c| c.to_text().unwrap_or_default()).collect()).collect();
        cells::table_text(&header, &texts).lines().for_each(|line| cx.log.line(line));
        if count > shown.len() {
            cx.log.line(&format!("{} more rows", count - shown.len()));
        }
        let first_rows: Vec<Value> = shown
            .iter()
            .map(|row| Value::Object(names.iter().cloned().zip(row.iter().map(Cell::to_json)).collect()))
            .collect();
        Ok(TaskOutput::of(json!({"connection": self.connection, "rows": count, "first_rows": first_rows})))
    }
}
