//! What people ask of runs, in the words of the command line and the API: the one place that turns a wish into
//! inputs of runs. A wish that changes much can be planned first, and the plan is exactly what is then done.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Control, Loaded, Refused, load};
use crate::core::dag::Dag;
use crate::core::ids::{DagId, RunId, RunKey, TaskId, Timestamp};
use crate::core::run::{Input, Run, RunBirth, RunType, TiRef, UNMAPPED};
use crate::core::select::{Reach, select};
use crate::core::state::TaskState;
use crate::dagbag::{self, DagFile};
use crate::store::{Created, RunFilter, StoreError};

/// How names begin that schedules and backfills give to their runs.
const RESERVED: [&str; 2] = ["scheduled__", "backfill__"];
/// Runs that a clear of past or future runs looks at.
const RUNS_MAX: u32 = 10_000;

/// Why a wish was not met. Nothing has changed, if not said otherwise.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AskError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done as it was asked.
    #[error("{0}")]
    Invalid(String),
    /// The run does not take it as it stands.
    #[error("{0}")]
    Refused(Refused),
    /// The database.
    #[error("{0}")]
    Store(StoreError),
}

impl From<StoreError> for AskError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refused> for AskError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NoSuchRun => Self::NotFound(refused.to_string()),
            Refused::Store(error) => Self::Store(error),
            Refused::Input(_) | Refused::Stopping => Self::Refused(refused),
        }
    }
}

/// Start a run by hand.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trigger {
    /// The moment it stands for; now, if not said.
    #[serde(default)]
    pub logical_date: Option<String>,
    /// Parameters; those not given have their defaults.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// Its name; made from the moment, if not said. A name that is taken answers with the run that has it.
    #[serde(default)]
    pub run_id: Option<String>,
}

/// Which task instances a clear or a mark is about.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Tasks; all, if none is named.
    pub task_ids: Vec<String>,
    /// One mapped instance of the tasks.
    pub map_index: Option<i32>,
    /// Also everything before them.
    pub upstream: bool,
    /// Also everything after them.
    pub downstream: bool,
    /// Of all that, only what failed.
    pub only_failed: bool,
    /// The same in all earlier runs.
    pub past: bool,
    /// The same in all later runs.
    pub future: bool,
    /// In the newest version of the DAG, to which the run is carried over, and not in that of the run. Only a clear
    /// knows this.
    pub latest: bool,
    /// Only say what would change.
    pub dry_run: bool,
}

/// A task instance that changes, or would change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The DAG.
    pub dag_id: String,
    /// The run.
    pub run_id: String,
    /// The task.
    pub task_id: String,
    /// Its place in the list, or -1.
    pub map_index: i32,
    /// Its state before.
    pub state: String,
}

/// A DAG as it stands in the database, with everything that its file says.
///
/// # Errors
/// `NotFound` if it was never served.
pub async fn latest(control: &Control, dag_id: &DagId) -> Result<DagFile, AskError> {
    let unknown = || {
        AskError::NotFound(format!(
            "there is no DAG `{dag_id}` here\nhint: `mainspring dags list` shows them all; a server takes up a new file within seconds"
        ))
    };
    let row = control.store().dag(dag_id).await?.ok_or_else(unknown)?;
    let (_, source) = control.store().dag_version(&row.dag_hash).await?.ok_or_else(unknown)?;
    dagbag::file_from_source(&source).map_err(|problems| {
        let first = problems.first().map(|problem| problem.what.clone()).unwrap_or_default();
        AskError::Invalid(format!("the stored version of `{dag_id}` cannot be read: {first}"))
    })
}

/// Starts a run of `file` by hand; the run that has the name already, if there is one.
///
/// # Errors
/// `Invalid` for parameters, a time or a name that cannot be.
pub async fn trigger(
    control: &Control,
    file: &DagFile,
    asked: &Trigger,
    now: Timestamp,
) -> Result<RunKey, AskError> {
    let birth = birth_by_hand(file, asked, now)?;
    let dag = Arc::new(file.dag.clone());
    match control.create(&birth, &dag).await? {
        Created::New(_) => Ok(birth.key),
        Created::Existed(run) => Ok(run.birth.key),
    }
}

