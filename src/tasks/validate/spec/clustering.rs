//! Expectations on clusterings, on drift, and on a figure's own past.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::expectation::Expectation;
use super::{Bounds, Common, CompareWith, Severity, Version, yes};

fn segment_id() -> String {
    "segment_id".to_owned()
}

expectation! {
    /// Sizes of segments.
    plain SegmentSize {
        /// The column that names the segment; default `segment_id`.
        #[serde(default = "segment_id")]
        pub(in crate::tasks::validate) column: String,
        /// No segment has a smaller share.
        #[serde(default)]
        pub(in crate::tasks::validate) min_share: Option<f64>,
        /// No segment has fewer rows.
        #[serde(default)]
        pub(in crate::tasks::validate) min_size: Option<u64>,
        /// No segment has a greater share.
        #[serde(default)]
        pub(in crate::tasks::validate) max_share: Option<f64>,
        /// There are at most so many segments.
        #[serde(default)]
        pub(in crate::tasks::validate) max_k: Option<u64>,
        /// The least exp(entropy of the shares).
        #[serde(default)]
        pub(in crate::tasks::validate) effective_k: Option<f64>,
    }
}
expectation! {
    /// How well segments hold together, as the clustering measured it (dataset `<from>__metrics`).
    figure Cohesion {
        /// Which measure.
        pub(in crate::tasks::validate) metric: Metric,
        /// Compare the estimate itself, not the lower end of its interval.
        #[serde(default)]
        pub(in crate::tasks::validate) point: bool,
    }
}

/// A measure of a clustering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tasks::validate) enum Metric {
    /// Greater is better, at most 1.
    Silhouette,
    /// Smaller is better.
    DaviesBouldin,
    /// Greater is better.
    CalinskiHarabasz,
    /// The sum of squared distances to the centres.
    Inertia,
    /// Inertia per row as a multiple of that of the version that is served: 1.1 is a tenth worse.
    InertiaRatio,
}

expectation! {
    /// How far apart segments are: the least, over pairs, of the distance of their centres over the sum of
    /// their median radii. At least 1 unless bounds are given.
    figure Separation {}
}
expectation! {
    /// How much of the segmentation that is served is left in this one, by the customers of both. Passes over
    /// (`skipped`) as long as nothing was ever served.
    figure Stability {
        /// Which measure. Without bounds, `ari` warns below 0.9 and fails below 0.75, `moved_share` warns above
        /// 0.03 and fails above 0.1, `share_psi` warns above 0.1 and fails above 0.25.
        #[serde(default)]
        pub(in crate::tasks::validate) metric: StabilityMetric,
        /// A version of the model to compare with; default is the one served before this.
        #[serde(default)]
        pub(in crate::tasks::validate) version: Option<String>,
    }
}

/// A measure of two segmentations of the same customers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tasks::validate) enum StabilityMetric {
    /// The adjusted Rand index.
    #[default]
    Ari,
    /// Normalised mutual information.
    Nmi,
    /// The least, over segments that were served, of customers in both over customers in either.
    Jaccard,
    /// The share of customers whose segment has another id.
    MovedShare,
    /// The population stability index of the shares of segments.
    SharePsi,
    /// The farthest that a centre moved in one feature, in standard deviations of the model that is served.
    CentreShift,
}

impl StabilityMetric {
    pub(in crate::tasks::validate) fn as_str(self) -> &'static str {
        match self {
            Self::Ari => "ari",
            Self::Nmi => "nmi",
            Self::Jaccard => "jaccard",
            Self::MovedShare => "moved_share",
            Self::SharePsi => "share_psi",
            Self::CentreShift => "centre_shift",
        }
    }
}

expectation! {
    /// Whether columns are distributed as they were. Each column is a result of its own. Withheld (`skipped`)
    /// where the samples are too small to tell.
    figure Drift {
        /// The columns; default are the features of the model.
        #[serde(default)]
        pub(in crate::tasks::validate) columns: Vec<String>,
        /// Which measure; its bounds are for `max` and `warn_above`.
        #[serde(default)]
        pub(in crate::tasks::validate) method: DriftMethod,
        /// What with; default `model`, which has bins only: `ks` and `wasserstein` need rows.
        #[serde(default)]
        pub(in crate::tasks::validate) reference: DriftReference,
    }
}

