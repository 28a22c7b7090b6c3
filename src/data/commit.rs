//! One write, one commit of the Delta log: which files go, which come, and who says so.
//!
//! A commit is made against exactly the version that was looked at. If another writer was first, we look
//! again and decide again (fence, files to replace, columns), so writes are serialisable without trusting
//! anybody else's idea of a conflict. The files of rows are written once and stay valid throughout.

use std::collections::{HashMap, HashSet};

use datafusion::arrow::datatypes::Schema;
use deltalake_core::DeltaTable;
use deltalake_core::DeltaTableError;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{
    Action, Add, Metadata, MetadataExt, Protocol, StructType, Transaction, new_metadata,
};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use serde_json::{Value, json};

use super::lake::{CursorMove, WriteKey, WriteMode, of_delta, open};
use super::schema::evolved;
use super::staging::{Staged, folder};
use super::{DataError, DatasetName};

/// How often a commit is tried against a newer version before the attempt fails.
const COMMITS_MAX: u32 = 64;
/// The member of a commit's information that is ours.
pub(crate) const COMMIT_NOTE: &str = "mainspring";
/// The table property that holds how far a cursor has come, as JSON.
pub(crate) const CURSOR_PROPERTY: &str = "mainspring.cursor";

/// A write that is ready but for its commit.
pub(crate) struct Proposal<'a> {
    pub(crate) dataset: &'a DatasetName,
    pub(crate) mode: &'a WriteMode,
    pub(crate) partition_by: &'a [String],
    pub(crate) key: &'a WriteKey,
    pub(crate) staged: &'a Staged,
    pub(crate) cursor: Option<&'a CursorMove>,
}

/// Refuses a key whose newest commit was made under a greater fence.
pub(crate) async fn check_fence(
    log: &LogStoreRef,
    state: &DeltaTableState,
    dataset: &DatasetName,
    key: &WriteKey,
) -> Result<(), DataError> {
    let last = state.transaction_version(log.as_ref(), &key.app_id).await.map_err(of_delta)?;
    match last {
        Some(fence) if fence > key.fence => Err(DataError::StaleFence(format!(
            "`{}` has written dataset `{dataset}` under fence {fence}, this attempt holds {}",
            key.app_id, key.fence
        ))),
        _ => Ok(()),
    }
}

/// Commits, and gives the new version.
pub(crate) async fn commit(log: &LogStoreRef, proposal: &Proposal<'_>) -> Result<i64, DataError> {
    for _ in 0..COMMITS_MAX {
        let table = open(log, None).await?;
        let state = table.as_ref().map(DeltaTable::snapshot).transpose().map_err(of_delta)?;
        if let Some(state) = state {
            check_fence(log, state, proposal.dataset, proposal.key).await?;
        }
        let actions = actions(state, proposal)?;
        let prepared = builder(proposal).with_actions(actions).build(
            state.map(|state| state as _),
            log.clone(),
            operation(proposal),
        );
        let prepared = prepared.into_prepared_commit_future().await.map_err(of_delta)?;
        match prepared.await {
            Ok(done) => {
                let version = i64::try_from(done.version).expect("versions count from 0 in steps of 1");
                // From here on the version exists; what follows is a checkpoint that helps readers.
                if let Err(error) = done.await {
                    tracing::warn!(dataset = %proposal.dataset, version, %error, "no checkpoint was written");
                }
                return Ok(version);
            }
            Err(error) if somebody_was_first(&error) => {}
            Err(error) => return Err(of_delta(error)),
        }
    }
    Err(DataError::Retryable(format!(
        "dataset `{}`: other writers were first {COMMITS_MAX} times in a row",
        proposal.dataset
    )))
}

fn somebody_was_first(error: &DeltaTableError) -> bool {
    matches!(
        error,
        DeltaTableError::VersionAlreadyExists(_)
            | DeltaTableError::Transaction {
                source: TransactionError::MaxCommitAttempts(_)
                    | TransactionError::VersionAlreadyExists(_)
                    | TransactionError::CommitConflict(_)
            }
    )
}

fn builder(proposal: &Proposal<'_>) -> CommitBuilder {
    let key = proposal.key;
    let mut note = json!({ "app_id": key.app_id, "fence": key.fence, "rows": proposal.staged.rows });
    if let Some(cursor) = proposal.cursor {
        note["cursor"] = json!({ "from": cursor.from, "to": cursor.to });
    }
    CommitProperties::default()
        .with_max_retries(0)
        .with_metadata([(COMMIT_NOTE.to_owned(), note)])
        .with_application_transaction(Transaction::new(&key.app_id, key.fence))
        .into()
}

fn operation(proposal: &Proposal<'_>) -> DeltaOperation {
    let mode = match proposal.mode {
        WriteMode::Append => SaveMode::Append,
        WriteMode::Overwrite | WriteMode::OverwritePartitions => SaveMode::Overwrite,
    };
    DeltaOperation::Write { mode, partition_by: Some(proposal.partition_by.to_vec()), predicate: None }
}

