//! The task that holds the runs: it takes orders, steps what they touch, and carries out what is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::aside::Aside;
use super::entry::{Entry, InFlight, Posted, Stage, Value, judge};
use super::lines::{Line, Timers};
use super::load::{Dags, Loaded, load};
use super::patience::{at, patiently, until};
use super::poll::{Asked, Polled, Taken, look};
use super::room::looks_back;
use super::workers::Workers;
use super::{Handout, Order, Refused, Report, Scope, Settings};
use crate::core::ids::{DagId, PoolName, RunKey, Timestamp};
use crate::core::run::{Decision, Input};
use crate::core::state::RunState;
use crate::core::step::step;
use crate::store::{Room, Store, StoreError};

/// How soon a run is looked at again that waits for room which nobody here may give back.
const ROOM_AGAIN: Duration = Duration::from_secs(1);
/// Runs woken by freed slots of a pool.
const WOKEN_MAX: usize = 16;

/// What was done outside of this task.
pub(super) enum Done {
    Loaded(RunKey, Box<Result<Option<Loaded>, StoreError>>),
    Measured(RunKey, Box<Result<Room, StoreError>>),
    Committed(RunKey, Result<i64, StoreError>),
    Polled(Box<Result<Polled, StoreError>>),
}

pub(super) struct Driver {
    pub(super) store: Store,
    pub(super) settings: Settings,
    dags: Dags,
    pub(super) workers: Workers,
    pub(super) runs: BTreeMap<RunKey, Entry>,
    /// Runs to be stepped before the task sleeps again.
    pub(super) dirty: BTreeSet<RunKey>,
    /// Runs with instances that wait for a worker.
    pub(super) waiting: Line,
    /// Runs with instances that wait for room.
    blocked: Line,
    /// Runs whose room is to be measured, and the one that is between its measurement and the answer to its
    /// commit: one at a time, so that no two runs of this process use the same room.
    to_measure: Line,
    measured: Option<RunKey>,
    pub(super) timers: Timers,
    /// Runs that people should know of because they do not get on.
    pub(super) aside: Aside,
    /// Runs that cannot be read or written, by the version at which that was found.
    pub(super) broken: BTreeMap<RunKey, i64>,
    pub(super) paused: BTreeSet<DagId>,
    pub(super) limited: BTreeSet<PoolName>,
    pub(super) work: FuturesUnordered<BoxFuture<'static, Done>>,
    pub(super) polling: bool,
    pub(super) poll_at: Instant,
}

impl Driver {
    pub(super) fn new(store: Store, settings: Settings, dags: Dags, aside: Aside) -> Self {
        Self {
            store: if matches!(settings.scope, Scope::All) { store } else { store.uncounted() },
            settings,
            dags,
            workers: Workers::default(),
            runs: BTreeMap::new(),
            dirty: BTreeSet::new(),
            waiting: Line::default(),
            blocked: Line::default(),
            to_measure: Line::default(),
            measured: None,
            timers: Timers::default(),
            aside,
            broken: BTreeMap::new(),
            paused: BTreeSet::new(),
            limited: BTreeSet::new(),
            work: FuturesUnordered::new(),
            polling: false,
            poll_at: Instant::now(),
        }
    }

