//! What may happen to a run ([`Input`]), what room it shares with others ([`Capacity`]) and what follows
//! ([`Decision`]). Plain values; `step` is the only code that makes a [`Change`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::alert::{Alert, Recovery};
use super::dag::{Dag, TaskIx};
use super::ids::{Fence, PoolName, QueueName, SessionId, TaskId, Timestamp};
use super::reason::Reason;
use super::run::{Outputs, TaskInstance, TiRef};
use super::state::{RunState, TaskState, spelled};

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
    /// Why the first move was made, if it moved more than once.
    pub first_reason: Option<Reason>,
    /// Why the last move was made.
    pub reason: Reason,
}

impl Change {
    /// Where the first move led, and why it was made: how an attempt that was running ended.
    #[must_use]
    pub fn first_move(&self) -> (TaskState, &Reason) {
        let state = self.via.first().copied().unwrap_or(self.to.state);
        (state, self.first_reason.as_ref().unwrap_or(&self.reason))
    }
}

/// The run itself moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunChange {
    /// The state before.
    pub from: RunState,
    /// The state after.
    pub to: RunState,
    /// When it left `queued`; absent after it was put back.
    pub started_at: Option<Timestamp>,
    /// When it became final; present exactly in final states.
    pub ended_at: Option<Timestamp>,
    /// `success` over a failed task in the middle.
    pub with_failures: bool,
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
        /// The task is a gate, and what it judged may not be published. No attempt can help.
        Blocked = "blocked",
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
    /// People may say `success`, `failed` or `skipped`, nothing else.
    #[error("a task instance cannot be marked `{state}`, only `success`, `failed` or `skipped`")]
    NotAMark {
        /// What was asked.
        state: TaskState,
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
    /// Workers with free slots that can be handed a claim at once: they claim in the same step. Without one
    /// instances stay `queued` until a step that has one.
    pub workers: Vec<WorkerSlots>,
    /// Other runs that are `running` and count against the same limit: those of this DAG, or of this backfill.
    pub other_active_runs: u32,
    /// The limit they count against, where it is not the DAG's `max_active_runs`: a backfill has its own.
    pub active_runs_max: Option<u32>,
    /// Instances in other runs of this DAG that hold slots, for tasks with `max_active_tis_per_dag`.
    pub other_active_tis: BTreeMap<TaskIx, u32>,
    /// The run before this one, for `depends_on_past`; `None` lets every task pass.
    pub previous: Option<PreviousRun>,
    /// A run of the same DAG or backfill with an earlier date is `queued`. Measured where tasks depend on the run
    /// before, otherwise false: there runs begin in the order of their dates.
    pub earlier_waits: bool,
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

impl Capacity {
    /// How many runs may be `running` at once, this one included.
    #[must_use]
    pub fn runs_max(&self, dag: &Dag) -> u32 {
        self.active_runs_max.unwrap_or(dag.settings.max_active_runs)
    }
}

/// A worker that can be handed a claim at once.
#[derive(Debug, Clone)]
pub struct WorkerSlots {
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

/// An instance that a worker starts once the decision is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub ti: TiRef,
    /// Who.
    pub session: SessionId,
    /// Under which fence.
    pub fence: Fence,
    /// The attempt, from 1.
    pub try_number: u32,
}

/// What follows from a step. The run value is already as after it; if the commit is refused, the value is
/// thrown away and loaded again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// At most one per instance, in ascending order.
    pub changes: Vec<Change>,
    /// The run's own move.
    pub run_change: Option<RunChange>,
    /// Mapped tasks whose list became known: they now have this many instances. The placeholder row, if
    /// there is one, gives way; instances that are missing are added, `none` before the changes above.
    pub expanded: Vec<(TaskIx, u32)>,
    /// What accepted attempts left.
    pub outputs: Vec<(TiRef, Outputs)>,
    /// Accepted successes of tasks that write assets: each is news of everything among its `outlets`.
    pub published: Vec<TiRef>,
    /// What workers start after the commit. Each has its [`Change`] to `running`.
    pub claims: Vec<Claim>,
    /// Attempts to be killed: their fence is void.
    pub revoked: Vec<(TiRef, Fence)>,
    /// Trouble that people should hear of; whether and where it is sent is decided elsewhere.
    pub alerts: Vec<Alert>,
    /// What the end of the run shows to be well again; present when it succeeds or fails.
    pub recovery: Option<Arc<Recovery>>,
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
            && self.recovery.is_none()
    }
}
