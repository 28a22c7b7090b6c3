//! What a dataset's columns may be, and how rows are made to fit.
//!
//! A dataset knows booleans, whole numbers (8 to 64 bits, signed), floats, decimals, text, bytes, dates and
//! moments (microseconds, UTC), and lists and structs of them; every column may be null. Other Arrow types
//! are brought to the nearest of these without loss or refused. Times without a zone are taken as UTC.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit,
};

use super::DataError;

/// A moment: microseconds since 1970-01-01, UTC.
#[must_use]
pub fn moment() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The schema in which rows of `schema` are kept.
///
/// # Errors
/// [`DataError::Permanent`] naming every column that cannot be kept, or a name that occurs twice.
pub fn kept_schema(schema: &Schema) -> Result<SchemaRef, DataError> {
    let mut problems = Vec::new();
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        if fields.iter().any(|known| known.name().eq_ignore_ascii_case(field.name())) {
            problems.push(format!("column `{}` occurs twice (upper and lower case are one)", field.name()));
        }
        match kept_type(field.data_type()) {
            Some(data_type) => fields.push(Field::new(field.name(), data_type, true)),
            None => problems.push(format!(
                "column `{}` is {}, which a dataset cannot keep; cast it, for instance to text",
                field.name(),
                type_name(field.data_type())
            )),
        }
    }
    if fields.is_empty() && problems.is_empty() {
        problems.push("there are no columns".to_owned());
    }
    if problems.is_empty() {
        Ok(Arc::new(Schema::new(fields)))
    } else {
        Err(DataError::Permanent(problems.join("\n")))
    }
}

fn kept_type(data_type: &DataType) -> Option<DataType> {
    Some(match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32 => data_type.clone(),
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, _) => moment(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *precision <= DECIMAL128_MAX_PRECISION && *scale >= 0 =>
        {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Dictionary(_, values) => return kept_type(values),
        DataType::RunEndEncoded(_, values) => return kept_type(values.data_type()),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(Field::new("element", kept_type(item.data_type())?, true)))
        }
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(kept_field).collect::<Option<Fields>>()?)
        }
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..)
        | DataType::Time32(_)
        | DataType::Time64(_)
        | DataType::Duration(_)
        | DataType::Interval(_)
        | DataType::Union(..)
        | DataType::Map(..) => return None,
    })
}

fn kept_field(field: &FieldRef) -> Option<Field> {
    Some(Field::new(field.name(), kept_type(field.data_type())?, true))
}

/// A type in the words of DAG files.
#[must_use]
pub fn type_name(data_type: &DataType) -> String {
    match kept_type(data_type) {
        Some(DataType::Boolean) => "boolean".to_owned(),
        Some(DataType::Int8) => "tinyint".to_owned(),
        Some(DataType::Int16) => "smallint".to_owned(),
        Some(DataType::Int32) => "integer".to_owned(),
        Some(DataType::Int64) => "bigint".to_owned(),
        Some(DataType::Float32) => "real".to_owned(),
        Some(DataType::Float64) => "float".to_owned(),
        Some(DataType::Utf8) => "text".to_owned(),
        Some(DataType::Binary) => "bytes".to_owned(),
        Some(DataType::Date32) => "date".to_owned(),
        Some(DataType::Timestamp(..)) => "timestamp".to_owned(),
        Some(DataType::Decimal128(precision, scale)) => format!("decimal({precision},{scale})"),
        Some(other) => other.to_string(),
        None => data_type.to_string(),
    }
}

/// Whether every value of `from` is a value of `into`.
fn widens(from: &DataType, into: &DataType) -> bool {
    use DataType as T;
    if from == into {
        return true;
    }
    match (from, into) {
        (T::Int8, T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64)
        | (T::Int16, T::Int32 | T::Int64 | T::Float32 | T::Float64)
        | (T::Int32, T::Int64 | T::Float64)
        | (T::Float32, T::Float64)
        // Exact up to 2^53; the alternative is to refuse `3` where `3.5` was seen before.
        | (T::Int64, T::Float64)
        | (T::Date32, T::Timestamp(..)) => true,
        (T::Int8 | T::Int16 | T::Int32 | T::Int64, T::Decimal128(precision, scale)) => {
            i16::from(*precision) - i16::from(*scale) >= 19
        }
        (T::Decimal128(p1, s1), T::Decimal128(p2, s2)) => {
            s1 <= s2 && i16::from(*p1) - i16::from(*s1) <= i16::from(*p2) - i16::from(*s2)
        }
        _ => false,
    }
}

