//! DAGs as their files last said, how far their schedules have come, and what a schedule creates.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::dag::Dag;
use crate::core::ids::{DagHash, DagId, RunId, Timestamp};
use crate::core::run::RunBirth;

use super::Store;
use super::db::{BoxFuture, Row, Statement, Tx, Value, Write};
use super::error::StoreError;
use super::events::{self, EventKind};
use super::runs::{CreateRun, PUT_DAG_VERSION, Written, number, parsed, time_or_null};

macro_rules! select_dags {
    ($rest:literal) => {
        concat!(
            "SELECT dag_id, version, dag_hash, paused, present, first_seen_us, cursor_us, next_fire_us FROM dag ",
            $rest
        )
    };
}
const DAGS: &str = select_dags!("ORDER BY dag_id");
const DAG: &str = select_dags!("WHERE dag_id = $1");
/// Their time has come, or there is an event that their schedules were not asked with.
const DUE_DAGS: &str = select_dags!(
    "WHERE present AND NOT paused AND (next_fire_us <= $1 \
         OR dag_id IN (SELECT dag_id FROM bell WHERE rings <> heard)) \
     ORDER BY COALESCE(next_fire_us, $1), dag_id LIMIT $2"
);
/// A DAG that has changed is due at once: its next fire must be found anew.
const PUT_DAG: &str = "INSERT INTO dag (dag_id, version, dag_hash, max_active_runs, paused, present, \
         first_seen_us, next_fire_us) VALUES ($1, 0, $2, $3, FALSE, TRUE, $4, $4) \
     ON CONFLICT (dag_id) DO UPDATE SET version = dag.version + 1, dag_hash = excluded.dag_hash, \
         max_active_runs = excluded.max_active_runs, present = TRUE, next_fire_us = excluded.next_fire_us \
     WHERE dag.dag_hash <> excluded.dag_hash OR NOT dag.present";
const LOSE_DAG: &str = "UPDATE dag SET present = FALSE, version = version + 1 WHERE dag_id = $1 AND present";
const NEXT_FIRE: &str = "SELECT MIN(next_fire_us) FROM dag WHERE present AND NOT paused";
/// Whoever lets a DAG go on has its next fire found anew.
const SET_PAUSED: &str = "UPDATE dag SET paused = $2, version = version + 1, next_fire_us = $3 \
     WHERE dag_id = $1 AND paused <> $2";
const PAUSED: &str = "SELECT dag_id FROM dag WHERE paused ORDER BY dag_id";
const MOVE_CURSOR: &str = "UPDATE dag SET version = version + 1, cursor_us = $3, next_fire_us = $4 \
     WHERE dag_id = $1 AND version = $2";
const NOTE_SKIPPED: &str = "INSERT INTO skipped_instants (dag_id, from_us, to_us, instants, why, noted_at_us) \
     VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (dag_id, from_us, to_us) DO NOTHING";
const SKIPPED: &str = "SELECT from_us, to_us, instants, why FROM skipped_instants WHERE dag_id = $1 \
     ORDER BY from_us DESC, to_us DESC LIMIT $2";
/// The states of the newest runs that a schedule made and that ended.
const NEWEST_ENDS: &str = "SELECT state FROM dag_run WHERE dag_id = $1 AND run_type = 'scheduled' \
     AND state IN ('success', 'failed', 'cancelled') ORDER BY logical_date_us DESC LIMIT $2";
const INSERT_BACKFILL: &str = "INSERT INTO backfill (backfill_id, dag_id, max_active_runs, backwards, \
     created_at_us) VALUES ($1, $2, $3, $4, $5)";

/// The row of a DAG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DagRow {
    /// Its name.
    pub dag_id: DagId,
    /// Rises at every change of the row: the guard of [`Store::fire`].
    pub version: i64,
    /// The version of the DAG that new runs are pinned to.
    pub dag_hash: DagHash,
    /// Nothing new is created or admitted.
    pub paused: bool,
    /// Whether its file is there.
    pub present: bool,
    /// When its file was first seen.
    pub first_seen: Timestamp,
    /// The last instant that the schedule has dealt with.
    pub cursor: Option<Timestamp>,
    /// When the schedule must be asked again; `None` if it never fires.
    pub next_fire: Option<Timestamp>,
}

/// Instants that were left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedInstants {
    /// The first.
    pub from: Timestamp,
    /// The last.
    pub to: Timestamp,
    /// How many; `None` where counting would cost too much.
    pub instants: Option<u32>,
    /// By which policy.
    pub why: String,
}

/// A schedule moves on: all of it or nothing.
#[derive(Debug, Clone, Default)]
pub struct Firing {
    /// Runs to create. One that exists already is left as it is.
    pub births: Vec<RunBirth>,
    /// The waiting events that each of them takes, by number. Events of a run that exists already wait on.
    pub events: BTreeMap<RunId, Vec<i64>>,
    /// The rings that the schedule was asked with, see [`Store::rings`]; `None` if it is to be asked again.
    pub heard: Option<i64>,
    /// What is left out.
    pub skipped: Vec<SkippedInstants>,
    /// The last instant dealt with.
    pub cursor: Option<Timestamp>,
    /// When to ask again.
    pub next_fire: Option<Timestamp>,
}

