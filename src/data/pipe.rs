//! Rows from a thread that reads to a task that writes, at most a few batches ahead.
//!
//! The stream ends only when the reader says that it has come to the end: a reader that fails or panics
//! makes the stream fail, so that a write of half the rows is never committed.

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use tokio::sync::{mpsc, oneshot};

use super::DataError;
use super::session::in_stream;

/// Batches that may wait; when the writer is slow, the reader waits.
const BATCHES_WAITING_MAX: usize = 2;

enum Item {
    Rows(RecordBatch),
    End,
    Failed(DataError),
}

/// Where a reader puts its rows.
pub struct Outlet(mpsc::Sender<Item>);

impl Outlet {
    /// Hands over a batch; waits while the writer is behind. Must be called on a thread that may block.
    ///
    /// # Errors
    /// [`DataError::Retryable`] if the writer has gone: there is nothing left to do.
    pub fn push(&self, batch: RecordBatch) -> Result<(), DataError> {
        self.0
            .blocking_send(Item::Rows(batch))
            .map_err(|_| DataError::Retryable("the rows are not wanted any more".to_owned()))
    }
}

/// What a reader leaves when it has come to its end; it is there once the stream has ended.
pub struct Leaves<T>(oneshot::Receiver<T>);

impl<T> Leaves<T> {
    /// What the reader left; `None` if it failed: the stream has said why.
    pub async fn take(self) -> Option<T> {
        self.0.await.ok()
    }
}

/// Runs `read` on a thread of its own; its rows come out of the stream.
pub fn rows_of<T: Send + 'static>(
    schema: SchemaRef,
    read: impl FnOnce(&Outlet) -> Result<T, DataError> + Send + 'static,
) -> (SendableRecordBatchStream, Leaves<T>) {
    let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
    let (leave, leaves) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let outlet = Outlet(sender);
        let last = match read(&outlet) {
            Ok(left) => {
                // Nobody may be waiting for it; that is theirs to decide.
                leave.send(left).ok();
                Item::End
            }
            Err(error) => Item::Failed(error),
        };
        // If the writer has gone there is nobody to tell.
        outlet.0.blocking_send(last).ok();
    });
    let stream = futures_util::stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Item::Rows(batch)) => Some((Ok(batch), Some(receiver))),
            Some(Item::End) => None,
            Some(Item::Failed(error)) => Some((Err(in_stream(error)), None)),
            None => {
                let error =
                    DataError::Permanent("the reader stopped in the middle: a defect in it".to_owned());
                Some((Err(in_stream(error)), None))
            }
        }
    });
    (Box::pin(RecordBatchStreamAdapter::new(schema, stream)), Leaves(leaves))
}
