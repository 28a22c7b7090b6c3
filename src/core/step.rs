//! The contract of the whole house: what happened, in; what follows, out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::dag::{Dag, TaskIx};
use super::ids::{Fence, SessionId, Timestamp};
use super::index::Standing;
use super::mutant::{self, Mutant};
use super::reason::Reason;
use super::run::{
    Alert, AlertKind, Capacity, Change, Claim, Decision, Input, Instances, Run, RunChange, TaskInstance,
    TiRef, UNMAPPED,
};
use super::state::{RunInput, RunState, TaskInput, TaskState, next, next_run};

/// Applies `inputs` in order, then plans all that follows from them at `now`.
///
/// **Arguments.** `run` is a run of `dag` as it was last committed. `room` is what it shares with other
/// runs, measured on the same committed states: `PoolUse::used` includes the slots this run holds already.
/// `WorkerSlots::free` is measured where the worker is, and an attempt that is reported in `inputs` has ended.
/// `now` is the time of the decision; it may not go back by more than what callers can bear to see in
/// `ended_at`, but nothing breaks if it does. No inputs is the same as one [`Input::Tick`].
///
/// **Inputs.** Each is either taken whole or refused whole: a refused one changes nothing, is listed in
/// [`Decision::refused`] with its place and the reason, and does not keep the others from being taken. A
/// report counts once and only under the fence of the claim that stands; a claim that was given up (lost
/// worker, clear, mark, cancel, timeout) has its fence made stale at once and is listed in
/// [`Decision::revoked`]. So there is exactly one accepted outcome per fence.
///
/// **What follows.** In this order: `dagrun_timeout`; waits that are due (due at 10:00:35 is released at
/// 10:00:35); the start of the run; trigger rules, skips and expansions to a fixpoint; `fail_fast`; the end of
/// the run, or else claims of what was queued before, admissions in order of priority, claims of those. When
/// it returns nothing more could follow without an input, a later `now` or more room.
///
/// **The answer.** `run` is already as after the step (but for [`Run::version`], which belongs to whoever
/// commits); if the commit is refused, throw the value away and load it again. [`Decision::changes`] has at
/// most one [`Change`] per instance, in ascending order; moves through several states are written as one with
/// the states in between in [`Change::via`], and each (from, to) is in [`legal_moves`](super::state::legal_moves).
/// Equal arguments give equal answers.
///
/// **Cost.** Proportional to the instances touched and their edges, times a logarithm; never to the size of the
/// run. Starting a run looks at every task once; ending one by force at every instance.
pub fn step(dag: &Dag, run: &mut Run, inputs: &[Input], room: &Capacity, now: Timestamp) -> Decision {
    let slots_before = run.index.slots.clone();
    let run_before = run.state;
    let one_too_many = u32::from(mutant::is(Mutant::ClaimsMoreThanAsked));
    let mut step = Step {
        dag,
        run,
        room,
        now,
        slots_before,
        moved: BTreeMap::new(),
        unjudged: BTreeSet::new(),
        first_failed: None,
        run_reason: None,
        workers_free: room.workers.iter().map(|worker| worker.free + one_too_many).collect(),
        decision: Decision::default(),
    };
    for (place, input) in inputs.iter().enumerate() {
        if let Err(refusal) = step.apply(input) {
            step.decision.refused.push((place, refusal));
        }
    }
    step.plan();
    step.finish(run_before)
}

/// One step under way.
pub(super) struct Step<'a> {
    pub(super) dag: &'a Dag,
    pub(super) run: &'a mut Run,
    pub(super) room: &'a Capacity,
    pub(super) now: Timestamp,
    /// Slots this run held in each pool when `room` was measured.
    pub(super) slots_before: Vec<u64>,
    moved: BTreeMap<TiRef, Moved>,
    /// Tasks whose upstreams have told them something, as places in the topological order.
    pub(super) unjudged: BTreeSet<usize>,
    /// The first task that failed in this step, teardowns excluded.
    pub(super) first_failed: Option<TaskIx>,
    run_reason: Option<Reason>,
    /// Free slots of each worker of `room` that this step has not used up.
    pub(super) workers_free: Vec<u32>,
    pub(super) decision: Decision,
}

struct Moved {
    from: TaskState,
    from_fence: Fence,
    via: Vec<TaskState>,
    first_reason: Option<Reason>,
    reason: Reason,
}

