//! What should run: [`Dag`], its tasks and the order among them. Acyclic by construction.
//!
//! After this there are no optional settings with hidden defaults and no text to interpret: the DAG bag
//! has filled every gap. A task's own settings ([`Task::spec`]) stay closed here; its kind reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::graph::{cycle_path, needed_setups, priorities, reach, topological_order};
use super::ids::{DagHash, DagId, PoolName, QueueName, TaskId};
use super::state::spelled;
pub use super::task::{DEFAULT_POOL, DEFAULT_QUEUE, Expand, RetryPolicy, Task, TriggerRule, WeightRule};
use super::timetable::{Deadline, Schedule};

/// The most tasks a DAG may have.
pub const TASKS_MAX: usize = 100_000;
/// The most instances one mapped task may have.
pub const MAPPED_MAX: u32 = 100_000;

/// A task's place in [`Dag::tasks`].
pub type TaskIx = usize;

spelled! {
    /// What happens to a new run when the DAG's active runs are at their limit.
    Overlap {
        /// It waits.
        Queue = "queue",
        /// It is not created.
        Skip = "skip",
        /// It takes the place of the oldest, which is cancelled.
        Replace = "replace",
    }
}

/// Why one task comes after another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Because {
    /// The author said so in `depends_on`.
    Declared,
    /// It reads this dataset, which the other writes.
    Data(Arc<str>),
    /// Its `expand` or a template reads the other's outputs.
    Outputs,
    /// It is the other's teardown.
    Teardown,
}

/// One edge: `downstream` comes after `upstream`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Comes first.
    pub upstream: TaskIx,
    /// Comes after it.
    pub downstream: TaskIx,
    /// Why.
    pub because: Because,
}

/// Settings of the whole DAG. Texts for people (`description`, `doc_md`, …) stay in the DAG's source.
#[derive(Debug, Clone, PartialEq)]
pub struct DagSettings {
    /// Runs at once.
    pub max_active_runs: u32,
    /// Beyond it.
    pub overlap: Overlap,
    /// Running tasks of one run at once.
    pub max_active_tasks: u32,
    /// From the run's start; the run fails, its unfinished tasks are skipped.
    pub dagrun_timeout: Option<Duration>,
    /// The first failed task fails the run.
    pub fail_fast: bool,
    /// Failed runs in a row after which the DAG is paused; 0 is never.
    pub max_consecutive_failed_dag_runs: u32,
    /// Alert routes; empty means the default route.
    pub alerts: Vec<Arc<str>>,
    /// When it runs.
    pub schedule: Schedule,
    /// An alert if a run has not succeeded in time.
    pub deadline: Option<Deadline>,
}

impl Default for DagSettings {
    fn default() -> Self {
        Self {
            max_active_runs: 16,
            overlap: Overlap::Queue,
            max_active_tasks: 16,
            dagrun_timeout: None,
            fail_fast: false,
            max_consecutive_failed_dag_runs: 0,
            alerts: Vec::new(),
            schedule: Schedule::default(),
            deadline: None,
        }
    }
}

/// What is wrong with a set of tasks and edges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DagError {
    /// Tasks that come after themselves, in order, the first repeated at the end.
    #[error("these tasks wait for each other: {}", path.iter().map(ToString::to_string).collect::<Vec<_>>().join(" -> "))]
    Cycle {
        /// The round trip.
        path: Vec<TaskId>,
    },
    /// Two tasks of one name.
    #[error("two tasks are called `{0}`")]
    Duplicate(TaskId),
    /// More tasks than [`TASKS_MAX`].
    #[error("a DAG may have at most {TASKS_MAX} tasks, this one has {0}")]
    TooMany(usize),
}

/// What should run. Immutable; a run is pinned to one by its [`DagHash`].
#[derive(Debug, Clone)]
pub struct Dag {
    /// Its name.
    pub id: DagId,
    /// The hash of the text it was made from.
    pub hash: DagHash,
    /// Settings of the whole.
    pub settings: DagSettings,
    tasks: Vec<Task>,
    by_id: BTreeMap<TaskId, TaskIx>,
    edges: Vec<Edge>,
    upstream: Vec<Vec<TaskIx>>,
    downstream: Vec<Vec<TaskIx>>,
    derived: Derived,
}

