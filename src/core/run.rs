//! One execution of a DAG as a plain value: [`Run`] and its task instances.
//!
//! What may happen to it and what follows are in [`decision`](super::decision), why in
//! [`reason`](super::reason); their names are repeated here. The rows are the truth; the index beside them
//! is derived and never stored.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub use super::alert::{Alert, AlertKind, Sign, SignKind};
use super::dag::{Dag, TaskIx};
pub use super::decision::{
    Capacity, Change, Claim, Decision, Input, Outcome, PoolUse, PreviousRun, Refusal, RunChange, Severity,
    WorkerSlots,
};
use super::ids::{DagHash, Fence, QueueName, RunKey, SessionId, Timestamp};
use super::index::{Frontier, Index};
pub use super::reason::Reason;
use super::state::{RunState, TaskState, spelled};

spelled! {
    /// Why a run exists.
    RunType {
        /// A person or a program asked for it.
        Manual = "manual",
        /// Its DAG's schedule did.
        Scheduled = "scheduled",
        /// It repeats a past interval on request.
        Backfill = "backfill",
    }
}

/// The `map_index` of an instance that is not mapped.
pub const UNMAPPED: i32 = -1;

/// One task instance of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TiRef {
    /// The task.
    pub task: TaskIx,
    /// From 0 for mapped instances, [`UNMAPPED`] for the others.
    pub map_index: i32,
}

/// The state of one task instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInstance {
    /// Where it stands.
    pub state: TaskState,
    /// The attempt under way or last made, from 1; 0 before the first. Starts again at 0 after a clear.
    pub try_number: u32,
    /// The fence of the last claim.
    pub fence: Fence,
    /// Attempts lost with their worker since the last clear; they are not charged to retries.
    pub lost_count: u32,
    /// How often it was cleared.
    pub generation: u32,
    /// When `up_for_retry` or `deferred` ends; present exactly in these states.
    pub resume_at: Option<Timestamp>,
    /// When the last attempt was claimed.
    pub started_at: Option<Timestamp>,
    /// When it became final; present exactly in final states.
    pub ended_at: Option<Timestamp>,
    /// Who holds it; present exactly in `running`.
    pub session: Option<SessionId>,
}

impl TaskInstance {
    /// As a new run has it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            state: TaskState::None,
            try_number: 0,
            fence: Fence::default(),
            lost_count: 0,
            generation: 0,
            resume_at: None,
            started_at: None,
            ended_at: None,
            session: None,
        }
    }
}

impl Default for TaskInstance {
    fn default() -> Self {
        Self::new()
    }
}

/// The instances of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instances {
    /// A task that is not mapped.
    One(TaskInstance),
    /// A mapped task whose list is not known yet: it stands for all of them, with `map_index` [`UNMAPPED`].
    Unexpanded(TaskInstance),
    /// A mapped task, `map_index` being the place in the list. A list of none leaves `Unexpanded`, skipped.
    Mapped(Vec<TaskInstance>),
}

/// What an attempt left for others: a JSON object, closed to this floor but for the lengths of its lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outputs {
    /// The object as JSON text; empty text is no outputs.
    pub json: Arc<str>,
    /// The length of each member that is a list, by name: what `expand` needs to know.
    pub list_lengths: Vec<(Arc<str>, u32)>,
    /// What people should hear of though the attempt succeeded.
    pub signs: Vec<Sign>,
}

/// What is so by birth: the part of a run that never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunBirth {
    /// Its name.
    pub key: RunKey,
    /// The DAG version it is pinned to.
    pub dag_hash: DagHash,
    /// Why it exists.
    pub run_type: RunType,
    /// The moment it stands for.
    pub logical_date: Timestamp,
    /// The span of data it stands for: from here …
    pub data_interval_start: Timestamp,
    /// … up to, not including, here.
    pub data_interval_end: Timestamp,
    /// Its parameters as a JSON object.
    pub params: Arc<str>,
    /// When it was created.
    pub queued_at: Timestamp,
}

impl fmt::Display for TiRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.map_index == UNMAPPED {
            write!(f, "task {}", self.task)
        } else {
            write!(f, "task {}[{}]", self.task, self.map_index)
        }
    }
}

/// A run as rows hold it: what [`Run::restore`] is given and [`Run::rows`] gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredRun {
    /// What never changes.
    pub birth: RunBirth,
    /// Where it stands.
    pub state: RunState,
    /// The commits so far.
    pub version: i64,
    /// When it left `queued`.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub ended_at: Option<Timestamp>,
    /// `success` over a failed task in the middle.
    pub with_failures: bool,
    /// By [`TaskIx`]; as many as the DAG has tasks.
    pub tasks: Vec<Instances>,
    /// Lengths of the lists that attempts left.
    pub list_lengths: BTreeMap<(TaskIx, Arc<str>), u32>,
}

