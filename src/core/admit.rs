//! Limits: which `scheduled` instances become `queued`, and which `queued` ones a worker that is
//! at hand takes. Greater priority first; whoever is blocked blocks only those who need the same thing.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::dag::{Dag, TaskIx};
use super::index::InLine;
use super::mutant::{self, Mutant};
use super::reason::Reason;
use super::run::{Capacity, Run};
use super::state::{TaskInput, TaskState};
use super::step::Step;

/// A line of instances that are blocked or let through together: those of a pool that need nothing else, or
/// those of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    pool: usize,
    gated: Option<TaskIx>,
}

impl Step<'_> {
    /// Admits in order of priority until nobody fits. Only the heads of lines are looked at; a full pool
    /// drops all its lines, a limit of one task drops its own.
    ///
    /// An instance that needs more slots than are free keeps those behind it in its pool from passing, or it
    /// would wait for ever; one that needs more than there are never fits and is passed over.
    pub(super) fn admit(&mut self) {
        if self.room.paused || self.run.index.holding >= self.dag.settings.max_active_tasks {
            return;
        }
        let mut heads: BTreeSet<(InLine, Line)> = BTreeSet::new();
        for (pool, frontier) in self.run.index.ready.iter().enumerate() {
            if free_slots(self.dag, self.room, &self.slots_before, self.run, pool) == Some(0) {
                continue;
            }
            heads.extend(frontier.plain.first().map(|&head| (head, Line { pool, gated: None })));
            for (&task, line) in &frontier.gated {
                heads.extend(line.first().map(|&head| (head, Line { pool, gated: Some(task) })));
            }
        }
        while let Some((head, line)) = heads.pop_first() {
            if self.run.index.holding >= self.dag.settings.max_active_tasks {
                return;
            }
            let (_, ti) = head;
            match blocked(self.dag, self.run, self.room, &self.slots_before, ti.task) {
                None => {}
                Some(Reason::WaitsForPool { .. }) => {
                    heads.retain(|(_, other)| other.pool != line.pool);
                    continue;
                }
                Some(_) => continue,
            }
            self.shift(ti, TaskInput::Admitted, Reason::Ready, |_| {});
            let frontier = &self.run.index.ready[line.pool];
            let rest = line.gated.map_or(Some(&frontier.plain), |task| frontier.gated.get(&task));
            heads.extend(rest.and_then(BTreeSet::first).map(|&next| (next, line)));
        }
    }

    /// Free slots of workers take what is queued, in order of priority; of the workers that serve its queue
    /// the one with the most free slots, so that work spreads.
    pub(super) fn claim_queued(&mut self) {
        let mut queues: Vec<usize> = (0..self.dag.queues().len()).collect();
        loop {
            queues.retain(|&queue| self.worker_for(queue).is_some());
            let heads =
                queues.iter().filter_map(|&queue| Some((self.run.index.queued[queue].first()?, queue)));
            let Some((&(_, ti), queue)) = heads.min() else { return };
            let worker = self.worker_for(queue).expect("queues without a free worker were left out");
            self.workers_free[worker] -= 1;
            self.claim_for(ti, self.room.workers[worker].session.clone());
        }
    }

    /// The worker that serves the queue and has the most free slots; the first of those that are equal.
    fn worker_for(&self, queue: usize) -> Option<usize> {
        let queue = &self.dag.queues()[queue];
        let serves = |&worker: &usize| {
            let served = &self.room.workers[worker].queues;
            let served =
                if mutant::is(Mutant::FirstQueueOnly) { &served[..1.min(served.len())] } else { served };
            self.workers_free[worker] > 0 && served.contains(queue)
        };
        (0..self.workers_free.len()).filter(serves).max_by_key(|&w| (self.workers_free[w], Reverse(w)))
    }
}

/// Free slots of a pool, `None` if it has no limit. `slots_before` are those this run held in each pool when
/// `room` was measured.
fn free_slots(dag: &Dag, room: &Capacity, slots_before: &[u64], run: &Run, pool: usize) -> Option<u64> {
    let pool_use = room.pools.get(&dag.pools()[pool])?;
    let used_by_others = u64::from(pool_use.used).saturating_sub(slots_before[pool]);
    Some(u64::from(pool_use.size).saturating_sub(used_by_others + run.index.slots[pool]))
}

/// What keeps a `scheduled` instance of `task` from being queued; `max_active_tasks` and a pause aside.
pub(super) fn blocked(
    dag: &Dag,
    run: &Run,
    room: &Capacity,
    slots_before: &[u64],
    task: TaskIx,
) -> Option<Reason> {
    let it = dag.task(task);
    let here = run.index.holding_of(task);
    let everywhere = here.saturating_add(room.other_active_tis.get(&task).copied().unwrap_or(0));
    if let Some(limit) = it.max_active_tis_per_dagrun.filter(|&limit| here >= limit) {
        return Some(Reason::WaitsForTaskLimit { key: "max_active_tis_per_dagrun", limit });
    }
    if let Some(limit) = it.max_active_tis_per_dag.filter(|&limit| everywhere >= limit) {
        return Some(Reason::WaitsForTaskLimit { key: "max_active_tis_per_dag", limit });
    }
    if let Some(reason) = past(dag, room, task) {
        return Some(reason);
    }
    let pool = dag.pool_of(task);
    let (free, pool_use) =
        (free_slots(dag, room, slots_before, run, pool)?, room.pools.get(&it.pool).expect("it has a limit"));
    if it.pool_slots > pool_use.size && pool_use.size > 0 {
        return Some(Reason::NeverFits { pool: it.pool.clone(), slots: it.pool_slots, size: pool_use.size });
    }
    (u64::from(it.pool_slots) > free).then(|| Reason::WaitsForPool {
        pool: it.pool.clone(),
        used: u32::try_from(u64::from(pool_use.size) - free).expect("at most the size, which is a u32"),
        size: pool_use.size,
    })
}

/// Whether some instance that is ready waits for the run before.
pub(super) fn waits_for_past(dag: &Dag, run: &Run, room: &Capacity) -> bool {
    let mut gated = run.index.ready.iter().flat_map(|frontier| frontier.gated.keys());
    gated.any(|&task| past(dag, room, task).is_some())
}

/// What in the previous run keeps `task` from being queued. A task that was not part of it passes.
fn past(dag: &Dag, room: &Capacity, task: TaskIx) -> Option<Reason> {
    let it = dag.task(task);
    let previous = room.previous.as_ref()?;
    let bad = |ix: TaskIx| {
        let state = *previous.states.get(&dag.task(ix).id)?;
        (!matches!(state, TaskState::Success | TaskState::Skipped)).then_some(state)
    };
    if it.depends_on_past
        && let Some(state) = bad(task)
    {
        return Some(Reason::WaitsForPast { key: "depends_on_past", task: it.id.clone(), state });
    }
    if !it.wait_for_downstream {
        return None;
    }
    let key = "wait_for_downstream";
    let mut all = std::iter::once(task).chain(dag.downstream(task).iter().copied());
    all.find_map(|ix| Some(Reason::WaitsForPast { key, task: dag.task(ix).id.clone(), state: bad(ix)? }))
}