fn birth_by_hand(file: &DagFile, asked: &Trigger, now: Timestamp) -> Result<RunBirth, AskError> {
    let invalid = |why: String| AskError::Invalid(why);
    let params = file
        .resolve_params(&asked.params)
        .map_err(|all| invalid(all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    let date = match asked.logical_date.as_deref() {
        None => now,
        Some(text) => Timestamp::parse(text).ok_or_else(|| {
            invalid(format!("`{text}` is no time\nhint: 2026-01-31 or 2026-01-31T02:00:00Z"))
        })?,
    };
    let run_id = match &asked.run_id {
        Some(run_id) => free_for_people(run_id)?,
        None => format!("manual__{date}_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]),
    };
    let (data_interval_start, data_interval_end) = file.data_interval(date);
    Ok(RunBirth {
        key: RunKey {
            dag_id: file.dag.id.clone(),
            run_id: RunId::parse(&run_id).map_err(|e| invalid(e.to_string()))?,
        },
        dag_hash: file.dag.hash.clone(),
        run_type: RunType::Manual,
        logical_date: date,
        data_interval_start,
        data_interval_end,
        params: if params.is_empty() { "".into() } else { Value::Object(params).to_string().into() },
        queued_at: now,
    })
}

/// A name that a schedule or a backfill may give a run of its own is not for others: its run would be in the way.
fn free_for_people(run_id: &str) -> Result<String, AskError> {
    match RESERVED.iter().find(|prefix| run_id.starts_with(**prefix)) {
        None => Ok(run_id.to_owned()),
        Some(prefix) => Err(AskError::Invalid(format!(
            "the run_id `{run_id}` begins with `{prefix}`, which is kept for the runs of schedules and backfills\nhint: leave it out, or choose one such as `manual__{}`",
            &run_id[prefix.len()..]
        ))),
    }
}

/// Clears task instances: they run again, in the DAG version of their run unless the newest is asked for. Answers
/// with exactly those that were cleared, or would be.
///
/// # Errors
/// `NotFound` for the run or a task; `Invalid` if a run cannot be carried over to the newest version.
pub async fn clear(control: &Control, key: &RunKey, asked: &Selection) -> Result<Vec<Changed>, AskError> {
    let mut changed = Vec::new();
    let mut inputs = Vec::new();
    let newest = if asked.latest { Some(Arc::new(latest(control, &key.dag_id).await?.dag)) } else { None };
    for loaded in scope(control, key, asked).await? {
        if let Some(newest) = newest.as_ref().filter(|newest| newest.hash != loaded.dag.hash) {
            changed.extend(super::newest::clear(control, &loaded, newest, asked).await?);
            continue;
        }
        let tis = chosen(&loaded.dag, &loaded.run, asked)?;
        changed.extend(tis.iter().map(|&ti| describe(&loaded.dag, &loaded.run, ti)));
        if !tis.is_empty() {
            inputs.push((loaded.run.birth.key.clone(), Input::Clear { tis }));
        }
    }
    apply_all(control, asked, inputs).await?;
    Ok(changed)
}

/// The instances of a run of `dag` that a clear is about.
pub(super) fn chosen(dag: &Dag, run: &Run, asked: &Selection) -> Result<Vec<TiRef>, AskError> {
    let reach =
        Reach { upstream: asked.upstream, downstream: asked.downstream, only_failed: asked.only_failed };
    let tasks = tasks(dag, &asked.task_ids)?;
    let mut tis = select(dag, run, &tasks, reach);
    if let Some(only) = asked.map_index {
        tis.retain(|ti| !tasks.contains(&ti.task) || ti.map_index == only || ti.map_index == UNMAPPED);
    }
    Ok(tis)
}

/// Says how task instances ended. Answers with those that were marked, or would be.
///
/// # Errors
/// `NotFound` for the run or a task; `Invalid` for a state that cannot be said.
pub async fn mark(
    control: &Control,
    key: &RunKey,
    asked: &Selection,
    state: TaskState,
) -> Result<Vec<Changed>, AskError> {
    if !matches!(state, TaskState::Success | TaskState::Failed | TaskState::Skipped) {
        return Err(AskError::Invalid(format!(
            "a task cannot be marked `{state}`\nhint: success, failed or skipped"
        )));
    }
    let mut changed = Vec::new();
    let mut inputs = Vec::new();
    for loaded in scope(control, key, asked).await? {
        let mut chosen: std::collections::BTreeSet<_> =
            tasks(&loaded.dag, &asked.task_ids)?.into_iter().collect();
        for task in chosen.clone() {
            if asked.upstream {
                chosen.extend(loaded.dag.ancestors(task));
            }
            if asked.downstream {
                chosen.extend(loaded.dag.descendants(task));
            }
        }
        let wanted = |(ti, instance): &(TiRef, &crate::core::run::TaskInstance)| {
            chosen.contains(&ti.task)
                && asked.map_index.is_none_or(|only| ti.map_index == only)
                && instance.state != state
        };
        let tis: Vec<TiRef> = loaded.run.instances().filter(wanted).map(|(ti, _)| ti).collect();
        changed.extend(tis.iter().map(|&ti| describe(&loaded.dag, &loaded.run, ti)));
        if !tis.is_empty() {
            inputs.push((loaded.run.birth.key.clone(), Input::Mark { tis, state }));
        }
    }
    apply_all(control, asked, inputs).await?;
    Ok(changed)
}

/// Ends a run.
///
/// # Errors
/// `Refused` if it has ended.
pub async fn cancel(control: &Control, key: &RunKey) -> Result<(), AskError> {
    Ok(control.apply(key.clone(), Input::Cancel).await?)
}

async fn apply_all(
    control: &Control,
    asked: &Selection,
    inputs: Vec<(RunKey, Input)>,
) -> Result<(), AskError> {
    if asked.dry_run {
        return Ok(());
    }
    for (key, input) in inputs {
        control.apply(key, input).await?;
    }
    Ok(())
}

/// The run, and those before and after it as far as asked, in the order of their dates.
async fn scope(control: &Control, key: &RunKey, asked: &Selection) -> Result<Vec<Loaded>, AskError> {
    let named = loaded(control, key).await?;
    let mut keys = Vec::new();
    if asked.past || asked.future {
        let date = named.run.birth.logical_date;
        let filter = RunFilter { dag_id: Some(key.dag_id.clone()), state: None };
        for run in control.store().runs(&filter, RUNS_MAX).await? {
            let other = run.birth.logical_date;
            if run.birth.key != *key && ((asked.past && other < date) || (asked.future && other > date)) {
                keys.push((other, run.birth.key));
            }
        }
    }
    keys.push((named.run.birth.logical_date, key.clone()));
    keys.sort();
    let mut all = Vec::new();
    for (_, other) in keys {
        all.push(loaded(control, &other).await?);
    }
    Ok(all)
}

pub(super) async fn loaded(control: &Control, key: &RunKey) -> Result<Loaded, AskError> {
    load(control.store(), control.dags(), key)
        .await?
        .ok_or_else(|| AskError::NotFound(format!("the DAG `{}` has no run `{}`", key.dag_id, key.run_id)))
}

/// The tasks that were named; all, if none was.
pub(super) fn tasks(dag: &Dag, names: &[String]) -> Result<Vec<usize>, AskError> {
    if names.is_empty() {
        return Ok((0..dag.tasks().len()).collect());
    }
    let find = |name: &String| {
        let id = TaskId::parse(name).map_err(|e| AskError::Invalid(e.to_string()))?;
        dag.find(&id).ok_or_else(|| {
            let near = dag.tasks().iter().map(|task| task.id.as_str());
            let near = near.min_by_key(|id| strsim::damerau_levenshtein(id, name)).unwrap_or_default();
            AskError::NotFound(format!("`{}` has no task `{name}`\nhint: did you mean `{near}`?", dag.id))
        })
    };
    names.iter().map(find).collect()
}

pub(super) fn describe(dag: &Dag, run: &Run, ti: TiRef) -> Changed {
    let state = run.instance(ti).map_or(TaskState::None, |instance| instance.state);
    Changed {
        dag_id: dag.id.to_string(),
        run_id: run.birth.key.run_id.to_string(),
        task_id: dag.task(ti.task).id.to_string(),
        map_index: ti.map_index,
        state: state.to_string(),
    }
}
