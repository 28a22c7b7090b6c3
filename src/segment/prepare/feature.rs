//! One feature, fitted and applied.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::report::FeatureReport;
use super::{Column, PrepareError, Value};
use crate::segment::spec::{FeatureKind, FeatureSpec, Scale, Strategy, Transform};
use crate::segment::statistics::{deviation, mean, mode, quantile, skewness, sorted};

/// The level of missing values.
const NULL: &str = "__null__";
/// The level of all levels that have no column of their own.
const OTHER: &str = "__other__";
/// A spread below this counts as none.
const NO_SPREAD: f64 = 10.0 * f64::EPSILON;

/// A feature with everything learnt from the training rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FittedFeature {
    /// A number becomes one column, and one more with an indicator.
    Numeric(NumericFeature),
    /// Levels become one column each.
    Categorical(CategoricalFeature),
}

/// What stands for a missing number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// This value, in raw units.
    Fill(f64),
    /// The row is left out.
    DropRow,
    /// Refused.
    Error,
}

/// scaled = (transformed - offset) × factor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FittedScale {
    /// Which scaling.
    pub kind: Scale,
    /// Subtracted first.
    pub offset: f64,
    /// Multiplied then.
    pub factor: f64,
}

/// A fitted numeric feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NumericFeature {
    /// The column.
    pub name: String,
    /// What stands for a missing value.
    pub impute: Missing,
    /// Whether a column of 0 and 1 tells missing values.
    pub indicator: bool,
    /// Applied after imputing.
    pub transform: Transform,
    /// Bounds of transformed values.
    pub clip: Option<[f64; 2]>,
    /// `None` when the feature is constant and has no column.
    pub scale: Option<FittedScale>,
    /// Whether `minmax` values are kept in [0, 1].
    pub clamp: bool,
    /// Multiplies the scaled value.
    pub weight: f64,
}

/// A fitted categorical feature.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CategoricalFeature {
    /// The column.
    pub name: String,
    /// The level of each column; none when there is only one level. `__other__`, if present, stands last and
    /// takes every level not listed; without it such a level is 0 in all columns.
    pub levels: Vec<String>,
    /// What marks a row's level: weight / sqrt(2), so that two levels are `weight` apart.
    pub mark: f64,
}

/// Whether a value counts as missing.
pub(super) fn is_missing(value: Value<'_>) -> bool {
    match value {
        Value::Number(number) => !number.is_finite(),
        Value::Level(level) => level.is_none(),
    }
}

/// Options outside their range.
pub(super) fn check(spec: &FeatureSpec) -> Vec<PrepareError> {
    let mut errors = Vec::new();
    let mut refuse = |option, value: String, expected| {
        errors.push(PrepareError::Option { feature: spec.name.clone(), option, value, expected });
    };
    if !spec.weight.is_finite() || spec.weight <= 0.0 {
        refuse("weight", spec.weight.to_string(), "a number above 0");
    }
    if !(0.0..=1.0).contains(&spec.max_missing) {
        refuse("max_missing", spec.max_missing.to_string(), "a share from 0 to 1");
    }
    if spec.max_levels == 0 {
        refuse("max_levels", "0".into(), "at least 1");
    }
    if let Some(clip) = spec.clip
        && !(0.0 <= clip.lower && clip.lower < clip.upper && clip.upper <= 1.0)
    {
        refuse("clip", format!("{} to {}", clip.lower, clip.upper), "quantiles with 0 <= lower < upper <= 1");
    }
    match (spec.impute.strategy, spec.impute.value) {
        (Strategy::Constant, None) => refuse("impute", "constant".into(), "a `value` beside it"),
        (Strategy::Constant, Some(value)) if !value.is_finite() => {
            refuse("impute", value.to_string(), "a finite `value`");
        }
        _ => {}
    }
    errors
}

