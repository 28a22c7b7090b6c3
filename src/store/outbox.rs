//! Letters on their way out: posted with what caused them, claimed by couriers, delivered at least once, given
//! up visibly. It must not know how a letter is sent.
//!
//! A claim is a lease: it puts the letter's next attempt to the lease's end, so that a courier that dies is
//! followed by another. What a courier writes of a failed attempt counts only under the claim that stands.

use std::time::Duration;

use crate::core::alert::Problem;
use crate::core::ids::Timestamp;
use crate::core::state::spelled;

use super::Store;
use super::db::{BoxFuture, Row, Statement, Tx, Value, Write};
use super::error::StoreError;
use super::problems::Payload;
use super::runs::{number, parsed};

const POST: &str = "INSERT INTO outbox (dedupe_key, problem_no, event, route, payload, state, created_at_us, \
         attempts, next_attempt_at_us) \
     VALUES ($1, $2, $3, $4, $5, 'pending', $6, 0, $6) ON CONFLICT DO NOTHING";
/// A letter waits for an earlier one of the same problem on the same route: the end is never told before the
/// opening.
macro_rules! waiting {
    ($select:literal, $rest:literal) => {
        concat!(
            $select,
            " FROM outbox AS o WHERE o.state = 'pending' AND NOT EXISTS (SELECT 1 FROM outbox AS e \
                 WHERE e.problem_no = o.problem_no AND e.route = o.route AND e.state = 'pending' \
                 AND e.letter_no < o.letter_no)",
            $rest
        )
    };
}
const WAITING: &str =
    waiting!("SELECT o.route, MIN(o.next_attempt_at_us)", " GROUP BY o.route ORDER BY o.route");
/// Differs because Postgres has many writers: rows that another courier holds are passed over.
const DUE_POSTGRES: &str = waiting!(
    "SELECT o.letter_no",
    " AND o.route = $1 AND o.next_attempt_at_us <= $2 ORDER BY o.letter_no LIMIT $3 FOR UPDATE OF o SKIP LOCKED"
);
/// Differs because SQLite has one writer, which is us.
const DUE_SQLITE: &str = waiting!(
    "SELECT o.letter_no",
    " AND o.route = $1 AND o.next_attempt_at_us <= $2 ORDER BY o.letter_no LIMIT $3"
);
const CLAIM: &str = "UPDATE outbox SET attempts = attempts + 1, next_attempt_at_us = $2 \
     WHERE letter_no = $1 AND state = 'pending' RETURNING dedupe_key, route, payload, created_at_us, attempts";
/// That it was delivered is so whoever holds the claim now.
const DELIVERED: &str = "UPDATE outbox SET state = 'delivered', delivered_at_us = $2, next_attempt_at_us = NULL, \
         last_error = NULL WHERE dedupe_key = $1 AND state <> 'delivered' AND attempts >= 1";
const POSTPONE: &str = "UPDATE outbox SET next_attempt_at_us = $3, last_error = $4 \
     WHERE dedupe_key = $1 AND attempts = $2 AND state = 'pending'";
const GIVE_BACK: &str = "UPDATE outbox SET next_attempt_at_us = $3 \
     WHERE dedupe_key = $1 AND attempts = $2 AND state = 'pending'";
const BURY: &str = "UPDATE outbox SET state = 'dead', next_attempt_at_us = NULL, last_error = $3 \
     WHERE dedupe_key = $1 AND attempts = $2 AND state = 'pending'";
const DELIVERIES: &str = "SELECT dedupe_key, event, route, state, attempts, created_at_us, next_attempt_at_us, \
         delivered_at_us, last_error FROM outbox WHERE problem_no = $1 ORDER BY letter_no";

spelled! {
    /// Where a letter stands.
    LetterState {
        /// To be sent, or being sent.
        Pending = "pending",
        /// Sent; the receiver has said that it has it.
        Delivered = "delivered",
        /// Given up.
        Dead = "dead",
    }
}

/// A letter that is the asker's until its lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The same at every delivery, so that the receiver can drop a repetition; 32 hexadecimal digits.
    pub id: String,
    /// The id of the letter of this route that told of the opening; its own if it is that letter.
    pub first_id: String,
    /// Where it goes.
    pub route: String,
    /// The problem as it stood when it was opened or resolved; `state` says which of the two is told.
    pub problem: Problem,
    /// When it was posted.
    pub created_at: Timestamp,
    /// Claims so far, with this one.
    pub attempts: u32,
}

/// How the delivery of one letter goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The letter's id.
    pub id: String,
    /// `open` or `resolved`: what it tells.
    pub event: String,
    /// Where it goes.
    pub route: String,
    /// Where it stands.
    pub state: LetterState,
    /// Claims so far.
    pub attempts: u32,
    /// When it was posted.
    pub created_at: Timestamp,
    /// When it is tried again, or the lease of who is trying ends.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was delivered.
    pub delivered_at: Option<Timestamp>,
    /// How the last attempt failed.
    pub last_error: Option<String>,
}

