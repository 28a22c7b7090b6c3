//! What a scheduler asks: which runs want a step, and what room they share with others. Reads only.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::ids::{PoolName, QueueName, RunKey, TaskId, Timestamp};
use crate::core::run::{PoolUse, PreviousRun};
use crate::core::state::TaskState;

use super::Store;
use super::db::{Row, Value};
use super::error::StoreError;
use super::runs::{number, run_key, task_id, task_state};

/// Runs whose time has come, the longest overdue first.
const DUE: &str = "SELECT dag_id, run_id, version FROM dag_run WHERE state = 'running' AND next_due_us <= $1 \
     ORDER BY next_due_us LIMIT $2";
/// Of each DAG and each backfill the runs that have a place among the active ones, in order; scheduled and
/// manual ones before those of backfills. A DAG that was never served has no limit here.
const STARTABLE: &str = "SELECT dag_id, run_id, version FROM ( \
         SELECT r.dag_id, r.run_id, r.version, r.run_no, r.backfill_id, r.logical_date_us, \
             ROW_NUMBER() OVER (PARTITION BY r.dag_id, r.backfill_id ORDER BY \
                 CASE WHEN b.backwards THEN -r.logical_date_us ELSE r.logical_date_us END, r.run_no) AS place, \
             COALESCE(b.max_active_runs, d.max_active_runs, 1000000) - (SELECT COUNT(*) FROM dag_run AS a \
                 WHERE a.state = 'running' AND a.dag_id = r.dag_id \
                     AND a.backfill_id IS NOT DISTINCT FROM r.backfill_id) AS places \
         FROM dag_run AS r LEFT JOIN dag AS d ON d.dag_id = r.dag_id \
             LEFT JOIN backfill AS b ON b.backfill_id = r.backfill_id \
         WHERE r.state = 'queued' AND NOT COALESCE(d.paused, FALSE)) AS waiting \
     WHERE place <= places ORDER BY backfill_id IS NOT NULL, logical_date_us, run_no LIMIT $1";
/// Runs with nothing to wait for: no instance is at work, in line or to be admitted, and no time is near.
const UNDRIVEN: &str = "SELECT r.dag_id, r.run_id FROM dag_run AS r WHERE r.state = 'running' \
     AND (r.next_due_us IS NULL OR r.next_due_us < $1) AND NOT EXISTS (SELECT 1 FROM task_instance AS t \
         WHERE t.run_no = r.run_no AND t.state IN ('queued', 'running', 'scheduled')) ORDER BY r.run_no LIMIT $2";
/// The version of every run that is not at rest.
const RUNNING: &str = "SELECT dag_id, run_id, version FROM dag_run WHERE state = 'running'";
/// Runs with instances that any worker of a queue may take.
const CLAIMABLE: &str = "SELECT DISTINCT r.dag_id, r.run_id, r.version, r.backfill_id IS NOT NULL AS late, \
         r.logical_date_us, r.run_no FROM task_instance AS t JOIN dag_run AS r ON r.run_no = t.run_no \
     WHERE t.state = 'queued' AND t.queue = $1 AND r.state = 'running' \
     ORDER BY late, r.logical_date_us, r.run_no LIMIT $2";
const ACTIVE_RUNS: &str = "SELECT b.max_active_runs, (SELECT COUNT(*) FROM dag_run AS o \
         WHERE o.state = 'running' AND o.dag_id = r.dag_id AND o.run_no <> r.run_no \
             AND o.backfill_id IS NOT DISTINCT FROM r.backfill_id) \
     FROM dag_run AS r LEFT JOIN backfill AS b ON b.backfill_id = r.backfill_id \
     WHERE r.dag_id = $1 AND r.run_id = $2";
/// Whether a run of an earlier date waits for its place; in a backfill that begins with the newest none is earlier.
const EARLIER_WAITS: &str = "SELECT COUNT(*) FROM dag_run AS e JOIN dag_run AS r ON e.dag_id = r.dag_id \
         LEFT JOIN backfill AS b ON b.backfill_id = r.backfill_id \
     WHERE r.dag_id = $1 AND r.run_id = $2 AND e.state IN ('queued', 'running') AND e.state = 'queued' \
         AND e.logical_date_us < r.logical_date_us AND e.backfill_id IS NOT DISTINCT FROM r.backfill_id \
         AND NOT COALESCE(b.backwards, FALSE)";
const IS_PAUSED: &str = "SELECT paused FROM dag WHERE dag_id = $1";
const ACTIVE_TIS: &str = "SELECT t.task_id, COUNT(*) FROM task_instance AS t JOIN dag_run AS r ON r.run_no = t.run_no \
     WHERE r.dag_id = $1 AND r.run_id <> $2 AND r.state = 'running' AND t.state IN ('queued', 'running') \
     GROUP BY t.task_id";
/// The instances of the run before: of the same backfill, or else the last of the DAG outside of backfills.
const PREVIOUS: &str = "SELECT task_id, state FROM task_instance WHERE run_no = ( \
         SELECT p.run_no FROM dag_run AS p JOIN dag_run AS r ON p.dag_id = r.dag_id \
         WHERE r.dag_id = $1 AND r.run_id = $2 AND p.logical_date_us < r.logical_date_us \
             AND p.backfill_id IS NOT DISTINCT FROM r.backfill_id \
         ORDER BY p.logical_date_us DESC, p.run_no DESC LIMIT 1)";