/// A measure of drift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tasks::validate) enum DriftMethod {
    /// The population stability index over ten bins or the levels; warns above 0.1, fails above 0.25.
    #[default]
    Psi,
    /// The Kolmogorov-Smirnov statistic D; warns above 0.1, fails above 0.2. Its p-value is reported only.
    Ks,
    /// The Jensen-Shannon distance, base 2; warns above 0.1, fails above 0.2.
    Js,
    /// The Wasserstein distance in standard deviations of the reference; warns above 0.1, fails above 0.2.
    Wasserstein,
    /// sqrt(chi² / rows); warns above 0.1, fails above 0.2. Its p-value is reported only.
    Chi2,
}

impl DriftMethod {
    pub(in crate::tasks::validate) fn as_str(self) -> &'static str {
        match self {
            Self::Psi => "psi",
            Self::Ks => "ks",
            Self::Js => "js",
            Self::Wasserstein => "wasserstein",
            Self::Chi2 => "chi2",
        }
    }
}

/// What drift is measured from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tasks::validate) enum DriftReference {
    /// The rows that the served version of the task's `model` was fitted on.
    #[default]
    Model,
    /// The rows that this version of the task's `model` was fitted on.
    ModelVersion(String),
    /// Another version of the dataset.
    Version(Version),
    /// Another dataset.
    Table(String),
}

expectation! {
    /// Batch and single customers get the same segment: customers are assigned again, one by one, from the rows
    /// that the model was fitted on, and compared with the dataset.
    plain Parity {
        /// Customers drawn; default 1000.
        #[serde(default = "thousand")]
        pub(in crate::tasks::validate) sample: usize,
    }
}

fn thousand() -> usize {
    1_000
}

expectation! {
    /// A figure against its own past in earlier runs of this task: an anomaly is both unusual (a robust z-score
    /// beyond `max_z`) and large (a change of more than `min_change`).
    plain History {
        /// The expectation whose figure is watched; its own bounds are not judged.
        pub(in crate::tasks::validate) of: Box<Expectation>,
        /// Earlier points at most, the latest; default 30.
        #[serde(default = "thirty")]
        pub(in crate::tasks::validate) window: usize,
        /// Earlier points at least; with fewer it passes over (`skipped: warming_up`). Default 7, with
        /// `seasonality` 4.
        #[serde(default)]
        pub(in crate::tasks::validate) min_points: Option<usize>,
        /// Which earlier points are comparable, by logical date in UTC.
        #[serde(default)]
        pub(in crate::tasks::validate) seasonality: Seasonality,
        /// Which way is bad.
        #[serde(default)]
        pub(in crate::tasks::validate) direction: Direction,
        /// The least change, as a share of the median; default 0.05.
        #[serde(default = "twentieth")]
        pub(in crate::tasks::validate) min_change: f64,
        /// The robust z-score beyond which a figure is unusual; default 3.5.
        #[serde(default = "three_and_a_half")]
        pub(in crate::tasks::validate) max_z: f64,
        /// The scale on which figures are compared.
        #[serde(default)]
        pub(in crate::tasks::validate) scale: HistoryScale,
        /// Runs whose figure failed, but which a person accepts as part of the past.
        #[serde(default)]
        pub(in crate::tasks::validate) accepted: Vec<String>,
    }
}

fn thirty() -> usize {
    30
}

fn twentieth() -> f64 {
    0.05
}

fn three_and_a_half() -> f64 {
    3.5
}

/// Which earlier points are comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tasks::validate) enum Seasonality {
    /// All.
    #[default]
    None,
    /// Those of the same hour of the day.
    HourOfDay,
    /// Those of the same day of the week.
    DayOfWeek,
    /// Those of the same hour and day of the week.
    HourOfWeek,
}

/// Which way is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tasks::validate) enum Direction {
    /// Either.
    #[default]
    Both,
    /// Down.
    Drop,
    /// Up.
    Spike,
}

/// The scale on which figures are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::tasks::validate) enum HistoryScale {
    /// `log1p` for counts, and for sums that were never negative; otherwise `linear`.
    #[default]
    Auto,
    /// ln(1 + x).
    Log1p,
    /// As it is.
    Linear,
}
