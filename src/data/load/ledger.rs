//! The ledger: which attempt may load, what it committed, and which staging tables nobody needs any more.

use super::super::DataError;
use super::super::cells::Cell;
use super::super::warehouse::{Dialect, TableName, Tx, Warehouse};
use super::{Load, drop_table};

/// One row per table, run and task.
const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS mainspring_load_ledger (
        load_id TEXT NOT NULL PRIMARY KEY,
        target TEXT NOT NULL,
        run_key TEXT NOT NULL,
        task TEXT NOT NULL,
        fence BIGINT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('staging', 'committed')),
        rows BIGINT NOT NULL,
        staged_at_secs BIGINT NOT NULL
    )";

/// Changes nothing if a greater fence is there. `rows` stays what the last commit loaded.
const CLAIM: &str = "
    INSERT INTO mainspring_load_ledger
        (load_id, target, run_key, task, fence, state, rows, staged_at_secs)
    VALUES ($1, $2, $3, $4, $5, 'staging', 0, $6)
    ON CONFLICT (load_id) DO UPDATE
    SET fence = excluded.fence, state = 'staging', staged_at_secs = excluded.staged_at_secs
    WHERE mainspring_load_ledger.fence <= excluded.fence";

/// Changes nothing if another fence has claimed since.
const COMMIT: &str = "
    UPDATE mainspring_load_ledger SET state = 'committed', rows = $3 WHERE load_id = $1 AND fence = $2";

const COMMITTED_ROWS: &str = "SELECT rows FROM mainspring_load_ledger WHERE load_id = $1";

/// Counts the reasons to drop a staging table of load `$1` made under fence `$2` before `$3`.
const DEAD: &str = "
    SELECT COUNT(*) FROM mainspring_load_ledger
    WHERE load_id = $1 AND (fence > $2 OR state = 'committed' OR staged_at_secs < $3)";

/// A staging table this old belongs to an attempt that nobody waits for.
const STAGING_SECS_MAX: i64 = 7 * 86_400;

/// Any number that only we lock on: makes the ledger's creation wait for another's.
const CREATION_LOCK: i64 = 0x6d61_696e_7370_7269;

/// Takes the right to load under the attempt's fence.
pub(super) async fn claim(warehouse: &Warehouse, load: &Load) -> Result<(), DataError> {
    let mut tx = warehouse.begin().await?;
    if tx.dialect() == Dialect::Postgres {
        tx.execute("SELECT pg_advisory_xact_lock($1)", &[Cell::Int(CREATION_LOCK)]).await?;
    }
    tx.execute(CREATE, &[]).await?;
    let now_secs = now_secs(&mut tx).await?;
    let values = [
        Cell::Text(load.id()),
        Cell::Text(load.table.to_string()),
        Cell::Text(load.run_key.clone()),
        Cell::Text(load.task.clone()),
        Cell::Int(load.fence),
        Cell::Int(now_secs),
    ];
    if tx.execute(CLAIM, &values).await? == 0 {
        return Err(load.stale());
    }
    tx.commit().await
}

/// Rows that earlier attempts of this load committed; 0 if none did.
pub(super) async fn committed_rows(tx: &mut Tx, load: &Load) -> Result<i64, DataError> {
    tx.number(COMMITTED_ROWS, &[Cell::Text(load.id())]).await
}

/// Writes down that the load is done; an error if it may not be.
pub(super) async fn commit(tx: &mut Tx, load: &Load, rows: u64) -> Result<(), DataError> {
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    let values = [Cell::Text(load.id()), Cell::Int(load.fence), Cell::Int(rows)];
    if tx.execute(COMMIT, &values).await? == 0 { Err(load.stale()) } else { Ok(()) }
}

/// Drops staging tables of attempts that can no longer commit. What cannot be dropped now stays for later.
pub(super) async fn sweep(warehouse: &Warehouse, load: &Load) -> Result<(), DataError> {
    let mut tx = warehouse.begin().await?;
    let before = now_secs(&mut tx).await? - STAGING_SECS_MAX;
    let mut dead = Vec::new();
    for table in staging_tables(&mut tx, &load.table).await? {
        let Some((load_id, fence)) = owner(&table.table) else { continue };
        let values = [Cell::Text(load_id.to_owned()), Cell::Int(fence), Cell::Int(before)];
        if tx.number(DEAD, &values).await? > 0 {
            dead.push(table);
        }
    }
    tx.commit().await?;
    for table in dead {
        if let Err(error) = drop_table(warehouse, &table).await {
            tracing::warn!(%error, %table, "a dead staging table is left to a later load");
        }
    }
    Ok(())
}

async fn staging_tables(tx: &mut Tx, table: &TableName) -> Result<Vec<TableName>, DataError> {
    let rows = match tx.dialect() {
        Dialect::Sqlite => {
            tx.texts(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'stg\\_%' ESCAPE '\\'",
                &[],
            )
            .await?
        }
        Dialect::Postgres => {
            let schema = table.schema.clone().map_or(Cell::Null, Cell::Text);
            tx.texts(
                "SELECT tablename::text FROM pg_tables \
                 WHERE schemaname = COALESCE($1::text, current_schema()) AND tablename LIKE 'stg\\_%'",
                &[schema],
            )
            .await?
        }
    };
    Ok(rows.into_iter().flatten().flatten().map(|name| table.beside(name)).collect())
}

/// The load and the fence in the name of a staging table: `stg_<table>_<load>_<fence>`.
fn owner(name: &str) -> Option<(&str, i64)> {
    let (rest, fence) = name.rsplit_once('_')?;
    let (_, load_id) = rest.rsplit_once('_')?;
    let is_load_id = load_id.len() == 16 && load_id.bytes().all(|b| b.is_ascii_hexdigit());
    is_load_id.then_some((load_id, fence.parse().ok()?))
}

/// The database's clock: several machines agree on it.
async fn now_secs(tx: &mut Tx) -> Result<i64, DataError> {
    match tx.dialect() {
        Dialect::Sqlite => tx.number("SELECT CAST(strftime('%s', 'now') AS INTEGER)", &[]).await,
        Dialect::Postgres => tx.number("SELECT CAST(extract(epoch FROM now()) AS BIGINT)", &[]).await,
    }
}