/// A backfill: past intervals on request, with a limit of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfill {
    /// Its name.
    pub id: String,
    /// Whose intervals.
    pub dag_id: DagId,
    /// Its runs at once.
    pub max_active_runs: u32,
    /// The newest interval first.
    pub backwards: bool,
}

fn dag_row(row: &Row) -> Result<DagRow, StoreError> {
    let dag_id = row.text(0)?;
    Ok(DagRow {
        dag_id: parsed("dag_id", &dag_id, DagId::parse(&dag_id).ok())?,
        version: row.int(1)?,
        dag_hash: DagHash(row.text(2)?.into()),
        paused: row.boolean(3)?,
        present: row.boolean(4)?,
        first_seen: Timestamp(row.int(5)?),
        cursor: time_or_null(row, 6)?,
        next_fire: time_or_null(row, 7)?,
    })
}

struct PutDag {
    dag: Vec<Value>,
    version: Vec<Value>,
    dag_id: String,
    followed: Vec<(EventKind, Arc<str>)>,
}

impl Write for PutDag {
    type Answer = bool;

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            tx.execute(PUT_DAG_VERSION, &self.version).await?;
            let is_news = tx.execute(PUT_DAG, &self.dag).await? == 1;
            if is_news || !self.followed.is_empty() {
                events::follow(tx, &self.dag_id, &self.followed).await?;
            }
            Ok(is_news)
        })
    }
}

struct Fire {
    dag_id: DagId,
    version: i64,
    cursor: Value,
    next_fire: Value,
    runs: Vec<CreateRun>,
    events: BTreeMap<RunId, Vec<i64>>,
    heard: Option<i64>,
    skipped: Vec<Vec<Value>>,
}

impl Write for Fire {
    type Answer = Vec<RunBirth>;

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<Vec<RunBirth>, StoreError>> {
        Box::pin(async move {
            let guard = [
                self.dag_id.as_str().into(),
                self.version.into(),
                self.cursor.clone(),
                self.next_fire.clone(),
            ];
            if tx.execute(MOVE_CURSOR, &guard).await? == 0 {
                return Err(StoreError::Conflict(format!(
                    "the schedule of `{}` was moved on by another",
                    self.dag_id
                )));
            }
            let mut created = Vec::new();
            let mut heard = self.heard;
            for run in &self.runs {
                let events = self.events.get(&run.birth.key.run_id);
                match (run.write(tx).await?, events) {
                    (Written::New(run_no), Some(events)) => {
                        events::take(tx, self.dag_id.as_str(), run_no, events).await?;
                        created.push(run.birth.clone());
                    }
                    (Written::New(_), None) => created.push(run.birth.clone()),
                    (Written::InTheWay(_), Some(_)) => heard = None,
                    (Written::InTheWay(_), None) => {}
                }
            }
            for values in &self.skipped {
                tx.execute(NOTE_SKIPPED, values).await?;
            }
            if let Some(rings) = heard {
                events::hear(tx, self.dag_id.as_str(), rings).await?;
            }
            Ok(created)
        })
    }
}

struct CreateBackfill {
    backfill: Vec<Value>,
    runs: Vec<CreateRun>,
}

impl Write for CreateBackfill {
    type Answer = Vec<RunBirth>;

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<Vec<RunBirth>, StoreError>> {
        Box::pin(async move {
            tx.execute(INSERT_BACKFILL, &self.backfill).await?;
            let mut created = Vec::new();
            for run in &self.runs {
                if let Written::New(_) = run.write(tx).await? {
                    created.push(run.birth.clone());
                }
            }
            Ok(created)
        })
    }
}

