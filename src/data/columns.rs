//! Columns of text and JSON sources: their types as authors write them, reading a value, and guessing a
//! type from what is there.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::cells::{Cell, CellKind};
use crate::core::ids::Timestamp;

/// The most digits a decimal may have after the point.
const DECIMAL_SCALE_MAX: u8 = 20;
/// The most digits a decimal may have in all.
const DECIMAL_DIGITS_MAX: usize = 38;

/// The type of a column as authors write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// `boolean`: true or false.
    Boolean,
    /// `integer` (also `int`, `bigint`): 64 bits.
    Integer,
    /// `float` (also `double`, `number`): 64 bits.
    Float,
    /// `decimal(s)` or `decimal(p,s)`: exact, `s` digits after the point, 38 in all.
    Decimal(u8),
    /// `date`: `1997-01-31`.
    Date,
    /// `timestamp`: RFC 3339, or a date and a time that are taken as UTC.
    Timestamp,
    /// `text` (also `string`).
    Text,
}

/// The words that `ColumnType` reads.
const TYPE_WORDS: &str = "boolean, integer, float, decimal(p,s), date, timestamp or text";

impl FromStr for ColumnType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let word = text.trim().to_ascii_lowercase();
        if let Some(inside) = word.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) {
            let scale = inside.rsplit(',').next().unwrap_or(inside).trim().parse::<u8>();
            return match scale {
                Ok(scale) if scale <= DECIMAL_SCALE_MAX => Ok(Self::Decimal(scale)),
                _ => Err(format!(
                    "`{text}`: a decimal has 0 to {DECIMAL_SCALE_MAX} digits after the point, as in decimal(18,2)"
                )),
            };
        }
        Ok(match word.as_str() {
            "boolean" | "bool" => Self::Boolean,
            "integer" | "int" | "bigint" => Self::Integer,
            "float" | "double" | "number" => Self::Float,
            "date" => Self::Date,
            "timestamp" | "datetime" => Self::Timestamp,
            "text" | "string" | "varchar" => Self::Text,
            _ => return Err(format!("`{text}` is not a type, expected {TYPE_WORDS}")),
        })
    }
}

impl<'de> Deserialize<'de> for ColumnType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ColumnType {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ColumnType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": TYPE_WORDS })
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::Integer => f.write_str("integer"),
            Self::Float => f.write_str("float"),
            Self::Decimal(scale) => write!(f, "decimal({DECIMAL_DIGITS_MAX},{scale})"),
            Self::Date => f.write_str("date"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Text => f.write_str("text"),
        }
    }
}

impl ColumnType {
    /// How a dataset keeps it.
    #[must_use]
    pub fn kind(self) -> CellKind {
        match self {
            Self::Boolean => CellKind::Bool,
            Self::Integer => CellKind::Int64,
            Self::Float => CellKind::Float64,
            Self::Decimal(scale) => CellKind::Decimal(scale),
            Self::Date => CellKind::Date,
            Self::Timestamp => CellKind::TimeUtc,
            Self::Text => CellKind::Text,
        }
    }

    /// Reads a field of a text file; `None` if it is no value of this type.
    #[must_use]
    pub fn read_text(self, text: &str) -> Option<Cell> {
        let bare = text.trim();
        match self {
            Self::Text => Some(Cell::Text(text.to_owned())),
            Self::Boolean => match bare.to_ascii_lowercase().as_str() {
                "true" | "t" | "yes" | "y" | "1" => Some(Cell::Bool(true)),
                "false" | "f" | "no" | "n" | "0" => Some(Cell::Bool(false)),
                _ => None,
            },
            Self::Integer => bare.parse().ok().map(Cell::Int),
            Self::Float => finite(bare).map(Cell::Float),
            Self::Decimal(scale) => decimal(bare, scale),
            Self::Date => date(bare),
            Self::Timestamp => moment(bare),
        }
    }

    /// Reads a JSON value; `None` if it is no value of this type. Text takes anything, as its JSON.
    #[must_use]
    pub fn read_json(self, value: &Value) -> Option<Cell> {
        match (self, value) {
            (_, Value::Null) => Some(Cell::Null),
            (Self::Text, Value::String(text)) => Some(Cell::Text(text.clone())),
            (Self::Text, other) => Some(Cell::Text(other.to_string())),
            (Self::Boolean, Value::Bool(truth)) => Some(Cell::Bool(*truth)),
            (Self::Integer, Value::Number(number)) => number.as_i64().map(Cell::Int),
            (Self::Float, Value::Number(number)) => number.as_f64().map(Cell::Float),
            (Self::Decimal(scale), Value::Number(number)) => decimal(&number.to_string(), scale),
            (Self::Decimal(scale), Value::String(text)) => decimal(text, scale),
            (Self::Date, Value::String(text)) => date(text),
            (Self::Timestamp, Value::String(text)) => moment(text),
            (
                Self::Boolean | Self::Integer | Self::Float | Self::Decimal(_) | Self::Date | Self::Timestamp,
                Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_),
            ) => None,
        }
    }
}

