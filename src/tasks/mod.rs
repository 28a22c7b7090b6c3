//! Kinds of work, one file each: a documented struct of its YAML keys, what can be checked before
//! running, and `run`. Add yours to [`KINDS`].
//!
//! This room does the work of one attempt. Retries, timeouts, heartbeats and state are not known here.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::core::alert::Sign;
use crate::core::ids::{DagId, Fence, RunId, TaskId, Timestamp};

/// Something wrong with a task's settings that can be seen before anything runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecProblem {
    /// Where: keys and places from the task's mapping down, for instance `["k", "min"]`.
    pub path: Vec<String>,
    /// What is wrong and what was expected, lower case, no full stop.
    pub message: String,
    /// A way out, if one is known.
    pub hint: Option<String>,
}

/// A kind of work a task can do.
pub trait TaskKind: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The word authors write after `type:`.
    const NAME: &'static str;

    /// Top-level keys whose text is never rendered as a template, because a program or a database reads
    /// it (`command`, `sql`): values reach it as environment or bound parameters.
    const VERBATIM: &'static [&'static str] = &[];

    /// Problems visible before anything runs. Called with templates not yet rendered only if every
    /// setting could be read without them.
    fn check(&self) -> Vec<SpecProblem> {
        Vec::new()
    }

    /// Names of the datasets it reads, as far as the settings say.
    fn reads(&self) -> Vec<String> {
        Vec::new()
    }

    /// Names of the datasets it writes.
    fn writes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Does the work once.
    ///
    /// It may be started twice (a worker cut off from us cannot be told to stop), so effects must be safe
    /// to repeat. A cancelled `cx.cancel` means: stop soon; the outcome no longer counts.
    fn run(&self, cx: &TaskContext) -> impl Future<Output = Result<TaskOutput, TaskError>> + Send;
}

/// What an attempt knows. Not the store.
#[derive(Clone)]
pub struct TaskContext {
    /// The DAG.
    pub dag_id: DagId,
    /// The run.
    pub run_id: RunId,
    /// The task.
    pub task_id: TaskId,
    /// From 0 for a mapped instance, -1 otherwise.
    pub map_index: i32,
    /// The claim: every write to shared storage carries it.
    pub fence: Fence,
    /// This attempt, from 1.
    pub try_number: u32,
    /// When the attempt began: the only clock of a task that waits.
    pub now: Timestamp,
    /// When the run was created.
    pub queued_at: Timestamp,
    /// The moment the run stands for; functions of time use it, never the clock.
    pub logical_date: Timestamp,
    /// The span of data: from here …
    pub data_interval_start: Timestamp,
    /// … up to, not including, here.
    pub data_interval_end: Timestamp,
    /// The run's parameters.
    pub params: Map<String, Value>,
    /// Extra environment of subprocesses (`env:`), rendered.
    pub env: Vec<(String, String)>,
    /// Stop soon.
    pub cancel: CancellationToken,
    /// The attempt's log.
    pub log: TaskLog,
    /// What the process lends to every attempt.
    pub shared: Arc<Shared>,
}

/// What the process lends to every attempt.
pub struct Shared {
    /// `file:` and `sql_file:` are relative to the folder of the DAG file's root (`--dags`).
    pub dags_dir: PathBuf,
    /// The home folder: warehouse, models, scratch.
    pub home: PathBuf,
    /// The part of our own environment that subprocesses inherit.
    pub inherited_env: Vec<(String, String)>,
    /// One HTTP client for all.
    pub http: reqwest::Client,
    /// The lake.
    #[cfg(feature = "data")]
    pub lake: crate::data::lake::Lake,
    /// Connections by name.
    #[cfg(feature = "data")]
    pub connections: crate::data::connections::Connections,
}

/// The log of one attempt: lines for people, each with a time stamp added by the writer.
#[derive(Clone)]
pub struct TaskLog(Arc<dyn Fn(&str) + Send + Sync>);

impl TaskLog {
    /// A log that hands each line to `write`.
    pub fn new(write: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    /// Adds a line.
    pub fn line(&self, text: &str) {
        (self.0)(text);
    }
}

/// How a successful attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOutput {
    /// A JSON object: figures and small values for later tasks (48 KiB at most).
    pub outputs: Map<String, Value>,
    /// What happens to the tasks downstream.
    pub flow: Flow,
    /// What people should hear of though the task succeeded; it is a problem until the task succeeds without it.
    pub signs: Vec<Sign>,
}

