//! From the staging table into the table, in one transaction. One SQL text for both databases.

use sha2::{Digest, Sha256};

use super::super::DataError;
use super::super::cells::Cell;
use super::super::warehouse::{Dialect, TableName, Tx, Warehouse, quoted};
use super::{DELETE_COLUMN, Definition, LOAD_COLUMN, Load, LoadMode, Loaded, Merge, drop_sql, ledger};

/// Keys shown in a message.
const SAMPLE_KEYS: usize = 5;

/// Publishes `rows` staged rows. Nothing has happened if this fails.
pub(super) async fn publish(
    warehouse: &Warehouse,
    load: &Load,
    staging: &TableName,
    definitions: &[Definition],
    rows: u64,
) -> Result<Loaded, DataError> {
    let mut tx = warehouse.begin().await?;
    lock(&mut tx, &load.table).await?;
    let again = ledger::committed_rows(&mut tx, load).await? > 0;
    ledger::commit(&mut tx, load, rows).await?;
    prepare_table(&mut tx, load, definitions).await?;
    let names = Names::new(load, staging, definitions);
    let mut loaded = match &load.mode {
        LoadMode::Append => append(&mut tx, load, &names, again).await?,
        LoadMode::Overwrite => replace(&mut tx, load, &names, "").await?,
        LoadMode::OverwritePartitions(by) => replace(&mut tx, load, &names, &names.in_partitions(by)).await?,
        LoadMode::Merge(merge) => apply(&mut tx, load, &names, merge).await?,
    };
    loaded.rows = rows;
    tx.execute(&drop_sql(staging), &[]).await?;
    tx.commit().await?;
    Ok(loaded)
}

/// Names as they stand in SQL.
struct Names {
    table: String,
    staging: String,
    /// The columns that are loaded.
    columns: Vec<String>,
    deletes: bool,
}

impl Names {
    fn new(load: &Load, staging: &TableName, definitions: &[Definition]) -> Self {
        let loaded = definitions.iter().filter(|d| d.name != DELETE_COLUMN);
        Self {
            table: load.table.quoted(),
            staging: staging.quoted(),
            columns: loaded.map(|d| quoted(&d.name)).collect(),
            deletes: definitions.iter().any(|d| d.name == DELETE_COLUMN),
        }
    }

    fn in_partitions(&self, by: &[String]) -> String {
        let by: Vec<String> = by.iter().map(|name| quoted(name)).collect();
        let same: Vec<String> = by.iter().map(|c| format!("s.{c} IS NOT DISTINCT FROM t.{c}")).collect();
        format!(
            " WHERE EXISTS (SELECT 1 FROM (SELECT DISTINCT {} FROM {}) AS s WHERE {})",
            by.join(", "),
            self.staging,
            same.join(" AND ")
        )
    }
}

/// Loads of one table go one after the other. SQLite has one writer anyway.
async fn lock(tx: &mut Tx, table: &TableName) -> Result<(), DataError> {
    if tx.dialect() == Dialect::Postgres {
        let hash = Sha256::digest(table.to_string().as_bytes());
        let number = i64::from_be_bytes(hash[..8].try_into().expect("a hash has 32 bytes"));
        tx.execute("SELECT pg_advisory_xact_lock($1)", &[Cell::Int(number)]).await?;
    }
    Ok(())
}

/// Makes the table or adds the columns it lacks.
async fn prepare_table(tx: &mut Tx, load: &Load, definitions: &[Definition]) -> Result<(), DataError> {
    let mark = Definition { name: LOAD_COLUMN.to_owned(), column_type: "TEXT".to_owned() };
    let mut wanted: Vec<&Definition> = definitions.iter().filter(|d| d.name != DELETE_COLUMN).collect();
    if load.mode == LoadMode::Append {
        wanted.push(&mark);
    }
    let known = tx.columns(&load.table).await?;
    let table = load.table.quoted();
    if known.is_empty() {
        let mut columns: Vec<String> = wanted.iter().map(|d| d.sql()).collect();
        if let LoadMode::Merge(merge) = &load.mode {
            let key: Vec<String> = merge.key.iter().map(|name| quoted(name)).collect();
            columns.push(format!("PRIMARY KEY ({})", key.join(", ")));
        }
        tx.execute(&format!("CREATE TABLE {table} ({})", columns.join(", ")), &[]).await?;
        return Ok(());
    }
    let same = |a: &str, b: &str| match tx.dialect() {
        Dialect::Sqlite => a.eq_ignore_ascii_case(b),
        Dialect::Postgres => a == b,
    };
    let missing: Vec<String> = wanted
        .iter()
        .filter(|d| !known.iter().any(|name| same(name, &d.name)))
        .map(|d| format!("ALTER TABLE {table} ADD COLUMN {}", d.sql()))
        .collect();
    for statement in missing {
        tx.execute(&statement, &[]).await?;
    }
    Ok(())
}

