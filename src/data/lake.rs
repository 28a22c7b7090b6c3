//! The lake: datasets as Delta Lake tables under one root. Every write is one commit keyed by the task
//! instance and fence that made it.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::execution::SendableRecordBatchStream;

use super::{DataError, DatasetName};

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
    /// The dataset is replaced.
    Overwrite,
    /// Rows are added; a second write under the same key replaces the first.
    Append,
    /// The partitions that occur in the input are replaced.
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

/// All datasets under one root.
#[derive(Clone)]
pub struct Lake {}

impl Lake {
    /// Writes a dataset in one commit; readers see the whole version or the one before.
    ///
    /// # Errors
    /// [`DataError::StaleFence`] if a newer claim has written under the same key.
    pub async fn write(
        &self,
        _dataset: &DatasetName,
        _batches: SendableRecordBatchStream,
        _mode: WriteMode,
        _partition_by: &[String],
        _key: &WriteKey,
    ) -> Result<Written, DataError> {
        todo!()
    }

    /// The dataset as a table for DataFusion, at `version` or the newest, with the version it is at.
    ///
    /// # Errors
    /// [`DataError::Permanent`] with the near name if there is no such dataset.
    pub async fn table(
        &self,
        _dataset: &DatasetName,
        _version: Option<i64>,
    ) -> Result<(Arc<dyn TableProvider>, i64), DataError> {
        todo!()
    }
}
