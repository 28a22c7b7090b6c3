//! The room of one step: what was measured in the database, and the workers at hand.

use std::collections::BTreeMap;

use super::Scope;
use super::driver::Driver;
use super::entry::{Entry, Value};
use crate::core::dag::Dag;
use crate::core::ids::{PoolName, RunKey};
use crate::core::run::{Capacity, PoolUse};
use crate::core::state::RunState;
use crate::store::{Room, RoomAsked};

/// The room as a step is told of it, without workers.
pub(super) fn shared(dag: &Dag, room: Room) -> Capacity {
    let by_task = |(task_id, count)| Some((dag.find(&task_id)?, count));
    Capacity {
        pools: room.pools,
        workers: Vec::new(),
        other_active_runs: room.other_active_runs,
        active_runs_max: room.active_runs_max,
        other_active_tis: room.other_active_tis.into_iter().filter_map(by_task).collect(),
        previous: room.previous,
        earlier_waits: room.earlier_waits,
        paused: room.paused,
    }
}

/// Whether tasks depend on the run before.
pub(super) fn looks_back(dag: &Dag) -> bool {
    dag.tasks().iter().any(|task| task.depends_on_past || task.wait_for_downstream)
}

impl Driver {
    /// What has to be measured before a step of the run; `None` if nothing: it shares nothing with others but
    /// workers. A process that works for itself alone knows all but the run before.
    pub(super) fn asks_room(&self, value: &Value) -> Option<RoomAsked> {
        let tasks = value.dag.tasks();
        let previous = looks_back(&value.dag);
        if let Scope::Own { .. } = self.settings.scope {
            return previous.then_some(RoomAsked { previous, ..RoomAsked::default() });
        }
        let asked = RoomAsked {
            pools: value.dag.pools().iter().any(|pool| self.limited.contains(pool)),
            other_tis: tasks.iter().any(|task| task.max_active_tis_per_dag.is_some()),
            previous,
        };
        let starts = value.run.state == RunState::Queued || value.run.state.is_final();
        (starts || asked.pools || asked.other_tis || asked.previous).then_some(asked)
    }

    /// The room as the run may use it. While somebody of a better rank waits for a worker, a backfill gets none.
    pub(super) fn capacity(&self, key: &RunKey, room: Room) -> Capacity {
        let entry = &self.runs[key];
        let value = entry.value.as_deref().expect("only a loaded run is stepped");
        let (is_late, _) = entry.rank();
        let comes_first = |key| self.runs.get(key).is_some_and(|entry: &Entry| !entry.rank().0);
        let others_first = is_late && self.served().next().is_some_and(comes_first);
        let mut capacity = shared(&value.dag, room);
        if !others_first {
            capacity.workers = self.workers.slots();
        }
        capacity.paused |= self.paused.contains(&key.dag_id);
        if let Scope::Own { pools } = &self.settings.scope {
            self.count_own(key, pools, &mut capacity);
        }
        capacity
    }

    /// Counts what the runs of this process use; others do not concern it.
    fn count_own(&self, key: &RunKey, sizes: &BTreeMap<PoolName, u32>, capacity: &mut Capacity) {
        capacity.pools =
            sizes.iter().map(|(name, &size)| (name.clone(), PoolUse { size, used: 0 })).collect();
        (capacity.other_active_runs, capacity.earlier_waits) = (0, false);
        let date = self.runs[key].rank().1;
        let looks_back = self.runs[key].value.as_deref().is_some_and(|value| looks_back(&value.dag));
        let values = self.runs.iter().filter_map(|(other, entry)| Some((other, entry.value.as_deref()?)));
        for (other, value) in values {
            let same_dag = other.dag_id == key.dag_id && other != key;
            capacity.other_active_runs += u32::from(same_dag && value.run.state == RunState::Running);
            let is_earlier =
                same_dag && value.run.state == RunState::Queued && value.birth.logical_date < date;
            capacity.earlier_waits |= is_earlier && looks_back;
            let limited = value.dag.pools().iter().any(|pool| sizes.contains_key(pool))
                || value.dag.tasks().iter().any(|task| task.max_active_tis_per_dag.is_some());
            if !limited {
                continue;
            }
            for (ti, _) in value.run.instances().filter(|(_, instance)| instance.state.holds_slots()) {
                let task = value.dag.task(ti.task);
                if let Some(pool) = capacity.pools.get_mut(&task.pool) {
                    pool.used += task.pool_slots;
                }
                if same_dag {
                    *capacity.other_active_tis.entry(ti.task).or_default() += 1;
                }
            }
        }
    }
}