/// What the commit says: columns if they change, files that go, files that come.
fn actions(state: Option<&DeltaTableState>, proposal: &Proposal<'_>) -> Result<Vec<Action>, DataError> {
    let mut actions = Vec::new();
    if state.is_none() {
        let protocol: Protocol =
            serde_json::from_value(json!({ "minReaderVersion": 1, "minWriterVersion": 2 }))
                .map_err(|error| DataError::Permanent(error.to_string()))?;
        actions.push(Action::Protocol(protocol));
    }
    if let Some(metadata) = metadata(state, proposal)? {
        actions.push(Action::Metadata(metadata));
    }
    if let Some(state) = state {
        let goes = replaced(proposal);
        let files = state.log_data();
        actions.extend(
            files
                .iter()
                .filter(|file| goes(&file.path(), &file.partition_values_map()))
                .map(|file| Action::Remove(file.remove_action(true))),
        );
    }
    actions.extend(proposal.staged.files.iter().cloned().map(Action::Add));
    Ok(actions)
}

/// Tells the files of the version before that this write replaces.
fn replaced<'a>(proposal: &'a Proposal<'_>) -> impl Fn(&str, &HashMap<String, Option<String>>) -> bool + 'a {
    let own = format!("{}/", folder(proposal.key));
    let partitions: HashSet<Vec<(&String, &Option<String>)>> =
        proposal.staged.files.iter().map(|file: &Add| sorted(&file.partition_values)).collect();
    move |path, values| match proposal.mode {
        WriteMode::Overwrite => true,
        WriteMode::Append => path.starts_with(&own),
        WriteMode::OverwritePartitions => path.starts_with(&own) || partitions.contains(&sorted(values)),
    }
}

fn sorted(values: &HashMap<String, Option<String>>) -> Vec<(&String, &Option<String>)> {
    let mut values: Vec<_> = values.iter().collect();
    values.sort();
    values
}

/// The table's new description, if it changes.
fn metadata(state: Option<&DeltaTableState>, proposal: &Proposal<'_>) -> Result<Option<Metadata>, DataError> {
    let there = state.map(DeltaTableState::metadata);
    let mut configuration = there.map(|there| there.configuration().clone()).unwrap_or_default();
    if let Some(cursor) = proposal.cursor {
        move_cursor(&mut configuration, proposal, cursor)?;
    }
    let given = proposal.staged.schema.as_ref();
    let schema = match (state, proposal.mode) {
        (None, _) | (Some(_), WriteMode::Overwrite) => kernel_schema(given)?,
        (Some(state), WriteMode::Append | WriteMode::OverwritePartitions) => {
            let columns = state.snapshot().arrow_schema();
            let columns = super::schema::kept_schema(&columns)?;
            kernel_schema(&*evolved(proposal.dataset.as_str(), &columns, given)?)?
        }
    };
    let Some(there) = there else {
        return new_metadata(&schema, proposal.partition_by, configuration).map(Some).map_err(of_kernel);
    };
    if !matches!(proposal.mode, WriteMode::Overwrite) && there.partition_columns() != proposal.partition_by {
        return Err(DataError::Retryable(format!(
            "dataset `{}`: another writer has changed its partitions meanwhile",
            proposal.dataset
        )));
    }
    let unchanged = there.parse_schema().is_ok_and(|known| known == schema)
        && there.partition_columns() == proposal.partition_by
        && *there.configuration() == configuration;
    if unchanged {
        return Ok(None);
    }
    new_metadata(&schema, proposal.partition_by, configuration)
        .and_then(|metadata| metadata.with_table_id(there.id().to_owned()))
        .map(Some)
        .map_err(of_kernel)
}

fn of_kernel(error: impl Into<DeltaTableError>) -> DataError {
    of_delta(error.into())
}

fn kernel_schema(schema: &Schema) -> Result<StructType, DataError> {
    schema.try_into_kernel().map_err(|error| DataError::Permanent(error.to_string()))
}

/// Advances the cursor with the rows, or refuses if another run has advanced it since it was read. The
/// window of a run that is repeated was committed before and moves nothing.
fn move_cursor(
    configuration: &mut HashMap<String, String>,
    proposal: &Proposal<'_>,
    cursor: &CursorMove,
) -> Result<(), DataError> {
    if cursor.repeated {
        return Ok(());
    }
    let there: Option<Value> =
        configuration.get(CURSOR_PROPERTY).and_then(|text| serde_json::from_str(text).ok());
    if there != cursor.from {
        return Err(DataError::Retryable(format!(
            "dataset `{}`: another run has moved the cursor since it was read",
            proposal.dataset
        )));
    }
    configuration.insert(CURSOR_PROPERTY.to_owned(), cursor.to.to_string());
    Ok(())
}
