//! Runs: created once per key, loaded as values, listed as rows.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::core::dag::{Dag, TaskIx};
use crate::core::ids::{DagHash, DagId, Fence, RunId, RunKey, SessionId, TaskId, Timestamp};
use crate::core::run::{Instances, RestoredRun, Run, RunBirth, RunType, TaskInstance, UNMAPPED};
use crate::core::state::{RunState, TaskState};

use super::Store;
use super::chunked::Chunked;
use super::db::{BoxFuture, Row, Statement, Tx, Value, Write};
use super::error::StoreError;

pub(super) const PUT_DAG_VERSION: &str = "INSERT INTO dag_version (dag_hash, dag_id, source) VALUES ($1, $2, $3) \
     ON CONFLICT (dag_hash) DO NOTHING";
const DAG_VERSION: &str = "SELECT dag_id, source FROM dag_version WHERE dag_hash = $1";
/// Locks the counter until the commit, so that numbers are not given twice.
const NEXT_RUN_NO: &str = "UPDATE instance SET last_run_no = last_run_no + 1 RETURNING last_run_no";
const INSERT_RUN: &str = "INSERT INTO dag_run (run_no, dag_id, run_id, dag_hash, run_type, schedule, \
         logical_date_us, data_interval_start_us, data_interval_end_us, params, queued_at_us, state, version, \
         with_failures, backfill_id) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'queued', 0, $12, $13) ON CONFLICT DO NOTHING";
static INSERT_INSTANCES: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::insert(
        "INSERT INTO task_instance (run_no, task_id, map_index, state, try_number, fence, lost_count, generation, \
         pool, pool_slots, queue, priority)",
        11,
        "",
    )
});

macro_rules! select_runs {
    ($rest:literal) => {
        concat!(
            "SELECT dag_id, run_id, dag_hash, run_type, logical_date_us, data_interval_start_us, \
             data_interval_end_us, params, queued_at_us, state, version, started_at_us, ended_at_us, \
             with_failures, run_no FROM dag_run WHERE ",
            $rest
        )
    };
}
const RUN: &str = select_runs!("dag_id = $1 AND run_id = $2");
/// By its name, or by its scheduled instant under another name.
const RUN_IN_THE_WAY: &str = select_runs!(
    "dag_id = $1 AND (run_id = $2 OR (schedule = $3 AND logical_date_us = $4)) ORDER BY run_id <> $2 LIMIT 1"
);
const RUNS: &str = select_runs!(
    "($1 IS NULL OR dag_id = $1) AND ($2 IS NULL OR state = $2) ORDER BY queued_at_us DESC, run_no DESC LIMIT $3"
);
const UNFINISHED_OF: &str = select_runs!(
    "dag_id = $1 AND backfill_id IS NULL AND state IN ('queued', 'running') ORDER BY logical_date_us, run_no"
);
const UNFINISHED_RUNS: &str = select_runs!("state IN ('queued', 'running') ORDER BY queued_at_us, run_no");
const INSTANCES: &str = "SELECT task_id, map_index, state, try_number, fence, lost_count, generation, resume_at_us, \
         started_at_us, ended_at_us, session_id FROM task_instance \
     WHERE run_no = (SELECT run_no FROM dag_run WHERE dag_id = $1 AND run_id = $2) ORDER BY task_id, map_index";
const LIST_LENGTHS: &str = "SELECT task_id, list_lengths FROM task_output \
     WHERE run_no = (SELECT run_no FROM dag_run WHERE dag_id = $1 AND run_id = $2) ORDER BY task_id, version, map_index";

/// The schedule of a DAG that has one; a second one will need a second name.
const SCHEDULE: &str = "schedule";

/// What asking for a run came to; that it was there already is an answer, not an error.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and it is taken apart at once")]
pub enum Created {
    /// It is new.
    New(Run),
    /// The key, or the scheduled instant, was taken: by this run, which may be pinned to another version.
    Existed(RunSummary),
}

/// The row of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// What never changes.
    pub birth: RunBirth,
    /// Where it stands.
    pub state: RunState,
    /// Commits so far.
    pub version: i64,
    /// When it left `queued`.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub ended_at: Option<Timestamp>,
    /// `success` over a failed task in the middle.
    pub with_failures: bool,
}

/// Which runs to list; the default is all.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// Of this DAG only.
    pub dag_id: Option<DagId>,
    /// In this state only.
    pub state: Option<RunState>,
}

