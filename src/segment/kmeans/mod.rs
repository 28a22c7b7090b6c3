//! k-means: greedy k-means++ and Lloyd's iterations with scikit-learn's stopping rules.
//!
//! Owns seeding, iterating, relocating empty clusters and choosing the best of several runs. The result is
//! a function of the values, the options and the seed: the same bytes for any number of threads and any
//! vector width. Knows nothing of features, scaling or names.

mod batches;
mod exchange;
mod lloyd;
mod seeding;
mod swap;

use rayon::prelude::*;

use super::matrix::Matrix;
use super::points::{CHUNK, Rows};
use super::spec::{Init, Precision};
use super::vectors::{Kernel, Vectors};
pub(super) use lloyd::Centred;

/// How to fit.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeansOptions {
    /// Number of clusters, at least 1 and at most the number of rows.
    pub clusters: usize,
    /// Independent runs; the one with the least inertia is kept, the earlier one when equal. Of several the best is
    /// then made better by moving single centres and groups of equal rows, unless there are batches.
    pub runs: usize,
    /// Most Lloyd iterations per run.
    pub max_iterations: usize,
    /// Stop when the summed squared shift of the centres is at most this times the mean variance of the columns.
    pub tolerance: f64,
    /// Stop when an iteration lowers the sum of squared distances by less than this share; 0 for never.
    pub least_gain: f64,
    /// Key of all draws.
    pub seed: u64,
    /// How starts are found.
    pub init: Init,
    /// Precision of the points while iterating; the labels and distances given back are decided in `f64`.
    pub precision: Precision,
    /// Instructions to use; the result does not depend on them.
    pub kernel: Kernel,
    /// Rows per batch for batches instead of whole passes.
    pub batch: Option<usize>,
}

impl KMeansOptions {
    /// 10 runs from k-means++, 300 iterations, tolerance 1e-4, seed 42, in `f64`.
    pub fn new(clusters: usize) -> Self {
        Self {
            clusters,
            runs: 10,
            max_iterations: 300,
            tolerance: 1e-4,
            least_gain: 0.0,
            seed: 42,
            init: Init::KmeansPlusPlus,
            precision: Precision::F64,
            kernel: Kernel::Auto,
            batch: None,
        }
    }

    /// # Errors
    /// [`KMeansError::Zero`] for a count of 0.
    pub(super) fn check_counts(&self) -> Result<(), KMeansError> {
        let counts = [
            ("clusters", self.clusters),
            ("runs", self.runs),
            ("max_iterations", self.max_iterations),
            ("batch", self.batch.unwrap_or(1)),
        ];
        match counts.iter().find(|(_, count)| *count == 0) {
            Some(&(option, _)) => Err(KMeansError::Zero { option }),
            None => Ok(()),
        }
    }
}

/// A fitted clustering.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeansFit {
    /// k × d in the units of the matrix. Fewer rows than asked for when there are fewer distinct points.
    pub centres: Vec<Vec<f64>>,
    /// The nearest centre of every row, ties to the lower index.
    pub labels: Vec<u32>,
    /// Sum over rows of the squared distance to the nearest centre.
    pub inertia: f64,
    /// Lloyd iterations of the kept run.
    pub iterations: usize,
    /// Whether the kept run stopped before `max_iterations`.
    pub converged: bool,
}

/// Why points cannot be clustered. All are permanent: trying again cannot help.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum KMeansError {
    /// No columns to measure a distance by.
    #[error("the matrix has no columns")]
    NoColumns,
    /// A count that must be at least 1 is 0.
    #[error("{option} is 0, expected at least 1")]
    Zero {
        /// The option's name.
        option: &'static str,
    },
    /// Fewer rows than clusters.
    #[error("{rows} rows cannot be grouped into {clusters} clusters")]
    TooFewRows {
        /// Rows given.
        rows: usize,
        /// Clusters asked for.
        clusters: usize,
    },
    /// NaN or infinity among the points or the given centres.
    #[error("the value in row {row}, column {column} (from 0) is not finite")]
    NotFinite {
        /// Row from 0.
        row: usize,
        /// Column from 0.
        column: usize,
    },
    /// A given centre has another number of values than the matrix has columns.
    #[error("a starting centre has {found} values, expected {expected}")]
    CentreWidth {
        /// Values in the centre.
        found: usize,
        /// Columns of the matrix.
        expected: usize,
    },
    /// This processor cannot run the kernel that was asked for.
    #[error("this processor does not have the instructions of kernel {0:?}")]
    NoKernel(Kernel),
    /// A wrapper of the vocabulary crate failed.
    #[error("{0}")]
    Vocabulary(String),
}