/// Fits one feature on the rows `kept`.
pub(super) fn fit(
    spec: &FeatureSpec,
    scale: Scale,
    column: &Column,
    kept: &[usize],
) -> Result<(FittedFeature, FeatureReport), PrepareError> {
    let feature = spec.name.clone();
    let rows = column.len();
    let missing = (0..rows).filter(|&row| is_missing(column.value(row))).count();
    if missing == rows {
        return Err(PrepareError::AllMissing { feature });
    }
    if missing as f64 > spec.max_missing * rows as f64 {
        return Err(PrepareError::TooManyMissing { feature, missing, rows, allowed: spec.max_missing });
    }
    if missing > 0 && spec.impute.strategy == Strategy::Error {
        return Err(PrepareError::Missing { feature, missing });
    }
    let report = FeatureReport { name: feature, missing, skewness_before: None, skewness_after: None };
    match column {
        Column::Numeric(values) if spec.kind != Some(FeatureKind::Categorical) => {
            let values: Vec<f64> = kept.iter().map(|&row| values[row]).collect();
            fit_numeric(spec, scale, &values, report)
        }
        Column::Numeric(_) | Column::Categorical(_) => {
            let levels = kept.iter().map(|&row| level_text(column.value(row)));
            Ok((FittedFeature::Categorical(fit_levels(spec, levels)), report))
        }
    }
}

fn fit_numeric(
    spec: &FeatureSpec,
    kind: Scale,
    values: &[f64],
    mut report: FeatureReport,
) -> Result<(FittedFeature, FeatureReport), PrepareError> {
    let present = sorted(&values.iter().copied().filter(|value| value.is_finite()).collect::<Vec<_>>());
    if present.is_empty() {
        return Err(PrepareError::AllMissing { feature: spec.name.clone() });
    }
    report.skewness_before = Some(skewness(&present));
    let impute = match spec.impute.strategy {
        Strategy::Median => Missing::Fill(quantile(&present, 0.5)),
        Strategy::Mean => Missing::Fill(mean(&present)),
        Strategy::Mode => Missing::Fill(mode(&present)),
        Strategy::Constant => Missing::Fill(spec.impute.value.expect("checked before fitting")),
        Strategy::Min => Missing::Fill(present[0]),
        Strategy::Max => Missing::Fill(present[present.len() - 1]),
        Strategy::DropRow => Missing::DropRow,
        Strategy::Error => Missing::Error,
    };
    let mut feature = NumericFeature {
        name: spec.name.clone(),
        impute,
        indicator: spec.impute.indicator && report.missing > 0,
        transform: spec.transform,
        clip: None,
        scale: None,
        clamp: spec.clamp && kind == Scale::Minmax,
        weight: spec.weight,
    };
    let mut transformed = sorted(&feature.transformed(values)?);
    if let Some(clip) = spec.clip {
        let bounds = [quantile(&transformed, clip.lower), quantile(&transformed, clip.upper)];
        feature.clip = Some(bounds);
        transformed.iter_mut().for_each(|value| *value = value.clamp(bounds[0], bounds[1]));
    }
    feature.scale = fit_scale(kind, &transformed);
    Ok((FittedFeature::Numeric(feature), report))
}

/// Offset and factor learnt from values in rising order; `None` when they have no spread.
fn fit_scale(kind: Scale, sorted: &[f64]) -> Option<FittedScale> {
    let (lowest, highest) = (sorted[0], sorted[sorted.len() - 1]);
    let (offset, spread) = match kind {
        Scale::Minmax => (lowest, highest - lowest),
        Scale::Standard => (mean(sorted), deviation(sorted)),
        Scale::Robust => (quantile(sorted, 0.5), quantile(sorted, 0.75) - quantile(sorted, 0.25)),
        Scale::None => (0.0, highest - lowest),
    };
    let constant = lowest == highest || spread < NO_SPREAD;
    let factor = if kind == Scale::None { 1.0 } else { 1.0 / spread };
    (!constant).then_some(FittedScale { kind, offset, factor })
}

/// Levels by falling frequency, then by bytes; the first `max_levels` get a column.
fn fit_levels(spec: &FeatureSpec, rows: impl Iterator<Item = String>) -> CategoricalFeature {
    let mut counts = BTreeMap::new();
    rows.for_each(|level| *counts.entry(level).or_insert(0_usize) += 1);
    let mut levels: Vec<(String, usize)> = counts.into_iter().collect();
    levels.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    let overflow = levels.len() > spec.max_levels;
    levels.truncate(spec.max_levels);
    let mut levels: Vec<String> = levels.into_iter().map(|(level, _)| level).collect();
    if overflow {
        levels.retain(|level| level != OTHER);
        levels.push(OTHER.into());
    }
    if levels.len() < 2 {
        levels.clear();
    }
    let mark = spec.weight / std::f64::consts::SQRT_2;
    CategoricalFeature { name: spec.name.clone(), levels, mark }
}

