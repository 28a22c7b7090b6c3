//! Which task instances of a run a clear is about. Pure selection; other runs (past, future) are the caller's.

use std::collections::BTreeSet;

use super::dag::{Dag, TaskIx};
use super::run::{Run, TiRef};
use super::state::TaskState;

/// How far a selection reaches from the tasks named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reach {
    /// Also everything before them.
    pub upstream: bool,
    /// Also everything after them.
    pub downstream: bool,
    /// Of all that, only what failed: `failed`, `upstream_failed`, `cancelled`.
    pub only_failed: bool,
}

/// The instances of `tasks`, as far as `reach` goes, in ascending order. Instances that are `none` are left
/// out: there is nothing to clear.
///
/// With a task come the setups it needs and their teardowns: work is not repeated on what has been cleaned up.
#[must_use]
pub fn select(dag: &Dag, run: &Run, tasks: &[TaskIx], reach: Reach) -> Vec<TiRef> {
    let mut chosen: BTreeSet<TaskIx> = tasks.iter().copied().collect();
    for &task in tasks {
        if reach.upstream {
            chosen.extend(dag.ancestors(task));
        }
        if reach.downstream {
            chosen.extend(dag.descendants(task));
        }
    }
    let wanted = |state: TaskState| match state {
        TaskState::None => false,
        TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled => true,
        TaskState::Scheduled
        | TaskState::Queued
        | TaskState::Running
        | TaskState::Deferred
        | TaskState::UpForRetry
        | TaskState::Success
        | TaskState::Skipped
        | TaskState::Removed => !reach.only_failed,
    };
    let instances = |task: TaskIx| run.tasks[task].iter(task);
    let mut selected: BTreeSet<TiRef> = BTreeSet::new();
    let mut scopes = BTreeSet::new();
    for &task in &chosen {
        let before = selected.len();
        selected.extend(instances(task).filter(|(_, it)| wanted(it.state)).map(|(ti, _)| ti));
        if selected.len() > before {
            scopes.extend(dag.needed_setups(task).iter().copied());
        }
    }
    let cleans = |task: TaskIx| dag.task(task).teardown_for.iter().any(|setup| scopes.contains(setup));
    let teardowns = (0..dag.tasks().len()).filter(|&task| cleans(task));
    for task in scopes.iter().copied().chain(teardowns) {
        selected.extend(instances(task).filter(|(_, it)| it.state != TaskState::None).map(|(ti, _)| ti));
    }
    selected.into_iter().collect()
}
