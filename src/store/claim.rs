//! Claims by workers that are not in the scheduler's process: the one move made without a step, a
//! compare-and-set from `queued` to `running` under the next fence.

use std::collections::BTreeMap;

use crate::core::ids::{Fence, QueueName, RunKey, SessionId, TaskId, Timestamp};
use crate::core::run::{Reason, TaskInstance};
use crate::core::state::TaskState;

use super::Store;
use super::db::{BoxFuture, Row, Tx, Value, Write};
use super::error::StoreError;
use super::moves::{Move, Moves};
use super::runs::{number, run_key, task_id};

macro_rules! candidates {
    ($lock:literal) => {
        concat!(
            "SELECT r.dag_id, r.run_id, t.task_id, t.map_index, t.fence, t.try_number, t.lost_count, t.generation, \
                 t.run_no \
             FROM task_instance AS t JOIN dag_run AS r ON r.run_no = t.run_no \
             WHERE t.state = 'queued' AND t.queue = $1 AND r.state = 'running' \
             ORDER BY t.priority DESC, t.run_no, t.task_id, t.map_index LIMIT $2",
            $lock
        )
    };
}
/// Differs because Postgres has many writers: rows that another holds are passed over, and the run's row is
/// locked with the instance's, so that no claim waits while it holds a lock.
const CANDIDATES_POSTGRES: &str = candidates!(" FOR UPDATE OF r, t SKIP LOCKED");
/// Differs because SQLite has one writer, which is us.
const CANDIDATES_SQLITE: &str = candidates!("");
/// A session that is closed or past its lease gets nothing; the row stays locked until the commit.
const BUMP_SESSION: &str = "UPDATE worker_session SET claims = claims + 1 \
     WHERE session_id = $1 AND closed_at_us IS NULL AND lease_until_us > $2";
/// Runs held as values elsewhere notice the claim by the version.
const BUMP_RUN: &str = "UPDATE dag_run SET version = version + 1 WHERE run_no = $1 RETURNING version";

/// A task instance that is now the asker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its run.
    pub run_key: RunKey,
    /// Its task.
    pub task_id: TaskId,
    /// Its place in the list, or `UNMAPPED`.
    pub map_index: i32,
    /// What the report must carry.
    pub fence: Fence,
    /// The attempt, from 1.
    pub try_number: u32,
}

struct ClaimTasks {
    session: SessionId,
    queues: Vec<QueueName>,
    limit: u32,
    now: Timestamp,
}

impl ClaimTasks {
    async fn write(&self, tx: &mut Tx<'_>) -> Result<Vec<Claimed>, StoreError> {
        let live = tx.execute(BUMP_SESSION, &[self.session.as_str().into(), self.now.0.into()]).await?;
        if live == 0 {
            return Err(StoreError::Refused(format!(
                "session `{}` is not live: open a new session before claiming",
                self.session
            )));
        }
        let sql = match tx {
            Tx::Sqlite(_) => CANDIDATES_SQLITE,
            Tx::Postgres(_) => CANDIDATES_POSTGRES,
        };
        let mut claimed = Vec::new();
        let mut by_run: BTreeMap<i64, Vec<(Claimed, TaskInstance, i64)>> = BTreeMap::new();
        let mut left = i64::from(self.limit);
        for queue in &self.queues {
            let rows = tx.fetch_all(sql, &[queue.as_str().into(), left.into()]).await?;
            for row in &rows {
                let taken = self.take(row)?;
                claimed.push(taken.0.clone());
                by_run.entry(row.int(8)?).or_default().push(taken);
                left -= 1;
            }
            if left == 0 {
                break;
            }
        }
        for (run_no, taken) in &by_run {
            let row = tx.fetch_optional(BUMP_RUN, &[Value::from(*run_no)]).await?;
            let version =
                row.ok_or_else(|| StoreError::Bug(format!("run number {run_no} is gone")))?.int(0)?;
            let mut moves = Moves::default();
            for (claim, to, from_fence) in taken {
                let step = Move {
                    task_id: claim.task_id.as_str(),
                    map_index: claim.map_index,
                    from: TaskState::Queued,
                    from_fence: *from_fence,
                    to,
                    via: &[],
                    reason: Reason::Claimed.to_string(),
                };
                moves.push(&step, version, self.now);
            }
            moves.write(tx, *run_no).await?;
        }
        Ok(claimed)
    }

    /// The instance of a candidate's row as the claim leaves it, with the fence of before.
    fn take(&self, row: &Row) -> Result<(Claimed, TaskInstance, i64), StoreError> {
        let from_fence = row.int(4)?;
        let to = TaskInstance {
            state: TaskState::Running,
            try_number: number::<u32>("try_number", row.int(5)?)? + 1,
            fence: Fence(from_fence).next(),
            lost_count: number("lost_count", row.int(6)?)?,
            generation: number("generation", row.int(7)?)?,
            resume_at: None,
            started_at: Some(self.now),
            ended_at: None,
            session: Some(self.session.clone()),
        };
        let claimed = Claimed {
            run_key: run_key(row, 0, 1)?,
            task_id: task_id(row, 2)?,
            map_index: number("map_index", row.int(3)?)?,
            fence: to.fence,
            try_number: to.try_number,
        };
        Ok((claimed, to, from_fence))
    }
}

impl Write for ClaimTasks {
    type Answer = Vec<Claimed>;

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<Vec<Claimed>, StoreError>> {
        Box::pin(self.write(tx))
    }
}

impl Store {
    /// Gives a live session up to `limit` queued instances of its queues: earlier queues first, by priority
    /// within one. None is ever given twice. May give fewer than there are while another asks.
    ///
    /// # Errors
    /// `Refused` if the session is closed, unknown, or past its lease.
    pub async fn claim(
        &self,
        session: &SessionId,
        queues: &[QueueName],
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<Claimed>, StoreError> {
        self.write(ClaimTasks { session: session.clone(), queues: queues.to_vec(), limit, now }).await
    }
}
