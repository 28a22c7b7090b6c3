//! The world of one seed: the clock, the events to come, the network, and everybody in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::dag::Dag;
use crate::core::ids::Timestamp;
use crate::core::run::{Outcome, TiRef};

use super::check::Checker;
use super::people::{Faults, People, Wish};
use super::random::Dice;
use super::scheduler::Scheduler;
use super::situation::{Seen, Situation};
use super::store::{Commit, DagNo, Holding, Refused, RunNo, SessionNo, Store};
use super::trace::Trace;
use super::worker::Worker;

/// 2026-01-01T10:00:00Z, when every simulation begins, in microseconds.
pub(super) const BEGIN: i64 = 1_767_261_600_000_000;
/// A second.
pub(super) const SECOND: i64 = 1_000_000;

/// A scheduler's or worker's place.
pub(super) type Node = usize;

/// What is to happen. What concerns a process names the life of the process it was meant for.
pub(super) enum Event {
    /// A scheduler looks around.
    Look { scheduler: Node, life: u32 },
    /// A commit reaches the store.
    CommitArrives { life: u32, commit: Box<Commit> },
    /// The store's answer, or the lack of one, reaches the scheduler.
    CommitAnswered { scheduler: Node, life: u32, run: RunNo, number: u64, answer: Result<i64, Refused> },
    /// A firing reaches the store.
    FireArrives { scheduler: Node, dag: DagNo, seen: Option<i64>, due: super::calendar::Due },
    /// A scheduler tries a run again.
    Again { scheduler: Node, life: u32, run: RunNo },
    /// A message reaches a scheduler.
    ToScheduler { scheduler: Node, message: ToScheduler },
    /// A message reaches a worker.
    ToWorker { worker: Node, message: ToWorker },
    /// A letter reaches who it is for.
    Letter { scheduler: Node, key: String },
    /// A worker's heart beats.
    Beat { worker: Node, life: u32 },
    /// A worker asks for work.
    Ask { worker: Node, life: u32 },
    /// A worker no longer trusts its lease, unless it was renewed.
    TrustEnds { worker: Node, life: u32 },
    /// An attempt ends by itself.
    AttemptEnds { worker: Node, life: u32, holding: Holding },
    /// A person wants something.
    Person,
    /// A person asks again for what was not answered.
    PersonAgain { wish: u64 },
    /// Something breaks.
    Break(super::people::Fault),
    /// Something is mended.
    Mend(super::people::Fault),
    /// All faults stop: from now on everything must come to its end.
    Calm,
    /// A person heals runs that others wait for.
    Rescue,
}

/// What schedulers are told.
#[derive(Clone)]
pub(super) enum ToScheduler {
    Open { worker: Node, session: SessionNo, sent_at: i64 },
    Heartbeat { worker: Node, session: SessionNo, sent_at: i64, known: Vec<Holding> },
    Ask { worker: Node, session: SessionNo, number: u64, free: u32 },
    Report { worker: Node, holding: Holding, outcome: Outcome },
    Close { session: SessionNo },
    Wish { number: u64, wish: Wish },
    LetterTaken { key: String },
}

/// What workers are told.
#[derive(Clone)]
pub(super) enum ToWorker {
    /// `ok` is false if the name was used before.
    Opened { session: SessionNo, sent_at: i64, ok: bool },
    /// Whether the session lives, what of its claims is void, and what it holds without knowing.
    Beaten { session: SessionNo, sent_at: i64, lives: bool, void: Vec<Holding>, missing: Vec<Assignment> },
    /// The answer to a request for work.
    Assigned { session: SessionNo, number: u64, work: Vec<Assignment> },
    /// A report was taken, now or before, or it is stale: either way it is settled.
    Answered { holding: Holding },
    /// An attempt is void.
    Stop { holding: Holding },
}

/// Work for a worker.
#[derive(Clone)]
pub(super) struct Assignment {
    pub(super) holding: Holding,
    pub(super) try_number: u32,
    pub(super) dag: Arc<Dag>,
}

/// Everything there is.
pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: i64,
    events: BTreeMap<(i64, u64), Event>,
    sequence: u64,
    pub(super) faults: Faults,
    pub(super) is_calm: bool,
    pub(super) store: Store,
    pub(super) schedulers: Vec<Scheduler>,
    pub(super) workers: Vec<Worker>,
    pub(super) people: People,
    pub(super) next_session: SessionNo,
    pub(super) next_commit: u64,
    pub(super) check: Checker,
    pub(super) seen: Seen,
    pub(super) trace: Trace,
    /// Steps that were decided, kept only for a person.
    pub(super) past: Vec<super::scenario::Past>,
}

impl World {
    pub(super) fn new(dice: Dice, faults: Faults, store: Store, trace: Trace) -> Self {
        Self {
            dice,
            now: BEGIN,
            events: BTreeMap::new(),
            sequence: 0,
            faults,
            is_calm: false,
            store,
            schedulers: Vec::new(),
            workers: Vec::new(),
            people: People::default(),
            next_session: 0,
            next_commit: 0,
            check: Checker::default(),
            seen: Seen::default(),
            trace,
            past: Vec::new(),
        }
    }