impl From<linfa::Error> for KMeansError {
    fn from(error: linfa::Error) -> Self {
        Self::Vocabulary(error.to_string())
    }
}

/// Groups the rows of `points` (n × d, all finite) into clusters, from the starts that `options` name.
///
/// # Errors
/// [`KMeansError`] when a count is 0, rows are too few, a value is not finite or the kernel is not there.
pub fn kmeans(points: &Matrix, options: &KMeansOptions) -> Result<KMeansFit, KMeansError> {
    check(points, options)?;
    Ok(match options.precision {
        Precision::F32 => Centred::<f32>::checked(points, options)?.best_of_runs(options),
        Precision::F64 => Centred::<f64>::checked(points, options)?.best_of_runs(options),
    })
}

/// Groups the rows of `points` by one run from the given centres (k × d, in the units of the matrix).
///
/// `options.clusters`, `options.runs` and `options.init` do not count here.
///
/// # Errors
/// As [`kmeans`], and [`KMeansError::CentreWidth`] for centres of another width.
pub fn kmeans_from(
    points: &Matrix,
    centres: &[Vec<f64>],
    options: &KMeansOptions,
) -> Result<KMeansFit, KMeansError> {
    check(points, &KMeansOptions { clusters: centres.len(), ..options.clone() })?;
    for (row, centre) in centres.iter().enumerate() {
        if centre.len() != points.width() {
            return Err(KMeansError::CentreWidth { found: centre.len(), expected: points.width() });
        }
        if let Some(column) = centre.iter().position(|value| !value.is_finite()) {
            return Err(KMeansError::NotFinite { row, column });
        }
    }
    Ok(match options.precision {
        Precision::F32 => Centred::<f32>::checked(points, options)?.run_from(centres, options),
        Precision::F64 => Centred::<f64>::checked(points, options)?.run_from(centres, options),
    })
}

/// The starting centres of run number `run` (k × d, in the units of the matrix), before any iteration.
///
/// # Errors
/// As [`kmeans`].
pub fn starts(points: &Matrix, options: &KMeansOptions, run: usize) -> Result<Vec<Vec<f64>>, KMeansError> {
    check(points, options)?;
    Ok(match options.precision {
        Precision::F32 => Centred::<f32>::checked(points, options)?.start_of_run(options, run),
        Precision::F64 => Centred::<f64>::checked(points, options)?.start_of_run(options, run),
    })
}

/// The nearest centre of every row, ties to the lower index, and its squared distance.
///
/// `centres` is k × d with k at least 1 and d the width of `points`; no row is left out.
pub fn nearest(points: &Matrix, centres: &[Vec<f64>]) -> (Vec<u32>, Vec<f64>) {
    let rows = Rows::<f64>::once(points, vec![0.0; points.width()], Vectors::detected());
    lloyd::assigned(&rows, &centres.concat())
}

/// All but the values.
fn check(points: &Matrix, options: &KMeansOptions) -> Result<(), KMeansError> {
    if points.width() == 0 {
        return Err(KMeansError::NoColumns);
    }
    options.check_counts()?;
    if points.rows() < options.clusters {
        return Err(KMeansError::TooFewRows { rows: points.rows(), clusters: options.clusters });
    }
    if !options.kernel.is_available() {
        return Err(KMeansError::NoKernel(options.kernel));
    }
    Ok(())
}

/// Sum in chunks of 8,192 rows, reduced in order.
pub(super) fn ordered_sum(values: &[f64]) -> f64 {
    values.par_chunks(CHUNK).map(lanes_sum).collect::<Vec<_>>().iter().sum()
}

/// Sum in eight lanes, which any vectors can carry; then of the lanes in their order.
fn lanes_sum(values: &[f64]) -> f64 {
    let (eights, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for eight in eights {
        for place in 0..8 {
            lanes[place] += eight[place];
        }
    }
    lanes.iter().chain(rest).sum()
}
