//! Worker sessions: who lives, and what the dead still hold. One row and one lease per worker, not per task.

use crate::core::ids::{Fence, RunKey, SessionId, TaskId, Timestamp};

use super::db::{Row, Statement};
use super::error::StoreError;
use super::runs::{number, parsed, run_key, task_id};
use super::{Database, Store};

const OPEN_SESSION: &str = "INSERT INTO worker_session (session_id, opened_at_us, lease_until_us, claims, local) \
     VALUES ($1, $2, $3, 0, $4) ON CONFLICT (session_id) DO NOTHING";
const CLOSE_LOCAL_SESSIONS: &str =
    "UPDATE worker_session SET closed_at_us = $1 WHERE local AND closed_at_us IS NULL";
macro_rules! select_sessions {
    ($which:literal) => {
        concat!(
            "SELECT s.session_id, s.opened_at_us, s.lease_until_us, s.local, \
                 (SELECT COUNT(*) FROM task_instance AS t WHERE t.session_id = s.session_id AND t.state = 'running') \
             FROM worker_session AS s WHERE s.closed_at_us IS NULL AND ",
            $which
        )
    };
}
const SESSIONS: &str = select_sessions!("s.lease_until_us > $1 ORDER BY s.session_id");
const SILENT: &str = select_sessions!("s.lease_until_us <= $1 ORDER BY s.session_id LIMIT $2");
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

const HELD: &str = "SELECT r.dag_id, r.run_id, t.task_id, t.map_index, t.fence, t.session_id \
     FROM task_instance AS t JOIN dag_run AS r ON r.run_no = t.run_no \
     WHERE t.state = 'running' AND t.session_id = $1 ORDER BY t.run_no, t.task_id, t.map_index";

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

/// A worker that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub session: SessionId,
    /// Since when.
    pub opened_at: Timestamp,
    /// Until when, if it says nothing more.
    pub lease_until: Timestamp,
    /// Whether it is inside a scheduler's process.
    pub local: bool,
    /// Attempts it is making.
    pub running: u32,
}

fn claim(row: &Row) -> Result<Orphan, StoreError> {
    let session = row.text(5)?;
    Ok(Orphan {
        run_key: run_key(row, 0, 1)?,
        task_id: task_id(row, 2)?,
        map_index: number("map_index", row.int(3)?)?,
        fence: Fence(row.int(4)?),
        session: parsed("session_id", &session, SessionId::parse(&session).ok())?,
    })
}

fn session(row: &Row) -> Result<Session, StoreError> {
    let name = row.text(0)?;
    Ok(Session {
        session: parsed("session_id", &name, SessionId::parse(&name).ok())?,
        opened_at: Timestamp(row.int(1)?),
        lease_until: Timestamp(row.int(2)?),
        local: row.boolean(3)?,
        running: number("task instances", row.int(4)?)?,
    })
}

impl Store {
    /// Registers the worker inside this process, as [`Store::open_session`] does. On SQLite, whose home one
    /// process holds at a time, the sessions of processes before it are over.
    ///
    /// # Errors
    /// `Refused` if the name was ever used.
    pub async fn open_local_session(
        &self,
        session: &SessionId,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Result<(), StoreError> {
        if let Database::Sqlite(_) = self.database {
            self.write(Statement { sql: CLOSE_LOCAL_SESSIONS, values: vec![now.0.into()] }).await?;
        }
        self.register(session, now, lease_until, true).await
    }

    /// Workers whose lease ran out before `now` and that nobody closed; at most `limit`.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn silent_sessions(&self, now: Timestamp, limit: u32) -> Result<Vec<Session>, StoreError> {
        self.read(SILENT, &[now.0.into(), i64::from(limit).into()]).await?.iter().map(session).collect()
    }

    /// Workers that live at `now`.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn sessions(&self, now: Timestamp) -> Result<Vec<Session>, StoreError> {
        self.read(SESSIONS, &[now.0.into()]).await?.iter().map(session).collect()
    }

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
        self.register(session, now, lease_until, false).await
    }

    async fn register(
        &self,
        session: &SessionId,
        now: Timestamp,
        lease_until: Timestamp,
        local: bool,
    ) -> Result<(), StoreError> {
        let values = vec![session.as_str().into(), now.0.into(), lease_until.0.into(), local.into()];
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
        self.read(LOST, &[now.0.into(), i64::from(limit).into()]).await?.iter().map(claim).collect()
    }

    /// What a session holds: the instances that are `running` under a claim of it.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn held(&self, session: &SessionId) -> Result<Vec<Orphan>, StoreError> {
        self.read(HELD, &[session.as_str().into()]).await?.iter().map(claim).collect()
    }
}
