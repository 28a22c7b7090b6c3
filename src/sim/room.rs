//! What a run shares with others, measured on the rows, as a scheduler does before it steps.

use std::collections::BTreeMap;

use crate::core::mutant::{self, Mutant};
use crate::core::run::{Capacity, PoolUse, PreviousRun, WorkerSlots};
use crate::core::state::{RunState, TaskState};

use super::dags::{QUEUES, queue};
use super::store::{RunNo, instances, session_id};
use super::world::{Node, World};

impl World {
    /// The room of a run as scheduler `s` sees it now.
    pub(super) fn room(&self, s: Node, run: RunNo) -> Capacity {
        let row = &self.store.runs[run];
        let active = self.store.active_runs(row.dag);
        Capacity {
            pools: self.pools(),
            workers: self.asking(s),
            other_active_runs: active - u32::from(row.rows.state == RunState::Running),
            active_runs_max: None,
            other_active_tis: self.other_active_tis(run),
            previous: self.previous(run).map(|previous| self.states_of(previous)),
            earlier_waits: self.earlier_waits(run),
            paused: self.store.dags[row.dag].paused,
        }
    }

    fn pools(&self) -> BTreeMap<crate::core::ids::PoolName, PoolUse> {
        let sizes = self.store.pools.iter();
        sizes
            .map(|(pool, size)| {
                let mut used = self.store.slots_used(pool);
                if mutant::is(Mutant::SlotsByCounter) {
                    used += self.check.losses_in(pool);
                }
                let used = if mutant::is(Mutant::PoolIgnored) { 0 } else { used };
                (pool.clone(), PoolUse { size: *size, used: u32::try_from(used).unwrap_or(u32::MAX) })
            })
            .collect()
    }

    fn asking(&self, s: Node) -> Vec<WorkerSlots> {
        let all = self.schedulers[s].asking.iter().filter(|(_, asking)| asking.free > 0);
        all.map(|(&session, asking)| WorkerSlots {
            session: session_id(session),
            free: asking.free,
            queues: self.queues_of(asking.worker),
        })
        .collect()
    }

    /// The first worker takes everything, the others the first queue.
    fn queues_of(&self, worker: Node) -> Vec<crate::core::ids::QueueName> {
        let count = if worker == 0 { QUEUES.len() } else { 1 };
        QUEUES[..count].iter().map(|name| queue(name)).collect()
    }

    fn other_active_tis(&self, run: RunNo) -> BTreeMap<usize, u32> {
        let row = &self.store.runs[run];
        let limited = |ix: &usize| row.pinned.task(*ix).max_active_tis_per_dag.is_some();
        let mut active: BTreeMap<usize, u32> =
            (0..row.pinned.tasks().len()).filter(limited).map(|ix| (ix, 0)).collect();
        if active.is_empty() {
            return active;
        }
        for &other in self.store.open.iter().filter(|&&other| other != run) {
            let theirs = &self.store.runs[other];
            if theirs.dag != row.dag {
                continue;
            }
            for (ti, _) in instances(&theirs.rows).filter(|(_, it)| it.state.holds_slots()) {
                let here = row.pinned.find(&theirs.pinned.task(ti.task).id);
                if let Some(count) = here.and_then(|ix| active.get_mut(&ix)) {
                    *count += 1;
                }
            }
        }
        active
    }

    /// The run of the same DAG that stands for the moment before.
    pub(super) fn previous(&self, run: RunNo) -> Option<RunNo> {
        let row = &self.store.runs[run];
        let date = row.rows.birth.logical_date;
        let others = self.store.runs.iter().enumerate();
        let before = others.filter(|(_, it)| it.dag == row.dag && it.rows.birth.logical_date < date);
        before.max_by_key(|(number, it)| (it.rows.birth.logical_date, *number)).map(|(number, _)| number)
    }

    /// Whether a run of an earlier date of the same DAG waits for its place.
    fn earlier_waits(&self, run: RunNo) -> bool {
        let row = &self.store.runs[run];
        let looks_back =
            row.pinned.tasks().iter().any(|task| task.depends_on_past || task.wait_for_downstream);
        let date = row.rows.birth.logical_date;
        looks_back
            && self.store.open.iter().map(|&other| &self.store.runs[other]).any(|it| {
                it.dag == row.dag && it.rows.state == RunState::Queued && it.rows.birth.logical_date < date
            })
    }

    fn states_of(&self, run: RunNo) -> PreviousRun {
        let row = &self.store.runs[run];
        let mut previous = PreviousRun::default();
        for (ti, it) in instances(&row.rows) {
            let id = row.pinned.task(ti.task).id.clone();
            let state = if it.state == TaskState::Removed { TaskState::Success } else { it.state };
            let worst = previous.states.entry(id).or_insert(state);
            if matches!(worst, TaskState::Success | TaskState::Skipped) {
                *worst = state;
            }
        }
        previous
    }
}
