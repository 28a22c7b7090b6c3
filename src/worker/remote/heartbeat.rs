//! The heart of a session: a thread of its own with a runtime and a connection of its own, so that no load on the
//! rest of the process lets the lease lapse.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::client::{CallError, Client};
use crate::control::wire::{Beaten, ClaimName, Heartbeat};

/// Heartbeats within a lease; as much again is the margin by which the trust ends before the lease.
const BEATS: u32 = 6;

/// Claims that the worker has, until their outcome is taken or refused.
pub(super) type Held = Arc<Mutex<std::collections::BTreeSet<ClaimName>>>;

/// What the thread tells.
pub(super) struct Heart {
    /// The lease cannot be trusted any more.
    pub(super) lost: CancellationToken,
    /// Claims that are not the worker's any more.
    pub(super) void: mpsc::UnboundedReceiver<ClaimName>,
}

/// What the thread works with.
pub(super) struct Beat {
    pub(super) client: Client,
    pub(super) session: String,
    pub(super) lease: Duration,
    /// When the lease that stands was asked for.
    pub(super) asked: Instant,
    pub(super) held: Held,
    /// The session is over in good order.
    pub(super) stop: CancellationToken,
}

impl Beat {
    /// Starts the thread.
    pub(super) fn start(self) -> Heart {
        let lost = CancellationToken::new();
        let (tell_void, void) = mpsc::unbounded_channel();
        let trust_is_over = lost.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match (runtime, self.client.fresh()) {
                (Ok(runtime), Ok(client)) => runtime.block_on(self.keep(&client, &tell_void)),
                (Err(error), _) => tracing::error!(%error, "no runtime for heartbeats"),
                (_, Err(error)) => tracing::error!(error, "no client for heartbeats"),
            }
            trust_is_over.cancel();
        });
        Heart { lost, void }
    }

    /// Keeps the lease; returns when it cannot be trusted any more, or at the end.
    async fn keep(&self, client: &Client, void: &mpsc::UnboundedSender<ClaimName>) {
        let (beat, trust) = (self.lease / BEATS, self.lease - self.lease / BEATS);
        let path = format!("sessions/{}/heartbeat", self.session);
        let mut trusted_until = self.asked + trust;
        let mut next = self.asked + beat;
        loop {
            let wait = next.min(trusted_until).saturating_duration_since(Instant::now());
            // The timer is the event that is waited for.
            if tokio::time::timeout(wait, self.stop.cancelled()).await.is_ok() {
                return;
            }
            let asked = Instant::now();
            next = asked + beat;
            let patience = trusted_until.saturating_duration_since(asked);
            if patience.is_zero() {
                tracing::error!(session = self.session, "the lease can be trusted no longer");
                return;
            }
            let held = self.held.lock().expect("nothing panics while it is held").iter().cloned().collect();
            match client.post::<Beaten>(&path, &Heartbeat { held }, patience).await {
                Ok(Beaten { stands: true, void: claims }) => {
                    trusted_until = asked + trust;
                    for claim in claims {
                        if void.send(claim).is_err() {
                            return;
                        }
                    }
                }
                Ok(Beaten { stands: false, .. }) | Err(CallError::Gone(_)) => {
                    tracing::error!(session = self.session, "the server has given this session up");
                    return;
                }
                Err(error) => tracing::warn!(%error, "a heartbeat was not heard; trying again"),
            }
        }
    }
}
