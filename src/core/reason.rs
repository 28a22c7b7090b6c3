//! Why a task instance moved or waits: [`Reason`], and the one sentence that people are shown.
//!
//! Nothing is decided here; `step` and `why` choose the reason.

use std::fmt;
use std::sync::Arc;

use super::ids::{PoolName, QueueName, TaskId, Timestamp};
use super::state::TaskState;

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
    /// The upstream that should have left a list under `key` did not.
    NoList {
        /// The upstream.
        task: TaskId,
        /// The name of the output.
        key: String,
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
        /// The attempt that failed or was put off, from 1.
        try_number: u32,
        /// Attempts allowed.
        tries_max: u32,
    },
    /// Waits: the same task in the previous run.
    WaitsForPast {
        /// `depends_on_past` or `wait_for_downstream`.
        key: &'static str,
        /// The task there that stands in the way: the same, or a direct downstream of it.
        task: TaskId,
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
    /// Waits: an earlier run of the DAG, which begins first.
    WaitsForEarlier,
    /// Waits: a free worker on its queue.
    WaitsForWorker {
        /// The queue.
        queue: QueueName,
    },
    /// Waits: the DAG is paused.
    Paused,
    /// Waits: one instance needs more slots than its pool has.
    NeverFits {
        /// Which.
        pool: PoolName,
        /// Slots one instance needs.
        slots: u32,
        /// Slots in all.
        size: u32,
    },
    /// A worker is at it.
    Runs,
    /// It is final; there is nothing to wait for.
    Ended {
        /// Its state.
        state: TaskState,
        /// Since when.
        at: Option<Timestamp>,
    },
    /// There is no such instance in the run.
    NoSuchInstance,
    /// Every task is final, and these failed or could not run.
    TasksFailed {
        /// How many instances.
        count: u64,
    },
    /// Every task is final.
    AllFinal,
    /// The run has begun.
    Started,
    /// The run could only wait for an earlier one and went back behind it.
    GaveWay,
}

impl fmt::Display for Reason {
    /// One sentence, lower case, without a full stop: what it waits for, or why it moved.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitsForUpstream { .. }
            | Self::WaitsForPool { .. }
            | Self::WaitsForRunTasks { .. }
            | Self::WaitsForTaskLimit { .. }
            | Self::WaitsUntil { .. }
            | Self::WaitsForPast { .. }
            | Self::WaitsForRuns { .. }
            | Self::WaitsForEarlier
            | Self::WaitsForWorker { .. }
            | Self::Paused
            | Self::NeverFits { .. } => self.wait(f),
            Self::WillRetry { .. }
            | Self::GaveUp { .. }
            | Self::WorkerLost { .. }
            | Self::Poisoned { .. }
            | Self::Rule { .. }
            | Self::SkippedItself { .. }
            | Self::NotChosen { .. }
            | Self::Expansion { .. }
            | Self::NoList { .. }
            | Self::FailFast { .. }
            | Self::TasksFailed { .. }
            | Self::Ended { .. } => self.story(f),
            Self::Ready => f.write_str("ready: its trigger rule is satisfied and limits have room"),
            Self::Claimed => f.write_str("a worker took it"),
            Self::Succeeded => f.write_str("it succeeded"),
            Self::Deferred => f.write_str("it asked to be continued later"),
            Self::Due => f.write_str("its wait is over"),
            Self::Interrupted => f.write_str("its worker stopped and gave it back; the attempt is repeated"),
            Self::EmptyList => f.write_str("the list it is mapped over is empty"),
            Self::RunTimedOut => f.write_str("the run took longer than its `dagrun_timeout`"),
            Self::Cancelled => f.write_str("a person cancelled the run"),
            Self::Cleared => f.write_str("a person cleared it"),
            Self::Marked => f.write_str("a person marked it"),
            Self::Runs => f.write_str("a worker is at it"),
            Self::AllFinal => f.write_str("every task is final"),
            Self::Started => f.write_str("the run has begun"),
            Self::GaveWay => f.write_str("it could only wait for an earlier run and goes back behind it"),
            Self::NoSuchInstance => f.write_str("there is no such task instance in the run"),
        }
    }
}