/// What follows from tasks and edges, by [`TaskIx`] where not said otherwise.
#[derive(Debug, Clone)]
struct Derived {
    topological: Vec<TaskIx>,
    /// Where each task stands in `topological`.
    places: Vec<usize>,
    priority: Vec<i64>,
    leaves: Vec<bool>,
    /// The setups each task needs.
    needed_setups: Vec<Vec<TaskIx>>,
    /// The tasks that need a setup without being its direct downstream.
    scopes: Vec<Vec<TaskIx>>,
    /// Names of the pools in use, ascending; the next are places in it.
    pools: Vec<PoolName>,
    pool_of: Vec<usize>,
    /// The same for queues.
    queues: Vec<QueueName>,
    queue_of: Vec<usize>,
}

fn numbered<'a, Name: Ord + Clone + 'a>(
    names: impl Iterator<Item = &'a Name> + Clone,
) -> (Vec<Name>, Vec<usize>) {
    let distinct: BTreeSet<&Name> = names.clone().collect();
    let distinct: Vec<Name> = distinct.into_iter().cloned().collect();
    let number = |name: &Name| distinct.binary_search(name).expect("every name was collected");
    let numbers = names.map(number).collect();
    (distinct, numbers)
}

impl Dag {
    /// Puts tasks in order. Edges may repeat, for several reasons; teardown edges are added here.
    ///
    /// # Errors
    /// [`DagError`]: a cycle with its path, a name used twice, or too many tasks.
    ///
    /// # Panics
    /// If an edge names a task that is not there: the caller resolves names.
    pub fn new(
        id: DagId,
        hash: DagHash,
        settings: DagSettings,
        tasks: Vec<Task>,
        mut edges: Vec<Edge>,
    ) -> Result<Self, DagError> {
        if tasks.len() > TASKS_MAX {
            return Err(DagError::TooMany(tasks.len()));
        }
        let mut by_id = BTreeMap::new();
        for (ix, task) in tasks.iter().enumerate() {
            if by_id.insert(task.id.clone(), ix).is_some() {
                return Err(DagError::Duplicate(task.id.clone()));
            }
            for &setup in &task.teardown_for {
                edges.push(Edge { upstream: setup, downstream: ix, because: Because::Teardown });
            }
        }
        edges.sort_by(|a, b| {
            (a.upstream, a.downstream, &a.because).cmp(&(b.upstream, b.downstream, &b.because))
        });
        edges.dedup();
        let mut upstream = vec![Vec::new(); tasks.len()];
        let mut downstream = vec![Vec::new(); tasks.len()];
        let pairs: BTreeSet<_> = edges.iter().map(|e| (e.upstream, e.downstream)).collect();
        for &(up, down) in &pairs {
            assert!(up < tasks.len() && down < tasks.len(), "edge {up} -> {down} of {} tasks", tasks.len());
            downstream[up].push(down);
            upstream[down].push(up);
        }
        let topological = topological_order(&upstream, &downstream)
            .ok_or_else(|| DagError::Cycle { path: cycle_path(&tasks, &downstream) })?;
        let priority = priorities(&tasks, &topological, &upstream, &downstream);
        let mut places = vec![0; tasks.len()];
        for (place, &ix) in topological.iter().enumerate() {
            places[ix] = place;
        }
        let needed_setups = needed_setups(&tasks, &upstream, &downstream);
        let mut scopes = vec![Vec::new(); tasks.len()];
        for (ix, setups) in needed_setups.iter().enumerate() {
            for &setup in setups.iter().filter(|setup| !upstream[ix].contains(setup)) {
                scopes[setup].push(ix);
            }
        }
        let (pools, pool_of) = numbered(tasks.iter().map(|task| &task.pool));
        let (queues, queue_of) = numbered(tasks.iter().map(|task| &task.queue));
        let leaf = |ix: TaskIx| {
            !tasks[ix].is_teardown() && downstream[ix].iter().all(|&down: &TaskIx| tasks[down].is_teardown())
        };
        let leaves = (0..tasks.len()).map(leaf).collect();
        let derived = Derived {
            topological,
            places,
            priority,
            leaves,
            needed_setups,
            scopes,
            pools,
            pool_of,
            queues,
            queue_of,
        };
        Ok(Self { id, hash, settings, tasks, by_id, edges, upstream, downstream, derived })
    }

    /// All tasks, in the order of the file.
    #[must_use]
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The task at `ix`.
    #[must_use]
    pub fn task(&self, ix: TaskIx) -> &Task {
        &self.tasks[ix]
    }

