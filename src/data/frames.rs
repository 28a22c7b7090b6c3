//! Datasets and warehouse tables as DataFusion frames, for the kinds that look at rows without SQL of an
//! author.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::dataframe::DataFrame;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::functions::expr_fn::coalesce;
use datafusion::prelude::{Expr, lit};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};

use super::lake::Lake;
use super::session::{Limits, context, of_datafusion};
use super::{DataError, DatasetName};

/// A dataset at one version.
pub struct Frame {
    /// Its rows.
    pub rows: DataFrame,
    /// The version.
    pub version: i64,
}

/// Opens a dataset.
///
/// # Errors
/// [`DataError::Permanent`] with the near name if there is no such dataset.
pub fn open<'a>(lake: &'a Lake, dataset: &'a DatasetName) -> BoxFuture<'a, Result<Frame, DataError>> {
    open_at(lake, dataset, None)
}

/// Opens a dataset at `version`, or at its newest.
///
/// # Errors
/// As [`open`]; [`DataError::Permanent`] for a version that is not kept.
pub fn open_at<'a>(
    lake: &'a Lake,
    dataset: &'a DatasetName,
    version: Option<i64>,
) -> BoxFuture<'a, Result<Frame, DataError>> {
    async move {
        let (provider, version) = lake.table(dataset, version).await?;
        let session = context(lake.scratch(), Limits::default())?;
        Ok(Frame { rows: session.read_table(provider).map_err(of_datafusion)?, version })
    }
    .boxed()
}

/// Adds a boolean column `name` that is true where the SQL predicate holds, false where it does not or is
/// null.
///
/// # Errors
/// [`DataError::Permanent`] for a predicate that cannot be read.
pub fn mark(rows: DataFrame, name: &str, predicate: &str) -> Result<DataFrame, DataError> {
    let holds = predicate_of(&rows, predicate)?;
    rows.with_column(name, coalesce(vec![holds, lit(false)])).map_err(of_datafusion)
}

/// Only the rows for which the SQL predicate holds.
///
/// # Errors
/// As [`mark`].
pub fn filter(rows: DataFrame, predicate: &str) -> Result<DataFrame, DataError> {
    let holds = predicate_of(&rows, predicate)?;
    rows.filter(holds).map_err(of_datafusion)
}

/// The SQL predicate as an expression over these rows.
///
/// # Errors
/// As [`mark`].
pub fn predicate_of(rows: &DataFrame, predicate: &str) -> Result<Expr, DataError> {
    rows.parse_sql_expr(predicate).map_err(of_datafusion)
}

/// The rows as they are computed.
///
/// # Errors
/// What DataFusion refuses.
pub fn stream(rows: DataFrame) -> BoxFuture<'static, Result<SendableRecordBatchStream, DataError>> {
    async move { rows.execute_stream().await.map_err(of_datafusion) }.boxed()
}

/// All rows, in memory.
///
/// # Errors
/// What DataFusion refuses.
pub fn collect(rows: DataFrame) -> BoxFuture<'static, Result<Vec<RecordBatch>, DataError>> {
    async move { rows.collect().await.map_err(of_datafusion) }.boxed()
}

/// Batches as a stream; `batches` must not be empty.
#[must_use]
pub fn stream_of(batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
    let schema = batches[0].schema();
    let rows = futures_util::stream::iter(batches.into_iter().map(Ok));
    Box::pin(datafusion::physical_plan::stream::RecordBatchStreamAdapter::new(Arc::clone(&schema), rows))
}

/// All rows of a stream, in memory.
///
/// # Errors
/// Those of the stream.
pub async fn gather(rows: SendableRecordBatchStream) -> Result<Vec<RecordBatch>, DataError> {
    rows.try_collect().await.map_err(of_datafusion)
}