fn level_text(value: Value<'_>) -> String {
    match value {
        Value::Number(number) if number.is_finite() => number.to_string(),
        Value::Level(Some(level)) => level.to_owned(),
        Value::Number(_) | Value::Level(None) => NULL.to_owned(),
    }
}

/// Appends the columns of `to` that correspond to the prepared columns of `own`; see [`super::Preparation::remap`].
pub(super) fn remap(
    own: Option<(&FittedFeature, &[f64])>,
    to: &FittedFeature,
    row: &mut Vec<f64>,
) -> Option<()> {
    match (to, own) {
        (FittedFeature::Numeric(to), Some((FittedFeature::Numeric(from), values))) => {
            if to.scale.is_some() {
                let raw = from.inverse(*values.first()?)?;
                row.push(to.prepared(raw).ok().filter(|value| value.is_finite())?);
            }
            if to.indicator {
                let missing = from.indicator.then(|| values.last()).flatten();
                row.push(missing.map_or(0.0, |value| value / from.weight * to.weight));
            }
            Some(())
        }
        (FittedFeature::Numeric(to), _) => (to.scale.is_none() && !to.indicator).then_some(()),
        (FittedFeature::Categorical(to), Some((FittedFeature::Categorical(from), values))) => {
            row.extend(to.levels.iter().map(|level| {
                let own = from.levels.iter().position(|known| known == level);
                own.map_or(0.0, |own| values[own] / from.mark * to.mark)
            }));
            Some(())
        }
        (FittedFeature::Categorical(to), _) => {
            row.extend(to.levels.iter().map(|_| 0.0));
            Some(())
        }
    }
}

impl FittedFeature {
    /// The column it is made of.
    pub fn name(&self) -> &str {
        match self {
            Self::Numeric(feature) => &feature.name,
            Self::Categorical(feature) => &feature.name,
        }
    }

    /// Number of prepared columns.
    pub fn width(&self) -> usize {
        match self {
            Self::Numeric(feature) => usize::from(feature.scale.is_some()) + usize::from(feature.indicator),
            Self::Categorical(feature) => feature.levels.len(),
        }
    }

    pub(super) fn column_names(&self) -> Vec<String> {
        match self {
            Self::Numeric(feature) => {
                let value = feature.scale.is_some().then(|| feature.name.clone());
                let indicator = feature.indicator.then(|| format!("{}__missing", feature.name));
                value.into_iter().chain(indicator).collect()
            }
            Self::Categorical(feature) => {
                feature.levels.iter().map(|level| format!("{}={level}", feature.name)).collect()
            }
        }
    }

    /// Whether a row with this value is left out.
    pub(super) fn drops(&self, value: Value<'_>) -> bool {
        match self {
            Self::Numeric(feature) => feature.impute == Missing::DropRow && is_missing(value),
            Self::Categorical(_) => false,
        }
    }

    /// Appends the prepared columns of one value; false when the row is left out.
    pub(super) fn push(&self, value: Value<'_>, row: &mut Vec<f64>) -> Result<bool, PrepareError> {
        match self {
            Self::Numeric(feature) => {
                if self.drops(value) {
                    return Ok(false);
                }
                let Value::Number(raw) = value else {
                    return Err(PrepareError::NotNumeric { feature: feature.name.clone() });
                };
                let prepared = feature.prepared(raw)?;
                if feature.scale.is_some() {
                    if !prepared.is_finite() {
                        return Err(PrepareError::Overflow { feature: feature.name.clone(), count: 1 });
                    }
                    row.push(prepared);
                }
                if feature.indicator {
                    row.push(feature.marked(raw));
                }
            }
            Self::Categorical(feature) => {
                let text = level_text(value);
                let own = feature.column_of(&text);
                row.extend((0..feature.levels.len()).map(|column| feature.at(own, column)));
            }
        }
        Ok(true)
    }

