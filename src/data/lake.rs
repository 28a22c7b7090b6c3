//! The lake: datasets as Delta Lake tables under one root. Every write is one commit keyed by the task
//! instance and fence that made it.
//!
//! What delta-rs gives: the log, its checkpoints, the Parquet writer and the scan. What is decided here
//! and in `commit`: which files a write replaces, the fence, conflicts, the columns.
//!
//! # Promises
//! - A reader sees a whole version. A process killed at any moment leaves the version before or the new
//!   one; files without a commit are invisible and swept by [`Lake::vacuum`].
//! - A second write under one key replaces the first, in every mode. Its fence must not be smaller.
//! - On a local folder the rows are on disk (`fsync`) before the commit that names them, and the commit
//!   before `write` returns.
//! - Rows have no order, and files are not the same bytes from write to write; the content is.
//!
//! The key of a write is remembered by the folder its files lie in; do not rewrite ("optimize") a dataset
//! that is appended to with other tools while its runs may still be repeated.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::operations::vacuum::VacuumMode;
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path as StorePath;
use object_store::prefix::PrefixStore;
use reqwest::Url;
use serde_json::Value;

use super::commit::{COMMIT_NOTE, CURSOR_PROPERTY, Proposal, check_fence, commit};
use super::schema::{evolved, kept_schema};
use super::session::of_datafusion;
use super::staging::{Staged, folder, stage};
use super::{DataError, DatasetName, durable, hint_near};

/// Which attempt writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteKey {
    /// `dag/run/task/map_index`: a write under the same key replaces what that key wrote before.
    pub app_id: String,
    /// The claim: a smaller one than the last committed is refused.
    pub fence: i64,
}

/// How a write meets what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteMode {
    /// The dataset is replaced, columns and partitions included.
    Overwrite,
    /// Rows are added; a second write under the same key replaces the first.
    Append,
    /// The partitions that occur in the input are replaced, and what the same key wrote before.
    OverwritePartitions,
}

/// What a write made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The Delta version.
    pub version: i64,
    /// Rows written.
    pub rows: u64,
    /// Bytes of the files written.
    pub bytes: u64,
}

/// How far a write carries the cursor of an incremental source; committed with the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorMove {
    /// Rows after this one were read; nothing if the source was read from its start.
    pub from: Option<Value>,
    /// Up to and including this one.
    pub to: Value,
    /// This key has committed this window before and does it again: the cursor itself stays.
    pub repeated: bool,
}

/// A dataset at one version.
#[derive(Debug, Clone)]
pub struct Described {
    /// The Delta version.
    pub version: i64,
    /// Its columns; all may be null.
    pub schema: SchemaRef,
    /// The columns whose values name a partition.
    pub partition_by: Vec<String>,
    /// Rows.
    pub rows: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its files.
    pub files: u64,
    /// How far its cursor has come, if it has one.
    pub cursor: Option<Value>,
    /// Who wrote, newest first, as far as the log goes back (30 days).
    pub commits: Vec<Committed>,
}

/// One write of a dataset, from its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Who.
    pub key: WriteKey,
    /// Rows written.
    pub rows: u64,
    /// The window of the cursor, if it had one: after the first, up to the second.
    pub cursor: Option<(Option<Value>, Value)>,
}

/// All datasets under one root. Cheap to clone.
#[derive(Clone)]
pub struct Lake(Arc<Inner>);

struct Inner {
    root: Url,
    /// The store that `root` is in, from its own top.
    store: Arc<dyn ObjectStore>,
    /// The place of `root` in the store.
    prefix: StorePath,
    /// The root as a folder, if it is one.
    folder: Option<PathBuf>,
    scratch: PathBuf,
}

impl Lake {
    /// A lake under `root`: a folder, a `file://` URL, or any URL that `object_store` knows (`s3://bucket/lake`,
    /// `memory:///`). `scratch` is a folder on a local disk for what does not fit in memory.
    ///
    /// # Errors
    /// [`DataError::Permanent`] for a URL that cannot be used, [`DataError::Retryable`] if a folder cannot
    /// be created.
    pub fn open(root: &str, scratch: &Path) -> Result<Self, DataError> {
        Self::open_with(root, scratch, &BTreeMap::new())
    }

