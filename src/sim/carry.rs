//! What a scheduler does once a decision is durable: it hands out, stops, and answers.

use std::collections::BTreeMap;

use crate::core::mutant::{self, Mutant};
use crate::core::run::{Claim, Decision, Refusal};

use super::scheduler::{InFlight, Reply, Wanted};
use super::situation::Situation;
use super::store::{RunNo, SessionNo, instance, session_no};
use super::world::{Assignment, Node, ToWorker, World};

impl World {
    /// What was decided is durable: let it happen.
    pub(super) fn carry_out(&mut self, s: Node, run: RunNo, in_flight: &InFlight) {
        for &(session, holding) in &in_flight.holders {
            if let Some(worker) = self.store.sessions.get(&session).map(|row| row.worker) {
                self.to_worker(worker, ToWorker::Stop { holding });
            }
        }
        if !mutant::is(Mutant::HandedOutBeforeCommit) {
            self.hand_out(s, run, &in_flight.decision.claims);
        }
        if !mutant::is(Mutant::AnsweredBeforeCommit) {
            self.answer_all(s, &in_flight.wanted, &in_flight.decision);
        }
    }

    pub(super) fn hand_out_if_standing(&mut self, s: Node, run: RunNo, mut unsure: Vec<Claim>) {
        unsure.retain(|claim| {
            let row = instance(&self.store.runs[run].rows.tasks, claim.ti);
            row.is_some_and(|it| it.fence == claim.fence && it.session.as_ref() == Some(&claim.session))
        });
        self.hand_out(s, run, &unsure);
    }

    pub(super) fn hand_out(&mut self, s: Node, run: RunNo, claims: &[Claim]) {
        let mut by_session: BTreeMap<SessionNo, Vec<Assignment>> = BTreeMap::new();
        for claim in claims {
            by_session.entry(session_no(&claim.session)).or_default().push(Assignment {
                holding: (run, claim.ti, claim.fence),
                try_number: claim.try_number,
                dag: self.store.runs[run].pinned.clone(),
            });
        }
        for (session, work) in by_session {
            let Some(worker) = self.store.sessions.get(&session).map(|row| row.worker) else { continue };
            let asking = self.schedulers[s].asking.remove(&session);
            let number = asking.map_or(0, |asking| asking.number);
            self.to_worker(worker, ToWorker::Assigned { session, number, work });
        }
    }

    /// Tells everybody who waits how their input was taken.
    pub(super) fn answer_all(&mut self, s: Node, wanted: &[Wanted], decision: &Decision) {
        for (place, wanted) in wanted.iter().enumerate() {
            let refused = decision.refused.iter().find(|(at, _)| *at == place);
            self.answer(s, wanted, refused.map(|(_, refusal)| refusal));
        }
    }

    fn answer(&mut self, s: Node, wanted: &Wanted, refusal: Option<&Refusal>) {
        match wanted.reply {
            Reply::Nobody => {}
            Reply::Person(wish) => self.people.answered(wish),
            Reply::Worker(worker, holding) => {
                let taken = matches!(refusal, None | Some(Refusal::AlreadyTaken));
                if taken && refusal.is_some() {
                    self.seen.note(Situation::ReportRepeated);
                }
                if !taken {
                    self.seen.note(Situation::StaleFence);
                    if self.check.was_lost(holding) {
                        self.seen.note(Situation::ZombieReport);
                    }
                }
                self.check.answered(&self.store, holding, taken);
                let line = || format!("s{s} answers w{worker}: {}", if taken { "taken" } else { "stale" });
                self.trace.note(self.now - super::world::BEGIN, &[2, worker as u64, u64::from(taken)], line);
                self.to_worker(worker, ToWorker::Answered { holding });
            }
        }
    }
}
