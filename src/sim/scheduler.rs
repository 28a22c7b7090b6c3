//! A scheduler as the design has it: it keeps runs as values, steps them by `core::step`, commits what
//! follows, and then lets it happen. It owns nothing: any scheduler may step any run.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::dag::Dag;
use crate::core::mutant::{self, Mutant};
use crate::core::run::{Claim, Decision, Input, Run, TiRef};
use crate::core::state::{RunState, TaskState};
use crate::core::step::step;

use super::situation::Situation;
use super::store::{Commit, DagNo, Holding, Refused, RunNo, SessionNo, instance, instances, session_no};
use super::world::{Event, Node, SECOND, World};

/// Letters that one look sends.
const LETTERS_MAX: usize = 4;

/// One scheduler process.
#[derive(Default)]
pub(super) struct Scheduler {
    /// Rises with every start.
    pub(super) life: u32,
    pub(super) is_up: bool,
    /// What its clock is ahead, in microseconds.
    pub(super) skew: i64,
    pub(super) cache: BTreeMap<RunNo, Driven>,
    /// Workers that wait here for work.
    pub(super) asking: BTreeMap<SessionNo, Asking>,
}

/// A worker that waits for work.
pub(super) struct Asking {
    pub(super) worker: Node,
    pub(super) number: u64,
    pub(super) free: u32,
    pub(super) until: i64,
}

/// One run that this scheduler has a value of.
pub(super) struct Driven {
    pub(super) run: Run,
    dag: Arc<Dag>,
    inbox: Vec<Wanted>,
    in_flight: Option<InFlight>,
    /// Something came in while a commit was under way.
    is_dirty: bool,
    /// The value may be old: load it before the next step.
    is_old: bool,
    /// Claims of commits whose fate is not known: they are handed out if they turn out to stand.
    unsure: Vec<Claim>,
}

/// An input with whoever waits for the answer.
#[derive(Clone)]
pub(super) struct Wanted {
    pub(super) input: Input,
    pub(super) reply: Reply,
}

/// Who waits for an answer.
#[derive(Clone)]
pub(super) enum Reply {
    Nobody,
    Worker(Node, Holding),
    Person(u64),
}

/// A step whose commit is under way.
pub(super) struct InFlight {
    number: u64,
    pub(super) wanted: Vec<Wanted>,
    pub(super) decision: Decision,
    /// Who held the attempts that the decision revokes.
    pub(super) holders: Vec<(SessionNo, Holding)>,
}

impl Scheduler {
    /// Whether the process that an event was meant for is still there.
    pub(super) fn lives(&self, life: u32) -> bool {
        self.is_up && self.life == life
    }
}

impl World {
    /// A scheduler process begins.
    pub(super) fn start_scheduler(&mut self, s: Node) {
        let skew = self.schedulers[s].skew;
        let life = self.schedulers[s].life + 1;
        self.schedulers[s] = Scheduler { life, is_up: true, skew, ..Scheduler::default() };
        let after = self.dice.between(0, SECOND);
        self.put(after, Event::Look { scheduler: s, life });
        if mutant::is(Mutant::RestartRestartsWork) {
            let running: Vec<Holding> = self.store.running();
            for holding in running {
                self.want_loss(s, holding);
            }
        }
    }

    /// The loop's body: what is due, who is lost, who waits, what is to be delivered.
    pub(super) fn look(&mut self, s: Node, life: u32) {
        if !self.schedulers[s].lives(life) {
            return;
        }
        let after = SECOND + self.dice.between(0, SECOND / 2);
        self.put(after, Event::Look { scheduler: s, life });
        if self.store.is_away {
            return;
        }
        self.forget_old_values(s);
        for dag in 0..self.store.dags.len() {
            self.look_at_schedule(s, dag);
        }
        for holding in self.store.expired() {
            self.want_loss(s, holding);
        }
        let now = self.clock(s);
        let waiting: Vec<RunNo> =
            self.store.open.iter().copied().filter(|&run| self.waits(run, now.0)).collect();
        for run in waiting {
            if self.is_calm || self.dice.percent(80) {
                self.drive(s, run);
            }
        }
        self.courier(s);
        let (at, asking) = (self.now, &mut self.schedulers[s].asking);
        asking.retain(|_, asking| asking.until > at);
    }

