//! People, and everything that breaks: wishes at random, crashes, cuts, clocks, edits, and the end of all that.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::dag::TaskIx;
use crate::core::ids::RunId;
use crate::core::reason::Reason;
use crate::core::run::TiRef;
use crate::core::select::Reach;
use crate::core::state::{RunState, TaskState};
use crate::core::why::why;

use super::dags::random_dag;
use super::situation::Situation;
use super::store::{DagNo, RunNo, instances, scheduled_id};
use super::world::{Event, Node, SECOND, ToScheduler, World};

/// How much goes wrong in one seed.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    pub(super) loss_percent: u32,
    pub(super) double_percent: u32,
    /// Messages and transactions that take seconds.
    pub(super) slow_percent: u32,
    pub(super) answer_lost_percent: u32,
    /// Attempts that take longer than a lease.
    pub(super) long_percent: u32,
    /// The clocks of schedulers are wrong.
    pub(super) clocks_differ: bool,
}

/// One thing that breaks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    SchedulerCrashes(Node),
    WorkerCrashes(Node),
    WorkerLeaves(Node),
    WorkerCutOff(Node),
    DatabaseAway,
    ClockSteps(Node, i64),
    Edit(DagNo),
}

/// What a person asks for.
#[derive(Clone)]
pub(super) enum Wish {
    Trigger { dag: DagNo, run_id: RunId },
    Pause { dag: DagNo, paused: bool },
    Clear { run: RunNo, tasks: Vec<TaskIx>, reach: Reach },
    Mark { run: RunNo, tis: Vec<TiRef>, state: TaskState },
    Cancel { run: RunNo },
}

/// Everybody who wishes for something.
#[derive(Default)]
pub(super) struct People {
    wishes: BTreeMap<u64, (Wish, u32)>,
    next: u64,
}

impl People {
    pub(super) fn answered(&mut self, wish: u64) {
        self.wishes.remove(&wish);
    }
}

/// How often a person asks for the same thing before giving up.
const PATIENCE: u32 = 4;

impl World {
    /// A person comes and wants something.
    pub(super) fn person_acts(&mut self) {
        if self.is_calm {
            return;
        }
        let after = self.dice.between(3 * SECOND, 20 * SECOND);
        self.put(after, Event::Person);
        if let Some(wish) = self.some_wish() {
            self.wish(wish);
        }
    }

    pub(super) fn wish(&mut self, wish: Wish) {
        let number = self.people.next;
        self.people.next += 1;
        self.people.wishes.insert(number, (wish, 0));
        self.person_asks(number);
    }

    /// Asks, and asks again until there is an answer.
    pub(super) fn person_asks(&mut self, number: u64) {
        let Some((wish, asked)) = self.people.wishes.get_mut(&number) else { return };
        *asked += 1;
        if *asked > PATIENCE {
            self.people.answered(number);
            return;
        }
        let wish = wish.clone();
        let scheduler = self.dice.below(self.schedulers.len());
        self.to_scheduler(scheduler, ToScheduler::Wish { number, wish });
        self.put(8 * SECOND, Event::PersonAgain { wish: number });
    }

    fn some_wish(&mut self) -> Option<Wish> {
        let dag = self.dice.below(self.store.dags.len());
        let run = (!self.store.runs.is_empty()).then(|| self.dice.below(self.store.runs.len()));
        match self.dice.below(10) {
            0..=2 => Some(self.trigger(dag)),
            3 => Some(Wish::Pause { dag, paused: self.dice.percent(50) }),
            4..=6 => {
                let run = run?;
                let tasks = self.store.runs[run].pinned.tasks().len();
                let tasks = (0..1 + self.dice.below(2)).map(|_| self.dice.below(tasks)).collect();
                let reach = Reach {
                    upstream: self.dice.percent(20),
                    downstream: self.dice.percent(50),
                    only_failed: self.dice.percent(30),
                };
                Some(Wish::Clear { run, tasks, reach })
            }
            7..=8 => {
                let run = run?;
                let all: Vec<TiRef> = instances(&self.store.runs[run].rows).map(|(ti, _)| ti).collect();
                let state = *self.dice.pick(&[TaskState::Success, TaskState::Failed, TaskState::Skipped]);
                let tis = (0..1 + self.dice.below(2)).map(|_| *self.dice.pick(&all)).collect();
                Some(Wish::Mark { run, tis, state })
            }
            _ => self.dice.percent(50).then_some(Wish::Cancel { run: run? }),
        }
    }

    /// A run by hand, sometimes under the name that a scheduled one will want.
    fn trigger(&mut self, dag: DagNo) -> Wish {
        let row = &self.store.dags[dag];
        let coming = row.calendar.instants().find(|&at| row.cursor.is_none_or(|cursor| at > cursor));
        let run_id = match coming {
            Some(instant) if self.dice.percent(40) => scheduled_id(instant, ""),
            _ => {
                let name = format!("manual__{}", self.people.next);
                RunId::parse(&name).expect("a word and a number are a valid name")
            }
        };
        Wish::Trigger { dag, run_id }
    }

