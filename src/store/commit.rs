//! The one write of a run: what a step decided, all of it or nothing. It must not decide anything itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use crate::core::dag::Dag;
use crate::core::ids::{RunKey, Timestamp};
use crate::core::run::{Decision, Outputs, RunChange, TiRef};
use crate::core::state::{RunState, TaskState};
use crate::core::version::Adopted;

use super::Store;
use super::adopt::Adopt;
use super::chunked::Chunked;
use super::db::{BoxFuture, Tx, Value, Write};
use super::error::StoreError;
use super::events::Published;
use super::moves::{Line, Move, Moves};
use super::problems::Sights;

/// First of all, so that it takes the run's lock; its guard is the version the decision was made from.
const BUMP_RUN: &str = "UPDATE dag_run SET version = version + 1, next_due_us = $4 \
     WHERE dag_id = $1 AND run_id = $2 AND version = $3 RETURNING run_no, backfill_id";
const MOVE_RUN: &str = "UPDATE dag_run SET state = $3, started_at_us = $4, ended_at_us = $5, with_failures = $6 \
     WHERE run_no = $1 AND state = $2";
/// A list that is longer after a clear finds the shorter list's rows there: they stay.
const EXPAND: &str = "WITH RECURSIVE place (map_index) AS (SELECT CAST(0 AS BIGINT) UNION ALL \
         SELECT map_index + 1 FROM place WHERE map_index + 1 < $3) \
     INSERT INTO task_instance (run_no, task_id, map_index, state, try_number, fence, lost_count, generation, \
         pool, pool_slots, queue, priority) \
     SELECT $1, $2, map_index, 'none', 0, 0, 0, 0, $4, $5, $6, $7 FROM place WHERE map_index >= 0 \
     ON CONFLICT (run_no, task_id, map_index) DO NOTHING";
/// Whatever its state: one that was skipped or cancelled may be cleared and give way in the same step. The version
/// of the run has been compared.
const DELETE_PLACEHOLDER: &str =
    "DELETE FROM task_instance WHERE run_no = $1 AND task_id = $2 AND map_index = -1";
static UPSERT_OUTPUTS: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::insert(
        "INSERT INTO task_output (run_no, task_id, map_index, json, list_lengths, version)",
        5,
        " ON CONFLICT (run_no, task_id, map_index) DO UPDATE SET json = excluded.json, \
         list_lengths = excluded.list_lengths, version = excluded.version",
    )
});
/// A pool without a row has no limit.
const BUMP_POOL: &str = "UPDATE pool SET version = version + 1 WHERE pool = $1 RETURNING slots";
const POOL_USE: &str = "SELECT CAST(COALESCE(SUM(pool_slots), 0) AS BIGINT) FROM task_instance \
     WHERE pool = $1 AND state IN ('queued', 'running')";
/// Locks the place where the runs of a DAG, or of a backfill, are counted. A DAG that was never served has none,
/// and then one process alone drives its runs.
const BUMP_DAG: &str = "UPDATE dag SET starts = starts + 1 WHERE dag_id = $1";
const BUMP_BACKFILL: &str =
    "UPDATE backfill SET starts = starts + 1 WHERE backfill_id = $1 RETURNING max_active_runs";
const ACTIVE_RUNS: &str = "SELECT COUNT(*) FROM dag_run WHERE state = 'running' AND dag_id = $1 \
     AND backfill_id IS NOT DISTINCT FROM $2";
const ACTIVE_TIS: &str = "SELECT COUNT(*) FROM task_instance AS t JOIN dag_run AS r ON r.run_no = t.run_no \
     WHERE r.dag_id = $1 AND t.task_id = $2 AND t.state IN ('queued', 'running') AND r.state = 'running'";

/// A decision as rows, made before the transaction begins so that the writer only writes.
struct Commit {
    key: RunKey,
    expected_version: i64,
    /// Task, length, and the columns its instances are born with.
    expanded: Vec<Vec<Value>>,
    moves: Moves,
    run_change: Option<RunChange>,
    outputs: Vec<Value>,
    /// Pools it admits into, in order of their names.
    pools: Vec<String>,
    /// Tasks it admits of that have a limit over all runs, with the limit.
    limited: BTreeMap<String, u32>,
    /// The DAG's own limit of active runs.
    runs_max: u32,
    next_due: Option<Timestamp>,
    /// Whether what other runs use is counted.
    counted: bool,
    sights: Sights,
    published: Published,
    /// The run is carried over to another version of its DAG first.
    adopt: Option<Adopt>,
    now: Timestamp,
}

