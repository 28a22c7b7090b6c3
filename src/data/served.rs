//! Which rows of a dataset are served: its newest version. What was written but must not be served is
//! answered by writing the rows of an earlier version again, in one commit; nothing is lost.

use std::collections::BTreeMap;

use super::lake::{Lake, WriteKey, WriteMode};
use super::{DataError, DatasetName, frames};

/// Makes the newest rows of each dataset those of the version named with it; gives the versions that hold
/// them now. A dataset that is at its version is not touched.
///
/// # Errors
/// [`DataError::Permanent`] for a version that is not kept any more; those of [`Lake::write`].
pub async fn hold(
    lake: &Lake,
    datasets: &BTreeMap<String, i64>,
    key: &WriteKey,
) -> Result<BTreeMap<String, i64>, DataError> {
    let mut held = BTreeMap::new();
    for (name, &version) in datasets {
        let dataset = DatasetName::parse(name).map_err(DataError::Permanent)?;
        let newest = frames::open(lake, &dataset).await?.version;
        let now = if newest == version {
            version
        } else {
            let rows = frames::stream(frames::open_at(lake, &dataset, Some(version)).await?.rows).await?;
            lake.write(&dataset, rows, WriteMode::Overwrite, &[], key).await?.version
        };
        held.insert(name.clone(), now);
    }
    Ok(held)
}
