//! Rows on their way into a dataset: Parquet files that no version names yet.
//!
//! Files of one writer lie in a folder of their own, named after its key, so that a later write under the
//! same key finds what it has to replace by looking at paths alone. Files that never get a commit are
//! swept by [`vacuum`](super::lake::Lake::vacuum).

use std::num::NonZeroU64;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use deltalake_core::datafile::writer::{DeltaWriter, WriterConfig};
use deltalake_core::kernel::Add;
use futures_util::StreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use sha2::{Digest, Sha256};

use super::DataError;
use super::lake::{WriteKey, of_delta};
use super::schema::fitted;
use super::session::of_datafusion;

/// A file is closed when it has about this many bytes.
const FILE_BYTES: NonZeroU64 = NonZeroU64::new(128 << 20).expect("not zero");

/// Files written and not yet committed.
#[derive(Debug)]
pub(crate) struct Staged {
    /// The files, by path under the dataset's folder.
    pub(crate) files: Vec<Add>,
    /// The columns of the dataset after the write.
    pub(crate) schema: SchemaRef,
    /// Rows in all files.
    pub(crate) rows: u64,
    /// Bytes of all files.
    pub(crate) bytes: u64,
}

/// The folder, under the dataset's, in which files of `key` lie.
pub(crate) fn folder(key: &WriteKey) -> String {
    use std::fmt::Write;
    let digest = Sha256::digest(key.app_id.as_bytes());
    digest.iter().take(8).fold(String::from("by-"), |mut name, byte| {
        write!(name, "{byte:02x}").expect("writing to a string cannot fail");
        name
    })
}

/// Writes `rows`, fitted to `schema`, under the dataset's folder `store`. At most a few batches are held
/// in memory, and one open file per partition.
pub(crate) async fn stage(
    store: Arc<dyn ObjectStore>,
    folder: &str,
    schema: SchemaRef,
    partition_by: &[String],
    mut rows: SendableRecordBatchStream,
) -> Result<Staged, DataError> {
    let inside: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(store, Path::from(folder)));
    let mut writer = DeltaWriter::new(inside, config(&schema, partition_by));
    let mut count = 0;
    let outcome = loop {
        match rows.next().await {
            None => break Ok(()),
            Some(Err(error)) => break Err(of_datafusion(error)),
            Some(Ok(batch)) if batch.num_rows() == 0 => {}
            Some(Ok(batch)) => {
                count += batch.num_rows() as u64;
                let batch = match fitted(&batch, &schema) {
                    Ok(batch) => batch,
                    Err(error) => break Err(error),
                };
                if let Err(error) = writer.write(&batch).await {
                    break Err(of_delta(error));
                }
            }
        }
    };
    if let Err(error) = outcome {
        if let Err(left) = writer.abort().await {
            tracing::warn!(%left, "an unfinished upload could not be aborted; it is left to the store's own sweep");
        }
        return Err(error);
    }
    let mut files = writer.close().await.map_err(of_delta)?;
    for file in &mut files {
        file.path = format!("{folder}/{}", file.path);
    }
    let bytes = files.iter().map(|file| u64::try_from(file.size).unwrap_or(0)).sum();
    Ok(Staged { files, schema, rows: count, bytes })
}

fn config(schema: &SchemaRef, partition_by: &[String]) -> WriterConfig {
    let level = ZstdLevel::try_new(1).expect("1 is a level of zstd");
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    WriterConfig::new(
        Arc::clone(schema),
        partition_by.to_vec(),
        Some(properties),
        Some(FILE_BYTES),
        None,
        Default::default(),
        None,
    )
}
