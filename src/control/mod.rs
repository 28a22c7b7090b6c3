//! The single door to a run. People, schedules and workers come here; one task holds the runs it knows as
//! values, steps them, commits what follows, and hands claims to the workers enlisted with it.
//!
//! Nobody owns a run. Any process may step any run, because a commit is refused unless the run is still at the
//! version that was stepped; then it is loaded and stepped again. So several schedulers need no leader.
//!
//! One commit per hop: all inputs that wait for a run are applied in one step, and a success, the queueing of
//! its successors and their claim are one transaction. While a commit is under way the next inputs gather, so
//! that a busy run commits in batches by itself.
//!
//! This room decides nothing about states: [`crate::core::step`] does. It must not know what a task does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::core::dag::Dag;
use crate::core::ids::{Fence, PoolName, QueueName, RunKey, SessionId, Timestamp};
use crate::core::run::{Decision, Input, Outcome, Refusal, Run, RunBirth, TiRef};
use crate::core::state::RunState;
use crate::store::{Created, Orphan, Store, StoreError};

mod aside;
pub mod ask;
pub mod backfill;
mod driver;
mod entry;
mod lines;
mod load;
mod logs;
mod newest;
mod patience;
mod poll;
pub mod receive;
mod retention;
mod room;
mod triggers;
mod waits;
pub mod wire;
mod workers;

pub use load::{Dags, Loaded, load};
pub use logs::{LOG_BYTES_MAX, log_folder, log_path, put_piece, read_piece};
pub use retention::prune;
pub use triggers::triggers;
pub use waits::{Waits, waits};

/// Orders that may wait.
const ORDERS_MAX: usize = 4096;

/// What attempts of a run have left, for the templates of later ones: JSON text by instance.
pub type SharedOutputs = Arc<Mutex<BTreeMap<TiRef, Arc<str>>>>;

/// An attempt to be made.
#[derive(Clone)]
pub struct Assignment {
    /// The DAG version of the run.
    pub dag: Arc<Dag>,
    /// The run.
    pub birth: Arc<RunBirth>,
    /// The instance.
    pub ti: TiRef,
    /// The claim.
    pub fence: Fence,
    /// The attempt, from 1.
    pub try_number: u32,
    /// What others left.
    pub outputs: SharedOutputs,
    /// The events that started the run, as [`triggers()`] says them; JSON text or nothing.
    pub triggers: Arc<str>,
}

/// Work for a worker.
pub enum Handout {
    /// Begin an attempt; exactly one [`Report`] must follow.
    Begin(Assignment),
    /// Stop an attempt, if it is yours: its fence is void. Its report may still follow, and is refused.
    Stop {
        /// The run.
        key: RunKey,
        /// The instance.
        ti: TiRef,
        /// The claim.
        fence: Fence,
    },
}

/// An attempt has ended.
#[derive(Debug)]
pub struct Report {
    /// Who made it.
    pub session: SessionId,
    /// The run.
    pub key: RunKey,
    /// The instance.
    pub ti: TiRef,
    /// The claim.
    pub fence: Fence,
    /// How.
    pub outcome: Outcome,
}

/// A worker that takes hand-outs from this process.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its session, which is open in the store.
    pub session: SessionId,
    /// The queues it serves.
    pub queues: Vec<QueueName>,
    /// Attempts it can take now.
    pub free: u32,
    /// Whether its slots are counted here: a report gives one back. A worker elsewhere says by
    /// [`Control::offer`] how many it has.
    pub counted: bool,
}

/// Why something asked of a run was not done. Nothing has changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// The run does not take it as it stands.
    #[error("{0}")]
    Input(Refusal),
    /// There is no such run.
    #[error("there is no such run")]
    NoSuchRun,
    /// It could not be read or written.
    #[error("{0}")]
    Store(StoreError),
    /// The process is ending.
    #[error("the scheduler is stopping")]
    Stopping,
}

type Reply = oneshot::Sender<Result<(), Refused>>;

/// What is asked of the one task that holds the runs.
pub(crate) enum Order {
    /// A run was created here.
    Adopt { run: Box<Run>, dag: Arc<Dag> },
    /// Something happened to a run.
    Input { key: RunKey, input: Input, reply: Option<Reply> },
    /// An attempt has ended.
    Report { report: Report, reply: Option<Reply> },
    /// A hand-out never reached its worker.
    Undelivered(Orphan),
    /// Tell when the run is final.
    Follow { key: RunKey, ended: oneshot::Sender<RunState> },
    /// A worker takes hand-outs from now on.
    Enlist { worker: Worker, handouts: mpsc::UnboundedSender<Handout> },
    /// A worker elsewhere has so many free slots now.
    Offer { session: SessionId, free: u32, done: oneshot::Sender<()> },
    /// A worker takes no more hand-outs.
    Dismiss { session: SessionId },
    /// Look into the database now.
    Poll,
}

/// Which runs a process works on.
pub enum Scope {
    /// All there are, with every other process that does; limits are counted in the database.
    All,
    /// Those that it was given. Limits are counted among them alone: what a dead process left unfinished
    /// does not stand in their way.
    Own {
        /// Pools with a limit: slots by name.
        pools: BTreeMap<PoolName, u32>,
    },
}

