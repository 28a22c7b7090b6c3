//! Rows of a dataset as the columns that are clustered, sorted by key.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use datafusion::arrow::compute::{cast, concat, take};
use datafusion::arrow::datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType};
use datafusion::dataframe::DataFrame;
use datafusion::prelude::ident;

use crate::core::ids::Timestamp;
use crate::data::session::of_datafusion;
use crate::data::{DataError, cells, frames, hint_near};
use crate::segment::prepare::Column;

/// Keys shown in a message.
const SAMPLE_KEYS: usize = 5;
const MICROS_PER_DAY: f64 = 86_400e6;

/// What is clustered, sorted by the bytes of the key.
pub(in crate::tasks) struct Input {
    /// The keys as text.
    pub(in crate::tasks) keys: Vec<Arc<str>>,
    /// The keys as they were.
    pub(in crate::tasks) key_column: ArrayRef,
    /// The features.
    pub(in crate::tasks) columns: Vec<(String, Column)>,
}

/// Reads the key and the features, each with whether it is categorical; times become ages at `as_of`.
pub(in crate::tasks) async fn read(
    rows: DataFrame,
    key: &str,
    features: &[(&str, bool)],
    as_of: Timestamp,
) -> Result<Input, DataError> {
    check_names(&rows, key, features)?;
    let mut names: Vec<&str> = vec![key];
    for (name, _) in features {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let chosen: Vec<_> = names.iter().map(|name| ident(*name)).collect();
    let batches = frames::collect(rows.select(chosen).map_err(of_datafusion)?).await?;
    let column = |name: &str| -> Result<ArrayRef, DataError> {
        let parts: Vec<&dyn Array> =
            batches.iter().filter_map(|batch| batch.column_by_name(name)).map(AsRef::as_ref).collect();
        if parts.is_empty() {
            return Err(DataError::Permanent("there are no rows to cluster".to_owned()));
        }
        concat(&parts).map_err(|error| DataError::Permanent(error.to_string()))
    };
    let key_column = column(key)?;
    let (order, keys) = sorted(key, &key_column)?;
    let sort = |array: &ArrayRef| take(array, &order, None).map_err(|e| DataError::Permanent(e.to_string()));
    let mut columns = Vec::with_capacity(features.len());
    let mut problems = Vec::new();
    for &(name, categorical) in features {
        match values(name, categorical, &sort(&column(name)?)?, as_of) {
            Ok(values) => columns.push((name.to_owned(), values)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if !problems.is_empty() {
        return Err(DataError::Permanent(problems.join("\n")));
    }
    Ok(Input { keys, key_column: sort(&key_column)?, columns })
}

fn check_names(rows: &DataFrame, key: &str, features: &[(&str, bool)]) -> Result<(), DataError> {
    let known: Vec<&str> = rows.schema().fields().iter().map(|field| field.name().as_str()).collect();
    let problems: Vec<String> = std::iter::once(key)
        .chain(features.iter().map(|(name, _)| *name))
        .filter(|name| !known.contains(name))
        .map(|name| format!("there is no column `{name}`{}", hint_near(name, known.iter().copied())))
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(DataError::Permanent(problems.join("\n"))) }
}

/// The order of the rows by the bytes of their keys, and the keys in it.
fn sorted(name: &str, column: &ArrayRef) -> Result<(UInt64Array, Vec<Arc<str>>), DataError> {
    if column.null_count() > 0 {
        return Err(DataError::Permanent(format!(
            "{} of {} rows have no value in the key `{name}`, expected one in every row",
            column.null_count(),
            column.len()
        )));
    }
    let mut rows: Vec<(Arc<str>, u64)> = cells::cells(name, column)?
        .iter()
        .zip(0..)
        .map(|(cell, row)| (cell.to_text().unwrap_or_default().into(), row))
        .collect();
    rows.sort_unstable();
    let mut repeated: Vec<&str> =
        rows.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| &*pair[0].0).collect();
    repeated.dedup();
    if !repeated.is_empty() {
        let shown: Vec<String> = repeated.iter().take(SAMPLE_KEYS).map(|key| format!("`{key}`")).collect();
        return Err(DataError::Permanent(format!(
            "{} values of the key `{name}` occur more than once, expected one row for each; for instance {}",
            repeated.len(),
            shown.join(", ")
        )));
    }
    let (keys, order): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    Ok((order.into(), keys))
}

/// The values of one column: levels, or numbers (times as ages at `as_of`).
#[expect(clippy::wildcard_enum_match_arm, reason = "only these types of Arrow can be counted with")]
pub(in crate::tasks) fn values(
    name: &str,
    categorical: bool,
    array: &ArrayRef,
    as_of: Timestamp,
) -> Result<Column, DataError> {
    if categorical {
        let levels = cells::cells(name, array)?.iter().map(|cell| cell.to_text().map(Arc::from)).collect();
        return Ok(Column::Categorical(levels));
    }
    let cast = |wanted: &DataType| {
        cast(array, wanted).map_err(|e| DataError::Permanent(format!("column `{name}`: {e}")))
    };
    match array.data_type() {
        kind if kind.is_numeric() || matches!(kind, DataType::Boolean | DataType::Null) => {
            let numbers = cast(&DataType::Float64)?;
            let numbers =
                numbers.as_primitive::<Float64Type>().iter().map(|n| n.unwrap_or(f64::NAN)).collect();
            Ok(Column::Numeric(numbers))
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            let moments = cast(&DataType::Timestamp(TimeUnit::Microsecond, None))?;
            let age = |at: Option<i64>| at.map_or(f64::NAN, |at| (as_of.0 - at) as f64 / MICROS_PER_DAY);
            Ok(Column::Numeric(moments.as_primitive::<TimestampMicrosecondType>().iter().map(age).collect()))
        }
        _ if array.null_count() == array.len() => {
            Err(DataError::Permanent(format!("feature `{name}`: every value is missing")))
        }
        other => Err(DataError::Permanent(format!(
            "feature `{name}` is of type {other}, expected numbers, booleans or times\n\
             hint: `type: categorical` takes its values as levels"
        ))),
    }
}
