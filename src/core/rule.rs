//! The twelve trigger rules and that of teardowns, as a function of how many upstream instances ended how.

use super::dag::TriggerRule;
use super::state::TaskState;

/// How the instances of a task's direct upstreams stand. `removed` ones are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Not final.
    pub unfinished: u32,
    /// `success`
    pub success: u32,
    /// `failed` or `cancelled`
    pub failed: u32,
    /// `upstream_failed`
    pub upstream_failed: u32,
    /// `skipped`
    pub skipped: u32,
}

impl Tally {
    /// Counts an instance in, or out again.
    pub(super) fn count(&mut self, state: TaskState, by: i32) {
        let place = match state {
            TaskState::None
            | TaskState::Scheduled
            | TaskState::Queued
            | TaskState::Running
            | TaskState::Deferred
            | TaskState::UpForRetry => &mut self.unfinished,
            TaskState::Success => &mut self.success,
            TaskState::Failed | TaskState::Cancelled => &mut self.failed,
            TaskState::UpstreamFailed => &mut self.upstream_failed,
            TaskState::Skipped => &mut self.skipped,
            TaskState::Removed => return,
        };
        *place = place.checked_add_signed(by).expect("an instance is counted in before it is counted out");
    }

    fn bad(self) -> u32 {
        self.failed + self.upstream_failed
    }

    fn done(self) -> bool {
        self.unfinished == 0
    }

    fn all(self) -> u32 {
        self.unfinished + self.success + self.failed + self.upstream_failed + self.skipped
    }
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Wait,
    /// It runs.
    Run,
    /// It is skipped.
    Skip,
    /// It is `upstream_failed`.
    Fail,
}

/// Judges a rule; the verdict is given as soon as no later end of an upstream can change it. A task without
/// upstreams runs under every rule.
#[must_use]
pub fn judge(rule: TriggerRule, t: Tally) -> Verdict {
    use Verdict::{Fail, Run, Skip, Wait};
    if t.all() == 0 {
        return Run;
    }
    let when_done = |verdict| if t.done() { verdict } else { Wait };
    match rule {
        TriggerRule::AllSuccess if t.bad() > 0 => Fail,
        TriggerRule::AllSuccess if t.skipped > 0 => when_done(Skip),
        TriggerRule::AllFailed if t.success + t.skipped > 0 => Skip,
        TriggerRule::AllSkipped if t.success + t.bad() > 0 => Skip,
        TriggerRule::AllSuccess | TriggerRule::AllFailed | TriggerRule::AllSkipped | TriggerRule::AllDone => {
            when_done(Run)
        }
        TriggerRule::OneSuccess if t.success > 0 => Run,
        TriggerRule::OneSuccess => when_done(if t.bad() == 0 { Skip } else { Fail }),
        TriggerRule::OneFailed if t.bad() > 0 => Run,
        TriggerRule::OneDone if t.success + t.failed > 0 => Run,
        TriggerRule::OneFailed | TriggerRule::OneDone => when_done(Skip),
        TriggerRule::NoneFailed | TriggerRule::NoneFailedMinOneSuccess if t.bad() > 0 => Fail,
        TriggerRule::NoneFailed => when_done(Run),
        TriggerRule::NoneFailedMinOneSuccess => when_done(if t.success > 0 { Run } else { Skip }),
        TriggerRule::NoneSkipped | TriggerRule::AllDoneMinOneSuccess if t.skipped > 0 => Skip,
        TriggerRule::NoneSkipped => when_done(Run),
        TriggerRule::AllDoneMinOneSuccess => when_done(if t.success > 0 { Run } else { Fail }),
        TriggerRule::Always => Run,
    }
}

/// Judges a teardown: all its upstreams must be final, and one of its setups must have succeeded.
#[must_use]
pub fn judge_teardown(upstreams: Tally, setups: Tally) -> Verdict {
    if !upstreams.done() {
        Verdict::Wait
    } else if setups.success > 0 {
        Verdict::Run
    } else if setups.bad() == 0 {
        Verdict::Skip
    } else {
        Verdict::Fail
    }
}