/// What is fixed while the process lives.
pub struct Settings {
    /// Reads the clock.
    pub now: fn() -> Timestamp,
    /// Which runs this process works on.
    pub scope: Scope,
    /// How often to look into the database for what other processes did or left undone.
    pub poll_every: Duration,
    /// Tries of a write while the database cannot be reached; without end if absent.
    pub tries_max: Option<u32>,
    /// Is shown every committed decision, in order per run.
    pub watch: Option<Watch>,
}

/// Is shown every committed decision; must return quickly.
pub type Watch = Box<dyn Fn(&Dag, &RunBirth, &Decision, Timestamp) + Send + Sync>;

/// A handle to the one task that holds the runs.
#[derive(Clone)]
pub struct Control {
    orders: mpsc::Sender<Order>,
    store: Store,
    dags: Dags,
    aside: aside::Aside,
}

/// Starts the task that holds the runs. It ends when every handle is gone, or with the error that kept it
/// from writing.
#[must_use]
pub fn start(store: Store, settings: Settings) -> (Control, tokio::task::JoinHandle<Result<(), StoreError>>) {
    let (orders, inbox) = mpsc::channel(ORDERS_MAX);
    let dags = Dags::default();
    let aside = aside::Aside::default();
    let driver = driver::Driver::new(store.clone(), settings, dags.clone(), aside.clone());
    (Control { orders, store, dags, aside }, tokio::spawn(driver.run(inbox)))
}

impl Control {
    /// The database behind the door, for reading.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// DAG versions that were read already.
    #[must_use]
    pub fn dags(&self) -> &Dags {
        &self.dags
    }

    /// Runs that this process cannot read or write, each with the reason: it tries again from time to time, or waits
    /// for somebody to change them, and goes on with all others.
    #[must_use]
    pub fn set_aside(&self) -> Vec<(RunKey, String)> {
        self.aside.all()
    }

    /// Creates a run and begins to work on it.
    ///
    /// # Errors
    /// As [`Store::create_run`].
    pub async fn create(&self, birth: &RunBirth, dag: &Arc<Dag>) -> Result<Created, StoreError> {
        self.dags.put(dag.clone());
        let created = self.store.create_run(birth, dag).await?;
        if let Created::New(run) = &created {
            self.send(Order::Adopt { run: Box::new(run.clone()), dag: dag.clone() }).await;
        }
        Ok(created)
    }

    /// Applies `input` to a run; answers once what follows is committed.
    ///
    /// # Errors
    /// [`Refused`], and nothing has changed.
    pub async fn apply(&self, key: RunKey, input: Input) -> Result<(), Refused> {
        self.ask(|reply| Order::Input { key, input, reply: Some(reply) }).await
    }

    /// Has a run looked at soon.
    pub async fn wake(&self, key: RunKey) {
        self.send(Order::Input { key, input: Input::Tick, reply: None }).await;
    }

    /// Says how an attempt ended; answers once it is committed. The same report again is no error.
    ///
    /// # Errors
    /// [`Refused`] if the claim was given up meanwhile: the outcome does not count.
    pub async fn report(&self, report: Report) -> Result<(), Refused> {
        match self.ask(|reply| Order::Report { report, reply: Some(reply) }).await {
            Err(Refused::Input(Refusal::AlreadyTaken)) => Ok(()),
            answer => answer,
        }
    }

    /// Says that a hand-out never reached its worker, which lives: it is handed out again, and charged to nobody.
    pub async fn undelivered(&self, orphan: Orphan) {
        self.send(Order::Undelivered(orphan)).await;
    }

    /// Learns the state in which a run ends: at once if it has. The sender is dropped without a state if the
    /// run cannot be read.
    pub async fn follow(&self, key: RunKey) -> oneshot::Receiver<RunState> {
        let (ended, end) = oneshot::channel();
        self.send(Order::Follow { key, ended }).await;
        end
    }

    /// A worker takes hand-outs from now on.
    pub async fn enlist(&self, worker: Worker) -> mpsc::UnboundedReceiver<Handout> {
        let (handouts, inbox) = mpsc::unbounded_channel();
        self.send(Order::Enlist { worker, handouts }).await;
        inbox
    }

    /// Says how many attempts a worker elsewhere can take now, beyond the hand-outs it has not fetched yet.
    /// When this returns, nothing more is handed to it than was offered.
    pub async fn offer(&self, session: &SessionId, free: u32) {
        let (done, known) = oneshot::channel();
        self.send(Order::Offer { session: session.clone(), free, done }).await;
        if known.await.is_err() {
            tracing::debug!(%session, "an offer came after the end");
        }
    }

    /// A worker takes no more hand-outs.
    pub async fn dismiss(&self, session: &SessionId) {
        self.send(Order::Dismiss { session: session.clone() }).await;
    }

    /// Looks into the database now: something was written there by another way.
    pub async fn poll(&self) {
        self.send(Order::Poll).await;
    }

    async fn ask(&self, order: impl FnOnce(Reply) -> Order) -> Result<(), Refused> {
        let (reply, answer) = oneshot::channel();
        self.send(order(reply)).await;
        answer.await.unwrap_or(Err(Refused::Stopping))
    }

    /// The task that holds the runs outlives its handles unless the store failed; then its join handle
    /// carries the error, and an order more or less changes nothing.
    async fn send(&self, order: Order) {
        if self.orders.send(order).await.is_err() {
            tracing::debug!("an order came after the end");
        }
    }
}
