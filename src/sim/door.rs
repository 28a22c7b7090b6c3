//! What a scheduler does with each message: the API as workers and people see it.

use crate::core::run::Input;
use crate::core::select::select;
use crate::core::state::TaskState;

use super::people::Wish;
use super::scheduler::{Asking, Reply, Wanted};
use super::situation::Situation;
use super::store::{Holding, SessionNo, instances};
use super::worker::ASK_WAIT;
use super::world::{Assignment, Node, SECOND, ToScheduler, ToWorker, World};

impl World {
    pub(super) fn scheduler_hears(&mut self, s: Node, message: ToScheduler) {
        match message {
            ToScheduler::Open { worker, session, sent_at } => {
                let ok = self.store.open_session(session, worker);
                self.to_worker(worker, ToWorker::Opened { session, sent_at, ok });
            }
            ToScheduler::Heartbeat { worker, session, sent_at, known } => {
                self.heartbeat(worker, session, sent_at, &known);
            }
            ToScheduler::Ask { worker, session, number, free } => {
                if self.store.is_live(session) {
                    let until = self.now + ASK_WAIT - SECOND;
                    self.schedulers[s].asking.insert(session, Asking { worker, number, free, until });
                    self.serve_queued(s);
                }
            }
            ToScheduler::Report { worker, holding, outcome } => {
                let (run, ti, fence) = holding;
                let input = Input::Reported { ti, fence, outcome };
                self.want(s, run, Wanted { input, reply: Reply::Worker(worker, holding) });
            }
            ToScheduler::Close { session } => {
                if !self.store.held_by(session).is_empty() {
                    self.seen.note(Situation::ClosedWithClaims);
                }
                if let Some(row) = self.store.sessions.get_mut(&session) {
                    row.closed = true;
                }
            }
            ToScheduler::Wish { number, wish } => self.grant(s, number, &wish),
            ToScheduler::LetterTaken { key } => {
                if let Some(delivered) = self.store.outbox.get_mut(&key) {
                    *delivered = true;
                }
            }
        }
    }

    /// Prolongs a session, and compares what it knows with what the rows say.
    fn heartbeat(&mut self, worker: Node, session: SessionNo, sent_at: i64, known: &[Holding]) {
        let was_live = self.store.is_live(session);
        let lives = self.store.heartbeat(session);
        self.check.renewed(session, was_live, lives);
        let void = known.iter().copied().filter(|&holding| !self.store.stands(holding)).collect();
        let mut missing = Vec::new();
        if lives && !crate::core::mutant::is(crate::core::mutant::Mutant::MissingNotResent) {
            for (holding, try_number) in self.store.held_by(session) {
                if !known.contains(&holding) {
                    let dag = self.store.runs[holding.0].pinned.clone();
                    missing.push(Assignment { holding, try_number, dag });
                }
            }
        }
        self.to_worker(worker, ToWorker::Beaten { session, sent_at, lives, void, missing });
    }

    /// A worker has come that waits for work: runs that have some are stepped.
    fn serve_queued(&mut self, s: Node) {
        let has_some =
            |run: &usize| instances(&self.store.runs[*run].rows).any(|(_, it)| it.state == TaskState::Queued);
        let runs: Vec<usize> = self.store.open.iter().copied().filter(has_some).collect();
        for run in runs {
            self.drive(s, run);
        }
    }

    /// Does what a person wants. Repeated, it is harmless.
    fn grant(&mut self, s: Node, number: u64, wish: &Wish) {
        let input = match wish {
            Wish::Trigger { dag, run_id } => {
                let now = self.clock(s);
                let run = self.store.create(*dag, run_id, now);
                let line = || format!("s{s} makes r{run} = {run_id} of d{dag}");
                self.trace.note(self.now - super::world::BEGIN, &[4, run as u64], line);
                self.check.acknowledged(&self.store, *dag, run_id);
                return self.people.answered(number);
            }
            Wish::Pause { dag, paused } => {
                if *paused && self.store.open.iter().any(|&run| self.store.runs[run].dag == *dag) {
                    self.seen.note(Situation::PausedInFlight);
                }
                // A late wish must not keep everything from its end.
                self.store.dags[*dag].paused = *paused && !self.is_calm;
                return self.people.answered(number);
            }
            Wish::Clear { run, tasks, reach } => {
                let value = self.store.load(*run);
                let dag = self.store.runs[*run].pinned.clone();
                Input::Clear { tis: select(&dag, &value, tasks, *reach) }
            }
            Wish::Mark { tis, state, .. } => Input::Mark { tis: tis.clone(), state: *state },
            Wish::Cancel { .. } => Input::Cancel,
        };
        let (Wish::Clear { run, .. } | Wish::Mark { run, .. } | Wish::Cancel { run }) = *wish else { return };
        self.want(s, run, Wanted { input, reply: Reply::Person(number) });
    }
}