impl Commit {
    fn new(dag: &Dag, key: &RunKey, expected_version: i64, decision: &Decision, now: Timestamp) -> Self {
        let version = expected_version + 1;
        let mut commit = Self {
            key: key.clone(),
            expected_version,
            expanded: Vec::new(),
            moves: Moves::default(),
            run_change: decision.run_change.clone(),
            outputs: Vec::new(),
            pools: Vec::new(),
            limited: BTreeMap::new(),
            runs_max: dag.settings.max_active_runs,
            next_due: decision.next_due,
            counted: true,
            sights: Sights::of(dag, key, decision),
            published: Published::of(dag, decision),
            adopt: None,
            now,
        };
        for &(ix, length) in decision.expanded.iter().filter(|&&(_, length)| length > 0) {
            let task_id = dag.task(ix).id.as_str();
            let mut values = vec![task_id.into(), i64::from(length).into()];
            values.extend(super::runs::born_with(dag, ix));
            commit.expanded.push(values);
            let reason = format!("mapped over a list of {length}");
            commit.moves.note(
                &Line { task_id: Some(task_id), from: "none", to: "none", reason },
                version,
                now,
            );
        }
        for change in &decision.changes {
            let task = dag.task(change.ti.task);
            let step = Move {
                task_id: task.id.as_str(),
                map_index: change.ti.map_index,
                from: change.from,
                from_fence: change.from_fence.0,
                to: &change.to,
                via: &change.via,
                ended: change.first_move(),
                reason: change.reason.to_string(),
            };
            commit.moves.push(&step, version, now);
            if change.to.state.holds_slots() && !change.from.holds_slots() {
                commit.pools.push(task.pool.to_string());
                commit.limited.extend(task.max_active_tis_per_dag.map(|limit| (task.id.to_string(), limit)));
            }
        }
        commit.pools.sort();
        commit.pools.dedup();
        if let Some(RunChange { from, to, reason, .. }) = &decision.run_change {
            let reason = reason.to_string();
            commit.moves.note(
                &Line { task_id: None, from: from.as_str(), to: to.as_str(), reason },
                version,
                now,
            );
        }
        commit.outputs = outputs(dag, decision, version);
        commit
    }

    /// Counts active runs once more if the run starts: another scheduler may have started one meanwhile.
    async fn start(&self, tx: &mut Tx<'_>, backfill: Option<String>) -> Result<(), StoreError> {
        let starts = self.run_change.as_ref().is_some_and(|change| change.to == RunState::Running);
        if !starts && self.limited.is_empty() {
            return Ok(());
        }
        let dag_id = Value::from(self.key.dag_id.as_str());
        let mut runs_max = i64::from(self.runs_max);
        let served = match &backfill {
            Some(id) if starts => match tx.fetch_optional(BUMP_BACKFILL, &[id.as_str().into()]).await? {
                Some(row) => {
                    runs_max = row.int(0)?;
                    true
                }
                None => false,
            },
            Some(_) | None => tx.execute(BUMP_DAG, std::slice::from_ref(&dag_id)).await? == 1,
        };
        if starts && served {
            let row = tx.fetch_optional(ACTIVE_RUNS, &[dag_id.clone(), backfill.into()]).await?;
            let active = row.map_or(Ok(0), |row| row.int(0))?;
            if active > runs_max {
                return Err(StoreError::Conflict(format!(
                    "{active} runs would be active, at most {runs_max} may be"
                )));
            }
        }
        for (task_id, limit) in &self.limited {
            let row = tx.fetch_optional(ACTIVE_TIS, &[dag_id.clone(), task_id.as_str().into()]).await?;
            let active = row.map_or(Ok(0), |row| row.int(0))?;
            if active > i64::from(*limit) {
                return Err(StoreError::Conflict(format!(
                    "{active} instances of `{task_id}` would be active, at most {limit} may be"
                )));
            }
        }
        Ok(())
    }

    async fn admit(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        for pool in &self.pools {
            let name = [Value::from(pool.as_str())];
            let Some(row) = tx.fetch_optional(BUMP_POOL, &name).await? else { continue };
            let slots = row.int(0)?;
            let used = tx.fetch_optional(POOL_USE, &name).await?.map_or(Ok(0), |row| row.int(0))?;
            if used > slots {
                return Err(StoreError::Conflict(format!(
                    "pool `{pool}` has {slots} slots, this would make {used} in use"
                )));
            }
        }
        Ok(())
    }