    fn forget_old_values(&mut self, s: Node) {
        let (store, cache) = (&self.store, &mut self.schedulers[s].cache);
        cache.retain(|&run, driven| {
            let is_current = store.runs[run].rows.version == driven.run.version;
            driven.is_old |= !is_current;
            driven.in_flight.is_some()
                || !driven.inbox.is_empty()
                || (is_current && !store.runs[run].rows.state.is_final())
        });
    }

    /// Whether a run has something that time or room may change.
    fn waits(&self, run: RunNo, now: i64) -> bool {
        let row = &self.store.runs[run];
        (row.rows.state == RunState::Queued && self.may_start(run))
            || row.next_due.is_some_and(|due| due.0 <= now)
            || instances(&row.rows)
                .any(|(_, it)| matches!(it.state, TaskState::Scheduled | TaskState::Queued))
    }

    /// Whether a queued run is among those that have a place, in the order of their dates.
    fn may_start(&self, run: RunNo) -> bool {
        let row = &self.store.runs[run];
        let order = |run: RunNo| (self.store.runs[run].rows.birth.logical_date, run);
        let before = self.store.open.iter().filter(|&&other| {
            let theirs = &self.store.runs[other];
            theirs.dag == row.dag && theirs.rows.state == RunState::Queued && order(other) < order(run)
        });
        let places = row.pinned.settings.max_active_runs.saturating_sub(self.store.active_runs(row.dag));
        before.count() < places as usize
    }

    fn look_at_schedule(&mut self, s: Node, dag: DagNo) {
        let row = &self.store.dags[dag];
        if row.paused {
            return;
        }
        let seen = row.cursor;
        if let Some(due) = row.calendar.due(seen, self.clock(s).0) {
            let after = self.delay();
            self.put(after, Event::FireArrives { scheduler: s, dag, seen, due });
        }
    }

    pub(super) fn fire_arrives(
        &mut self,
        s: Node,
        dag: DagNo,
        seen: Option<i64>,
        due: &super::calendar::Due,
    ) {
        let now = self.clock(s);
        match self.store.fire(dag, seen, due, now) {
            Ok(made) => {
                if !due.skip.is_empty() {
                    self.seen.note(Situation::MissedSkipped);
                }
                if due.fire.len() > 1 {
                    self.seen.note(Situation::CaughtUp);
                }
                for &run in &made {
                    let name = self.store.runs[run].rows.birth.key.run_id.clone();
                    if name.as_str().ends_with(".scheduled") {
                        self.seen.note(Situation::NameTaken);
                    }
                    let line = || format!("s{s} fires r{run} = {name} of d{dag}");
                    self.trace.note(self.now - super::world::BEGIN, &[1, run as u64], line);
                }
                self.check.fired(&self.store, dag);
                self.check.created(&self.store);
                if self.schedulers[s].is_up {
                    for run in made {
                        self.drive(s, run);
                    }
                }
            }
            Err(Refused::Conflict(_)) => self.seen.note(Situation::CursorConflict),
            Err(Refused::Away) => self.seen.note(Situation::DatabaseAway),
        }
    }

    fn courier(&mut self, s: Node) {
        let pending = self.store.outbox.iter().filter(|(_, delivered)| !**delivered);
        let keys: Vec<String> = pending.map(|(key, _)| key.clone()).take(LETTERS_MAX).collect();
        for key in keys {
            self.to_receiver(s, &key);
            if mutant::is(Mutant::MarkedBeforeSent) {
                self.store.outbox.insert(key, true);
            }
        }
    }

    pub(super) fn want_loss(&mut self, s: Node, (run, ti, fence): Holding) {
        let input = Input::Lost { ti, fence };
        let known = self.schedulers[s].cache.get(&run).is_some_and(|driven| {
            let waiting = driven.inbox.iter().chain(driven.in_flight.iter().flat_map(|f| &f.wanted));
            waiting.into_iter().any(|wanted| wanted.input == input)
        });
        if !known {
            self.want(s, run, Wanted { input, reply: Reply::Nobody });
        }
    }

