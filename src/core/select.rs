//! Which task instances of a run a person means: by task, with all before or after them, or only the failed.

use std::collections::BTreeSet;

use super::dag::{Dag, TaskIx};
use super::index::each;
use super::run::{Run, TiRef};
use super::state::TaskState;

/// What a person said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// These tasks; none means all.
    pub tasks: BTreeSet<TaskIx>,
    /// And all that come before them.
    pub upstream: bool,
    /// And all that come after them.
    pub downstream: bool,
    /// Of all these only instances that are `failed` or `upstream_failed`.
    pub only_failed: bool,
}

/// The instances meant, in ascending order; `removed` ones are left out.
#[must_use]
pub fn select(dag: &Dag, run: &Run, selection: &Selection) -> Vec<TiRef> {
    let mut tasks = selection.tasks.clone();
    if tasks.is_empty() {
        tasks.extend(0..dag.tasks().len());
    }
    for &task in &selection.tasks {
        if selection.upstream {
            tasks.extend(dag.ancestors(task));
        }
        if selection.downstream {
            tasks.extend(dag.descendants(task));
        }
    }
    let meant = |state: TaskState| match state {
        TaskState::Removed => false,
        TaskState::Failed | TaskState::UpstreamFailed => true,
        TaskState::None
        | TaskState::Scheduled
        | TaskState::Queued
        | TaskState::Running
        | TaskState::Deferred
        | TaskState::UpForRetry
        | TaskState::Success
        | TaskState::Skipped
        | TaskState::Cancelled => !selection.only_failed,
    };
    let instances = |task: TaskIx| each(&run.tasks[task]).map(move |(map_index, i)| (map_index, i.state));
    tasks
        .into_iter()
        .flat_map(|task| {
            instances(task)
                .filter(|(_, state)| meant(*state))
                .map(move |(map_index, _)| TiRef { task, map_index })
        })
        .collect()
}
