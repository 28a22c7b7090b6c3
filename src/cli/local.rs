//! The worker inside this process: its session, its lease, its attempts.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::CliError;
use crate::control::{Control, Worker};
use crate::core::dag::DEFAULT_QUEUE;
use crate::core::ids::{QueueName, SessionId};
use crate::engine::lease::{self, Kept};
use crate::worker;

/// How long attempts that were asked to stop may take; a little more than the worker gives each.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// A worker inside this process.
pub(super) struct LocalWorker {
    stop: CancellationToken,
    attempts: TaskTracker,
    task: JoinHandle<()>,
}

/// A name that no other process has or had.
pub(super) fn session() -> SessionId {
    let name = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
    SessionId::parse(&name).expect("digits and letters make a valid id")
}

/// Starts it: it takes hand-outs from `control` until it is stopped. If its lease runs out, for instance because
/// the machine slept, it goes on under a new name.
pub(super) async fn start(
    control: &Control,
    settings: worker::Settings,
    slots: u32,
) -> Result<LocalWorker, CliError> {
    let stop = CancellationToken::new();
    let attempts = TaskTracker::new();
    let first = session();
    lease::open_local(control.store(), &first).await?;
    let work = work(control.clone(), Arc::new(settings), slots, first, attempts.clone(), stop.clone());
    Ok(LocalWorker { stop, attempts, task: tokio::spawn(work) })
}

async fn work(
    control: Control,
    settings: Arc<worker::Settings>,
    slots: u32,
    mut session: SessionId,
    attempts: TaskTracker,
    stop: CancellationToken,
) {
    loop {
        let queues = vec![QueueName::parse(DEFAULT_QUEUE).expect("the constant is a valid name")];
        let worker = Worker { session: session.clone(), queues, free: slots, counted: true };
        let handouts = control.enlist(worker).await;
        let kept = lease::keep(control.store().clone(), session.clone(), stop.clone());
        let link = worker::Link::Local { control: control.clone(), session: session.clone() };
        let run = worker::run(settings.clone(), link, handouts, worker::Running::default(), attempts.clone());
        let kept = tokio::select! {
            kept = kept => kept.unwrap_or(Kept::Closed),
            () = run => Kept::Closed,
        };
        control.dismiss(&session).await;
        if kept == Kept::Closed {
            return;
        }
        session = self::session();
        while let Err(error) = lease::open_local(control.store(), &session).await {
            tracing::warn!(%error, "no new session can be opened; trying again");
            if tokio::time::timeout(lease::BEAT, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }
}

impl LocalWorker {
    /// Takes no more hand-outs, lets attempts that were asked to stop end within their grace, and closes the session.
    pub(super) async fn stop(self) {
        self.attempts.close();
        if tokio::time::timeout(STOP_GRACE, self.attempts.wait()).await.is_err() {
            eprintln!("some programs did not stop in time and are left to themselves");
        }
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the worker of this process ended badly");
        }
    }
}