async fn append(tx: &mut Tx, load: &Load, names: &Names, again: bool) -> Result<Loaded, DataError> {
    let Names { table, staging, .. } = names;
    let (mark, id) = (quoted(LOAD_COLUMN), Cell::Text(load.id()));
    let mut deleted = 0;
    if again {
        let delete = format!("DELETE FROM {table} WHERE {mark} = $1");
        deleted = tx.execute(&delete, std::slice::from_ref(&id)).await?;
    }
    let columns = names.columns.join(", ");
    let insert = format!("INSERT INTO {table} ({columns}, {mark}) SELECT {columns}, $1 FROM {staging}");
    Ok(Loaded { inserted: tx.execute(&insert, &[id]).await?, deleted, ..Loaded::default() })
}

/// Replaces the rows of the table that `which` selects.
async fn replace(tx: &mut Tx, load: &Load, names: &Names, which: &str) -> Result<Loaded, DataError> {
    let Names { table, staging, .. } = names;
    let columns = names.columns.join(", ");
    let before = tx.number(&format!("SELECT COUNT(*) FROM {table} AS t{which}"), &[]).await?;
    let deleted = tx.execute(&format!("DELETE FROM {table} AS t{which}"), &[]).await?;
    let insert = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM {staging}");
    let inserted = tx.execute(&insert, &[]).await?;
    check_removed(load, before, deleted.saturating_sub(inserted))?;
    Ok(Loaded { inserted, deleted, ..Loaded::default() })
}

async fn apply(tx: &mut Tx, load: &Load, names: &Names, merge: &Merge) -> Result<Loaded, DataError> {
    check_keys(tx, names, merge).await?;
    keep_newest(tx, names, merge).await?;
    let Names { table, staging, columns, deletes } = names;
    let key: Vec<String> = merge.key.iter().map(|name| quoted(name)).collect();
    let same: Vec<String> = key.iter().map(|c| format!("s.{c} = t.{c}")).collect();
    let same = same.join(" AND ");
    let newer = match &merge.order_by {
        Some(by) => format!("(t.{0} IS NULL OR s.{0} > t.{0})", quoted(by)),
        None => "TRUE".to_owned(),
    };
    let kept = if *deletes { format!("NOT s.{}", quoted(DELETE_COLUMN)) } else { "TRUE".to_owned() };
    let mut loaded = Loaded::default();
    if *deletes {
        let before = tx.number(&format!("SELECT COUNT(*) FROM {table}"), &[]).await?;
        let delete = format!(
            "DELETE FROM {table} AS t WHERE EXISTS \
             (SELECT 1 FROM {staging} AS s WHERE {same} AND {newer} AND NOT ({kept}))"
        );
        loaded.deleted = tx.execute(&delete, &[]).await?;
        check_removed(load, before, loaded.deleted)?;
    }
    let values: Vec<&String> = columns.iter().filter(|c| !key.contains(c)).collect();
    if !values.is_empty() {
        let set: Vec<String> = values.iter().map(|c| format!("{c} = s.{c}")).collect();
        let differs: Vec<String> = values.iter().map(|c| format!("t.{c} IS DISTINCT FROM s.{c}")).collect();
        let update = format!(
            "UPDATE {table} AS t SET {} FROM {staging} AS s WHERE {same} AND {kept} AND {newer} AND ({})",
            set.join(", "),
            differs.join(" OR ")
        );
        loaded.updated = tx.execute(&update, &[]).await?;
    }
    let from: Vec<String> = columns.iter().map(|c| format!("s.{c}")).collect();
    let insert = format!(
        "INSERT INTO {table} ({}) SELECT {} FROM {staging} AS s \
         WHERE {kept} AND NOT EXISTS (SELECT 1 FROM {table} AS t WHERE {same})",
        columns.join(", "),
        from.join(", ")
    );
    loaded.inserted = tx.execute(&insert, &[]).await?;
    Ok(loaded)
}

