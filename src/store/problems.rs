//! Problems: opened, counted and resolved in the transaction that writes what caused it, each opening and each
//! end with its letters. Of several writers that see the same thing one opens the problem, and of several that
//! see its end one resolves it. It must not decide what a problem is or what ends one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::core::alert::{
    self, AlertEvent, AlertKind, Occurrence, Problem, ProblemKey, ProblemState, Recovery,
};
use crate::core::dag::Dag;
use crate::core::ids::{DagId, RunId, RunKey, Timestamp};
use crate::core::run::Decision;

use super::Store;
use super::db::{BoxFuture, Row, Tx, Value, Write};
use super::error::StoreError;
use super::outbox;
use super::runs::{number, parsed};

/// Opens the problem or counts another sight of it; the answer's version is 1 if this has opened it. A writer
/// that comes second waits for the first and counts. A task fails in one run after the other, but deadlines of
/// several runs are seen missed again at every look: of these only later runs count.
const SEE: &str = "INSERT INTO problem (problem_key, kind, dag_id, subject, state, version, occurrences, \
         opened_at_us, last_seen_us, last_run_id, summary, error, routes) \
     VALUES ($1, $2, $3, $4, 'open', 1, 1, $5, $5, $6, $7, $8, $9) \
     ON CONFLICT (problem_key) WHERE state = 'open' DO UPDATE SET version = problem.version + 1, \
         occurrences = problem.occurrences + CASE \
             WHEN problem.kind = 'deadline_missed' AND problem.last_run_id > excluded.last_run_id THEN 0 \
             WHEN problem.last_run_id <> excluded.last_run_id THEN 1 ELSE 0 END, \
         last_seen_us = CASE WHEN problem.last_seen_us > excluded.last_seen_us \
             THEN problem.last_seen_us ELSE excluded.last_seen_us END, \
         last_run_id = CASE \
             WHEN problem.kind = 'deadline_missed' AND problem.last_run_id > excluded.last_run_id \
             THEN problem.last_run_id ELSE excluded.last_run_id END, \
         summary = excluded.summary, error = excluded.error \
     RETURNING problem_no, version";
macro_rules! select_problems {
    ($rest:literal) => {
        concat!(
            "SELECT dag_id, subject, kind, state, opened_at_us, last_seen_us, occurrences, resolved_at_us, \
                 last_run_id, summary, error, problem_no, version, routes FROM problem WHERE ",
            $rest
        )
    };
}
const OPEN_OF_DAG: &str = select_problems!("dag_id = $1 AND state = 'open' ORDER BY problem_key");
const OPEN_BY_KEY: &str = select_problems!("problem_key = $1 AND state = 'open'");
const OPEN: &str = select_problems!("state = 'open' ORDER BY opened_at_us DESC, problem_no DESC LIMIT $1");
const ALL: &str = select_problems!(
    "1 = 1 ORDER BY CASE state WHEN 'open' THEN 0 ELSE 1 END, opened_at_us DESC, problem_no DESC LIMIT $1"
);
/// A sight that came in between has changed the version: then it is not over.
const RESOLVE: &str = "UPDATE problem SET state = 'resolved', resolved_at_us = $3 \
     WHERE problem_no = $1 AND version = $2 AND state = 'open'";

/// What one transaction has to say about problems, made before it begins.
pub(super) struct Sights {
    /// The DAG and what the end of its run shows to be well.
    recovery: Option<(DagId, Arc<Recovery>)>,
    /// In the order of their keys, in which everybody locks problems; for one key in the order of seeing.
    events: Vec<Sight>,
}

/// What was seen of one problem.
enum Sight {
    There(Occurrence),
    Over(ProblemKey),
}

impl Sight {
    fn key(&self) -> &ProblemKey {
        match self {
            Self::There(occurrence) => &occurrence.key,
            Self::Over(key) => key,
        }
    }
}

impl Sights {
    /// Those of a decision.
    pub(super) fn of(dag: &Dag, run: &RunKey, decision: &Decision) -> Self {
        Self {
            recovery: decision.recovery.clone().map(|recovery| (dag.id.clone(), recovery)),
            events: alert::occurrences(dag, run, decision).into_iter().map(Sight::There).collect(),
        }
    }

    /// Those of watchers outside of runs.
    fn of_events(events: &[AlertEvent]) -> Self {
        let sight = |event: &AlertEvent| match event {
            AlertEvent::Raised { trouble, error, routes } => {
                Sight::There(trouble.occurrence(error.clone(), routes))
            }
            AlertEvent::Over { trouble } => Sight::Over(trouble.key()),
        };
        let mut events: Vec<Sight> = events.iter().map(sight).collect();
        events.sort_by(|a, b| a.key().cmp(b.key()));
        Self { recovery: None, events }
    }

