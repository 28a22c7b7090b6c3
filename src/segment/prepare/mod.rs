//! Preparation: from columns as they are to a matrix in which distances mean something.
//!
//! Owns imputing, transforming, clipping, encoding, scaling and weighting, in this order, each fitted on the
//! training rows and then frozen. Batch and single rows go through the same functions, so they agree bit for
//! bit. Knows nothing of clusters.

mod feature;
mod report;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use feature::{CategoricalFeature, FittedFeature, FittedScale, Missing, NumericFeature};
pub use report::{FeatureReport, Warning};

use super::matrix::Matrix;
use super::spec::{Feature, FeatureKind, FeatureSpec, Scale, Strategy};

/// A column of the input; one value per row.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Numbers; NaN and infinities count as missing.
    Numeric(Vec<f64>),
    /// Levels; `None` is missing.
    Categorical(Vec<Option<Arc<str>>>),
}

/// One value of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A number; NaN and infinities count as missing.
    Number(f64),
    /// A level; `None` is missing.
    Level(Option<&'a str>),
}

impl Column {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Numeric(values) => values.len(),
            Self::Categorical(levels) => levels.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of one row.
    pub fn value(&self, row: usize) -> Value<'_> {
        match self {
            Self::Numeric(values) => Value::Number(values[row]),
            Self::Categorical(levels) => Value::Level(levels[row].as_deref()),
        }
    }
}

/// Why a feature cannot be prepared. All are permanent until data or configuration change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PrepareError {
    /// The same feature is declared twice.
    #[error("feature `{feature}` is declared twice")]
    Repeated {
        /// The feature.
        feature: String,
    },
    /// The input has no such column.
    #[error("feature `{feature}`: the input has no such column, it has {}", .columns.join(", "))]
    NoColumn {
        /// The feature.
        feature: String,
        /// The columns there are.
        columns: Vec<String>,
    },
    /// A column of levels is used as numbers.
    #[error("feature `{feature}`: the column is not numeric; declare `type: categorical`")]
    NotNumeric {
        /// The feature.
        feature: String,
    },
    /// An option has a value outside its range.
    #[error("feature `{feature}`: `{option}` is {value}, expected {expected}")]
    Option {
        /// The feature.
        feature: String,
        /// The key.
        option: &'static str,
        /// What was written.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// No row has a value.
    #[error("feature `{feature}`: every value is missing")]
    AllMissing {
        /// The feature.
        feature: String,
    },
    /// More rows are without a value than allowed.
    #[error("feature `{feature}`: {missing} of {rows} values are missing, `max_missing` allows {allowed}")]
    TooManyMissing {
        /// The feature.
        feature: String,
        /// Rows without a value.
        missing: usize,
        /// All rows.
        rows: usize,
        /// The largest share allowed.
        allowed: f64,
    },
    /// A value is missing where `impute: {strategy: error}` forbids it.
    #[error("feature `{feature}`: {missing} values are missing and `impute` says `error`")]
    Missing {
        /// The feature.
        feature: String,
        /// Rows without a value.
        missing: usize,
    },
    /// The transform is not defined for some values.
    #[error(
        "feature `{feature}`: {count} values are below 0, which `{transform}` cannot take; the lowest is {lowest} (hint: `signed_log1p` can)"
    )]
    BelowZero {
        /// The feature.
        feature: String,
        /// The transform as written.
        transform: &'static str,
        /// Values below 0.
        count: usize,
        /// The lowest of them.
        lowest: f64,
    },
    /// Preparing a value gave NaN or infinity.
    #[error("feature `{feature}`: {count} values are too large to be scaled")]
    Overflow {
        /// The feature.
        feature: String,
        /// Values that overflowed.
        count: usize,
    },
    /// Nothing is left to measure a distance by.
    #[error("no feature is left: {dropped} of {declared} declared features are constant")]
    NoFeatures {
        /// Declared features.
        declared: usize,
        /// Dropped as constant.
        dropped: usize,
    },
    /// `drop_row` left nothing out of which to learn.
    #[error("no row is left: `impute: {{strategy: drop_row}}` dropped all {rows}")]
    NoRows {
        /// Rows given.
        rows: usize,
    },
    /// Segments made by predicates are told by a query engine alone.
    #[error("the model's segments are predicates: one row alone cannot be assigned without a query engine")]
    Predicates,
    /// A row has another number of values than the model has features.
    #[error("the row has {found} values, the model expects {expected}")]
    RowWidth {
        /// Values given.
        found: usize,
        /// Features of the model.
        expected: usize,
    },
}

/// The fitted preparation: a function from raw values to a row of the matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Preparation {
    features: Vec<FittedFeature>,
}

/// The training rows, prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// Kept rows × prepared columns, all finite.
    pub matrix: Matrix,
    /// The input row (from 0, rising) of every row of the matrix; rows are left out by `drop_row` only.
    pub kept: Vec<usize>,
    /// What happened to each feature, in declared order.
    pub report: Vec<FeatureReport>,
    /// What the author should know.
    pub warnings: Vec<Warning>,
}