/// The row of a task instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRow {
    /// The task.
    pub task_id: TaskId,
    /// Its place in the list, or [`UNMAPPED`].
    pub map_index: i32,
    /// All of its state.
    pub instance: TaskInstance,
}

/// Parses a stored text.
pub(super) fn parsed<T>(column: &str, text: &str, value: Option<T>) -> Result<T, StoreError> {
    value.ok_or_else(|| StoreError::unreadable(column, text))
}

pub(super) fn number<T: TryFrom<i64>>(column: &str, value: i64) -> Result<T, StoreError> {
    T::try_from(value).map_err(|_range| StoreError::unreadable(column, &value.to_string()))
}

pub(super) fn run_key(row: &Row, dag_id: usize, run_id: usize) -> Result<RunKey, StoreError> {
    let (dag, run) = (row.text(dag_id)?, row.text(run_id)?);
    Ok(RunKey {
        dag_id: parsed("dag_id", &dag, DagId::parse(&dag).ok())?,
        run_id: parsed("run_id", &run, RunId::parse(&run).ok())?,
    })
}

pub(super) fn task_id(row: &Row, column: usize) -> Result<TaskId, StoreError> {
    let text = row.text(column)?;
    parsed("task_id", &text, TaskId::parse(&text).ok())
}

pub(super) fn task_state(row: &Row, column: usize) -> Result<TaskState, StoreError> {
    let text = row.text(column)?;
    parsed("state", &text, TaskState::parse(&text))
}

pub(super) fn time_or_null(row: &Row, column: usize) -> Result<Option<Timestamp>, StoreError> {
    Ok(row.int_or_null(column)?.map(Timestamp))
}

fn summary(row: &Row) -> Result<RunSummary, StoreError> {
    let (run_type, state) = (row.text(3)?, row.text(9)?);
    Ok(RunSummary {
        birth: RunBirth {
            key: run_key(row, 0, 1)?,
            dag_hash: DagHash(row.text(2)?.into()),
            run_type: parsed("run_type", &run_type, RunType::parse(&run_type))?,
            logical_date: Timestamp(row.int(4)?),
            data_interval_start: Timestamp(row.int(5)?),
            data_interval_end: Timestamp(row.int(6)?),
            params: row.text(7)?.into(),
            queued_at: Timestamp(row.int(8)?),
        },
        state: parsed("state", &state, RunState::parse(&state))?,
        version: row.int(10)?,
        started_at: time_or_null(row, 11)?,
        ended_at: time_or_null(row, 12)?,
        with_failures: row.boolean(13)?,
    })
}

fn instance_row(row: &Row) -> Result<InstanceRow, StoreError> {
    let session = row.text_or_null(10)?;
    Ok(InstanceRow {
        task_id: task_id(row, 0)?,
        map_index: number("map_index", row.int(1)?)?,
        instance: TaskInstance {
            state: task_state(row, 2)?,
            try_number: number("try_number", row.int(3)?)?,
            fence: Fence(row.int(4)?),
            lost_count: number("lost_count", row.int(5)?)?,
            generation: number("generation", row.int(6)?)?,
            resume_at: time_or_null(row, 7)?,
            started_at: time_or_null(row, 8)?,
            ended_at: time_or_null(row, 9)?,
            session: session
                .map(|text| parsed("session_id", &text, SessionId::parse(&text).ok()))
                .transpose()?,
        },
    })
}

/// What admission and claim must know of an instance, written once: pool, slots, queue, priority.
pub(super) fn born_with(dag: &Dag, ix: TaskIx) -> [Value; 4] {
    let task = dag.task(ix);
    [
        task.pool.as_str().into(),
        i64::from(task.pool_slots).into(),
        task.queue.as_str().into(),
        dag.priority(ix).into(),
    ]
}

fn key_values(key: &RunKey) -> [Value; 2] {
    [key.dag_id.as_str().into(), key.run_id.as_str().into()]
}

/// What the rows of a run came to.
pub(super) enum Written {
    /// They are there, under this number.
    New(i64),
    /// They are not: this run has their key or their instant.
    InTheWay(Box<RunSummary>),
}

pub(super) struct CreateRun {
    pub(super) birth: RunBirth,
    instances: Vec<Value>,
    backfill: Value,
}

