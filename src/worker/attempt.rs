//! One attempt: render, run under its timeout, judge how it ended.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::mask::{Mask, names_a_secret};
use super::{Settings, task_log};
use crate::control::Assignment;
use crate::core::dag::Task;
use crate::core::ids::DagHash;
use crate::core::run::{Outcome, Outputs, Severity, Sign, UNMAPPED};
use crate::tasks::template::{Renderer, Scope};
use crate::tasks::{self, Flow, TaskContext, TaskError, TaskOutput, Work};

/// What an attempt leaves may have this many bytes as JSON; larger results belong in a dataset.
const OUTPUTS_BYTES_MAX: usize = 48 * 1024;
/// How long an attempt may take to stop after it was asked to, before it is dropped.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// `retry_on`: which failures another attempt may help.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct RetryOn {
    /// Only these exit codes.
    #[serde(default)]
    pub exit_codes: Vec<i32>,
    /// Only errors that match.
    #[serde(default)]
    pub matching: Option<String>,
    /// No errors that match.
    #[serde(default)]
    pub except: Option<String>,
}

/// The settings all kinds share that the core does not judge ([`Task::extra`]).
#[derive(Debug, Default, Deserialize)]
struct Extra {
    #[serde(default)]
    env: BTreeMap<String, Value>,
    #[serde(default)]
    retry_on: Option<RetryOn>,
    #[serde(default)]
    expand: Option<Value>,
}

/// A task as far as it can be read before its attempts.
struct Prepared {
    spec: Value,
    extra: Extra,
    verbatim: &'static [&'static str],
    /// The settings, if they hold no template.
    work: Option<Arc<dyn Work>>,
    /// Whether anything has to be rendered: settings, `env` or `when`.
    dynamic: bool,
}

/// A task, read when it is first needed; or why it cannot be read.
type Slot = OnceLock<Result<Arc<Prepared>, String>>;

/// Tasks read once per DAG version, and the secrets of the process.
#[derive(Default)]
pub(super) struct PreparedTasks {
    versions: Mutex<BTreeMap<DagHash, Arc<Vec<Slot>>>>,
    secrets: OnceLock<Mask>,
}

impl PreparedTasks {
    fn of(&self, assignment: &Assignment) -> Result<Arc<Prepared>, TaskError> {
        let slots = self
            .versions
            .lock()
            .expect("nothing panics while the list is held")
            .entry(assignment.dag.hash.clone())
            .or_insert_with(|| Arc::new((0..assignment.dag.tasks().len()).map(|_| OnceLock::new()).collect()))
            .clone();
        slots[assignment.ti.task]
            .get_or_init(|| prepare(assignment.dag.task(assignment.ti.task)).map(Arc::new))
            .clone()
            .map_err(TaskError::Permanent)
    }
}

fn prepare(task: &Task) -> Result<Prepared, String> {
    let kind = tasks::find(&task.kind).ok_or_else(|| {
        format!("this program has no task type `{}`; was it built without a feature?", task.kind)
    })?;
    let spec: Value = serde_json::from_str(&task.spec).map_err(|e| format!("the task's settings: {e}"))?;
    let extra: Extra = serde_json::from_str(&task.extra).map_err(|e| format!("the task's settings: {e}"))?;
    let spec_dynamic = holds_template(&spec, kind.verbatim);
    let env_dynamic = extra.env.values().any(|v| holds_template(v, &[]));
    let work = if spec_dynamic { None } else { Some(Arc::from((kind.read)(&spec)?)) };
    let dynamic = spec_dynamic || env_dynamic || task.when.is_some();
    Ok(Prepared { spec, extra, verbatim: kind.verbatim, work, dynamic })
}

