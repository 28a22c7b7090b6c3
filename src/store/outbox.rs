//! Alerts on their way out, and pools: the two small tables.

use std::collections::BTreeMap;

use crate::core::ids::{PoolName, Timestamp};
use crate::core::run::PoolUse;

use super::Store;
use super::db::Statement;
use super::error::StoreError;
use super::runs::{number, parsed};

const PENDING: &str = "SELECT dedupe_key, kind, payload, created_at_us FROM outbox WHERE delivered_at_us IS NULL \
     ORDER BY created_at_us, dedupe_key LIMIT $1";
const MARK_DELIVERED: &str =
    "UPDATE outbox SET delivered_at_us = $2 WHERE dedupe_key = $1 AND delivered_at_us IS NULL";
const SET_POOL: &str = "INSERT INTO pool (pool, slots, version) VALUES ($1, $2, 0) \
     ON CONFLICT (pool) DO UPDATE SET slots = excluded.slots, version = pool.version + 1";
const POOLS: &str = "SELECT p.pool, p.slots, CAST(COALESCE((SELECT SUM(t.pool_slots) FROM task_instance AS t \
         WHERE t.pool = p.pool AND t.state IN ('queued', 'running')), 0) AS BIGINT) FROM pool AS p ORDER BY p.pool";

/// An alert to be delivered, at least once, with its key so that the receiver can drop a repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The same at every delivery.
    pub dedupe_key: String,
    /// The spelling of an `AlertKind`.
    pub kind: String,
    /// A JSON object: `dag_id`, `run_id`, `kind`, `summary`, `at`, and `task_id`, `map_index` if it is about one.
    pub payload: String,
    /// When it was written.
    pub created_at: Timestamp,
}

impl Store {
    /// Letters not delivered, oldest first, at most `limit`.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn pending(&self, limit: u32) -> Result<Vec<Letter>, StoreError> {
        let rows = self.read(PENDING, &[i64::from(limit).into()]).await?;
        let letter = |row: &super::db::Row| {
            Ok(Letter {
                dedupe_key: row.text(0)?,
                kind: row.text(1)?,
                payload: row.text(2)?,
                created_at: Timestamp(row.int(3)?),
            })
        };
        rows.iter().map(letter).collect()
    }

    /// Notes that a letter was delivered; again is harmless.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn mark_delivered(&self, dedupe_key: &str, now: Timestamp) -> Result<(), StoreError> {
        let values = vec![dedupe_key.into(), now.0.into()];
        self.write(Statement { sql: MARK_DELIVERED, values }).await.map(|_rows| ())
    }

    /// Gives a pool this many slots, from now on.
    ///
    /// # Errors
    /// Of the surroundings only.
    pub async fn set_pool(&self, name: &PoolName, slots: u32) -> Result<(), StoreError> {
        let values = vec![name.as_str().into(), i64::from(slots).into()];
        self.write(Statement { sql: SET_POOL, values }).await.map(|_rows| ())
    }

    /// Every pool with a limit, and its use by all runs.
    ///
    /// # Errors
    /// Of the surroundings, or `Bug` if a row cannot be read.
    pub async fn pools(&self) -> Result<BTreeMap<PoolName, PoolUse>, StoreError> {
        let mut pools = BTreeMap::new();
        for row in self.read(POOLS, &[]).await? {
            let name = row.text(0)?;
            let name = parsed("pool", &name, PoolName::parse(&name).ok())?;
            pools.insert(
                name,
                PoolUse { size: number("slots", row.int(1)?)?, used: number("slots", row.int(2)?)? },
            );
        }
        Ok(pools)
    }
}
