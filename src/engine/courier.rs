//! Carries letters from the outbox to the channels: at least once, each under an id that stays the same, with
//! growing waits while a receiver is away, and given up visibly after days.
//!
//! Any number of couriers may work on one database. A letter is sent twice only if its courier dies, or loses
//! the database, between sending and noting it; routes do not wait for each other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::alerts::{Message, Routes, SendError};
use crate::core::alert::DEFAULT_ROUTE;
use crate::core::ids::Timestamp;
use crate::store::{Letter, Store, StoreError};

/// How often the outbox is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The longest wait between two looks while the database cannot be reached.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(30);
/// Letters of one route that a courier takes at once.
const LETTERS_MAX: u32 = 8;
/// How long they are its own: longer than sending all of them may take.
const LEASE: Duration = Duration::from_secs(180);
/// The wait after the first failed attempt; it doubles, up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// A letter that could not be delivered for so long is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 86_400);

/// Delivers letters until `stop`: then what is being sent is finished, and what was only claimed is given back.
///
/// `now` is the clock that due times and leases are judged by. The loop outlives outages of the database: it
/// says so in the log and looks again with growing waits.
pub async fn run(
    store: Store,
    routes: Arc<Routes>,
    now: impl Fn() -> Timestamp + Send + Sync,
    stop: CancellationToken,
) {
    let courier = Courier { store, routes, now, stop };
    let mut under_way = FuturesUnordered::new();
    let mut busy: BTreeSet<String> = BTreeSet::new();
    let mut wait = Duration::ZERO;
    let mut away = false;
    loop {
        tokio::select! {
            biased;
            Some((route, result)) = under_way.next(), if !under_way.is_empty() => {
                busy.remove(&route);
                // There may be more of them.
                wait = Duration::ZERO;
                if let Err(error) = result {
                    tracing::warn!(%route, %error, "letters could not be taken to this route");
                    wait = LOOK_EVERY;
                }
            }
            () = courier.stop.cancelled() => break,
            () = pause(wait) => {
                match courier.due().await {
                    Ok(due) => {
                        if std::mem::take(&mut away) {
                            tracing::info!("the outbox can be read again");
                        }
                        for route in due {
                            if busy.insert(route.clone()) {
                                under_way.push(courier.deliver(route));
                            }
                        }
                        wait = LOOK_EVERY;
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut away, true) {
                            tracing::warn!(%error, "the outbox cannot be read: alerts wait");
                        }
                        wait = (wait.max(LOOK_EVERY) * 2).min(LOOK_EVERY_MAX);
                    }
                }
            }
        }
    }
    while let Some((route, result)) = under_way.next().await {
        if let Err(error) = result {
            tracing::warn!(%route, %error, "letters could not be taken to this route");
        }
    }
}

/// The timer is the event that is waited for.
async fn pause(span: Duration) {
    drop(tokio::time::timeout(span, std::future::pending::<()>()).await);
}

struct Courier<Now> {
    store: Store,
    routes: Arc<Routes>,
    now: Now,
    stop: CancellationToken,
}

impl<Now: Fn() -> Timestamp> Courier<Now> {
    /// Routes with letters that are due.
    async fn due(&self) -> Result<Vec<String>, StoreError> {
        let now = (self.now)();
        let waiting = self.store.waiting_routes().await?;
        Ok(waiting.into_iter().filter(|(_, at)| *at <= now).map(|(route, _)| route).collect())
    }

    /// Takes some letters of one route to where they go, one after the other.
    async fn deliver(&self, route: String) -> (String, Result<(), StoreError>) {
        let result = self.deliver_some(&route).await;
        (route, result)
    }

    async fn deliver_some(&self, route: &str) -> Result<(), StoreError> {
        let letters = self.store.claim_letters(route, LETTERS_MAX, (self.now)(), LEASE).await?;
        for letter in letters {
            if self.stop.is_cancelled() {
                self.store.give_back(&letter, (self.now)()).await?;
            } else {
                self.deliver_one(&letter).await?;
            }
        }
        Ok(())
    }

    async fn deliver_one(&self, letter: &Letter) -> Result<(), StoreError> {
        if letter.route != DEFAULT_ROUTE && self.routes.find(&letter.route).is_none() {
            tracing::warn!(route = %letter.route, "there is no such alert route: the default one is used");
        }
        let message = Message {
            id: letter.id.clone(),
            first_id: letter.first_id.clone(),
            route: letter.route.clone(),
            problem: letter.problem.clone(),
        };
        let sent = self.routes.find_or_default(&letter.route).send(&message, (self.now)()).await;
        let now = (self.now)();
        match sent {
            Ok(answer) => {
                tracing::debug!(route = %letter.route, delivery = %letter.id, answer, "delivered");
                self.store.mark_delivered(letter, now).await
            }
            Err(error) if now >= letter.created_at.plus(GIVE_UP_AFTER) => {
                tracing::error!(route = %letter.route, problem = %letter.problem.key, %error, "an alert was given up");
                self.store.bury(letter, &error.text).await
            }
            Err(error) => {
                let next = now.plus(patience(letter, &error));
                tracing::warn!(route = %letter.route, problem = %letter.problem.key, %error, %next, "an alert was not taken");
                self.store.postpone(letter, next, &error.text).await
            }
        }
    }
}

/// The wait after a failed attempt: doubled each time up to the longest, of which the second half is spread by
/// the letter's id, so that many letters do not come back at one moment; never less than the receiver asked for.
fn patience(letter: &Letter, error: &SendError) -> Duration {
    let doublings = letter.attempts.saturating_sub(1).min(20);
    let full = RETRY_FIRST.saturating_mul(1 << doublings).min(RETRY_MAX);
    let digest = Sha256::digest(format!("{}/{}", letter.id, letter.attempts).as_bytes());
    let spread = f64::from(digest[0]) / 256.0;
    let wait = full / 2 + (full / 2).mul_f64(spread);
    wait.max(error.retry_after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::alert::{AlertKind, Problem, ProblemKey, ProblemState};

    fn letter(attempts: u32) -> Letter {
        let at = Timestamp(0);
        let key = ProblemKey { dag_id: None, subject: Some("f".into()), kind: AlertKind::ImportError };
        let (summary, error) = (String::new(), String::new());
        let (last_run_id, resolved_at, state) = (None, None, ProblemState::Open);
        let problem = Problem {
            key,
            state,
            opened_at: at,
            last_seen: at,
            occurrences: 1,
            resolved_at,
            last_run_id,
            summary,
            error,
        };
        let id = "id".to_owned();
        Letter { first_id: id.clone(), id, route: "r".into(), problem, created_at: at, attempts }
    }

    #[test]
    fn waits_double_up_to_an_hour_and_are_never_shorter_than_the_receiver_asks() {
        let error = SendError { text: String::new(), retry_after: None };
        for (attempts, full) in [(1, 10), (2, 20), (3, 40), (9, 2560), (10, 3600), (1000, 3600)] {
            let wait = patience(&letter(attempts), &error);
            let full = Duration::from_secs(full);
            assert!(wait >= full / 2 && wait <= full, "attempt {attempts}: {wait:?}");
        }
        let asked = SendError { text: String::new(), retry_after: Some(Duration::from_secs(99)) };
        assert_eq!(patience(&letter(1), &asked), Duration::from_secs(99));
    }
}
