//! Inputs of a step: reports of workers and wishes of people, each taken whole or refused whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::dag::TaskIx;
use super::ids::{Fence, SessionId, TaskId};
use super::mutant::{self, Mutant};
use super::reason::Reason;
use super::retry::{self, RetryDecision};
use super::run::{AlertKind, Input, Outcome, Outputs, Refusal, Severity, TiRef, UNMAPPED};
use super::state::{RunInput, TaskInput, TaskState, next};
use super::step::Step;

/// The loss of a worker at which its task is held to be the cause.
pub(super) const LOSSES_MAX: u32 = 3;

impl Step<'_> {
    pub(super) fn apply(&mut self, input: &Input) -> Result<(), Refusal> {
        match input {
            Input::Tick => Ok(()),
            Input::Claimed { ti, fence, session } => self.claimed(*ti, *fence, session),
            Input::Reported { ti, fence, outcome } => {
                self.check_fence(*ti, *fence, Mutant::ZombieReportTaken)?;
                self.reported(*ti, outcome);
                Ok(())
            }
            Input::Lost { ti, fence } => {
                self.check_fence(*ti, *fence, Mutant::RescueOverwrites)?;
                self.lost(*ti);
                Ok(())
            }
            Input::Clear { tis } => self.clear(tis),
            Input::Mark { tis, state } => self.mark(tis, *state),
            Input::Cancel => self.cancel(),
        }
    }

    fn claimed(&mut self, ti: TiRef, fence: Fence, session: &SessionId) -> Result<(), Refusal> {
        let instance = self.run.instance(ti).ok_or(Refusal::NoSuchInstance)?;
        if instance.fence == fence && instance.state == TaskState::Running {
            return Err(Refusal::AlreadyTaken);
        }
        if fence != instance.fence.next() {
            return Err(Refusal::StaleFence { given: fence, current: instance.fence });
        }
        legal(instance.state, TaskInput::Claimed)?;
        self.claim(ti, session.clone());
        Ok(())
    }

    /// A report is taken from the claim that stands and from no other. Under a fence that is current but
    /// not running, an outcome was taken before; under the first one of all there was no claim.
    fn check_fence(&self, ti: TiRef, given: Fence, unless: Mutant) -> Result<(), Refusal> {
        let instance = self.run.instance(ti).ok_or(Refusal::NoSuchInstance)?;
        if instance.fence != given && !mutant::is(unless) {
            return Err(Refusal::StaleFence { given, current: instance.fence });
        }
        if given == Fence::default() {
            return Err(Refusal::Illegal { state: instance.state, input: "reported on" });
        }
        if instance.state != TaskState::Running {
            if mutant::is(Mutant::RepeatedReportIsStale) {
                return Err(Refusal::StaleFence { given, current: instance.fence });
            }
            return Err(Refusal::AlreadyTaken);
        }
        Ok(())
    }

    fn reported(&mut self, ti: TiRef, outcome: &Outcome) {
        match outcome {
            Outcome::Succeeded(outputs) => self.succeeded(ti, outputs),
            Outcome::Branched { chosen, outputs } => self.branched(ti, chosen, outputs),
            Outcome::ShortCircuited { respect_trigger_rules, outputs } => {
                self.succeeded(ti, outputs);
                let skipped = if *respect_trigger_rules {
                    self.dag.downstream(ti.task).iter().copied().collect()
                } else {
                    self.dag.descendants(ti.task)
                };
                self.skip_by(ti.task, skipped);
            }
            Outcome::Skipped { why } => {
                self.shift(ti, TaskInput::Skipped, Reason::SkippedItself { why: why.clone() }, |_| {});
            }
            Outcome::Deferred { until } => {
                self.shift(ti, TaskInput::Deferred, Reason::Deferred, |instance| {
                    instance.try_number -= 1;
                    instance.resume_at = Some(*until);
                })
            }
            Outcome::Failed { error, severity } => self.failed(ti, error, *severity),
            Outcome::Interrupted => {
                self.shift(ti, TaskInput::Returned, Reason::Interrupted, |instance| {
                    instance.try_number -= 1;
                    instance.fence.0 -= i64::from(mutant::is(Mutant::FenceGoesBack));
                });
            }
        }
    }

    fn succeeded(&mut self, ti: TiRef, outputs: &Outputs) {
        if ti.map_index == UNMAPPED {
            self.remember_lists(ti.task, outputs);
        }
        if *outputs != Outputs::default() {
            self.decision.outputs.push((ti, outputs.clone()));
        }
        for sign in &outputs.signs {
            self.alert_task(sign.kind.into(), ti, sign.text.clone());
        }
        if !self.dag.task(ti.task).outlets.is_empty() {
            self.decision.published.push(ti);
        }
        self.shift(ti, TaskInput::Succeeded, Reason::Succeeded, |_| {});
    }

    /// The lists of this success take the place of those of an earlier one.
    fn remember_lists(&mut self, task: TaskIx, outputs: &Outputs) {
        let lists = &mut self.run.list_lengths;
        let first: (TaskIx, Arc<str>) = (task, "".into());
        let end: (TaskIx, Arc<str>) = (task + 1, "".into());
        let old: Vec<_> = lists.range(first..end).map(|(key, _)| key.clone()).collect();
        for key in old {
            lists.remove(&key);
        }
        lists.extend(outputs.list_lengths.iter().map(|(key, length)| ((task, key.clone()), *length)));
    }

    /// Children that are not chosen are skipped, unless a chosen one leads to them.
    fn branched(&mut self, ti: TiRef, chosen: &[TaskId], outputs: &Outputs) {
        let children = self.dag.downstream(ti.task);
        let mut kept = BTreeSet::new();
        for id in chosen {
            let Some(child) = self.dag.find(id).filter(|child| children.contains(child)) else {
                let error = format!("the branch chose `{id}`, which is not a direct downstream of it");
                return self.failed(ti, &error.into(), Severity::Permanent);
            };
            kept.insert(child);
            kept.extend(self.dag.descendants(child));
        }
        let skipped = children.iter().copied().filter(|child| !kept.contains(child)).collect();
        self.succeeded(ti, outputs);
        self.skip_by(ti.task, skipped);
    }

    /// Skips what has not begun, and stays skipped whatever the trigger rules say. Teardowns are left to
    /// their own rule.
    fn skip_by(&mut self, by: TaskIx, tasks: BTreeSet<TaskIx>) {
        let reason = Reason::NotChosen { by: self.dag.task(by).id.clone() };
        for task in tasks.into_iter().filter(|&task| !self.dag.task(task).is_teardown()) {
            let waiting = |state| {
                matches!(state, TaskState::None | TaskState::Scheduled)
                    || (mutant::is(Mutant::SkipOverwritesRunning) && state == TaskState::Running)
            };
            let all = self.run.tasks[task].iter(task);
            for ti in all.filter(|(_, it)| waiting(it.state)).map(|(ti, _)| ti).collect::<Vec<_>>() {
                self.shift(ti, TaskInput::Skipped, reason.clone(), |_| {});
            }
        }
    }

    fn failed(&mut self, ti: TiRef, error: &Arc<str>, severity: Severity) {
        let task = self.dag.task(ti.task);
        let try_number = self.instance(ti).try_number;
        let decision = match severity {
            Severity::Permanent | Severity::Blocked => RetryDecision::GiveUp,
            Severity::Retryable | Severity::TimedOut => {
                let salt = retry::salt(&self.run.birth.key, &task.id, ti.map_index);
                retry::after_failure(&task.retry, try_number, self.now, salt)
            }
        };
        match decision {
            RetryDecision::RetryAt(at) => {
                let tries_max = task.retry.retries.saturating_add(1);
                let reason = Reason::WillRetry { error: error.clone(), try_number, tries_max };
                self.shift(ti, TaskInput::Retried, reason, |instance| instance.resume_at = Some(at));
            }
            RetryDecision::GiveUp => {
                self.shift(ti, TaskInput::Failed, Reason::GaveUp { error: error.clone() }, |_| {});
                if !mutant::is(Mutant::GiveUpIsSilent) {
                    let is_gate = severity == Severity::Blocked;
                    let kind = if is_gate { AlertKind::GateBlocked } else { AlertKind::TaskFailed };
                    self.alert_task(kind, ti, error.clone());
                }
            }
        }
    }

    /// Losing a worker is not the task's fault: the attempt is put back, until it looks as if it were.
    fn lost(&mut self, ti: TiRef) {
        let fence = self.instance(ti).fence;
        let lost_count = self.instance(ti).lost_count + u32::from(!mutant::is(Mutant::LossIsNotCounted));
        let void = if mutant::is(Mutant::LossKeepsFence) { fence } else { fence.next() };
        self.decision.revoked.push((ti, fence));
        if lost_count >= LOSSES_MAX {
            self.shift(ti, TaskInput::Failed, Reason::Poisoned { lost_count }, |instance| {
                (instance.lost_count, instance.fence) = (lost_count, void);
            });
            let error = Reason::Poisoned { lost_count }.to_string().into();
            return self.alert_task(AlertKind::Poisoned, ti, error);
        }
        self.shift(ti, TaskInput::Returned, Reason::WorkerLost { lost_count }, |instance| {
            (instance.lost_count, instance.fence) = (lost_count, void);
            instance.try_number -= u32::from(!mutant::is(Mutant::LossIsCharged));
        });
    }

    fn clear(&mut self, tis: &[TiRef]) -> Result<(), Refusal> {
        self.check_all(tis)?;
        for &ti in tis {
            if self.instance(ti).state == TaskState::None {
                // In a run that has ended only a task that has just become part of it is `none`.
                self.reopen(Reason::Cleared);
                continue;
            }
            self.take_away(ti, TaskInput::Cleared, Reason::Cleared);
            self.forget_attempts(ti);
            self.reopen(Reason::Cleared);
        }
        Ok(())
    }

    fn mark(&mut self, tis: &[TiRef], state: TaskState) -> Result<(), Refusal> {
        self.check_all(tis)?;
        let input = match state {
            TaskState::Success => TaskInput::MarkedSuccess,
            TaskState::Failed => TaskInput::MarkedFailed,
            TaskState::Skipped => TaskInput::MarkedSkipped,
            TaskState::None
            | TaskState::Scheduled
            | TaskState::Queued
            | TaskState::Running
            | TaskState::Deferred
            | TaskState::UpForRetry
            | TaskState::UpstreamFailed
            | TaskState::Removed
            | TaskState::Cancelled => return Err(Refusal::NotAMark { state }),
        };
        for &ti in tis {
            if self.instance(ti).state != state {
                self.take_away(ti, input, Reason::Marked);
                if state == TaskState::Failed {
                    self.alert_task(AlertKind::TaskFailed, ti, Reason::Marked.to_string().into());
                }
                self.reopen(Reason::Marked);
            }
        }
        Ok(())
    }

    fn check_all(&self, tis: &[TiRef]) -> Result<(), Refusal> {
        if tis.iter().all(|&ti| self.run.instance(ti).is_some()) {
            Ok(())
        } else {
            Err(Refusal::NoSuchInstance)
        }
    }

    /// A final run is put back to `queued`; an active one keeps its place.
    fn reopen(&mut self, reason: Reason) {
        if self.run.state.is_final() {
            self.shift_run(RunInput::Reopened, reason);
        }
    }

    fn cancel(&mut self) -> Result<(), Refusal> {
        if self.run.state.is_final() {
            return Err(Refusal::RunIsFinal { state: self.run.state });
        }
        self.end_all(TaskInput::Cancelled, &Reason::Cancelled, |_| true);
        self.shift_run(RunInput::Cancelled, Reason::Cancelled);
        Ok(())
    }
}

fn legal(state: TaskState, input: TaskInput) -> Result<(), Refusal> {
    match next(state, input) {
        Ok(_) => Ok(()),
        Err(_) => Err(Refusal::Illegal { state, input: input.as_str() }),
    }
}
