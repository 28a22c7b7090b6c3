//! What the kinds that touch data share: who writes, what a statement's `:name`s stand for, how an error of
//! the data room ends an attempt.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{SpecProblem, TaskContext, TaskError};
use crate::data::lake::WriteKey;
use crate::data::{DataError, DatasetName};

/// What follows a clustering's dataset in the name of the dataset of its measures.
pub(super) const METRICS: &str = "__metrics";

impl From<DataError> for TaskError {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Retryable(text) => Self::Retryable(text),
            DataError::Permanent(_) | DataError::StaleFence(_) => Self::Permanent(error.to_string()),
        }
    }
}

/// Names of columns: one, or a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Columns {
    /// One column.
    One(String),
    /// Several, in this order.
    Many(Vec<String>),
}

impl Default for Columns {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Columns {
    /// As a list.
    #[must_use]
    pub(super) fn list(&self) -> Vec<String> {
        match self {
            Self::One(name) => vec![name.clone()],
            Self::Many(names) => names.clone(),
        }
    }
}

/// A table of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectionTable {
    /// The connection; default `warehouse`.
    #[serde(default = "default_connection")]
    pub(super) connection: String,
    /// The table: `table`, or `schema.table` in Postgres.
    pub(super) table: String,
}

/// The connection of those who name none.
pub(super) fn default_connection() -> String {
    crate::data::connections::DEFAULT_CONNECTION.to_owned()
}

/// Who writes, for datasets.
pub(super) fn write_key(cx: &TaskContext) -> WriteKey {
    let app_id = format!("{}/{}/{}/{}", cx.dag_id, cx.run_id, cx.task_id, cx.map_index);
    WriteKey { app_id, fence: cx.fence.0 }
}

/// What a statement's `:name`s stand for: the task's own `params`, the run's params, and the moments of the
/// run (`ds`, `ts`, `logical_date`, `data_interval_start`, `data_interval_end`, `run_id`); the first that has
/// the name counts.
pub(super) fn bound_values(cx: &TaskContext, own: &Map<String, Value>) -> Map<String, Value> {
    let logical_date = cx.logical_date.to_string();
    let mut values = Map::new();
    let mut put = |name: &str, text: String| values.insert(name.to_owned(), Value::String(text));
    put("ds", logical_date.chars().take(10).collect());
    put("ts", logical_date.clone());
    put("logical_date", logical_date);
    put("data_interval_start", cx.data_interval_start.to_string());
    put("data_interval_end", cx.data_interval_end.to_string());
    put("run_id", cx.run_id.to_string());
    values.extend(cx.params.clone());
    values.extend(own.clone());
    values
}

/// Does `work` unless the attempt is cancelled first.
pub(super) async fn unless_cancelled<T>(
    cx: &TaskContext,
    work: impl Future<Output = Result<T, DataError>>,
) -> Result<T, TaskError> {
    match cx.cancel.run_until_cancelled(work).await {
        Some(done) => done.map_err(TaskError::from),
        None => Err(TaskError::Retryable("the attempt was cancelled".to_owned())),
    }
}

/// Does `work` that reads or writes files, or computes for long, where it holds nobody up.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DataError> + Send + 'static,
) -> Result<T, DataError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| DataError::Permanent(error.to_string()))?
}

/// The dataset called `name`, or what is wrong with the name.
pub(super) fn dataset(name: &str) -> Result<DatasetName, TaskError> {
    DatasetName::parse(name).map_err(TaskError::Permanent)
}

/// A problem of the setting at `path`.
pub(super) fn problem(path: &[&str], message: impl Into<String>) -> SpecProblem {
    SpecProblem { path: path.iter().map(|p| (*p).to_owned()).collect(), message: message.into(), hint: None }
}
