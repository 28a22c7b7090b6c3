//! Retention: runs that ended long ago go, with everything that belongs to them, a few at a time so that nobody
//! waits for it. It must not touch a run that is not final.

use crate::core::ids::Timestamp;

use super::Store;
use super::db::{BoxFuture, Tx, Value, Write};
use super::error::StoreError;

/// Runs that one transaction deletes.
const BATCH: i64 = 50;

const OLD: &str = "SELECT run_no FROM dag_run WHERE state IN ('success', 'failed', 'cancelled') \
     AND ended_at_us < $1 ORDER BY run_no LIMIT $2";
const COUNT_OLD: &str = "SELECT COUNT(*) FROM dag_run WHERE state IN ('success', 'failed', 'cancelled') \
     AND ended_at_us < $1";
/// What belongs to a run, before the run itself.
const DELETIONS: &[&str] = &[
    "DELETE FROM journal WHERE run_no = $1",
    "DELETE FROM task_output WHERE run_no = $1",
    "DELETE FROM task_try WHERE run_no = $1",
    "DELETE FROM task_instance WHERE run_no = $1",
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

struct PruneRuns {
    before: Timestamp,
}

impl Write for PruneRuns {
    type Answer = u64;

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(async move {
            let rows = tx.fetch_all(OLD, &[self.before.0.into(), BATCH.into()]).await?;
            for row in &rows {
                let run_no = [Value::from(row.int(0)?)];
                for sql in DELETIONS {
                    tx.execute(sql, &run_no).await?;
                }
            }
            Ok(rows.len() as u64)
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

    /// Deletes some of the runs that ended before `before`, with all that belongs to them; answers how many.
    /// Call it until it answers 0: then what only they needed is gone too.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn prune(&self, before: Timestamp) -> Result<u64, StoreError> {
        let pruned = self.write(PruneRuns { before }).await?;
        if pruned == 0 {
            self.write(PruneRest { before }).await?;
        }
        Ok(pruned)
    }
}
