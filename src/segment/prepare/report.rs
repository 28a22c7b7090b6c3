//! What preparation noticed: figures per feature and warnings.

use serde::Serialize;

use super::FittedFeature;
use crate::segment::matrix::Matrix;
use crate::segment::spec::{Scale, Transform};
use crate::segment::statistics::{correlation, skewness};

/// Two features this alike count almost twice in every distance.
const ALIKE: f64 = 0.95;
/// Skewness from which a transform is recommended.
const SKEWED: f64 = 2.0;

/// What happened to one feature.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FeatureReport {
    /// The feature.
    pub name: String,
    /// Rows without a value.
    pub missing: usize,
    /// Skewness of the raw values; `None` for levels.
    pub skewness_before: Option<f64>,
    /// Skewness of the prepared values; `None` for levels and constants.
    pub skewness_after: Option<f64>,
}

/// Something the author should know that does not stop the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// A stable word for programs, such as `constant_feature`.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// What one fitted feature gives reason to say.
pub(super) fn lint(feature: &FittedFeature, report: &FeatureReport) -> Option<Warning> {
    let name = feature.name();
    let constant = match feature {
        FittedFeature::Numeric(numeric) => numeric.scale.is_none(),
        FittedFeature::Categorical(levels) => levels.levels.is_empty(),
    };
    if constant {
        let message = format!("feature `{name}` is constant after preparation and is left out");
        return Some(Warning { code: "constant_feature", message });
    }
    let FittedFeature::Numeric(numeric) = feature else { return None };
    let skewness = report.skewness_before.filter(|skewness| *skewness > SKEWED)?;
    let squeezed = numeric.scale.is_some_and(|scale| scale.kind == Scale::Minmax && scale.offset >= 0.0);
    (numeric.transform == Transform::None && numeric.clip.is_none() && squeezed).then(|| Warning {
        code: "skewed_feature",
        message: format!(
            "feature `{name}` has skewness {skewness:.1}: under `minmax` most rows fall together near 0 (hint: `transform: log1p`)"
        ),
    })
}

/// Each numeric feature's name and its column of the matrix.
fn numeric_columns<'a>(
    features: &'a [FittedFeature],
    matrix: &'a Matrix,
) -> impl Iterator<Item = (&'a str, &'a [f64])> {
    let starts = features.iter().scan(0, |next, feature| {
        let start = *next;
        *next += feature.width();
        Some((start, feature))
    });
    starts.filter_map(|(start, feature)| match feature {
        FittedFeature::Numeric(numeric) => {
            numeric.scale.map(|_| (numeric.name.as_str(), matrix.columns()[start].as_slice()))
        }
        FittedFeature::Categorical(_) => None,
    })
}

/// Fills in the skewness of the prepared columns.
pub(super) fn skewness_after(features: &[FittedFeature], matrix: &Matrix, report: &mut [FeatureReport]) {
    for (name, column) in numeric_columns(features, matrix) {
        if let Some(figures) = report.iter_mut().find(|figures| figures.name == name) {
            figures.skewness_after = Some(skewness(column));
        }
    }
}

/// Warns of every pair of numeric features that say almost the same.
pub(super) fn correlated(features: &[FittedFeature], matrix: &Matrix) -> Vec<Warning> {
    let columns: Vec<_> = numeric_columns(features, matrix).collect();
    let mut warnings = Vec::new();
    for (number, (left, left_values)) in columns.iter().enumerate() {
        for (right, right_values) in &columns[number + 1..] {
            let r = correlation(left_values, right_values);
            if r.abs() > ALIKE {
                let message = format!(
                    "features `{left}` and `{right}` correlate at {r:.3}: together they count almost twice"
                );
                warnings.push(Warning { code: "correlated_features", message });
            }
        }
    }
    warnings
}
