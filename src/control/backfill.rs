//! Backfills: past intervals of a DAG's own schedule, each as a run, planned first.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Control;
use super::ask::{AskError, loaded};
use crate::core::dag::Task;
use crate::core::ids::{RunId, RunKey, Timestamp};
use crate::core::run::{Input, RunBirth, RunType};
use crate::core::state::RunState;
use crate::core::timetable::Fire;
use crate::dagbag::DagFile;
use crate::store::{Backfill, RunFilter, RunSummary};

/// Intervals that one backfill may have.
const RUNS_MAX: usize = 10_000;
/// Runs of the DAG that are looked at for intervals that have one.
const LOOKED_AT_MAX: u32 = 1_000_000;

/// What becomes of intervals that have a run already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reprocess {
    /// They are left as they are.
    #[default]
    None,
    /// Failed and cancelled ones run again.
    Failed,
    /// All that have ended run again.
    Completed,
}

/// Run past intervals.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackfillAsked {
    /// The first instant, included.
    pub from: String,
    /// The last instant, included.
    pub to: String,
    /// What becomes of intervals that have a run already.
    #[serde(default)]
    pub reprocess: Reprocess,
    /// Its runs at once.
    pub max_active_runs: u32,
    /// The newest interval first.
    #[serde(default)]
    pub backwards: bool,
    /// Parameters of the runs.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// One interval of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// The run.
    pub run_id: String,
    /// The moment it stands for.
    pub logical_date: String,
    /// `create`, `clear` or `leave`.
    pub action: String,
    /// The state of the run that is there already.
    pub state: Option<String>,
}

/// Plans a backfill of `file`, and does it unless only the plan was asked for.
///
/// # Errors
/// `Invalid` for times, limits or parameters that cannot be, and if the schedule has no instant between them.
pub async fn backfill(
    control: &Control,
    file: &DagFile,
    asked: &BackfillAsked,
    now: Timestamp,
) -> Result<Vec<Planned>, AskError> {
    let fires = fires(file, asked)?;
    let params = file.resolve_params(&asked.params).map_err(|all| {
        AskError::Invalid(all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })?;
    let params: Arc<str> =
        if params.is_empty() { "".into() } else { Value::Object(params).to_string().into() };
    let filter = RunFilter { dag_id: Some(file.dag.id.clone()), state: None };
    let runs = control.store().runs(&filter, LOOKED_AT_MAX).await?;
    let there: BTreeMap<Timestamp, RunSummary> =
        runs.into_iter().map(|run| (run.birth.logical_date, run)).collect();
    let (mut plan, mut births, mut again) = (Vec::new(), Vec::new(), Vec::new());
    for fire in &fires {
        let Some(run) = there.get(&fire.logical_date) else {
            let birth = birth(file, fire, params.clone(), now);
            plan.push(planned(&birth.key, fire, "create", None));
            births.push(birth);
            continue;
        };
        let repeat = match asked.reprocess {
            Reprocess::None => false,
            Reprocess::Failed => matches!(run.state, RunState::Failed | RunState::Cancelled),
            Reprocess::Completed => run.state.is_final(),
        };
        plan.push(planned(&run.birth.key, fire, if repeat { "clear" } else { "leave" }, Some(run.state)));
        if repeat {
            again.push(run.birth.key.clone());
        }
    }
    if !asked.dry_run {
        carry_out(control, file, asked, (births, again), now).await?;
    }
    Ok(plan)
}

fn fires(file: &DagFile, asked: &BackfillAsked) -> Result<Vec<Fire>, AskError> {
    let time = |what: &str, text: &str| {
        Timestamp::parse(text).ok_or_else(|| {
            AskError::Invalid(format!(
                "{what} is `{text}`, which is no time\nhint: 2026-01-31 or 2026-01-31T02:00:00Z"
            ))
        })
    };
    let (from, to) = (time("the beginning", &asked.from)?, time("the end", &asked.to)?);
    if to < from {
        return Err(AskError::Invalid(format!("the end {to} is before the beginning {from}")));
    }
    if asked.max_active_runs == 0 {
        return Err(AskError::Invalid("with no active run at once nothing would ever run".to_owned()));
    }
    let looks_back = |task: &Task| task.depends_on_past || task.wait_for_downstream;
    if asked.backwards
        && let Some(task) = file.dag.tasks().iter().find(|task| looks_back(task))
    {
        return Err(AskError::Invalid(format!(
            "the task `{}` depends on the run before, so the newest interval cannot begin\nhint: backfill forwards",
            task.id
        )));
    }
    let mut fires: Vec<Fire> = file.schedule().fires(from, to).take(RUNS_MAX + 1).collect();
    if fires.len() > RUNS_MAX {
        return Err(AskError::Invalid(format!(
            "the schedule has more than {RUNS_MAX} instants from {from} to {to}\nhint: backfill in parts"
        )));
    }
    if fires.is_empty() {
        return Err(AskError::Invalid(format!(
            "there is nothing to backfill: the schedule of `{}` ({}) has no instant from {from} to {to}",
            file.dag.id,
            file.schedule().describe()
        )));
    }
    if asked.backwards {
        fires.reverse();
    }
    Ok(fires)
}

fn birth(file: &DagFile, fire: &Fire, params: Arc<str>, now: Timestamp) -> RunBirth {
    let run_id = RunId::parse(&format!("backfill__{}", fire.logical_date)).expect("a time makes a valid id");
    RunBirth {
        key: RunKey { dag_id: file.dag.id.clone(), run_id },
        dag_hash: file.dag.hash.clone(),
        run_type: RunType::Backfill,
        logical_date: fire.logical_date,
        data_interval_start: fire.data_interval_start,
        data_interval_end: fire.data_interval_end,
        params,
        queued_at: now,
    }
}

fn planned(key: &RunKey, fire: &Fire, action: &str, state: Option<RunState>) -> Planned {
    Planned {
        run_id: key.run_id.to_string(),
        logical_date: fire.logical_date.to_string(),
        action: action.to_owned(),
        state: state.map(|state| state.to_string()),
    }
}

async fn carry_out(
    control: &Control,
    file: &DagFile,
    asked: &BackfillAsked,
    (births, again): (Vec<RunBirth>, Vec<RunKey>),
    now: Timestamp,
) -> Result<(), AskError> {
    let backfill = Backfill {
        id: format!("{}__{now}", file.dag.id),
        dag_id: file.dag.id.clone(),
        max_active_runs: asked.max_active_runs,
        backwards: asked.backwards,
    };
    if !births.is_empty() {
        control.store().create_backfill(&backfill, &births, &file.dag, now).await?;
        control.poll().await;
    }
    for key in again {
        let run = loaded(control, &key).await?;
        let tis = run.run.instances().map(|(ti, _)| ti).collect();
        control.apply(key, Input::Clear { tis }).await?;
    }
    Ok(())
}
