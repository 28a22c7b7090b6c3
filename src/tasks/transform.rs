//! `transform`: one SELECT over datasets, written as a dataset.
//!
//! Values reach the SQL as bound parameters, `:name`: the task's own `params`, the run's parameters by their
//! names, and what every run has (`ds` and `run_id` as text; `ts`, `logical_date`, `data_interval_start` and
//! `data_interval_end` as moments); the first that has the name counts. The text itself is never rendered.
//!
//! The same input gives the same rows whatever the order of files and the number of threads, with one
//! exception: sums of floats may differ in the last digits. Sum decimals, or round.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::datasets::{self, Columns};
use super::units::ByteSize;
use super::{SpecProblem, TaskContext, TaskError, TaskKind, TaskOutput};
use crate::data::lake::WriteMode;
use crate::data::session::{Limits, MEMORY_BYTES, select};
use crate::data::sql::{Bound, Select, dataset_text};
use crate::data::{DataError, DatasetName};

/// Runs one SELECT over datasets and writes the rows as a dataset.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Transform {
    /// The SELECT. Datasets are named directly, parameters as `:name`.
    #[serde(default)]
    sql: Option<String>,
    /// A file that holds it, relative to the folder of DAG files.
    #[serde(default)]
    sql_file: Option<String>,
    /// The dataset to write.
    into: String,
    /// Values for `:name` in the statement.
    #[serde(default)]
    params: Map<String, Value>,
    /// Replaces only the partitions that the rows are in, instead of the whole dataset.
    #[serde(default)]
    incremental: Option<Incremental>,
    /// Columns whose values divide the dataset into partitions.
    #[serde(default)]
    partition_by: Columns,
    /// Memory of sorts, aggregates and joins; beyond it they spill to disk. Default: 512MiB.
    #[serde(default)]
    memory_limit: Option<ByteSize>,
    /// Threads. Default: one per core.
    #[serde(default)]
    threads: Option<usize>,
}

/// How a dataset is made piece by piece.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Incremental {
    /// The column, or columns, of the result that name a partition.
    by: Columns,
}

impl TaskKind for Transform {
    const NAME: &'static str = "transform";
    const VERBATIM: &'static [&'static str] = &["sql"];

    fn check(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: String, hint: Option<&str>| {
            problems.push(SpecProblem { path: vec![key.to_owned()], message, hint: hint.map(str::to_owned) });
        };
        match (&self.sql, &self.sql_file) {
            (Some(sql), None) => {
                if let Err(wrong) = Select::parse(sql) {
                    let hint = sql.contains("{{").then_some("SQL is not a template: give the value in `params` and write `:name`");
                    problem("sql", wrong.to_string(), hint);
                }
            }
            (None, Some(_)) => {}
            (None, None) => problem("sql", "there is no statement, expected `sql` or `sql_file`".to_owned(), None),
            (Some(_), Some(_)) => problem("sql_file", "there are two statements, expected `sql` or `sql_file`".to_owned(), None),
        }
        if let Err(wrong) = DatasetName::parse(&self.into) {
            problem("into", wrong, None);
        }
        if self.incremental.is_some() && !self.partition_by.list().is_empty() {
            problem("partition_by", "`incremental: {by: …}` names the partitions already".to_owned(), None);
        }
        problems
    }

    fn reads(&self) -> Vec<String> {
        let tables = self.sql.as_deref().and_then(|sql| Select::parse(sql).ok()?.tables().ok()).unwrap_or_default();
        tables.iter().map(dataset_text).collect()
    }

    fn writes(&self) -> Vec<String> {
        vec![self.into.clone()]
    }

    async fn run(&self, cx: &TaskContext) -> Result<TaskOutput, TaskError> {
        datasets::unless_cancelled(cx, self.work(cx)).await
    }
}

impl Transform {
    async fn work(&self, cx: &TaskContext) -> Result<TaskOutput, DataError> {
        let into = DatasetName::parse(&self.into).map_err(DataError::Permanent)?;
        let (statement, place) = self.statement(cx).await?;
        let values = bound_values(cx, &self.params);
        let bytes = self.memory_limit.map_or(MEMORY_BYTES, |limit| usize::try_from(limit.0).unwrap_or(usize::MAX));
        let limits = Limits { memory_bytes: bytes, threads: self.threads };
        let selected = select(&cx.shared.lake, statement, &values, limits).await.map_err(|error| at(&place, error))?;
        let inputs: Map<String, Value> =
            selected.inputs.iter().map(|(name, version)| (name.to_string(), json!(version))).collect();
        let (mode, by) = match &self.incremental {
            Some(incremental) => (WriteMode::OverwritePartitions, incremental.by.list()),
            None => (WriteMode::Overwrite, self.partition_by.list()),
        };
        let written = cx
            .shared
            .lake
            .write(&into, selected.rows, mode, &by, &datasets::write_key(cx))
            .await
            .map_err(|error| at(&place, error))?;
        cx.log.line(&format!("wrote {} rows to `{into}`, version {}", written.rows, written.version));
        Ok(TaskOutput::of(json!({
            "rows": written.rows,
            "bytes": written.bytes,
            "dataset": into.as_str(),
            "version": written.version,
            "inputs": inputs,
        })))
    }

    /// The statement and what messages call it.
    async fn statement(&self, cx: &TaskContext) -> Result<(Select, String), DataError> {
        let (text, place) = match (&self.sql, &self.sql_file) {
            (Some(sql), _) => (sql.clone(), "sql".to_owned()),
            (None, Some(file)) => {
                let path = cx.shared.dags_dir.join(file);
                let text = tokio::fs::read_to_string(&path)
                    .await
                    .map_err(|error| DataError::Permanent(format!("`sql_file: {file}`: {error}")))?;
                (text, file.clone())
            }
            (None, None) => {
                return Err(DataError::Permanent("there is no statement, expected `sql` or `sql_file`".to_owned()));
            }
        };
        let select = Select::parse(&text).map_err(|wrong| DataError::Permanent(format!("{place}: {wrong}")))?;
        Ok((select, place))
    }
}

fn at(place: &str, error: DataError) -> DataError {
    match error {
        DataError::Permanent(text) => DataError::Permanent(format!("{place}: {text}")),
        DataError::Retryable(_) | DataError::StaleFence(_) => error,
    }
}

/// The values of `:name`; the moments of the run as moments, so that SQL can reckon with them.
fn bound_values(cx: &TaskContext, own: &Map<String, Value>) -> BTreeMap<String, Bound> {
    let named = datasets::bound_values(cx, own);
    let mut values: BTreeMap<String, Bound> =
        named.into_iter().map(|(name, value)| (name, Bound::Json(value))).collect();
    for (name, at) in [
        ("ts", cx.logical_date),
        ("logical_date", cx.logical_date),
        ("data_interval_start", cx.data_interval_start),
        ("data_interval_end", cx.data_interval_end),
    ] {
        if !own.contains_key(name) && !cx.params.contains_key(name) {
            values.insert(name.to_owned(), Bound::Moment(at));
        }
    }
    values
}
