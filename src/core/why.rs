//! What a task instance waits for, in one sentence for whoever is woken at night.

use super::admit::blocked;
use super::dag::Dag;
use super::ids::Timestamp;
use super::reason::Reason;
use super::run::{Capacity, Run, TiRef};
use super::state::{RunState, TaskState};

/// What keeps `ti` from its next move, or what it is doing. The answer is about the committed state: `room` as
/// for [`step`](fn@super::step::step). `now` decides nothing yet printed: a wait that is over is [`Reason::Due`].
#[must_use]
pub fn why(dag: &Dag, run: &Run, room: &Capacity, ti: TiRef, now: Timestamp) -> Reason {
    let Some(instance) = run.instance(ti) else { return Reason::NoSuchInstance };
    let task = dag.task(ti.task);
    match instance.state {
        TaskState::None | TaskState::Scheduled if run.state == RunState::Queued => {
            if room.paused {
                return Reason::Paused;
            }
            if room.earlier_waits && room.other_active_runs < room.runs_max(dag) {
                return Reason::WaitsForEarlier;
            }
            Reason::WaitsForRuns { active: room.other_active_runs, limit: room.runs_max(dag) }
        }
        TaskState::None => {
            let before = dag.needed_setups(ti.task).iter().chain(dag.upstream(ti.task));
            let mut open: Vec<_> = before.copied().filter(|&up| run.index.own(up).open > 0).collect();
            open.sort_unstable();
            open.dedup();
            match open.first() {
                Some(&first) => {
                    Reason::WaitsForUpstream { first: dag.task(first).id.clone(), count: open.len() }
                }
                None => Reason::Ready,
            }
        }
        TaskState::Scheduled if room.paused => Reason::Paused,
        TaskState::Scheduled if run.index.holding >= dag.settings.max_active_tasks => {
            Reason::WaitsForRunTasks { limit: dag.settings.max_active_tasks }
        }
        TaskState::Scheduled => {
            blocked(dag, run, room, &run.index.slots, ti.task).unwrap_or_else(|| in_line(dag, room, ti))
        }
        TaskState::Queued => Reason::WaitsForWorker { queue: task.queue.clone() },
        TaskState::Running => Reason::Runs,
        TaskState::Deferred | TaskState::UpForRetry => match instance.resume_at {
            Some(at) if at > now => Reason::WaitsUntil {
                state: instance.state,
                at,
                try_number: instance.try_number,
                tries_max: task.retry.retries.saturating_add(1),
            },
            Some(_) | None => Reason::Due,
        },
        TaskState::Success
        | TaskState::Failed
        | TaskState::Skipped
        | TaskState::UpstreamFailed
        | TaskState::Removed
        | TaskState::Cancelled => Reason::Ended { state: instance.state, at: instance.ended_at },
    }
}

/// Nothing that is its own stands in the way: either an instance before it needs more slots than are free, or
/// the next step takes it.
fn in_line(dag: &Dag, room: &Capacity, ti: TiRef) -> Reason {
    let pool = &dag.task(ti.task).pool;
    match room.pools.get(pool) {
        Some(room) => Reason::WaitsForPool { pool: pool.clone(), used: room.used, size: room.size },
        None => Reason::Ready,
    }
}
