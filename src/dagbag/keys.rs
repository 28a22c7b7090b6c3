//! The keys of a DAG, of a group and of every task, as types: what a file may say, its JSON Schema and its
//! defaults are one text. The keys of a kind are its own (`tasks::Kind`).

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::core::dag::{DEFAULT_POOL, DEFAULT_QUEUE, DagSettings, Overlap, TriggerRule, WeightRule};
use crate::tasks::units::{Moment, Span};

/// What authors may write beside the canonical word, for a DAG.
pub(super) const DAG_ALIASES: &[(&str, &str)] = &[("id", "dag_id"), ("name", "dag_id"), ("steps", "tasks")];
/// What authors may write beside the canonical word, for a task.
pub(super) const TASK_ALIASES: &[(&str, &str)] = &[
    ("task_id", "id"),
    ("operator", "type"),
    ("kind", "type"),
    ("dependencies", "depends_on"),
    ("depends", "depends_on"),
    ("upstream", "depends_on"),
    ("needs", "depends_on"),
    ("timeout", "execution_timeout"),
];

/// Keys of a DAG, without `params`, `default_args`, `tasks` and `task_groups`, which are read apart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DagKeys {
    /// Identity.
    #[schemars(schema_with = "id_schema")]
    pub(super) dag_id: String,
    /// One line for people.
    pub(super) description: Option<String>,
    /// A page for people, in Markdown.
    pub(super) doc_md: Option<String>,
    /// Who is responsible.
    pub(super) owner: Option<String>,
    /// Words to find it by.
    #[serde(default)]
    pub(super) tags: Vec<String>,
    /// When it runs; absent: by hand only.
    pub(super) schedule: Option<ScheduleKey>,
    /// What `logical_date` is: the fire time, or the start of the data interval.
    #[serde(default)]
    pub(super) timetable: TimetableKey,
    /// The IANA name of the zone in which the schedule is read.
    #[serde(default = "utc")]
    pub(super) timezone: String,
    /// What happens where clocks are changed.
    #[serde(default)]
    pub(super) dst: DstKeys,
    /// No run before.
    pub(super) start_date: Option<Moment>,
    /// No run after.
    pub(super) end_date: Option<Moment>,
    /// Every missed instant (`true`), or only the latest.
    #[serde(default)]
    pub(super) catchup: bool,
    /// Missed instants older than this are skipped.
    pub(super) catchup_window: Option<Span>,
    /// At most so many missed instants are made up for, the latest ones.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) catchup_max: Option<u32>,
    /// Runs at once.
    #[serde(default = "max_active_runs")]
    #[schemars(range(min = 1))]
    pub(super) max_active_runs: u32,
    /// What happens to a new run beyond `max_active_runs`.
    #[serde(default = "overlap")]
    #[schemars(schema_with = "overlap_schema")]
    pub(super) overlap: String,
    /// Running tasks of one run at once.
    #[serde(default = "max_active_tasks")]
    #[schemars(range(min = 1))]
    pub(super) max_active_tasks: u32,
    /// Failed runs in a row after which the DAG is paused; 0 is never.
    #[serde(default)]
    pub(super) max_consecutive_failed_dag_runs: u32,
    /// From the run's start; the run fails, its unfinished tasks are skipped.
    pub(super) dagrun_timeout: Option<Span>,
    /// An alert if the run has not succeeded by then.
    pub(super) deadline: Option<DeadlineKeys>,
    /// The first failed task fails the run.
    #[serde(default)]
    pub(super) fail_fast: bool,
    /// Names of alert routes.
    #[serde(default)]
    pub(super) alerts: Vec<String>,
}

/// When a DAG runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("x-expected" = "a cron text, a list of them, a preset such as `@daily`, `{every: 15m}`, `{assets: …}` or `{event: …}`"))]
pub(super) enum ScheduleKey {
    /// A cron text or a preset.
    Cron(String),
    /// Several cron texts.
    Crons(Vec<String>),
    /// At a steady pace.
    Every(EveryKeys),
    /// On new data.
    Assets(AssetsKeys),
    /// On received events.
    Event(EventKeys),
}

/// At a steady pace.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EveryKeys {
    /// The time from one run to the next.
    pub(super) every: Span,
}

/// On new data.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AssetsKeys {
    /// Which assets.
    pub(super) assets: AssetsCondition,
    /// If given, the clock must have struck as well: a cron text, or several.
    pub(super) cron: Option<OneOrMany>,
}