fn holds_template(value: &Value, verbatim: &[&str]) -> bool {
    match value {
        Value::String(text) => text.contains("{{") || text.contains("{%"),
        Value::Array(items) => items.iter().any(|v| holds_template(v, &[])),
        Value::Object(map) => {
            map.iter().any(|(k, v)| !verbatim.contains(&k.as_str()) && holds_template(v, &[]))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Makes the attempt and says how it ended. Never panics, never hangs beyond its timeout and the grace.
pub(super) async fn make(
    settings: &Arc<Settings>,
    prepared: &PreparedTasks,
    assignment: &Assignment,
    cancel: CancellationToken,
) -> Outcome {
    let task = assignment.dag.task(assignment.ti.task);
    let mask = Arc::new(prepared.secrets.get_or_init(|| mask(settings)).clone());
    let log = task_log::open(
        &settings.logs,
        &assignment.dag,
        &assignment.birth.key,
        assignment.ti,
        assignment.fence,
        settings.now,
    );
    let hidden = mask.clone();
    let log = tasks::TaskLog::new(move |line| log.line(&hidden.hide(line)));
    let mut retry_on = None;
    let ended = async {
        let prepared = prepared.of(assignment)?;
        retry_on = prepared.extra.retry_on.clone();
        let mut cx = context(settings, assignment, log.clone(), cancel.clone())?;
        let work = match ready(&prepared, task, assignment, &mut cx)? {
            Ready::Skip(why) => {
                return Ok(Ended::Did(TaskOutput {
                    flow: Flow::Skip { why },
                    ..TaskOutput::of(Value::Null)
                }));
            }
            Ready::Run(work) => work,
        };
        cx.env.iter().filter(|(name, _)| names_a_secret(name)).for_each(|(_, value)| mask.add(value));
        under_timeout(task.execution_timeout, work.as_ref(), &cx).await
    };
    let ended = AssertUnwindSafe(ended).catch_unwind().await;
    let outcome = match ended {
        Ok(Ok(Ended::Did(output))) => succeeded(output, &mask),
        Ok(Ok(Ended::TimedOut(limit))) => failed(
            format!("the attempt took longer than its execution_timeout of {}", show(limit)),
            Severity::TimedOut,
        ),
        Ok(Err(error)) => {
            let severity = severity(&error, retry_on.as_ref());
            failed(mask.hide(&error.to_string()).into_owned(), severity)
        }
        Err(panic) => failed(format!("the task panicked: {}", panic_text(&*panic)), Severity::Retryable),
    };
    if let Outcome::Failed { error, .. } = &outcome {
        log.line(&format!("error: {error}"));
    }
    outcome
}

/// Knows the secrets of the process.
fn mask(settings: &Settings) -> Mask {
    let inherited = settings.shared.inherited_env.iter();
    let mask = Mask::new(inherited.filter(|(name, _)| names_a_secret(name)).map(|(_, value)| value.as_str()));
    #[cfg(feature = "data")]
    for secret in settings.shared.connections.secrets() {
        mask.add(secret.expose());
    }
    mask
}

enum Ended {
    Did(TaskOutput),
    TimedOut(Duration),
}

async fn under_timeout(
    limit: Option<Duration>,
    work: &dyn Work,
    cx: &TaskContext,
) -> Result<Ended, TaskError> {
    let running = work.run(cx);
    tokio::pin!(running);
    let patience = async {
        tokio::select! {
            () = cx.cancel.cancelled() => None,
            () = expiry(limit) => limit,
        }
    };
    tokio::select! {
        biased;
        done = &mut running => done.map(Ended::Did),
        timed_out = patience => {
            cx.cancel.cancel();
            let stopped = tokio::time::timeout(STOP_GRACE, &mut running).await;
            if stopped.is_err() {
                cx.log.line("the attempt did not stop in time and was dropped");
            }
            match timed_out {
                Some(limit) => Ok(Ended::TimedOut(limit)),
                None => Err(TaskError::Retryable("the attempt was stopped on request".to_owned())),
            }
        }
    }
}

async fn expiry(limit: Option<Duration>) {
    match limit {
        // The timer is the event that is waited for.
        Some(limit) => drop(tokio::time::timeout(limit, std::future::pending::<()>()).await),
        None => std::future::pending().await,
    }
}

fn context(
    settings: &Settings,
    assignment: &Assignment,
    log: tasks::TaskLog,
    cancel: CancellationToken,
) -> Result<TaskContext, TaskError> {
    let birth = &assignment.birth;
    let params = if birth.params.is_empty() {
        Map::new()
    } else {
        serde_json::from_str(&birth.params)
            .map_err(|e| TaskError::Permanent(format!("the run's params: {e}")))?
    };
    Ok(TaskContext {
        dag_id: birth.key.dag_id.clone(),
        run_id: birth.key.run_id.clone(),
        task_id: assignment.dag.task(assignment.ti.task).id.clone(),
        map_index: assignment.ti.map_index,
        fence: assignment.fence,
        try_number: assignment.try_number,
        now: (settings.now)(),
        queued_at: birth.queued_at,
        logical_date: birth.logical_date,
        data_interval_start: birth.data_interval_start,
        data_interval_end: birth.data_interval_end,
        params,
        env: Vec::new(),
        cancel,
        log,
        shared: settings.shared.clone(),
    })
}

enum Ready {
    Skip(String),
    Run(Arc<dyn Work>),
}

/// Renders what has to be rendered, and reads the settings.
fn ready(
    prepared: &Prepared,
    task: &Task,
    assignment: &Assignment,
    cx: &mut TaskContext,
) -> Result<Ready, TaskError> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    };
    if !prepared.dynamic
        && let Some(work) = &prepared.work
    {
        cx.env = prepared.extra.env.iter().map(|(k, v)| (k.clone(), text(v))).collect();
        return Ok(Ready::Run(work.clone()));
    }
    let wrong = |e: tasks::template::TemplateError| TaskError::Permanent(e.to_string());
    let renderer = Renderer::new(&scope(prepared, task, assignment, cx));
    if let Some(when) = &task.when
        && !renderer.eval_bool(when).map_err(wrong)?
    {
        return Ok(Ready::Skip(format!("`when: {when}` is false")));
    }
    for (name, value) in &prepared.extra.env {
        let value = renderer.render_value(value, &[]).map_err(wrong)?;
        cx.env.push((name.clone(), text(&value)));
    }
    if let Some(work) = &prepared.work {
        return Ok(Ready::Run(work.clone()));
    }
    let spec = renderer.render_value(&prepared.spec, prepared.verbatim).map_err(wrong)?;
    let kind = tasks::find(&task.kind).expect("it was found when the task was prepared");
    let work = (kind.read)(&spec).map_err(|e| TaskError::Permanent(format!("the rendered settings: {e}")))?;
    if let Some(problem) = work.check().first() {
        return Err(TaskError::Permanent(format!("`{}`: {}", problem.path.join("."), problem.message)));
    }
    Ok(Ready::Run(Arc::from(work)))
}

fn scope(prepared: &Prepared, task: &Task, assignment: &Assignment, cx: &TaskContext) -> Scope {
    let mut outputs: BTreeMap<String, Value> = BTreeMap::new();
    {
        let left = assignment.outputs.lock().expect("no holder of the outputs panics");
        for (ti, json) in left.iter() {
            let value: Value = serde_json::from_str(json).unwrap_or(Value::Null);
            let name = assignment.dag.task(ti.task).id.to_string();
            if ti.map_index == UNMAPPED {
                outputs.insert(name, value);
            } else if let Value::Array(all) = outputs.entry(name).or_insert_with(|| Value::Array(Vec::new()))
            {
                all.push(value);
            }
        }
    }
    let map_item =
        usize::try_from(cx.map_index).ok().and_then(|place| match (&task.expand, &prepared.extra.expand) {
            (Some(crate::core::dag::Expand::Output { task: from, key }), _) => outputs
                .get(assignment.dag.task(*from).id.as_str())
                .and_then(|o| o.get(key))
                .and_then(|list| list.get(place))
                .cloned(),
            (Some(crate::core::dag::Expand::Fixed(_)), Some(list)) => list.get(place).cloned(),
            _ => None,
        });
    Scope {
        dag_id: cx.dag_id.to_string(),
        task_id: cx.task_id.to_string(),
        run_id: cx.run_id.to_string(),
        logical_date: cx.logical_date,
        data_interval_start: cx.data_interval_start,
        data_interval_end: cx.data_interval_end,
        try_number: cx.try_number,
        map_index: cx.map_index,
        map_item: map_item.unwrap_or(Value::Null),
        params: cx.params.clone(),
        vars: Map::new(),
        outputs: outputs.into_iter().collect(),
        triggers: serde_json::from_str(&assignment.triggers).unwrap_or_default(),
    }
}

fn succeeded(output: TaskOutput, mask: &Mask) -> Outcome {
    let TaskOutput { outputs, flow, signs } = output;
    let hidden = |sign: Sign| Sign { text: mask.hide(&sign.text).into_owned().into(), ..sign };
    let signs = signs.into_iter().map(hidden).collect();
    let outputs = match pack(outputs) {
        Ok(outputs) => Outputs { signs, ..outputs },
        Err(error) => return failed(error, Severity::Permanent),
    };
    match flow {
        Flow::Continue => Outcome::Succeeded(outputs),
        Flow::Branch(chosen) => Outcome::Branched { chosen, outputs },
        Flow::ShortCircuit { respect_trigger_rules } => {
            Outcome::ShortCircuited { respect_trigger_rules, outputs }
        }
        Flow::Skip { why } => Outcome::Skipped { why: why.into() },
        Flow::Defer { until } => Outcome::Deferred { until },
    }
}

fn pack(outputs: Map<String, Value>) -> Result<Outputs, String> {
    if outputs.is_empty() || outputs.values().all(Value::is_null) {
        return Ok(Outputs::default());
    }
    let list_lengths = outputs
        .iter()
        .filter_map(|(name, value)| {
            let length = u32::try_from(value.as_array()?.len()).unwrap_or(u32::MAX);
            Some((Arc::from(name.as_str()), length))
        })
        .collect();
    let json = Value::Object(outputs).to_string();
    if json.len() > OUTPUTS_BYTES_MAX {
        return Err(format!(
            "the outputs have {} bytes, at most {OUTPUTS_BYTES_MAX} are kept; write large results to a dataset",
            json.len()
        ));
    }
    Ok(Outputs { json: json.into(), list_lengths, signs: Vec::new() })
}

fn failed(error: String, severity: Severity) -> Outcome {
    Outcome::Failed { error: error.into(), severity }
}

fn severity(error: &TaskError, retry_on: Option<&RetryOn>) -> Severity {
    let may_help = match error {
        TaskError::Blocked(_) => return Severity::Blocked,
        TaskError::Permanent(_) => false,
        TaskError::Retryable(text) => {
            retry_on.is_none_or(|rule| rule.exit_codes.is_empty() && text_allows(rule, text))
        }
        TaskError::Exited { code, text } => retry_on.is_none_or(|rule| {
            (rule.exit_codes.is_empty() || rule.exit_codes.contains(code)) && text_allows(rule, text)
        }),
    };
    if may_help { Severity::Retryable } else { Severity::Permanent }
}

/// A pattern that is no pattern was refused when the file was checked; here it matches nothing.
fn text_allows(rule: &RetryOn, text: &str) -> bool {
    let matches = |pattern: &String| regex::Regex::new(pattern).is_ok_and(|r| r.is_match(text));
    rule.matching.as_ref().is_none_or(matches) && !rule.except.as_ref().is_some_and(matches)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message")
}

fn show(span: Duration) -> String {
    if span.subsec_millis() == 0 { format!("{} s", span.as_secs()) } else { format!("{span:?}") }
}
