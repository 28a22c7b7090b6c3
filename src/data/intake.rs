//! Records on their way in: checked, deduplicated and gathered into batches; the bad ones set aside.
//!
//! A bad record is kept with its place, its raw text and what is wrong (the quarantine). More of them than
//! the author allows fails the whole intake, naming the first; nothing has been published then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::DataError;
use super::cells::Cell;
use super::columns::ColumnType;
use super::pipe::Outlet;

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// Raw text of a bad record is kept up to this length.
const RAW_CHARS_MAX: usize = 4096;
/// Bad records that a refusal shows.
const SHOWN_MAX: usize = 5;
/// A longer record is bad, whatever is in it.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

/// One column of an intake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
}

/// Which of several records with one key stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The first; the keys seen are held in memory.
    First,
    /// The last; all rows are held in memory until the end.
    Last,
}

/// How many bad records are put up with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// Of all records, from 0 to 1.
    pub share_max: f64,
    /// In all.
    pub rows_max: u64,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `ragged`, `encoding`, `json`, `type`, `key` or `oversize`.
    pub class: &'static str,
    /// What is wrong and what was expected.
    pub message: String,
}

/// Where a record comes from.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// File or address.
    pub source: &'a str,
    /// Line, from 1.
    pub line: u64,
}

/// A record set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    source: String,
    line: u64,
    raw: String,
    fault: Fault,
}

/// What an intake did.
#[derive(Debug, Default)]
pub struct Taken {
    /// Records left out because another has the same key.
    pub duplicates_dropped: u64,
    /// Records set aside.
    pub bad: Vec<Bad>,
}

/// Takes records in, one after the other.
pub struct Intake<'a> {
    columns: Vec<Column>,
    schema: SchemaRef,
    dedupe: Option<Dedupe>,
    allowance: Allowance,
    outlet: &'a Outlet,
    waiting: Vec<Vec<Cell>>,
    good: u64,
    taken: Taken,
}

struct Dedupe {
    places: Vec<usize>,
    keep: Keep,
    seen: HashSet<String>,
    last: HashMap<String, usize>,
    rows: Vec<Option<Vec<Cell>>>,
}

/// The Arrow schema of `columns`.
#[must_use]
pub fn schema_of(columns: &[Column]) -> SchemaRef {
    let field = |column: &Column| Field::new(&column.name, column.column_type.kind().data_type(), true);
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

impl<'a> Intake<'a> {
    /// An intake of records with `columns`. `dedupe` names key columns, which must be among them.
    #[must_use]
    pub fn new(
        columns: Vec<Column>,
        dedupe: Option<(&[String], Keep)>,
        allowance: Allowance,
        outlet: &'a Outlet,
    ) -> Self {
        let dedupe = dedupe.map(|(key, keep)| Dedupe {
            places: key
                .iter()
                .filter_map(|name| columns.iter().position(|column| column.name == *name))
                .collect(),
            keep,
            seen: HashSet::new(),
            last: HashMap::new(),
            rows: Vec::new(),
        });
        let schema = schema_of(&columns);
        let (waiting, taken) = (Vec::with_capacity(BATCH_ROWS), Taken::default());
        Self { columns, schema, dedupe, allowance, outlet, waiting, good: 0, taken }
    }

    /// Takes a record in; `raw` is asked for only if it is bad.
    ///
    /// # Errors
    /// [`DataError::Retryable`] if nobody wants the rows any more.
    pub fn take(
        &mut self,
        place: Place<'_>,
        record: Result<Vec<Cell>, Fault>,
        raw: impl FnOnce() -> String,
    ) -> Result<(), DataError> {
        let checked = record.and_then(|row| match &self.dedupe {
            Some(dedupe) => dedupe.key(&row, &self.columns).map(|key| (row, Some(key))),
            None => Ok((row, None)),
        });
        match checked {
            Err(fault) => {
                self.set_aside(place, fault, raw());
                Ok(())
            }
            Ok((row, None)) => {
                self.good += 1;
                self.put(row)
            }
            Ok((row, Some(key))) => {
                self.good += 1;
                match self.dedupe.as_mut().expect("a key comes from a dedupe").enter(key, row) {
                    Entered::Goes(row) => self.put(row),
                    Entered::Waits => Ok(()),
                    Entered::Duplicate => {
                        self.taken.duplicates_dropped += 1;
                        Ok(())
                    }
                }
            }
        }
    }

    /// Whether there are so many bad records that reading on is useless.
    #[must_use]
    pub fn is_hopeless(&self) -> bool {
        self.taken.bad.len() as u64 > self.allowance.rows_max
    }

    /// Hands over what is left and judges the bad records.
    ///
    /// # Errors
    /// [`DataError::Permanent`] with the first of them if there are too many; otherwise as
    /// [`take`](Self::take).
    pub fn end(mut self) -> Result<Taken, DataError> {
        if let Some(refusal) = self.verdict() {
            return Err(refusal);
        }
        let rows = self.dedupe.as_mut().map(|dedupe| std::mem::take(&mut dedupe.rows)).unwrap_or_default();
        for row in rows.into_iter().flatten() {
            self.put(row)?;
        }
        self.flush()?;
        Ok(self.taken)
    }

    fn verdict(&self) -> Option<DataError> {
        let bad = self.taken.bad.len() as u64;
        let all = self.good + bad;
        if bad == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share of 2^53 rows is near enough")]
        let share = bad as f64 / all as f64;
        let limit = if bad > self.allowance.rows_max {
            format!("`quarantine.max_rows` allows {}", self.allowance.rows_max)
        } else if share > self.allowance.share_max {
            format!("`quarantine.max_share` allows {}", self.allowance.share_max)
        } else {
            return None;
        };
        let shown = self.taken.bad.iter().take(SHOWN_MAX);
        let lines: Vec<String> =
            shown.map(|bad| format!("{}:{}: {}", bad.source, bad.line, bad.fault.message)).collect();
        Some(DataError::Permanent(format!(
            "{}\n{bad} of {all} records are bad, {limit}; nothing was published",
            lines.join("\n")
        )))
    }

    fn set_aside(&mut self, place: Place<'_>, fault: Fault, raw: String) {
        let raw =
            if raw.chars().count() > RAW_CHARS_MAX { raw.chars().take(RAW_CHARS_MAX).collect() } else { raw };
        self.taken.bad.push(Bad { source: place.source.to_owned(), line: place.line, raw, fault });
    }

    fn put(&mut self, row: Vec<Cell>) -> Result<(), DataError> {
        self.waiting.push(row);
        if self.waiting.len() < BATCH_ROWS {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), DataError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut arrays = Vec::with_capacity(self.columns.len());
        for (place, column) in self.columns.iter().enumerate() {
            let cells = self.waiting.iter().map(|row| &row[place]);
            let array = column.column_type.kind().array(cells).map_err(|cell| {
                let text = cell.to_text().unwrap_or_default();
                DataError::Permanent(format!(
                    "column `{}`: `{text}` is no {}",
                    column.name, column.column_type
                ))
            })?;
            arrays.push(array);
        }
        self.waiting.clear();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| DataError::Permanent(error.to_string()))?;
        self.outlet.push(batch)
    }
}