/// Which assets must be new.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("x-expected" = "the name of an asset, a list of them, `{all: […]}` or `{any: […]}`"))]
pub(super) enum AssetsCondition {
    /// This one.
    One(String),
    /// Every one of them.
    List(Vec<AssetsCondition>),
    /// Every one of them.
    All(AllKeys),
    /// One of them.
    Any(AnyKeys),
}

/// Every one of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AllKeys {
    /// Names of assets, or conditions.
    #[schemars(length(min = 1))]
    pub(super) all: Vec<AssetsCondition>,
}

/// One of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AnyKeys {
    /// Names of assets, or conditions.
    #[schemars(length(min = 1))]
    pub(super) any: Vec<AssetsCondition>,
}

/// On received events, in batches.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventKeys {
    /// The name events are sent to.
    pub(super) event: String,
    /// A batch is started at the latest so long after its first event.
    #[serde(default = "one_second")]
    pub(super) max_wait: Span,
    /// A batch has at most so many events.
    #[serde(default = "five_hundred")]
    #[schemars(range(min = 1))]
    pub(super) max_batch: u32,
}

/// What `logical_date` is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TimetableKey {
    /// The fire time.
    #[default]
    Trigger,
    /// The start of the data interval.
    DataInterval,
}

/// What happens where clocks are changed.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DstKeys {
    /// A local time that does not exist.
    #[serde(default)]
    pub(super) gap: GapKey,
    /// A local time that occurs twice.
    #[serde(default)]
    pub(super) overlap: FoldKey,
}

/// A local time that does not exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum GapKey {
    /// Fires later by the gap.
    #[default]
    Shift,
    /// Does not fire.
    Skip,
}

/// A local time that occurs twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum FoldKey {
    /// Fires the first time.
    #[default]
    First,
    /// Fires the second time.
    Last,
    /// Fires both times.
    Both,
}

/// An alert if the run has not succeeded by then.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadlineKeys {
    /// How long.
    pub(super) after: Span,
    /// From when.
    #[serde(default)]
    pub(super) from: DeadlineFromKey,
}

/// From when a deadline counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum DeadlineFromKey {
    /// The run's fire time.
    #[default]
    Due,
    /// The creation of the run.
    Queued,
}

/// Keys of a group of tasks, without `default_args`, `tasks` and `task_groups`, which are read apart.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupKeys {
    /// Its name, which becomes the prefix of its tasks' ids.
    #[schemars(schema_with = "id_schema")]
    pub(super) id: String,
    /// What every task of the group comes after.
    #[serde(default)]
    pub(super) depends_on: OneOrMany,
}

/// What a task is called and what it does.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct TaskIdentity {
    /// Its name within the DAG or group.
    #[schemars(schema_with = "id_schema")]
    pub(super) id: String,
    /// The kind of work.
    #[serde(rename = "type")]
    _kind: String,
}

/// Keys that every kind of task shares.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CommonKeys {
    /// A page for people, in Markdown.
    pub(super) doc_md: Option<String>,
    /// Ids of tasks or groups that come first.
    #[serde(default)]
    pub(super) depends_on: OneOrMany,
    /// When it runs, judged on its direct upstreams.
    #[serde(default = "trigger_rule")]
    #[schemars(schema_with = "trigger_rule_schema")]
    pub(super) trigger_rule: String,
    /// A template expression; false skips the task.
    pub(super) when: Option<WhenKey>,
    /// Attempts after the first.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub(super) retries: u32,
    /// The wait after the first failed attempt.
    #[serde(default = "retry_delay")]
    pub(super) retry_delay: Span,
    /// The factor from one wait to the next; 0 is a constant wait.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub(super) retry_exponential_backoff: f64,
    /// No wait is longer.
    #[serde(default = "one_day")]
    pub(super) max_retry_delay: Span,
    /// Which failures another attempt may help; absent: every retryable one.
    pub(super) retry_on: Option<RetryOnKeys>,
    /// The longest one attempt may take.
    pub(super) execution_timeout: Option<Span>,
    /// Where its slots come from.
    #[serde(default = "pool")]
    #[schemars(schema_with = "id_schema")]
    pub(super) pool: String,
    /// How many slots one instance holds.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub(super) pool_slots: u32,
    /// Its own weight; greater goes first.
    #[serde(default = "one_signed")]
    pub(super) priority_weight: i32,
    /// How its priority grows from its place in the DAG.
    #[serde(default = "weight_rule")]
    #[schemars(schema_with = "weight_rule_schema")]
    pub(super) weight_rule: String,
    /// Which workers may take it.
    #[serde(default = "queue")]
    #[schemars(schema_with = "id_schema")]
    pub(super) queue: String,
    /// The same task in the run before must be `success` or `skipped`.
    #[serde(default)]
    pub(super) depends_on_past: bool,
    /// As `depends_on_past`, and also the direct downstreams of that task.
    #[serde(default)]
    pub(super) wait_for_downstream: bool,
    /// Running instances at once over all runs.
    #[schemars(range(min = 1))]
    pub(super) max_active_tis_per_dag: Option<u32>,
    /// Running instances at once within one run.
    #[schemars(range(min = 1))]
    pub(super) max_active_tis_per_dagrun: Option<u32>,
    /// One instance per element: a list, `"{{ outputs.task.key }}"`, or `{task: …, key: …}`.
    pub(super) expand: Option<ExpandKey>,
    /// Prepares what others need.
    #[serde(default)]
    pub(super) setup: bool,
    /// Ids of the setups it cleans up after.
    #[serde(default)]
    pub(super) teardown_for: OneOrMany,
    /// Extra environment of subprocesses.
    #[serde(default)]
    pub(super) env: BTreeMap<String, EnvValue>,
    /// Assets read beyond those the kind knows by itself.
    #[serde(default)]
    pub(super) inlets: Vec<String>,
    /// Assets written beyond those the kind knows by itself.
    #[serde(default)]
    pub(super) outlets: Vec<String>,
    /// Names of alert routes, in place of the DAG's.
    #[serde(default)]
    pub(super) alerts: Vec<String>,
}

