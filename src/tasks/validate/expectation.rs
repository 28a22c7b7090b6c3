//! One expectation of any kind, told apart by its `type`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::spec::{
    Aggregate, Cohesion, Common, Compare, DistinctCount, Expression, Freshness, InSet, Length, Monotonic,
    NotInSet, NotNull, NullShare, Query, Range, Reference, Regex, RowCount, Schema, SegmentSize, Unique,
};

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