    /// Puts an input to a run and steps it.
    pub(super) fn want(&mut self, s: Node, run: RunNo, wanted: Wanted) {
        self.driven(s, run).inbox.push(wanted);
        self.drive(s, run);
    }

    /// The value of a run, loaded if it is not there.
    pub(super) fn driven(&mut self, s: Node, run: RunNo) -> &mut Driven {
        let store = &self.store;
        self.schedulers[s].cache.entry(run).or_insert_with(|| {
            let row = &store.runs[run];
            let newest = &store.dags[row.dag];
            let newest = &newest.versions[newest.latest];
            let fits =
                mutant::is(Mutant::NewestDagVersion) && newest.tasks().len() == row.pinned.tasks().len();
            let dag = if fits { newest.clone() } else { row.pinned.clone() };
            let run = Run::restore(row.rows.clone(), &dag);
            Driven {
                run,
                dag,
                inbox: Vec::new(),
                in_flight: None,
                is_dirty: false,
                is_old: false,
                unsure: Vec::new(),
            }
        })
    }

    /// Steps a run, unless a commit of it is under way: then it is stepped after that.
    pub(super) fn drive(&mut self, s: Node, run_no: RunNo) {
        if self.store.is_away {
            let life = self.schedulers[s].life;
            return self.put(SECOND, Event::Again { scheduler: s, life, run: run_no });
        }
        self.driven(s, run_no);
        let (room, now) = (self.room(s, run_no), self.clock(s));
        let fresh = self.store.runs[run_no].rows.version;
        let Some(driven) = self.schedulers[s].cache.get_mut(&run_no) else { return };
        if driven.in_flight.is_some() {
            driven.is_dirty = true;
            return;
        }
        if driven.is_old {
            driven.run = Run::restore(self.store.runs[run_no].rows.clone(), &driven.dag);
            driven.is_old = false;
            let unsure = std::mem::take(&mut driven.unsure);
            self.hand_out_if_standing(s, run_no, unsure);
            return self.drive(s, run_no);
        }
        let wanted = std::mem::take(&mut driven.inbox);
        let inputs: Vec<Input> = wanted.iter().map(|wanted| wanted.input.clone()).collect();
        let expected_version = driven.run.version;
        let decision = step(&driven.dag, &mut driven.run, &inputs, &room, now);
        if decision.is_empty() {
            let doubtful = !decision.refused.is_empty() && expected_version != fresh;
            if doubtful && !mutant::is(Mutant::StaleRefusalAnswered) {
                driven.is_old = true;
                driven.inbox = wanted;
                self.seen.note(Situation::RefusalReconsidered);
                return self.drive(s, run_no);
            }
            return self.answer_all(s, &wanted, &decision);
        }
        let after = driven.run.rows();
        let dag = driven.dag.clone();
        self.next_commit += 1;
        let number = self.next_commit;
        let holders = self.holders(run_no, &decision.revoked);
        self.check.decided(&dag, &after, &decision, &room);
        self.record(run_no, &inputs, &room, now, &decision);
        self.before_commit(s, run_no, &wanted, &decision);
        let commit = Commit {
            number,
            by: s,
            run: run_no,
            expected_version,
            inputs,
            decision: decision.clone(),
            dag,
            after,
        };
        let in_flight = InFlight { number, wanted, decision, holders };
        if let Some(driven) = self.schedulers[s].cache.get_mut(&run_no) {
            driven.in_flight = Some(in_flight);
        }
        let (after, life) = (self.delay(), self.schedulers[s].life);
        self.put(after, Event::CommitArrives { life, commit: Box::new(commit) });
    }

