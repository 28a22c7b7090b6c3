//! What an input changes by itself. What follows from it for other tasks is [`super::plan`]'s.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::dag::TaskIx;
use super::ids::{Fence, SessionId, TaskId};
use super::index::each;
use super::retry::{RetryDecision, after_failure, salt};
use super::run::{Alert, AlertKind, Input, Outcome, Outputs, Reason, Refusal, Severity, TiRef};
use super::state::{RunState, TaskInput, TaskState};
use super::step::Stepper;

/// How often an attempt may lose its worker before it is given up.
pub const LOST_MAX: u32 = 3;

/// Applies one input.
pub(super) fn input(s: &mut Stepper<'_>, input: &Input) -> Result<(), Refusal> {
    match input {
        Input::Tick => Ok(()),
        Input::Claimed { ti, fence, session } => claimed(s, *ti, *fence, session),
        Input::Reported { ti, fence, outcome } => {
            holds(s, *ti, *fence)?;
            reported(s, *ti, outcome)
        }
        Input::Lost { ti, fence } => {
            holds(s, *ti, *fence)?;
            lost(s, *ti);
            Ok(())
        }
        Input::Clear { tis } => clear(s, tis),
        Input::Mark { tis, state } => mark(s, tis, *state),
        Input::Cancel => cancel(s),
    }
}

/// Whether `fence` is the live claim of a running instance.
fn holds(s: &Stepper<'_>, ti: TiRef, fence: Fence) -> Result<(), Refusal> {
    let instance = s.get(ti).ok_or(Refusal::NoSuchInstance)?;
    if instance.fence != fence {
        return Err(Refusal::StaleFence { given: fence, current: instance.fence });
    }
    if instance.state != TaskState::Running {
        return Err(Refusal::AlreadyTaken);
    }
    Ok(())
}

fn claimed(s: &mut Stepper<'_>, ti: TiRef, fence: Fence, session: &SessionId) -> Result<(), Refusal> {
    let instance = s.get(ti).ok_or(Refusal::NoSuchInstance)?;
    if fence != instance.fence.next() {
        return Err(Refusal::StaleFence { given: fence, current: instance.fence });
    }
    claim(s, ti, session)
}

/// A worker takes a queued instance: the fence and the attempt rise.
pub(super) fn claim(s: &mut Stepper<'_>, ti: TiRef, session: &SessionId) -> Result<(), Refusal> {
    let now = s.now;
    s.change(ti, TaskInput::Claimed, Reason::Claimed, |i| {
        i.fence = i.fence.next();
        i.try_number += 1;
        i.started_at = Some(now);
        i.session = Some(session.clone());
    })
}

fn reported(s: &mut Stepper<'_>, ti: TiRef, outcome: &Outcome) -> Result<(), Refusal> {
    match outcome {
        Outcome::Succeeded(outputs) => succeed(s, ti, outputs),
        Outcome::Branched { chosen, outputs } => {
            let strangers = chosen.iter().find(|id| !is_direct_downstream(s, ti.task, id));
            if let Some(stranger) = strangers {
                let error = format!("the branch chose `{stranger}`, which is not directly downstream of it");
                return fail(s, ti, &error.into(), Severity::Permanent);
            }
            succeed(s, ti, outputs)?;
            skip_unchosen(s, ti.task, chosen);
            Ok(())
        }
        Outcome::ShortCircuited { respect_trigger_rules, outputs } => {
            succeed(s, ti, outputs)?;
            let by = s.dag.task(ti.task).id.clone();
            let tasks: Vec<TaskIx> = if *respect_trigger_rules {
                s.dag.downstream(ti.task).to_vec()
            } else {
                s.dag.descendants(ti.task).into_iter().collect()
            };
            for task in tasks.into_iter().filter(|&task| !s.dag.task(task).is_teardown()) {
                skip_not_chosen(s, task, &by);
            }
            Ok(())
        }
        Outcome::Skipped { why } => {
            s.change(ti, TaskInput::SkippedItself, Reason::SkippedItself { why: why.clone() }, |_| {})
        }
        Outcome::Deferred { until } => s.change(ti, TaskInput::Deferred, Reason::Deferred, |i| {
            i.resume_at = Some(*until);
            // Being continued is the same attempt.
            i.try_number -= 1;
        }),
        Outcome::Failed { error, severity } => fail(s, ti, error, *severity),
        Outcome::Interrupted => s.change(ti, TaskInput::Repeated, Reason::Interrupted, |i| i.try_number -= 1),
    }
}

fn succeed(s: &mut Stepper<'_>, ti: TiRef, outputs: &Outputs) -> Result<(), Refusal> {
    s.change(ti, TaskInput::Succeeded, Reason::Succeeded, |_| {})?;
    if !outputs.json.is_empty() {
        for (key, length) in &outputs.list_lengths {
            s.run.list_lengths.insert((ti.task, key.clone()), *length);
        }
        s.decision.outputs.push((ti, outputs.clone()));
    }
    Ok(())
}

fn fail(s: &mut Stepper<'_>, ti: TiRef, error: &Arc<str>, severity: Severity) -> Result<(), Refusal> {
    let task = s.dag.task(ti.task);
    let try_number = s.get(ti).ok_or(Refusal::NoSuchInstance)?.try_number;
    let key = &s.run.birth.key;
    let retry = match severity {
        Severity::Permanent => RetryDecision::GiveUp,
        Severity::Retryable | Severity::TimedOut => {
            let parts = [key.dag_id.as_str(), key.run_id.as_str(), task.id.as_str()];
            let salt = salt(&parts, try_number ^ (ti.map_index.cast_unsigned() << 8));
            after_failure(&task.retry, try_number, s.now, salt)
        }
    };
    match retry {
        RetryDecision::RetryAt(at) => {
            let tries_max = task.retry.retries + 1;
            let reason = Reason::WillRetry { error: error.clone(), try_number, tries_max };
            s.change(ti, TaskInput::RetryLater, reason, |i| i.resume_at = Some(at))
        }
        RetryDecision::GiveUp => {
            s.change(ti, TaskInput::GaveUp, Reason::GaveUp { error: error.clone() }, |_| {})?;
            failed_for_good(s, ti, error);
            Ok(())
        }
    }
}

