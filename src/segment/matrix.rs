//! The prepared matrix: every value finite, one named column per prepared feature.

use rayon::prelude::*;

/// n × d, column by column. Built by [`Preparation::fit`](super::prepare::Preparation::fit) or from columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: Vec<Vec<f64>>,
}

impl Matrix {
    /// A matrix of the given columns, all of one length; without columns it has no rows.
    ///
    /// # Errors
    /// The number of the first column whose length differs from the first column's.
    pub fn from_columns(columns: Vec<Vec<f64>>) -> Result<Self, usize> {
        let rows = columns.first().map_or(0, Vec::len);
        match columns.iter().position(|column| column.len() != rows) {
            Some(odd) => Err(odd),
            None => Ok(Self { rows, columns }),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// The columns, each of length [`rows`](Self::rows).
    pub fn columns(&self) -> &[Vec<f64>] {
        &self.columns
    }

    /// The columns, given away.
    #[must_use]
    pub fn into_columns(self) -> Vec<Vec<f64>> {
        self.columns
    }

    /// One row, copied.
    pub fn row(&self, row: usize) -> Vec<f64> {
        self.columns.iter().map(|column| column[row]).collect()
    }

    /// The rows at `rows`, in the order given.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        let pick = |column: &Vec<f64>| rows.iter().map(|&row| column[row]).collect();
        Self { rows: rows.len(), columns: self.columns.iter().map(pick).collect() }
    }

    /// Row and column (from 0) of the first value that is not finite.
    pub fn first_not_finite(&self) -> Option<(usize, usize)> {
        // Without a way out of the loop vectors can carry it.
        let is_bad = |chunk: &[f64]| chunk.iter().fold(false, |bad, value| bad | !value.is_finite());
        let bad = |(number, column): (usize, &Vec<f64>)| {
            if !column.par_chunks(1 << 14).any(is_bad) {
                return None;
            }
            column.iter().position(|value| !value.is_finite()).map(|row| (row, number))
        };
        self.columns.iter().enumerate().filter_map(bad).min()
    }
}