    /// Where the task called `id` stands.
    #[must_use]
    pub fn find(&self, id: &TaskId) -> Option<TaskIx> {
        self.by_id.get(id).copied()
    }

    /// All edges with their reasons, sorted by upstream, then downstream.
    #[must_use]
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Direct upstreams of `ix`, each once, in ascending order.
    #[must_use]
    pub fn upstream(&self, ix: TaskIx) -> &[TaskIx] {
        &self.upstream[ix]
    }

    /// Direct downstreams of `ix`, each once, in ascending order.
    #[must_use]
    pub fn downstream(&self, ix: TaskIx) -> &[TaskIx] {
        &self.downstream[ix]
    }

    /// Every task after all its upstreams; ties in the order of the file.
    #[must_use]
    pub fn topological(&self) -> &[TaskIx] {
        &self.derived.topological
    }

    /// The priority that follows from `priority_weight` and `weight_rule`; greater goes first.
    #[must_use]
    pub fn priority(&self, ix: TaskIx) -> i64 {
        self.derived.priority[ix]
    }

    /// All tasks that come after `ix`, directly or not, without `ix`.
    #[must_use]
    pub fn descendants(&self, ix: TaskIx) -> BTreeSet<TaskIx> {
        reach(ix, &self.downstream)
    }

    /// All tasks that come before `ix`, directly or not, without `ix`.
    #[must_use]
    pub fn ancestors(&self, ix: TaskIx) -> BTreeSet<TaskIx> {
        reach(ix, &self.upstream)
    }

    /// Whether the outcome of `ix` decides the run's: no downstream but teardowns, and itself none.
    #[must_use]
    pub fn is_leaf(&self, ix: TaskIx) -> bool {
        self.derived.leaves[ix]
    }

    /// Where `ix` stands in [`Dag::topological`].
    pub(super) fn place(&self, ix: TaskIx) -> usize {
        self.derived.places[ix]
    }

    /// The setups whose success `ix` needs, whatever its trigger rule.
    #[must_use]
    pub fn needed_setups(&self, ix: TaskIx) -> &[TaskIx] {
        &self.derived.needed_setups[ix]
    }

    /// Tasks that need the setup `ix` without being its direct downstream.
    pub(super) fn scope(&self, ix: TaskIx) -> &[TaskIx] {
        &self.derived.scopes[ix]
    }

    /// Names of the pools in use, in ascending order.
    pub fn pools(&self) -> &[PoolName] {
        &self.derived.pools
    }

    /// The place of the task's pool in [`Dag::pools`].
    pub(super) fn pool_of(&self, ix: TaskIx) -> usize {
        self.derived.pool_of[ix]
    }

    /// Names of the queues in use, in ascending order.
    pub fn queues(&self) -> &[QueueName] {
        &self.derived.queues
    }

    /// The place of the task's queue in [`Dag::queues`].
    pub(super) fn queue_of(&self, ix: TaskIx) -> usize {
        self.derived.queue_of[ix]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dag(names: &[&str], edges: &[(usize, usize)]) -> Result<Dag, DagError> {
        let tasks =
            names.iter().map(|n| Task::new(TaskId::parse(n).expect("a valid name"), "bash")).collect();
        let edges = edges
            .iter()
            .map(|&(upstream, downstream)| Edge { upstream, downstream, because: Because::Declared })
            .collect();
        Dag::new(
            DagId::parse("d").expect("a valid name"),
            DagHash("0".into()),
            DagSettings::default(),
            tasks,
            edges,
        )
    }

    #[test]
    fn a_cycle_is_refused_with_its_path() {
        let error = dag(&["a", "b", "c", "d"], &[(0, 1), (1, 2), (2, 1), (2, 3)]).unwrap_err();
        assert_eq!(error.to_string(), "these tasks wait for each other: b -> c -> b");
        let error = dag(&["a"], &[(0, 0)]).unwrap_err();
        assert_eq!(error.to_string(), "these tasks wait for each other: a -> a");
    }

    #[test]
    fn order_and_priority_follow_the_edges() {
        let dag = dag(&["c", "b", "a"], &[(2, 1), (1, 0)]).expect("no cycle");
        assert_eq!(dag.topological(), [2, 1, 0]);
        assert_eq!([dag.priority(2), dag.priority(1), dag.priority(0)], [3, 2, 1]);
        assert!(dag.is_leaf(0) && !dag.is_leaf(1));
    }
}