    async fn write(&self, tx: &mut Tx<'_>) -> Result<i64, StoreError> {
        let bump = [
            self.key.dag_id.as_str().into(),
            self.key.run_id.as_str().into(),
            self.expected_version.into(),
            Value::Int(self.next_due.map(|at| at.0)),
        ];
        let Some(row) = tx.fetch_optional(BUMP_RUN, &bump).await? else {
            return Err(StoreError::Conflict(format!(
                "run `{}` of `{}` is not at version {}",
                self.key.run_id, self.key.dag_id, self.expected_version
            )));
        };
        let (run_no, backfill) = (row.int(0)?, row.text_or_null(1)?);
        if let Some(adopt) = &self.adopt {
            adopt.write(tx, run_no).await?;
        }
        for values in &self.expanded {
            tx.execute(DELETE_PLACEHOLDER, &[run_no.into(), values[0].clone()]).await?;
            let mut all = vec![Value::from(run_no)];
            all.extend_from_slice(values);
            tx.execute(EXPAND, &all).await?;
        }
        self.moves.write(tx, run_no).await?;
        if let Some(change) = &self.run_change {
            move_run(tx, run_no, change).await?;
        }
        UPSERT_OUTPUTS.run(tx, run_no, &self.outputs).await?;
        if self.counted {
            self.start(tx, backfill).await?;
            self.admit(tx).await?;
        }
        self.sights.write(tx, self.now).await?;
        self.published.write(tx, &self.key, self.now).await?;
        Ok(self.expected_version + 1)
    }
}

/// What attempts left, as rows. A repetition after a clear that left nothing takes away what was there.
fn outputs(dag: &Dag, decision: &Decision, version: i64) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut row = |ti: TiRef, outputs: &Outputs| {
        let lengths: serde_json::Map<_, _> =
            outputs.list_lengths.iter().map(|(name, length)| (name.to_string(), (*length).into())).collect();
        rows.extend([
            dag.task(ti.task).id.as_str().into(),
            i64::from(ti.map_index).into(),
            (&*outputs.json).into(),
            serde_json::Value::Object(lengths).to_string().into(),
            version.into(),
        ]);
    };
    let mut left = BTreeSet::new();
    for (ti, outputs) in &decision.outputs {
        left.insert(*ti);
        row(*ti, outputs);
    }
    for change in decision.changes.iter().filter(|change| change.to.generation > 0) {
        let (outcome, _) = change.first_move();
        let succeeded = change.from == TaskState::Running && outcome == TaskState::Success;
        // A person who marks a running attempt takes it away and says nothing of what was left before.
        let marked = decision.revoked.contains(&(change.ti, change.from_fence));
        if succeeded && !marked && !left.contains(&change.ti) {
            row(change.ti, &Outputs::default());
        }
    }
    rows
}

async fn move_run(tx: &mut Tx<'_>, run_no: i64, change: &RunChange) -> Result<(), StoreError> {
    let RunChange { from, to, started_at, ended_at, with_failures, reason: _ } = change;
    let values = [
        run_no.into(),
        from.as_str().into(),
        to.as_str().into(),
        Value::Int(started_at.map(|at| at.0)),
        Value::Int(ended_at.map(|at| at.0)),
        Value::Bool(Some(*with_failures)),
    ];
    if tx.execute(MOVE_RUN, &values).await? == 1 {
        return Ok(());
    }
    Err(StoreError::Conflict(format!("the run is not `{from}` any more")))
}

impl Write for Commit {
    type Answer = i64;

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<i64, StoreError>> {
        Box::pin(self.write(tx))
    }
}

impl Store {
    /// Writes a decision that was made from version `expected_version` of the run; returns the new version.
    /// All of it or nothing, and on the disk (at full durability) when it returns.
    ///
    /// # Errors
    /// `Conflict` if the run, an instance or a pool is not as the decision assumed: load, step, commit again.
    pub async fn commit(
        &self,
        dag: &Dag,
        key: &RunKey,
        expected_version: i64,
        decision: &Decision,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let commit = Commit::new(dag, key, expected_version, decision, now);
        self.write(Commit { counted: self.counted, ..commit }).await
    }

    /// As [`Store::commit`], for a run that has ended and is carried over to `dag`, another version of its DAG, by
    /// the same commit; `decision` was made from `adopted`.
    ///
    /// # Errors
    /// `Conflict` if the run is not as it was; `Refused` if a task cannot become part of it again.
    pub async fn commit_adopted(
        &self,
        dag: &Dag,
        key: &RunKey,
        adopted: &Adopted,
        decision: &Decision,
        now: Timestamp,
    ) -> Result<i64, StoreError> {
        let commit = Commit::new(dag, key, adopted.run.version, decision, now);
        let adopt = Some(Adopt::of(dag, adopted));
        self.write(Commit { counted: self.counted, adopt, ..commit }).await
    }
}