/// The schema of a dataset after rows of `input` have been added: the columns there are, then new ones.
/// A column that `input` lacks will be null; a narrower type is widened to the one there is.
///
/// # Errors
/// [`DataError::Permanent`] naming every column whose type does not fit.
pub fn evolved(dataset: &str, there: &Schema, input: &Schema) -> Result<SchemaRef, DataError> {
    let mut fields: Vec<FieldRef> = there.fields().iter().cloned().collect();
    let mut problems = Vec::new();
    for field in input.fields() {
        match there.fields().iter().find(|known| known.name() == field.name()) {
            None => match fields.iter().find(|known| known.name().eq_ignore_ascii_case(field.name())) {
                None => fields.push(Arc::clone(field)),
                Some(known) => problems.push(format!(
                    "dataset `{dataset}` has a column `{}`, the input calls it `{}`",
                    known.name(),
                    field.name()
                )),
            },
            Some(known) if widens(field.data_type(), known.data_type()) => {}
            Some(known) => problems.push(format!(
                "dataset `{dataset}`: column `{}` is {} and the input has {}",
                field.name(),
                type_name(known.data_type()),
                type_name(field.data_type())
            )),
        }
    }
    if problems.is_empty() {
        return Ok(Arc::new(Schema::new(fields)));
    }
    problems.push(
        "hint: cast the input, or write with `mode: overwrite`, which replaces the columns too".to_owned(),
    );
    Err(DataError::Permanent(problems.join("\n")))
}

/// The rows of `batch` with exactly the columns of `target`, by name; what is missing is null.
///
/// # Errors
/// [`DataError::Permanent`] for a value that its column cannot hold.
pub fn fitted(batch: &RecordBatch, target: &SchemaRef) -> Result<RecordBatch, DataError> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(target.fields().len());
    for field in target.fields() {
        let column = match batch.column_by_name(field.name()) {
            None => new_null_array(field.data_type(), batch.num_rows()),
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => cast_with_options(column, field.data_type(), &options).map_err(|error| {
                DataError::Permanent(format!(
                    "column `{}`: a value of {} is no {}: {error}",
                    field.name(),
                    column.data_type(),
                    type_name(field.data_type())
                ))
            })?,
        };
        columns.push(column);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(target), columns, &options)
        .map_err(|error| DataError::Permanent(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> Schema {
        Schema::new(fields.iter().map(|(n, t)| Field::new(*n, t.clone(), false)).collect::<Vec<_>>())
    }

    #[test]
    fn types_are_brought_to_the_nearest_that_a_dataset_keeps() {
        let given = schema(&[
            ("count", DataType::UInt64),
            ("name", DataType::Utf8View),
            ("at", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ]);
        let kept = kept_schema(&given).unwrap();
        let types: Vec<_> = kept.fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(types, [DataType::Int64, DataType::Utf8, moment()]);
    }

    #[test]
    fn every_column_that_does_not_fit_is_named() {
        let there = schema(&[("a", DataType::Int64), ("b", DataType::Int64)]);
        let input = schema(&[("a", DataType::Utf8), ("b", DataType::Float64), ("c", DataType::Utf8)]);
        let error = evolved("raw.x", &there, &input).unwrap_err().to_string();
        assert!(error.contains("`a` is bigint and the input has text"), "{error}");
        assert!(error.contains("`b` is bigint and the input has float"), "{error}");
    }

    #[test]
    fn a_new_column_is_added_and_a_narrow_one_widened() {
        let there = schema(&[("a", DataType::Int64)]);
        let input = schema(&[("c", DataType::Utf8), ("a", DataType::Int32)]);
        let names: Vec<_> =
            evolved("x", &there, &input).unwrap().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["a", "c"]);
    }
}
