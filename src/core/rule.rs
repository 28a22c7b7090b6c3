//! Trigger rules: what the outcomes of the direct upstreams say about a task. Counts in, a verdict out, as
//! soon as it is certain.

use super::dag::{Dag, TaskIx, TriggerRule};
use super::ids::TaskId;
use super::mutant::{self, Mutant};
use super::reason::Reason;
use super::run::Run;
use super::state::TaskState;

/// How many instances stand where. `removed` ones are not counted at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) open: u32,
    pub(super) success: u32,
    /// `failed` and `cancelled`.
    pub(super) failed: u32,
    pub(super) upstream_failed: u32,
    pub(super) skipped: u32,
}

impl Counts {
    /// The count that an instance in `state` belongs to.
    pub(super) fn of(&mut self, state: TaskState) -> Option<&mut u32> {
        match state {
            TaskState::None
            | TaskState::Scheduled
            | TaskState::Queued
            | TaskState::Running
            | TaskState::Deferred
            | TaskState::UpForRetry => Some(&mut self.open),
            TaskState::Success => Some(&mut self.success),
            TaskState::Failed | TaskState::Cancelled => Some(&mut self.failed),
            TaskState::UpstreamFailed => Some(&mut self.upstream_failed),
            TaskState::Skipped => Some(&mut self.skipped),
            TaskState::Removed => None,
        }
    }

    pub(super) fn bad(self) -> u32 {
        self.failed + self.upstream_failed
    }

    pub(super) fn add(&mut self, other: Self) {
        self.open += other.open;
        self.success += other.success;
        self.failed += other.failed;
        self.upstream_failed += other.upstream_failed;
        self.skipped += other.skipped;
    }

    fn total(self) -> u32 {
        self.open + self.success + self.skipped + self.bad()
    }
}

/// What is to become of a task that has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Wait,
    Run,
    Skip,
    UpstreamFailed,
}

/// Judges the instances of `task` that are `none`.
///
/// A teardown has a rule of its own. Any other task first needs the setups of the scopes it stands in: one
/// that failed or was skipped decides, and one that is open makes it wait, whatever its trigger rule.
pub(super) fn judge(dag: &Dag, run: &Run, task: TaskIx) -> Verdict {
    let up = run.index.upstream(task);
    if dag.task(task).is_teardown() {
        return teardown(up, setups(run, &dag.task(task).teardown_for));
    }
    let setups = setups(run, dag.needed_setups(task));
    let verdict = by_rule(dag.task(task).trigger_rule, up);
    if setups.bad() > 0 {
        Verdict::UpstreamFailed
    } else if setups.skipped > 0 {
        Verdict::Skip
    } else if setups.open > 0 && verdict == Verdict::Run {
        Verdict::Wait
    } else {
        verdict
    }
}

fn setups(run: &Run, setups: &[TaskIx]) -> Counts {
    let mut sum = Counts::default();
    for &setup in setups {
        sum.add(run.index.own(setup));
    }
    sum
}

fn teardown(up: Counts, setups: Counts) -> Verdict {
    match () {
        () if up.open > 0 => Verdict::Wait,
        () if setups.success > 0 => Verdict::Run,
        () if setups.bad() > 0 => Verdict::UpstreamFailed,
        () => Verdict::Skip,
    }
}

/// The table of dag-files, section 5. Without upstreams every rule is satisfied. A skip does not wait for
/// upstreams that might yet fail, as in Airflow: the task cannot run any more.
fn by_rule(rule: TriggerRule, up: Counts) -> Verdict {
    use Verdict::{Run, Skip, UpstreamFailed, Wait};
    let done = up.open == 0;
    if up.total() == 0 {
        return Run;
    }
    let when_done = |verdict| if done { verdict } else { Wait };
    match rule {
        TriggerRule::AllSuccess if up.bad() > 0 => UpstreamFailed,
        TriggerRule::AllSuccess if up.skipped > 0 && !mutant::is(Mutant::SkippedIsSuccess) => Skip,
        TriggerRule::AllSuccess => when_done(Run),
        TriggerRule::AllFailed if up.success + up.skipped > 0 => Skip,
        TriggerRule::AllFailed => when_done(Run),
        TriggerRule::AllDone if mutant::is(Mutant::OpenUpstreamIgnored) && up.open < up.total() => Run,
        TriggerRule::AllDone => when_done(Run),
        TriggerRule::AllSkipped if up.success + up.bad() > 0 => Skip,
        TriggerRule::AllSkipped => when_done(Run),
        TriggerRule::OneSuccess if up.success > 0 => Run,
        TriggerRule::OneSuccess if up.bad() == 0 => when_done(Skip),
        TriggerRule::OneSuccess => when_done(UpstreamFailed),
        TriggerRule::OneFailed if up.bad() > 0 => Run,
        TriggerRule::OneFailed => when_done(Skip),
        TriggerRule::OneDone if up.success + up.failed > 0 => Run,
        TriggerRule::OneDone => when_done(Skip),
        TriggerRule::NoneFailed if up.bad() > 0 => UpstreamFailed,
        TriggerRule::NoneFailed => when_done(Run),
        TriggerRule::NoneFailedMinOneSuccess if up.bad() > 0 => UpstreamFailed,
        TriggerRule::NoneFailedMinOneSuccess if up.success == 0 => when_done(Skip),
        TriggerRule::NoneFailedMinOneSuccess => when_done(Run),
        TriggerRule::NoneSkipped | TriggerRule::AllDoneMinOneSuccess if up.skipped > 0 => Skip,
        TriggerRule::NoneSkipped => when_done(Run),
        TriggerRule::AllDoneMinOneSuccess if up.success == 0 => when_done(UpstreamFailed),
        TriggerRule::AllDoneMinOneSuccess => when_done(Run),
        TriggerRule::Always => Run,
    }
}

/// The reason of a verdict against running: the rule, and the first upstream that speaks for it.
pub(super) fn reason(dag: &Dag, run: &Run, task: TaskIx, verdict: Verdict) -> Reason {
    let it = dag.task(task);
    let decided = |&up: &TaskIx| {
        let own = run.index.own(up);
        match verdict {
            Verdict::UpstreamFailed => own.bad() > 0,
            Verdict::Skip if it.trigger_rule == TriggerRule::AllSkipped => own.success + own.bad() > 0,
            Verdict::Skip if it.trigger_rule == TriggerRule::AllFailed => own.success + own.skipped > 0,
            Verdict::Skip => own.skipped > 0,
            Verdict::Wait | Verdict::Run => false,
        }
    };
    let mut candidates = dag.needed_setups(task).iter().chain(dag.upstream(task));
    let upstream: Option<TaskId> = candidates.find(|up| decided(up)).map(|&up| dag.task(up).id.clone());
    let rule = if it.is_teardown() { TEARDOWN_RULE } else { it.trigger_rule.as_str() };
    Reason::Rule { rule, upstream }
}

/// What the rule of teardowns is called, after Airflow.
const TEARDOWN_RULE: &str = "all_done_setup_success";
