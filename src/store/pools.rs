//! Pools: slots that task instances of all runs share. Use is counted from live rows.

use std::collections::BTreeMap;

use crate::core::ids::PoolName;
use crate::core::run::PoolUse;

use super::Store;
use super::db::Statement;
use super::error::StoreError;
use super::runs::{number, parsed};

const SET_POOL: &str = "INSERT INTO pool (pool, slots, version) VALUES ($1, $2, 0) \
     ON CONFLICT (pool) DO UPDATE SET slots = excluded.slots, version = pool.version + 1";
const POOLS: &str = "SELECT p.pool, p.slots, CAST(COALESCE((SELECT SUM(t.pool_slots) FROM task_instance AS t \
         WHERE t.pool = p.pool AND t.state IN ('queued', 'running')), 0) AS BIGINT) FROM pool AS p ORDER BY p.pool";

impl Store {
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
