//! Runs attempts in this process: renders a task's settings, does the work under its timeout, and reports
//! exactly once, whatever happens: an error, a timeout, a panic, a stop.
//!
//! This room knows attempts only. It must not know the store, and it decides no state.

use std::collections::BTreeMap;
use std::path::PathBuf;
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
mod task_log;

pub use attempt::RetryOn;
pub use task_log::log_path;

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

/// Attempts under way, by claim.
type Running = Arc<Mutex<BTreeMap<Key, CancellationToken>>>;

/// Takes the hand-outs of `session` until nobody can send any more. Every attempt reports to `control`, and is
/// counted in `attempts`, so that a process can wait for those that were asked to stop.
pub async fn run(
    settings: Arc<Settings>,
    control: Control,
    session: SessionId,
    mut handouts: mpsc::UnboundedReceiver<Handout>,
    attempts: TaskTracker,
) {
    let prepared = Arc::new(attempt::PreparedTasks::default());
    let running = Running::default();
    while let Some(handout) = handouts.recv().await {
        match handout {
            Handout::Begin(assignment) => {
                let key = (assignment.birth.key.clone(), assignment.ti, assignment.fence);
                let cancel = CancellationToken::new();
                lock(&running).insert(key.clone(), cancel.clone());
                let (settings, prepared) = (settings.clone(), prepared.clone());
                let (control, running, session) = (control.clone(), running.clone(), session.clone());
                attempts.spawn(async move {
                    let began = Instant::now();
                    let outcome = attempt::make(&settings, &prepared, &assignment, cancel).await;
                    if let Some(trace) = &settings.trace {
                        trace(&assignment, began, Instant::now());
                    }
                    lock(&running).remove(&key);
                    let (key, ti, fence) = key;
                    let report = Report { session, key, ti, fence, outcome };
                    if let Err(refused) = control.report(report).await {
                        tracing::info!(%refused, "an outcome does not count");
                    }
                });
            }
            Handout::Stop { key, ti, fence } => {
                if let Some(cancel) = lock(&running).get(&(key, ti, fence)) {
                    cancel.cancel();
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

fn lock(running: &Running) -> std::sync::MutexGuard<'_, BTreeMap<Key, CancellationToken>> {
    running.lock().expect("nothing panics while the list of attempts is held")
}
