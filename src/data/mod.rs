//! Datasets: the lake, formats, the SQL session, sources and warehouses.
//!
//! Owns everything that touches rows. Knows nothing of runs, retries or DAG files: a write carries a
//! [`WriteKey`](lake::WriteKey), and that is all this room knows of who writes.

use std::fmt;

pub mod cells;
pub mod columns;
pub(crate) mod commit;
pub mod connections;
pub mod csv_records;
pub(crate) mod durable;
pub mod files;
pub mod frames;
pub mod http_pages;
pub mod intake;
pub mod lake;
pub mod load;
pub mod models;
pub mod pipe;
pub mod schema;
pub mod served;
pub mod session;
pub mod sql;
pub(crate) mod staging;
pub mod warehouse;

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
        crate::core::ids::TaskId::parse(text)
            .map_err(|e| e.to_string().replace("task id", "dataset name"))?;
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

/// `\nhint: …` with the name among `known` that is most like `name`, or with all of them if they are few.
pub(crate) fn hint_near<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match connections::near_name(name, known.iter().copied()) {
        Some(near) => format!("\nhint: did you mean `{near}`?"),
        None if known.is_empty() => String::new(),
        None if known.len() <= 12 => format!("\nhint: known are `{}`", known.join("`, `")),
        None => format!("\nhint: {} are known, none of a similar name", known.len()),
    }
}
