//! What a run keeps beside its rows so that a step costs what it touches: counts per task, what is ready
//! in which lane, what is queued, when something is due. It is derived: it can be made from the rows at
//! any time, and must then be equal to the one that was maintained.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::dag::{Dag, Task, TaskIx};
use super::ids::{PoolName, QueueName, Timestamp};
use super::rule::Tally;
use super::run::{Instances, TaskInstance, TiRef, UNMAPPED};
use super::state::TaskState;

/// Instances that need the same room: if the first cannot be admitted, none behind it can.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lane {
    /// Whose slots it needs.
    pub(super) pool: PoolName,
    /// How many.
    pub(super) slots: u32,
    /// The task, if it has limits of its own.
    pub(super) limited: Option<TaskIx>,
}

impl Lane {
    fn of(task: &Task, ix: TaskIx) -> Self {
        let limited = task.max_active_tis_per_dag.is_some()
            || task.max_active_tis_per_dagrun.is_some()
            || task.depends_on_past
            || task.wait_for_downstream;
        Self { pool: task.pool.clone(), slots: task.pool_slots, limited: limited.then_some(ix) }
    }
}

/// A place in a line: higher priority first, then the order of the file, then that of the list.
pub(super) type Place = (Reverse<i64>, TiRef);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Index {
    /// By task: how the instances of its direct upstreams stand.
    pub(super) upstreams: Vec<Tally>,
    /// By teardown: how the instances of its setups stand.
    pub(super) setups: BTreeMap<TaskIx, Tally>,
    /// By setup: its teardowns.
    teardowns: BTreeMap<TaskIx, Vec<TaskIx>>,
    /// `scheduled` instances.
    pub(super) ready: BTreeMap<Lane, BTreeSet<Place>>,
    /// `queued` instances.
    pub(super) queued: BTreeMap<QueueName, BTreeSet<Place>>,
    /// When `up_for_retry` and `deferred` end.
    pub(super) timers: BTreeSet<(Timestamp, TiRef)>,
    /// Instances that hold slots.
    pub(super) holding: u32,
    /// The same by task, for tasks with a limit within the run.
    pub(super) holding_by_task: BTreeMap<TaskIx, u32>,
    /// Instances that are not final.
    pub(super) unfinished: usize,
}

impl Index {
    pub(super) fn new(dag: &Dag, tasks: &[Instances]) -> Self {
        let mut index = Self { upstreams: vec![Tally::default(); tasks.len()], ..Self::default() };
        for (ix, task) in dag.tasks().iter().enumerate() {
            if task.is_teardown() {
                index.setups.insert(ix, Tally::default());
                for &setup in &task.teardown_for {
                    index.teardowns.entry(setup).or_default().push(ix);
                }
            }
        }
        for (task, instances) in tasks.iter().enumerate() {
            for (map_index, instance) in each(instances) {
                index.count(dag, TiRef { task, map_index }, instance, 1);
            }
        }
        index
    }

    /// Follows an instance from one value to the next.
    pub(super) fn follow(&mut self, dag: &Dag, ti: TiRef, before: &TaskInstance, after: &TaskInstance) {
        self.count(dag, ti, before, -1);
        self.count(dag, ti, after, 1);
    }

    /// Counts an instance in (1) or out (-1).
    pub(super) fn count(&mut self, dag: &Dag, ti: TiRef, instance: &TaskInstance, by: i32) {
        for &down in dag.downstream(ti.task) {
            self.upstreams[down].count(instance.state, by);
        }
        for teardown in self.teardowns.get(&ti.task).into_iter().flatten() {
            self.setups.entry(*teardown).or_default().count(instance.state, by);
        }
        if !instance.state.is_final() {
            self.unfinished =
                self.unfinished.checked_add_signed(by as isize).expect("counted in before it is counted out");
        }
        let task = dag.task(ti.task);
        if instance.state.holds_slots() {
            let add =
                |n: &mut u32| *n = n.checked_add_signed(by).expect("counted in before it is counted out");
            add(&mut self.holding);
            if task.max_active_tis_per_dagrun.is_some() || task.max_active_tis_per_dag.is_some() {
                add(self.holding_by_task.entry(ti.task).or_default());
                self.holding_by_task.retain(|_, n| *n > 0);
            }
        }
        let place = (Reverse(dag.priority(ti.task)), ti);
        match instance.state {
            TaskState::Scheduled => line(&mut self.ready, Lane::of(task, ti.task), place, by),
            TaskState::Queued => line(&mut self.queued, task.queue.clone(), place, by),
            TaskState::Deferred | TaskState::UpForRetry => {
                let at = instance.resume_at.expect("a waiting instance knows until when");
                if by > 0 {
                    self.timers.insert((at, ti));
                } else {
                    self.timers.remove(&(at, ti));
                }
            }
            TaskState::None
            | TaskState::Running
            | TaskState::Success
            | TaskState::Failed
            | TaskState::Skipped
            | TaskState::UpstreamFailed
            | TaskState::Removed
            | TaskState::Cancelled => {}
        }
    }
}

/// Puts a place into its line, or takes it out; empty lines are not kept.
fn line<K: Ord>(lines: &mut BTreeMap<K, BTreeSet<Place>>, key: K, place: Place, by: i32) {
    if by > 0 {
        lines.entry(key).or_default().insert(place);
    } else if let Some(set) = lines.get_mut(&key) {
        set.remove(&place);
        if set.is_empty() {
            lines.remove(&key);
        }
    }
}

/// The instances of a task with their map indexes.
pub(super) fn each(instances: &Instances) -> impl Iterator<Item = (i32, &TaskInstance)> {
    let (first, all) = match instances {
        Instances::One(one) | Instances::Unexpanded(one) => (UNMAPPED, std::slice::from_ref(one)),
        Instances::Mapped(many) => (0, many.as_slice()),
    };
    (first..).zip(all)
}
