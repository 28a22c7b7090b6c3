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

/// Twenty structs share their common keys, and `flatten` would accept unknown ones: so a macro writes them.
/// `rows` adds the keys of [`ByRow`], `figure` those of [`Bounds`].
macro_rules! expectation {
    (@struct $(#[$doc:meta])* $name:ident { $($own:tt)* } { $($more:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
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
            pub(super) fn common(&self) -> Common {
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
            pub(super) fn by_row(&self) -> ByRow {
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
        } }

        impl $name {
            pub(super) fn bounds(&self) -> Bounds {
                let Self { min, max, warn_below, warn_above, allow_empty, .. } = *self;
                Bounds { min, max, warn_below, warn_above, allow_empty }
            }
        }
    };
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn five_minutes() -> Span {
    Span(std::time::Duration::from_secs(300))
}

fn segment_id() -> String {
    "segment_id".to_owned()
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
    /// Sizes of segments.
    plain SegmentSize {
        /// The column that names the segment; default `segment_id`.
        #[serde(default = "segment_id")]
        pub(super) column: String,
        /// No segment has a smaller share.
        #[serde(default)]
        pub(super) min_share: Option<f64>,
        /// No segment has fewer rows.
        #[serde(default)]
        pub(super) min_size: Option<u64>,
        /// No segment has a greater share.
        #[serde(default)]
        pub(super) max_share: Option<f64>,
        /// There are at most so many segments.
        #[serde(default)]
        pub(super) max_k: Option<u64>,
        /// The least exp(entropy of the shares).
        #[serde(default)]
        pub(super) effective_k: Option<f64>,
    }
}
expectation! {
    /// How well segments hold together, as the clustering measured it (dataset `<from>__metrics`).
    figure Cohesion {
        /// Which measure.
        pub(super) metric: Metric,
        /// Compare the estimate itself, not the lower end of its interval.
        #[serde(default)]
        pub(super) point: bool,
    }
}

/// A measure of a clustering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Metric {
    /// Greater is better, at most 1.
    Silhouette,
    /// Smaller is better.
    DaviesBouldin,
    /// Greater is better.
    CalinskiHarabasz,
    /// The sum of squared distances to the centres.
    Inertia,
}

expectation! {
    /// The same figure here and in another dataset.
    plain Compare {
        /// The column.
        pub(super) column: String,
        /// Which figure.
        pub(super) function: Function,
        /// The other dataset.
        pub(super) table: String,
        /// The greatest difference.
        #[serde(default)]
        pub(super) absolute: Option<f64>,
        /// The greatest difference as a share of the other's figure.
        #[serde(default)]
        pub(super) relative: Option<f64>,
    }
}

/// One expectation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Expectation {
    Schema(Schema),
    RowCount(RowCount),
    NotNull(NotNull),
    NullShare(NullShare),
    Unique(Unique),
    DistinctCount(DistinctCount),
    InSet(InSet),
    NotInSet(NotInSet),
    Range(Range),
    Length(Length),
    Regex(Regex),
    Monotonic(Monotonic),
    Expression(Expression),
    Query(Query),
    Freshness(Freshness),
    Reference(Reference),
    Aggregate(Aggregate),
    SegmentSize(SegmentSize),
    Cohesion(Cohesion),
    Compare(Compare),
}

impl Expectation {
    /// The keys that every expectation has.
    pub(super) fn common(&self) -> Common {
        match self {
            Self::Schema(e) => e.common(),
            Self::RowCount(e) => e.common(),
            Self::NotNull(e) => e.common(),
            Self::NullShare(e) => e.common(),
            Self::Unique(e) => e.common(),
            Self::DistinctCount(e) => e.common(),
            Self::InSet(e) => e.common(),
            Self::NotInSet(e) => e.common(),
            Self::Range(e) => e.common(),
            Self::Length(e) => e.common(),
            Self::Regex(e) => e.common(),
            Self::Monotonic(e) => e.common(),
            Self::Expression(e) => e.common(),
            Self::Query(e) => e.common(),
            Self::Freshness(e) => e.common(),
            Self::Reference(e) => e.common(),
            Self::Aggregate(e) => e.common(),
            Self::SegmentSize(e) => e.common(),
            Self::Cohesion(e) => e.common(),
            Self::Compare(e) => e.common(),
        }
    }

    /// What the results call it when the author gives no name.
    pub(super) fn label(&self) -> String {
        match self {
            Self::Schema(_) => "schema".to_owned(),
            Self::RowCount(_) => "row_count".to_owned(),
            Self::NotNull(e) => format!("not_null({})", e.column),
            Self::NullShare(e) => format!("null_share({})", e.column),
            Self::Unique(e) => format!("unique({})", e.columns.join(", ")),
            Self::DistinctCount(e) => format!("distinct_count({})", e.column),
            Self::InSet(e) => format!("in_set({})", e.column),
            Self::NotInSet(e) => format!("not_in_set({})", e.column),
            Self::Range(e) => format!("range({})", e.column),
            Self::Length(e) => format!("length({})", e.column),
            Self::Regex(e) => format!("regex({})", e.column),
            Self::Monotonic(e) => format!("monotonic({} by {})", e.column, e.by),
            Self::Expression(e) => format!("expression({})", e.sql.trim()),
            Self::Query(_) => "query".to_owned(),
            Self::Freshness(e) => format!("freshness({})", e.column),
            Self::Reference(e) => format!("reference({} in {})", e.columns.join(", "), e.table),
            Self::Aggregate(e) => format!("{:?}({})", e.function, e.column).to_lowercase(),
            Self::SegmentSize(e) => format!("segment_size({})", e.column),
            Self::Cohesion(e) => format!("cohesion({:?})", e.metric).to_lowercase(),
            Self::Compare(e) => {
                format!("compare({:?}({}), {})", e.function, e.column, e.table).to_lowercase()
            }
        }
    }
}