impl Reason {
    #[expect(clippy::wildcard_enum_match_arm, reason = "`fmt` names every variant and sends only these here")]
    fn wait(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitsForUpstream { first, count: 1 } => write!(f, "waits for `{first}`"),
            Self::WaitsForUpstream { first, count } => {
                let more = count.saturating_sub(1);
                write!(f, "waits for `{first}` and {more} more upstream task{}", plural(more))
            }
            Self::WaitsForPool { pool, used, size } => {
                write!(f, "waits for pool `{pool}`: {used} of {size} slot{} used", plural(*size as usize))
            }
            Self::WaitsForRunTasks { limit } => {
                write!(f, "waits for its run: {limit} of `max_active_tasks` {limit} at work")
            }
            Self::WaitsForTaskLimit { key, limit } => {
                write!(f, "waits for other instances of the task: `{key}` allows {limit} at once")
            }
            Self::WaitsUntil { state: TaskState::UpForRetry, at, try_number, tries_max } => {
                write!(f, "waits until {at}: attempt {try_number} of {tries_max} failed")
            }
            Self::WaitsUntil { at, .. } => write!(f, "waits until {at}: it asked to be continued then"),
            Self::WaitsForPast { key, task, state } => {
                write!(f, "waits for the run before: `{task}` is `{state}` there and `{key}` is set")
            }
            Self::WaitsForRuns { active, limit } => {
                write!(
                    f,
                    "waits for the run to begin: {active} other run{} of the DAG at work, ",
                    plural(*active as usize)
                )?;
                write!(f, "`max_active_runs` is {limit}")
            }
            Self::WaitsForWorker { queue } => write!(f, "waits for a free worker on queue `{queue}`"),
            Self::WaitsForEarlier => f.write_str(
                "waits for the run to begin: an earlier run begins first, because tasks depend on the run before",
            ),
            Self::Paused => f.write_str("waits because the DAG is paused"),
            Self::NeverFits { pool, slots, size } => {
                write!(f, "waits for ever: it needs {slots} slots of pool `{pool}`, which has {size}")
            }
            _ => Ok(()),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "`fmt` names every variant and sends only these here")]
    fn story(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WillRetry { error, try_number, tries_max } => {
                write!(f, "attempt {try_number} of {tries_max} failed and another follows: {error}")
            }
            Self::GaveUp { error } => write!(f, "it failed and no attempt is left: {error}"),
            Self::WorkerLost { lost_count } => {
                write!(
                    f,
                    "its worker was lost (loss {lost_count}); the attempt is repeated without using a retry"
                )
            }
            Self::Poisoned { lost_count } => write!(f, "poisoned: its worker was lost {lost_count} times"),
            Self::Rule { rule, upstream: Some(upstream) } => {
                write!(f, "`{upstream}` decided it: trigger rule `{rule}` cannot be satisfied any more")
            }
            Self::Rule { rule, upstream: None } => {
                write!(f, "trigger rule `{rule}` cannot be satisfied any more")
            }
            Self::SkippedItself { why } => write!(f, "it skipped itself: {why}"),
            Self::NotChosen { by } => write!(f, "`{by}` chose otherwise"),
            Self::Expansion { length } => {
                write!(f, "the list it is mapped over has {length} element{}", plural(*length as usize))
            }
            Self::NoList { task, key } => write!(f, "`{task}` left no list `{key}` to map over"),
            Self::FailFast { failed } => write!(f, "`{failed}` failed and the DAG says `fail_fast`"),
            Self::TasksFailed { count: 1 } => f.write_str("one task failed or could not run"),
            Self::TasksFailed { count } => write!(f, "{count} tasks failed or could not run"),
            Self::Ended { state, at: Some(at) } => write!(f, "waits for nothing: `{state}` since {at}"),
            Self::Ended { state, at: None } => write!(f, "waits for nothing: `{state}`"),
            _ => Ok(()),
        }
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