/// Tells people, and ends the run early if its DAG wants that.
pub(super) fn failed_for_good(s: &mut Stepper<'_>, ti: TiRef, error: &str) {
    let task = s.dag.task(ti.task);
    let summary = format!("task `{}` failed: {error}", task.id);
    s.decision.alerts.push(Alert { kind: AlertKind::TaskFailed, ti: Some(ti), summary });
    if s.dag.settings.fail_fast && !task.is_teardown() {
        let failed = task.id.clone();
        end_unfinished(s, TaskInput::RuledOut, &Reason::FailFast { failed }, |s, task| {
            !s.dag.task(task).is_teardown()
        });
    }
}

fn lost(s: &mut Stepper<'_>, ti: TiRef) {
    let lost_count = s.get(ti).map_or(0, |i| i.lost_count) + 1;
    if lost_count >= LOST_MAX {
        s.must(ti, TaskInput::GaveUp, Reason::Poisoned { lost_count }, |i| i.lost_count = lost_count);
        failed_for_good(s, ti, &format!("its worker was lost {lost_count} times"));
    } else {
        s.must(ti, TaskInput::Repeated, Reason::WorkerLost { lost_count }, |i| {
            i.lost_count = lost_count;
            i.try_number -= 1;
        });
    }
}

fn is_direct_downstream(s: &Stepper<'_>, task: TaskIx, id: &TaskId) -> bool {
    s.dag.find(id).is_some_and(|ix| s.dag.downstream(task).contains(&ix))
}

/// Skips the direct downstreams that were not chosen and cannot be reached from one that was.
fn skip_unchosen(s: &mut Stepper<'_>, task: TaskIx, chosen: &[TaskId]) {
    let chosen: BTreeSet<TaskIx> = chosen.iter().filter_map(|id| s.dag.find(id)).collect();
    let mut kept = chosen.clone();
    for &ix in &chosen {
        kept.extend(s.dag.descendants(ix));
    }
    let by = s.dag.task(task).id.clone();
    for &down in s.dag.downstream(task) {
        if !kept.contains(&down) {
            skip_not_chosen(s, down, &by);
        }
    }
}

fn skip_not_chosen(s: &mut Stepper<'_>, task: TaskIx, by: &TaskId) {
    for ti in refs(s, task) {
        let waits = s.get(ti).is_some_and(|i| !i.state.is_final() && i.state != TaskState::Running);
        if waits {
            s.must(ti, TaskInput::RuledOut, Reason::NotChosen { by: by.clone() }, |_| {});
        }
    }
}

/// All instances of a task.
pub(super) fn refs(s: &Stepper<'_>, task: TaskIx) -> Vec<TiRef> {
    each(&s.run.tasks[task]).map(|(map_index, _)| TiRef { task, map_index }).collect()
}

/// Ends every unfinished instance of the tasks that `which` picks; running attempts are revoked.
pub(super) fn end_unfinished(
    s: &mut Stepper<'_>,
    input: TaskInput,
    reason: &Reason,
    which: impl Fn(&Stepper<'_>, TaskIx) -> bool,
) {
    for task in 0..s.run.tasks.len() {
        if !which(s, task) {
            continue;
        }
        for ti in refs(s, task) {
            if s.get(ti).is_some_and(|i| !i.state.is_final()) {
                let fence = s.revoke(ti);
                s.must(ti, input, reason.clone(), |i| i.fence = fence);
            }
        }
    }
}

fn clear(s: &mut Stepper<'_>, tis: &[TiRef]) -> Result<(), Refusal> {
    // All or nothing: an unknown instance changes nothing.
    if tis.iter().any(|&ti| s.get(ti).is_none()) {
        return Err(Refusal::NoSuchInstance);
    }
    for &ti in tis {
        let removed = s.get(ti).is_some_and(|i| i.state == TaskState::Removed);
        if removed {
            continue;
        }
        let fence = s.revoke(ti);
        s.change(ti, TaskInput::Cleared, Reason::Cleared, |i| {
            i.fence = fence;
            i.generation += 1;
            i.try_number = 0;
            i.lost_count = 0;
            i.started_at = None;
        })?;
        s.judge.insert(ti.task);
    }
    if s.run.state.is_final() {
        s.run_to(RunState::Queued, Reason::Cleared);
    }
    Ok(())
}

fn mark(s: &mut Stepper<'_>, tis: &[TiRef], state: TaskState) -> Result<(), Refusal> {
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
        | TaskState::Cancelled => return Err(Refusal::Illegal { state, input: "asked for as a mark" }),
    };
    for &ti in tis {
        let fence = s.revoke(ti);
        s.change(ti, input, Reason::Marked, |i| i.fence = fence)?;
    }
    Ok(())
}

fn cancel(s: &mut Stepper<'_>) -> Result<(), Refusal> {
    if s.run.state.is_final() {
        return Err(Refusal::RunIsFinal { state: s.run.state });
    }
    end_unfinished(s, TaskInput::Cancelled, &Reason::Cancelled, |_, _| true);
    s.run_to(RunState::Cancelled, Reason::Cancelled);
    Ok(())
}
