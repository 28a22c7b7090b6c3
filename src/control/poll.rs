//! What the database says that no order has told: runs that are due, may start, or wait for a free worker,
//! also those that other processes left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Scope;
use super::driver::{Done, Driver};
use super::entry::{Entry, Posted};
use crate::core::ids::{DagId, PoolName, QueueName, RunKey, Timestamp};
use crate::core::run::{Input, Outcome, TiRef};
use crate::core::state::RunState;
use crate::store::{Orphan, Store, StoreError, Wanted};

/// Runs of each kind that one look brings.
const RUNS_MAX: u32 = 512;
/// Instances of lost workers that one look brings.
const ORPHANS_MAX: u32 = 1024;
/// How long after its time a run is taken up that another process may be about to take up.
const OVERDUE: Duration = Duration::from_secs(1);

/// One look.
#[derive(Default)]
pub(super) struct Polled {
    /// Runs whose time has come.
    due: Vec<Wanted>,
    /// Queued runs that have a place, in order.
    startable: Vec<Wanted>,
    /// Runs with instances that a free worker of this process may take, in order.
    claimable: Vec<Wanted>,
    /// All `running` runs, with their versions.
    running: BTreeMap<RunKey, i64>,
    /// Instances whose worker is gone.
    orphans: Vec<Orphan>,
    /// DAGs that admit nothing.
    pub(super) paused: BTreeSet<DagId>,
    /// Pools with a limit.
    pub(super) limited: BTreeSet<PoolName>,
}

/// Why an instance is taken from the worker that has it.
#[derive(Clone, Copy)]
pub(super) enum Taken {
    /// The worker is gone.
    WorkerLost,
    /// The worker lives and never got it.
    NeverBegun,
}

/// What to look for.
pub(super) struct Asked {
    /// All runs, or only those that are here already.
    pub(super) all: bool,
    pub(super) queues: BTreeSet<QueueName>,
    pub(super) overdue: Timestamp,
}

/// Looks, with the database's own clock where leases are judged.
pub(super) async fn look(store: &Store, asked: &Asked) -> Result<Polled, StoreError> {
    let now = store.now().await?;
    let mut polled = Polled { orphans: store.expired(now, ORPHANS_MAX).await?, ..Polled::default() };
    let running = store.running_runs().await?;
    polled.running.extend(running.into_iter().map(|wanted| (wanted.key, wanted.version)));
    if asked.all {
        polled.due = store.due_runs(asked.overdue, RUNS_MAX).await?;
        polled.startable = store.startable_runs(RUNS_MAX).await?;
        polled.claimable = store.claimable_runs(&asked.queues, RUNS_MAX).await?;
        polled.paused = store.paused().await?.into_iter().collect();
        polled.limited = store.pools().await?.into_keys().collect();
    }
    Ok(polled)
}

impl Driver {
    pub(super) fn poll_soon(&mut self) {
        self.poll_at = Instant::now();
    }

    pub(super) fn poll(&mut self) {
        self.polling = true;
        let asked = Asked {
            all: matches!(self.settings.scope, Scope::All),
            queues: self.workers.free_queues(),
            overdue: (self.settings.now)().minus(OVERDUE),
        };
        let store = self.store.clone();
        self.work.push(Box::pin(async move { Done::Polled(Box::new(look(&store, &asked).await)) }));
    }

    pub(super) fn polled(&mut self, polled: Result<Polled, StoreError>) {
        self.polling = false;
        self.poll_at = Instant::now() + self.settings.poll_every;
        let polled = match polled {
            Ok(polled) => polled,
            Err(error) => {
                tracing::warn!(%error, "the database cannot be read; trying again");
                return;
            }
        };
        (self.paused, self.limited) = (polled.paused, polled.limited);
        let now = (self.settings.now)();
        for wanted in polled.due {
            self.take_up(wanted, |entry| entry.next_due.is_some_and(|at| at > now));
        }
        for wanted in polled.startable {
            self.take_up(wanted, |entry| !entry.inbox.is_empty());
        }
        for wanted in polled.claimable {
            self.take_up(wanted, |_| true);
        }
        self.drop_old(&polled.running);
        for orphan in &polled.orphans {
            if matches!(self.settings.scope, Scope::All) || self.runs.contains_key(&orphan.run_key) {
                self.taken_from(orphan, Taken::WorkerLost);
            }
        }
        self.wake_waiting();
    }

    /// Loads again what another process has moved: what is `running` here must be so there, at that version.
    fn drop_old(&mut self, running: &BTreeMap<RunKey, i64>) {
        let old = |(key, entry): (&RunKey, &Entry)| {
            let run = &entry.value.as_deref()?.run;
            let moved = entry.is_idle()
                && match running.get(key) {
                    Some(&version) => run.version < version,
                    None => run.state == RunState::Running,
                };
            moved.then(|| key.clone())
        };
        for key in self.runs.iter().filter_map(old).collect::<Vec<_>>() {
            self.runs.get_mut(&key).expect("it was found above").forget();
            self.post(key, Posted::tick());
        }
    }

    /// Has a run stepped, after a load if the value here is old. Nothing happens if a step is about to come, or if
    /// the value here is not old and `cared_for` says so.
    fn take_up(&mut self, wanted: Wanted, cared_for: impl Fn(&Entry) -> bool) {
        if self.broken.get(&wanted.key) == Some(&wanted.version) {
            return;
        }
        if let Some(entry) = self.runs.get_mut(&wanted.key) {
            if !entry.is_idle() || entry.is_set_aside((self.settings.now)()) {
                return;
            }
            match entry.value.as_deref().map(|value| value.run.version) {
                Some(version) if version == wanted.version && cared_for(entry) => return,
                Some(version) if version < wanted.version => entry.forget(),
                Some(_) | None => {}
            }
        }
        self.post(wanted.key, Posted::tick());
    }

    /// The instance is named by its task, so the run is loaded first if it is not here.
    pub(super) fn taken_from(&mut self, orphan: &Orphan, taken: Taken) {
        let key = &orphan.run_key;
        let Some(value) = self.runs.get(key).and_then(|entry| entry.value.as_deref()) else {
            // The next look brings the orphan again, and the value is here then.
            return self.post(key.clone(), Posted::tick());
        };
        let Some(task) = value.dag.find(&orphan.task_id) else { return };
        let ti = TiRef { task, map_index: orphan.map_index };
        let fence = orphan.fence;
        let (input, what) = match taken {
            Taken::WorkerLost => (Input::Lost { ti, fence }, "a worker was lost"),
            Taken::NeverBegun => {
                (Input::Reported { ti, fence, outcome: Outcome::Interrupted }, "a hand-out never arrived")
            }
        };
        let entry = &self.runs[key];
        if entry.is_idle() && !entry.inbox.iter().any(|posted| posted.input == input) {
            tracing::warn!(run = %key.run_id, task = %orphan.task_id, session = %orphan.session, "{what}");
            self.post(key.clone(), Posted { input, reply: None, again: false });
        }
    }
}