fn finite(text: &str) -> Option<f64> {
    if !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return None; // `inf` and `nan` are words, not measurements
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

fn decimal(text: &str, scale: u8) -> Option<Cell> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
        // A lone zero fraction (`.0`) has been trimmed away; it is no number without a whole part.
        return None;
    }
    if fraction.len() > usize::from(scale) || whole.len() + usize::from(scale) > DECIMAL_DIGITS_MAX {
        return None;
    }
    let units: i128 = format!("{whole}{fraction:0<width$}", width = usize::from(scale)).parse().ok()?;
    Some(Cell::Decimal { units: sign * units, scale })
}

fn date(text: &str) -> Option<Cell> {
    let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    let epoch = chrono::NaiveDate::default();
    i32::try_from((date - epoch).num_days()).ok().map(Cell::Date)
}

fn moment(text: &str) -> Option<Cell> {
    Timestamp::parse(text).map(|at| Cell::Time { micros: at.0, utc: true })
}

/// What the values of a column have in common so far.
#[derive(Debug, Clone, Copy)]
pub struct Guess {
    seen: bool,
    boolean: bool,
    integer: bool,
    float: bool,
    date: bool,
    timestamp: bool,
}

impl Default for Guess {
    fn default() -> Self {
        Self { seen: false, boolean: true, integer: true, float: true, date: true, timestamp: true }
    }
}

impl Guess {
    /// Looks at a field of a text file that is not null. Digits after a leading zero, as in `00042`, are a
    /// name, not a number.
    pub fn see_text(&mut self, text: &str) {
        self.seen = true;
        let digits = text.trim_start_matches('-');
        let named = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.")
            || text.starts_with('+')
            || text.trim().len() != text.len();
        self.boolean &= text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false");
        self.integer = self.integer && !named && text.parse::<i64>().is_ok();
        self.float = self.float && !named && finite(text).is_some();
        self.timestamp = self.timestamp && Timestamp::parse(text).is_some();
        self.date = self.date && date(text).is_some();
    }

    /// Looks at a JSON value. Text that looks like a number stays text; dates and times are recognised.
    pub fn see_json(&mut self, value: &Value) {
        match value {
            Value::Null => {}
            Value::String(text) => {
                self.see_text(text);
                (self.boolean, self.integer, self.float) = (false, false, false);
            }
            Value::Bool(_) => self.narrow(Self { boolean: true, ..Self::NOTHING }),
            Value::Number(number) => {
                self.narrow(Self { integer: number.as_i64().is_some(), float: true, ..Self::NOTHING });
            }
            Value::Array(_) | Value::Object(_) => self.narrow(Self::NOTHING),
        }
    }

    /// The narrowest type of all values seen; text if there were none.
    #[must_use]
    pub fn column_type(self) -> ColumnType {
        match self {
            Self { seen: false, .. } => ColumnType::Text,
            Self { integer: true, .. } => ColumnType::Integer,
            Self { float: true, .. } => ColumnType::Float,
            Self { boolean: true, .. } => ColumnType::Boolean,
            Self { date: true, .. } => ColumnType::Date,
            Self { timestamp: true, .. } => ColumnType::Timestamp,
            Self { .. } => ColumnType::Text,
        }
    }

    const NOTHING: Self =
        Self { seen: true, boolean: false, integer: false, float: false, date: false, timestamp: false };

    fn narrow(&mut self, to: Self) {
        self.seen = true;
        self.boolean &= to.boolean;
        self.integer &= to.integer;
        self.float &= to.float;
        self.date &= to.date;
        self.timestamp &= to.timestamp;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_type_of_all_values_is_guessed() {
        for (values, expected) in [
            (vec!["1", "-20"], ColumnType::Integer),
            (vec!["1", "2.5"], ColumnType::Float),
            (vec!["0", "0.5"], ColumnType::Float),
            (vec!["00001", "2"], ColumnType::Text),
            (vec!["1997-01-01", "1998-12-31"], ColumnType::Date),
            (vec!["1997-01-01", "1998-12-31 10:00:00"], ColumnType::Timestamp),
            (vec!["true", "FALSE"], ColumnType::Boolean),
            (vec!["nan", "1"], ColumnType::Text),
            (vec![], ColumnType::Text),
        ] {
            let mut guess = Guess::default();
            values.iter().for_each(|value| guess.see_text(value));
            assert_eq!(guess.column_type(), expected, "{values:?}");
        }
    }

    #[test]
    fn a_decimal_is_read_exactly_or_not_at_all() {
        assert_eq!(ColumnType::Decimal(2).read_text("-11.7"), Some(Cell::Decimal { units: -1170, scale: 2 }));
        assert_eq!(ColumnType::Decimal(2).read_text("0.050"), Some(Cell::Decimal { units: 5, scale: 2 }));
        for text in ["1.005", "1e3", "", "-", "1.2.3"] {
            assert_eq!(ColumnType::Decimal(2).read_text(text), None, "{text}");
        }
    }

    #[test]
    fn a_type_is_read_in_the_words_of_authors() {
        assert_eq!("decimal(18,2)".parse(), Ok(ColumnType::Decimal(2)));
        assert!("strng".parse::<ColumnType>().unwrap_err().contains("expected boolean, integer"));
    }
}
