//! A worker as the design has it: it asks for work, proves that it lives, reports under its fences, and
//! trusts its lease only as long as its own clock can vouch for it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::dag::TaskIx;
use crate::core::ids::{Fence, TaskId, Timestamp};
use crate::core::mutant::{self, Mutant};
use crate::core::run::{Outcome, Outputs, Severity, TiRef, UNMAPPED};

use super::dags::LIST;
use super::random::Dice;
use super::situation::Situation;
use super::store::{Holding, RunNo, SessionNo};
use super::world::{Assignment, Event, Node, SECOND, ToScheduler, ToWorker, World};

/// How long a session lives without a heartbeat.
pub(super) const LEASE: Duration = Duration::from_secs(15);
/// What a worker trusts its lease less than it is.
const MARGIN: i64 = 2 * SECOND;
const BEAT: i64 = 4 * SECOND;
/// How long a worker waits for an answer to its request.
pub(super) const ASK_WAIT: i64 = 6 * SECOND;

/// One worker process.
#[derive(Default)]
pub(super) struct Worker {
    /// Rises with every start.
    pub(super) life: u32,
    pub(super) is_up: bool,
    /// No message leaves or reaches it.
    pub(super) is_cut_off: bool,
    pub(super) slots: usize,
    session: SessionNo,
    is_open: bool,
    trusted_until: i64,
    pub(super) attempts: BTreeMap<Holding, Outcome>,
    pub(super) unanswered: BTreeMap<Holding, Outcome>,
    /// The last fence it began, so that an assignment is begun once.
    begun: BTreeMap<(RunNo, TiRef), Fence>,
    asked: u64,
    waits_until: Option<i64>,
    /// It gives its work back and stops.
    pub(super) is_leaving: bool,
}

impl Worker {
    /// A worker that has not begun yet.
    pub(super) fn with_slots(slots: usize) -> Self {
        Self { slots, ..Self::default() }
    }
}

fn lease() -> i64 {
    i64::try_from(LEASE.as_micros()).expect("a lease is short")
}

impl World {
    /// A worker process begins.
    pub(super) fn start_worker(&mut self, w: Node) {
        let worker = &mut self.workers[w];
        let (life, slots) = (worker.life + 1, worker.slots);
        let (is_cut_off, session) = (worker.is_cut_off, worker.session);
        *worker = Worker { life, is_up: true, slots, is_cut_off, ..Worker::default() };
        if mutant::is(Mutant::SessionNameReused) && life > 1 {
            self.workers[w].session = session;
            self.ask_for_session(w);
        } else {
            self.new_session(w);
        }
        self.put(BEAT, Event::Beat { worker: w, life });
        let after = self.dice.between(0, SECOND);
        self.put(after, Event::Ask { worker: w, life });
    }

    fn new_session(&mut self, w: Node) {
        self.workers[w].session = self.next_session;
        self.next_session += 1;
        self.ask_for_session(w);
    }

    fn ask_for_session(&mut self, w: Node) {
        let sent_at = self.now;
        self.workers[w].is_open = false;
        let session = self.workers[w].session;
        self.from_worker(w, ToScheduler::Open { worker: w, session, sent_at });
    }

    pub(super) fn beat(&mut self, w: Node, life: u32) {
        if !self.workers[w].is_up || self.workers[w].life != life {
            return;
        }
        self.put(BEAT, Event::Beat { worker: w, life });
        let reports: Vec<_> = self.workers[w].unanswered.iter().map(|(h, o)| (*h, o.clone())).collect();
        for (holding, outcome) in reports {
            self.from_worker(w, ToScheduler::Report { worker: w, holding, outcome });
        }
        let worker = &self.workers[w];
        if worker.is_leaving && worker.unanswered.is_empty() {
            let session = worker.session;
            self.from_worker(w, ToScheduler::Close { session });
            return self.start_worker(w);
        }
        if !worker.is_open {
            // The answer may have been lost, and the name with it.
            if !mutant::is(Mutant::NoNewSession) || worker.trusted_until == 0 {
                self.new_session(w);
            }
            return;
        }
        let known = worker.attempts.keys().chain(worker.unanswered.keys()).copied().collect();
        let (session, sent_at) = (worker.session, self.now);
        self.from_worker(w, ToScheduler::Heartbeat { worker: w, session, sent_at, known });
    }

    /// Asks a scheduler for work, unless an answer is still awaited.
    pub(super) fn ask(&mut self, w: Node, life: u32) {
        if !self.workers[w].is_up || self.workers[w].life != life {
            return;
        }
        let after = SECOND + self.dice.between(0, SECOND);
        self.put(after, Event::Ask { worker: w, life });
        let now = self.now;
        let worker = &mut self.workers[w];
        let free = worker.slots.saturating_sub(worker.attempts.len());
        let waits = worker.waits_until.is_some_and(|until| until > now);
        if !worker.is_open || worker.is_leaving || waits || free == 0 {
            return;
        }
        worker.asked += 1;
        worker.waits_until = Some(now + ASK_WAIT);
        let (session, number) = (worker.session, worker.asked);
        let free = u32::try_from(free).expect("a worker has few slots");
        self.from_worker(w, ToScheduler::Ask { worker: w, session, number, free });
    }

