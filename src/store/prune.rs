//! Retention: runs that ended long ago go, with everything that belongs to them, a few at a time so that nobody
//! waits for it. It must not touch a run that is not final.

use crate::core::ids::{RunKey, Timestamp};

use super::Store;
use super::db::{BoxFuture, Row, Tx, Value, Write};
use super::error::StoreError;
use super::events;
use super::runs::run_key;

/// Runs that one transaction deletes.
const BATCH: i64 = 50;

const OLD: &str = "SELECT run_no, dag_id, run_id FROM dag_run \
     WHERE state IN ('success', 'failed', 'cancelled') AND ended_at_us < $1 ORDER BY ended_at_us LIMIT $2";
const COUNT_OLD: &str = "SELECT COUNT(*) FROM dag_run WHERE state IN ('success', 'failed', 'cancelled') \
     AND ended_at_us < $1";
/// It may have been cleared meanwhile.
const STILL_OLD: &str = "SELECT 1 FROM dag_run WHERE run_no = $1 \
     AND state IN ('success', 'failed', 'cancelled') AND ended_at_us < $2";
/// What belongs to a run, before the run itself.
const DELETIONS: &[&str] = &[
    "DELETE FROM journal WHERE run_no = $1",
    "DELETE FROM task_output WHERE run_no = $1",
    "DELETE FROM task_try WHERE run_no = $1",
    "DELETE FROM task_instance WHERE run_no = $1",
    events::DELETE_OF_RUN,
    "DELETE FROM dag_run WHERE run_no = $1",
];
/// DAG versions that no run and no DAG needs, problems and sessions that are long over.
const REST: &[&str] = &[
    "DELETE FROM dag_version WHERE NOT EXISTS (SELECT 1 FROM dag_run AS r WHERE r.dag_hash = dag_version.dag_hash) \
     AND NOT EXISTS (SELECT 1 FROM dag AS d WHERE d.dag_hash = dag_version.dag_hash)",
    "DELETE FROM backfill WHERE NOT EXISTS (SELECT 1 FROM dag_run AS r WHERE r.backfill_id = backfill.backfill_id) \
     AND created_at_us < $1",
    "DELETE FROM skipped_instants WHERE noted_at_us < $1",
    "DELETE FROM outbox WHERE state <> 'pending' AND problem_no IN \
     (SELECT problem_no FROM problem WHERE resolved_at_us < $1)",
    "DELETE FROM problem WHERE resolved_at_us < $1 AND NOT EXISTS \
     (SELECT 1 FROM outbox AS o WHERE o.problem_no = problem.problem_no)",
    "DELETE FROM worker_session WHERE closed_at_us < $1 AND NOT EXISTS \
     (SELECT 1 FROM task_instance AS t WHERE t.session_id = worker_session.session_id)",
];

/// A run that ended long ago.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldRun {
    /// Its name.
    pub key: RunKey,
    run_no: i64,
}

struct DeleteRuns {
    runs: Vec<OldRun>,
    before: Timestamp,
}

impl Write for DeleteRuns {
    type Answer = u64;

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut deleted = 0;
            for run in &self.runs {
                let run_no = [Value::from(run.run_no)];
                if tx.fetch_all(STILL_OLD, &[run.run_no.into(), self.before.0.into()]).await?.is_empty() {
                    continue;
                }
                for sql in DELETIONS {
                    tx.execute(sql, &run_no).await?;
                }
                deleted += 1;
            }
            Ok(deleted)
        })
    }
}

struct PruneRest {
    before: Timestamp,
}

impl Write for PruneRest {
    type Answer = ();

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            for sql in REST {
                let values: &[Value] = if sql.contains("$1") { &[self.before.0.into()] } else { &[] };
                tx.execute(sql, values).await?;
            }
            events::prune(tx, self.before).await?;
            Ok(())
        })
    }
}

impl Store {
    /// How many runs ended before `before`.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn prunable(&self, before: Timestamp) -> Result<u64, StoreError> {
        let rows = self.read(COUNT_OLD, &[before.0.into()]).await?;
        let count = rows.first().map_or(Ok(0), |row| row.int(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Some of the runs that ended before `before`, those that ended first.
    ///
    /// # Errors
    /// Of the surroundings, and corrupt rows.
    pub async fn old_runs(&self, before: Timestamp) -> Result<Vec<OldRun>, StoreError> {
        let rows = self.read(OLD, &[before.0.into(), BATCH.into()]).await?;
        let old = |row: &Row| Ok(OldRun { key: run_key(row, 1, 2)?, run_no: row.int(0)? });
        rows.iter().map(old).collect()
    }

    /// Deletes those of `runs` that still are final and ended before `before`, with all that belongs to them here;
    /// answers how many.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn delete_runs(&self, runs: Vec<OldRun>, before: Timestamp) -> Result<u64, StoreError> {
        self.write(DeleteRuns { runs, before }).await
    }

    /// Deletes what only runs needed that are gone, and what else was over before `before`.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn delete_rest(&self, before: Timestamp) -> Result<(), StoreError> {
        self.write(PruneRest { before }).await
    }
}
