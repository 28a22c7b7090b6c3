//! From customers to segments: the one entry point of the room.
//!
//! Owns the order of the steps: check, prepare, choose k on a sample, fit on all rows, name, assign. Equal
//! rows, configuration and model name give equal bytes. Knows nothing of where rows come from.

mod build;

use std::sync::Arc;

use serde::Serialize;

use super::artefact::{Assignment, Model, ModelMetrics};
use super::choose_k::{KReport, NoEligibleK, choose_k};
use super::kmeans::{KMeansError, KMeansOptions, kmeans_from};
use super::prepare::{Column, FeatureReport, Preparation, PrepareError, Prepared, Warning};
use super::random::{Draws, Purpose};
use super::spec::{ClusterSpec, Select};

/// Rows on which k is chosen.
const SAMPLE: usize = 50_000;

/// What is to be segmented.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterInput {
    /// The model's name; segment ids are derived from it.
    pub model: String,
    /// One key per row, rising by bytes, none twice.
    pub keys: Vec<Arc<str>>,
    /// At least the columns of the features, each with one value per key.
    pub columns: Vec<(String, Column)>,
    /// The configuration.
    pub spec: ClusterSpec,
}

/// A finished segmentation.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// The model.
    pub model: Model,
    /// Its canonical text.
    pub model_json: String,
    /// Its version, 16 hexadecimal digits.
    pub version: String,
    /// One per input row; `None` for rows that `drop_row` leaves out.
    pub assignments: Vec<Option<Assignment>>,
    /// One row per segment and prepared column.
    pub centres: Vec<CentreRow>,
    /// What was found for every k.
    pub k_report: KReport,
    /// Figures on all training rows.
    pub metrics: ModelMetrics,
    /// What preparation did to each feature.
    pub features: Vec<FeatureReport>,
    /// What the author should know.
    pub warnings: Vec<Warning>,
}

/// One segment's centre in one prepared column.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CentreRow {
    /// The segment.
    pub segment_id: String,
    /// The prepared column, such as `orders` or `country=FR`.
    pub feature: String,
    /// In prepared units.
    pub centre_scaled: f64,
    /// In raw units; for levels and indicators the share of rows that have it.
    pub centre_raw: f64,
    /// Mean of the raw values of all rows, missing ones left out; for levels and indicators the share.
    pub population_mean: f64,
    /// (segment mean - population mean) / population standard deviation, prepared units.
    pub effect_z: f64,
    /// Quartiles of the segment's raw values; `None` for levels, indicators and segments without values.
    pub quartiles: Option<[f64; 3]>,
    /// Rows of the segment.
    pub n: usize,
    /// Their share.
    pub share: f64,
}

