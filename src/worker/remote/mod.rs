//! A worker that takes its hand-outs from a server elsewhere, over HTTP.
//!
//! It works under a session, whose lease its heartbeats keep. It trusts the lease only as long as the server must
//! trust it: counted from the moment the last good heartbeat was *sent*, less a margin, on a clock that never
//! jumps. When the trust ends it stops its attempts, and goes on under a new session, at this server or another.
//! Outcomes are said until somebody takes or refuses them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Key, Settings};
use crate::control::wire::{Done, OpenSession, PROTOCOL, SessionOpened};
use crate::core::ids::QueueName;
use crate::core::run::Outcome;

mod client;
mod heartbeat;
mod logs;
mod outbox;
mod session;

use client::{CallError, Client};
use session::{Ended, Session};

/// The first wait after a call that failed; it doubles up to the longest.
const WAIT_FIRST: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(3);
/// How long the opening of a session may take.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// Reads the token; again after a server has refused it, because a server that starts may make a new one.
pub type ReadToken = Box<dyn Fn() -> Result<String, String> + Send + Sync>;

/// What a worker is made of, beside what its attempts share.
pub struct Remote {
    /// Addresses of servers: `http://host:port`. The first that answers is worked for.
    pub servers: Vec<String>,
    /// See there.
    pub token: ReadToken,
    /// What people call this worker.
    pub name: String,
    /// The queues it serves.
    pub queues: Vec<QueueName>,
    /// Attempts at once.
    pub slots: u32,
    /// How long attempts may go on once the worker is to end; then they are given back.
    pub grace: Duration,
    /// The worker is to end.
    pub drain: CancellationToken,
}

/// Why a worker ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// No server takes it as it is: a wrong token, another version.
    #[error("{0}")]
    Refused(String),
}

/// Where attempts say how they ended.
#[derive(Clone)]
pub struct Reports(mpsc::UnboundedSender<(Key, Outcome)>);

impl Reports {
    pub(super) fn ended(&self, key: Key, outcome: Outcome) {
        if self.0.send((key, outcome)).is_err() {
            tracing::info!("an attempt ended after its session; its outcome is not told");
        }
    }
}

/// Works until told to end, and what is under way has ended or was given back.
///
/// # Errors
/// If every server refuses the worker.
pub async fn run(settings: Settings, remote: Remote) -> Result<(), RemoteError> {
    let settings = Arc::new(settings);
    let Remote { servers, token, name, queues, slots, grace, drain } = remote;
    let token = Arc::new(client::Token::new(token).map_err(RemoteError::Refused)?);
    let clients = servers.iter().map(|server| Client::new(server, token.clone()));
    let clients: Vec<Client> = clients.collect::<Result<_, _>>().map_err(RemoteError::Refused)?;
    let mut unsaid: VecDeque<Done> = VecDeque::new();
    loop {
        let Some(opened) = open(&clients, &name, &drain).await? else { return Ok(()) };
        tracing::info!(session = opened.session_id, "working under a new session");
        let session = Session {
            client: opened.client,
            id: opened.session_id,
            lease: opened.lease,
            opened: opened.asked,
            queues: queues.iter().map(ToString::to_string).collect(),
            slots,
            grace,
            drain: drain.clone(),
        };
        let (ended, left) = session.work(settings.clone(), unsaid).await;
        unsaid = left;
        match ended {
            Ended::Drained => {
                if !unsaid.is_empty() {
                    tracing::warn!(
                        outcomes = unsaid.len(),
                        "no server has taken these; they will be repeated"
                    );
                }
                return Ok(());
            }
            Ended::Lost => tracing::warn!("the session is over: what it held was stopped"),
        }
    }
}

struct Opened {
    client: Client,
    session_id: String,
    lease: Duration,
    /// When the session was asked for: its lease began no earlier.
    asked: Instant,
}

/// Opens a session at the first server that gives one; `None` if the worker is to end.
async fn open(
    clients: &[Client],
    name: &str,
    drain: &CancellationToken,
) -> Result<Option<Opened>, RemoteError> {
    let mut wait = WAIT_FIRST;
    let body = OpenSession { protocol: PROTOCOL, name: name.to_owned() };
    loop {
        let mut refused = Vec::new();
        for client in clients {
            let asked = Instant::now();
            match client.post::<SessionOpened>("sessions", &body, OPEN_MAX).await {
                Ok(SessionOpened { session_id, lease_ms }) => {
                    let lease = Duration::from_millis(lease_ms);
                    return Ok(Some(Opened { client: client.clone(), session_id, lease, asked }));
                }
                Err(CallError::Unreachable(why)) => {
                    tracing::warn!(server = client.base(), why, "no session yet; trying again");
                }
                Err(CallError::Denied(why) | CallError::Gone(why) | CallError::Refused(why)) => {
                    refused.push(format!("{}: {why}", client.base()));
                }
            }
        }
        if refused.len() == clients.len() {
            return Err(RemoteError::Refused(refused.join("\n")));
        }
        // The timer is the event that is waited for.
        if tokio::time::timeout(wait, drain.cancelled()).await.is_ok() {
            return Ok(None);
        }
        wait = (wait * 2).min(WAIT_MAX);
    }
}
