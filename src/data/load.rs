//! Loads: rows into a warehouse table, so that the same load twice is the same as once.
//!
//! Owns staging, the ledger and the modes. Rows go to a staging table of the attempt; then one transaction
//! checks the fence in the ledger, changes the table and drops the staging table. Readers see the table
//! before or after, never between. Whatever kills the process leaves at most a staging table, which a later
//! load of the same table sweeps. Does not know datasets or tasks.

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use sha2::{Digest, Sha256};

use super::warehouse::{Dialect, TableName, Tx, Warehouse, check_column, quoted};
use super::{DataError, hint_near};

mod ledger;
mod publish;

/// Marks the rows of one appending load, so that its repetition can replace them.
pub const LOAD_COLUMN: &str = "_mainspring_load";
/// In the batches of a merge, a boolean that is true where the row's key is to be deleted; not loaded.
pub const DELETE_COLUMN: &str = "_mainspring_delete";
/// Letters of the table's name in the name of its staging tables.
const STAGING_NAME_BYTES_MAX: usize = 24;

/// How rows meet what is in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadMode {
    /// They are added, marked in `_mainspring_load`; the same load again replaces what it added.
    Append,
    /// They take the place of all.
    Overwrite,
    /// They take the place of the rows whose values in these columns occur among them.
    OverwritePartitions(Vec<String>),
    /// By key.
    Merge(Merge),
}

/// Changes by key: a known key is updated, an unknown one inserted. A row whose [`DELETE_COLUMN`] is true
/// deletes its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The columns of the key; never null.
    pub key: Vec<String>,
    /// Of several rows with a key the one with the greatest value here counts, and only if it is greater
    /// than the stored one. Without it a key may occur once.
    pub order_by: Option<String>,
}

/// One load by one attempt.
#[derive(Debug, Clone)]
pub struct Load {
    /// The table; made if it is not there.
    pub table: TableName,
    /// How rows meet what is there.
    pub mode: LoadMode,
    /// Refused if it would remove a greater share of the table's rows (of the partitions'); `None` is no
    /// limit. A table that is new or empty has nothing to lose.
    pub removed_share_max: Option<f64>,
    /// `dag/run`.
    pub run_key: String,
    /// `task` or `task[map_index]`.
    pub task: String,
    /// The claim: a smaller one than the ledger has seen for this run and task is refused.
    pub fence: i64,
}

/// What a load did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Rows that came in.
    pub rows: u64,
    /// Rows added.
    pub inserted: u64,
    /// Rows changed in place.
    pub updated: u64,
    /// Rows removed, those that an overwrite puts others in place of included.
    pub deleted: u64,
}

