//! The room that runs share: slots of pools, of DAGs and of this process's worker. It is counted from what
//! each run holds, so it cannot leak.

use std::collections::BTreeMap;

use super::Settings;
use crate::core::dag::{Dag, TaskIx};
use crate::core::ids::{DagId, PoolName};
use crate::core::run::{Capacity, Decision, Instances, LocalSlots, PoolUse, Run, TaskInstance};
use crate::core::state::{RunState, TaskState};

/// What one run holds of the room it shares with others.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Whether it counts among its DAG's active runs.
    pub(super) active: bool,
    /// Slots by pool.
    pools: BTreeMap<PoolName, u32>,
    /// Instances that hold slots, of tasks with a limit over all runs.
    limited: BTreeMap<TaskIx, u32>,
    /// Instances that wait to be admitted.
    pub(super) scheduled: u32,
    /// Instances that wait for a worker.
    pub(super) queued: u32,
}

impl Held {
    /// Counts a whole run: only when it is taken up or loaded again.
    pub(super) fn of(dag: &Dag, run: &Run) -> Self {
        let mut held = Self { active: run.state == RunState::Running, ..Self::default() };
        for (ix, instances) in run.tasks.iter().enumerate() {
            let all: &[TaskInstance] = match instances {
                Instances::One(one) | Instances::Unexpanded(one) => std::slice::from_ref(one),
                Instances::Mapped(many) => many,
            };
            for instance in all {
                held.count(dag, ix, instance.state, 1);
            }
        }
        held
    }

    /// Follows a decision; answers whether room was given back.
    pub(super) fn follow(&mut self, dag: &Dag, decision: &Decision) -> bool {
        let mut freed = false;
        for change in &decision.changes {
            self.count(dag, change.ti.task, change.from, -1);
            self.count(dag, change.ti.task, change.to.state, 1);
            freed |= change.from.holds_slots() && !change.to.state.holds_slots();
        }
        if let Some(change) = &decision.run_change {
            self.active = change.to == RunState::Running;
            freed |= change.to.is_final();
        }
        freed
    }

    fn count(&mut self, dag: &Dag, ix: TaskIx, state: TaskState, by: i32) {
        let add = |n: &mut u32, by: i32| *n = n.saturating_add_signed(by);
        match state {
            TaskState::Scheduled => add(&mut self.scheduled, by),
            TaskState::Queued => add(&mut self.queued, by),
            TaskState::None
            | TaskState::Running
            | TaskState::Deferred
            | TaskState::UpForRetry
            | TaskState::Success
            | TaskState::Failed
            | TaskState::Skipped
            | TaskState::UpstreamFailed
            | TaskState::Removed
            | TaskState::Cancelled => {}
        }
        if state.holds_slots() {
            let task = dag.task(ix);
            let slots = task.pool_slots.cast_signed() * by;
            add(self.pools.entry(task.pool.clone()).or_default(), slots);
            if task.max_active_tis_per_dag.is_some() {
                add(self.limited.entry(ix).or_default(), by);
            }
        }
    }
}

/// The room as one run may use it, given what all runs hold.
pub(super) fn capacity<'a>(
    settings: &Settings,
    slots_free: u32,
    dag_id: &DagId,
    others: impl Iterator<Item = (&'a DagId, &'a Held)>,
    own: &Held,
) -> Capacity {
    let mut room = Capacity::default();
    for (name, &size) in &settings.pools {
        let used = own.pools.get(name).copied().unwrap_or_default();
        room.pools.insert(name.clone(), PoolUse { size, used });
    }
    for (other_dag, held) in others {
        for (name, used) in &held.pools {
            if let Some(pool) = room.pools.get_mut(name) {
                pool.used += used;
            }
        }
        if other_dag == dag_id {
            room.other_active_runs += u32::from(held.active);
            for (&ix, n) in &held.limited {
                *room.other_active_tis.entry(ix).or_default() += n;
            }
        }
    }
    room.local = Some(LocalSlots {
        session: settings.session.clone(),
        free: slots_free,
        queues: settings.queues.clone(),
    });
    room
}
