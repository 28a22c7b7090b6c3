//! Our k-means in linfa's words, so that its `Dataset` and its other algorithms can be used beside it.

use linfa::dataset::DatasetBase;
use linfa::traits::{Fit, PredictInplace};
use linfa::{Float, ParamGuard};
use ndarray::{Array1, ArrayBase, Data, Ix2};

use super::kmeans::{KMeansError, KMeansFit, KMeansOptions, kmeans, nearest};
use super::matrix::Matrix;

/// Options that have been checked: no count is 0.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedKMeans(KMeansOptions);

/// Options that have not been checked yet; `fit` checks them.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeans(CheckedKMeans);

impl KMeans {
    /// k-means with these options.
    pub fn new(options: KMeansOptions) -> Self {
        Self(CheckedKMeans(options))
    }
}

impl ParamGuard for KMeans {
    type Checked = CheckedKMeans;
    type Error = KMeansError;

    fn check_ref(&self) -> Result<&CheckedKMeans, KMeansError> {
        self.0.0.check_counts().map(|()| &self.0)
    }

    fn check(self) -> Result<CheckedKMeans, KMeansError> {
        self.0.0.check_counts()?;
        Ok(self.0)
    }
}

fn matrix_of<F: Float>(records: &ArrayBase<impl Data<Elem = F>, Ix2>) -> Matrix {
    let value = |value: &F| value.to_f64().unwrap_or(f64::NAN);
    let columns = records.columns().into_iter().map(|column| column.iter().map(value).collect()).collect();
    Matrix::from_columns(columns).expect("the columns of one array have one length")
}

impl<F: Float, D: Data<Elem = F>, T> Fit<ArrayBase<D, Ix2>, T, KMeansError> for CheckedKMeans {
    type Object = KMeansFit;

    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, T>) -> Result<KMeansFit, KMeansError> {
        kmeans(&matrix_of(dataset.records()), &self.0)
    }
}

impl<F: Float, D: Data<Elem = F>> PredictInplace<ArrayBase<D, Ix2>, Array1<usize>> for KMeansFit {
    fn predict_inplace<'a>(&'a self, records: &'a ArrayBase<D, Ix2>, labels: &mut Array1<usize>) {
        let (found, _) = nearest(&matrix_of(records), &self.centres);
        labels.iter_mut().zip(found).for_each(|(label, found)| *label = found as usize);
    }

    fn default_target(&self, records: &ArrayBase<D, Ix2>) -> Array1<usize> {
        Array1::zeros(records.nrows())
    }
}
