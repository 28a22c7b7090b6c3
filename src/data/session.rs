//! SQL over the lake: DataFusion with a memory limit, spilling to the lake's scratch folder.
//!
//! A statement sees every dataset by its name (`raw.orders`), or by its last part (`orders`) where that is
//! one dataset's alone. All are read at their newest version when the statement begins.
//!
//! Sums and averages of floats depend on the order of addition, which depends on threads and files. Where
//! the last digit matters, sum decimals (`CAST(amount AS DECIMAL(18,2))`) or round the result.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use datafusion::catalog::{MemoryCatalogProvider, MemorySchemaProvider};
use datafusion::common::SchemaError;
use datafusion::common::TableReference;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake_core::DeltaTableError;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::lake::{Lake, of_delta};
use super::sql::{Bound, Select, dataset_text};
use super::{DataError, DatasetName, hint_near};

/// What a statement may use when nothing is said.
pub const MEMORY_BYTES: usize = 512 << 20;
/// What a statement may spill to disk.
const SPILL_BYTES_MAX: u64 = 64 << 30;
/// The catalog and schema of DataFusion that names without a schema are looked up in.
const CATALOG: &str = "datafusion";

/// What a statement may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory of sorts, aggregates and joins, in bytes; beyond it they spill (hash joins fail).
    pub memory_bytes: usize,
    /// Threads; `None` is one per core.
    pub threads: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: MEMORY_BYTES, threads: None }
    }
}

/// The rows of a statement, and the datasets it reads with their versions.
pub struct Selected {
    /// The rows, computed as they are asked for.
    pub rows: SendableRecordBatchStream,
    /// Each dataset read, and its version.
    pub inputs: Vec<(DatasetName, i64)>,
}

/// An empty session that spills under `scratch`.
///
/// # Errors
/// [`DataError::Retryable`] if `scratch` cannot be used.
pub fn context(scratch: &Path, limits: Limits) -> Result<SessionContext, DataError> {
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![scratch.to_owned()]))
        .with_max_temp_directory_size(SPILL_BYTES_MAX);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory_bytes)))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(of_datafusion)?;
    let mut config = SessionConfig::new();
    if let Some(threads) = limits.threads {
        config = config.with_target_partitions(threads.max(1));
    }
    let share = limits.memory_bytes / (8 * config.target_partitions().max(1));
    let reservation = config.options().execution.sort_spill_reservation_bytes.min(share);
    config.options_mut().execution.sort_spill_reservation_bytes = reservation;
    Ok(SessionContext::new_with_config_rt(config, runtime))
}

/// Runs a SELECT over the lake's datasets, with `values` for its `:name`s.
///
/// # Errors
/// [`DataError::Permanent`] for names that do not exist, with the near name, and for what DataFusion
/// refuses; errors while rows are computed come out of the stream (see [`of_datafusion`]).
pub fn select<'a>(
    lake: &'a Lake,
    statement: Select,
    values: &'a BTreeMap<String, Bound>,
    limits: Limits,
) -> BoxFuture<'a, Result<Selected, DataError>> {
    async move {
        let session = context(lake.scratch(), limits)?;
        let tables = statement.tables().map_err(|problem| DataError::Permanent(problem.to_string()))?;
        let statement = statement.bind(values)?;
        let inputs = register(lake, &session, tables).await?;
        let plan = session.state().statement_to_plan(statement).await.map_err(of_datafusion)?;
        let reading =
            SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan).map_err(of_datafusion)?;
        let frame = session.execute_logical_plan(plan).await.map_err(of_datafusion)?;
        let rows = frame.execute_stream().await.map_err(of_datafusion)?;
        Ok(Selected { rows, inputs })
    }
    .boxed()
}