/// What a successful attempt means for the tasks downstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flow {
    /// They are judged by their trigger rules.
    Continue,
    /// Only these direct downstreams go on.
    Branch(Vec<TaskId>),
    /// None goes on.
    ShortCircuit {
        /// Skip the direct downstreams only, and let trigger rules judge the rest.
        respect_trigger_rules: bool,
    },
    /// The task counts as skipped.
    Skip {
        /// Why.
        why: String,
    },
    /// Look again at a time.
    Defer {
        /// When.
        until: Timestamp,
    },
}

impl TaskOutput {
    /// Success with these outputs; `outputs` must be an object.
    #[must_use]
    pub fn of(outputs: Value) -> Self {
        let outputs = match outputs {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            value @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                Map::from_iter([("value".to_owned(), value)])
            }
        };
        Self { outputs, flow: Flow::Continue, signs: Vec::new() }
    }
}

/// How an attempt failed. The text says where, what, what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// Another attempt may help: a network, a lock, a full disk.
    #[error("{0}")]
    Retryable(String),
    /// No attempt can help: wrong settings, wrong data.
    #[error("{0}")]
    Permanent(String),
    /// A gate refused: what it judged is not published, and what was published before stays.
    #[error("{0}")]
    Blocked(String),
    /// A program ended with a code other than 0; `retry_on` may judge it by that.
    #[error("{text}")]
    Exited {
        /// The exit code.
        code: i32,
        /// For people.
        text: String,
    },
}

/// One entry of [`KINDS`]: a [`TaskKind`] with its type erased.
pub struct Kind {
    /// The word after `type:`.
    pub name: &'static str,
    /// See [`TaskKind::VERBATIM`].
    pub verbatim: &'static [&'static str],
    /// The JSON Schema of its keys.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Reads settings; the error is serde's text.
    pub read: fn(&Value) -> Result<Box<dyn Work>, String>,
}

/// A task's settings, read.
pub trait Work: Send + Sync {
    /// See [`TaskKind::check`].
    fn check(&self) -> Vec<SpecProblem>;
    /// See [`TaskKind::reads`].
    fn reads(&self) -> Vec<String>;
    /// See [`TaskKind::writes`].
    fn writes(&self) -> Vec<String>;
    /// See [`TaskKind::run`].
    fn run<'a>(
        &'a self,
        cx: &'a TaskContext,
    ) -> Pin<Box<dyn Future<Output = Result<TaskOutput, TaskError>> + Send + 'a>>;
}

impl<K: TaskKind> Work for K {
    fn check(&self) -> Vec<SpecProblem> {
        TaskKind::check(self)
    }
    fn reads(&self) -> Vec<String> {
        TaskKind::reads(self)
    }
    fn writes(&self) -> Vec<String> {
        TaskKind::writes(self)
    }
    fn run<'a>(
        &'a self,
        cx: &'a TaskContext,
    ) -> Pin<Box<dyn Future<Output = Result<TaskOutput, TaskError>> + Send + 'a>> {
        Box::pin(TaskKind::run(self, cx))
    }
}

const fn kind<K: TaskKind>() -> Kind {
    Kind {
        name: K::NAME,
        verbatim: K::VERBATIM,
        schema: |generator| generator.subschema_for::<K>(),
        read: |value| match serde_json::from_value::<K>(value.clone()) {
            Ok(work) => Ok(Box::new(work)),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Every kind. A new one is a file in this folder and a line here.
pub const KINDS: &[Kind] = &[
    kind::<bash::Bash>(),
    kind::<branch::Branch>(),
    kind::<branch::ShortCircuit>(),
    #[cfg(all(feature = "data", feature = "ml"))]
    kind::<cluster::Cluster>(),
    kind::<http::Http>(),
    #[cfg(feature = "data")]
    kind::<ingest::Ingest>(),
    #[cfg(feature = "data")]
    kind::<load::Load>(),
    kind::<noop::Noop>(),
    kind::<sensor::Sensor>(),
    #[cfg(feature = "data")]
    kind::<sql::Sql>(),
    #[cfg(feature = "data")]
    kind::<transform::Transform>(),
    #[cfg(feature = "data")]
    kind::<validate::Validate>(),
];

/// The kind called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|k| k.name == name)
}

mod bash;
mod branch;
#[cfg(all(feature = "data", feature = "ml"))]
mod cluster;
#[cfg(feature = "data")]
mod datasets;
mod http;
#[cfg(feature = "data")]
mod ingest;
#[cfg(feature = "data")]
mod load;
mod noop;
mod sensor;
#[cfg(feature = "data")]
mod sql;
pub mod template;
#[cfg(feature = "data")]
mod transform;
pub mod units;
#[cfg(feature = "data")]
mod validate;