impl Store {
    /// Notes what the file of a DAG says now, with its source; true if that is news.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn put_dag(&self, dag: &Dag, source: &str, now: Timestamp) -> Result<bool, StoreError> {
        let (hash, dag_id) = (&*dag.hash.0, dag.id.as_str());
        self.write(PutDag {
            dag: vec![
                dag_id.into(),
                hash.into(),
                i64::from(dag.settings.max_active_runs).into(),
                now.0.into(),
            ],
            version: vec![hash.into(), dag_id.into(), source.into()],
            dag_id: dag_id.to_owned(),
            followed: events::followed(dag),
        })
        .await
    }

    /// Notes that the file of a DAG is gone: nothing fires any more, runs in flight go on.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn lose_dag(&self, dag_id: &DagId) -> Result<(), StoreError> {
        let values = vec![dag_id.as_str().into()];
        self.write(Statement { sql: LOSE_DAG, values }).await.map(|_rows| ())
    }

    /// Every DAG that was ever served, by name.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn dags(&self) -> Result<Vec<DagRow>, StoreError> {
        self.read(DAGS, &[]).await?.iter().map(dag_row).collect()
    }

    /// One DAG.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if the row cannot be read.
    pub async fn dag(&self, dag_id: &DagId) -> Result<Option<DagRow>, StoreError> {
        self.read(DAG, &[dag_id.as_str().into()]).await?.first().map(dag_row).transpose()
    }

    /// DAGs whose schedule must be asked at `now`, the latest first in line; at most `limit`.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn due_dags(&self, now: Timestamp, limit: u32) -> Result<Vec<DagRow>, StoreError> {
        self.read(DUE_DAGS, &[now.0.into(), i64::from(limit).into()]).await?.iter().map(dag_row).collect()
    }

    /// When the next schedule must be asked; `None` if none ever.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn next_fire(&self) -> Result<Option<Timestamp>, StoreError> {
        let rows = self.read(NEXT_FIRE, &[]).await?;
        rows.first().map_or(Ok(None), |row| time_or_null(row, 0))
    }

    /// Pauses a DAG, or lets it go on; false if it is so already or there is no such DAG.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn set_paused(&self, dag_id: &DagId, paused: bool, now: Timestamp) -> Result<bool, StoreError> {
        let values = vec![dag_id.as_str().into(), paused.into(), now.0.into()];
        self.write(Statement { sql: SET_PAUSED, values }).await.map(|rows| rows == 1)
    }

    /// The paused DAGs.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn paused(&self) -> Result<Vec<DagId>, StoreError> {
        let rows = self.read(PAUSED, &[]).await?;
        let id = |row: &Row| {
            let text = row.text(0)?;
            parsed("dag_id", &text, DagId::parse(&text).ok())
        };
        rows.iter().map(id).collect()
    }

    /// Moves the schedule of `dag` on from `seen`, and creates what it creates, all in one transaction.
    /// Answers with the runs that are new.
    ///
    /// # Errors
    /// `Conflict` if the row is not as it was seen: another scheduler was faster, or the DAG was changed.
    pub async fn fire(
        &self,
        seen: &DagRow,
        dag: &Dag,
        firing: &Firing,
        now: Timestamp,
    ) -> Result<Vec<RunBirth>, StoreError> {
        let skipped = |left_out: &SkippedInstants| {
            vec![
                seen.dag_id.as_str().into(),
                left_out.from.0.into(),
                left_out.to.0.into(),
                Value::Int(left_out.instants.map(i64::from)),
                left_out.why.as_str().into(),
                now.0.into(),
            ]
        };
        self.write(Fire {
            dag_id: seen.dag_id.clone(),
            version: seen.version,
            cursor: Value::Int(firing.cursor.map(|at| at.0)),
            next_fire: Value::Int(firing.next_fire.map(|at| at.0)),
            runs: firing.births.iter().map(|birth| CreateRun::new(birth, dag, None)).collect(),
            events: firing.events.clone(),
            heard: firing.heard,
            skipped: firing.skipped.iter().map(skipped).collect(),
        })
        .await
    }

    /// Instants of a DAG's schedule that were left out, newest first.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn skipped(&self, dag_id: &DagId, limit: u32) -> Result<Vec<SkippedInstants>, StoreError> {
        let skipped = |row: &Row| {
            Ok(SkippedInstants {
                from: Timestamp(row.int(0)?),
                to: Timestamp(row.int(1)?),
                instants: row.int_or_null(2)?.map(|count| number("instants", count)).transpose()?,
                why: row.text(3)?,
            })
        };
        self.read(SKIPPED, &[dag_id.as_str().into(), i64::from(limit).into()])
            .await?
            .iter()
            .map(skipped)
            .collect()
    }

    /// How many of a DAG's newest scheduled runs failed one after the other, counted up to `limit`.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn failed_in_a_row(&self, dag_id: &DagId, limit: u32) -> Result<u32, StoreError> {
        let mut failed = 0;
        for row in self.read(NEWEST_ENDS, &[dag_id.as_str().into(), i64::from(limit).into()]).await? {
            if row.text(0)? != "failed" {
                break;
            }
            failed += 1;
        }
        Ok(failed)
    }

    /// Creates a backfill with its runs, all in one transaction. A run that exists already is left as it is.
    /// Answers with the runs that are new.
    ///
    /// # Errors
    /// `Refused` if the DAG version was not stored before.
    pub async fn create_backfill(
        &self,
        backfill: &Backfill,
        births: &[RunBirth],
        dag: &Dag,
        now: Timestamp,
    ) -> Result<Vec<RunBirth>, StoreError> {
        let values = vec![
            backfill.id.as_str().into(),
            backfill.dag_id.as_str().into(),
            i64::from(backfill.max_active_runs).into(),
            backfill.backwards.into(),
            now.0.into(),
        ];
        let runs = births.iter().map(|birth| CreateRun::new(birth, dag, Some(&backfill.id))).collect();
        self.write(CreateBackfill { backfill: values, runs }).await
    }
}
