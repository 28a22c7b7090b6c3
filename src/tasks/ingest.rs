//! `ingest`: a source — files, an HTTP service, a query on a connection — becomes a dataset.
//!
//! One commit per run: all rows or none. A bad record (too few fields, not UTF-8, no value of its column's
//! type, a null key) goes to the dataset `<into>__quarantine` with its place, its text and what is wrong;
//! more of them than `quarantine` allows fails the task before anything is published. A second run under
//! the same run id replaces what the first wrote.
//!
//! Columns that are not declared in `schema` get the narrowest type that holds every value of the first
//! 64 MiB of each file: integer, float, boolean, date, timestamp, else text. Digits after a leading zero
//! (`00042`) are text. With `schema`, the declared columns are read and others are left out.

mod pull;
mod source;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use self::source::{From, Kind};
use super::datasets::{self, Columns};
use super::{SpecProblem, TaskContext, TaskError, TaskKind, TaskOutput};
use crate::data::DatasetName;
use crate::data::columns::ColumnType;
use crate::data::intake::{Allowance, Keep};
use crate::data::lake::WriteMode;

/// Reads a source into a dataset.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Ingest {
    /// What is read: `file`, `http`, or `connection` and `query`.
    from: From,
    /// The dataset to write.
    into: String,
    /// The columns to read, by name, each with its type. Default: all, with guessed types.
    #[serde(default)]
    schema: BTreeMap<String, ColumnType>,
    /// Leaves one record per key.
    #[serde(default)]
    dedupe: Option<Dedupe>,
    /// How many bad records are put up with. Default: 1 % and at most 10,000.
    #[serde(default)]
    quarantine: Quarantine,
    /// How the rows meet what is there. Default: `append` with a cursor, else `overwrite`.
    #[serde(default)]
    mode: Option<Mode>,
    /// Columns whose values divide the dataset into partitions.
    #[serde(default)]
    partition_by: Columns,
}

/// Which of several records with one key stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Dedupe {
    /// The columns of the key; a record with a null in it is bad.
    key: Columns,
    /// `first` (the keys are held in memory) or `last` (the rows are).
    #[serde(default)]
    keep: KeepWord,
}

/// Spelling of [`Keep`].
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum KeepWord {
    #[default]
    First,
    Last,
}

/// How many bad records are put up with.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Quarantine {
    /// Of all records, from 0 to 1.
    max_share: f64,
    /// In all.
    max_rows: u64,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { max_share: 0.01, max_rows: 10_000 }
    }
}

/// How rows meet what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// The dataset is replaced.
    Overwrite,
    /// Rows are added.
    Append,
    /// The partitions that occur in the rows are replaced.
    OverwritePartitions,
}

impl TaskKind for Ingest {
    const NAME: &'static str = "ingest";

    fn check(&self) -> Vec<SpecProblem> {
        let mut problems = self.from.check();
        if let Err(wrong) = DatasetName::parse(&self.into) {
            problems.push(datasets::problem(&["into"], wrong));
        }
        if !(0.0..=1.0).contains(&self.quarantine.max_share) {
            let message = format!("`{}` is no share, expected 0 to 1", self.quarantine.max_share);
            problems.push(datasets::problem(&["quarantine", "max_share"], message));
        }
        if self.mode == Some(Mode::OverwritePartitions) && self.partition_by.list().is_empty() {
            problems.push(datasets::problem(&["mode"], "`overwrite_partitions` needs `partition_by`"));
        }
        if self.from.has_cursor() && !matches!(self.mode, None | Some(Mode::Append)) {
            problems.push(datasets::problem(&["mode"], "a source with a cursor gives new rows only, expected `append`"));
        }
        match &self.dedupe {
            Some(dedupe) if dedupe.key.list().is_empty() => {
                problems.push(datasets::problem(&["dedupe", "key"], "there is no column, expected at least one"));
            }
            Some(dedupe) if !self.schema.is_empty() => {
                let unknown = dedupe.key.list().into_iter().filter(|name| !self.schema.contains_key(name));
                problems.extend(unknown.map(|name| {
                    datasets::problem(&["dedupe", "key"], format!("`{name}` is not a column of `schema`"))
                }));
            }
            Some(_) | None => {}
        }
        if matches!(self.from.kind(), Ok(Kind::Parquet | Kind::Query)) {
            let why = "this source has types of its own; change them in a `transform`";
            if !self.schema.is_empty() {
                problems.push(datasets::problem(&["schema"], why));
            }
            if self.dedupe.is_some() {
                problems.push(datasets::problem(&["dedupe"], "this source is read as it is; leave one row per key in a `transform`"));
            }
        }
        problems
    }

    fn writes(&self) -> Vec<String> {
        vec![self.into.clone()]
    }

    async fn run(&self, cx: &TaskContext) -> Result<TaskOutput, TaskError> {
        datasets::unless_cancelled(cx, self.pull(cx)).await
    }
}

impl Ingest {
    fn write_mode(&self) -> WriteMode {
        match self.mode {
            Some(Mode::Overwrite) => WriteMode::Overwrite,
            Some(Mode::Append) => WriteMode::Append,
            Some(Mode::OverwritePartitions) => WriteMode::OverwritePartitions,
            None if self.from.has_cursor() => WriteMode::Append,
            None => WriteMode::Overwrite,
        }
    }

    fn allowance(&self) -> Allowance {
        Allowance { share_max: self.quarantine.max_share, rows_max: self.quarantine.max_rows }
    }

    fn dedupe(&self) -> Option<(Vec<String>, Keep)> {
        let dedupe = self.dedupe.as_ref()?;
        let keep = match dedupe.keep {
            KeepWord::First => Keep::First,
            KeepWord::Last => Keep::Last,
        };
        Some((dedupe.key.list(), keep))
    }
}