    pub(super) fn break_something(&mut self, fault: Fault) {
        self.trace.note(self.now - super::world::BEGIN, &[5], || format!("breaks: {fault:?}"));
        let mends_after = self.dice.between(SECOND, 30 * SECOND);
        match fault {
            Fault::SchedulerCrashes(s) => {
                self.schedulers[s].is_up = false;
                self.schedulers[s].cache.clear();
                self.put(mends_after / 2, Event::Mend(fault));
            }
            Fault::WorkerCrashes(w) if self.workers[w].is_up => {
                self.crash_worker(w);
                self.put(mends_after, Event::Mend(fault));
            }
            Fault::WorkerLeaves(w) if self.workers[w].is_up => self.leave(w),
            Fault::WorkerCrashes(_) | Fault::WorkerLeaves(_) => {}
            Fault::WorkerCutOff(w) => {
                self.workers[w].is_cut_off = true;
                self.put(mends_after, Event::Mend(fault));
            }
            Fault::DatabaseAway => {
                self.store.is_away = true;
                self.put(mends_after / 4, Event::Mend(fault));
            }
            Fault::ClockSteps(s, by) => {
                self.schedulers[s].skew += by;
                self.seen.note(if by > 0 { Situation::ClockForward } else { Situation::ClockBack });
            }
            Fault::Edit(dag) => self.edit(dag),
        }
    }

    pub(super) fn mend(&mut self, fault: Fault) {
        match fault {
            Fault::SchedulerCrashes(s) if !self.schedulers[s].is_up => self.start_scheduler(s),
            Fault::WorkerCrashes(w) if !self.workers[w].is_up => self.start_worker(w),
            Fault::WorkerCutOff(w) => self.workers[w].is_cut_off = false,
            Fault::DatabaseAway => self.store.is_away = false,
            Fault::SchedulerCrashes(_)
            | Fault::WorkerCrashes(_)
            | Fault::WorkerLeaves(_)
            | Fault::ClockSteps(..)
            | Fault::Edit(_) => {}
        }
    }

    /// A new version of a DAG, or an old one again.
    fn edit(&mut self, dag: DagNo) {
        let in_flight = self.store.open.iter().any(|&run| self.store.runs[run].dag == dag);
        if in_flight {
            self.seen.note(Situation::EditedInFlight);
        }
        let sizes = [self.store.pools[0].1, self.store.pools[1].1];
        let row = &mut self.store.dags[dag];
        if row.versions.len() > 1 && self.dice.percent(50) {
            row.latest = self.dice.below(row.versions.len());
            self.seen.note(Situation::EditedBack);
        } else {
            let version = random_dag(&mut self.dice, row.id.as_str(), row.versions.len(), sizes);
            row.versions.push(Arc::new(version));
            row.latest = row.versions.len() - 1;
        }
    }

    /// The end of all faults: everybody is there, and everything must come to its end.
    pub(super) fn calm_down(&mut self) {
        self.trace.note(self.since_begin(), &[6], || "all faults stop".to_owned());
        self.is_calm = true;
        self.store.is_away = false;
        for dag in &mut self.store.dags {
            dag.paused = false;
        }
        for s in 0..self.schedulers.len() {
            self.schedulers[s].skew = 0;
            if !self.schedulers[s].is_up {
                self.start_scheduler(s);
            }
        }
        for w in 0..self.workers.len() {
            self.workers[w].is_cut_off = false;
            if !self.workers[w].is_up {
                self.start_worker(w);
            }
        }
        self.put(5 * SECOND, Event::Rescue);
    }

    /// Nobody but a person can help a task whose past has failed: one marks that past as `success`.
    pub(super) fn rescue(&mut self) {
        self.put(5 * SECOND, Event::Rescue);
        for run in self.store.open.clone() {
            let Some(previous) = self.previous(run) else { continue };
            if !self.store.runs[previous].rows.state.is_final() {
                continue;
            }
            let tis = self.past_in_the_way(run, previous);
            if !tis.is_empty() {
                self.seen.note(Situation::RescuedPast);
                self.wish(Wish::Mark { run: previous, tis, state: TaskState::Success });
            }
        }
    }

    /// Instances of the previous run that `run` waits for in vain.
    fn past_in_the_way(&self, run: RunNo, previous: RunNo) -> Vec<TiRef> {
        let value = self.store.load(run);
        if value.state != RunState::Running {
            return Vec::new();
        }
        let row = &self.store.runs[previous];
        let (dag, room) = (&self.store.runs[run].pinned, self.room(0, run));
        let now = self.clock(0);
        let scheduled = value.instances().filter(|(_, it)| it.state == TaskState::Scheduled);
        let mut tis = Vec::new();
        for (ti, _) in scheduled {
            if let Reason::WaitsForPast { task, .. } = why(dag, &value, &room, ti, now)
                && let Some(ix) = row.pinned.find(&task)
            {
                tis.extend(row.rows.tasks[ix].iter(ix).map(|(ti, _)| ti));
            }
        }
        tis.sort_unstable();
        tis.dedup();
        tis
    }
}
