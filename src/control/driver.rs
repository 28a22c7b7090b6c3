//! The task that owns every active run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::active::{Active, InFlight};
use super::room::{self, Held};
use super::{Assignment, Handout, Order, Report, Settings};
use crate::core::dag::Dag;
use crate::core::ids::{RunKey, Timestamp};
use crate::core::run::{Decision, Input, Instances, Run, TiRef, UNMAPPED};
use crate::core::state::RunState;
use crate::core::step::step;
use crate::store::{Store, StoreError};

/// How often a commit is tried again while the database cannot be reached, with growing waits.
const COMMIT_TRIES_MAX: u32 = 8;
/// The first of these waits.
const COMMIT_WAIT: Duration = Duration::from_millis(100);

/// How a commit ended: the run, and its new version.
type Committed = (RunKey, Result<i64, StoreError>);

pub(super) struct Driver {
    store: Store,
    settings: Settings,
    handouts: mpsc::UnboundedSender<Handout>,
    runs: BTreeMap<RunKey, Active>,
    /// Runs to be stepped before the task sleeps again.
    dirty: BTreeSet<RunKey>,
    slots_free: u32,
    commits: FuturesUnordered<BoxFuture<'static, Committed>>,
}

impl Driver {
    pub(super) fn new(store: Store, settings: Settings, handouts: mpsc::UnboundedSender<Handout>) -> Self {
        Self {
            store,
            slots_free: settings.slots,
            settings,
            handouts,
            runs: BTreeMap::new(),
            dirty: BTreeSet::new(),
            commits: FuturesUnordered::new(),
        }
    }

    /// Works until every handle is gone and nothing is under way.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) -> Result<(), StoreError> {
        let mut open = true;
        while open || !self.commits.is_empty() {
            let due_in = self.due_in();
            tokio::select! {
                biased;
                Some((key, committed)) = self.commits.next(), if !self.commits.is_empty() => {
                    self.committed(&key, committed).await?;
                }
                order = orders.recv(), if open => match order {
                    Some(order) => self.take(order),
                    None => open = false,
                },
                () = until(due_in) => self.due(),
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
            Order::Drive { run, dag, outputs, ended } => self.adopt(*run, dag, outputs, Input::Tick, ended),
            Order::Rerun { run, dag, ended } => {
                let tis = all_instances(&run);
                self.adopt(*run, dag, BTreeMap::new(), Input::Clear { tis }, ended);
            }
            Order::Report(Report { key, ti, fence, outcome }) => {
                self.slots_free += 1;
                self.put(&key, Input::Reported { ti, fence, outcome });
                self.wake_waiting();
            }
            Order::CancelAll => {
                let keys: Vec<_> = self.runs.keys().cloned().collect();
                for key in keys {
                    self.put(&key, Input::Cancel);
                }
            }
        }
    }

    fn adopt(
        &mut self,
        run: Run,
        dag: Arc<Dag>,
        outputs: BTreeMap<TiRef, Arc<str>>,
        first: Input,
        ended: oneshot::Sender<RunState>,
    ) {
        let key = run.birth.key.clone();
        if let Some(active) = self.runs.get_mut(&key) {
            active.also_tell(ended);
            return;
        }
        let lost = lost_instances(&run);
        let mut active = Active::new(run, dag, outputs, ended);
        active.inbox.extend(lost);
        active.inbox.push(first);
        self.runs.insert(key.clone(), active);
        self.dirty.insert(key);
    }

    fn put(&mut self, key: &RunKey, input: Input) {
        if let Some(active) = self.runs.get_mut(key) {
            active.inbox.push(input);
            self.dirty.insert(key.clone());
        }
    }

    /// Room was given back: runs that wait for some look again.
    fn wake_waiting(&mut self) {
        for (key, active) in &mut self.runs {
            let waits = (active.held.queued > 0 && self.slots_free > 0)
                || active.held.scheduled > 0
                || active.run.state == RunState::Queued;
            if waits && self.dirty.insert(key.clone()) {
                active.inbox.push(Input::Tick);
            }
        }
    }

    fn due_in(&self) -> Option<Duration> {
        let first = self.runs.values().filter(|a| a.in_flight.is_none()).filter_map(|a| a.next_due).min()?;
        Some(first.since((self.settings.now)()))
    }

    fn due(&mut self) {
        let now = (self.settings.now)();
        for (key, active) in &mut self.runs {
            if active.in_flight.is_none() && active.next_due.is_some_and(|at| at <= now) {
                active.next_due = None;
                active.inbox.push(Input::Tick);
                self.dirty.insert(key.clone());
            }
        }
    }

    /// Steps every dirty run whose last commit has been answered; the others stay dirty.
    fn step_dirty(&mut self) {
        let keys: Vec<_> = self.dirty.iter().cloned().collect();
        for key in keys {
            let Some(active) = self.runs.get(&key) else {
                self.dirty.remove(&key);
                continue;
            };
            if active.in_flight.is_none() {
                self.dirty.remove(&key);
                self.step_run(&key);
            }
        }
    }

