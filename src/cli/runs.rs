//! `runs list`, `runs show`, and the report that `run` ends with.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{CliError, Globals, Output, change, home, print_json, print_line, table};
use crate::control;
use crate::core::ids::{DagId, RunId, RunKey, TaskId, Timestamp};
use crate::core::state::{RunState, TaskState};
use crate::store::{InstanceRow, RunFilter, RunSummary, Store};

/// How many runs `list` shows unless told.
const LIST_DEFAULT: u32 = 25;

/// List and show runs.
#[derive(Subcommand)]
pub(super) enum Runs {
    /// List runs, newest first
    List {
        /// Only of this DAG
        #[arg(value_name = "DAG")]
        dag_id: Option<String>,
        /// Only in this state: queued, running, success, failed, cancelled
        #[arg(long)]
        state: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = LIST_DEFAULT)]
        limit: u32,
    },
    /// Show a run with its task instances
    Show {
        /// The DAG
        #[arg(value_name = "DAG")]
        dag_id: String,
        /// The run [default: the newest]
        #[arg(value_name = "RUN")]
        run_id: Option<String>,
    },
    /// Clear task instances: they run again
    Clear(change::Clear),
    /// Say how task instances ended
    Mark(change::Mark),
    /// End a run: its programs get TERM, and KILL after their grace
    Cancel(change::Cancel),
    /// Say what each task instance waits for
    Why(change::Why),
}

pub(super) async fn run(command: Runs, globals: Globals) -> Result<(), CliError> {
    match command {
        Runs::List { dag_id, state, limit } => {
            let dag_id = dag_id.as_deref().map(parse_dag_id).transpose()?;
            let state = state.as_deref().map(parse_state).transpose()?;
            let store = home::open_reader(&globals).await?;
            list(&store, &globals, dag_id.as_ref(), state, limit).await
        }
        Runs::Clear(args) => change::clear(args, &globals).await,
        Runs::Mark(args) => change::mark(args, &globals).await,
        Runs::Cancel(args) => change::cancel(args, &globals).await,
        Runs::Why(args) => change::why(args, &globals).await,
        Runs::Show { dag_id, run_id } => {
            let store = home::open_reader(&globals).await?;
            let key = find_run(&store, &dag_id, run_id.as_deref()).await?;
            let report = report(&store, &key).await?;
            match globals.output {
                Output::Json => print_json(&report),
                Output::Table => print_line(&summary(&report)),
            }
            Ok(())
        }
    }
}

pub(super) fn parse_dag_id(text: &str) -> Result<DagId, CliError> {
    DagId::parse(text).map_err(|e| CliError::User(e.to_string()))
}

fn parse_state(text: &str) -> Result<RunState, CliError> {
    RunState::parse(text).ok_or_else(|| {
        let all: Vec<_> = RunState::ALL.iter().map(|s| s.as_str()).collect();
        CliError::User(format!("`{text}` is no state of a run\nhint: one of {}", all.join(", ")))
    })
}

/// The run that was named, or the newest of the DAG.
pub(super) async fn find_run(store: &Store, dag_id: &str, run_id: Option<&str>) -> Result<RunKey, CliError> {
    let dag_id = parse_dag_id(dag_id)?;
    if let Some(run_id) = run_id {
        let run_id = RunId::parse(run_id).map_err(|e| CliError::User(e.to_string()))?;
        return Ok(RunKey { dag_id, run_id });
    }
    match store.runs(&RunFilter { dag_id: Some(dag_id.clone()), state: None }, 1).await?.into_iter().next() {
        Some(run) => Ok(run.birth.key),
        None => Err(CliError::User(format!("the DAG `{dag_id}` has no runs yet"))),
    }
}

