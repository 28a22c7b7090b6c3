//! Events that runs follow from: new data in assets, and events received from outside. An event is written once,
//! with one row for each DAG that follows it; a run takes its events in the transaction that creates the run, so
//! that none is lost and none is taken twice. It must not decide which events make a run due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use crate::core::dag::Dag;
use crate::core::ids::{DagId, RunKey, TaskId, Timestamp};
use crate::core::run::Decision;
use crate::core::state::spelled;
use crate::core::timetable::When;

use super::Store;
use super::chunked::Chunked;
use super::db::{BoxFuture, Row, Tx, Value, Write};
use super::error::StoreError;
use super::runs::{number, run_key, task_id};

const INSERT_ASSET_EVENT: &str = "INSERT INTO event (kind, name, at_us, dag_id, run_id, task_id, map_index) \
     VALUES ('asset', $1, $2, $3, $4, $5, $6) RETURNING event_no";
/// An event that was received before is there already.
const INSERT_RECEIVED: &str = "INSERT INTO event (kind, name, at_us, event_id, payload) \
     VALUES ('received', $1, $2, $3, $4) ON CONFLICT (name, event_id) WHERE kind = 'received' DO NOTHING \
     RETURNING event_no";
const LISTENERS: &str = "SELECT dag_id FROM listener WHERE kind = $1 AND name = $2 ORDER BY dag_id";
const INSERT_DAG_EVENT: &str = "INSERT INTO dag_event (event_no, dag_id) VALUES ($1, $2)";
const RING: &str = "UPDATE bell SET rings = rings + 1 WHERE dag_id = $1";
const RINGS: &str = "SELECT rings FROM bell WHERE dag_id = $1";
const HEAR: &str = "UPDATE bell SET heard = $2 WHERE dag_id = $1";
/// The first of every name before the second of any, so that a limit hides no name.
const WAITING: &str = "SELECT event_no, name, at_us FROM ( \
         SELECT e.event_no, e.name, e.at_us, \
             ROW_NUMBER() OVER (PARTITION BY e.name ORDER BY e.at_us, e.event_no) AS place \
         FROM dag_event AS d JOIN event AS e ON e.event_no = d.event_no \
         WHERE d.dag_id = $1 AND d.run_no IS NULL) AS waiting ORDER BY place, name LIMIT $2";
const OF_RUN: &str = "SELECT e.name, e.at_us, e.dag_id, e.run_id, e.task_id, e.map_index, e.event_id, e.payload \
     FROM dag_event AS d JOIN event AS e ON e.event_no = d.event_no \
     WHERE d.run_no = (SELECT run_no FROM dag_run WHERE dag_id = $1 AND run_id = $2) ORDER BY e.at_us, e.event_no";
static TAKE: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::values(
        "UPDATE dag_event SET run_no = $1 FROM (",
        2,
        ") AS v WHERE dag_event.dag_id = v.column1 AND dag_event.event_no = v.column2 \
         AND dag_event.run_no IS NULL",
    )
});
const FOLLOWED: &str = "SELECT kind, name FROM listener WHERE dag_id = $1";
const FOLLOW: &str = "INSERT INTO listener (kind, name, dag_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const UNFOLLOW: &str = "DELETE FROM listener WHERE kind = $1 AND name = $2 AND dag_id = $3";
/// What is not followed any more does not wait either: it would start a run if it were followed again.
const FORGET: &str = "DELETE FROM dag_event WHERE dag_id = $3 AND run_no IS NULL AND event_no IN \
     (SELECT event_no FROM event WHERE kind = $1 AND name = $2)";
const HANG_BELL: &str = "INSERT INTO bell (dag_id, rings, heard) VALUES ($1, 0, 0) ON CONFLICT DO NOTHING";
/// What waits for a DAG that has a file stays, however old, unless a newer event of the same asset waits beside it:
/// no run that would be due is lost.
const PRUNE: [&str; 3] = [
    "DELETE FROM dag_event WHERE run_no IS NULL \
         AND event_no IN (SELECT event_no FROM event WHERE at_us < $1) \
         AND dag_id NOT IN (SELECT dag_id FROM dag WHERE present)",
    "DELETE FROM dag_event WHERE run_no IS NULL \
         AND event_no IN (SELECT event_no FROM event WHERE at_us < $1 AND kind = 'asset') \
         AND event_no NOT IN (SELECT MAX(d.event_no) FROM dag_event AS d \
             JOIN event AS e ON e.event_no = d.event_no WHERE d.run_no IS NULL GROUP BY d.dag_id, e.name)",
    "DELETE FROM event WHERE at_us < $1 AND NOT EXISTS \
         (SELECT 1 FROM dag_event AS d WHERE d.event_no = event.event_no)",
];
/// A run that goes lets go of its events; what is left of them goes by [`PRUNE`].
pub(super) const DELETE_OF_RUN: &str = "DELETE FROM dag_event WHERE run_no = $1";

