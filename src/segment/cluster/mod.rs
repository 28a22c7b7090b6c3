//! From customers to segments: the one entry point of the room.
//!
//! Owns the order of the steps: check, prepare, choose k on a sample, fit on all rows, name, assign. Equal
//! rows, configuration and model name give equal bytes. Knows nothing of where rows come from.

mod build;
mod fitting;
mod identity;

use std::sync::Arc;

use serde::Serialize;

pub use fitting::RefreshReport;
pub use identity::Rename;

use super::artefact::{Assignment, Model, ModelMetrics};
use super::choose_k::{KReport, NoEligibleK};
use super::figures::Figures;
use super::identity::{Lineage, Migration, Previous};
use super::kmeans::KMeansError;
use super::prepare::{Column, FeatureReport, Preparation, PrepareError, Prepared, Warning};
use super::spec::{AlgorithmName, ClusterSpec};
use super::vectors::Kernel;

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
    /// The run before, whose segments keep their ids and names.
    pub previous: Option<Previous>,
    /// What the predicates of `algorithm: {name: rules}` said of each row.
    pub given: Option<Given>,
    /// Instructions to use; the result does not depend on them.
    pub kernel: Kernel,
}

/// For each row the first predicate that holds, by its place in `algorithm.rules`; `None` where none does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given(pub Vec<Option<usize>>);

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
    /// What pictures are drawn from.
    pub figures: Figures,
    /// Who went where since the run before; `None` without one.
    pub migration: Option<Migration>,
    /// What became of each segment since the run before.
    pub lineage: Vec<Lineage>,
    /// Segments whose kept name no longer fits.
    pub renames: Vec<Rename>,
    /// How a warm start and its challenger compared; `None` without a run before or without k-means.
    pub refresh: Option<RefreshReport>,
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
    /// More rows than a hierarchical clustering may have.
    #[error("{rows} rows are more than `algorithm.max_rows` = {limit} (hint: `on_large: microclusters`)")]
    TooManyRows {
        /// Rows left after preparation.
        rows: usize,
        /// The limit.
        limit: usize,
    },
    /// The distances to neighbours have no knee.
    #[error(
        "`eps: auto` found no knee in the distances to the neighbour number {min_samples}: give `algorithm.eps` as a number"
    )]
    NoEps {
        /// Which neighbour.
        min_samples: usize,
    },
    /// Every row is noise.
    #[error(
        "no row has {min_samples} rows within {eps}: all are noise (hint: a larger `eps` or a smaller `min_samples`)"
    )]
    NoDenseRegion {
        /// The distance.
        eps: f64,
        /// Rows needed.
        min_samples: usize,
    },
    /// `rfm` needs its three measures.
    #[error(
        "`algorithm: rfm` needs three numeric features with the roles recency, frequency and monetary (hint: `role: recency`)"
    )]
    NoRfm,
    /// Nobody evaluated the predicates.
    #[error("`algorithm: rules` needs what its predicates say of each row")]
    NoPredicates,
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
    let ClusterInput { model: name, keys, columns, spec, previous, given, kernel } = input;
    let (preparation, prepared) =
        Preparation::fit(&spec.features, spec.scale, &columns).map_err(ClusterError::Prepare)?;
    let Prepared { matrix, kept, report, mut warnings } = prepared;
    let needed = spec.fewest().max(2);
    if matrix.rows() < needed {
        return Err(ClusterError::TooFewRows { rows: matrix.rows(), needed });
    }
    let rows = fitting::Rows {
        spec: &spec,
        matrix: &matrix,
        preparation: &preparation,
        columns: &columns,
        keys: &keys,
        kept: &kept,
        previous: previous.as_ref(),
        given: given.as_ref(),
        kernel,
    };
    let mut found = fitting::segment(&rows)?;
    let k = found.centres.len();
    if matrix.rows() < 10 * k {
        let message = format!("{} rows for {k} segments are fewer than 10 each", matrix.rows());
        warnings.push(Warning { code: "few_rows", message });
    }
    warnings.append(&mut found.warnings);
    let (k_report, refresh) = (found.k_report.clone(), found.refresh.clone());
    let built = build::build(build::Fitted { name: &name, rows, found });
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
        k_report,
        figures: built.figures,
        migration: built.identity.migration,
        lineage: built.identity.lineage,
        renames: built.identity.renames,
        refresh,
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
    if !input.kernel.is_available() {
        return Err(KMeansError::NoKernel(input.kernel).into());
    }
    let problems = input.spec.problems();
    if !problems.is_empty() {
        return Err(ClusterError::Settings(problems));
    }
    if rows < 2 {
        return Err(ClusterError::TooFewRows { rows, needed: 2 });
    }
    if let Some(Given(given)) = &input.given
        && given.len() != rows
    {
        let column = "what predicates say".to_owned();
        return Err(ClusterError::ColumnLength { column, found: given.len(), expected: rows });
    }
    Ok(())
}

impl ClusterSpec {
    /// Fewest segments that may come out.
    fn fewest(&self) -> usize {
        let (k, algorithm) = (&self.k.0, &self.algorithm);
        match algorithm.name {
            AlgorithmName::Kmeans | AlgorithmName::MinibatchKmeans => k.fixed.unwrap_or(k.min),
            AlgorithmName::Hierarchical if algorithm.cut.is_none() => k.fixed.unwrap_or(k.min),
            AlgorithmName::Hierarchical => algorithm.cut.and_then(|cut| cut.k).unwrap_or(1),
            AlgorithmName::Dbscan | AlgorithmName::Rfm | AlgorithmName::Rules => 1,
        }
    }
}