    /// What must not happen before the commit, and does in mutants.
    fn before_commit(&mut self, s: Node, run: RunNo, wanted: &[Wanted], decision: &Decision) {
        for claim in &decision.claims {
            if let Some(asking) = self.schedulers[s].asking.get_mut(&session_no(&claim.session)) {
                asking.free = asking.free.saturating_sub(1);
            }
        }
        if mutant::is(Mutant::HandedOutBeforeCommit) {
            self.hand_out(s, run, &decision.claims);
        }
        if mutant::is(Mutant::AnsweredBeforeCommit) {
            self.answer_all(s, wanted, decision);
        }
        if mutant::is(Mutant::AlertInsideStep) {
            let row = &self.store.runs[run].rows;
            let keys = super::store::letter_keys(&row.birth.key, row.version + 1, decision);
            for key in keys {
                self.to_receiver(s, &key);
            }
        }
    }

    /// Who holds what a decision revokes, as the rows say.
    fn holders(&self, run: RunNo, revoked: &[(TiRef, crate::core::ids::Fence)]) -> Vec<(SessionNo, Holding)> {
        let rows = &self.store.runs[run].rows;
        let holder = |&(ti, fence)| {
            let instance = instance(&rows.tasks, ti).filter(|it| it.fence == fence)?;
            Some((session_no(instance.session.as_ref()?), (run, ti, fence)))
        };
        revoked.iter().filter_map(holder).collect()
    }

    pub(super) fn commit_arrives(&mut self, life: u32, commit: &Commit) {
        let s = commit.by;
        let sender_lives = self.schedulers[s].lives(life);
        if !sender_lives && self.dice.percent(50) {
            return self.seen.note(Situation::CrashBeforeCommit);
        }
        let answer = self.store.commit(commit);
        self.note_commit(commit, answer);
        if answer.is_ok() {
            self.check.committed(&self.store, commit);
            self.notice(commit);
            if !sender_lives {
                self.seen.note(Situation::CrashAfterSending);
                if !commit.decision.claims.is_empty() {
                    self.seen.note(Situation::CrashBeforeHandOut);
                }
            }
        }
        let (number, run) = (commit.number, commit.run);
        if !self.is_calm && self.dice.percent(self.faults.answer_lost_percent) {
            if answer.is_ok() {
                self.seen.note(Situation::AnswerLost);
            }
            let answer = Err(Refused::Away);
            return self.put(3 * SECOND, Event::CommitAnswered { scheduler: s, life, run, number, answer });
        }
        let after = self.delay();
        self.put(after, Event::CommitAnswered { scheduler: s, life, run, number, answer });
    }

    pub(super) fn committed(&mut self, s: Node, run: RunNo, number: u64, answer: Result<i64, Refused>) {
        let Some(driven) = self.schedulers[s].cache.get_mut(&run) else { return };
        let Some(in_flight) = driven.in_flight.take_if(|in_flight| in_flight.number == number) else {
            return;
        };
        let is_dirty = std::mem::take(&mut driven.is_dirty);
        let answer = match answer {
            Err(Refused::Away) if mutant::is(Mutant::LostAnswerTakenForDone) => Ok(driven.run.version + 1),
            answer => answer,
        };
        match answer {
            Ok(version) => {
                driven.run.version = version;
                if driven.run.state.is_final() && !is_dirty {
                    self.schedulers[s].cache.remove(&run);
                }
                self.carry_out(s, run, &in_flight);
                if is_dirty {
                    self.drive(s, run);
                }
            }
            Err(refused) => {
                driven.is_old = true;
                let newer = std::mem::replace(&mut driven.inbox, in_flight.wanted);
                driven.inbox.extend(newer);
                driven.unsure.extend_from_slice(&in_flight.decision.claims);
                for claim in &in_flight.decision.claims {
                    let session = session_no(&claim.session);
                    if refused == Refused::Away {
                        // They may have been written: the worker is not given more before it asks again.
                        self.schedulers[s].asking.remove(&session);
                    } else if let Some(asking) = self.schedulers[s].asking.get_mut(&session) {
                        asking.free += 1;
                    }
                }
                if refused == Refused::Away {
                    let life = self.schedulers[s].life;
                    self.put(SECOND / 2, Event::Again { scheduler: s, life, run });
                } else {
                    self.drive(s, run);
                }
            }
        }
    }
}