    /// The prepared columns of the rows `kept`.
    pub(super) fn columns(&self, column: &Column, kept: &[usize]) -> Result<Vec<Vec<f64>>, PrepareError> {
        match (self, column) {
            (Self::Numeric(feature), Column::Numeric(values)) => {
                let raw: Vec<f64> = kept.iter().map(|&row| values[row]).collect();
                let mut columns = Vec::new();
                let transformed = feature.transformed(&raw)?;
                if feature.scale.is_some() {
                    let scaled: Vec<f64> = transformed.iter().map(|&value| feature.scaled(value)).collect();
                    let count = scaled.iter().filter(|value| !value.is_finite()).count();
                    if count > 0 {
                        return Err(PrepareError::Overflow { feature: feature.name.clone(), count });
                    }
                    columns.push(scaled);
                }
                if feature.indicator {
                    columns.push(raw.iter().map(|&value| feature.marked(value)).collect());
                }
                Ok(columns)
            }
            (Self::Numeric(feature), Column::Categorical(_)) => {
                Err(PrepareError::NotNumeric { feature: feature.name.clone() })
            }
            (Self::Categorical(feature), _) => {
                let own: Vec<Option<usize>> =
                    kept.iter().map(|&row| feature.column_of(&level_text(column.value(row)))).collect();
                let column = |number| own.iter().map(|&own| feature.at(own, number)).collect();
                Ok((0..feature.levels.len()).map(column).collect())
            }
        }
    }
}

impl NumericFeature {
    /// Imputed and transformed values; bad ones are counted.
    fn transformed(&self, raw: &[f64]) -> Result<Vec<f64>, PrepareError> {
        let missing = raw.iter().filter(|value| !value.is_finite()).count();
        if missing > 0 && self.impute == Missing::Error {
            return Err(PrepareError::Missing { feature: self.name.clone(), missing });
        }
        let filled: Vec<f64> = raw.iter().map(|&value| self.filled(value)).collect();
        let named = match self.transform {
            Transform::None | Transform::SignedLog1p => None,
            Transform::Log1p => Some("log1p"),
            Transform::Sqrt => Some("sqrt"),
        };
        if let Some(transform) = named {
            let count = filled.iter().filter(|value| **value < 0.0).count();
            if count > 0 {
                let lowest = filled.iter().copied().fold(0.0, f64::min);
                return Err(PrepareError::BelowZero { feature: self.name.clone(), transform, count, lowest });
            }
        }
        Ok(filled.into_iter().map(|value| self.transform.apply(value)).collect())
    }

    fn filled(&self, raw: f64) -> f64 {
        match self.impute {
            Missing::Fill(fill) if !raw.is_finite() => fill,
            Missing::Fill(_) | Missing::DropRow | Missing::Error => raw,
        }
    }

    /// The value in transformed units (imputed, transformed, not clipped).
    ///
    /// # Errors
    /// [`PrepareError::Missing`] or [`PrepareError::BelowZero`].
    pub fn transformed_value(&self, raw: f64) -> Result<f64, PrepareError> {
        self.transformed(&[raw]).map(|values| values[0])
    }

    fn prepared(&self, raw: f64) -> Result<f64, PrepareError> {
        self.transformed_value(raw).map(|value| self.scaled(value))
    }

    fn scaled(&self, transformed: f64) -> f64 {
        let Some(scale) = self.scale else { return 0.0 };
        let value = self.clip.map_or(transformed, |[lower, upper]| transformed.clamp(lower, upper));
        let value = (value - scale.offset) * scale.factor;
        self.weight * if self.clamp { value.clamp(0.0, 1.0) } else { value }
    }

    fn marked(&self, raw: f64) -> f64 {
        if raw.is_finite() { 0.0 } else { self.weight }
    }

    /// The raw value of a prepared one; what clipping took is not given back. `None` for a constant feature.
    pub fn inverse(&self, prepared: f64) -> Option<f64> {
        let scale = self.scale?;
        Some(self.transform.inverse(prepared / self.weight / scale.factor + scale.offset))
    }
}

impl CategoricalFeature {
    fn column_of(&self, level: &str) -> Option<usize> {
        let other = || self.levels.last().filter(|last| *last == OTHER).map(|_| self.levels.len() - 1);
        self.levels.iter().position(|known| known == level).or_else(other)
    }

    fn at(&self, own: Option<usize>, column: usize) -> f64 {
        if own == Some(column) { self.mark } else { 0.0 }
    }
}

impl Transform {
    fn apply(self, value: f64) -> f64 {
        match self {
            Self::None => value,
            Self::Log1p => value.ln_1p(),
            Self::SignedLog1p => value.abs().ln_1p().copysign(value),
            Self::Sqrt => value.sqrt(),
        }
    }

    fn inverse(self, value: f64) -> f64 {
        match self {
            Self::None => value,
            Self::Log1p => value.exp_m1(),
            Self::SignedLog1p => value.abs().exp_m1().copysign(value),
            Self::Sqrt => value * value,
        }
    }
}