    fn step_run(&mut self, key: &RunKey) {
        let now = (self.settings.now)();
        let own = &self.runs[key];
        let others = self.runs.iter().filter(|(k, _)| *k != key).map(|(k, a)| (&k.dag_id, &a.held));
        let room = room::capacity(&self.settings, self.slots_free, &key.dag_id, others, &own.held);
        let active = self.runs.get_mut(key).expect("it was looked up above");
        let inputs = std::mem::take(&mut active.inbox);
        let decision = step(&active.dag, &mut active.run, &inputs, &room, now);
        for (place, refusal) in &decision.refused {
            tracing::debug!(run = %key.run_id, input = ?inputs[*place], %refusal, "input refused");
        }
        active.next_due = decision.next_due;
        self.slots_free -= u32::try_from(decision.claims.len()).expect("claims are bounded by free slots");
        let freed = active.held.follow(&active.dag, &decision);
        if decision.is_empty() {
            if active.run.state.is_final() {
                self.retire(key);
            }
        } else {
            let decision = Arc::new(decision);
            active.in_flight = Some(InFlight { inputs, decision: decision.clone(), at: now });
            let commit = commit(
                self.store.clone(),
                active.dag.clone(),
                key.clone(),
                active.run.version,
                decision,
                now,
            );
            self.commits.push(Box::pin(commit));
        }
        if freed {
            self.wake_waiting();
        }
    }

    async fn committed(&mut self, key: &RunKey, result: Result<i64, StoreError>) -> Result<(), StoreError> {
        let Some(active) = self.runs.get_mut(key) else { return Ok(()) };
        let Some(InFlight { inputs, decision, at }) = active.in_flight.take() else { return Ok(()) };
        match result {
            Ok(version) => {
                active.run.version = version;
                self.carry_out(key, &decision, at);
                Ok(())
            }
            Err(StoreError::Conflict(why)) => {
                tracing::info!(run = %key.run_id, why, "another writer was faster: loading the run again");
                self.slots_free += u32::try_from(decision.claims.len()).expect("claims are bounded");
                let dag = active.dag.clone();
                let Some(run) = self.store.load_run(key, &dag).await? else {
                    self.runs.remove(key);
                    return Ok(());
                };
                let active = self.runs.get_mut(key).expect("it was there before the load");
                active.held = Held::of(&dag, &run);
                active.run = run;
                let newer = std::mem::replace(&mut active.inbox, inputs);
                active.inbox.extend(newer);
                self.dirty.insert(key.clone());
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What was decided is durable: let it happen.
    fn carry_out(&mut self, key: &RunKey, decision: &Decision, at: Timestamp) {
        let active = self.runs.get_mut(key).expect("only a driven run commits");
        if !decision.outputs.is_empty() {
            let mut outputs = active.outputs.lock().expect("no holder of the outputs panics");
            for (ti, left) in &decision.outputs {
                outputs.insert(*ti, left.json.clone());
            }
        }
        for &(ti, fence) in &decision.revoked {
            hand_out(&self.handouts, Handout::Stop { key: key.clone(), ti, fence });
        }
        for claim in &decision.claims {
            let assignment = Assignment {
                dag: active.dag.clone(),
                birth: active.birth.clone(),
                ti: claim.ti,
                fence: claim.fence,
                try_number: claim.try_number,
                outputs: active.outputs.clone(),
            };
            hand_out(&self.handouts, Handout::Begin(assignment));
        }
        if let Some(watch) = &self.settings.watch {
            watch(&active.dag, &active.birth, decision, at);
        }
        if active.run.state.is_final() && active.inbox.is_empty() {
            self.retire(key);
        }
    }

    fn retire(&mut self, key: &RunKey) {
        if let Some(mut active) = self.runs.remove(key) {
            active.tell_end();
        }
        self.wake_waiting();
    }
}

/// The worker lives as long as the process; if it is gone, so are we.
fn hand_out(handouts: &mpsc::UnboundedSender<Handout>, handout: Handout) {
    if handouts.send(handout).is_err() {
        tracing::error!("the worker of this process is gone");
    }
}

/// Commits, with patience for a database that cannot be reached for a moment.
async fn commit(
    store: Store,
    dag: Arc<Dag>,
    key: RunKey,
    version: i64,
    decision: Arc<Decision>,
    now: Timestamp,
) -> Committed {
    let mut wait = COMMIT_WAIT;
    for _ in 1..COMMIT_TRIES_MAX {
        match store.commit(&dag, &key, version, &decision, now).await {
            Err(StoreError::Environment(why) | StoreError::Busy(why)) => {
                tracing::warn!(run = %key.run_id, why, "a commit failed; trying again");
                until(Some(wait)).await;
                wait *= 2;
            }
            answered => return (key, answered),
        }
    }
    let last = store.commit(&dag, &key, version, &decision, now).await;
    (key, last)
}

/// Waits for a span; for ever without one.
async fn until(span: Option<Duration>) {
    match span {
        Some(span) => {
            // The timer is the event that is waited for.
            drop(tokio::time::timeout(span, std::future::pending::<()>()).await);
        }
        None => std::future::pending().await,
    }
}

/// Instances that an earlier process of this home was running: it is dead, or we could not have opened it.
fn lost_instances(run: &Run) -> Vec<Input> {
    use crate::core::state::TaskState;
    each_instance(run)
        .filter(|(_, instance)| instance.state == TaskState::Running)
        .map(|(ti, instance)| Input::Lost { ti, fence: instance.fence })
        .collect()
}

fn all_instances(run: &Run) -> Vec<TiRef> {
    each_instance(run).map(|(ti, _)| ti).collect()
}

fn each_instance(run: &Run) -> impl Iterator<Item = (TiRef, &crate::core::run::TaskInstance)> {
    run.tasks.iter().enumerate().flat_map(|(task, instances)| {
        let all: Vec<_> = match instances {
            Instances::One(one) | Instances::Unexpanded(one) => vec![(UNMAPPED, one)],
            Instances::Mapped(many) => (0..).zip(many).collect(),
        };
        all.into_iter().map(move |(map_index, instance)| (TiRef { task, map_index }, instance))
    })
}
