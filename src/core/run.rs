//! One execution of a DAG as a plain value ([`Run`]), what may happen to it ([`Input`]) and what follows
//! ([`Decision`]).
//!
//! `step` is the only code that makes a [`Change`]; the store is the only code that writes one down.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::dag::{Dag, Task, TaskIx};
use super::ids::{DagHash, Fence, PoolName, QueueName, RunKey, SessionId, TaskId, Timestamp};
use super::index::Index;
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

/// What an instance waits for or why it moved, in the words people are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Its trigger rule is satisfied, limits and pool have room.
    Ready,
    /// A worker took it.
    Claimed,
    /// The attempt reported success.
    Succeeded,
    /// The attempt failed and another follows: the error and the attempts used and allowed.
    WillRetry {
        /// What the attempt reported.
        error: Arc<str>,
        /// This attempt, from 1.
        try_number: u32,
        /// Attempts allowed.
        tries_max: u32,
    },
    /// The attempt failed and none follows.
    GaveUp {
        /// What the attempt reported.
        error: Arc<str>,
    },
    /// The worker was lost; the attempt is repeated without using a retry.
    WorkerLost {
        /// How often that happened since the last clear.
        lost_count: u32,
    },
    /// The worker was lost too often.
    Poisoned {
        /// How often that happened since the last clear.
        lost_count: u32,
    },
    /// The attempt asked to be continued later.
    Deferred,
    /// The wait of a retry or a deferral is over.
    Due,
    /// The worker gave the attempt back unharmed (shutdown).
    Interrupted,
    /// The trigger rule cannot be satisfied any more: rule and the upstream that decided, if one did.
    Rule {
        /// The rule's spelling.
        rule: &'static str,
        /// The upstream that decided it.
        upstream: Option<TaskId>,
    },
    /// The task itself skipped: `when` was false, or the kind said so.
    SkippedItself {
        /// Its words.
        why: Arc<str>,
    },
    /// A branch chose otherwise.
    NotChosen {
        /// The branching task.
        by: TaskId,
    },
    /// The list it is mapped over is empty.
    EmptyList,
    /// The list it is mapped over is now shorter, or too long.
    Expansion {
        /// The list's length.
        length: u32,
    },
    /// The run ended first (`dagrun_timeout`).
    RunTimedOut,
    /// A task failed and the DAG says `fail_fast`.
    FailFast {
        /// The task that failed.
        failed: TaskId,
    },
    /// A person cancelled the run.
    Cancelled,
    /// A person cleared it.
    Cleared,
    /// A person marked it.
    Marked,
    /// Waits: these upstreams are not final (first few, and how many in all).
    WaitsForUpstream {
        /// The first of them.
        first: TaskId,
        /// How many.
        count: usize,
    },
    /// Waits: the pool is full.
    WaitsForPool {
        /// Which.
        pool: PoolName,
        /// Slots in use.
        used: u32,
        /// Slots in all.
        size: u32,
    },
    /// Waits: `max_active_tasks` of the run.
    WaitsForRunTasks {
        /// The limit.
        limit: u32,
    },
    /// Waits: `max_active_tis_per_dag` or `max_active_tis_per_dagrun`.
    WaitsForTaskLimit {
        /// Which key.
        key: &'static str,
        /// The limit.
        limit: u32,
    },
    /// Waits: for a time.
    WaitsUntil {
        /// `up_for_retry` or `deferred`.
        state: TaskState,
        /// When.
        at: Timestamp,
    },
    /// Waits: the same task in the previous run.
    WaitsForPast {
        /// `depends_on_past` or `wait_for_downstream`.
        key: &'static str,
        /// What stands in the way.
        state: TaskState,
    },
    /// Waits: the DAG's active runs.
    WaitsForRuns {
        /// Runs active.
        active: u32,
        /// The limit.
        limit: u32,
    },
    /// Waits: a free worker on its queue.
    WaitsForWorker {
        /// The queue.
        queue: QueueName,
    },
    /// Waits: the DAG is paused.
    Paused,
    /// A worker is at it.
    Runs,
    /// Every task is final.
    AllFinal,
    /// The run has begun.
    Started,
}

/// A task instance moves, once per step: moves through several states in one step are written as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub ti: TiRef,
    /// The state before the step: the guard of the write.
    pub from: TaskState,
    /// The fence before the step: the guard of the write.
    pub from_fence: Fence,
    /// All of it after the step.
    pub to: TaskInstance,
    /// The states in between, if it moved more than once.
    pub via: Vec<TaskState>,
    /// Why the last move was made.
    pub reason: Reason,
}

/// The run itself moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunChange {
    /// The state before.
    pub from: RunState,
    /// The state after.
    pub to: RunState,
    /// Why.
    pub reason: Reason,
}

