//! Single values between Arrow and everything that speaks rows: databases, JSON outputs, log tables.
//!
//! Owns the mapping of types in both directions. Nested values (lists, structs, maps) have no cell: a
//! query casts them to text first.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit,
    TimestampMicrosecondType,
};
use serde_json::Value;

use super::DataError;

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating number; may be NaN or infinite.
    Float(f64),
    /// The number of units of 10^-scale.
    Decimal {
        /// The units.
        units: i128,
        /// Digits after the point.
        scale: u8,
    },
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00.
    Time {
        /// The microseconds.
        micros: i64,
        /// Whether it is a moment (UTC) rather than a reading of a wall clock.
        utc: bool,
    },
}

/// The type of a column of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellKind {
    /// See [`Cell::Bool`].
    Bool,
    /// 16 bits.
    Int16,
    /// 32 bits.
    Int32,
    /// 64 bits.
    Int64,
    /// 32 bits.
    Float32,
    /// 64 bits.
    Float64,
    /// With this many digits after the point.
    Decimal(u8),
    /// See [`Cell::Text`].
    Text,
    /// See [`Cell::Bytes`].
    Bytes,
    /// See [`Cell::Date`].
    Date,
    /// A moment.
    TimeUtc,
    /// A reading of a wall clock.
    TimeLocal,
}

impl Cell {
    /// For JSON: a number where it is exact, text otherwise (decimals, times, bytes in hexadecimal).
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(b) => (*b).into(),
            Self::Int(i) => (*i).into(),
            Self::Float(f) => serde_json::Number::from_f64(*f).map_or(Value::Null, Value::Number),
            Self::Decimal { .. } | Self::Text(_) | Self::Bytes(_) | Self::Date(_) | Self::Time { .. } => {
                self.to_text().map_or(Value::Null, Value::String)
            }
        }
    }

    /// As databases and people read it; `None` for null.
    #[must_use]
    pub fn to_text(&self) -> Option<String> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(b) => b.to_string(),
            Self::Int(i) => i.to_string(),
            Self::Float(f) => float_text(*f),
            Self::Decimal { units, scale } => decimal_text(*units, *scale),
            Self::Text(text) => text.clone(),
            Self::Bytes(bytes) => {
                bytes.iter().fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}"))
            }
            Self::Date(days) => date_text(*days),
            Self::Time { micros, utc } => time_text(*micros, *utc),
        })
    }

    /// Reads a parameter from JSON; lists and objects become their JSON text.
    #[must_use]
    pub fn of_json(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(b) => Self::Bool(*b),
            Value::Number(n) => match (n.as_i64(), n.as_f64()) {
                (Some(i), _) => Self::Int(i),
                (None, Some(f)) => Self::Float(f),
                (None, None) => Self::Text(n.to_string()),
            },
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(_) | Value::Object(_) => Self::Text(value.to_string()),
        }
    }
}

fn float_text(f: f64) -> String {
    if f.is_nan() {
        "NaN".to_owned()
    } else if f.is_infinite() {
        if f > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        format!("{f:?}")
    }
}