    pub(super) fn worker_hears(&mut self, w: Node, message: ToWorker) {
        match message {
            ToWorker::Opened { session, sent_at, ok } => self.opened(w, session, sent_at, ok),
            ToWorker::Beaten { session, sent_at, lives, void, missing } => {
                if self.workers[w].session != session {
                    return;
                }
                if !lives {
                    return self.lease_is_over(w);
                }
                for holding in void {
                    if self.workers[w].attempts.contains_key(&holding) {
                        self.seen.note(Situation::VoidLearnt);
                        self.end_attempt(w, holding);
                    }
                }
                self.trust(w, sent_at);
                if !missing.is_empty() {
                    self.seen.note(Situation::MissingResent);
                }
                self.begin_all(w, missing);
            }
            ToWorker::Assigned { session, number, work } => {
                if self.workers[w].session == session {
                    if self.workers[w].asked == number {
                        self.workers[w].waits_until = None;
                    }
                    self.begin_all(w, work);
                }
            }
            ToWorker::Answered { holding } => {
                self.workers[w].unanswered.remove(&holding);
                self.end_attempt(w, holding);
            }
            ToWorker::Stop { holding } => {
                self.end_attempt(w, holding);
            }
        }
    }

    fn opened(&mut self, w: Node, session: SessionNo, sent_at: i64, ok: bool) {
        if self.workers[w].session != session || self.workers[w].is_open {
            return;
        }
        if ok {
            self.workers[w].is_open = true;
            self.trust(w, sent_at);
        } else {
            self.new_session(w);
        }
    }

    /// The lease was good when it was asked for at `sent_at`; how long it may be trusted follows.
    fn trust(&mut self, w: Node, sent_at: i64) {
        let until = sent_at + lease() - MARGIN;
        let worker = &mut self.workers[w];
        worker.trusted_until = worker.trusted_until.max(until);
        let (life, after) = (worker.life, worker.trusted_until - self.now);
        self.put(after, Event::TrustEnds { worker: w, life });
    }

    pub(super) fn trust_ends(&mut self, w: Node, life: u32) {
        let worker = &self.workers[w];
        let is_over =
            worker.is_up && worker.life == life && worker.is_open && worker.trusted_until <= self.now;
        if is_over && !mutant::is(Mutant::LeaseTrustedForEver) {
            self.seen.note(Situation::LeaseExpiredAlive);
            self.lease_is_over(w);
        }
    }

    /// What it holds may be given to another: it stops all of it and begins a new session.
    fn lease_is_over(&mut self, w: Node) {
        let attempts: Vec<Holding> = self.workers[w].attempts.keys().copied().collect();
        for holding in attempts {
            self.end_attempt(w, holding);
        }
        self.workers[w].is_open = false;
        if !mutant::is(Mutant::NoNewSession) {
            self.new_session(w);
        }
    }

    fn begin_all(&mut self, w: Node, work: Vec<Assignment>) {
        for assignment in work {
            let (run, ti, fence) = assignment.holding;
            let worker = &mut self.workers[w];
            let last = worker.begun.entry((run, ti)).or_default();
            if *last >= fence {
                self.seen.note(Situation::AssignedTwice);
                let reported = worker.unanswered.contains_key(&assignment.holding);
                if !mutant::is(Mutant::AssignmentNotRemembered) || reported {
                    continue;
                }
            }
            *last = fence;
            if !worker.is_open {
                continue;
            }
            if worker.attempts.len() >= worker.slots || worker.is_leaving {
                self.seen.note(Situation::TooManyAssigned);
                self.report(w, assignment.holding, Outcome::Interrupted);
            } else {
                self.begin(w, &assignment);
            }
        }
    }

    fn begin(&mut self, w: Node, assignment: &Assignment) {
        let holding = assignment.holding;
        let (span, outcome) = self.plan_attempt(assignment);
        let (life, session) = (self.workers[w].life, self.workers[w].session);
        self.workers[w].attempts.insert(holding, outcome);
        self.check.began(w, session, holding);
        let name = self.name(holding.0, holding.1);
        let fence = holding.2.0;
        self.trace.note(self.since_begin(), &[3, w as u64, fence.cast_unsigned()], || {
            format!("w{w} begins {name} fence={fence} try={}", assignment.try_number)
        });
        self.put(span, Event::AttemptEnds { worker: w, life, holding });
    }

