//! The reason of a move as the one line that journal and history keep.

use crate::core::run::Reason;

/// For people; lower case, no full stop.
pub(super) fn of(reason: &Reason) -> String {
    match reason {
        Reason::Ready => "ready".into(),
        Reason::Claimed => "claimed".into(),
        Reason::Succeeded => "succeeded".into(),
        Reason::WillRetry { error, try_number, tries_max } => {
            format!("try {try_number} of {tries_max} failed: {error}")
        }
        Reason::GaveUp { error } => format!("failed: {error}"),
        Reason::WorkerLost { lost_count } => format!("its worker was lost ({lost_count} so far)"),
        Reason::Poisoned { lost_count } => format!("its worker was lost {lost_count} times, too often"),
        Reason::Deferred => "asked to be continued later".into(),
        Reason::Due => "its wait is over".into(),
        Reason::Interrupted => "given back by a worker that stops".into(),
        Reason::Rule { rule, upstream: None } => format!("trigger rule `{rule}` cannot be satisfied"),
        Reason::Rule { rule, upstream: Some(task) } => {
            format!("trigger rule `{rule}` cannot be satisfied after `{task}`")
        }
        Reason::SkippedItself { why } => format!("skipped itself: {why}"),
        Reason::NotChosen { by } => format!("not chosen by `{by}`"),
        Reason::EmptyList => "the list it is mapped over is empty".into(),
        Reason::Expansion { length } => format!("mapped over a list of {length}"),
        Reason::RunTimedOut => "the run timed out".into(),
        Reason::FailFast { failed } => format!("`{failed}` failed and the run fails fast"),
        Reason::Cancelled => "cancelled by a person".into(),
        Reason::Cleared => "cleared by a person".into(),
        Reason::Marked => "marked by a person".into(),
        Reason::WaitsForUpstream { first, count } => {
            format!("waits for `{first}` and {} more", count.saturating_sub(1))
        }
        Reason::WaitsForPool { pool, used, size } => {
            format!("waits for pool `{pool}` ({used} of {size} slots in use)")
        }
        Reason::WaitsForRunTasks { limit } => format!("waits: `max_active_tasks` is {limit}"),
        Reason::WaitsForTaskLimit { key, limit } => format!("waits: `{key}` is {limit}"),
        Reason::WaitsUntil { state, at } => format!("`{state}` until {at}"),
        Reason::WaitsForPast { key, state } => format!("`{key}`: the previous run has it `{state}`"),
        Reason::WaitsForRuns { active, limit } => {
            format!("waits: {active} runs are active, the limit is {limit}")
        }
        Reason::WaitsForWorker { queue } => format!("waits for a worker of queue `{queue}`"),
        Reason::Paused => "the DAG is paused".into(),
        Reason::Runs => "a worker is at it".into(),
        Reason::AllFinal => "every task is final".into(),
        Reason::Started => "started".into(),
    }
}