spelled! {
    /// How a failed attempt is to be taken.
    Severity {
        /// Another attempt may help.
        Retryable = "retryable",
        /// No attempt can help.
        Permanent = "permanent",
        /// The attempt took longer than `execution_timeout`.
        TimedOut = "timed_out",
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Succeeded(Outputs),
    /// Done, and of the direct downstreams only these go on.
    Branched {
        /// Ids of direct downstream tasks (or none).
        chosen: Vec<TaskId>,
        /// What it left.
        outputs: Outputs,
    },
    /// Done, and nothing downstream goes on.
    ShortCircuited {
        /// Skip direct downstreams only and let trigger rules judge the rest.
        respect_trigger_rules: bool,
        /// What it left.
        outputs: Outputs,
    },
    /// The task skipped itself.
    Skipped {
        /// Why, for people.
        why: Arc<str>,
    },
    /// To be continued at a time.
    Deferred {
        /// When.
        until: Timestamp,
    },
    /// Failed.
    Failed {
        /// What went wrong, for people.
        error: Arc<str>,
        /// Whether trying again may help.
        severity: Severity,
    },
    /// Given back unharmed, because the worker is stopping.
    Interrupted,
}

/// What happened to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Nothing but time, or room in a limit: look again.
    Tick,
    /// A worker took a queued instance (the store's claim has written it already).
    Claimed {
        /// Which.
        ti: TiRef,
        /// Under which fence.
        fence: Fence,
        /// Who.
        session: SessionId,
    },
    /// A worker reports.
    Reported {
        /// Which.
        ti: TiRef,
        /// The fence it was claimed under.
        fence: Fence,
        /// How the attempt ended.
        outcome: Outcome,
    },
    /// The worker that holds it is gone.
    Lost {
        /// Which.
        ti: TiRef,
        /// The fence it was claimed under.
        fence: Fence,
    },
    /// A person clears instances: they run again.
    Clear {
        /// Which; those not final are killed first.
        tis: Vec<TiRef>,
    },
    /// A person says how instances ended.
    Mark {
        /// Which.
        tis: Vec<TiRef>,
        /// `success`, `failed` or `skipped`.
        state: TaskState,
    },
    /// A person ends the run.
    Cancel,
}

/// Why an input was not taken. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The write comes from a claim that has been given up.
    #[error("stale fence: the report carries {given}, the task instance has {current}", given = given.0, current = current.0)]
    StaleFence {
        /// The report's.
        given: Fence,
        /// The row's.
        current: Fence,
    },
    /// The same report was taken before: a repetition, harmless.
    #[error("already taken")]
    AlreadyTaken,
    /// No such instance.
    #[error("there is no such task instance")]
    NoSuchInstance,
    /// The table has no row for it.
    #[error("a task instance that is `{state}` cannot be {input}")]
    Illegal {
        /// The state found.
        state: TaskState,
        /// What was asked, as a participle.
        input: &'static str,
    },
    /// The run is final.
    #[error("the run is `{state}`")]
    RunIsFinal {
        /// Its state.
        state: RunState,
    },
}

/// Room that a run shares with others. Taken by value: what one step uses up is in its [`Decision`].
#[derive(Debug, Clone, Default)]
pub struct Capacity {
    /// Pools with a limit: slots in all and slots in use by *all* runs. A pool not named here has no limit.
    pub pools: BTreeMap<PoolName, PoolUse>,
    /// Free slots of the worker in this process, which claims in the same step; `None` leaves instances
    /// `queued` for a worker to claim.
    pub local: Option<LocalSlots>,
    /// Other runs of this DAG that are `running`.
    pub other_active_runs: u32,
    /// Instances in other runs of this DAG that hold slots, for tasks with `max_active_tis_per_dag`.
    pub other_active_tis: BTreeMap<TaskIx, u32>,
    /// The run before this one, for `depends_on_past`; `None` lets every task pass.
    pub previous: Option<PreviousRun>,
    /// The DAG is paused: nothing new is admitted.
    pub paused: bool,
}

/// The use of one pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUse {
    /// Slots in all.
    pub size: u32,
    /// Slots held by queued and running instances of all runs.
    pub used: u32,
}

/// The worker in this process.
#[derive(Debug, Clone)]
pub struct LocalSlots {
    /// Its session.
    pub session: SessionId,
    /// How many instances it can take now.
    pub free: u32,
    /// The queues it serves.
    pub queues: Vec<QueueName>,
}

/// What `depends_on_past` asks of the previous run.
#[derive(Debug, Clone, Default)]
pub struct PreviousRun {
    /// The worst state of each task's instances there.
    pub states: BTreeMap<TaskId, TaskState>,
}

/// An instance that this process's worker starts once the decision is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub ti: TiRef,
    /// Under which fence.
    pub fence: Fence,
    /// The attempt, from 1.
    pub try_number: u32,
}

/// Something a person should hear of; whether and where it is sent is decided elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// What kind of trouble.
    pub kind: AlertKind,
    /// The task, if it is about one.
    pub ti: Option<TiRef>,
    /// One line.
    pub summary: String,
}