spelled! {
    /// What happened.
    EventKind {
        /// A task has written an asset.
        Asset = "asset",
        /// Something was received from outside.
        Received = "received",
    }
}

/// An event that waits for a run of one DAG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingEvent {
    /// Its number.
    pub no: i64,
    /// The asset, or the name it was sent to.
    pub name: Arc<str>,
    /// When it happened.
    pub at: Timestamp,
}

/// An event that a run has taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenEvent {
    /// The asset, or the name it was sent to.
    pub name: Arc<str>,
    /// When it happened.
    pub at: Timestamp,
    /// Where it came from.
    pub from: EventSource,
}

/// Where an event came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventSource {
    /// A task has succeeded that writes the asset.
    Task {
        /// The run.
        run: RunKey,
        /// The task.
        task_id: TaskId,
        /// The instance's place in the list, or `UNMAPPED`.
        map_index: i32,
    },
    /// It was received.
    Outside {
        /// What its sender calls it.
        event_id: Arc<str>,
        /// What it says, as JSON text.
        payload: Arc<str>,
    },
}

/// An event on its way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// What its sender calls it: one that was received before is not received again.
    pub event_id: String,
    /// What it says, as JSON text.
    pub payload: String,
}

/// What became of arrivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Received now.
    pub new: usize,
    /// Received before.
    pub known: usize,
}

/// Successes of a decision that are news of assets, as rows.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// Task, place in its list, asset.
    rows: Vec<(String, i32, Arc<str>)>,
}

impl Published {
    pub(super) fn of(dag: &Dag, decision: &Decision) -> Self {
        let mut rows = Vec::new();
        for ti in &decision.published {
            let task = dag.task(ti.task);
            let named = task.outlets.iter().filter(|asset| !asset.is_empty());
            rows.extend(named.map(|asset| (task.id.to_string(), ti.map_index, asset.clone())));
        }
        Self { rows }
    }

    /// Writes the events. Bells come last of all locks, in the order of their names.
    pub(super) async fn write(
        &self,
        tx: &mut Tx<'_>,
        key: &RunKey,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut listeners: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (task_id, map_index, asset) in &self.rows {
            if !listeners.contains_key(&**asset) {
                listeners.insert(asset, followers(tx, EventKind::Asset, asset).await?);
            }
            let values = [
                (&**asset).into(),
                now.0.into(),
                key.dag_id.as_str().into(),
                key.run_id.as_str().into(),
                task_id.as_str().into(),
                i64::from(*map_index).into(),
            ];
            let row = tx.fetch_optional(INSERT_ASSET_EVENT, &values).await?;
            let no = row.ok_or_else(|| StoreError::Bug("an event got no number".into()))?.int(0)?;
            deliver(tx, no, &listeners[&**asset]).await?;
        }
        ring(tx, listeners.into_values().flatten().collect()).await
    }
}

async fn followers(tx: &mut Tx<'_>, kind: EventKind, name: &str) -> Result<Vec<String>, StoreError> {
    let rows = tx.fetch_all(LISTENERS, &[kind.as_str().into(), name.into()]).await?;
    rows.iter().map(|row| row.text(0)).collect()
}

async fn deliver(tx: &mut Tx<'_>, event_no: i64, dags: &[String]) -> Result<(), StoreError> {
    for dag_id in dags {
        tx.execute(INSERT_DAG_EVENT, &[event_no.into(), dag_id.as_str().into()]).await?;
    }
    Ok(())
}

async fn ring(tx: &mut Tx<'_>, dags: BTreeSet<String>) -> Result<(), StoreError> {
    for dag_id in dags {
        tx.execute(RING, &[dag_id.into()]).await?;
    }
    Ok(())
}

/// What a DAG's schedule follows.
pub(super) fn followed(dag: &Dag) -> Vec<(EventKind, Arc<str>)> {
    match &dag.settings.schedule.when {
        When::Assets { condition, .. } => {
            condition.assets().into_iter().map(|name| (EventKind::Asset, name)).collect()
        }
        When::Event { name, .. } => vec![(EventKind::Received, name.clone())],
        When::ByHand | When::Cron(_) | When::Once | When::Every(_) => Vec::new(),
    }
}

/// Has a DAG follow exactly these events from now on; what waits of those it follows no more is forgotten.
pub(super) async fn follow(
    tx: &mut Tx<'_>,
    dag_id: &str,
    followed: &[(EventKind, Arc<str>)],
) -> Result<(), StoreError> {
    for row in tx.fetch_all(FOLLOWED, &[dag_id.into()]).await? {
        let (kind, name) = (row.text(0)?, row.text(1)?);
        if !followed.iter().any(|(k, n)| k.as_str() == kind && **n == *name) {
            let values = [kind.into(), name.into(), dag_id.into()];
            tx.execute(UNFOLLOW, &values).await?;
            tx.execute(FORGET, &values).await?;
        }
    }
    if followed.is_empty() {
        return Ok(());
    }
    tx.execute(HANG_BELL, &[dag_id.into()]).await?;
    for (kind, name) in followed {
        tx.execute(FOLLOW, &[kind.as_str().into(), (&**name).into(), dag_id.into()]).await?;
    }
    Ok(())
}

