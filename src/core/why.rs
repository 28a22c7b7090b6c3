//! Why an instance stands where it stands: the exact answer to "why is this not running?".

use super::dag::Dag;
use super::index::each;
use super::plan;
use super::run::{Capacity, Reason, Run, TiRef};
use super::state::{RunState, TaskState};

/// What `ti` waits for, or what it does. `None` if there is no such instance or it is final: then its
/// journal says why.
#[must_use]
pub fn why(dag: &Dag, run: &Run, room: &Capacity, ti: TiRef) -> Option<Reason> {
    let instance = run.instance(ti)?;
    let task = dag.task(ti.task);
    if run.state == RunState::Queued {
        return Some(if room.paused {
            Reason::Paused
        } else {
            Reason::WaitsForRuns { active: room.other_active_runs, limit: dag.settings.max_active_runs }
        });
    }
    match instance.state {
        TaskState::None => {
            let open: Vec<_> = dag
                .upstream(ti.task)
                .iter()
                .filter(|&&up| each(&run.tasks[up]).any(|(_, i)| !i.state.is_final()))
                .collect();
            let first = dag.task(**open.first()?).id.clone();
            Some(Reason::WaitsForUpstream { first, count: open.len() })
        }
        TaskState::Scheduled if room.paused => Some(Reason::Paused),
        TaskState::Scheduled if run.index.holding >= dag.settings.max_active_tasks => {
            Some(Reason::WaitsForRunTasks { limit: dag.settings.max_active_tasks })
        }
        TaskState::Scheduled => {
            let pool = room
                .pools
                .get(&task.pool)
                .filter(|p| p.used + task.pool_slots > p.size)
                .map(|p| Reason::WaitsForPool { pool: task.pool.clone(), used: p.used, size: p.size });
            Some(pool.or_else(|| plan::task_block(dag, run, room, ti.task)).unwrap_or(Reason::Ready))
        }
        TaskState::Queued => Some(Reason::WaitsForWorker { queue: task.queue.clone() }),
        TaskState::Running => Some(Reason::Runs),
        TaskState::Deferred | TaskState::UpForRetry => {
            Some(Reason::WaitsUntil { state: instance.state, at: instance.resume_at? })
        }
        TaskState::Success
        | TaskState::Failed
        | TaskState::Skipped
        | TaskState::UpstreamFailed
        | TaskState::Removed
        | TaskState::Cancelled => None,
    }
}