spelled! {
    /// Kinds of trouble, and its end.
    AlertKind {
        /// A run failed.
        RunFailed = "run_failed",
        /// A task failed and will not be tried again.
        TaskFailed = "task_failed",
        /// A run succeeded: closes what its DAG had open.
        RunRecovered = "run_recovered",
    }
}

/// What follows from a step. The run value is already as after it; if the commit is refused, the value is
/// thrown away and loaded again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// At most one per instance, in ascending order.
    pub changes: Vec<Change>,
    /// The run's own move.
    pub run_change: Option<RunChange>,
    /// Mapped tasks whose list became known: the placeholder row gives way to this many, all `none`
    /// before the changes above.
    pub expanded: Vec<(TaskIx, u32)>,
    /// What accepted attempts left.
    pub outputs: Vec<(TiRef, Outputs)>,
    /// What the worker of this process starts after the commit. Each has its [`Change`] to `running`.
    pub claims: Vec<Claim>,
    /// Attempts to be killed: their fence is void.
    pub revoked: Vec<(TiRef, Fence)>,
    /// What people should hear.
    pub alerts: Vec<Alert>,
    /// Inputs not taken, by their place in the list given.
    pub refused: Vec<(usize, Refusal)>,
    /// When to look again even if nothing happens.
    pub next_due: Option<Timestamp>,
}

impl Decision {
    /// Whether there is anything to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.run_change.is_none()
            && self.expanded.is_empty()
            && self.outputs.is_empty()
            && self.alerts.is_empty()
    }
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

/// One run with its task instances. Made by [`Run::new`] or loaded by the store through [`Run::restore`].
///
/// Beside the rows it keeps counts (finals per upstream, the ready lanes, slots held), so that a step costs
/// what it touches. They are derived: `restore` computes them, `step` maintains them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What never changes.
    pub birth: RunBirth,
    /// Where it stands.
    pub state: RunState,
    /// Rises by one at every commit: the guard against a second writer. Kept by the store's caller.
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

/// The rows of a run, as the store has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredRun {
    /// What never changes.
    pub birth: RunBirth,
    /// Where it stands.
    pub state: RunState,
    /// The version of the last commit.
    pub version: i64,
    /// When it left `queued`.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub ended_at: Option<Timestamp>,
    /// `success` over a failed task in the middle.
    pub with_failures: bool,
    /// By [`TaskIx`].
    pub tasks: Vec<Instances>,
    /// Lengths of the lists that attempts left.
    pub list_lengths: BTreeMap<(TaskIx, Arc<str>), u32>,
}

impl Run {
    /// A new run: `queued`, every instance `none`, mapped tasks as placeholders. Version 0.
    #[must_use]
    pub fn new(birth: RunBirth, dag: &Dag) -> Self {
        let fresh = |task: &Task| match task.expand {
            Some(_) => Instances::Unexpanded(TaskInstance::new()),
            None => Instances::One(TaskInstance::new()),
        };
        let tasks = dag.tasks().iter().map(fresh).collect();
        Self::restore(
            RestoredRun {
                birth,
                state: RunState::Queued,
                version: 0,
                started_at: None,
                ended_at: None,
                with_failures: false,
                tasks,
                list_lengths: BTreeMap::new(),
            },
            dag,
        )
    }

    /// A run from its rows.
    ///
    /// # Panics
    /// If the rows are not those of `dag`: the store loads a run with the DAG version it is pinned to.
    #[must_use]
    pub fn restore(rows: RestoredRun, dag: &Dag) -> Self {
        assert_eq!(rows.tasks.len(), dag.tasks().len(), "a run has the tasks of its DAG version");
        let index = Index::new(dag, &rows.tasks);
        Self {
            birth: rows.birth,
            state: rows.state,
            version: rows.version,
            started_at: rows.started_at,
            ended_at: rows.ended_at,
            with_failures: rows.with_failures,
            tasks: rows.tasks,
            list_lengths: rows.list_lengths,
            index,
        }
    }

    /// The rows alone, as the store would load them.
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

    /// The instance, if there is one.
    #[must_use]
    pub fn instance(&self, ti: TiRef) -> Option<&TaskInstance> {
        match self.tasks.get(ti.task)? {
            Instances::One(one) | Instances::Unexpanded(one) => (ti.map_index == UNMAPPED).then_some(one),
            Instances::Mapped(many) => many.get(usize::try_from(ti.map_index).ok()?),
        }
    }

    pub(super) fn instance_mut(&mut self, ti: TiRef) -> Option<&mut TaskInstance> {
        match self.tasks.get_mut(ti.task)? {
            Instances::One(one) | Instances::Unexpanded(one) => (ti.map_index == UNMAPPED).then_some(one),
            Instances::Mapped(many) => many.get_mut(usize::try_from(ti.map_index).ok()?),
        }
    }
}
