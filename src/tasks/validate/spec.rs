//! The expectations an author may write: one struct each, so that every one says which keys it has.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::units::Span;

/// What a broken expectation means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Severity {
    /// It fails the task.
    #[default]
    Error,
    /// It warns.
    Warn,
    /// It warns, and the rows that failed are moved out of the way: the task's `into` has only the others.
    Quarantine,
}

/// What becomes of rows whose value is null (or NaN).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Nulls {
    /// They are not judged, and are counted.
    #[default]
    Ignore,
    /// They count as failing.
    Fail,
}

/// Keys of every expectation.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Common {
    pub(super) severity: Option<Severity>,
    pub(super) name: Option<String>,
    pub(super) when: bool,
}

/// Keys of expectations that judge row by row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ByRow {
    pub(super) at_least: f64,
    pub(super) nulls: Nulls,
    pub(super) allow_empty: bool,
}

/// Keys of expectations that judge one figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bounds {
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) warn_below: Option<f64>,
    pub(super) warn_above: Option<f64>,
    pub(super) allow_empty: bool,
}

impl Bounds {
    /// These where the author set none.
    pub(super) fn or(
        self,
        warn_below: Option<f64>,
        min: Option<f64>,
        warn_above: Option<f64>,
        max: Option<f64>,
    ) -> Self {
        match self {
            Self { min: None, max: None, warn_below: None, warn_above: None, .. } => {
                Self { min, max, warn_below, warn_above, ..self }
            }
            said => said,
        }
    }
}

/// What a figure is compared with besides its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum CompareWith {
    /// Its own past; `type: history` has the settings.
    History,
}