    /// Puts an event `after` microseconds from now.
    pub(super) fn put(&mut self, after: i64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after.max(0), self.sequence), event);
    }

    /// Lets the next event happen; false if there is none.
    pub(super) fn turn(&mut self) -> bool {
        let Some(((at, _), event)) = self.events.pop_first() else { return false };
        self.now = at;
        self.store.clock = Timestamp(at);
        self.trace.events += 1;
        match event {
            Event::Look { scheduler, life } => self.look(scheduler, life),
            Event::CommitArrives { life, commit } => self.commit_arrives(life, &commit),
            Event::CommitAnswered { scheduler, life, run, number, answer } => {
                if self.schedulers[scheduler].lives(life) {
                    self.committed(scheduler, run, number, answer);
                }
            }
            Event::FireArrives { scheduler, dag, seen, due } => self.fire_arrives(scheduler, dag, seen, &due),
            Event::Again { scheduler, life, run } => {
                if self.schedulers[scheduler].lives(life) {
                    self.drive(scheduler, run);
                }
            }
            Event::ToScheduler { scheduler, message } => {
                if self.schedulers[scheduler].is_up && !self.store.is_away {
                    self.scheduler_hears(scheduler, message);
                }
            }
            Event::ToWorker { worker, message } => {
                if self.workers[worker].is_up {
                    self.worker_hears(worker, message);
                }
            }
            Event::Letter { scheduler, key } => self.letter_arrives(scheduler, key),
            Event::Beat { worker, life } => self.beat(worker, life),
            Event::Ask { worker, life } => self.ask(worker, life),
            Event::TrustEnds { worker, life } => self.trust_ends(worker, life),
            Event::AttemptEnds { worker, life, holding } => self.attempt_ends(worker, life, holding),
            Event::Person => self.person_acts(),
            Event::PersonAgain { wish } => self.person_asks(wish),
            Event::Break(fault) => self.break_something(fault),
            Event::Mend(fault) => self.mend(fault),
            Event::Calm => self.calm_down(),
            Event::Rescue => self.rescue(),
        }
        true
    }

    /// How long a message or a transaction takes.
    pub(super) fn delay(&mut self) -> i64 {
        if self.is_calm {
            return self.dice.between(1_000, 20_000);
        }
        if self.dice.percent(self.faults.slow_percent) {
            return self.dice.between(SECOND, 25 * SECOND);
        }
        self.dice.between(1_000, 300_000)
    }

    /// How often a message arrives: lost, once, or twice.
    fn copies(&mut self) -> usize {
        if self.is_calm {
            return 1;
        }
        if self.dice.percent(self.faults.loss_percent) {
            self.seen.note(Situation::MessageLost);
            return 0;
        }
        if self.dice.percent(self.faults.double_percent) {
            self.seen.note(Situation::MessageDoubled);
            return 2;
        }
        1
    }

    #[expect(clippy::wrong_self_convention, reason = "a message goes to somebody; nothing is converted")]
    pub(super) fn to_scheduler(&mut self, scheduler: Node, message: ToScheduler) {
        for _ in 0..self.copies() {
            let after = self.delay();
            self.put(after, Event::ToScheduler { scheduler, message: message.clone() });
        }
    }

    /// From a worker to whichever scheduler it finds, unless it is cut off.
    #[expect(clippy::wrong_self_convention, reason = "a message goes to somebody; nothing is converted")]
    pub(super) fn from_worker(&mut self, worker: Node, message: ToScheduler) {
        if self.workers[worker].is_cut_off {
            return;
        }
        let scheduler = self.dice.below(self.schedulers.len());
        self.to_scheduler(scheduler, message);
    }

    #[expect(clippy::wrong_self_convention, reason = "a message goes to somebody; nothing is converted")]
    pub(super) fn to_worker(&mut self, worker: Node, message: ToWorker) {
        if self.workers[worker].is_cut_off {
            return;
        }
        for _ in 0..self.copies() {
            let after = self.delay();
            self.put(after, Event::ToWorker { worker, message: message.clone() });
        }
    }

    #[expect(clippy::wrong_self_convention, reason = "a message goes to somebody; nothing is converted")]
    pub(super) fn to_receiver(&mut self, scheduler: Node, key: &str) {
        for _ in 0..self.copies() {
            let after = self.delay();
            self.put(after, Event::Letter { scheduler, key: key.to_owned() });
        }
    }

    fn letter_arrives(&mut self, scheduler: Node, key: String) {
        if !self.check.received(&key) {
            self.seen.note(Situation::LetterRepeated);
        }
        self.to_scheduler(scheduler, ToScheduler::LetterTaken { key });
    }

    /// What a scheduler's clock says.
    pub(super) fn clock(&self, scheduler: Node) -> Timestamp {
        Timestamp(self.now + self.schedulers[scheduler].skew)
    }

    /// Since the beginning, for the trace.
    pub(super) fn since_begin(&self) -> i64 {
        self.now - BEGIN
    }

    /// `dag/run task[index]`, for the trace.
    pub(super) fn name(&self, run: RunNo, ti: TiRef) -> String {
        let row = &self.store.runs[run];
        format!("r{run} {}", super::scenario::instance_name(&row.pinned, ti))
    }
}
