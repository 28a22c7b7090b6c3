//! Reasons in the words that people are shown: one exact sentence, without a full stop.

use std::fmt;

use super::run::Reason;

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("is ready"),
            Self::Claimed => f.write_str("a worker took it"),
            Self::Succeeded => f.write_str("succeeded"),
            Self::WillRetry { error, try_number, tries_max } => {
                write!(f, "attempt {try_number} of {tries_max} failed: {error}")
            }
            Self::GaveUp { error } => f.write_str(error),
            Self::WorkerLost { lost_count } => {
                write!(f, "its worker was lost (for the {lost_count}. time); it is tried again")
            }
            Self::Poisoned { lost_count } => {
                write!(f, "poisoned: its worker was lost {lost_count} times while it ran")
            }
            Self::Deferred => f.write_str("asked to be continued later"),
            Self::Due => f.write_str("its wait is over"),
            Self::Interrupted => f.write_str("its worker gave it back unharmed"),
            Self::Rule { rule, upstream: Some(upstream) } => {
                write!(f, "its trigger rule `{rule}` is decided by `{upstream}`")
            }
            Self::Rule { rule, upstream: None } => {
                write!(f, "its trigger rule `{rule}` cannot be satisfied any more")
            }
            Self::SkippedItself { why } => f.write_str(why),
            Self::NotChosen { by } => write!(f, "`{by}` chose otherwise"),
            Self::EmptyList => f.write_str("the list it is mapped over is empty"),
            Self::Expansion { length } => write!(f, "the list it is mapped over has {length} elements"),
            Self::RunTimedOut => f.write_str("the run reached its dagrun_timeout"),
            Self::FailFast { failed } => write!(f, "`{failed}` failed, and the DAG says fail_fast"),
            Self::Cancelled => f.write_str("cancelled on request"),
            Self::Cleared => f.write_str("cleared on request"),
            Self::Marked => f.write_str("marked on request"),
            Self::WaitsForUpstream { first, count: 1 } => write!(f, "waits for upstream `{first}`"),
            Self::WaitsForUpstream { first, count } => {
                write!(f, "waits for upstream `{first}` and {} more", count - 1)
            }
            Self::WaitsForPool { pool, used, size } => {
                write!(f, "waits for pool `{pool}`: {used} of {size} slots used")
            }
            Self::WaitsForRunTasks { limit } => {
                write!(f, "waits for other tasks of its run: max_active_tasks is {limit}")
            }
            Self::WaitsForTaskLimit { key, limit } => {
                write!(f, "waits for other instances of the task: {key} is {limit}")
            }
            Self::WaitsUntil { state, at } => write!(f, "waits until {at} ({state})"),
            Self::WaitsForPast { key, state } => {
                write!(f, "waits for the run before ({key}): the task is `{state}` there")
            }
            Self::WaitsForRuns { active, limit } => {
                write!(f, "its run waits for other runs: {active} are active, max_active_runs is {limit}")
            }
            Self::WaitsForWorker { queue } => write!(f, "waits for a free worker on queue `{queue}`"),
            Self::Paused => f.write_str("the DAG is paused"),
            Self::Runs => f.write_str("a worker is at it"),
            Self::AllFinal => f.write_str("every task is final"),
            Self::Started => f.write_str("the run has begun"),
        }
    }
}
