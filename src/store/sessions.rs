//! Worker sessions: who lives, and what the dead still hold. One row and one lease per worker, not per task.

use crate::core::ids::{Fence, RunKey, SessionId, TaskId, Timestamp};

use super::Store;
use super::db::Statement;
use super::error::StoreError;
use super::runs::{number, parsed, run_key, task_id};

const OPEN_SESSION: &str = "INSERT INTO worker_session (session_id, opened_at_us, lease_until_us, claims) \
     VALUES ($1, $2, $3, 0) ON CONFLICT (session_id) DO NOTHING";
/// A lease that has run out is not renewed: what the session held may have been given to another.
const HEARTBEAT: &str = "UPDATE worker_session SET lease_until_us = $3 \
     WHERE session_id = $1 AND closed_at_us IS NULL AND lease_until_us > $2";
const CLOSE_SESSION: &str =
    "UPDATE worker_session SET closed_at_us = $2 WHERE session_id = $1 AND closed_at_us IS NULL";
const LOST: &str = "SELECT r.dag_id, r.run_id, t.task_id, t.map_index, t.fence, t.session_id \
     FROM task_instance AS t JOIN dag_run AS r ON r.run_no = t.run_no \
         LEFT JOIN worker_session AS s ON s.session_id = t.session_id \
     WHERE t.state = 'running' AND (s.session_id IS NULL OR s.closed_at_us IS NOT NULL OR s.lease_until_us <= $1) \
     ORDER BY t.run_no, t.task_id, t.map_index LIMIT $2";

/// A running instance whose holder is gone: a candidate for `Input::Lost`, to be judged by its fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Its run.
    pub run_key: RunKey,
    /// Its task.
    pub task_id: TaskId,
    /// Its place in the list, or `UNMAPPED`.
    pub map_index: i32,
    /// The fence it was claimed under.
    pub fence: Fence,
    /// Who held it.
    pub session: SessionId,
}

impl Store {
    /// Registers a worker that lives until `lease_until` unless it says so again.
    ///
    /// # Errors
    /// `Refused` if the name was ever used.
    pub async fn open_session(
        &self,
        session: &SessionId,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<(), StoreError> {
        let values = vec![session.as_str().into(), now.0.into(), lease_until.0.into()];
        match self.write(Statement { sql: OPEN_SESSION, values }).await? {
            0 => Err(StoreError::Refused(format!(
                "session `{session}` was opened before: every process needs a new name"
            ))),
            _ => Ok(()),
        }
    }

    /// Prolongs the lease; `false` if it had run out or was closed: the worker must stop and open a new one.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn heartbeat(
        &self,
        session: &SessionId,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<bool, StoreError> {
        let values = vec![session.as_str().into(), now.0.into(), lease_until.0.into()];
        self.write(Statement { sql: HEARTBEAT, values }).await.map(|rows| rows == 1)
    }

    /// Ends a session; again is harmless.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn close_session(&self, session: &SessionId, now: Timestamp) -> Result<(), StoreError> {
        let values = vec![session.as_str().into(), now.0.into()];
        self.write(Statement { sql: CLOSE_SESSION, values }).await.map(|_rows| ())
    }

    /// Running instances whose session is closed, unknown, or past its lease at `now`; at most `limit`.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn expired(&self, now: Timestamp, limit: u32) -> Result<Vec<Orphan>, StoreError> {
        let mut orphans = Vec::new();
        for row in self.read(LOST, &[now.0.into(), i64::from(limit).into()]).await? {
            let session = row.text(5)?;
            orphans.push(Orphan {
                run_key: run_key(&row, 0, 1)?,
                task_id: task_id(&row, 2)?,
                map_index: number("map_index", row.int(3)?)?,
                fence: Fence(row.int(4)?),
                session: parsed("session_id", &session, SessionId::parse(&session).ok())?,
            });
        }
        Ok(orphans)
    }
}
