//! The rows that one move of a task instance writes: the instance under its guard, the attempt it opens or
//! closes, the line of the journal. Nothing else writes them.

use std::sync::LazyLock;

use crate::core::ids::Timestamp;
use crate::core::run::{Reason, TaskInstance};
use crate::core::state::TaskState;

use super::chunked::Chunked;
use super::db::{Tx, Value};
use super::error::StoreError;

/// The guard is the state *and* the fence of before: two schedulers that decided from the same rows
/// cannot both write.
static UPDATE_INSTANCES: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::values(
        "UPDATE task_instance SET state = v.column5, try_number = v.column6, fence = v.column7, \
         lost_count = v.column8, generation = v.column9, resume_at_us = v.column10, started_at_us = v.column11, \
         ended_at_us = v.column12, session_id = v.column13 FROM (",
        13,
        ") AS v WHERE task_instance.run_no = $1 AND task_instance.task_id = v.column1 \
         AND task_instance.map_index = v.column2 AND task_instance.state = v.column3 \
         AND task_instance.fence = v.column4",
    )
});

static OPEN_TRIES: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::insert(
        "INSERT INTO task_try (run_no, task_id, map_index, fence, try_number, session_id, started_at_us)",
        6,
        "",
    )
});

static CLOSE_TRIES: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::values(
        "UPDATE task_try SET ended_at_us = v.column4, outcome = v.column5, reason = v.column6 FROM (",
        6,
        ") AS v WHERE task_try.run_no = $1 AND task_try.task_id = v.column1 AND task_try.map_index = v.column2 \
         AND task_try.fence = v.column3 AND task_try.ended_at_us IS NULL",
    )
});

static INSERT_JOURNAL: LazyLock<Chunked> = LazyLock::new(|| {
    Chunked::insert(
        "INSERT INTO journal (run_no, version, place, task_id, map_index, from_state, to_state, via, fence, \
         try_number, reason, at_us)",
        11,
        "",
    )
});

/// One move, in words.
pub(super) struct Move<'a> {
    pub(super) task_id: &'a str,
    pub(super) map_index: i32,
    pub(super) from: TaskState,
    pub(super) from_fence: i64,
    pub(super) to: &'a TaskInstance,
    pub(super) via: &'a [TaskState],
    /// How an attempt that it closes ended, and why.
    pub(super) ended: (TaskState, &'a Reason),
    pub(super) reason: String,
}

/// A line of the journal that is not a move of an instance.
pub(super) struct Line<'a> {
    pub(super) task_id: Option<&'a str>,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) reason: String,
}

/// All moves of one commit as rows, made before the transaction begins.
#[derive(Default)]
pub(super) struct Moves {
    count: u64,
    updates: Vec<Value>,
    opened: Vec<Value>,
    opened_count: u64,
    closed: Vec<Value>,
    closed_count: u64,
    journal: Vec<Value>,
    places: i64,
}

fn micros(at: Option<Timestamp>) -> Value {
    at.map(|at| at.0).into()
}

impl Moves {
    /// Adds a move that makes the run's version `version`.
    pub(super) fn push(&mut self, step: &Move<'_>, version: i64, now: Timestamp) {
        let to = step.to;
        let map_index = i64::from(step.map_index);
        let session: Value = to.session.as_ref().map(ToString::to_string).into();
        self.count += 1;
        self.updates.extend([
            step.task_id.into(),
            map_index.into(),
            step.from.as_str().into(),
            step.from_fence.into(),
            to.state.as_str().into(),
            i64::from(to.try_number).into(),
            to.fence.0.into(),
            i64::from(to.lost_count).into(),
            i64::from(to.generation).into(),
            micros(to.resume_at),
            micros(to.started_at),
            micros(to.ended_at),
            session.clone(),
        ]);
        let claimed_again = to.fence.0 != step.from_fence;
        if step.from == TaskState::Running && (to.state != TaskState::Running || claimed_again) {
            let (outcome, why) = step.ended;
            self.closed_count += 1;
            self.closed.extend([
                step.task_id.into(),
                map_index.into(),
                step.from_fence.into(),
                now.0.into(),
                outcome.as_str().into(),
                why.to_string().into(),
            ]);
        }
        if to.state == TaskState::Running && claimed_again {
            self.opened_count += 1;
            self.opened.extend([
                step.task_id.into(),
                map_index.into(),
                to.fence.0.into(),
                i64::from(to.try_number).into(),
                session,
                to.started_at.unwrap_or(now).0.into(),
            ]);
        }
        let via = step.via.iter().map(|state| state.as_str()).collect::<Vec<_>>().join(" ");
        let names = [step.from.as_str().into(), to.state.as_str().into(), via.into()];
        let numbers = [to.fence.0.into(), i64::from(to.try_number).into()];
        self.line(version, step.task_id.into(), map_index, names, numbers, &step.reason, now);
    }

    /// Adds a line of the journal alone.
    pub(super) fn note(&mut self, line: &Line<'_>, version: i64, now: Timestamp) {
        let task_id = Value::Text(line.task_id.map(ToOwned::to_owned));
        let names = [line.from.into(), line.to.into(), "".into()];
        self.line(version, task_id, -1, names, [0.into(), 0.into()], &line.reason, now);
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of a row")]
    fn line(
        &mut self,
        version: i64,
        task_id: Value,
        map_index: i64,
        names: [Value; 3],
        numbers: [Value; 2],
        reason: &str,
        now: Timestamp,
    ) {
        self.journal.extend([version.into(), self.places.into(), task_id, map_index.into()]);
        self.journal.extend(names);
        self.journal.extend(numbers);
        self.journal.extend([reason.into(), now.0.into()]);
        self.places += 1;
    }

    /// Writes them.
    ///
    /// # Errors
    /// `Conflict` if an instance is not in the state and under the fence it moves from.
    pub(super) async fn write(&self, tx: &mut Tx<'_>, run_no: i64) -> Result<(), StoreError> {
        let moved = UPDATE_INSTANCES.run(tx, run_no, &self.updates).await?;
        if moved != self.count {
            return Err(StoreError::Conflict(format!(
                "{} of {} task instances are not in the state and under the fence they were to move from",
                self.count - moved,
                self.count
            )));
        }
        let closed = CLOSE_TRIES.run(tx, run_no, &self.closed).await?;
        let opened = OPEN_TRIES.run(tx, run_no, &self.opened).await?;
        if (closed, opened) != (self.closed_count, self.opened_count) {
            return Err(StoreError::Bug(format!(
                "{closed} of {} attempts were open and could be closed",
                self.closed_count
            )));
        }
        INSERT_JOURNAL.run(tx, run_no, &self.journal).await?;
        Ok(())
    }
}
