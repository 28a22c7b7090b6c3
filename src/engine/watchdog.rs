//! Looks for what should have happened and did not: deadlines, workers that fell silent, runs that nothing drives.
//! What it finds it says; it repairs nothing but the last, by having the run looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::control::Control;
use crate::core::alert::{AlertEvent, AlertKind, ProblemKey, Trouble};
use crate::core::ids::{DagId, SessionId, Timestamp};
use crate::dagbag::DagFile;
use crate::store::{NumberedProblem, ProblemFilter, StoreError};

/// A run without a driver for so long is no coincidence.
const UNDRIVEN_AFTER: Duration = Duration::from_secs(60);
/// Rows that one look brings.
const ROWS_MAX: u32 = 200;

/// One look at everything; `files` are the DAGs of the files as they are now, `broken` the files that cannot be
/// used.
///
/// # Errors
/// Of the surroundings.
pub async fn look(
    control: &Control,
    files: &BTreeMap<DagId, Arc<DagFile>>,
    broken: &BTreeSet<String>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let mut events = Vec::new();
    deadlines(control, files, now, &mut events).await?;
    let silent = silent_workers(control, &mut events).await?;
    undriven(control, files, now, &mut events).await?;
    set_aside(control, files, &mut events);
    settled(control, broken, now, &mut events).await?;
    if !events.is_empty() {
        control.store().raise(&events, now).await?;
    }
    for session in silent {
        control.store().close_session(&session, control.store().now().await?).await?;
    }
    Ok(())
}

async fn deadlines(
    control: &Control,
    files: &BTreeMap<DagId, Arc<DagFile>>,
    now: Timestamp,
    events: &mut Vec<AlertEvent>,
) -> Result<(), StoreError> {
    for (dag_id, file) in files {
        let Some(deadline) = file.dag.settings.deadline else { continue };
        for run in control.store().unfinished_of(dag_id).await? {
            let due = run.birth.data_interval_end.max(run.birth.logical_date);
            let by = deadline.at(due, run.birth.queued_at);
            if by <= now {
                events.push(AlertEvent::Raised {
                    error: format!(
                        "run {} had to succeed by {by} and is `{}`",
                        run.birth.key.run_id, run.state
                    )
                    .into(),
                    trouble: Trouble::DeadlineMissed { run: run.birth.key },
                    routes: file.dag.settings.alerts.clone(),
                });
            }
        }
    }
    Ok(())
}

/// A worker that fell silent is trouble until what it held has been taken from it; then its session is closed.
async fn silent_workers(
    control: &Control,
    events: &mut Vec<AlertEvent>,
) -> Result<Vec<crate::core::ids::SessionId>, StoreError> {
    let mut over = Vec::new();
    for session in control.store().silent_sessions(control.store().now().await?, ROWS_MAX).await? {
        let trouble = Trouble::WorkerLost { session: session.session.clone() };
        events.push(AlertEvent::Raised {
            error: format!(
                "nothing was heard of it since its lease ran out at {}; {} attempts are taken from it",
                session.lease_until, session.running
            )
            .into(),
            trouble: trouble.clone(),
            routes: Vec::new(),
        });
        if session.running == 0 {
            events.push(AlertEvent::Over { trouble });
            over.push(session.session);
        } else {
            control.poll().await;
        }
    }
    Ok(over)
}

async fn undriven(
    control: &Control,
    files: &BTreeMap<DagId, Arc<DagFile>>,
    now: Timestamp,
    events: &mut Vec<AlertEvent>,
) -> Result<(), StoreError> {
    for key in control.store().undriven_runs(now.minus(UNDRIVEN_AFTER), ROWS_MAX).await? {
        tracing::error!(dag = %key.dag_id, run = %key.run_id, "nothing drives this run; it is looked at now");
        events.push(AlertEvent::Raised {
            trouble: Trouble::ScheduleStalled { dag_id: key.dag_id.clone() },
            error: format!("nothing drives run {}", key.run_id).into(),
            routes: files.get(&key.dag_id).map(|file| file.dag.settings.alerts.clone()).unwrap_or_default(),
        });
        control.wake(key).await;
    }
    Ok(())
}

/// A run that this process cannot drive is no better than one that nobody drives.
fn set_aside(control: &Control, files: &BTreeMap<DagId, Arc<DagFile>>, events: &mut Vec<AlertEvent>) {
    for (key, why) in control.set_aside() {
        events.push(AlertEvent::Raised {
            error: format!("run {} does not get on: {why}", key.run_id).into(),
            routes: files.get(&key.dag_id).map(|file| file.dag.settings.alerts.clone()).unwrap_or_default(),
            trouble: Trouble::ScheduleStalled { dag_id: key.dag_id },
        });
    }
}

/// Trouble that is over, whoever raised it: this process, another, or one that is no more.
async fn settled(
    control: &Control,
    broken: &BTreeSet<String>,
    now: Timestamp,
    events: &mut Vec<AlertEvent>,
) -> Result<(), StoreError> {
    let raised = |event: &AlertEvent| match event {
        AlertEvent::Raised { trouble, .. } | AlertEvent::Over { trouble } => trouble.key(),
    };
    let seen: BTreeSet<ProblemKey> = events.iter().map(raised).collect();
    for NumberedProblem { problem, .. } in control.store().problems(ProblemFilter::Open, ROWS_MAX).await? {
        if seen.contains(&problem.key) {
            continue;
        }
        let subject = problem.key.subject;
        let trouble = match (problem.key.kind, problem.key.dag_id) {
            (AlertKind::ScheduleStalled, Some(dag_id)) => {
                let row = control.store().dag(&dag_id).await?.filter(|row| row.present && !row.paused);
                let is_late = row.and_then(|row| row.next_fire).is_some_and(|at| at <= now);
                (!is_late).then_some(Trouble::ScheduleStalled { dag_id })
            }
            (AlertKind::WorkerLost, _) => {
                let session = subject.and_then(|text| SessionId::parse(&text).ok());
                session.map(|session| Trouble::WorkerLost { session })
            }
            (AlertKind::ImportError, _) => {
                let mended = subject.filter(|file| !broken.contains(&**file));
                mended.map(|file| Trouble::ImportError { file })
            }
            (
                AlertKind::ScheduleStalled
                | AlertKind::RunFailed
                | AlertKind::TaskFailed
                | AlertKind::Poisoned
                | AlertKind::GateBlocked
                | AlertKind::Anomaly
                | AlertKind::Shift
                | AlertKind::DeadlineMissed,
                _,
            ) => None,
        };
        events.extend(trouble.map(|trouble| AlertEvent::Over { trouble }));
    }
    Ok(())
}
