//! Numerics of segmentation, pure: matrices in, labels and figures out.
//!
//! Owns preparation, k-means, hierarchical and density clustering, quality figures, the choice of k, RFM
//! scores, identities, names and the model's text. Must not know SQL, files, the network, clocks or threads'
//! timing. [`cluster`](cluster::cluster) is the door for a whole segmentation, [`artefact::assign`] the one for
//! a single row.

pub mod agreement;
pub mod artefact;
pub mod choose_k;
pub mod cluster;
pub mod dbscan;
pub mod drift;
pub mod figures;
pub mod gap;
pub mod hierarchical;
pub mod identity;
mod kmeans;
mod matrix;
pub mod metrics;
pub mod names;
mod points;
pub mod prepare;
pub mod principal;
mod random;
pub mod rfm;
pub mod silhouette;
pub mod spec;
pub mod statistics;
mod vectors;
pub mod vocabulary;

pub use artefact::{Assignment, Model, assign};
pub use cluster::{ClusterError, ClusterInput, Clustering, Given, cluster};
pub use identity::Previous;
pub use kmeans::{KMeansError, KMeansFit, KMeansOptions, kmeans, kmeans_from, nearest, starts};
pub use matrix::Matrix;
pub use vectors::Kernel;
