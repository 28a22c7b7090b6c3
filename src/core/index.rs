//! What a run keeps beside its rows so that a step costs what it touches: counts of outcomes, the ready
//! frontier, slots held, timers. Derived: [`Index::of`] computes it from the rows, [`Index::moved`] maintains
//! it, and both must agree at all times.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::dag::{Dag, Task, TaskIx};
use super::ids::Timestamp;
use super::rule::Counts;
use super::run::{Instances, TiRef, UNMAPPED};
use super::state::TaskState;

/// An instance in line: greater priority first, then the order of the file, then the map index.
pub(super) type InLine = (Reverse<i64>, TiRef);

/// Instances that are `scheduled` and need the same pool.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Frontier {
    /// Those that need one slot of it and nothing else.
    pub(super) plain: BTreeSet<InLine>,
    /// Those of tasks with a condition of their own, which may block them without blocking others.
    pub(super) gated: BTreeMap<TaskIx, BTreeSet<InLine>>,
}

/// Whether the task's instances may be blocked by something that is theirs alone.
pub(super) fn is_gated(task: &Task) -> bool {
    task.pool_slots != 1
        || task.max_active_tis_per_dag.is_some()
        || task.max_active_tis_per_dagrun.is_some()
        || task.depends_on_past
        || task.wait_for_downstream
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    own: Vec<Counts>,
    upstream: Vec<Counts>,
    holding_of: Vec<u32>,
    /// By pool, as [`Dag::pools`] numbers them.
    pub(super) ready: Vec<Frontier>,
    pub(super) slots: Vec<u64>,
    /// `queued` instances by queue, as [`Dag::queues`] numbers them.
    pub(super) queued: Vec<BTreeSet<InLine>>,
    /// Mapped instances that are `none`; for all other tasks the state itself is one look away.
    pub(super) none_mapped: BTreeSet<TiRef>,
    pub(super) timers: BTreeSet<(Timestamp, TiRef)>,
    /// Instances that count against `max_active_tasks`.
    pub(super) holding: u32,
    pub(super) unfinished: u64,
    /// `failed` or `cancelled`, anywhere.
    pub(super) failed: u64,
    /// `failed` or `cancelled`, teardowns excluded.
    pub(super) failed_work: u64,
    /// `failed`, `cancelled` or `upstream_failed` leaves.
    pub(super) bad_leaves: u64,
}

impl Index {
    pub(super) fn of(dag: &Dag, rows: &[Instances]) -> Self {
        let tasks = dag.tasks().len();
        let mut index = Self {
            own: vec![Counts::default(); tasks],
            upstream: vec![Counts::default(); tasks],
            holding_of: vec![0; tasks],
            ready: vec![Frontier::default(); dag.pools().len()],
            slots: vec![0; dag.pools().len()],
            queued: vec![BTreeSet::new(); dag.queues().len()],
            none_mapped: BTreeSet::new(),
            timers: BTreeSet::new(),
            holding: 0,
            unfinished: 0,
            failed: 0,
            failed_work: 0,
            bad_leaves: 0,
        };
        for (task, instances) in rows.iter().enumerate() {
            for (ti, instance) in instances.iter(task) {
                index.enter(dag, ti, instance.state, instance.resume_at);
                index.count_own(dag, ti, instance.state, Sign::Plus);
            }
            for &down in dag.downstream(task) {
                index.upstream[down].add(index.own[task]);
            }
        }
        index
    }

    /// Outcomes of the task's own instances.
    pub(super) fn own(&self, task: TaskIx) -> Counts {
        self.own[task]
    }

    /// Outcomes of all instances of the task's direct upstreams.
    pub(super) fn upstream(&self, task: TaskIx) -> Counts {
        self.upstream[task]
    }

    /// Instances of the task that hold slots.
    pub(super) fn holding_of(&self, task: TaskIx) -> u32 {
        self.holding_of[task]
    }

    /// An instance has moved from `before` to `after`. True if that may tell its downstreams something.
    pub(super) fn moved(&mut self, dag: &Dag, ti: TiRef, before: Standing, after: Standing) -> bool {
        self.leave(dag, ti, before);
        self.enter(dag, ti, after.state, after.resume_at);
        if !before.state.is_final() && !after.state.is_final() {
            return false;
        }
        self.count(dag, ti, before.state, Sign::Minus);
        self.count(dag, ti, after.state, Sign::Plus);
        true
    }