async fn list(
    store: &Store,
    globals: &Globals,
    dag_id: Option<&DagId>,
    state: Option<RunState>,
    limit: u32,
) -> Result<(), CliError> {
    let runs = store.runs(&RunFilter { dag_id: dag_id.cloned(), state }, limit).await?;
    let rows: Vec<RunReport> = runs.iter().map(|run| RunReport::of(run, Vec::new())).collect();
    if globals.output == Output::Json {
        print_json(&rows);
        return Ok(());
    }
    let mut lines = table::with_head(&["dag_id", "run_id", "state", "logical_date", "duration"]);
    for row in &rows {
        lines.add_row([
            &row.dag_id,
            &row.run_id,
            &row.state_for_people(),
            &row.logical_date,
            &row.duration_ms.map_or_else(String::new, |ms| table::span(ms * 1000)),
        ]);
    }
    print_line(&table::text(&lines));
    Ok(())
}

/// A run as JSON shows it.
#[derive(Serialize)]
pub(super) struct RunReport {
    dag_id: String,
    run_id: String,
    state: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    with_failures: bool,
    logical_date: String,
    data_interval_start: String,
    data_interval_end: String,
    duration_ms: Option<i64>,
    /// The events that started it, under the names that templates use.
    #[serde(flatten)]
    triggers: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<TaskReport>,
}

/// A task instance as JSON shows it.
#[derive(Serialize)]
struct TaskReport {
    task_id: String,
    map_index: i32,
    state: &'static str,
    try_number: u32,
    duration_ms: Option<i64>,
    outputs: Map<String, Value>,
    error: Option<String>,
}

impl RunReport {
    fn of(run: &RunSummary, tasks: Vec<TaskReport>) -> Self {
        Self {
            dag_id: run.birth.key.dag_id.to_string(),
            run_id: run.birth.key.run_id.to_string(),
            state: run.state.as_str(),
            with_failures: run.with_failures,
            logical_date: run.birth.logical_date.to_string(),
            data_interval_start: run.birth.data_interval_start.to_string(),
            data_interval_end: run.birth.data_interval_end.to_string(),
            duration_ms: span_ms(run.started_at, run.ended_at),
            triggers: Map::new(),
            tasks,
        }
    }

    fn state_for_people(&self) -> String {
        if self.with_failures { format!("{} (with_failures)", self.state) } else { self.state.to_owned() }
    }
}