impl CreateRun {
    pub(super) fn new(birth: &RunBirth, dag: &Dag, backfill: Option<&str>) -> Self {
        let mut instances = Vec::with_capacity(dag.tasks().len() * 11);
        for (ix, task) in dag.tasks().iter().enumerate() {
            instances.extend([
                task.id.as_str().into(),
                i64::from(UNMAPPED).into(),
                TaskState::None.as_str().into(),
            ]);
            instances.extend([0.into(), 0.into(), 0.into(), 0.into()]);
            instances.extend(born_with(dag, ix));
        }
        Self { birth: birth.clone(), instances, backfill: Value::Text(backfill.map(ToOwned::to_owned)) }
    }

    pub(super) async fn write(&self, tx: &mut Tx<'_>) -> Result<Written, StoreError> {
        let birth = &self.birth;
        let [dag_id, run_id] = key_values(&birth.key);
        let schedule = match birth.run_type {
            RunType::Scheduled => Some(SCHEDULE.to_owned()),
            RunType::Manual | RunType::Backfill => None,
        };
        let hash = Value::from(&*birth.dag_hash.0);
        if tx.fetch_optional(DAG_VERSION, std::slice::from_ref(&hash)).await?.is_none() {
            return Err(StoreError::Refused(format!(
                "dag `{}` has no stored version `{}`: store the version before a run of it",
                birth.key.dag_id, birth.dag_hash.0
            )));
        }
        let way = [dag_id.clone(), run_id.clone(), schedule.clone().into(), birth.logical_date.0.into()];
        let row = tx.fetch_optional(NEXT_RUN_NO, &[]).await?;
        let run_no = row.ok_or_else(|| StoreError::Bug("the table `instance` is empty".into()))?.int(0)?;
        let values = [
            run_no.into(),
            dag_id,
            run_id,
            hash,
            birth.run_type.as_str().into(),
            schedule.into(),
            birth.logical_date.0.into(),
            birth.data_interval_start.0.into(),
            birth.data_interval_end.0.into(),
            (&*birth.params).into(),
            birth.queued_at.0.into(),
            false.into(),
            self.backfill.clone(),
        ];
        if tx.execute(INSERT_RUN, &values).await? == 0 {
            let row = tx.fetch_optional(RUN_IN_THE_WAY, &way).await?;
            let row = row.ok_or_else(|| StoreError::Busy("a run in the way has gone meanwhile".into()))?;
            return summary(&row).map(|run| Written::InTheWay(Box::new(run)));
        }
        INSERT_INSTANCES.run(tx, run_no, &self.instances).await?;
        Ok(Written::New(run_no))
    }
}

impl Write for CreateRun {
    type Answer = Written;

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<Written, StoreError>> {
        Box::pin(self.write(tx))
    }
}

/// Puts instances, ordered by task id and place, into the order of the DAG.
fn instances(rows: Vec<InstanceRow>, dag: &Dag) -> Result<Vec<Instances>, StoreError> {
    let mut by_task: Vec<Vec<(i32, TaskInstance)>> = vec![Vec::new(); dag.tasks().len()];
    for row in rows {
        let ix =
            dag.find(&row.task_id).ok_or_else(|| StoreError::unreadable("task_id", row.task_id.as_str()))?;
        by_task[ix].push((row.map_index, row.instance));
    }
    let mut tasks = Vec::with_capacity(by_task.len());
    for (task, found) in dag.tasks().iter().zip(by_task) {
        let missing = || StoreError::Bug(format!("the instances of task `{}` are not all there", task.id));
        let alone = matches!(found.as_slice(), [(UNMAPPED, _)]);
        let in_order = found.iter().zip(0..).all(|((map_index, _), place)| *map_index == place);
        let mut all = found.into_iter().map(|(_, instance)| instance);
        tasks.push(match (alone, task.expand.is_some()) {
            (true, false) => Instances::One(all.next().ok_or_else(missing)?),
            (true, true) => Instances::Unexpanded(all.next().ok_or_else(missing)?),
            (false, true) if in_order && all.len() > 0 => Instances::Mapped(all.collect()),
            (false, _) => return Err(missing()),
        });
    }
    Ok(tasks)
}