enum Entered {
    Goes(Vec<Cell>),
    Waits,
    Duplicate,
}

impl Dedupe {
    fn key(&self, row: &[Cell], columns: &[Column]) -> Result<String, Fault> {
        let mut key = String::new();
        for &place in &self.places {
            let Some(text) = row[place].to_text() else {
                let message = format!("the key column `{}` is null, expected a value", columns[place].name);
                return Err(Fault { class: "key", message });
            };
            // The length before the text keeps ("a", "bc") and ("ab", "c") apart.
            key.push_str(&format!("{}:{text}", text.len()));
        }
        Ok(key)
    }

    fn enter(&mut self, key: String, row: Vec<Cell>) -> Entered {
        match self.keep {
            Keep::First => {
                if self.seen.insert(key) {
                    Entered::Goes(row)
                } else {
                    Entered::Duplicate
                }
            }
            Keep::Last => {
                let before = self.last.insert(key, self.rows.len());
                self.rows.push(Some(row));
                match before {
                    None => Entered::Waits,
                    Some(place) => {
                        self.rows[place] = None;
                        Entered::Duplicate
                    }
                }
            }
        }
    }
}

/// The bad records as rows of a quarantine dataset: `run_id`, `source`, `line`, `raw`, `class`, `message`.
///
/// # Panics
/// Never: the columns are of one length.
#[must_use]
pub fn quarantine_rows(bad: &[Bad], run_id: &str) -> RecordBatch {
    let texts = |value: fn(&Bad) -> &str| Arc::new(StringArray::from_iter_values(bad.iter().map(value))) as _;
    let lines = bad.iter().map(|record| i64::try_from(record.line).unwrap_or(i64::MAX));
    RecordBatch::try_new(
        quarantine_schema(),
        vec![
            Arc::new(StringArray::from_iter_values(bad.iter().map(|_| run_id))),
            texts(|record| &record.source),
            Arc::new(Int64Array::from_iter_values(lines)),
            texts(|record| &record.raw),
            texts(|record| record.fault.class),
            texts(|record| &record.fault.message),
        ],
    )
    .expect("the columns are of one length and of the schema's types")
}

/// The columns of a quarantine dataset.
#[must_use]
pub fn quarantine_schema() -> SchemaRef {
    let field = |(name, data_type): (&str, DataType)| Field::new(name, data_type, true);
    let columns = [
        ("run_id", DataType::Utf8),
        ("source", DataType::Utf8),
        ("line", DataType::Int64),
        ("raw", DataType::Utf8),
        ("class", DataType::Utf8),
        ("message", DataType::Utf8),
    ];
    Arc::new(Schema::new(columns.into_iter().map(field).collect::<Vec<_>>()))
}