/// Refuses null keys, and repeated keys if nothing says which row counts.
async fn check_keys(tx: &mut Tx, names: &Names, merge: &Merge) -> Result<(), DataError> {
    let staging = &names.staging;
    let key: Vec<String> = merge.key.iter().map(|name| quoted(name)).collect();
    let nulls: Vec<String> = key.iter().map(|c| format!("{c} IS NULL")).collect();
    let nulls =
        tx.number(&format!("SELECT COUNT(*) FROM {staging} WHERE {}", nulls.join(" OR ")), &[]).await?;
    if nulls > 0 {
        return Err(DataError::Permanent(format!(
            "{nulls} rows have no value in the key `{}`, a merge needs one in every row\n\
             hint: leave them out in a transform, and let a validate task watch them",
            merge.key.join(", ")
        )));
    }
    if merge.order_by.is_some() {
        return Ok(());
    }
    let shown: Vec<String> = key.iter().map(|c| format!("CAST({c} AS TEXT)")).collect();
    let (shown, key) = (shown.join(", "), key.join(", "));
    let repeated = format!("FROM {staging} GROUP BY {key} HAVING COUNT(*) > 1");
    let count = tx.number(&format!("SELECT COUNT(*) FROM (SELECT 1 AS one {repeated}) AS r"), &[]).await?;
    if count == 0 {
        return Ok(());
    }
    let sample =
        tx.texts(&format!("SELECT {shown} {repeated} ORDER BY {key} LIMIT {SAMPLE_KEYS}"), &[]).await?;
    let sample: Vec<String> = sample
        .into_iter()
        .map(|row| format!("`{}`", row.into_iter().flatten().collect::<Vec<_>>().join(", ")))
        .collect();
    Err(DataError::Permanent(format!(
        "{count} values of the key `{}` occur more than once, for instance {}\n\
         hint: `order_by` says which row counts",
        merge.key.join(", "),
        sample.join(", ")
    )))
}

/// Leaves one row per key in staging: the greatest by `order_by`, then by all other columns.
async fn keep_newest(tx: &mut Tx, names: &Names, merge: &Merge) -> Result<(), DataError> {
    let Some(by) = &merge.order_by else {
        return Ok(());
    };
    let staging = &names.staging;
    let key: Vec<String> = merge.key.iter().map(|name| quoted(name)).collect();
    let mut order = vec![quoted(by)];
    order.extend(names.columns.iter().filter(|c| !key.contains(c) && **c != quoted(by)).cloned());
    let order: Vec<String> = order.iter().map(|c| format!("{c} DESC NULLS LAST")).collect();
    // Differs because each database names the place of a row in its own way.
    let place = match tx.dialect() {
        Dialect::Sqlite => "rowid",
        Dialect::Postgres => "ctid",
    };
    let delete = format!(
        "DELETE FROM {staging} WHERE {place} IN (SELECT place FROM (SELECT {place} AS place, \
         ROW_NUMBER() OVER (PARTITION BY {} ORDER BY {}) AS rank FROM {staging}) AS r WHERE rank > 1)",
        key.join(", "),
        order.join(", ")
    );
    tx.execute(&delete, &[]).await?;
    Ok(())
}

fn check_removed(load: &Load, before: i64, removed: u64) -> Result<(), DataError> {
    let Some(share_max) = load.removed_share_max else {
        return Ok(());
    };
    let share = removed as f64 / before.max(1) as f64;
    if before == 0 || share <= share_max {
        return Ok(());
    }
    Err(DataError::Permanent(format!(
        "table `{}`: this load would remove {removed} of {before} rows ({:.1} %), at most {:.1} % may go\n\
         hint: if that is right, say `allow_shrink: true` or raise `max_delete_share`",
        load.table,
        share * 100.0,
        share_max * 100.0
    )))
}