    /// As [`open`](Self::open), with the options of the object store (`aws_region`, `aws_endpoint`, …).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(
        root: &str,
        scratch: &Path,
        options: &BTreeMap<String, String>,
    ) -> Result<Self, DataError> {
        let bad = |why: String| DataError::Permanent(format!("lake `{root}`: {why}"));
        create_folder(scratch)?;
        let scratch = scratch.to_owned();
        let local = match Url::parse(root) {
            Ok(url) if url.scheme() == "file" => {
                Some(url.to_file_path().map_err(|()| bad("not a path of this machine".to_owned()))?)
            }
            Ok(_) => None,
            Err(_) => Some(PathBuf::from(root)),
        };
        if let Some(path) = local {
            create_folder(&path)?;
            let path = path.canonicalize().map_err(|error| bad(error.to_string()))?;
            let root = Url::from_directory_path(&path).map_err(|()| bad("not a folder".to_owned()))?;
            let prefix = StorePath::from_absolute_path(&path).map_err(|error| bad(error.to_string()))?;
            let store = Arc::new(LocalFileSystem::new());
            return Ok(Self(Arc::new(Inner { root, store, prefix, folder: Some(path), scratch })));
        }
        let mut url = Url::parse(root).map_err(|error| bad(error.to_string()))?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let (store, prefix) =
            object_store::parse_url_opts(&url, options).map_err(|error| bad(error.to_string()))?;
        Ok(Self(Arc::new(Inner { root: url, store: store.into(), prefix, folder: None, scratch })))
    }

    /// The folder for what does not fit in memory.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.0.scratch
    }

    /// Writes a dataset in one commit; readers see the whole version or the one before. No rows make an
    /// empty dataset with the input's columns. With [`WriteMode::Append`] and
    /// [`WriteMode::OverwritePartitions`] an empty `partition_by` means the partitions there are.
    ///
    /// # Errors
    /// [`DataError::StaleFence`] if a newer claim has written under the same key; [`DataError::Permanent`]
    /// for columns that do not fit; [`DataError::Retryable`] for the store and for too many rivals.
    pub async fn write(
        &self,
        dataset: &DatasetName,
        batches: SendableRecordBatchStream,
        mode: WriteMode,
        partition_by: &[String],
        key: &WriteKey,
    ) -> Result<Written, DataError> {
        self.write_moving(dataset, batches, mode, partition_by, key, None).await
    }

    /// As [`write`](Self::write), and moves the dataset's cursor in the same commit.
    ///
    /// # Errors
    /// As [`write`](Self::write); [`DataError::Retryable`] if another run has moved the cursor since.
    pub fn write_moving<'a>(
        &'a self,
        dataset: &'a DatasetName,
        batches: SendableRecordBatchStream,
        mode: WriteMode,
        partition_by: &'a [String],
        key: &'a WriteKey,
        cursor: Option<&'a CursorMove>,
    ) -> BoxFuture<'a, Result<Written, DataError>> {
        async move {
            let log = self.log(dataset);
            let input = kept_schema(&batches.schema())?;
            let there = open(&log, None).await?;
            let state = there.as_ref().map(DeltaTable::snapshot).transpose().map_err(of_delta)?;
            if let Some(state) = state {
                check_fence(&log, state, dataset, key).await?;
            }
            let (schema, partition_by) = shape(dataset, state, &input, &mode, partition_by)?;
            let folder = folder(key);
            self.make_folder(dataset, &folder)?;
            let staged = stage(log.object_store(None), &folder, schema, &partition_by, batches).await?;
            self.sync_rows(dataset, &staged).await?;
            let proposal =
                Proposal { dataset, mode: &mode, partition_by: &partition_by, key, staged: &staged, cursor };
            let version = commit(&log, &proposal).await?;
            self.sync_log(dataset, version).await?;
            Ok(Written { version, rows: staged.rows, bytes: staged.bytes })
        }
        .boxed()
    }

    /// The dataset as a table for DataFusion, at `version` or the newest, with the version it is at.
    ///
    /// # Errors
    /// [`DataError::Permanent`] with the near name if there is no such dataset.
    pub async fn table(
        &self,
        dataset: &DatasetName,
        version: Option<i64>,
    ) -> Result<(Arc<dyn TableProvider>, i64), DataError> {
        let table = self.load(dataset, version).await?;
        let version = table.version().and_then(|v| i64::try_from(v).ok()).unwrap_or_default();
        let provider = table.table_provider().into_future().await.map_err(of_datafusion)?;
        Ok((provider, version))
    }

    /// What the dataset is at its newest version.
    ///
    /// # Errors
    /// [`DataError::Permanent`] with the near name if there is no such dataset.
    pub fn describe<'a>(&'a self, dataset: &'a DatasetName) -> BoxFuture<'a, Result<Described, DataError>> {
        async move {
            let table = self.load(dataset, None).await?;
            let state = table.snapshot().map_err(of_delta)?;
            let files = state.log_data();
            let commits = table.history(None).try_collect::<Vec<_>>().await.map_err(of_delta)?;
            let cursor = state.metadata().configuration().get(CURSOR_PROPERTY);
            Ok(Described {
                version: i64::try_from(state.version()).unwrap_or_default(),
                schema: kept_schema(&state.snapshot().arrow_schema())?,
                partition_by: state.metadata().partition_columns().to_vec(),
                rows: files.iter().map(|file| file.num_records().unwrap_or_default() as u64).sum(),
                bytes: files.iter().map(|file| u64::try_from(file.size()).unwrap_or_default()).sum(),
                files: files.num_files() as u64,
                cursor: cursor.and_then(|text| serde_json::from_str(text).ok()),
                commits: commits.iter().filter_map(|info| committed(info.info.get(COMMIT_NOTE)?)).collect(),
            })
        }
        .boxed()
    }

    /// Whether the dataset exists.
    ///
    /// # Errors
    /// [`DataError::Retryable`] if the store does not answer.
    pub async fn exists(&self, dataset: &DatasetName) -> Result<bool, DataError> {
        self.log(dataset).is_delta_table_location().await.map_err(of_delta)
    }

    /// Whether `key`'s task instance has written the dataset before, under any fence.
    ///
    /// # Errors
    /// [`DataError::Retryable`] if the store does not answer.
    pub async fn was_written_by(&self, dataset: &DatasetName, key: &WriteKey) -> Result<bool, DataError> {
        let log = self.log(dataset);
        let Some(table) = open(&log, None).await? else { return Ok(false) };
        let state = table.snapshot().map_err(of_delta)?;
        let last = state.transaction_version(log.as_ref(), &key.app_id).await.map_err(of_delta)?;
        Ok(last.is_some())
    }

    /// All datasets, by name.
    ///
    /// # Errors
    /// [`DataError::Retryable`] if the store does not answer.
    pub async fn list(&self) -> Result<Vec<DatasetName>, DataError> {
        let found = self.0.store.list_with_delimiter(Some(&self.0.prefix)).await.map_err(of_store)?;
        let mut names = Vec::new();
        for folder in found.common_prefixes {
            let Some(Ok(name)) = folder.filename().map(DatasetName::parse) else { continue };
            if self.exists(&name).await? {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Deletes the files that no version younger than `retention` needs, staged files without a commit
    /// included; gives their number. `retention` must be longer than the longest write and the longest
    /// read: a file younger than it is never touched.
    ///
    /// # Errors
    /// As [`describe`](Self::describe).
    pub fn vacuum<'a>(
        &'a self,
        dataset: &'a DatasetName,
        retention: Duration,
    ) -> BoxFuture<'a, Result<usize, DataError>> {
        async move {
            let period = chrono::Duration::from_std(retention)
                .map_err(|_| DataError::Permanent("the retention is too long".to_owned()))?;
            let vacuum = self
                .load(dataset, None)
                .await?
                .vacuum()
                .with_retention_period(period)
                .with_enforce_retention_duration(false)
                .with_mode(VacuumMode::Full);
            let (_, metrics) = vacuum.await.map_err(of_delta)?;
            Ok(metrics.files_deleted.len())
        }
        .boxed()
    }

    fn log(&self, dataset: &DatasetName) -> LogStoreRef {
        let url =
            self.0.root.join(&format!("{dataset}/")).expect("the letters of a dataset's name are a URL's");
        let inside =
            PrefixStore::new(Arc::clone(&self.0.store), self.0.prefix.clone().join(dataset.as_str()));
        default_logstore(Arc::new(inside), Arc::clone(&self.0.store), &url, &StorageConfig::default())
    }

    async fn load(&self, dataset: &DatasetName, version: Option<i64>) -> Result<DeltaTable, DataError> {
        if let Some(table) = open(&self.log(dataset), version).await? {
            return Ok(table);
        }
        if version.is_some() && self.exists(dataset).await? {
            return Err(DataError::Permanent(format!(
                "dataset `{dataset}` has no version {} (any more)",
                version.unwrap_or_default()
            )));
        }
        let names = self.list().await?;
        let hint = hint_near(dataset.as_str(), names.iter().map(DatasetName::as_str));
        Err(DataError::Permanent(format!("there is no dataset `{dataset}`{hint}")))
    }

    /// The folder that a write's files go to, if the lake is a folder: who may not write there is told so
    /// before anything is read.
    fn make_folder(&self, dataset: &DatasetName, folder: &str) -> Result<(), DataError> {
        let Some(root) = &self.0.folder else { return Ok(()) };
        let path = root.join(dataset.as_str()).join(folder);
        std::fs::create_dir_all(&path).map_err(|error| {
            DataError::Retryable(format!("the folder {} of the lake cannot be made: {error}", path.display()))
        })
    }

    async fn sync_rows(&self, dataset: &DatasetName, staged: &Staged) -> Result<(), DataError> {
        let Some(root) = &self.0.folder else { return Ok(()) };
        let files = staged.files.iter().map(|file| root.join(dataset.as_str()).join(&file.path)).collect();
        durable::sync(root.clone(), files).await.map_err(|error| of_disk(root, &error))
    }

    async fn sync_log(&self, dataset: &DatasetName, version: i64) -> Result<(), DataError> {
        let Some(root) = &self.0.folder else { return Ok(()) };
        let entry = root.join(dataset.as_str()).join(format!("_delta_log/{version:020}.json"));
        durable::sync(root.clone(), vec![entry]).await.map_err(|error| of_disk(root, &error))
    }
}