    /// Works until every handle is gone and nothing is under way.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Result<(), StoreError> {
        let asked = Asked {
            all: matches!(self.settings.scope, Scope::All),
            queues: BTreeSet::new(),
            overdue: (self.settings.now)(),
        };
        // Limits of pools and pauses are known before the first step.
        let first = patiently(self.settings.tries_max, "the database", || look(&self.store, &asked)).await;
        self.polled(first);
        let mut open = true;
        while open || !self.work.is_empty() {
            let due_in = self.timers.first().map(|at| at.since((self.settings.now)()));
            tokio::select! {
                biased;
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done)?,
                order = orders.recv(), if open => match order {
                    Some(order) => self.take(order),
                    None => open = false,
                },
                () = until(due_in) => self.due(),
                () = at(self.poll_at), if open && !self.polling => self.poll(),
            }
            while let Ok(order) = orders.try_recv() {
                self.take(order);
            }
            self.step_dirty();
        }
        Ok(())
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Adopt { run, dag } => {
                let key = run.birth.key.clone();
                if !self.runs.contains_key(&key) {
                    let value = Value::new(*run, dag);
                    self.runs.insert(key.clone(), Entry::new(Some(value)));
                }
                self.post(key, Posted::tick());
            }
            Order::Input { key, input, reply } => self.post(key, Posted { input, reply, again: false }),
            Order::Report { report: Report { session, key, ti, fence, outcome }, reply } => {
                self.workers.ended(&session);
                self.post(key, Posted { input: Input::Reported { ti, fence, outcome }, reply, again: false });
                self.wake_waiting();
            }
            Order::Undelivered(orphan) => self.taken_from(&orphan, Taken::NeverBegun),
            Order::Follow { key, ended } => {
                self.post(key.clone(), Posted::tick());
                if let Some(entry) = self.runs.get_mut(&key) {
                    entry.follow(ended);
                }
            }
            Order::Enlist { worker, handouts } => {
                self.workers.enlist(worker, handouts);
                self.wake_waiting();
                self.poll_soon();
            }
            Order::Offer { session, free, done } => {
                self.workers.offer(&session, free);
                if done.send(()).is_err() {
                    self.workers.offer(&session, 0);
                }
                self.wake_waiting();
            }
            Order::Dismiss { session } => self.workers.dismiss(&session),
            Order::Poll => self.poll_soon(),
        }
    }

    pub(super) fn post(&mut self, key: RunKey, posted: Posted) {
        self.runs.entry(key.clone()).or_insert_with(|| Entry::new(None)).inbox.push(posted);
        self.dirty.insert(key);
    }

    /// Free slots: runs that wait for some look again, as many as there are slots, in their order.
    pub(super) fn wake_waiting(&mut self) {
        let free = self.workers.free() as usize;
        for key in self.served().take(free).cloned().collect::<Vec<_>>() {
            self.wake(key);
        }
    }

    /// Runs that wait for a worker and that somebody with a free slot serves, in their order.
    pub(super) fn served(&self) -> impl Iterator<Item = &RunKey> {
        let queues = self.workers.free_queues();
        self.waiting.iter().filter(move |key| {
            let value = self.runs.get(*key).and_then(|entry| entry.value.as_deref());
            value.is_none_or(|value| value.run.waits_for_worker(&value.dag, |queue| queues.contains(queue)))
        })
    }

    fn wake(&mut self, key: RunKey) {
        match self.runs.get(&key) {
            Some(entry) if entry.inbox.is_empty() => self.post(key, Posted::tick()),
            Some(_) => drop(self.dirty.insert(key)),
            None => {}
        }
    }

    fn due(&mut self) {
        let now = (self.settings.now)();
        while let Some((at, key)) = self.timers.pop(now) {
            if let Some(entry) = self.runs.get_mut(&key)
                && entry.next_due == Some(at)
            {
                entry.next_due = None;
                self.wake(key);
            }
        }
    }

    /// Begins what every dirty run needs next, those of a better rank first; runs with something under way are
    /// looked at when it is done.
    fn step_dirty(&mut self) {
        loop {
            let dirty = std::mem::take(&mut self.dirty);
            let ranked = dirty.into_iter().filter_map(|key| Some((self.runs.get(&key)?.rank(), key)));
            let mut ready: Vec<_> = ranked.collect();
            ready.sort();
            for (_, key) in ready {
                self.advance(key);
            }
            while self.measured.is_none()
                && let Some(key) = self.to_measure.pop()
            {
                self.advance(key);
            }
            if self.dirty.is_empty() {
                return;
            }
        }
    }

    fn advance(&mut self, key: RunKey) {
        let Some(entry) = self.runs.get(&key) else { return };
        if !entry.is_idle() || entry.inbox.is_empty() || entry.is_set_aside((self.settings.now)()) {
            return;
        }
        let tries = self.settings.tries_max;
        let store = self.store.clone();
        let Some(value) = entry.value.as_deref() else {
            self.enter(&key, Stage::Loading);
            let dags = self.dags.clone();
            self.work.push(Box::pin(async move {
                let what = "a run cannot be loaded";
                let loaded = patiently(tries, what, || load(&store, &dags, &key)).await;
                Done::Loaded(key, Box::new(loaded))
            }));
            return;
        };
        match self.asks_room(value) {
            None => self.step_run(&key, Room::default()),
            Some(_) if self.measured.is_some() => self.to_measure.set(entry.rank(), &key, true),
            Some(asked) => {
                self.measured = Some(key.clone());
                self.enter(&key, Stage::Measuring);
                self.work.push(Box::pin(async move {
                    let what = "room cannot be measured";
                    let room = patiently(tries, what, || store.room(&key, asked)).await;
                    Done::Measured(key, Box::new(room))
                }));
            }
        }
    }

    fn enter(&mut self, key: &RunKey, stage: Stage) {
        self.runs.get_mut(key).expect("it was looked up before").stage = stage;
    }

    fn done(&mut self, done: Done) -> Result<(), StoreError> {
        match done {
            Done::Loaded(key, loaded) => self.loaded(&key, *loaded),
            Done::Measured(key, room) => {
                self.enter(&key, Stage::Idle);
                match *room {
                    Ok(room) => self.step_run(&key, room),
                    Err(error) => self.give_up(&key, &error)?,
                }
                Ok(())
            }
            Done::Committed(key, result) => self.committed(&key, result),
            Done::Polled(polled) => {
                self.polled(*polled);
                Ok(())
            }
        }
    }

    fn loaded(&mut self, key: &RunKey, loaded: Result<Option<Loaded>, StoreError>) -> Result<(), StoreError> {
        self.enter(key, Stage::Idle);
        let loaded = match loaded {
            Err(error) => return self.give_up(key, &error),
            Ok(loaded) => loaded,
        };
        let Some(loaded) = loaded else {
            if let Some(entry) = self.drop_entry(key) {
                for posted in entry.inbox {
                    posted.answer(Err(Refused::NoSuchRun));
                }
            }
            return Ok(());
        };
        let value = Value::of(loaded);
        let entry = self.runs.get_mut(key).expect("it was looked up above");
        for claim in std::mem::take(&mut entry.unsure) {
            if value.stands(&claim) {
                self.workers.take(&claim.session);
                self.workers.hand_out(&claim.session, Handout::Begin(value.assignment(&claim)));
            }
        }
        for (ti, fence) in entry.lost_claims(&value) {
            self.workers.stop(key, ti, fence);
        }
        entry.put(value);
        self.dirty.insert(key.clone());
        Ok(())
    }

    pub(super) fn drop_entry(&mut self, key: &RunKey) -> Option<Entry> {
        let entry = self.runs.remove(key)?;
        for line in [&mut self.waiting, &mut self.blocked, &mut self.to_measure] {
            line.set(entry.rank(), key, false);
        }
        Some(entry)
    }

    /// The run is not between measurement and commit any more.
    pub(super) fn release(&mut self, key: &RunKey) {
        if self.measured.as_ref() == Some(key) {
            self.measured = None;
        }
    }

    fn step_run(&mut self, key: &RunKey, room: Room) {
        let now = (self.settings.now)();
        let room = self.capacity(key, room);
        let entry = self.runs.get_mut(key).expect("it was looked up above");
        let value = entry.value.as_deref_mut().expect("only a loaded run is stepped");
        let posted = std::mem::take(&mut entry.inbox);
        let inputs: Vec<Input> = posted.iter().map(|posted| posted.input.clone()).collect();
        let mut decision = step(&value.dag, &mut value.run, &inputs, &room, now);
        for claim in &decision.claims {
            self.workers.take(&claim.session);
        }
        if value.run.waits_for_room() {
            let again = now.plus(ROOM_AGAIN);
            decision.next_due = Some(decision.next_due.map_or(again, |at| at.min(again)));
        }
        entry.next_due = decision.next_due;
        if let Some(at) = decision.next_due {
            self.timers.set(at, key);
        }
        let (for_worker, for_room) =
            (value.run.waits_for_worker(&value.dag, |_| true), value.run.waits_for_room());
        self.waiting.set(entry.rank(), key, for_worker);
        self.blocked.set(entry.rank(), key, for_room);
        let frees = decision.changes.iter().any(|c| c.from.holds_slots() && !c.to.state.holds_slots());
        if decision.is_empty() {
            let again = judge(entry, &decision.refused, posted, false);
            self.release(key);
            self.goes_on(key);
            self.rest(key, again);
        } else {
            self.commit(key, posted, decision, now);
        }
        if frees {
            for key in self.blocked.front(WOKEN_MAX) {
                self.wake(key);
            }
        }
    }

    fn commit(&mut self, key: &RunKey, posted: Vec<Posted>, decision: Decision, now: Timestamp) {
        let entry = self.runs.get_mut(key).expect("it was stepped");
        let value = entry.value.as_deref().expect("it was stepped");
        let (dag, version) = (value.dag.clone(), value.run.version);
        let decision = Arc::new(decision);
        entry.stage = Stage::Committing(InFlight { posted, decision: decision.clone(), at: now });
        let (store, key, tries) = (self.store.clone(), key.clone(), self.settings.tries_max);
        self.work.push(Box::pin(async move {
            let commit = || store.commit(&dag, &key, version, &decision, now);
            let committed = patiently(tries, "a commit failed", commit).await;
            Done::Committed(key, committed)
        }));
    }

    /// Nothing followed from a step. Refusals judged on a value that may be old are judged again on a fresh one.
    fn rest(&mut self, key: &RunKey, again: bool) {
        let Some(entry) = self.runs.get_mut(key) else { return };
        if again {
            entry.forget();
            self.dirty.insert(key.clone());
        } else if let Some(state) = entry.value.as_deref().map(|value| value.run.state)
            && state.is_final()
        {
            entry.tell_end(state);
        }
        self.drop_spare(key);
    }

    fn drop_spare(&mut self, key: &RunKey) {
        if self.runs.get(key).is_some_and(Entry::is_spare) {
            self.drop_entry(key);
        }
    }

    fn committed(&mut self, key: &RunKey, result: Result<i64, StoreError>) -> Result<(), StoreError> {
        let Some(entry) = self.runs.get_mut(key) else { return Ok(()) };
        let Stage::Committing(InFlight { posted, decision, at }) =
            std::mem::replace(&mut entry.stage, Stage::Idle)
        else {
            return Ok(());
        };
        match result {
            Ok(version) => {
                if let Some(value) = entry.value.as_deref_mut() {
                    value.run.version = version;
                }
                judge(entry, &decision.refused, posted, true);
                self.release(key);
                self.goes_on(key);
                self.carry_out(key, &decision, at);
                Ok(())
            }
            Err(StoreError::Conflict(why)) => {
                self.conflicted(key, InFlight { posted, decision, at }, &why);
                Ok(())
            }
            Err(error) => {
                entry.inbox.splice(0..0, posted);
                self.give_up(key, &error)
            }
        }
    }

    /// What was decided is durable: let it happen.
    fn carry_out(&mut self, key: &RunKey, decision: &Decision, at: Timestamp) {
        let entry = self.runs.get_mut(key).expect("only a known run commits");
        let value = entry.value.as_deref().expect("it was stepped");
        if !decision.outputs.is_empty() {
            let mut outputs = value.outputs.lock().expect("no holder of the outputs panics");
            for (ti, left) in &decision.outputs {
                outputs.insert(*ti, left.json.clone());
            }
        }
        for &(ti, fence) in &decision.revoked {
            self.workers.stop(key, ti, fence);
        }
        for claim in &decision.claims {
            self.workers.hand_out(&claim.session, Handout::Begin(value.assignment(claim)));
        }
        if let Some(watch) = &self.settings.watch {
            watch(&value.dag, &value.birth, decision, at);
        }
        let state = value.run.state;
        // Where tasks depend on the run before, the beginning of one lets the next begin.
        let lets_others = |to| to != RunState::Running || looks_back(&value.dag);
        let lets_others = decision.run_change.as_ref().is_some_and(|change| lets_others(change.to));
        if !entry.inbox.is_empty() {
            self.dirty.insert(key.clone());
        } else if state.is_final() {
            entry.tell_end(state);
        }
        if lets_others {
            if matches!(self.settings.scope, Scope::All) {
                self.poll_soon();
            } else {
                self.wake_all();
            }
        }
        self.drop_spare(key);
    }

    /// A run has moved that others of this process may wait for.
    fn wake_all(&mut self) {
        for key in self.runs.keys().cloned().collect::<Vec<_>>() {
            self.wake(key);
        }
    }
}
