//! `sensor`: waits until a file is there or an address answers. Between two looks it gives its slot back.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::units::Span;
use super::{Flow, SpecProblem, TaskContext, TaskError, TaskKind, TaskOutput};

/// An address that has not answered by then is looked at again later.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Waits until something is there: exactly one of `file` and `url`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sensor {
    /// A file or folder that must exist; relative to the DAG folder.
    #[serde(default)]
    file: Option<PathBuf>,
    /// An address that must answer with a status from 200 to 299.
    #[serde(default)]
    url: Option<String>,
    /// The time between two looks. Default: one minute.
    #[serde(default = "minute")]
    poke_interval: Span,
    /// The task fails if there is still nothing so long after the run was created. Default: a week.
    #[serde(default = "week")]
    timeout: Span,
    /// After `timeout` the task is skipped instead.
    #[serde(default)]
    soft_fail: bool,
}

fn minute() -> Span {
    Span(Duration::from_secs(60))
}

fn week() -> Span {
    Span(Duration::from_secs(7 * 86_400))
}

impl TaskKind for Sensor {
    const NAME: &'static str = "sensor";

    fn check(&self) -> Vec<SpecProblem> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: &str| {
            problems.push(SpecProblem {
                path: vec![key.to_owned()],
                message: message.to_owned(),
                hint: None,
            });
        };
        if self.file.is_some() == self.url.is_some() {
            problem("file", "exactly one of `file` and `url` must be there");
        }
        if self.poke_interval.0 < Duration::from_millis(100) {
            problem("poke_interval", "at least 100ms must lie between two looks");
        }
        problems
    }

    async fn run(&self, cx: &TaskContext) -> Result<TaskOutput, TaskError> {
        let found = match (&self.file, &self.url) {
            (Some(file), _) => cx.shared.dags_dir.join(file).exists(),
            (None, Some(url)) => answers(cx, url).await,
            (None, None) => false,
        };
        let what = self
            .file
            .as_deref()
            .map_or_else(|| self.url.clone().unwrap_or_default(), |file| file.display().to_string());
        if found {
            cx.log.line(&format!("{what} is there"));
            return Ok(TaskOutput::of(json!({"found": what})));
        }
        let waited = cx.now.since(cx.queued_at);
        if waited < self.timeout.0 {
            cx.log.line(&format!("{what} is not there yet"));
            let until = cx.now.plus(self.poke_interval.0);
            return Ok(TaskOutput { flow: Flow::Defer { until }, ..TaskOutput::of(json!(null)) });
        }
        let why = format!("{what} was not there within {:?} of the run's creation", self.timeout.0);
        if self.soft_fail {
            return Ok(TaskOutput { flow: Flow::Skip { why }, ..TaskOutput::of(json!(null)) });
        }
        Err(TaskError::Permanent(why))
    }
}

async fn answers(cx: &TaskContext, url: &str) -> bool {
    match cx.shared.http.get(url).timeout(ANSWER_WITHIN).send().await {
        Ok(answer) => answer.status().is_success(),
        Err(error) => {
            cx.log.line(&format!("{url} cannot be reached: {}", error.without_url()));
            false
        }
    }
}
