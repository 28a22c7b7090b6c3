//! `branch` and `short_circuit`: decide what goes on downstream. The decision is a template, so it can read
//! parameters and the outputs of upstream tasks.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Flow, TaskContext, TaskError, TaskKind, TaskOutput};
use crate::core::ids::TaskId;

/// Chooses among its direct downstream tasks; the others are skipped.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Branch {
    /// The id of the chosen task, or a list of ids; usually a template.
    choose: Choice,
}

/// One id or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Choice {
    /// One task.
    One(String),
    /// Several tasks.
    Many(Vec<String>),
}

impl TaskKind for Branch {
    const NAME: &'static str = "branch";

    async fn run(&self, cx: &TaskContext) -> Result<TaskOutput, TaskError> {
        let names = match &self.choose {
            Choice::One(name) if name.trim().is_empty() => Vec::new(),
            Choice::One(name) => vec![name.trim().to_owned()],
            Choice::Many(names) => names.clone(),
        };
        let chosen = names
            .iter()
            .map(|name| TaskId::parse(name).map_err(|e| TaskError::Permanent(format!("`choose`: {e}"))))
            .collect::<Result<Vec<_>, _>>()?;
        cx.log.line(&format!(
            "chose {}",
            if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
        ));
        Ok(TaskOutput { flow: Flow::Branch(chosen), ..TaskOutput::of(json!({ "chosen": names })) })
    }
}

/// Lets the tasks downstream go on, or skips them all.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShortCircuit {
    /// True goes on, false skips; usually a template.
    condition: Value,
    /// True skips the direct downstreams only, and lets trigger rules judge the rest.
    #[serde(default)]
    respect_trigger_rules: bool,
}

impl TaskKind for ShortCircuit {
    const NAME: &'static str = "short_circuit";

    async fn run(&self, _: &TaskContext) -> Result<TaskOutput, TaskError> {
        let goes_on = match &self.condition {
            Value::Bool(b) => *b,
            Value::Null => false,
            Value::Number(n) => n.as_f64() != Some(0.0),
            Value::String(text) => match text.trim() {
                "true" | "True" => true,
                "false" | "False" | "" => false,
                other => {
                    return Err(TaskError::Permanent(format!(
                        "`condition` is `{other}`; true or false was expected"
                    )));
                }
            },
            Value::Array(items) => !items.is_empty(),
            Value::Object(map) => !map.is_empty(),
        };
        let output = TaskOutput::of(json!({ "return_value": goes_on }));
        if goes_on {
            return Ok(output);
        }
        let flow = Flow::ShortCircuit { respect_trigger_rules: self.respect_trigger_rules };
        Ok(TaskOutput { flow, ..output })
    }
}
