//! `noop`: does nothing and succeeds. Joins branches; measures hand-offs.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{TaskContext, TaskError, TaskKind, TaskOutput};

/// Does nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Noop {}

impl TaskKind for Noop {
    const NAME: &'static str = "noop";

    async fn run(&self, _: &TaskContext) -> Result<TaskOutput, TaskError> {
        Ok(TaskOutput::of(serde_json::Value::Null))
    }
}
