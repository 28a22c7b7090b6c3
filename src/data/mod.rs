//! Datasets: the lake, formats, the SQL session, sources and warehouses.

use std::fmt;

pub mod connections;
pub mod lake;

/// What goes wrong with data, by whether trying again may help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// A network, a lock, a full disk, a conflicting writer.
    #[error("{0}")]
    Retryable(String),
    /// Wrong data, a wrong name, a wrong query.
    #[error("{0}")]
    Permanent(String),
    /// A newer claim of the same task instance has written: this attempt has been given up.
    #[error("stale fence: {0}")]
    StaleFence(String),
}

/// Names a dataset: `raw.orders`. The same letters as ids have; it is a folder under the lake's root.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetName(String);

impl DatasetName {
    /// Parses `schema.name` or `name`.
    ///
    /// # Errors
    /// The rule that was broken, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        crate::core::ids::TaskId::parse(text).map_err(|e| e.to_string().replace("task id", "dataset name"))?;
        Ok(Self(text.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