async fn register(
    lake: &Lake,
    session: &SessionContext,
    tables: Vec<TableReference>,
) -> Result<Vec<(DatasetName, i64)>, DataError> {
    let (mut problems, mut inputs) = (Vec::new(), Vec::new());
    for table in tables {
        let dataset = match find(lake, &dataset_text(&table)).await? {
            Ok(dataset) => dataset,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let (provider, version) = lake.table(&dataset, None).await?;
        make_room(session, &table);
        session.register_table(table, provider).map_err(of_datafusion)?;
        inputs.push((dataset, version));
    }
    if problems.is_empty() { Ok(inputs) } else { Err(DataError::Permanent(problems.join("\n"))) }
}

/// The dataset that SQL calls `text`; the inner error is for people.
async fn find(lake: &Lake, text: &str) -> Result<Result<DatasetName, String>, DataError> {
    if let Ok(name) = DatasetName::parse(text)
        && lake.exists(&name).await?
    {
        return Ok(Ok(name));
    }
    let known = lake.list().await?;
    let same = |name: &&DatasetName| {
        let name = name.as_str();
        name.eq_ignore_ascii_case(text)
            || name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case(text))
    };
    let found: Vec<_> = known.iter().filter(same).collect();
    Ok(match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            let hint = hint_near(text, known.iter().map(DatasetName::as_str));
            Err(format!("there is no dataset `{text}`{hint}"))
        }
        several => {
            let names: Vec<_> = several.iter().map(|name| name.as_str()).collect();
            Err(format!("`{text}` may be `{}`; write the whole name", names.join("` or `")))
        }
    })
}

/// Makes the schema (and catalog) that `table` is to be registered in.
fn make_room(session: &SessionContext, table: &TableReference) {
    let Some(schema) = table.schema() else { return };
    let name = table.catalog().unwrap_or(CATALOG);
    let catalog = session.catalog(name).unwrap_or_else(|| {
        let catalog = Arc::new(MemoryCatalogProvider::new());
        session.register_catalog(name, Arc::clone(&catalog) as _);
        catalog
    });
    if catalog.schema(schema).is_none() {
        // Memory catalogs accept any schema; if this one did not, registering the table says so.
        catalog.register_schema(schema, Arc::new(MemorySchemaProvider::new())).ok();
    }
}

/// What DataFusion says, in words for people, by whether trying again may help. A [`DataError`] that went
/// through a stream comes out as it went in.
#[must_use]
pub fn of_datafusion(error: DataFusionError) -> DataError {
    let mut source: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(inner) = source {
        if let Some(ours) = inner.downcast_ref::<DataError>() {
            return ours.clone();
        }
        if inner.downcast_ref::<object_store::Error>().is_some()
            || inner.downcast_ref::<std::io::Error>().is_some()
        {
            return DataError::Retryable(error.strip_backtrace());
        }
        source = inner.source();
    }
    if let DataFusionError::External(inner) = error {
        return match inner.downcast::<DeltaTableError>() {
            Ok(delta) => of_delta(*delta),
            Err(other) => DataError::Permanent(other.to_string()),
        };
    }
    let root = error.find_root();
    if let DataFusionError::SchemaError(schema, _) = root
        && let SchemaError::FieldNotFound { field, valid_fields } = schema.as_ref()
    {
        let hint = hint_near(&field.name, valid_fields.iter().map(|known| known.name.as_str()));
        return DataError::Permanent(format!("there is no column `{}`{hint}", field.flat_name()));
    }
    if let DataFusionError::ResourcesExhausted(_) = root {
        let text = root.strip_backtrace();
        return DataError::Permanent(format!("{text}\nhint: give the task a larger `memory_limit`"));
    }
    DataError::Permanent(for_people(&root.strip_backtrace()))
}

/// Prefixes by which DataFusion and Arrow say which of their layers is speaking.
const LAYERS: &[&str] = &[
    "Error during planning: ",
    "Execution error: ",
    "Schema error: ",
    "SQL error: ",
    "Arrow error: ",
    "Cast error: ",
    "Compute error: ",
    "Parser error: ",
    "Invalid argument error: ",
];

/// The message itself: without the layers it came through, its suggestion as a hint.
fn for_people(text: &str) -> String {
    let mut words = text.trim();
    while let Some(inner) = LAYERS.iter().find_map(|layer| words.strip_prefix(layer)) {
        words = inner;
    }
    let mut chars = words.trim_end_matches('.').chars();
    let first = chars.next().map(|first| first.to_ascii_lowercase());
    let message: String = first.into_iter().chain(chars).collect();
    message
        .replace(".\nDid you mean", "\nhint: did you mean")
        .replace("\nDid you mean", "\nhint: did you mean")
}

/// A [`DataError`] on its way through a stream of rows.
#[must_use]
pub fn in_stream(error: DataError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