    /// `count` instances of `task` that are `none` are there now; a placeholder that is `none` is gone.
    pub(super) fn expanded(
        &mut self,
        dag: &Dag,
        task: TaskIx,
        placeholder: bool,
        added: std::ops::Range<u32>,
    ) {
        if placeholder {
            self.count(dag, TiRef { task, map_index: UNMAPPED }, TaskState::None, Sign::Minus);
        }
        for map_index in added {
            let ti = TiRef { task, map_index: map_index.cast_signed() };
            self.none_mapped.insert(ti);
            self.count(dag, ti, TaskState::None, Sign::Plus);
        }
    }

    fn place(dag: &Dag, ti: TiRef) -> InLine {
        (Reverse(dag.priority(ti.task)), ti)
    }

    fn enter(&mut self, dag: &Dag, ti: TiRef, state: TaskState, resume_at: Option<Timestamp>) {
        match state {
            TaskState::None if ti.map_index != UNMAPPED => {
                self.none_mapped.insert(ti);
            }
            TaskState::Scheduled => {
                self.line(dag, ti.task).insert(Self::place(dag, ti));
            }
            TaskState::Queued => {
                self.queued[dag.queue_of(ti.task)].insert(Self::place(dag, ti));
            }
            TaskState::Deferred | TaskState::UpForRetry => {
                self.timers.insert((resume_at.expect("a wait has an end"), ti));
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
        if state.holds_slots() {
            self.holding += 1;
            self.holding_of[ti.task] += 1;
            self.slots[dag.pool_of(ti.task)] += u64::from(dag.task(ti.task).pool_slots);
        }
    }

    fn leave(&mut self, dag: &Dag, ti: TiRef, before: Standing) {
        match before.state {
            TaskState::None if ti.map_index != UNMAPPED => {
                self.none_mapped.remove(&ti);
            }
            TaskState::Scheduled => {
                let line = self.line(dag, ti.task);
                line.remove(&Self::place(dag, ti));
                if line.is_empty() && is_gated(dag.task(ti.task)) {
                    self.ready[dag.pool_of(ti.task)].gated.remove(&ti.task);
                }
            }
            TaskState::Queued => {
                self.queued[dag.queue_of(ti.task)].remove(&Self::place(dag, ti));
            }
            TaskState::Deferred | TaskState::UpForRetry => {
                self.timers.remove(&(before.resume_at.expect("a wait has an end"), ti));
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
        if before.state.holds_slots() {
            self.holding -= 1;
            self.holding_of[ti.task] -= 1;
            self.slots[dag.pool_of(ti.task)] -= u64::from(dag.task(ti.task).pool_slots);
        }
    }

    /// The line that instances of `task` stand in while they are `scheduled`.
    fn line(&mut self, dag: &Dag, task: TaskIx) -> &mut BTreeSet<InLine> {
        let frontier = &mut self.ready[dag.pool_of(task)];
        if is_gated(dag.task(task)) { frontier.gated.entry(task).or_default() } else { &mut frontier.plain }
    }

    /// Counts for the run, the task and its direct downstreams.
    fn count(&mut self, dag: &Dag, ti: TiRef, state: TaskState, sign: Sign) {
        self.count_own(dag, ti, state, sign);
        for &down in dag.downstream(ti.task) {
            if let Some(count) = self.upstream[down].of(state) {
                sign.apply(count);
            }
        }
    }

    fn count_own(&mut self, dag: &Dag, ti: TiRef, state: TaskState, sign: Sign) {
        if let Some(count) = self.own[ti.task].of(state) {
            sign.apply(count);
        }
        if !state.is_final() {
            sign.apply(&mut self.unfinished);
        }
        let failed = matches!(state, TaskState::Failed | TaskState::Cancelled);
        if failed {
            sign.apply(&mut self.failed);
        }
        if failed && !dag.task(ti.task).is_teardown() {
            sign.apply(&mut self.failed_work);
        }
        if (failed || state == TaskState::UpstreamFailed) && dag.is_leaf(ti.task) {
            sign.apply(&mut self.bad_leaves);
        }
    }
}

/// What the index must know of an instance's row before a move.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) state: TaskState,
    pub(super) resume_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
enum Sign {
    Plus,
    Minus,
}

impl Sign {
    fn apply<N: std::ops::AddAssign + std::ops::SubAssign + From<u8>>(self, count: &mut N) {
        match self {
            Self::Plus => *count += N::from(1),
            Self::Minus => *count -= N::from(1),
        }
    }
}
