//! The rules once more, in the plainest words there are and without a look at the core's: what a trigger rule
//! says about lists of states, and what a run's state must be. Slow, and easy to believe.

use crate::core::dag::{Dag, Expand, TaskIx, TriggerRule};
use crate::core::run::Instances;
use crate::core::state::TaskState;

/// What is to become of a task that has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Wait,
    Run,
    Skip,
    UpstreamFailed,
}

fn states_of(tasks: &[Instances], task: TaskIx) -> impl Iterator<Item = TaskState> {
    tasks[task].iter(task).map(|(_, it)| it.state).filter(|&state| state != TaskState::Removed)
}

fn has_failed(state: TaskState) -> bool {
    matches!(state, TaskState::Failed | TaskState::Cancelled)
}

fn is_bad(state: TaskState) -> bool {
    has_failed(state) || state == TaskState::UpstreamFailed
}

fn is_open(state: TaskState) -> bool {
    !state.is_final()
}

/// What the rule of `task` says in a run whose instances stand so.
pub(super) fn verdict(dag: &Dag, tasks: &[Instances], task: TaskIx) -> Verdict {
    let upstream: Vec<TaskState> = dag.upstream(task).iter().flat_map(|&up| states_of(tasks, up)).collect();
    let it = dag.task(task);
    if it.is_teardown() {
        let setups: Vec<_> = it.teardown_for.iter().flat_map(|&setup| states_of(tasks, setup)).collect();
        return if upstream.iter().copied().any(is_open) {
            Verdict::Wait
        } else if setups.contains(&TaskState::Success) {
            Verdict::Run
        } else if setups.iter().copied().any(is_bad) {
            Verdict::UpstreamFailed
        } else {
            Verdict::Skip
        };
    }
    let setups: Vec<_> = dag.needed_setups(task).iter().flat_map(|&setup| states_of(tasks, setup)).collect();
    if setups.iter().copied().any(is_bad) {
        return Verdict::UpstreamFailed;
    }
    if setups.contains(&TaskState::Skipped) {
        return Verdict::Skip;
    }
    let verdict = by_rule(it.trigger_rule, &upstream);
    if verdict == Verdict::Run && setups.iter().copied().any(is_open) { Verdict::Wait } else { verdict }
}

fn by_rule(rule: TriggerRule, upstream: &[TaskState]) -> Verdict {
    if upstream.is_empty() {
        return Verdict::Run;
    }
    let one = |kind: fn(TaskState) -> bool| upstream.iter().copied().any(kind);
    let success = upstream.contains(&TaskState::Success);
    let skipped = upstream.contains(&TaskState::Skipped);
    let done = !one(is_open);
    let when_done = |verdict| if done { verdict } else { Verdict::Wait };
    let otherwise = |stop: bool, verdict: Verdict| if stop { verdict } else { when_done(Verdict::Run) };
    match rule {
        TriggerRule::AllSuccess if one(is_bad) => Verdict::UpstreamFailed,
        TriggerRule::AllSuccess => otherwise(skipped, Verdict::Skip),
        TriggerRule::AllFailed => otherwise(success || skipped, Verdict::Skip),
        TriggerRule::AllDone => when_done(Verdict::Run),
        TriggerRule::AllSkipped => otherwise(success || one(is_bad), Verdict::Skip),
        TriggerRule::OneSuccess if success => Verdict::Run,
        TriggerRule::OneSuccess if one(is_bad) => when_done(Verdict::UpstreamFailed),
        TriggerRule::OneSuccess => when_done(Verdict::Skip),
        TriggerRule::OneFailed if one(is_bad) => Verdict::Run,
        TriggerRule::OneFailed => when_done(Verdict::Skip),
        TriggerRule::OneDone if success || one(has_failed) => Verdict::Run,
        TriggerRule::OneDone => when_done(Verdict::Skip),
        TriggerRule::NoneFailed => otherwise(one(is_bad), Verdict::UpstreamFailed),
        TriggerRule::NoneFailedMinOneSuccess if one(is_bad) => Verdict::UpstreamFailed,
        TriggerRule::NoneFailedMinOneSuccess => when_done(if success { Verdict::Run } else { Verdict::Skip }),
        TriggerRule::NoneSkipped => otherwise(skipped, Verdict::Skip),
        TriggerRule::AllDoneMinOneSuccess if skipped => Verdict::Skip,
        TriggerRule::AllDoneMinOneSuccess => {
            when_done(if success { Verdict::Run } else { Verdict::UpstreamFailed })
        }
        TriggerRule::Always => Verdict::Run,
    }
}

/// Whether the list that `task` is mapped over may still become known.
pub(super) fn list_is_open(dag: &Dag, tasks: &[Instances], task: TaskIx) -> bool {
    match &dag.task(task).expand {
        Some(Expand::Output { task: source, .. }) => states_of(tasks, *source).any(is_open),
        Some(Expand::Fixed(_)) | None => false,
    }
}

/// Whether a run whose instances are all final has failed.
pub(super) fn run_failed(dag: &Dag, tasks: &[Instances]) -> bool {
    let bad = |task: &TaskIx| states_of(tasks, *task).any(is_bad);
    let failed_work =
        |task: &TaskIx| !dag.task(*task).is_teardown() && states_of(tasks, *task).any(has_failed);
    let all = 0..dag.tasks().len();
    all.clone().filter(|&task| dag.is_leaf(task)).any(|task| bad(&task))
        || (dag.settings.fail_fast && all.clone().any(|task| failed_work(&task)))
}