fn span_ms(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<i64> {
    i64::try_from(to?.since(from?).as_millis()).ok()
}

fn in_order(row: &InstanceRow) -> (bool, Option<Timestamp>, Option<Timestamp>, &TaskId, i32) {
    let i = &row.instance;
    (i.started_at.is_none(), i.started_at, i.ended_at, &row.task_id, row.map_index)
}

/// The run with all its task instances, in the order in which they began.
pub(super) async fn report(store: &Store, key: &RunKey) -> Result<RunReport, CliError> {
    let Some(run) = store.run_summary(key).await? else {
        return Err(CliError::User(format!("the DAG `{}` has no run `{}`", key.dag_id, key.run_id)));
    };
    let mut rows = store.task_instances(key).await?;
    // As they happened; what never began comes last.
    rows.sort_by(|a, b| in_order(a).cmp(&in_order(b)));
    let outputs = store.outputs(key).await?;
    let mut reasons = BTreeMap::new();
    for line in store.journal(key).await? {
        if let Some(task_id) = line.task_id {
            reasons.insert((task_id, line.map_index), line.reason);
        }
    }
    let tasks = rows
        .into_iter()
        .map(|InstanceRow { task_id, map_index, instance }| {
            let name = (task_id, map_index);
            TaskReport {
                map_index,
                state: instance.state.as_str(),
                try_number: instance.try_number,
                duration_ms: span_ms(instance.started_at, instance.ended_at),
                outputs: outputs
                    .get(&name)
                    .and_then(|json| serde_json::from_str(json).ok())
                    .unwrap_or_default(),
                error: if instance.state == TaskState::Success { None } else { reasons.remove(&name) },
                task_id: name.0.to_string(),
            }
        })
        .collect();
    let triggers = control::triggers(&store.events_of(key).await?);
    Ok(RunReport { triggers, ..RunReport::of(&run, tasks) })
}

/// The report for people: a table of tasks, what they printed for people to see, and one closing line.
pub(super) fn summary(report: &RunReport) -> String {
    let mut lines = table::with_head(&["task", "state", "tries", "duration", "result"]);
    let mut shown = String::new();
    for task in &report.tasks {
        let name = if task.map_index < 0 {
            task.task_id.clone()
        } else {
            format!("{}[{}]", task.task_id, task.map_index)
        };
        let result = task.error.clone().unwrap_or_else(|| figures(&task.outputs));
        lines.add_row([
            name,
            task.state.to_owned(),
            task.try_number.to_string(),
            task.duration_ms.map_or_else(String::new, |ms| table::span(ms * 1000)),
            result,
        ]);
        if let Some(rows) = task.outputs.get("first_rows").and_then(Value::as_array) {
            shown.push_str(&format!("\n{}:\n{}\n", task.task_id, rows_table(rows)));
        }
    }
    let took = report.duration_ms.map_or_else(String::new, |ms| format!(" in {}", table::span(ms * 1000)));
    format!(
        "{}\n{shown}\n{}{} {}: {}{took}\n",
        table::text(&lines),
        started_by(&report.triggers),
        report.dag_id,
        report.run_id,
        report.state_for_people()
    )
}

/// The events that started a run, a line for each asset with the newest, and one for what was received.
fn started_by(triggers: &Map<String, Value>) -> String {
    let mut text = String::new();
    let assets = triggers.get("triggering_asset_events").and_then(Value::as_object);
    for (asset, events) in assets.into_iter().flatten() {
        let all = events.as_array().map_or(&[][..], Vec::as_slice);
        let Some(newest) = all.last() else { continue };
        let word = |name: &str| newest.get(name).and_then(Value::as_str).unwrap_or_default();
        let more = if all.len() > 1 { format!(" and {} more", all.len() - 1) } else { String::new() };
        text.push_str(&format!(
            "started by `{asset}`: task `{}` of {} {} at {}{more}\n",
            word("source_task_id"),
            word("source_dag_id"),
            word("source_run_id"),
            word("timestamp")
        ));
    }
    let received = triggers.get("triggering_events").and_then(Value::as_array).map_or(0, Vec::len);
    if received > 0 {
        text.push_str(&format!(
            "started by {received} received event{}\n",
            if received == 1 { "" } else { "s" }
        ));
    }
    text
}

/// A query's rows as a table.
fn rows_table(rows: &[Value]) -> String {
    let Some(Value::Object(first)) = rows.first() else { return "(no rows)".to_owned() };
    let head: Vec<&str> = first.keys().map(String::as_str).collect();
    let mut lines = table::with_head(&head);
    for row in rows {
        lines.add_row(head.iter().map(|key| match row.get(*key) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }));
    }
    table::text(&lines)
}

/// The figures of a task in one line: numbers and short texts, lists by their length.
fn figures(outputs: &Map<String, Value>) -> String {
    let mut parts = Vec::new();
    for (name, value) in outputs {
        match value {
            Value::Number(n) => match n.as_f64() {
                Some(f) if !n.is_i64() && !n.is_u64() => parts.push(format!("{name}={f:.4}")),
                _ => parts.push(format!("{name}={n}")),
            },
            Value::String(text) if text.len() <= 40 => parts.push(format!("{name}={text}")),
            Value::Array(items) if !items.is_empty() && name != "first_rows" => {
                parts.push(format!("{name}={}", items.len()));
            }
            Value::Bool(b) => parts.push(format!("{name}={b}")),
            Value::String(_) | Value::Array(_) | Value::Object(_) | Value::Null => {}
        }
    }
    parts.join(" ")
}