/// One run with its task instances. Made by [`Run::new`] or loaded by the store through [`Run::restore`].
///
/// Beside the rows it keeps counts (finals per upstream, the ready frontier, slots held), so that a step
/// costs what it touches. They are derived: `restore` computes them, `step` maintains them.
#[derive(Debug, Clone)]
pub struct Run {
    /// What never changes.
    pub birth: RunBirth,
    /// Where it stands.
    pub state: RunState,
    /// Rises by one at every commit: the guard against a second writer. Whoever commits a step sets it;
    /// the step itself leaves it alone.
    pub version: i64,
    /// When it left `queued`.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub ended_at: Option<Timestamp>,
    /// `success` over a failed task in the middle.
    pub with_failures: bool,
    /// By [`TaskIx`].
    pub tasks: Vec<Instances>,
    /// Lengths of the lists that attempts left, for `expand`.
    pub list_lengths: BTreeMap<(TaskIx, Arc<str>), u32>,
    pub(super) index: Index,
}

impl Run {
    /// A run that has not begun: `queued`, every instance `none`, version 0, mapped tasks as placeholders.
    #[must_use]
    pub fn new(birth: RunBirth, dag: &Dag) -> Self {
        let instances = |ix| match dag.task(ix).expand {
            None => Instances::One(TaskInstance::new()),
            Some(_) => Instances::Unexpanded(TaskInstance::new()),
        };
        let tasks = (0..dag.tasks().len()).map(instances).collect();
        let state = RunState::Queued;
        let (started_at, ended_at, list_lengths) = (None, None, BTreeMap::new());
        Self::restore(
            RestoredRun {
                birth,
                state,
                version: 0,
                started_at,
                ended_at,
                with_failures: false,
                tasks,
                list_lengths,
            },
            dag,
        )
    }

    /// A run from its rows. Costs one look at every instance and every edge.
    ///
    /// # Panics
    /// If the rows are not those of a run of `dag` (the number of tasks differs).
    #[must_use]
    pub fn restore(rows: RestoredRun, dag: &Dag) -> Self {
        assert_eq!(rows.tasks.len(), dag.tasks().len(), "the rows belong to another version of `{}`", dag.id);
        let index = Index::of(dag, &rows.tasks);
        let RestoredRun { birth, state, version, started_at, ended_at, with_failures, tasks, list_lengths } =
            rows;
        Self { birth, state, version, started_at, ended_at, with_failures, tasks, list_lengths, index }
    }

    /// The rows alone.
    #[must_use]
    pub fn rows(&self) -> RestoredRun {
        RestoredRun {
            birth: self.birth.clone(),
            state: self.state,
            version: self.version,
            started_at: self.started_at,
            ended_at: self.ended_at,
            with_failures: self.with_failures,
            tasks: self.tasks.clone(),
            list_lengths: self.list_lengths.clone(),
        }
    }

    /// Whether what is kept beside the rows is what the rows say. Always true; costs a look at everything.
    #[must_use]
    pub fn index_is_right(&self, dag: &Dag) -> bool {
        self.index == Index::of(dag, &self.tasks)
    }

    /// The instance `ti`, if there is one.
    #[must_use]
    pub fn instance(&self, ti: TiRef) -> Option<&TaskInstance> {
        match self.tasks.get(ti.task)? {
            Instances::One(one) | Instances::Unexpanded(one) => (ti.map_index == UNMAPPED).then_some(one),
            Instances::Mapped(all) => all.get(usize::try_from(ti.map_index).ok()?),
        }
    }

    pub(super) fn instance_mut(&mut self, ti: TiRef) -> Option<&mut TaskInstance> {
        match self.tasks.get_mut(ti.task)? {
            Instances::One(one) | Instances::Unexpanded(one) => (ti.map_index == UNMAPPED).then_some(one),
            Instances::Mapped(all) => all.get_mut(usize::try_from(ti.map_index).ok()?),
        }
    }

    /// Whether instances wait for a worker of a queue that `serves` names.
    #[must_use]
    pub fn waits_for_worker(&self, dag: &Dag, serves: impl Fn(&QueueName) -> bool) -> bool {
        let mut lines = dag.queues().iter().zip(&self.index.queued);
        self.state == RunState::Running && lines.any(|(queue, line)| !line.is_empty() && serves(queue))
    }

    /// Whether instances wait for a pool, a limit or a run before: for room that others give back.
    #[must_use]
    pub fn waits_for_room(&self) -> bool {
        let waits = |frontier: &Frontier| !frontier.plain.is_empty() || !frontier.gated.is_empty();
        self.state == RunState::Running && self.index.ready.iter().any(waits)
    }

    /// All instances, in ascending order.
    pub fn instances(&self) -> impl Iterator<Item = (TiRef, &TaskInstance)> {
        self.tasks.iter().enumerate().flat_map(|(task, instances)| instances.iter(task))
    }
}

impl Instances {
    /// The instances of the task at `task`, in ascending order.
    pub fn iter(&self, task: TaskIx) -> impl Iterator<Item = (TiRef, &TaskInstance)> {
        let (first, all) = match self {
            Self::One(one) | Self::Unexpanded(one) => (UNMAPPED, std::slice::from_ref(one)),
            Self::Mapped(all) => (0, all.as_slice()),
        };
        (first..).zip(all).map(move |(map_index, instance)| (TiRef { task, map_index }, instance))
    }
}