/// Gives waiting events to a run that is created in this transaction.
///
/// # Errors
/// `Conflict` if one of them does not wait any more.
pub(super) async fn take(
    tx: &mut Tx<'_>,
    dag_id: &str,
    run_no: i64,
    events: &[i64],
) -> Result<(), StoreError> {
    let rows: Vec<Value> = events.iter().flat_map(|&no| [Value::from(dag_id), no.into()]).collect();
    let taken = TAKE.run(tx, run_no, &rows).await?;
    if taken == events.len() as u64 {
        return Ok(());
    }
    Err(StoreError::Conflict(format!(
        "{} of {} events wait for `{dag_id}` no more",
        events.len() as u64 - taken,
        events.len()
    )))
}

/// The schedule of a DAG was asked with all of these rings.
pub(super) async fn hear(tx: &mut Tx<'_>, dag_id: &str, rings: i64) -> Result<(), StoreError> {
    tx.execute(HEAR, &[dag_id.into(), rings.into()]).await.map(|_rows| ())
}

/// Deletes events that were before `before` and that nobody needs.
pub(super) async fn prune(tx: &mut Tx<'_>, before: Timestamp) -> Result<(), StoreError> {
    for sql in PRUNE {
        tx.execute(sql, &[before.0.into()]).await?;
    }
    Ok(())
}

struct Receive {
    name: String,
    arrivals: Vec<Arrival>,
    now: Timestamp,
}

impl Write for Receive {
    type Answer = Option<Arrived>;

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<Option<Arrived>, StoreError>> {
        Box::pin(async move {
            let dags = followers(tx, EventKind::Received, &self.name).await?;
            if dags.is_empty() {
                return Ok(None);
            }
            let mut new = 0;
            for Arrival { event_id, payload } in &self.arrivals {
                let values = [
                    self.name.as_str().into(),
                    self.now.0.into(),
                    event_id.as_str().into(),
                    payload.as_str().into(),
                ];
                if let Some(row) = tx.fetch_optional(INSERT_RECEIVED, &values).await? {
                    deliver(tx, row.int(0)?, &dags).await?;
                    new += 1;
                }
            }
            if new > 0 {
                ring(tx, dags.into_iter().collect()).await?;
            }
            Ok(Some(Arrived { new, known: self.arrivals.len() - new }))
        })
    }
}

fn taken(row: &Row) -> Result<TakenEvent, StoreError> {
    let from = match (row.text_or_null(6)?, row.text_or_null(7)?) {
        (Some(event_id), Some(payload)) => {
            EventSource::Outside { event_id: event_id.into(), payload: payload.into() }
        }
        _ => EventSource::Task {
            run: run_key(row, 2, 3)?,
            task_id: task_id(row, 4)?,
            map_index: number("map_index", row.int(5)?)?,
        },
    };
    Ok(TakenEvent { name: row.text(0)?.into(), at: Timestamp(row.int(1)?), from })
}

impl Store {
    /// How many events there have been for a DAG, taken or not; 0 if it follows none. Asked before
    /// [`Store::waiting_events`], it says which of them are surely among those.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn rings(&self, dag_id: &DagId) -> Result<i64, StoreError> {
        let rows = self.read(RINGS, &[dag_id.as_str().into()]).await?;
        rows.first().map_or(Ok(0), |row| row.int(0))
    }

    /// Events that wait for a run of a DAG: of every name the oldest first; at most `limit`.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn waiting_events(&self, dag_id: &DagId, limit: u32) -> Result<Vec<WaitingEvent>, StoreError> {
        let rows = self.read(WAITING, &[dag_id.as_str().into(), i64::from(limit).into()]).await?;
        let event = |row: &Row| {
            Ok(WaitingEvent { no: row.int(0)?, name: row.text(1)?.into(), at: Timestamp(row.int(2)?) })
        };
        rows.iter().map(event).collect()
    }

    /// The events that a run has taken, oldest first.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn events_of(&self, key: &RunKey) -> Result<Vec<TakenEvent>, StoreError> {
        let values = [key.dag_id.as_str().into(), key.run_id.as_str().into()];
        self.read(OF_RUN, &values).await?.iter().map(taken).collect()
    }

    /// Receives events sent to `name`, each for every DAG that follows it; `None`, and nothing is received, if
    /// there is no such DAG.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn receive(
        &self,
        name: &str,
        arrivals: Vec<Arrival>,
        now: Timestamp,
    ) -> Result<Option<Arrived>, StoreError> {
        self.write(Receive { name: name.to_owned(), arrivals, now }).await
    }
}