    /// Writes them with their letters. What the end of a run resolves comes first: what fails in the same commit
    /// is open after it. What a success saw again in the same commit goes on.
    pub(super) async fn write(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
        let goes_on = |key: &ProblemKey| {
            self.events.iter().any(|event| matches!(event, Sight::There(seen) if seen.key == *key))
        };
        if let Some((dag_id, recovery)) = &self.recovery {
            for row in tx.fetch_all(OPEN_OF_DAG, &[dag_id.as_str().into()]).await? {
                let kept = Kept::read(&row)?;
                if alert::is_over(&kept.problem, recovery) && !goes_on(&kept.problem.key) {
                    kept.resolve(tx, now).await?;
                }
            }
        }
        for event in &self.events {
            match event {
                Sight::There(occurrence) => see(tx, occurrence, now).await?,
                Sight::Over(key) => {
                    if let Some(row) = tx.fetch_optional(OPEN_BY_KEY, &[key.to_string().into()]).await? {
                        Kept::read(&row)?.resolve(tx, now).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

async fn see(tx: &mut Tx<'_>, occurrence: &Occurrence, now: Timestamp) -> Result<(), StoreError> {
    let Occurrence { key, run_id, routes, summary, error } = occurrence;
    let run = run_id.as_ref().map(ToString::to_string);
    let values = [
        key.to_string().into(),
        key.kind.as_str().into(),
        key.dag_id.as_ref().map(ToString::to_string).into(),
        key.subject.as_ref().map(ToString::to_string).into(),
        now.0.into(),
        run.into(),
        summary.as_str().into(),
        (&**error).into(),
        serde_json::json!(routes.iter().map(|route| &**route).collect::<Vec<_>>()).to_string().into(),
    ];
    let row = tx.fetch_optional(SEE, &values).await?;
    let row = row.ok_or_else(|| StoreError::Bug("an upsert of a problem has no answer".into()))?;
    if row.int(1)? > 1 {
        return Ok(());
    }
    let problem = Problem {
        key: key.clone(),
        state: ProblemState::Open,
        opened_at: now,
        last_seen: now,
        occurrences: 1,
        resolved_at: None,
        last_run_id: run_id.clone(),
        summary: summary.clone(),
        error: error.to_string(),
    };
    let routes = routes.iter().map(ToString::to_string).collect();
    Kept { problem_no: row.int(0)?, version: 1, problem, routes }.write_letters(tx, now).await
}

/// The row of a problem.
struct Kept {
    problem_no: i64,
    version: i64,
    problem: Problem,
    routes: Vec<String>,
}

impl Kept {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let (kind, state) = (row.text(2)?, row.text(3)?);
        let dag_id = row.text_or_null(0)?;
        let run_id = row.text_or_null(8)?;
        let routes = row.text(13)?;
        let key = ProblemKey {
            dag_id: dag_id.map(|text| parsed("dag_id", &text, DagId::parse(&text).ok())).transpose()?,
            subject: row.text_or_null(1)?.map(Into::into),
            kind: parsed("kind", &kind, AlertKind::parse(&kind))?,
        };
        let problem = Problem {
            key,
            state: parsed("state", &state, ProblemState::parse(&state))?,
            opened_at: Timestamp(row.int(4)?),
            last_seen: Timestamp(row.int(5)?),
            occurrences: number("occurrences", row.int(6)?)?,
            resolved_at: row.int_or_null(7)?.map(Timestamp),
            last_run_id: run_id
                .map(|text| parsed("last_run_id", &text, RunId::parse(&text).ok()))
                .transpose()?,
            summary: row.text(9)?,
            error: row.text(10)?,
        };
        let names: Option<Vec<String>> = serde_json::from_str(&routes).ok();
        let routes = parsed("routes", &routes, names)?;
        Ok(Self { problem_no: row.int(11)?, version: row.int(12)?, problem, routes })
    }

    async fn resolve(mut self, tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
        let guard = [self.problem_no.into(), self.version.into(), now.0.into()];
        if tx.execute(RESOLVE, &guard).await? == 0 {
            return Ok(());
        }
        self.problem.state = ProblemState::Resolved;
        self.problem.resolved_at = Some(now);
        self.write_letters(tx, now).await
    }

    /// One letter per route, with the problem as it stands now.
    async fn write_letters(&self, tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
        let event = self.problem.state.as_str();
        for route in &self.routes {
            let id = |event: &str| letter_id(&self.problem, self.problem_no, event, route);
            let payload = Payload::of(&self.problem, id(ProblemState::Open.as_str())).to_json();
            let values = [
                id(event).into(),
                self.problem_no.into(),
                event.into(),
                route.as_str().into(),
                payload.into(),
            ];
            outbox::post(tx, &values, now).await?;
        }
        Ok(())
    }
}

/// The same for one letter wherever it is made; another in every other installation.
fn letter_id(problem: &Problem, problem_no: i64, event: &str, route: &str) -> String {
    const BYTES: usize = 16;
    let text = format!("{}\n{}\n{problem_no}\n{event}\n{route}", problem.key, problem.opened_at.0);
    Sha256::digest(text.as_bytes()).iter().take(BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// What a letter says, as the outbox keeps it.
#[derive(Serialize, Deserialize)]
pub(super) struct Payload {
    /// The id of the letter that told of the opening.
    pub(super) first_id: String,
    dag_id: Option<String>,
    subject: Option<String>,
    kind: String,
    state: String,
    opened_at_us: i64,
    last_seen_us: i64,
    occurrences: u64,
    resolved_at_us: Option<i64>,
    last_run_id: Option<String>,
    summary: String,
    error: String,
}

impl Payload {
    fn of(problem: &Problem, first_id: String) -> Self {
        let Problem {
            key,
            state,
            opened_at,
            last_seen,
            occurrences,
            resolved_at,
            last_run_id,
            summary,
            error,
        } = problem;
        Self {
            first_id,
            dag_id: key.dag_id.as_ref().map(ToString::to_string),
            subject: key.subject.as_ref().map(ToString::to_string),
            kind: key.kind.to_string(),
            state: state.to_string(),
            opened_at_us: opened_at.0,
            last_seen_us: last_seen.0,
            occurrences: *occurrences,
            resolved_at_us: resolved_at.map(|at| at.0),
            last_run_id: last_run_id.as_ref().map(ToString::to_string),
            summary: summary.clone(),
            error: error.clone(),
        }
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers can be written as JSON")
    }

    pub(super) fn read(text: &str) -> Result<Self, StoreError> {
        serde_json::from_str(text).map_err(|_json| StoreError::unreadable("payload", text))
    }

    pub(super) fn problem(self) -> Result<Problem, StoreError> {
        let dag_id = self.dag_id.map(|text| parsed("dag_id", &text, DagId::parse(&text).ok())).transpose()?;
        let run = self.last_run_id.map(|text| parsed("last_run_id", &text, RunId::parse(&text).ok()));
        let kind = parsed("kind", &self.kind, AlertKind::parse(&self.kind))?;
        Ok(Problem {
            key: ProblemKey { dag_id, subject: self.subject.map(Into::into), kind },
            state: parsed("state", &self.state, ProblemState::parse(&self.state))?,
            opened_at: Timestamp(self.opened_at_us),
            last_seen: Timestamp(self.last_seen_us),
            occurrences: self.occurrences,
            resolved_at: self.resolved_at_us.map(Timestamp),
            last_run_id: run.transpose()?,
            summary: self.summary,
            error: self.error,
        })
    }
}

struct Raise {
    sights: Sights,
    now: Timestamp,
}

impl Write for Raise {
    type Answer = ();

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.sights.write(tx, self.now))
    }
}

/// Which problems to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemFilter {
    /// Those that go on.
    Open,
    /// Also those that are over.
    All,
}

/// A problem with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedProblem {
    /// Unique within the database.
    pub problem_no: i64,
    /// The problem.
    pub problem: Problem,
}

impl Store {
    /// Notes what watchers outside of runs have seen, in this order, all in one transaction: opens, counts or resolves
    /// problems, each opening and each end with its letters. Any number of processes may note the same.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn raise(&self, events: &[AlertEvent], now: Timestamp) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.write(Raise { sights: Sights::of_events(events), now }).await
    }

    /// Problems, open ones first, newest first, at most `limit`.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn problems(
        &self,
        filter: ProblemFilter,
        limit: u32,
    ) -> Result<Vec<NumberedProblem>, StoreError> {
        let sql = match filter {
            ProblemFilter::Open => OPEN,
            ProblemFilter::All => ALL,
        };
        let rows = self.read(sql, &[Value::from(i64::from(limit))]).await?;
        let numbered = |row| {
            Kept::read(row).map(|kept| NumberedProblem { problem_no: kept.problem_no, problem: kept.problem })
        };
        rows.iter().map(numbered).collect()
    }
}