fn decimal_text(units: i128, scale: u8) -> String {
    let scale = usize::from(scale);
    let digits = format!("{:0>width$}", units.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if units < 0 { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

fn date_text(days: i32) -> String {
    Date32Type::to_naive_date_opt(days).map_or_else(|| format!("day {days}"), |date| date.to_string())
}

fn time_text(micros: i64, utc: bool) -> String {
    let Some(time) = chrono::DateTime::from_timestamp_micros(micros) else {
        return format!("{micros} µs");
    };
    let text = time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
    if utc { text } else { text.trim_end_matches('Z').to_owned() }
}

/// The type in which a column is read cell by cell; `None` for nested types.
#[expect(clippy::wildcard_enum_match_arm, reason = "every other type of Arrow is nested or a span")]
fn plain(data_type: &DataType) -> Option<DataType> {
    use DataType as D;
    Some(match data_type {
        D::Null => D::Null,
        D::Boolean => D::Boolean,
        D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 => D::Int64,
        D::UInt64 => D::Decimal128(20, 0),
        D::Float16 | D::Float32 | D::Float64 => D::Float64,
        D::Decimal32(p, s) | D::Decimal64(p, s) | D::Decimal128(p, s) => D::Decimal128(*p, *s),
        D::Decimal256(_, s) => D::Decimal128(DECIMAL128_MAX_PRECISION, *s),
        D::Utf8 | D::LargeUtf8 | D::Utf8View | D::Time32(_) | D::Time64(_) => D::Utf8,
        D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_) => D::Binary,
        D::Date32 | D::Date64 => D::Date32,
        D::Timestamp(_, zone) => D::Timestamp(TimeUnit::Microsecond, zone.clone()),
        D::Dictionary(_, value) => plain(value)?,
        _ => return None,
    })
}

/// The cells of one column. `name` is for the message.
///
/// # Errors
/// [`DataError::Permanent`] for a nested type.
#[expect(clippy::wildcard_enum_match_arm, reason = "`plain` gives no other type")]
pub fn cells(name: &str, array: &ArrayRef) -> Result<Vec<Cell>, DataError> {
    let Some(plain) = plain(array.data_type()) else {
        return Err(no_cell(name, array.data_type()));
    };
    let array = cast(array, &plain)
        .map_err(|e| DataError::Permanent(format!("column `{name}`: {}", e.to_string().to_lowercase())))?;
    let rows = array.len();
    let collect = |value: &dyn Fn(usize) -> Cell| -> Vec<Cell> {
        (0..rows).map(|row| if array.is_null(row) { Cell::Null } else { value(row) }).collect()
    };
    Ok(match &plain {
        DataType::Boolean => collect(&|row| Cell::Bool(array.as_boolean().value(row))),
        DataType::Int64 => collect(&|row| Cell::Int(array.as_primitive::<Int64Type>().value(row))),
        DataType::Float64 => collect(&|row| Cell::Float(array.as_primitive::<Float64Type>().value(row))),
        DataType::Decimal128(_, scale) => {
            let scale = u8::try_from(*scale).map_err(|_| no_cell(name, &plain))?;
            collect(&|row| Cell::Decimal { units: array.as_primitive::<Decimal128Type>().value(row), scale })
        }
        DataType::Utf8 => collect(&|row| Cell::Text(array.as_string::<i32>().value(row).to_owned())),
        DataType::Binary => collect(&|row| Cell::Bytes(array.as_binary::<i32>().value(row).to_owned())),
        DataType::Date32 => collect(&|row| Cell::Date(array.as_primitive::<Date32Type>().value(row))),
        DataType::Timestamp(_, zone) => collect(&|row| Cell::Time {
            micros: array.as_primitive::<TimestampMicrosecondType>().value(row),
            utc: zone.is_some(),
        }),
        _ => vec![Cell::Null; rows],
    })
}

pub(super) fn no_cell(name: &str, data_type: &DataType) -> DataError {
    DataError::Permanent(format!(
        "column `{name}` is of type {data_type}, which a table cannot hold\nhint: cast it to text in a transform"
    ))
}

/// The rows of a batch, each with its cells in the order of the columns.
///
/// # Errors
/// As [`cells`].
pub fn rows(batch: &RecordBatch) -> Result<Vec<Vec<Cell>>, DataError> {
    let schema = batch.schema();
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        columns.push(cells(field.name(), array)?.into_iter());
    }
    Ok((0..batch.num_rows())
        .map(|_| columns.iter_mut().map(|c| c.next().expect("columns are of one length")).collect())
        .collect())
}

impl CellKind {
    /// The Arrow type of such a column.
    #[must_use]
    pub fn data_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::Decimal(scale) => {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, i8::try_from(scale).unwrap_or(i8::MAX))
            }
            Self::Text => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::TimeUtc => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::TimeLocal => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }

    /// A column of this type.
    ///
    /// # Errors
    /// The first cell that does not fit without loss.
    pub fn array<'a>(self, cells: impl Iterator<Item = &'a Cell>) -> Result<ArrayRef, Cell> {
        fn each<'a, T>(
            cells: impl Iterator<Item = &'a Cell>,
            value: impl Fn(&Cell) -> Option<T>,
        ) -> Result<Vec<Option<T>>, Cell> {
            cells
                .map(|cell| {
                    if *cell == Cell::Null {
                        return Ok(None);
                    }
                    value(cell).map(Some).ok_or_else(|| cell.clone())
                })
                .collect()
        }
        Ok(match self {
            Self::Bool => Arc::new(BooleanArray::from(each(cells, Cell::as_bool)?)),
            Self::Int16 => Arc::new(Int16Array::from(each(cells, |c| i16::try_from(c.as_int()?).ok())?)),
            Self::Int32 => Arc::new(Int32Array::from(each(cells, |c| i32::try_from(c.as_int()?).ok())?)),
            Self::Int64 => Arc::new(Int64Array::from(each(cells, Cell::as_int)?)),
            Self::Float32 => Arc::new(Float32Array::from(each(cells, |c| c.as_float().map(|f| f as f32))?)),
            Self::Float64 => Arc::new(Float64Array::from(each(cells, Cell::as_float)?)),
            Self::Decimal(scale) => Arc::new(
                Decimal128Array::from(each(cells, |c| c.as_decimal(scale))?).with_data_type(self.data_type()),
            ),
            Self::Text => Arc::new(StringArray::from(each(cells, Cell::to_text)?)),
            Self::Bytes => {
                let bytes = each(cells, |c| if let Cell::Bytes(b) = c { Some(b.clone()) } else { None })?;
                Arc::new(bytes.iter().map(|b| b.as_deref()).collect::<BinaryArray>())
            }
            Self::Date => Arc::new(Date32Array::from(each(cells, Cell::as_date)?)),
            Self::TimeUtc => {
                Arc::new(TimestampMicrosecondArray::from(each(cells, Cell::as_micros)?).with_timezone("UTC"))
            }
            Self::TimeLocal => Arc::new(TimestampMicrosecondArray::from(each(cells, Cell::as_micros)?)),
        })
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a cell of any other kind has no such value")]
impl Cell {
    fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(b) => Some(*b),
            Self::Int(0) => Some(false),
            Self::Int(1) => Some(true),
            _ => None,
        }
    }

    pub(super) fn as_int(&self) -> Option<i64> {
        if let Self::Int(i) = self { Some(*i) } else { None }
    }

    fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(f) => Some(*f),
            Self::Int(i) if i.unsigned_abs() <= 1 << 53 => Some(*i as f64),
            _ => None,
        }
    }

    fn as_decimal(&self, wanted: u8) -> Option<i128> {
        match self {
            Self::Decimal { units, scale } if *scale <= wanted => {
                units.checked_mul(10_i128.checked_pow(u32::from(wanted - scale))?)
            }
            Self::Decimal { units, scale } => {
                let factor = 10_i128.checked_pow(u32::from(scale - wanted))?;
                (units % factor == 0).then_some(units / factor)
            }
            _ => None,
        }
    }

    pub(super) fn as_date(&self) -> Option<i32> {
        match self {
            Self::Date(days) => Some(*days),
            Self::Text(text) => {
                let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
                Some(Date32Type::from_naive_date(date))
            }
            _ => None,
        }
    }

    pub(super) fn as_micros(&self) -> Option<i64> {
        match self {
            Self::Time { micros, .. } => Some(*micros),
            Self::Text(text) => crate::core::ids::Timestamp::parse(text).map(|t| t.0),
            _ => None,
        }
    }
}