/// One name or a list of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    /// Several.
    Many(Vec<String>),
    /// One.
    One(String),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// A template expression, or a plain answer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum WhenKey {
    /// An expression.
    Expression(String),
    /// Always, or never.
    Plain(bool),
}

/// Which failures another attempt may help.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryOnKeys {
    /// Only these exit codes.
    #[serde(default)]
    pub(super) exit_codes: Vec<i32>,
    /// Only errors that match this regular expression.
    pub(super) matching: Option<String>,
    /// No errors that match this regular expression.
    pub(super) except: Option<String>,
}

/// What a task is mapped over.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(extend("x-expected" = "a list, `\"{{ outputs.task.key }}\"` or `{task: …, key: …}`"))]
pub(super) enum ExpandKey {
    /// The list itself.
    List(Vec<Value>),
    /// An output of another task.
    Output(OutputKeys),
    /// An output of another task, as a template.
    Template(String),
}

/// An output of another task.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputKeys {
    /// The task.
    pub(super) task: String,
    /// The name of the output.
    #[serde(default = "return_value")]
    pub(super) key: String,
}

/// The value of a variable of the environment.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum EnvValue {
    /// A text.
    Text(String),
    /// A number.
    Number(Number),
    /// `true` or `false`.
    Flag(bool),
}

fn id_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$",
        "x-expected": "a name of letters, digits, `_`, `.` and `-` that begins with one of the first three",
    })
}

fn overlap_schema(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = Overlap::ALL.iter().map(|o| o.as_str()).collect();
    json_schema!({"type": "string", "enum": names})
}

fn trigger_rule_schema(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = TriggerRule::ALL.iter().map(|o| o.as_str()).collect();
    json_schema!({"type": "string", "enum": names})
}

fn weight_rule_schema(_: &mut SchemaGenerator) -> Schema {
    let names: Vec<_> = WeightRule::ALL.iter().map(|o| o.as_str()).collect();
    json_schema!({"type": "string", "enum": names})
}

fn utc() -> String {
    "UTC".to_owned()
}
fn max_active_runs() -> u32 {
    DagSettings::default().max_active_runs
}
fn max_active_tasks() -> u32 {
    DagSettings::default().max_active_tasks
}
fn overlap() -> String {
    DagSettings::default().overlap.to_string()
}
fn trigger_rule() -> String {
    TriggerRule::AllSuccess.to_string()
}
fn weight_rule() -> String {
    WeightRule::Downstream.to_string()
}
fn pool() -> String {
    DEFAULT_POOL.to_owned()
}
fn queue() -> String {
    DEFAULT_QUEUE.to_owned()
}
fn return_value() -> String {
    "return_value".to_owned()
}
fn one() -> u32 {
    1
}
fn one_signed() -> i32 {
    1
}
fn five_hundred() -> u32 {
    500
}
fn one_second() -> Span {
    Span(std::time::Duration::from_secs(1))
}
fn retry_delay() -> Span {
    Span(std::time::Duration::from_secs(300))
}
fn one_day() -> Span {
    Span(std::time::Duration::from_secs(86_400))
}