impl Preparation {
    /// Fits every feature on the rows of `columns` and prepares them.
    ///
    /// # Errors
    /// All problems of all features at once; never an empty list.
    pub fn fit(
        features: &[Feature],
        scale: Scale,
        columns: &[(String, Column)],
    ) -> Result<(Self, Prepared), Vec<PrepareError>> {
        let found = resolve(features, columns)?;
        let rows = columns.first().map_or(0, |(_, column)| column.len());
        let kept = kept_rows(&found, rows);
        if kept.is_empty() {
            return Err(vec![PrepareError::NoRows { rows }]);
        }
        let (mut fitted, mut report, mut warnings, mut errors) = (vec![], vec![], vec![], vec![]);
        for (spec, column) in &found {
            match feature::fit(spec, spec.scale.unwrap_or(scale), column, &kept) {
                Ok((feature, figures)) => {
                    warnings.extend(report::lint(&feature, &figures));
                    fitted.push(feature);
                    report.push(figures);
                }
                Err(error) => errors.push(error),
            }
        }
        let preparation = Self { features: fitted };
        if errors.is_empty() && preparation.width() == 0 {
            errors.push(PrepareError::NoFeatures { declared: found.len(), dropped: found.len() });
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let named: Vec<&Column> = found.iter().map(|(_, column)| *column).collect();
        let (matrix, kept) = preparation.transform(&named)?;
        report::skewness_after(&preparation.features, &matrix, &mut report);
        warnings.extend(report::correlated(&preparation.features, &matrix));
        Ok((preparation, Prepared { matrix, kept, report, warnings }))
    }

    /// The features in declared order.
    pub fn features(&self) -> &[FittedFeature] {
        &self.features
    }

    /// Number of columns of a prepared row.
    pub fn width(&self) -> usize {
        self.features.iter().map(FittedFeature::width).sum()
    }

    /// The names of the prepared columns, such as `orders`, `orders__missing` or `country=FR`.
    pub fn column_names(&self) -> Vec<String> {
        self.features.iter().flat_map(FittedFeature::column_names).collect()
    }

    /// A prepared row of this preparation in the prepared units of `to`, by way of raw units.
    ///
    /// `None` when `to` has a numeric feature that this one lacks or found constant. Levels that this one does
    /// not know count as absent.
    pub fn remap(&self, row: &[f64], to: &Self) -> Option<Vec<f64>> {
        let mut place = 0;
        let own: Vec<(&FittedFeature, &[f64])> = self
            .features
            .iter()
            .map(|feature| {
                let part = row.get(place..place + feature.width())?;
                place += feature.width();
                Some((feature, part))
            })
            .collect::<Option<_>>()?;
        let mut mapped = Vec::with_capacity(to.width());
        for feature in &to.features {
            let found = own.iter().find(|(own, _)| own.name() == feature.name());
            feature::remap(found.copied(), feature, &mut mapped)?;
        }
        Some(mapped)
    }

    /// One row, prepared; its values stand in the order of [`features`](Self::features).
    ///
    /// `None` when a feature's `drop_row` leaves the row out.
    ///
    /// # Errors
    /// The first [`PrepareError`] of the row.
    pub fn row(&self, values: &[Value<'_>]) -> Result<Option<Vec<f64>>, PrepareError> {
        if values.len() != self.features.len() {
            return Err(PrepareError::RowWidth { found: values.len(), expected: self.features.len() });
        }
        let mut row = Vec::with_capacity(self.width());
        for (feature, value) in self.features.iter().zip(values) {
            if !feature.push(*value, &mut row)? {
                return Ok(None);
            }
        }
        Ok(Some(row))
    }

    /// All rows of `columns`, which stand in the order of [`features`](Self::features), and the input row of
    /// each prepared one.
    ///
    /// # Errors
    /// One error per feature, counting its bad values.
    pub fn transform(&self, columns: &[&Column]) -> Result<(Matrix, Vec<usize>), Vec<PrepareError>> {
        if columns.len() != self.features.len() {
            let (found, expected) = (columns.len(), self.features.len());
            return Err(vec![PrepareError::RowWidth { found, expected }]);
        }
        let rows = columns.first().map_or(0, |column| column.len());
        let drops = |row: usize| {
            self.features.iter().zip(columns).any(|(feature, column)| feature.drops(column.value(row)))
        };
        let kept: Vec<usize> = (0..rows).filter(|&row| !drops(row)).collect();
        let (mut prepared, mut errors) = (Vec::new(), Vec::new());
        for (feature, column) in self.features.iter().zip(columns) {
            match feature.columns(column, &kept) {
                Ok(columns) => prepared.extend(columns),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let matrix = Matrix::from_columns(prepared).expect("every column was made for the kept rows");
        Ok((matrix, kept))
    }
}

/// Finds each feature's column and checks what can be checked without looking at values.
fn resolve<'a>(
    features: &'a [Feature],
    columns: &'a [(String, Column)],
) -> Result<Vec<(&'a FeatureSpec, &'a Column)>, Vec<PrepareError>> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for (number, Feature(spec)) in features.iter().enumerate() {
        let feature = spec.name.clone();
        if features[..number].iter().any(|Feature(other)| other.name == spec.name) {
            errors.push(PrepareError::Repeated { feature });
            continue;
        }
        errors.extend(feature::check(spec));
        match columns.iter().find(|(name, _)| *name == spec.name) {
            None => {
                let columns = columns.iter().map(|(name, _)| format!("`{name}`")).collect();
                errors.push(PrepareError::NoColumn { feature, columns });
            }
            Some((_, Column::Categorical(_))) if spec.kind == Some(FeatureKind::Numeric) => {
                errors.push(PrepareError::NotNumeric { feature });
            }
            Some((_, column)) => found.push((spec, column)),
        }
    }
    if errors.is_empty() && found.is_empty() {
        errors.push(PrepareError::NoFeatures { declared: 0, dropped: 0 });
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

/// Rows that no feature's `drop_row` leaves out.
fn kept_rows(found: &[(&FeatureSpec, &Column)], rows: usize) -> Vec<usize> {
    let drops = |row: usize| {
        found.iter().any(|(spec, column)| {
            spec.impute.strategy == Strategy::DropRow && feature::is_missing(column.value(row))
        })
    };
    (0..rows).filter(|&row| !drops(row)).collect()
}