/// Twenty structs share their common keys, and `flatten` would accept unknown ones: so a macro writes them.
/// `rows` adds the keys of [`ByRow`], `figure` those of [`Bounds`] and `compare: history`.
macro_rules! expectation {
    (@struct $(#[$doc:meta])* $name:ident { $($own:tt)* } { $($more:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(in crate::tasks::validate) struct $name {
            $($own)*
            $($more)*
            /// `warn` never fails the task.
            #[serde(default)]
            severity: Option<Severity>,
            /// What the results call it.
            #[serde(default)]
            name: Option<String>,
            /// `false` skips it.
            #[serde(default = "yes")]
            when: bool,
        }

        impl $name {
            pub(in crate::tasks::validate) fn common(&self) -> Common {
                Common { severity: self.severity, name: self.name.clone(), when: self.when }
            }
        }
    };
    ($(#[$doc:meta])* plain $name:ident { $($own:tt)* }) => {
        expectation! { @struct $(#[$doc])* $name { $($own)* } {} }
    };
    ($(#[$doc:meta])* rows $name:ident { $($own:tt)* }) => {
        expectation! { @struct $(#[$doc])* $name { $($own)* } {
            /// The share of judged rows that must pass; default 1.
            #[serde(default = "one")]
            #[schemars(range(min = 0.0, max = 1.0))]
            at_least: f64,
            /// What becomes of nulls; default `ignore`.
            #[serde(default)]
            nulls: Nulls,
            /// No rows to judge is right.
            #[serde(default)]
            allow_empty: bool,
        } }

        impl $name {
            pub(in crate::tasks::validate) fn by_row(&self) -> ByRow {
                ByRow { at_least: self.at_least, nulls: self.nulls, allow_empty: self.allow_empty }
            }
        }
    };
    ($(#[$doc:meta])* figure $name:ident { $($own:tt)* }) => {
        expectation! { @struct $(#[$doc])* $name { $($own)* } {
            /// Less fails.
            #[serde(default)]
            min: Option<f64>,
            /// More fails.
            #[serde(default)]
            max: Option<f64>,
            /// Less warns.
            #[serde(default)]
            warn_below: Option<f64>,
            /// More warns.
            #[serde(default)]
            warn_above: Option<f64>,
            /// No rows to judge is right.
            #[serde(default)]
            allow_empty: bool,
            /// `history`: an unusual figure fails too.
            #[serde(default)]
            compare: Option<CompareWith>,
        } }

        impl $name {
            pub(in crate::tasks::validate) fn bounds(&self) -> Bounds {
                let Self { min, max, warn_below, warn_above, allow_empty, .. } = *self;
                Bounds { min, max, warn_below, warn_above, allow_empty }
            }

            pub(in crate::tasks::validate) fn compares_with_past(&self) -> bool {
                self.compare.is_some()
            }
        }
    };
}

// After the macro, which it uses.
mod clustering;
pub(super) use clustering::{
    Cohesion, Direction, Drift, DriftMethod, DriftReference, History, HistoryScale, Metric, Parity,
    Seasonality, SegmentSize, Separation, Stability, StabilityMetric,
};

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn five_minutes() -> Span {
    Span(std::time::Duration::from_secs(300))
}

expectation! {
    /// The table has these columns.
    plain Schema {
        /// The columns.
        pub(super) columns: Vec<SchemaColumn>,
        /// Whether it may have more (`superset`) or fewer (`subset`); default `exact`.
        #[serde(default)]
        pub(super) mode: SchemaMode,
        /// The order counts.
        #[serde(default)]
        pub(super) ordered: bool,
    }
}

/// A column of a `schema` expectation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SchemaColumn {
    /// Its name.
    pub(super) name: String,
    /// Its type, for instance `bigint`, `double`, `text`, `boolean`, `date`, `timestamp`, `decimal(12,2)`.
    #[serde(default, rename = "type")]
    pub(super) data_type: Option<String>,
    /// Whether it may hold nulls.
    #[serde(default)]
    pub(super) nullable: Option<bool>,
}

/// How the table's columns compare with those named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum SchemaMode {
    /// The same.
    #[default]
    Exact,
    /// The table may have more.
    Superset,
    /// The table may have fewer.
    Subset,
}

expectation! {
    /// The number of rows.
    figure RowCount {
        /// As many as this dataset has.
        #[serde(default)]
        pub(super) equals_table: Option<String>,
    }
}
expectation! {
    /// The column has a value. NaN is none, empty text is one.
    rows NotNull {
        /// The column.
        pub(super) column: String,
    }
}
expectation! {
    /// The share of rows without a value.
    figure NullShare {
        /// The column.
        pub(super) column: String,
    }
}
expectation! {
    /// No value (or tuple) occurs twice among rows without nulls there.
    rows Unique {
        /// The columns.
        pub(super) columns: Vec<String>,
    }
}
expectation! {
    /// The number of different values.
    figure DistinctCount {
        /// The column.
        pub(super) column: String,
    }
}
expectation! {
    /// The value is one of these.
    rows InSet {
        /// The column.
        pub(super) column: String,
        /// The values.
        pub(super) values: Vec<Value>,
    }
}
expectation! {
    /// The value is none of these.
    rows NotInSet {
        /// The column.
        pub(super) column: String,
        /// The values.
        pub(super) values: Vec<Value>,
    }
}
expectation! {
    /// The value lies between two others (numbers, dates, times or texts), both included.
    rows Range {
        /// The column.
        pub(super) column: String,
        /// Least.
        #[serde(default)]
        pub(super) min: Option<Value>,
        /// Greatest.
        #[serde(default)]
        pub(super) max: Option<Value>,
        /// `min` itself fails.
        #[serde(default)]
        pub(super) strict_min: bool,
        /// `max` itself fails.
        #[serde(default)]
        pub(super) strict_max: bool,
    }
}
expectation! {
    /// The number of Unicode characters of a text.
    rows Length {
        /// The column.
        pub(super) column: String,
        /// Least.
        #[serde(default)]
        pub(super) min: Option<i64>,
        /// Most.
        #[serde(default)]
        pub(super) max: Option<i64>,
    }
}
expectation! {
    /// The text matches a regular expression somewhere (anchor it with `^` and `$`).
    rows Regex {
        /// The column.
        pub(super) column: String,
        /// The expression, in the syntax of Rust's `regex`.
        pub(super) pattern: String,
    }
}
expectation! {
    /// Each value is at least the one before it, in the order of another column.
    rows Monotonic {
        /// The column.
        pub(super) column: String,
        /// The column that orders rows.
        pub(super) by: String,
        /// Equal values fail.
        #[serde(default)]
        pub(super) strict: bool,
        /// Values fall instead.
        #[serde(default)]
        pub(super) decreasing: bool,
    }
}
expectation! {
    /// A SQL predicate holds for each row; null is not holding.
    rows Expression {
        /// The predicate.
        pub(super) sql: String,
    }
}
expectation! {
    /// A query's rows, or its one figure.
    figure Query {
        /// A SELECT over datasets, or over the connection's tables when `from` is one.
        pub(super) sql: String,
        /// The number of rows it gives. Without it the query gives one number for `min` and `max`.
        #[serde(default)]
        pub(super) rows: Option<u64>,
    }
}
expectation! {
    /// The newest value is not old at the run's logical date.
    plain Freshness {
        /// A column of times or dates.
        pub(super) column: String,
        /// Older fails.
        #[serde(alias = "error_after")]
        pub(super) max_age: Span,
        /// Older warns.
        #[serde(default)]
        pub(super) warn_after: Option<Span>,
        /// A newest value this far in the future fails; default 5m.
        #[serde(default = "five_minutes")]
        pub(super) skew: Span,
    }
}
expectation! {
    /// Every tuple without nulls occurs in another dataset.
    rows Reference {
        /// The columns.
        pub(super) columns: Vec<String>,
        /// The other dataset.
        pub(super) table: String,
        /// Its columns; default the same names.
        #[serde(default)]
        pub(super) to: Vec<String>,
    }
}
expectation! {
    /// A figure over a column.
    figure Aggregate {
        /// The column.
        pub(super) column: String,
        /// Which figure.
        pub(super) function: Function,
        /// The quantile, from 0 to 1.
        #[serde(default)]
        pub(super) q: Option<f64>,
    }
}

/// A figure over a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Function {
    /// The mean.
    Mean,
    /// The median.
    Median,
    /// The sum.
    Sum,
    /// The population standard deviation.
    Sd,
    /// The quantile `q`, by linear interpolation (type 7).
    Quantile,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

expectation! {
    /// The same figure here and in another dataset, or in another version of this one.
    plain Compare {
        /// The column.
        pub(super) column: String,
        /// Which figure.
        pub(super) function: Function,
        /// The quantile, from 0 to 1.
        #[serde(default)]
        pub(super) q: Option<f64>,
        /// The other dataset; default is this one, which then needs `version`.
        #[serde(default)]
        pub(super) table: Option<String>,
        /// `previous`, or the number of a version.
        #[serde(default)]
        pub(super) version: Option<Version>,
        /// The greatest difference.
        #[serde(default)]
        pub(super) absolute: Option<f64>,
        /// The greatest difference as a share of the other's figure.
        #[serde(default)]
        pub(super) relative: Option<f64>,
    }
}

/// A version of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Version {
    /// By its number.
    Number(i64),
    /// In words.
    Word(VersionWord),
}

/// A version of a dataset in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum VersionWord {
    /// The one before the version that is validated.
    Previous,
}
