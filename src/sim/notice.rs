//! What a commit shows: situations to count, and the lines of the trace.

use crate::core::reason::Reason;
use crate::core::run::{Input, Outcome};
use crate::core::state::{RunState, TaskState};

use super::situation::Situation;
use super::store::{Commit, Refused, RunNo};
use super::world::World;

impl World {
    /// The commit and what the store said, for the trace.
    pub(super) fn note_commit(&mut self, commit: &Commit, answer: Result<i64, Refused>) {
        match answer {
            Err(Refused::Conflict(
                "version" | "state or fence" | "state of the run" | "no such instance",
            )) => {
                self.seen.note(Situation::VersionConflict);
            }
            Err(Refused::Conflict("pool" | "task limit")) => self.seen.note(Situation::PoolConflict),
            Err(Refused::Conflict(_)) => self.seen.note(Situation::RunsConflict),
            Err(Refused::Away) => self.seen.note(Situation::DatabaseAway),
            Ok(_) => {}
        }
        let version = answer.map_or(0, i64::cast_unsigned);
        let mut numbers = vec![7, commit.by as u64, commit.run as u64, version];
        for change in &commit.decision.changes {
            let place = (change.ti.task as u64) << 8 | u64::from(change.ti.map_index.cast_unsigned() & 255);
            numbers.push(place << 16 | (change.to.state as u64) << 8 | change.to.fence.0.cast_unsigned());
        }
        if let Some(change) = &commit.decision.run_change {
            numbers.push(1_000 + change.to as u64);
        }
        let now = self.since_begin();
        let (trace, row) = (&mut self.trace, &self.store.runs[commit.run]);
        trace.note(now, &numbers, || {
            let inputs: Vec<_> =
                commit.inputs.iter().map(|input| super::scenario::input_text(&row.pinned, input)).collect();
            let changes = super::scenario::changes_text(&row.pinned, &commit.decision);
            let answer = match answer {
                Ok(version) => format!("version {version}"),
                Err(refused) => format!("{refused:?}"),
            };
            format!("s{} r{} [{}] -> {changes} ({answer})", commit.by, commit.run, inputs.join("; "))
        });
    }

    /// Counts what a written commit shows.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others are ordinary")]
    pub(super) fn notice(&mut self, commit: &Commit) {
        for (place, input) in commit.inputs.iter().enumerate() {
            if !commit.decision.refused.iter().any(|(at, _)| *at == place) {
                self.notice_input(commit, input);
            }
        }
        for change in &commit.decision.changes {
            let reason = match &change.reason {
                Reason::WillRetry { .. } => Some(Situation::Retried),
                Reason::GaveUp { .. } => Some(Situation::GaveUp),
                Reason::Poisoned { .. } => Some(Situation::Poisoned),
                Reason::WorkerLost { .. } => Some(Situation::LostOnce),
                Reason::EmptyList => Some(Situation::EmptyList),
                Reason::FailFast { .. } => Some(Situation::FailedFast),
                Reason::RunTimedOut => Some(Situation::RunTimedOut),
                _ => None,
            };
            if let Some(situation) = reason {
                self.seen.note(situation);
            }
            let teardown = commit.dag.task(change.ti.task).is_teardown();
            if teardown && change.to.state == TaskState::Success && change.from == TaskState::Running {
                self.seen.note(Situation::TornDown);
            }
        }
        if commit.decision.run_change.as_ref().is_some_and(|change| change.reason == Reason::GaveWay) {
            self.seen.note(Situation::GaveWay);
        }
        if commit.decision.expanded.iter().any(|&(_, length)| length > 0) {
            self.seen.note(Situation::Mapped);
        }
        self.notice_waits(commit.run);
    }

    fn notice_input(&mut self, commit: &Commit, input: &Input) {
        let revoked =
            |tis: &[crate::core::run::TiRef]| commit.decision.revoked.iter().any(|(ti, _)| tis.contains(ti));
        match input {
            Input::Lost { ti, .. } => {
                let change = commit.decision.changes.iter().find(|change| change.ti == *ti);
                let again = change.is_some_and(|change| change.to.state == TaskState::Running);
                if again {
                    self.seen.note(Situation::ClaimInLosingStep);
                }
            }
            Input::Clear { tis } => {
                if revoked(tis) {
                    self.seen.note(Situation::ClearRunning);
                }
                let run = commit.decision.run_change.as_ref();
                if run.is_some_and(|change| change.from.is_final()) {
                    self.seen.note(Situation::ClearFinalRun);
                }
            }
            Input::Mark { tis, .. } if revoked(tis) => self.seen.note(Situation::MarkRunning),
            Input::Cancel if !commit.decision.revoked.is_empty() => self.seen.note(Situation::CancelClaimed),
            Input::Reported { outcome: Outcome::Deferred { .. }, .. } => self.seen.note(Situation::Deferred),
            Input::Tick
            | Input::Claimed { .. }
            | Input::Reported { .. }
            | Input::Mark { .. }
            | Input::Cancel => {}
        }
    }

    fn notice_waits(&mut self, run: RunNo) {
        let row = &self.store.runs[run];
        let full =
            self.store.pools.iter().any(|(pool, size)| self.store.slots_used(pool) == u64::from(*size));
        let scheduled = super::store::instances(&row.rows).find(|(_, it)| it.state == TaskState::Scheduled);
        let waits_for_past = scheduled.is_some_and(|(ti, _)| row.pinned.task(ti.task).depends_on_past);
        let waits_for_runs = self.store.open.iter().any(|&other| {
            let theirs = &self.store.runs[other];
            theirs.dag == row.dag && theirs.rows.state == RunState::Queued
        }) && self.store.active_runs(row.dag) >= row.pinned.settings.max_active_runs;
        for (holds, situation) in [
            (full, Situation::PoolFull),
            (waits_for_past, Situation::PastWaited),
            (waits_for_runs, Situation::RunWaited),
        ] {
            if holds {
                self.seen.note(situation);
            }
        }
    }
}