impl Load {
    /// The name of this run, task and table in the ledger and in [`LOAD_COLUMN`]: 16 hexadecimal digits.
    fn id(&self) -> String {
        let mut hash = Sha256::new();
        for part in [&self.table.to_string(), &self.run_key, &self.task] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The staging table of this attempt.
    fn staging(&self) -> TableName {
        let table = &self.table.table[..self.table.table.len().min(STAGING_NAME_BYTES_MAX)];
        self.table.beside(format!("stg_{table}_{}_{}", self.id(), self.fence))
    }

    fn stale(&self) -> DataError {
        DataError::StaleFence(format!(
            "table `{}`: a newer attempt of task `{}` has begun to load, fence {} is too old",
            self.table, self.task, self.fence
        ))
    }
}

/// Loads `batches` into the table. Missing columns become null, new ones are added to the table as nullable.
///
/// # Errors
/// [`DataError::StaleFence`] if a newer attempt has begun; [`DataError::Permanent`] for unknown columns,
/// null or repeated keys, and too many removals; otherwise what the stream or the database says. Whatever
/// the error, the table is as it was.
pub async fn load(
    warehouse: &Warehouse,
    batches: SendableRecordBatchStream,
    load: &Load,
) -> Result<Loaded, DataError> {
    let schema = batches.schema();
    check_columns(&schema, load)?;
    let definitions = definitions(warehouse.dialect(), &schema)?;
    ledger::claim(warehouse, load).await?;
    ledger::sweep(warehouse, load).await?;
    let staging = load.staging();
    create_staging(warehouse, &staging, &definitions).await?;
    let done = async {
        let rows = warehouse.fill(&staging, batches).await?;
        publish::publish(warehouse, load, &staging, &definitions, rows).await
    }
    .await;
    if let Err(error) = &done
        && let Err(left) = drop_table(warehouse, &staging).await
    {
        tracing::warn!(%error, %left, table = %staging, "a staging table is left to a later load");
    }
    done
}

/// A column of the batches with its type in the warehouse.
struct Definition {
    name: String,
    column_type: String,
}

impl Definition {
    fn sql(&self) -> String {
        format!("{} {}", quoted(&self.name), self.column_type)
    }
}

fn definitions(dialect: Dialect, schema: &SchemaRef) -> Result<Vec<Definition>, DataError> {
    schema
        .fields()
        .iter()
        .map(|field| {
            check_column(field.name())?;
            let column_type = dialect.column_type(field.name(), field.data_type())?;
            Ok(Definition { name: field.name().clone(), column_type })
        })
        .collect()
}

fn check_columns(schema: &SchemaRef, load: &Load) -> Result<(), DataError> {
    let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let (wanted, by_key): (Vec<&String>, bool) = match &load.mode {
        LoadMode::Append | LoadMode::Overwrite => (Vec::new(), false),
        LoadMode::OverwritePartitions(by) => (by.iter().collect(), false),
        LoadMode::Merge(merge) => (merge.key.iter().chain(&merge.order_by).collect(), true),
    };
    let mut problems: Vec<String> = wanted
        .into_iter()
        .filter(|name| !known.contains(&name.as_str()))
        .map(|name| format!("there is no column `{name}`{}", hint_near(name, known.iter().copied())))
        .collect();
    if known.contains(&LOAD_COLUMN) || (known.contains(&DELETE_COLUMN) && !by_key) {
        problems.push(format!("columns called `{LOAD_COLUMN}` and `{DELETE_COLUMN}` are ours, rename them"));
    }
    if problems.is_empty() { Ok(()) } else { Err(DataError::Permanent(problems.join("\n"))) }
}

async fn create_staging(
    warehouse: &Warehouse,
    staging: &TableName,
    definitions: &[Definition],
) -> Result<(), DataError> {
    let columns: Vec<String> = definitions.iter().map(Definition::sql).collect();
    // Unlogged: a crash of the database empties it, and the next attempt begins with an empty one anyway.
    let create = match warehouse.dialect() {
        Dialect::Sqlite => "CREATE TABLE",
        Dialect::Postgres => "CREATE UNLOGGED TABLE",
    };
    let mut tx = warehouse.begin().await?;
    tx.execute(&drop_sql(staging), &[]).await?;
    tx.execute(&format!("{create} {} ({})", staging.quoted(), columns.join(", ")), &[]).await?;
    tx.commit().await
}

fn drop_sql(table: &TableName) -> String {
    format!("DROP TABLE IF EXISTS {}", table.quoted())
}

async fn drop_table(warehouse: &Warehouse, table: &TableName) -> Result<(), DataError> {
    let mut tx = warehouse.begin().await?;
    wait_briefly(&mut tx).await?;
    tx.execute(&drop_sql(table), &[]).await?;
    tx.commit().await
}

/// A dead attempt's connection may hold its staging table for a while; that must not hold up the living.
async fn wait_briefly(tx: &mut Tx) -> Result<(), DataError> {
    match tx.dialect() {
        Dialect::Sqlite => Ok(()),
        Dialect::Postgres => tx.execute("SET LOCAL lock_timeout = '2s'", &[]).await.map(|_| ()),
    }
}