/// Rows as an aligned table for a log.
#[must_use]
pub fn table_text(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::ASCII_MARKDOWN).set_header(header);
    table.add_rows(rows);
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_cell_comes_back_from_arrow_as_it_went_in() {
        let columns = [
            (CellKind::Bool, Cell::Bool(true)),
            (CellKind::Int16, Cell::Int(-3)),
            (CellKind::Int32, Cell::Int(70_000)),
            (CellKind::Int64, Cell::Int(i64::MIN)),
            (CellKind::Float32, Cell::Float(0.5)),
            (CellKind::Float64, Cell::Float(0.1)),
            (CellKind::Decimal(3), Cell::Decimal { units: -1_050, scale: 3 }),
            (CellKind::Text, Cell::Text("ä".to_owned())),
            (CellKind::Bytes, Cell::Bytes(vec![0, 255])),
            (CellKind::Date, Cell::Date(-1)),
            (CellKind::TimeUtc, Cell::Time { micros: 1, utc: true }),
            (CellKind::TimeLocal, Cell::Time { micros: -1, utc: false }),
        ];
        for (kind, cell) in columns {
            let written = [cell, Cell::Null];
            let array = kind.array(written.iter()).unwrap();
            assert_eq!(array.data_type(), &kind.data_type());
            assert_eq!(cells("x", &array).unwrap(), written);
        }
    }

    #[test]
    fn a_cell_that_would_lose_something_is_refused() {
        assert!(CellKind::Int16.array([Cell::Int(70_000)].iter()).is_err());
        assert!(CellKind::Decimal(1).array([Cell::Decimal { units: 15, scale: 2 }].iter()).is_err());
        assert!(CellKind::Int64.array([Cell::Text("1".to_owned())].iter()).is_err());
    }

    #[test]
    fn texts_are_what_people_and_databases_read() {
        let text = |cell: Cell| cell.to_text().unwrap();
        assert_eq!(text(Cell::Decimal { units: -5, scale: 2 }), "-0.05");
        assert_eq!(text(Cell::Decimal { units: 1_234, scale: 0 }), "1234");
        assert_eq!(text(Cell::Float(1e300)), "1e300");
        assert_eq!(text(Cell::Date(0)), "1970-01-01");
        assert_eq!(text(Cell::Time { micros: 1_500_000, utc: true }), "1970-01-01T00:00:01.500Z");
        assert_eq!(text(Cell::Bytes(vec![1, 171])), "\\x01ab");
    }
}
