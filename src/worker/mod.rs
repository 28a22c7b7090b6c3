//! Runs attempts in this process: renders a task's settings, does the work under its timeout, and reports
//! exactly once, whatever happens: an error, a timeout, a panic, a stop.
//!
//! This room knows attempts only. It must not know the store, and it decides no state.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control::{Assignment, Control, Handout, Report};
use crate::core::ids::{Fence, RunKey, SessionId, Timestamp};
use crate::core::run::{Outcome, TiRef};
use crate::tasks::Shared;

mod attempt;
mod mask;
pub mod remote;
mod task_log;

pub use crate::control::log_path;
pub use attempt::RetryOn;

/// What attempts of this process share.
pub struct Settings {
    /// Lent to every attempt.
    pub shared: Arc<Shared>,
    /// The folder of the logs.
    pub logs: PathBuf,
    /// Reads the clock, for the time stamps of log lines.
    pub now: fn() -> Timestamp,
    /// Is told when each attempt began and ended.
    pub trace: Option<Trace>,
}

/// Is told when each attempt began and ended; must return quickly.
pub type Trace = Box<dyn Fn(&Assignment, Instant, Instant) + Send + Sync>;

type Key = (RunKey, TiRef, Fence);

/// Who hears of outcomes.
#[derive(Clone)]
pub enum Link {
    /// The scheduler of this process.
    Local {
        /// The door to the runs.
        control: Control,
        /// The worker's session.
        session: SessionId,
    },
    /// A server elsewhere.
    Remote(remote::Reports),
}

impl Link {
    async fn report(&self, (key, ti, fence): Key, outcome: Outcome) {
        match self {
            Self::Local { control, session } => {
                let report = Report { session: session.clone(), key, ti, fence, outcome };
                if let Err(refused) = control.report(report).await {
                    tracing::info!(%refused, "an outcome does not count");
                }
            }
            Self::Remote(reports) => reports.ended((key, ti, fence), outcome),
        }
    }
}

/// An attempt under way, as far as it can be stopped.
struct Stopper {
    cancel: CancellationToken,
    /// It is stopped for no fault of its own: unless it has succeeded it is given back unharmed.
    given_back: Arc<AtomicBool>,
}

/// Attempts under way, by claim.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<BTreeMap<Key, Stopper>>>);

impl Running {
    /// Stops all of them and gives them back unharmed; what has succeeded meanwhile has succeeded.
    pub fn give_back(&self) {
        for stopper in self.lock().values() {
            stopper.given_back.store(true, Ordering::Relaxed);
            stopper.cancel.cancel();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Stopper>> {
        self.0.lock().expect("nothing panics while the list of attempts is held")
    }
}

/// Takes hand-outs until nobody can send any more. Every attempt reports to `link`, and is counted in `attempts`,
/// so that a process can wait for those that were asked to stop.
pub async fn run(
    settings: Arc<Settings>,
    link: Link,
    mut handouts: mpsc::UnboundedReceiver<Handout>,
    running: Running,
    attempts: TaskTracker,
) {
    let prepared = Arc::new(attempt::PreparedTasks::default());
    while let Some(handout) = handouts.recv().await {
        match handout {
            Handout::Begin(assignment) => {
                let key = (assignment.birth.key.clone(), assignment.ti, assignment.fence);
                let (cancel, given_back) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
                let stopper = Stopper { cancel: cancel.clone(), given_back: given_back.clone() };
                running.lock().insert(key.clone(), stopper);
                let (settings, prepared) = (settings.clone(), prepared.clone());
                let (link, running) = (link.clone(), running.clone());
                attempts.spawn(async move {
                    let began = Instant::now();
                    let mut outcome = attempt::make(&settings, &prepared, &assignment, cancel).await;
                    if let Some(trace) = &settings.trace {
                        trace(&assignment, began, Instant::now());
                    }
                    running.lock().remove(&key);
                    if given_back.load(Ordering::Relaxed) && matches!(outcome, Outcome::Failed { .. }) {
                        outcome = Outcome::Interrupted;
                    }
                    link.report(key, outcome).await;
                });
            }
            Handout::Stop { key, ti, fence } => {
                if let Some(stopper) = running.lock().get(&(key, ti, fence)) {
                    stopper.cancel.cancel();
                }
            }
        }
    }
}

/// Makes one attempt outside any run's life: nobody is told, nothing is recorded but the log.
pub async fn once(settings: Settings, assignment: &Assignment) -> Outcome {
    let prepared = attempt::PreparedTasks::default();
    attempt::make(&Arc::new(settings), &prepared, assignment, CancellationToken::new()).await
}