/// Why customers cannot be segmented. All are permanent until data or configuration change.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClusterError {
    /// Features that cannot be prepared: all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Prepare(Vec<PrepareError>),
    /// A column's length is not the number of keys.
    #[error("column `{column}` has {found} values for {expected} keys")]
    ColumnLength {
        /// The column.
        column: String,
        /// Its values.
        found: usize,
        /// The keys.
        expected: usize,
    },
    /// A key is not above the one before it.
    #[error("key `{key}` in row {row} (from 0) is not above the key before it: keys must rise, none twice")]
    KeyOrder {
        /// The row.
        row: usize,
        /// Its key.
        key: String,
    },
    /// Settings that cannot be followed: all of them.
    #[error("{}", .0.join("; "))]
    Settings(Vec<String>),
    /// Fewer rows than the fewest segments asked for.
    #[error("{rows} rows cannot be divided into {needed} segments")]
    TooFewRows {
        /// Rows left after preparation.
        rows: usize,
        /// Rows needed.
        needed: usize,
    },
    /// No k satisfies the guard.
    #[error(transparent)]
    NoEligibleK(#[from] NoEligibleK),
    /// The fit was refused.
    #[error(transparent)]
    KMeans(#[from] KMeansError),
}

/// Divides customers into segments.
///
/// # Errors
/// [`ClusterError`]; features and settings name all their problems at once.
pub fn cluster(input: ClusterInput) -> Result<Clustering, ClusterError> {
    check(&input)?;
    let ClusterInput { model: name, keys, columns, spec } = input;
    let (preparation, prepared) =
        Preparation::fit(&spec.features, spec.scale, &columns).map_err(ClusterError::Prepare)?;
    let Prepared { matrix, kept, report, mut warnings } = prepared;
    let rows = matrix.rows();
    let least = spec.k.0.fixed.unwrap_or(spec.k.0.min);
    if rows < 2 || rows < least {
        return Err(ClusterError::TooFewRows { rows, needed: least.max(2) });
    }
    let options = KMeansOptions {
        clusters: least,
        runs: spec.algorithm.n_init,
        max_iterations: spec.algorithm.max_iter,
        tolerance: spec.algorithm.tol,
        seed: spec.algorithm.seed,
    };
    let sample = sample_rows(&keys, &kept, spec.algorithm.seed);
    let mut choice = match &sample {
        Some(sample) => choose_k(&matrix.select(sample), rows, &spec.k.0, &options)?,
        None => choose_k(&matrix, rows, &spec.k.0, &options)?,
    };
    if sample.is_some() {
        choice.fit = kmeans_from(&matrix, &choice.fit.centres, &options)?;
    }
    let k = choice.report.k;
    let found = choice.fit.centres.len();
    if found < k {
        let message = format!("only {found} clusters of {k}: there are no more distinct rows");
        warnings.push(Warning { code: "fewer_clusters", message });
    }
    if rows < 10 * k {
        let message = format!("{rows} rows for {k} segments are fewer than 10 each");
        warnings.push(Warning { code: "few_rows", message });
    }
    if !choice.fit.converged {
        let message = format!("k-means stopped after `max_iter` = {} iterations", options.max_iterations);
        warnings.push(Warning { code: "not_converged", message });
    }
    warnings.extend(choice.warnings);
    let fitted = build::Fitted {
        name: &name,
        spec: &spec,
        columns: &columns,
        matrix: &matrix,
        kept: &kept,
        preparation,
        centres: choice.fit.centres,
    };
    let built = build::build(fitted);
    let model_json = built.model.to_json();
    let mut assignments = vec![None; keys.len()];
    kept.iter().zip(built.assignments).for_each(|(&row, found)| assignments[row] = Some(found));
    Ok(Clustering {
        version: super::artefact::version_of(&model_json),
        metrics: built.model.metrics.clone(),
        model: built.model,
        model_json,
        assignments,
        centres: built.centres,
        k_report: choice.report,
        features: report,
        warnings,
    })
}

/// What can be said before preparing anything.
fn check(input: &ClusterInput) -> Result<(), ClusterError> {
    let rows = input.keys.len();
    if let Some((column, values)) = input.columns.iter().find(|(_, values)| values.len() != rows) {
        let (column, found) = (column.clone(), values.len());
        return Err(ClusterError::ColumnLength { column, found, expected: rows });
    }
    if let Some(row) = (1..rows).find(|&row| input.keys[row - 1] >= input.keys[row]) {
        return Err(ClusterError::KeyOrder { row, key: input.keys[row].to_string() });
    }
    let problems = input.spec.problems();
    if !problems.is_empty() {
        return Err(ClusterError::Settings(problems));
    }
    if rows < 2 {
        return Err(ClusterError::TooFewRows { rows, needed: 2 });
    }
    Ok(())
}

impl ClusterSpec {
    /// What is wrong with the settings of `algorithm` and `k`, all at once; for features see
    /// [`Preparation::fit`].
    pub fn problems(&self) -> Vec<String> {
        let (k, algorithm, guard) = (&self.k.0, &self.algorithm, &self.k.0.guard);
        let mut problems = Vec::new();
        let mut refuse = |wrong: bool, message: String| {
            if wrong {
                problems.push(message);
            }
        };
        refuse(algorithm.n_init == 0, "`algorithm.n_init` is 0, expected at least 1".into());
        refuse(algorithm.max_iter == 0, "`algorithm.max_iter` is 0, expected at least 1".into());
        let tol = algorithm.tol;
        refuse(!tol.is_finite() || tol < 0.0, format!("`algorithm.tol` is {tol}, expected 0 or more"));
        refuse(k.fixed == Some(0), "`k.fixed` is 0, expected at least 1".into());
        refuse(
            k.select == Select::Fixed && k.fixed.is_none(),
            "`k.select` is `fixed`, expected the number as `k.fixed`".into(),
        );
        refuse(k.fixed.is_none() && k.min == 0, "`k.min` is 0, expected at least 1".into());
        refuse(
            k.fixed.is_none() && k.min > k.max,
            format!("`k.min` is {} and `k.max` is {}, expected min <= max", k.min, k.max),
        );
        for (key, share) in [("min_share", guard.min_share), ("max_share", guard.max_share)] {
            let wrong = !(0.0..=1.0).contains(&share);
            refuse(wrong, format!("`k.guard.{key}` is {share}, expected a share from 0 to 1"));
        }
        problems
    }
}

/// The rows on which k is chosen, rising; `None` for all. A key is in or out wherever its row stands.
fn sample_rows(keys: &[Arc<str>], kept: &[usize], seed: u64) -> Option<Vec<usize>> {
    if kept.len() <= SAMPLE {
        return None;
    }
    let draws = Draws::new(seed, 0, Purpose::Sampling);
    let mut drawn: Vec<(u64, usize)> =
        kept.iter().enumerate().map(|(place, &row)| (draws.of_text(&keys[row]), place)).collect();
    drawn.sort_unstable();
    drawn.truncate(SAMPLE);
    let mut rows: Vec<usize> = drawn.into_iter().map(|(_, place)| place).collect();
    rows.sort_unstable();
    Some(rows)
}