impl Step<'_> {
    pub(super) fn instance(&self, ti: TiRef) -> &TaskInstance {
        self.run.instance(ti).expect("the instance was found before")
    }

    /// Moves an instance through the table: the only place where its state changes.
    ///
    /// Sets what follows from the state (`ended_at`, `session`, `resume_at`); `edit` sets the rest.
    pub(super) fn shift(
        &mut self,
        ti: TiRef,
        input: TaskInput,
        reason: Reason,
        edit: impl FnOnce(&mut TaskInstance),
    ) {
        let instance = self.run.instance_mut(ti).expect("the instance was found before");
        let before = Standing { state: instance.state, resume_at: instance.resume_at };
        let from_fence = instance.fence;
        instance.state = next(before.state, input).expect("legality was checked before");
        instance.session = None;
        instance.resume_at = None;
        instance.ended_at = instance.state.is_final().then_some(self.now);
        edit(instance);
        let after = Standing { state: instance.state, resume_at: instance.resume_at };
        let to = after.state;
        if self.run.index.moved(self.dag, ti, before, after) {
            self.tell(ti.task);
        }
        if to == TaskState::None {
            self.unjudged.insert(self.dag.place(ti.task));
        }
        if to == TaskState::Failed && !self.dag.task(ti.task).is_teardown() {
            self.first_failed.get_or_insert(ti.task);
        }
        match self.moved.entry(ti) {
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let moved = entry.get_mut();
                moved.via.push(before.state);
                let earlier = std::mem::replace(&mut moved.reason, reason);
                moved.first_reason.get_or_insert(earlier);
            }
            std::collections::btree_map::Entry::Vacant(entry) => {
                let (via, first_reason) = (Vec::new(), None);
                entry.insert(Moved { from: before.state, from_fence, via, first_reason, reason });
            }
        }
    }

    /// Has those judged again that wait for `task`.
    pub(super) fn tell(&mut self, task: TaskIx) {
        for &other in self.dag.downstream(task).iter().chain(self.dag.scope(task)) {
            self.unjudged.insert(self.dag.place(other));
        }
    }

    /// Moves an instance out of the hands of its worker, if one has it: the fence becomes stale.
    pub(super) fn take_away(&mut self, ti: TiRef, input: TaskInput, reason: Reason) {
        let (state, fence) = (self.instance(ti).state, self.instance(ti).fence);
        if state == TaskState::Running {
            self.decision.revoked.push((ti, fence));
            let void = if mutant::is(Mutant::ClearKeepsFence) { fence } else { fence.next() };
            self.shift(ti, input, reason, |instance| instance.fence = void);
        } else {
            self.shift(ti, input, reason, |_| {});
        }
    }

    /// What was cleared counts its attempts from the first again. Its state is not touched.
    pub(super) fn forget_attempts(&mut self, ti: TiRef) {
        let instance = self.run.instance_mut(ti).expect("the instance was found before");
        instance.generation += 1;
        (instance.try_number, instance.lost_count, instance.started_at) = (0, 0, None);
    }

    /// A worker has it from now on.
    pub(super) fn claim(&mut self, ti: TiRef, session: SessionId) {
        let now = self.now;
        self.shift(ti, TaskInput::Claimed, Reason::Claimed, |instance| {
            instance.fence = instance.fence.next();
            instance.try_number += 1;
            instance.started_at = Some(now);
            instance.session = Some(session);
        });
    }

    /// As [`Step::claim`], by a worker that is told to start it.
    pub(super) fn claim_for(&mut self, ti: TiRef, session: SessionId) {
        self.claim(ti, session.clone());
        let instance = self.instance(ti);
        let claim = Claim { ti, session, fence: instance.fence, try_number: instance.try_number };
        self.decision.claims.push(claim);
    }

    /// Takes every unfinished instance that `which` names out of the run.
    pub(super) fn end_all(&mut self, input: TaskInput, reason: &Reason, which: impl Fn(TaskIx) -> bool) {
        let spared = |state| mutant::is(Mutant::CancelSparesQueued) && state == TaskState::Queued;
        let unfinished = self
            .run
            .instances()
            .filter(|(ti, it)| !it.state.is_final() && which(ti.task) && !spared(it.state));
        for ti in unfinished.map(|(ti, _)| ti).collect::<Vec<_>>() {
            self.take_away(ti, input, reason.clone());
        }
    }

    /// Moves the run through its table: the only place where its state changes.
    pub(super) fn shift_run(&mut self, input: RunInput, reason: Reason) {
        let run = &mut *self.run;
        run.state = next_run(run.state, input).expect("legality was checked before");
        match run.state {
            RunState::Queued => (run.started_at, run.ended_at) = (None, None),
            RunState::Running => (run.started_at, run.ended_at) = (Some(self.now), None),
            RunState::Success | RunState::Failed | RunState::Cancelled => run.ended_at = Some(self.now),
        }
        run.with_failures = run.state == RunState::Success && run.index.failed > 0;
        self.run_reason = Some(reason);
    }

    /// A placeholder gives way to instances, or more of them are added.
    pub(super) fn expand(&mut self, task: TaskIx, added: std::ops::Range<u32>) {
        let length = added.end;
        let placeholder = TiRef { task, map_index: UNMAPPED };
        let was_placeholder = added.start == 0;
        if was_placeholder {
            self.moved.remove(&placeholder);
            self.run.tasks[task] = Instances::Mapped(Vec::new());
        }
        if let Instances::Mapped(all) = &mut self.run.tasks[task] {
            all.resize(length as usize, TaskInstance::new());
        }
        self.run.index.expanded(self.dag, task, was_placeholder, added);
        self.decision.expanded.push((task, length));
    }

    /// Tells people that a task failed and will not be tried again.
    pub(super) fn alert_task(&mut self, kind: AlertKind, ti: TiRef, error: Arc<str>) {
        let tries = self.run.instance(ti).map_or(0, |instance| instance.try_number);
        self.decision.alerts.push(Alert { kind, ti: Some(ti), tries, error });
    }

    fn finish(mut self, run_before: RunState) -> Decision {
        for (ti, moved) in std::mem::take(&mut self.moved) {
            let Moved { from, from_fence, via, first_reason, reason } = moved;
            let to = self.instance(ti).clone();
            self.decision.changes.push(Change { ti, from, from_fence, to, via, first_reason, reason });
        }
        let run = &*self.run;
        self.decision.run_change = self.run_reason.map(|reason| RunChange {
            from: run_before,
            to: run.state,
            started_at: run.started_at,
            ended_at: run.ended_at,
            with_failures: run.with_failures,
            reason,
        });
        if !run.state.is_final() {
            let timer = run.index.timers.first().map(|&(at, _)| at);
            let timeout =
                run.started_at.zip(self.dag.settings.dagrun_timeout).map(|(at, span)| at.plus(span));
            self.decision.next_due = timer.into_iter().chain(timeout).min();
        }
        self.decision
    }
}