/// A run that wants a step, and the version it has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Which.
    pub key: RunKey,
    /// Commits so far: a cached value of another version is old.
    pub version: i64,
}

/// Which parts of the room to measure; what is not asked for is left empty.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoomAsked {
    /// Use of pools.
    pub pools: bool,
    /// Instances in other runs of the DAG.
    pub other_tis: bool,
    /// The run before.
    pub previous: bool,
}

/// What a run shares with others, as it stands in the database.
#[derive(Debug, Clone, Default)]
pub struct Room {
    /// Pools with a limit and their use by all runs.
    pub pools: BTreeMap<PoolName, PoolUse>,
    /// Other `running` runs that count against the same limit.
    pub other_active_runs: u32,
    /// The limit of the run's backfill, if it belongs to one.
    pub active_runs_max: Option<u32>,
    /// Instances that hold slots in other runs of the DAG, by task.
    pub other_active_tis: BTreeMap<TaskId, u32>,
    /// The run before.
    pub previous: Option<PreviousRun>,
    /// Whether a run of an earlier date is queued; asked for with the run before.
    pub earlier_waits: bool,
    /// Whether the DAG is paused.
    pub paused: bool,
}

fn wanted(row: &Row) -> Result<Wanted, StoreError> {
    Ok(Wanted { key: run_key(row, 0, 1)?, version: row.int(2)? })
}

/// How much a state stands in the way of the next run; the worst of a task's instances counts.
fn hindrance(state: TaskState) -> u8 {
    match state {
        TaskState::Success | TaskState::Skipped | TaskState::Removed => 0,
        TaskState::None
        | TaskState::Scheduled
        | TaskState::Queued
        | TaskState::Running
        | TaskState::Deferred
        | TaskState::UpForRetry => 1,
        TaskState::Failed | TaskState::UpstreamFailed | TaskState::Cancelled => 2,
    }
}

impl Store {
    /// Runs whose `next_due` is over at `now`; at most `limit`.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn due_runs(&self, now: Timestamp, limit: u32) -> Result<Vec<Wanted>, StoreError> {
        self.read(DUE, &[now.0.into(), i64::from(limit).into()]).await?.iter().map(wanted).collect()
    }

    /// Runs that are `running` and would stay so for ever: nothing in them is at work or in line, and no time to look
    /// again comes after `overdue`. There should be none.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn undriven_runs(&self, overdue: Timestamp, limit: u32) -> Result<Vec<RunKey>, StoreError> {
        let rows = self.read(UNDRIVEN, &[overdue.0.into(), i64::from(limit).into()]).await?;
        rows.iter().map(|row| run_key(row, 0, 1)).collect()
    }

    /// All runs that are `running`, with their versions.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn running_runs(&self) -> Result<Vec<Wanted>, StoreError> {
        self.read(RUNNING, &[]).await?.iter().map(wanted).collect()
    }

    /// Queued runs that have a place among the active runs of their DAG or backfill; at most `limit`.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn startable_runs(&self, limit: u32) -> Result<Vec<Wanted>, StoreError> {
        self.read(STARTABLE, &[i64::from(limit).into()]).await?.iter().map(wanted).collect()
    }

    /// Runs with queued instances of these queues; at most `limit` per queue.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn claimable_runs(
        &self,
        queues: &BTreeSet<QueueName>,
        limit: u32,
    ) -> Result<Vec<Wanted>, StoreError> {
        let mut runs = Vec::new();
        for queue in queues {
            for row in self.read(CLAIMABLE, &[queue.as_str().into(), i64::from(limit).into()]).await? {
                runs.push(wanted(&row)?);
            }
        }
        Ok(runs)
    }

    /// The room a run shares with others.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn room(&self, key: &RunKey, asked: RoomAsked) -> Result<Room, StoreError> {
        let names: [Value; 2] = [key.dag_id.as_str().into(), key.run_id.as_str().into()];
        let mut room = Room::default();
        if let Some(row) = self.read(ACTIVE_RUNS, &names).await?.first() {
            room.active_runs_max = row.int_or_null(0)?.map(|n| number("max_active_runs", n)).transpose()?;
            room.other_active_runs = number("active runs", row.int(1)?)?;
        }
        if let Some(row) = self.read(IS_PAUSED, &names[..1]).await?.first() {
            room.paused = row.boolean(0)?;
        }
        if asked.pools {
            room.pools = self.pools().await?;
        }
        if asked.other_tis {
            for row in self.read(ACTIVE_TIS, &names).await? {
                room.other_active_tis.insert(task_id(&row, 0)?, number("task instances", row.int(1)?)?);
            }
        }
        if asked.previous {
            room.previous = self.previous(&names).await?;
            let row = self.read(EARLIER_WAITS, &names).await?;
            room.earlier_waits = row.first().map_or(Ok(0), |row| row.int(0))? > 0;
        }
        Ok(room)
    }

    async fn previous(&self, names: &[Value]) -> Result<Option<PreviousRun>, StoreError> {
        let mut states: BTreeMap<TaskId, TaskState> = BTreeMap::new();
        for row in self.read(PREVIOUS, names).await? {
            let state = task_state(&row, 1)?;
            let worst = states.entry(task_id(&row, 0)?).or_insert(state);
            if hindrance(state) > hindrance(*worst) {
                *worst = state;
            }
        }
        Ok((!states.is_empty()).then_some(PreviousRun { states }))
    }
}