    pub(super) fn end_attempt(&mut self, w: Node, holding: Holding) -> Option<Outcome> {
        let outcome = self.workers[w].attempts.remove(&holding)?;
        self.check.ended(w, holding);
        Some(outcome)
    }

    pub(super) fn attempt_ends(&mut self, w: Node, life: u32, holding: Holding) {
        if self.workers[w].life != life {
            return;
        }
        if let Some(outcome) = self.end_attempt(w, holding) {
            self.report(w, holding, outcome);
        }
    }

    fn report(&mut self, w: Node, holding: Holding, outcome: Outcome) {
        self.workers[w].unanswered.insert(holding, outcome.clone());
        self.from_worker(w, ToScheduler::Report { worker: w, holding, outcome });
    }

    /// The worker gives back what it is at, and then stops.
    pub(super) fn leave(&mut self, w: Node) {
        self.workers[w].is_leaving = true;
        let attempts: Vec<Holding> = self.workers[w].attempts.keys().copied().collect();
        if !attempts.is_empty() {
            self.seen.note(Situation::WorkerLeft);
        }
        for holding in attempts {
            self.end_attempt(w, holding);
            self.report(w, holding, Outcome::Interrupted);
        }
    }

    /// The process is gone from one moment to the next.
    pub(super) fn crash_worker(&mut self, w: Node) {
        let attempts: Vec<Holding> = self.workers[w].attempts.keys().copied().collect();
        if !attempts.is_empty() {
            self.seen.note(Situation::WorkerCrashed);
        }
        for holding in attempts {
            self.end_attempt(w, holding);
        }
        self.workers[w].is_up = false;
        self.workers[w].unanswered.clear();
    }

    /// How long the attempt will take and how it will end, if nothing comes between.
    fn plan_attempt(&mut self, assignment: &Assignment) -> (i64, Outcome) {
        let (_, ti, _) = assignment.holding;
        let task = assignment.dag.task(ti.task);
        let span = if self.dice.percent(self.faults.long_percent) {
            self.dice.between(20 * SECOND, 50 * SECOND)
        } else {
            self.dice.between(SECOND / 10, 8 * SECOND)
        };
        if let Some(limit) = task.execution_timeout {
            let limit = i64::try_from(limit.as_micros()).expect("a timeout is short");
            if span > limit {
                self.seen.note(Situation::TimedOut);
                let error = "it took longer than its `execution_timeout`".into();
                return (limit, Outcome::Failed { error, severity: Severity::TimedOut });
            }
        }
        let now = Timestamp(self.now);
        let children = assignment.dag.downstream(ti.task);
        let names = |ix: &TaskIx| assignment.dag.task(*ix).id.clone();
        let children: Vec<TaskId> = children.iter().map(names).collect();
        let is_single = ti.map_index == UNMAPPED;
        let outcome = match &*task.kind {
            "branch" if is_single && self.dice.percent(85) => self.branch(&children),
            "short_circuit" if is_single && self.dice.percent(50) => {
                self.seen.note(Situation::ShortCircuited);
                let respect_trigger_rules = self.dice.percent(50);
                Outcome::ShortCircuited { respect_trigger_rules, outputs: outputs(&mut self.dice) }
            }
            _ => plain_outcome(&mut self.dice, self.is_calm, now),
        };
        (span, outcome)
    }

    fn branch(&mut self, children: &[TaskId]) -> Outcome {
        self.seen.note(Situation::Branched);
        let mut chosen: Vec<TaskId> = children.iter().filter(|_| self.dice.percent(50)).cloned().collect();
        if self.dice.percent(4) {
            chosen.push(TaskId::parse("stranger").expect("a word is a valid name"));
        }
        Outcome::Branched { chosen, outputs: outputs(&mut self.dice) }
    }
}

fn outputs(dice: &mut Dice) -> Outputs {
    match dice.below(10) {
        0 => Outputs::default(),
        1 => Outputs { json: "{}".into(), ..Outputs::default() },
        _ => Outputs {
            json: "{}".into(),
            list_lengths: vec![(LIST.into(), u32::try_from(dice.below(4)).expect("it is small"))],
            ..Outputs::default()
        },
    }
}

fn plain_outcome(dice: &mut Dice, is_calm: bool, now: Timestamp) -> Outcome {
    let error = "boom".into();
    match dice.below(100) {
        0..72 => Outcome::Succeeded(outputs(dice)),
        72..85 => Outcome::Failed { error, severity: Severity::Retryable },
        85..90 => Outcome::Failed { error, severity: Severity::Permanent },
        90..93 => Outcome::Skipped { why: "nothing to do".into() },
        93..97 if !is_calm => {
            let wait = Duration::from_secs(dice.between(0, 15).unsigned_abs());
            Outcome::Deferred { until: now.plus(wait) }
        }
        97..100 if !is_calm => Outcome::Interrupted,
        _ => Outcome::Succeeded(outputs(dice)),
    }
}