impl Store {
    /// Keeps the source of a DAG version under its content hash; again is harmless.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn put_dag_version(
        &self,
        hash: &DagHash,
        dag_id: &DagId,
        source: &str,
    ) -> Result<(), StoreError> {
        let values = vec![(&*hash.0).into(), dag_id.as_str().into(), source.into()];
        self.write(Statement { sql: PUT_DAG_VERSION, values }).await.map(|_rows| ())
    }

    /// The DAG and the source kept under `hash`.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if the row cannot be read.
    pub async fn dag_version(&self, hash: &DagHash) -> Result<Option<(DagId, String)>, StoreError> {
        let rows = self.read(DAG_VERSION, &[(&*hash.0).into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let text = row.text(0)?;
        Ok(Some((parsed("dag_id", &text, DagId::parse(&text).ok())?, row.text(1)?)))
    }

    /// Creates a run with all its task instances, or says which run has its key or its scheduled instant.
    ///
    /// # Errors
    /// `Refused` if the DAG version was not stored before.
    pub async fn create_run(&self, birth: &RunBirth, dag: &Dag) -> Result<Created, StoreError> {
        Ok(match self.write(CreateRun::new(birth, dag, None)).await? {
            Written::New(_) => Created::New(Run::new(birth.clone(), dag)),
            Written::InTheWay(summary) => Created::Existed(*summary),
        })
    }

    /// The run as a value; `None` if there is no such run.
    ///
    /// # Errors
    /// `Refused` if the run is pinned to another version than `dag`.
    pub async fn load_run(&self, key: &RunKey, dag: &Dag) -> Result<Option<Run>, StoreError> {
        // The version is read first: rows that are newer than it make the next commit a conflict, never a lie.
        let Some(found) = self.run_summary(key).await? else { return Ok(None) };
        if found.birth.dag_hash != dag.hash {
            return Err(StoreError::Refused(format!(
                "run `{}` of `{}` is pinned to version `{}`, not `{}`",
                key.run_id, key.dag_id, found.birth.dag_hash.0, dag.hash.0
            )));
        }
        let tasks = instances(self.task_instances(key).await?, dag)?;
        // Only the lists of a task's newest attempt count, so a later row takes an earlier one's place.
        let mut newest = BTreeMap::new();
        for row in self.read(LIST_LENGTHS, &key_values(key)).await? {
            let (id, text) = (task_id(&row, 0)?, row.text(1)?);
            let ix = parsed("task_id", id.as_str(), dag.find(&id))?;
            let lengths: BTreeMap<String, u32> =
                serde_json::from_str(&text).map_err(|_json| StoreError::unreadable("list_lengths", &text))?;
            newest.insert(ix, lengths);
        }
        let named = |(ix, lengths): (TaskIx, BTreeMap<String, u32>)| {
            lengths.into_iter().map(move |(name, length)| ((ix, Arc::from(name)), length))
        };
        let list_lengths = newest.into_iter().flat_map(named).collect();
        let RunSummary { birth, state, version, started_at, ended_at, with_failures } = found;
        let rows =
            RestoredRun { birth, state, version, started_at, ended_at, with_failures, tasks, list_lengths };
        Ok(Some(Run::restore(rows, dag)))
    }

    /// The row of one run.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if the row cannot be read.
    pub async fn run_summary(&self, key: &RunKey) -> Result<Option<RunSummary>, StoreError> {
        self.read(RUN, &key_values(key)).await?.first().map(summary).transpose()
    }

    /// Runs that pass the filter, newest first, at most `limit`.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn runs(&self, filter: &RunFilter, limit: u32) -> Result<Vec<RunSummary>, StoreError> {
        let dag_id = filter.dag_id.as_ref().map(ToString::to_string);
        let state = filter.state.map(|state| state.to_string());
        let values = [dag_id.into(), state.into(), i64::from(limit).into()];
        self.read(RUNS, &values).await?.iter().map(summary).collect()
    }

    /// Every run that is not final, oldest first: what a scheduler has to take up when it starts.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn unfinished_runs(&self) -> Result<Vec<RunSummary>, StoreError> {
        self.read(UNFINISHED_RUNS, &[]).await?.iter().map(summary).collect()
    }

    /// Every run of a DAG that is not final, backfills apart, in the order of their dates.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn unfinished_of(&self, dag_id: &DagId) -> Result<Vec<RunSummary>, StoreError> {
        self.read(UNFINISHED_OF, &[dag_id.as_str().into()]).await?.iter().map(summary).collect()
    }

    /// The task instances of a run by task id and place.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn task_instances(&self, key: &RunKey) -> Result<Vec<InstanceRow>, StoreError> {
        self.read(INSTANCES, &key_values(key)).await?.iter().map(instance_row).collect()
    }
}
