//! One expectation of any kind, told apart by its `type`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::spec::{
    Aggregate, Cohesion, Common, Compare, DistinctCount, Drift, DriftMethod, DriftReference, Expression,
    Freshness, Function, History, InSet, Length, Monotonic, NotInSet, NotNull, NullShare, Parity, Query,
    Range, Reference, Regex, RowCount, Schema, SegmentSize, Separation, Stability, Unique, Version,
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
    Separation(Separation),
    Stability(Stability),
    Parity(Parity),
    Compare(Compare),
    Drift(Drift),
    History(History),
}

/// What is known of a figure by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// Counted: never below 0.
    Count,
    /// Summed: never below 0 if its parts are not.
    Sum,
    /// Anything.
    Any,
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
            Self::Separation(e) => e.common(),
            Self::Stability(e) => e.common(),
            Self::Parity(e) => e.common(),
            Self::Compare(e) => e.common(),
            Self::Drift(e) => e.common(),
            Self::History(e) => e.common(),
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
            Self::Separation(_) => "separation".to_owned(),
            Self::Stability(e) => format!("stability({})", e.metric.as_str()),
            Self::Parity(_) => "parity".to_owned(),
            Self::Compare(e) => {
                let with = e.table.as_deref().unwrap_or("another version");
                format!("compare({:?}({}), {with})", e.function, e.column).to_lowercase()
            }
            Self::Drift(e) => format!("drift({})", e.method.as_str()),
            Self::History(e) => format!("history({})", e.of.label()),
        }
    }

    /// Whether the figure is to be compared with its own past besides its bounds.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a new kind has to say so itself")]
    pub(super) fn compares_with_past(&self) -> bool {
        match self {
            Self::RowCount(e) => e.compares_with_past(),
            Self::NullShare(e) => e.compares_with_past(),
            Self::DistinctCount(e) => e.compares_with_past(),
            Self::Query(e) => e.compares_with_past(),
            Self::Aggregate(e) => e.compares_with_past(),
            Self::Cohesion(e) => e.compares_with_past(),
            Self::Separation(e) => e.compares_with_past(),
            Self::Stability(e) => e.compares_with_past(),
            Self::Drift(e) => e.compares_with_past(),
            _ => false,
        }
    }

    /// What is known of its figure; `None` if it has none.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a new kind has to say so itself")]
    pub(super) fn nature(&self) -> Option<Nature> {
        match self {
            Self::RowCount(_) | Self::DistinctCount(_) => Some(Nature::Count),
            Self::Aggregate(e) if e.function == Function::Sum => Some(Nature::Sum),
            Self::NullShare(_)
            | Self::Aggregate(_)
            | Self::Query(_)
            | Self::Cohesion(_)
            | Self::Separation(_)
            | Self::Stability(_)
            | Self::Drift(_)
            | Self::SegmentSize(_) => Some(Nature::Any),
            _ => None,
        }
    }

    /// The other dataset it reads, if it names one.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a new kind has to say so itself")]
    pub(super) fn reads(&self) -> Option<String> {
        match self {
            Self::Reference(e) => Some(e.table.clone()),
            Self::Compare(e) => e.table.clone(),
            Self::RowCount(e) => e.equals_table.clone(),
            Self::Drift(Drift { reference: DriftReference::Table(table), .. }) => Some(table.clone()),
            Self::History(e) => e.of.reads(),
            _ => None,
        }
    }

    /// What can be seen to be wrong before anything runs.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a new kind has to say so itself")]
    pub(super) fn wrong(&self) -> Option<String> {
        match self {
            Self::Regex(e) => regex::Regex::new(&e.pattern).err().map(|error| error.to_string()),
            Self::Unique(e) if e.columns.is_empty() => Some("`columns` is empty".to_owned()),
            Self::Reference(e) if e.columns.is_empty() => Some("`columns` is empty".to_owned()),
            Self::Range(e) if e.min.is_none() && e.max.is_none() => {
                Some("there is neither `min` nor `max`".to_owned())
            }
            Self::Length(e) if e.min.is_none() && e.max.is_none() => {
                Some("there is neither `min` nor `max`".to_owned())
            }
            Self::Aggregate(Aggregate { function: Function::Quantile, q: None, .. })
            | Self::Compare(Compare { function: Function::Quantile, q: None, .. }) => {
                Some("`quantile` needs `q`, from 0 to 1".to_owned())
            }
            Self::Compare(e) if e.table.is_none() && e.version.is_none() => {
                Some("there is neither `table` nor `version` to compare with".to_owned())
            }
            Self::Compare(Compare { table: Some(_), version: Some(Version::Word(_)), .. }) => {
                Some("`version: previous` is of the dataset validated; of another, say a number".to_owned())
            }
            Self::Drift(e) => drift_wrong(e),
            Self::History(e) if e.of.nature().is_none() => {
                Some(format!("`{}` has no figure that `history` could watch", e.of.label()))
            }
            Self::History(e) => e.of.wrong(),
            _ => None,
        }
    }

    /// Whether rows that break it can be told from the others one by one.
    pub(super) fn judges_single_rows(&self) -> bool {
        matches!(
            self,
            Self::NotNull(_)
                | Self::InSet(_)
                | Self::NotInSet(_)
                | Self::Range(_)
                | Self::Length(_)
                | Self::Regex(_)
                | Self::Expression(_)
        )
    }
}

fn drift_wrong(drift: &Drift) -> Option<String> {
    let of_model = matches!(drift.reference, DriftReference::Model | DriftReference::ModelVersion(_));
    let of_rows = matches!(drift.method, DriftMethod::Ks | DriftMethod::Wasserstein);
    if of_model && of_rows {
        let method = drift.method.as_str();
        return Some(format!(
            "`{method}` needs the rows of a reference (`{{version: …}}` or `{{table: …}}`), a model keeps shares only"
        ));
    }
    (!of_model && drift.columns.is_empty()).then(|| "`columns` is empty".to_owned())
}
