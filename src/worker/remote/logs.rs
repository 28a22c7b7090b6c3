//! Carries the logs of attempts to the server: the local file is the spool, and the server says how far it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::Key;
use super::client::{CallError, Client};
use crate::control::read_piece;
use crate::control::wire::{LogChunk, LogKept, Ticket};

/// A piece has at most so many bytes.
const PIECE_BYTES_MAX: u64 = 256 << 10;
/// How often what was written meanwhile is carried.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// How long one call may take.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How long an outcome waits for the rest of its log.
const LAST_MAX: Duration = Duration::from_secs(5);

struct Log {
    ticket: Ticket,
    path: PathBuf,
    /// Bytes that the server has.
    kept: tokio::sync::Mutex<u64>,
}

/// The logs of the attempts of one session.
#[derive(Clone)]
pub(super) struct Logs {
    client: Client,
    session: String,
    open: Arc<Mutex<BTreeMap<Key, Arc<Log>>>>,
}

impl Logs {
    pub(super) fn new(client: Client, session: String) -> Self {
        Self { client, session, open: Arc::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Arc<Log>>> {
        self.open.lock().expect("nothing panics while the list of logs is held")
    }

    pub(super) fn begin(&self, key: Key, ticket: Ticket, path: PathBuf) {
        let log = Log { ticket, path, kept: tokio::sync::Mutex::new(0) };
        self.lock().insert(key, Arc::new(log));
    }

    /// Carries what was written meanwhile, again and again, until it is dropped.
    pub(super) async fn carry_on(self) {
        loop {
            // The timer is the event that is waited for.
            drop(tokio::time::timeout(EVERY, std::future::pending::<()>()).await);
            let logs: Vec<Arc<Log>> = self.lock().values().cloned().collect();
            for log in logs {
                if let Err(error) = self.carry(&log).await {
                    tracing::warn!(%error, "a log is not carried now; trying again");
                    break;
                }
            }
        }
    }

    /// Whether the attempt has written what the server may not have yet.
    pub(super) fn has_rest(&self, key: &Key) -> bool {
        let log = self.lock().get(key).cloned();
        let written = log.is_some_and(|log| log.path.exists());
        if !written {
            self.lock().remove(key);
        }
        written
    }

    /// Carries the rest of a log that has ended. One that is not taken in time stays on this machine.
    pub(super) async fn end(&self, key: &Key) {
        let Some(log) = self.lock().remove(key) else { return };
        match tokio::time::timeout(LAST_MAX, self.carry(&log)).await {
            Ok(Ok(())) => {
                if let Err(error) = std::fs::remove_file(&log.path) {
                    tracing::debug!(%error, path = %log.path.display(), "a carried log stays here");
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, path = %log.path.display(), "a log stays here"),
            Err(_) => tracing::warn!(path = %log.path.display(), "a log stays here: the server is slow"),
        }
    }

    async fn carry(&self, log: &Log) -> Result<(), CallError> {
        let mut kept = log.kept.lock().await;
        let path = format!("sessions/{}/logs", self.session);
        loop {
            let (file, offset) = (log.path.clone(), *kept);
            let read = tokio::task::spawn_blocking(move || read_piece(&file, offset, PIECE_BYTES_MAX)).await;
            let text = match read {
                Ok(Ok(text)) => text,
                Ok(Err(error)) => return Err(CallError::Refused(error.to_string())),
                Err(error) => return Err(CallError::Refused(error.to_string())),
            };
            if text.is_empty() {
                return Ok(());
            }
            let chunk = LogChunk { ticket: log.ticket.clone(), offset, text };
            let answer: LogKept = self.client.post(&path, &chunk, CALL_MAX).await?;
            if answer.offset == offset {
                return Err(CallError::Refused("the server keeps no more of this log".to_owned()));
            }
            *kept = answer.offset;
        }
    }
}
