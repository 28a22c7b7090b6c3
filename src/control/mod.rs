//! The single door to a run. People and workers send [`Order`]s; one task owns every active [`Run`] as a
//! value, steps it, commits what follows, and hands claims to the worker of this process.
//!
//! One commit per hop: all reports that wait for a run are applied in one step, and a success, the
//! queueing of its successors and their claim are one transaction. While a commit is under way the next
//! reports gather, so that a busy run commits in batches by itself.
//!
//! This room decides nothing about states: [`crate::core::step`] does. It must not know what a task does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use crate::core::dag::Dag;
use crate::core::ids::{Fence, PoolName, QueueName, RunKey, SessionId, Timestamp};
use crate::core::run::{Decision, Outcome, Run, RunBirth, TiRef};
use crate::core::state::RunState;
use crate::store::{Store, StoreError};

mod active;
mod driver;
mod room;

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
}

/// Work for the worker of this process.
pub enum Handout {
    /// Begin an attempt; exactly one [`Order::Report`] must follow.
    Begin(Assignment),
    /// Stop an attempt: its fence is void. Its report still follows.
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
    /// The run.
    pub key: RunKey,
    /// The instance.
    pub ti: TiRef,
    /// The claim.
    pub fence: Fence,
    /// How.
    pub outcome: Outcome,
}

/// What is asked of the one task that owns the runs.
pub(crate) enum Order {
    /// Drive this run to its end; the answer is its final state.
    Drive {
        run: Box<Run>,
        dag: Arc<Dag>,
        outputs: BTreeMap<TiRef, Arc<str>>,
        ended: oneshot::Sender<RunState>,
    },
    /// An attempt has ended.
    Report(Report),
    /// End all runs.
    CancelAll,
    /// Run every task instance of a finished run again, then drive it.
    Rerun { run: Box<Run>, dag: Arc<Dag>, ended: oneshot::Sender<RunState> },
}

/// What is fixed while the process lives.
pub struct Settings {
    /// Attempts at once in this process.
    pub slots: u32,
    /// Queues that this process serves.
    pub queues: Vec<QueueName>,
    /// The worker session of this process.
    pub session: SessionId,
    /// Pools with a limit.
    pub pools: BTreeMap<PoolName, u32>,
    /// Reads the clock.
    pub now: fn() -> Timestamp,
    /// Is shown every committed decision, in order per run.
    pub watch: Option<Watch>,
}

/// Is shown every committed decision; must return quickly.
pub type Watch = Box<dyn Fn(&Dag, &RunBirth, &Decision, Timestamp) + Send + Sync>;

/// A handle to the one task that owns the runs.
#[derive(Clone)]
pub struct Control {
    orders: mpsc::Sender<Order>,
}

/// Starts the task that owns the runs. It ends when every handle is gone, or with the error that kept it
/// from writing.
pub fn start(
    store: Store,
    settings: Settings,
    handouts: mpsc::UnboundedSender<Handout>,
) -> (Control, tokio::task::JoinHandle<Result<(), StoreError>>) {
    let (orders, inbox) = mpsc::channel(ORDERS_MAX);
    let driver = driver::Driver::new(store, settings, handouts);
    (Control { orders }, tokio::spawn(driver.run(inbox)))
}

impl Control {
    /// Drives a new or unfinished run to its end. The receiver learns its final state; it is dropped
    /// without one if the store fails for good.
    pub async fn drive(
        &self,
        run: Run,
        dag: Arc<Dag>,
        outputs: BTreeMap<TiRef, Arc<str>>,
    ) -> oneshot::Receiver<RunState> {
        let (ended, end) = oneshot::channel();
        self.send(Order::Drive { run: Box::new(run), dag, outputs, ended }).await;
        end
    }

    /// Clears every task instance of a finished run and drives it again.
    pub async fn rerun(&self, run: Run, dag: Arc<Dag>) -> oneshot::Receiver<RunState> {
        let (ended, end) = oneshot::channel();
        self.send(Order::Rerun { run: Box::new(run), dag, ended }).await;
        end
    }

    /// Says how an attempt ended.
    pub async fn report(&self, report: Report) {
        self.send(Order::Report(report)).await;
    }

    /// Ends all active runs as `cancelled`.
    pub async fn cancel_all(&self) {
        self.send(Order::CancelAll).await;
    }

    /// The task that owns the runs outlives its handles unless the store failed; then its join handle
    /// carries the error, and an order more or less changes nothing.
    async fn send(&self, order: Order) {
        if self.orders.send(order).await.is_err() {
            tracing::debug!("an order came after the end");
        }
    }
}