/// The columns and partitions that files of this write have.
fn shape(
    dataset: &DatasetName,
    state: Option<&DeltaTableState>,
    input: &SchemaRef,
    mode: &WriteMode,
    partition_by: &[String],
) -> Result<(SchemaRef, Vec<String>), DataError> {
    let refuse = |why: String| Err(DataError::Permanent(format!("dataset `{dataset}`: {why}")));
    let (schema, partitions) = match (state, mode) {
        (Some(state), WriteMode::Append | WriteMode::OverwritePartitions) => {
            let there = kept_schema(&state.snapshot().arrow_schema())?;
            let partitions = state.metadata().partition_columns().to_vec();
            if !partition_by.is_empty() && partition_by != partitions {
                return refuse(format!(
                    "it is partitioned by `{}`, the task says `{}`; `mode: overwrite` would change it",
                    partitions.join("`, `"),
                    partition_by.join("`, `")
                ));
            }
            (evolved(dataset.as_str(), &there, input)?, partitions)
        }
        (None, _) | (Some(_), WriteMode::Overwrite) => (Arc::clone(input), partition_by.to_vec()),
    };
    for name in &partitions {
        if schema.field_with_name(name).is_err() {
            let hint = hint_near(name, schema.fields().iter().map(|field| field.name().as_str()));
            return refuse(format!(
                "`partition_by` names the column `{name}`, which the rows do not have{hint}"
            ));
        }
    }
    if partitions.len() == schema.fields().len() {
        return refuse("`partition_by` names every column; one must be left for the files".to_owned());
    }
    if *mode == WriteMode::OverwritePartitions && partitions.is_empty() {
        return refuse("partitions can only be replaced where `partition_by` names some".to_owned());
    }
    Ok((schema, partitions))
}

