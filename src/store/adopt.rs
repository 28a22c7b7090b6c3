//! The rows of a run that has ended as those of another version of its DAG; part of a commit.

use std::sync::LazyLock;

use crate::core::dag::Dag;
use crate::core::version::Adopted;

use super::chunked::Chunked;
use super::db::{Tx, Value};
use super::error::StoreError;
use super::runs::born_with;

const PIN: &str = "UPDATE dag_run SET dag_hash = $2 \
     WHERE run_no = $1 AND state IN ('success', 'failed', 'cancelled')";
const DELETIONS: [&str; 2] = [
    "DELETE FROM task_output WHERE run_no = $1 AND task_id = $2",
    "DELETE FROM task_instance WHERE run_no = $1 AND task_id = $2",
];
/// A task that was part of the run before counts its fences on.
const ADD: &str = "INSERT INTO task_instance (run_no, task_id, map_index, state, try_number, fence, lost_count, \
         generation, pool, pool_slots, queue, priority) \
     SELECT $1, $2, -1, 'none', 0, COALESCE((SELECT MAX(fence) FROM task_try \
         WHERE run_no = $1 AND task_id = $2 AND map_index = -1), 0), 0, 0, $3, $4, $5, $6";
const MAPPED_TRIES: &str =
    "SELECT COUNT(*) FROM task_try WHERE run_no = $1 AND task_id = $2 AND map_index >= 0";
static RESHAPE: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::values(
        "UPDATE task_instance SET pool = v.column2, pool_slots = v.column3, queue = v.column4, \
         priority = v.column5 FROM (",
        5,
        ") AS v WHERE task_instance.run_no = $1 AND task_instance.task_id = v.column1",
    )
});

/// What becomes of the rows, made before the transaction begins.
pub(super) struct Adopt {
    hash: Value,
    removed: Vec<Value>,
    /// Task, and what its instance is born with.
    added: Vec<[Value; 5]>,
    added_mapped: Vec<Value>,
    kept: Vec<Value>,
}

impl Adopt {
    /// Those of `adopted`, which is a run of `dag`.
    pub(super) fn of(dag: &Dag, adopted: &Adopted) -> Self {
        let row = |ix: usize| {
            let [pool, slots, queue, priority] = born_with(dag, ix);
            [dag.task(ix).id.as_str().into(), pool, slots, queue, priority]
        };
        let kept = (0..dag.tasks().len()).filter(|ix| !adopted.added.contains(ix));
        let is_mapped = |ix: &&usize| dag.task(**ix).expand.is_some();
        Self {
            hash: (&*dag.hash.0).into(),
            removed: adopted.removed.iter().map(|id| id.as_str().into()).collect(),
            added: adopted.added.iter().map(|&ix| row(ix)).collect(),
            added_mapped: adopted.added.iter().filter(is_mapped).map(|&ix| row(ix)[0].clone()).collect(),
            kept: kept.flat_map(row).collect(),
        }
    }

    /// Writes them, under the lock of the run.
    ///
    /// # Errors
    /// `Conflict` if the run has not ended; `Refused` if fences of a mapped task would be given twice.
    pub(super) async fn write(&self, tx: &mut Tx<'_>, run_no: i64) -> Result<(), StoreError> {
        if tx.execute(PIN, &[run_no.into(), self.hash.clone()]).await? == 0 {
            return Err(StoreError::Conflict("the run goes on in its own version of the DAG".into()));
        }
        for task_id in &self.removed {
            for sql in DELETIONS {
                tx.execute(sql, &[run_no.into(), task_id.clone()]).await?;
            }
        }
        for task_id in &self.added_mapped {
            let row = tx.fetch_optional(MAPPED_TRIES, &[run_no.into(), task_id.clone()]).await?;
            if row.map_or(Ok(0), |row| row.int(0))? > 0 {
                return Err(StoreError::Refused(format!(
                    "the mapped task {task_id:?} was part of the run once and was taken out of it\nhint: start a new run"
                )));
            }
        }
        for row in &self.added {
            let mut values = vec![Value::from(run_no)];
            values.extend_from_slice(row);
            tx.execute(ADD, &values).await?;
        }
        RESHAPE.run(tx, run_no, &self.kept).await.map(|_rows| ())
    }
}