/// Posts a letter: id, problem, event, route, payload.
pub(super) async fn post(tx: &mut Tx<'_>, letter: &[Value; 5], now: Timestamp) -> Result<(), StoreError> {
    let mut values = letter.to_vec();
    values.push(now.0.into());
    tx.execute(POST, &values).await.map(|_rows| ())
}

struct ClaimLetters {
    route: String,
    limit: u32,
    now: Timestamp,
    lease_until: Timestamp,
}

impl ClaimLetters {
    async fn write(&self, tx: &mut Tx<'_>) -> Result<Vec<Letter>, StoreError> {
        let sql = match tx {
            Tx::Sqlite(_) => DUE_SQLITE,
            Tx::Postgres(_) => DUE_POSTGRES,
        };
        let due = [self.route.as_str().into(), self.now.0.into(), i64::from(self.limit).into()];
        let mut letters = Vec::new();
        for row in tx.fetch_all(sql, &due).await? {
            let claim = [row.int(0)?.into(), self.lease_until.0.into()];
            if let Some(row) = tx.fetch_optional(CLAIM, &claim).await? {
                letters.push(letter(&row)?);
            }
        }
        Ok(letters)
    }
}

impl Write for ClaimLetters {
    type Answer = Vec<Letter>;

    fn run<'a>(&'a self, tx: &'a mut Tx<'_>) -> BoxFuture<'a, Result<Vec<Letter>, StoreError>> {
        Box::pin(self.write(tx))
    }
}

fn letter(row: &Row) -> Result<Letter, StoreError> {
    let payload = Payload::read(&row.text(2)?)?;
    Ok(Letter {
        id: row.text(0)?,
        first_id: payload.first_id.clone(),
        route: row.text(1)?,
        problem: payload.problem()?,
        created_at: Timestamp(row.int(3)?),
        attempts: number("attempts", row.int(4)?)?,
    })
}

fn delivery(row: &Row) -> Result<Delivery, StoreError> {
    let state = row.text(3)?;
    Ok(Delivery {
        id: row.text(0)?,
        event: row.text(1)?,
        route: row.text(2)?,
        state: parsed("state", &state, LetterState::parse(&state))?,
        attempts: number("attempts", row.int(4)?)?,
        created_at: Timestamp(row.int(5)?),
        next_attempt_at: row.int_or_null(6)?.map(Timestamp),
        delivered_at: row.int_or_null(7)?.map(Timestamp),
        last_error: row.text_or_null(8)?,
    })
}

impl Store {
    /// Routes with letters to be delivered, each with the time of its first attempt that is due.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn waiting_routes(&self) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let rows = self.read(WAITING, &[]).await?;
        rows.iter().map(|row| Ok((row.text(0)?, Timestamp(row.int(1)?)))).collect()
    }

    /// Gives the asker up to `limit` letters of `route` that are due, oldest first, until `now + lease`. No
    /// letter is given twice within its lease.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn claim_letters(
        &self,
        route: &str,
        limit: u32,
        now: Timestamp,
        lease: Duration,
    ) -> Result<Vec<Letter>, StoreError> {
        let claim = ClaimLetters { route: route.to_owned(), limit, now, lease_until: now.plus(lease) };
        self.write(claim).await
    }

    /// Notes that a letter was delivered; again is harmless.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn mark_delivered(&self, letter: &Letter, now: Timestamp) -> Result<(), StoreError> {
        self.change(DELIVERED, vec![letter.id.as_str().into(), now.0.into()]).await
    }

    /// Puts a letter off until `next` because sending it failed; without effect if the claim no longer stands.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn postpone(&self, letter: &Letter, next: Timestamp, error: &str) -> Result<(), StoreError> {
        self.change(POSTPONE, guarded(letter, vec![next.0.into(), error.into()])).await
    }

    /// Gives back a letter that was claimed and not sent.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn give_back(&self, letter: &Letter, now: Timestamp) -> Result<(), StoreError> {
        self.change(GIVE_BACK, guarded(letter, vec![now.0.into()])).await
    }

    /// Gives a letter up; it stays visible. Without effect if the claim no longer stands.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn bury(&self, letter: &Letter, error: &str) -> Result<(), StoreError> {
        self.change(BURY, guarded(letter, vec![error.into()])).await
    }

    /// The letters of a problem, in the order in which they were posted.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn deliveries(&self, problem_no: i64) -> Result<Vec<Delivery>, StoreError> {
        self.read(DELIVERIES, &[problem_no.into()]).await?.iter().map(delivery).collect()
    }

    async fn change(&self, sql: &'static str, values: Vec<Value>) -> Result<(), StoreError> {
        self.write(Statement { sql, values }).await.map(|_rows| ())
    }
}

/// The letter and the claim that stands, before what is written.
fn guarded(letter: &Letter, rest: Vec<Value>) -> Vec<Value> {
    let mut values = vec![letter.id.as_str().into(), i64::from(letter.attempts).into()];
    values.extend(rest);
    values
}