fn committed(note: &Value) -> Option<Committed> {
    let window = note.get("cursor").map(|cursor| {
        let from = cursor.get("from").filter(|from| !from.is_null()).cloned();
        (from, cursor.get("to").cloned().unwrap_or_default())
    });
    Some(Committed {
        key: WriteKey {
            app_id: note.get("app_id")?.as_str()?.to_owned(),
            fence: note.get("fence")?.as_i64()?,
        },
        rows: note.get("rows")?.as_u64()?,
        cursor: window,
    })
}

/// The table at `version` or the newest; `None` if there is none.
pub(crate) async fn open(log: &LogStoreRef, version: Option<i64>) -> Result<Option<DeltaTable>, DataError> {
    if !log.is_delta_table_location().await.map_err(of_delta)? {
        return Ok(None);
    }
    let mut table = DeltaTable::new(Arc::clone(log));
    let loaded = match version.map(u64::try_from) {
        None => table.load().await,
        Some(Ok(version)) => table.load_version(version).await,
        Some(Err(_)) => return Ok(None),
    };
    match loaded {
        Ok(()) => Ok(Some(table)),
        Err(DeltaTableError::InvalidVersion(_) | DeltaTableError::NotATable(_)) => Ok(None),
        Err(_) if version.is_some() => Ok(None),
        Err(error) => Err(of_delta(error)),
    }
}

fn create_folder(path: &Path) -> Result<(), DataError> {
    std::fs::create_dir_all(path).map_err(|error| of_disk(path, &error))
}

fn of_disk(path: &Path, error: &std::io::Error) -> DataError {
    DataError::Retryable(format!("{}: {error}", path.display()))
}

fn of_store(error: object_store::Error) -> DataError {
    of_delta(DeltaTableError::ObjectStore { source: error })
}

/// What delta-rs says, by whether trying again may help.
pub(crate) fn of_delta(error: DeltaTableError) -> DataError {
    let text = format!("the lake: {error}");
    let wrong = matches!(
        error,
        DeltaTableError::Arrow { .. }
            | DeltaTableError::InvalidJsonLog { .. }
            | DeltaTableError::InvalidData { .. }
            | DeltaTableError::SchemaMismatch { .. }
            | DeltaTableError::PartitionError { .. }
            | DeltaTableError::ObjectStore { source: object_store::Error::NotSupported { .. } }
    );
    if wrong { DataError::Permanent(text) } else { DataError::Retryable(text) }
}
