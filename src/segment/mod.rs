//! Numerics of segmentation, pure: matrices in, labels and figures out.

mod kmeans;
mod matrix;
pub mod metrics;
mod points;
pub mod prepare;
mod random;
pub mod silhouette;
pub mod spec;
pub mod statistics;

pub use kmeans::{KMeansError, KMeansFit, KMeansOptions, kmeans, kmeans_from, nearest};
pub use matrix::Matrix;
