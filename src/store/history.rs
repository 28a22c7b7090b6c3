//! What a run leaves for people to read: attempts, journal, outputs.

use std::collections::BTreeMap;

use crate::core::ids::{Fence, RunKey, SessionId, TaskId, Timestamp};
use crate::core::state::TaskState;

use super::Store;
use super::db::Value;
use super::error::StoreError;
use super::runs::{number, parsed, task_id, task_state};

const TRIES: &str = "SELECT map_index, fence, try_number, session_id, started_at_us, ended_at_us, outcome, reason \
     FROM task_try WHERE run_no = (SELECT run_no FROM dag_run WHERE dag_id = $1 AND run_id = $2) AND task_id = $3 \
     ORDER BY map_index, fence";
const JOURNAL: &str = "SELECT task_id, map_index, from_state, to_state, via, fence, try_number, reason, at_us, version \
     FROM journal WHERE run_no = (SELECT run_no FROM dag_run WHERE dag_id = $1 AND run_id = $2) \
     ORDER BY version, place";
const OUTPUTS: &str = "SELECT task_id, map_index, json FROM task_output \
     WHERE run_no = (SELECT run_no FROM dag_run WHERE dag_id = $1 AND run_id = $2) AND json <> ''";

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Try {
    /// The instance's place in the list, or `UNMAPPED`.
    pub map_index: i32,
    /// The fence it was claimed under.
    pub fence: Fence,
    /// Its number, from 1; an attempt lost with its worker and its repetition may share one.
    pub try_number: u32,
    /// Who made it.
    pub session: SessionId,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// How it ended; `None` while it runs.
    pub end: Option<TryEnd>,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TryEnd {
    /// When.
    pub at: Timestamp,
    /// The state it brought its instance into.
    pub outcome: TaskState,
    /// Why, in words.
    pub reason: String,
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalLine {
    /// From 1 in each run, without gaps.
    pub seq: u64,
    /// The run's version that the commit made.
    pub version: i64,
    /// When.
    pub at: Timestamp,
    /// The task; `None` if the run itself moved.
    pub task_id: Option<TaskId>,
    /// The instance's place in the list, or `UNMAPPED`.
    pub map_index: i32,
    /// The state before: of a task instance, or of the run.
    pub from: String,
    /// The state after.
    pub to: String,
    /// The states in between, parted by blanks.
    pub via: String,
    /// The instance's fence after.
    pub fence: Fence,
    /// The instance's attempt after.
    pub try_number: u32,
    /// Why, in words.
    pub reason: String,
}

fn key_values(key: &RunKey) -> Vec<Value> {
    vec![key.dag_id.as_str().into(), key.run_id.as_str().into()]
}

impl Store {
    /// All attempts at a task, by place and in order.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn tries(&self, key: &RunKey, task: &TaskId) -> Result<Vec<Try>, StoreError> {
        let mut values = key_values(key);
        values.push(task.as_str().into());
        let mut tries = Vec::new();
        for row in self.read(TRIES, &values).await? {
            let session = row.text(3)?;
            let end = match row.int_or_null(5)? {
                None => None,
                Some(at) => {
                    Some(TryEnd { at: Timestamp(at), outcome: task_state(&row, 6)?, reason: row.text(7)? })
                }
            };
            tries.push(Try {
                map_index: number("map_index", row.int(0)?)?,
                fence: Fence(row.int(1)?),
                try_number: number("try_number", row.int(2)?)?,
                session: parsed("session_id", &session, SessionId::parse(&session).ok())?,
                started_at: Timestamp(row.int(4)?),
                end,
            });
        }
        Ok(tries)
    }

    /// Everything that happened to a run, in order.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn journal(&self, key: &RunKey) -> Result<Vec<JournalLine>, StoreError> {
        let mut lines = Vec::new();
        for (row, seq) in self.read(JOURNAL, &key_values(key)).await?.iter().zip(1..) {
            let task = row.text_or_null(0)?.map(|_there| task_id(row, 0)).transpose()?;
            lines.push(JournalLine {
                seq,
                version: row.int(9)?,
                at: Timestamp(row.int(8)?),
                task_id: task,
                map_index: number("map_index", row.int(1)?)?,
                from: row.text(2)?,
                to: row.text(3)?,
                via: row.text(4)?,
                fence: Fence(row.int(5)?),
                try_number: number("try_number", row.int(6)?)?,
                reason: row.text(7)?,
            });
        }
        Ok(lines)
    }

    /// What attempts left, as JSON text by task and place.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn outputs(&self, key: &RunKey) -> Result<BTreeMap<(TaskId, i32), String>, StoreError> {
        let rows = self.read(OUTPUTS, &key_values(key)).await?;
        rows.iter()
            .map(|row| Ok(((task_id(row, 0)?, number("map_index", row.int(1)?)?), row.text(2)?)))
            .collect()
    }
}
