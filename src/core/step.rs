//! The contract of the whole house: what happened, in; what follows, out.

use std::collections::{BTreeMap, BTreeSet};

use super::apply;
use super::dag::{Dag, TaskIx};
use super::ids::{Fence, Timestamp};
use super::plan;
use super::run::{Capacity, Change, Decision, Input, Instances, Reason, Refusal, Run, TaskInstance, TiRef};
use super::state::{self, RunState, TaskInput, TaskState};

/// Applies `inputs` in order, then plans what follows from them and from the time.
///
/// * **Pure.** The answer depends on the arguments alone: no clock, no chance, no IO. Chance (the jitter of
///   retries) is a hash of names.
/// * **Whole.** `run` is left as after the decision. If the commit of the decision is refused, the value is
///   to be thrown away, loaded again, and stepped with the same inputs.
/// * **Total.** An input that cannot be taken is named in [`Decision::refused`] with the reason; the others
///   are taken all the same. A broken invariant panics: it is a bug of this floor.
/// * **Incremental.** The cost follows from the instances that move and their direct downstreams, never
///   from the size of the run. Only the first step of a run and its end look at every task.
/// * **One change per instance.** Moves through several states are written as one, from the first to the
///   last, with the states in between beside it.
///
/// `room` is what the run shares with others at this moment; what the step uses up of it can be read off
/// the decision. `now` must not run backwards by more than the caller can bear: what is due is judged by it.
#[must_use]
pub fn step(dag: &Dag, run: &mut Run, inputs: &[Input], room: &Capacity, now: Timestamp) -> Decision {
    let mut stepper = Stepper {
        dag,
        run,
        room,
        now,
        changes: BTreeMap::new(),
        judge: BTreeSet::new(),
        decision: Decision::default(),
    };
    let before = stepper.run.state;
    for (place, input) in inputs.iter().enumerate() {
        if let Err(refusal) = apply::input(&mut stepper, input) {
            stepper.decision.refused.push((place, refusal));
        }
    }
    plan::all(&mut stepper);
    let Stepper { run, changes, mut decision, .. } = stepper;
    decision.changes = changes.into_values().collect();
    decision.run_change = decision.run_change.filter(|change| change.to != before).map(|mut change| {
        change.from = before;
        change
    });
    decision.next_due = plan::next_due(dag, run);
    decision
}

/// A step under way. The one place through which an instance's state changes.
pub(super) struct Stepper<'a> {
    pub(super) dag: &'a Dag,
    pub(super) run: &'a mut Run,
    pub(super) room: &'a Capacity,
    pub(super) now: Timestamp,
    changes: BTreeMap<TiRef, Change>,
    /// Tasks whose rule has to be judged again.
    pub(super) judge: BTreeSet<TaskIx>,
    pub(super) decision: Decision,
}

impl Stepper<'_> {
    /// The instance, if there is one.
    pub(super) fn get(&self, ti: TiRef) -> Option<&TaskInstance> {
        self.run.instance(ti)
    }

    /// Moves an instance by the table, and sets what goes with its new state.
    pub(super) fn change(
        &mut self,
        ti: TiRef,
        input: TaskInput,
        reason: Reason,
        with: impl FnOnce(&mut TaskInstance),
    ) -> Result<(), Refusal> {
        let before = self.run.instance(ti).ok_or(Refusal::NoSuchInstance)?.clone();
        let to = state::next(before.state, input)
            .map_err(|e| Refusal::Illegal { state: e.state, input: e.input.as_str() })?;
        let mut after = before.clone();
        after.state = to;
        after.resume_at = None;
        after.ended_at = to.is_final().then_some(self.now);
        if to != TaskState::Running {
            after.session = None;
        }
        with(&mut after);
        self.run.index.follow(self.dag, ti, &before, &after);
        match self.run.instance_mut(ti) {
            Some(slot) => *slot = after.clone(),
            None => return Err(Refusal::NoSuchInstance),
        }
        if before.state.is_final() != to.is_final() || to.is_final() {
            self.judge.extend(self.dag.downstream(ti.task));
        }
        self.record(ti, &before, after, reason);
        Ok(())
    }

    /// Whether no instance has moved in this step.
    pub(super) fn is_unchanged(&self) -> bool {
        self.changes.is_empty()
    }

    /// A change that the caller knows to be in the table.
    pub(super) fn must(
        &mut self,
        ti: TiRef,
        input: TaskInput,
        reason: Reason,
        with: impl FnOnce(&mut TaskInstance),
    ) {
        let from = self.run.instance(ti).map(|i| i.state);
        if let Err(refusal) = self.change(ti, input, reason, with) {
            panic!("{ti} in {from:?} on {input}: {refusal}");
        }
    }

    fn record(&mut self, ti: TiRef, before: &TaskInstance, after: TaskInstance, reason: Reason) {
        match self.changes.entry(ti) {
            std::collections::btree_map::Entry::Occupied(mut seen) => {
                let change = seen.get_mut();
                change.via.push(change.to.state);
                change.to = after;
                change.reason = reason;
            }
            std::collections::btree_map::Entry::Vacant(new) => {
                new.insert(Change {
                    ti,
                    from: before.state,
                    from_fence: before.fence,
                    to: after,
                    via: Vec::new(),
                    reason,
                });
            }
        }
    }

    /// Voids the claim of a running instance; answers the fence that follows. Others keep theirs.
    pub(super) fn revoke(&mut self, ti: TiRef) -> Fence {
        let Some(instance) = self.run.instance(ti) else { return Fence::default() };
        let fence = instance.fence;
        if instance.state != TaskState::Running {
            return fence;
        }
        self.decision.revoked.push((ti, fence));
        fence.next()
    }

    /// Replaces the placeholder of a mapped task by its instances, all `none`.
    pub(super) fn expand(&mut self, task: TaskIx, length: u32) {
        let placeholder = match &self.run.tasks[task] {
            Instances::Unexpanded(one) => one.clone(),
            Instances::One(_) | Instances::Mapped(_) => panic!("only a placeholder is expanded"),
        };
        let ti = TiRef { task, map_index: super::run::UNMAPPED };
        self.run.index.count(self.dag, ti, &placeholder, -1);
        self.changes.remove(&ti);
        // A generation that was reached by clearing the placeholder goes on in the instances.
        let fresh = TaskInstance { generation: placeholder.generation, ..TaskInstance::new() };
        for map_index in 0..i32::try_from(length).expect("a list is not longer than MAPPED_MAX") {
            self.run.index.count(self.dag, TiRef { task, map_index }, &fresh, 1);
        }
        self.run.tasks[task] = Instances::Mapped(vec![fresh; length as usize]);
        self.decision.expanded.push((task, length));
    }

    /// Moves the run.
    pub(super) fn run_to(&mut self, to: RunState, reason: Reason) {
        let from = self.run.state;
        self.run.state = to;
        match to {
            RunState::Queued => {
                self.run.started_at = None;
                self.run.ended_at = None;
                self.run.with_failures = false;
            }
            RunState::Running => {
                self.run.started_at = Some(self.now);
                self.run.ended_at = None;
            }
            RunState::Success | RunState::Failed | RunState::Cancelled => {
                self.run.started_at.get_or_insert(self.now);
                self.run.ended_at = Some(self.now);
            }
        }
        self.decision.run_change = Some(super::run::RunChange { from, to, reason });
    }
}
