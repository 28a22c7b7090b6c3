//! `bench kmeans|silhouette|hierarchical|dbscan|cluster`: the numerics of segmentation on data made here or read
//! from a file, so that another program can be measured on the same rows.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::super::{CliError, print_line};
use crate::segment::dbscan::dbscan;
use crate::segment::hierarchical::tree;
use crate::segment::prepare::Column;
use crate::segment::silhouette::silhouette_samples;
use crate::segment::spec::{
    AlgorithmName, ClusterSpec, Feature, FeatureSpec, K, KSpec, Linkage, Metric, Precision,
};
use crate::segment::{ClusterInput, KMeansOptions, Kernel, Matrix, cluster, kmeans, kmeans_from, nearest};

/// Rows, columns and where they come from.
#[derive(Args)]
pub(in crate::cli) struct Shape {
    /// Rows
    #[arg(long, default_value_t = 1_000_000)]
    n: usize,
    /// Columns
    #[arg(long, default_value_t = 8)]
    d: usize,
    /// Clusters
    #[arg(long, default_value_t = 8)]
    k: usize,
    /// Rows as little-endian 64-bit floats, row by row; made here without it
    #[arg(long)]
    data: Option<PathBuf>,
    /// Measured this often; the fastest counts
    #[arg(long, default_value_t = 3)]
    repeats: usize,
}

/// What `kmeans` takes besides.
#[derive(Args)]
pub(in crate::cli) struct KMeansArgs {
    #[command(flatten)]
    shape: Shape,
    /// Precision of the points while iterating
    #[arg(long, value_enum, default_value_t = Bits::F32)]
    precision: Bits,
    /// Most iterations
    #[arg(long, default_value_t = 20)]
    iterations: usize,
    /// Starting centres as little-endian 64-bit floats; the first rows without it
    #[arg(long)]
    centres: Option<PathBuf>,
}

/// What `dbscan` takes besides.
#[derive(Args)]
pub(in crate::cli) struct DbscanArgs {
    #[command(flatten)]
    shape: Shape,
    /// How near neighbours are
    #[arg(long, default_value_t = 0.05)]
    eps: f64,
    /// Neighbours that make a core
    #[arg(long, default_value_t = 8)]
    min_samples: usize,
}

/// A linkage on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LinkageName {
    Ward,
    Average,
    Complete,
    Single,
    Centroid,
}

impl From<LinkageName> for Linkage {
    fn from(name: LinkageName) -> Self {
        match name {
            LinkageName::Ward => Self::Ward,
            LinkageName::Average => Self::Average,
            LinkageName::Complete => Self::Complete,
            LinkageName::Single => Self::Single,
            LinkageName::Centroid => Self::Centroid,
        }
    }
}

/// A precision on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Bits {
    F32,
    F64,
}

#[derive(Serialize)]
struct Figures {
    workload: String,
    n: usize,
    d: usize,
    k: usize,
    seconds: f64,
    /// Of all threads together; 0 where the system does not say.
    cpu_seconds: f64,
    threads: usize,
    /// The most that the process had in use.
    rss_mib: f64,
    /// The rows as 64-bit floats.
    matrix_mib: f64,
    /// The most in use, rows included, less what the program had before it had rows; as a multiple of the rows.
    times_matrix: f64,
    #[serde(flatten)]
    more: serde_json::Value,
}

impl Shape {
    fn points(&self) -> Result<Matrix, CliError> {
        let mut columns = vec![Vec::with_capacity(self.n); self.d];
        let mut place = 0;
        let put = |value: f64| {
            columns[place % self.d].push(value);
            place += 1;
        };
        match &self.data {
            Some(path) => read(path, self.n * self.d, put)?,
            None => made(self.n, self.d, self.k, put),
        }
        Ok(Matrix::from_columns(columns).expect("all columns have n values"))
    }

    /// The fastest of several runs, with what the last one gave.
    fn timed<T>(&self, mut work: impl FnMut() -> T) -> (Took, T) {
        let mut run = || {
            let (began, cpu) = (Instant::now(), cpu_seconds());
            let result = work();
            (Took { seconds: began.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds() - cpu }, result)
        };
        let (mut best, mut last) = run();
        for _ in 1..self.repeats {
            drop(last);
            let (took, result) = run();
            best.seconds = best.seconds.min(took.seconds);
            best.cpu_seconds = best.cpu_seconds.min(took.cpu_seconds);
            last = result;
        }
        (best, last)
    }

    fn print(&self, workload: &str, took: Took, before_mib: f64, more: serde_json::Value) {
        let (rss_mib, matrix_mib) = (super::rss_mib(), (self.n * self.d * 8) as f64 / f64::from(1 << 20));
        let figures = Figures {
            workload: workload.to_owned(),
            n: self.n,
            d: self.d,
            k: self.k,
            seconds: took.seconds,
            cpu_seconds: took.cpu_seconds,
            threads: rayon::current_num_threads(),
            rss_mib,
            matrix_mib,
            times_matrix: (rss_mib - before_mib) / matrix_mib,
            more,
        };
        print_line(&serde_json::to_string(&figures).expect("plain figures can be written as JSON"));
    }
}

/// How long a workload took.
#[derive(Clone, Copy)]
struct Took {
    seconds: f64,
    cpu_seconds: f64,
}

/// What all threads of this process have used, to hundredths; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in parentheses may hold spaces; the 12th and 13th words after it are ticks.
    let words = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    words.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Values from a file of exactly `count`, handed to `put` one by one.
fn read(path: &Path, count: usize, mut put: impl FnMut(f64)) -> Result<(), CliError> {
    let unreadable =
        |error: std::io::Error| CliError::Environment(format!("{} cannot be read: {error}", path.display()));
    let file = File::open(path).map_err(unreadable)?;
    let (found, expected) = (file.metadata().map_err(unreadable)?.len(), count * 8);
    if usize::try_from(found).ok() != Some(expected) {
        let message =
            format!("{} has {found} bytes, expected {expected} for {count} numbers", path.display());
        return Err(CliError::User(message));
    }
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut bytes = [0; 8];
    for _ in 0..count {
        file.read_exact(&mut bytes).map_err(unreadable)?;
        put(f64::from_le_bytes(bytes));
    }
    Ok(())
}

/// Reproducible rows around `clusters` points in the unit cube, handed to `put` value by value.
fn made(rows: usize, width: usize, clusters: usize, mut put: impl FnMut(f64)) {
    let chance = |number: usize| {
        let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ (mixed >> 32)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    for row in 0..rows {
        let group = (chance(row) * clusters as f64) as usize;
        for column in 0..width {
            let around =
                (0..4).map(|part| chance(((row * width + column) * 4 + part) ^ 0x5555_0000)).sum::<f64>();
            put(chance(group * width + column + 77_777) + 0.25 * (around - 2.0));
        }
    }
}

pub(super) fn kmeans_lloyd(args: &KMeansArgs) -> Result<(), CliError> {
    let shape = &args.shape;
    let before = super::rss_mib();
    let points = shape.points()?;
    let start: Vec<Vec<f64>> = match &args.centres {
        Some(path) => {
            let mut values = Vec::new();
            read(path, shape.k * shape.d, |value| values.push(value))?;
            values.chunks_exact(shape.d).map(<[f64]>::to_vec).collect()
        }
        None => (0..shape.k).map(|row| points.row(row * (shape.n / shape.k))).collect(),
    };
    let (precision, name) = match args.precision {
        Bits::F32 => (Precision::F32, "f32"),
        Bits::F64 => (Precision::F64, "f64"),
    };
    let options = KMeansOptions {
        max_iterations: args.iterations,
        tolerance: 0.0,
        precision,
        ..KMeansOptions::new(shape.k)
    };
    let (took, fit) = shape.timed(|| kmeans_from(&points, &start, &options));
    let fit = fit.map_err(|error| CliError::User(error.to_string()))?;
    let more = serde_json::json!({
        "precision": name,
        "iterations": fit.iterations,
        "ms_per_iteration": took.seconds * 1e3 / fit.iterations as f64,
        "inertia": fit.inertia,
    });
    shape.print("kmeans", took, before, more);
    Ok(())
}

pub(super) fn silhouette(shape: &Shape) -> Result<(), CliError> {
    let before = super::rss_mib();
    let points = shape.points()?;
    let start: Vec<Vec<f64>> = (0..shape.k).map(|row| points.row(row * (shape.n / shape.k))).collect();
    let (labels, _) = nearest(&points, &start);
    let (took, samples) = shape.timed(|| silhouette_samples(&points, &labels));
    let samples = samples.map_err(|error| CliError::User(error.to_string()))?;
    let mean = samples.iter().sum::<f64>() / samples.len() as f64;
    shape.print("silhouette", took, before, serde_json::json!({"silhouette": mean}));
    Ok(())
}

pub(super) fn hierarchical(shape: &Shape, linkage: LinkageName) -> Result<(), CliError> {
    let linkage = Linkage::from(linkage);
    let before = super::rss_mib();
    let points = shape.points()?;
    let (took, found) = shape.timed(|| tree(&points, linkage));
    let found = found.map_err(|error| CliError::User(error.to_string()))?;
    let top = found.merges.last().map(|merge| merge.height);
    let sum: f64 = found.merges.iter().map(|merge| merge.height).sum();
    let more =
        serde_json::json!({"linkage": format!("{linkage:?}").to_lowercase(), "top": top, "heights": sum});
    shape.print("hierarchical", took, before, more);
    Ok(())
}

pub(super) fn density(args: &DbscanArgs) -> Result<(), CliError> {
    let before = super::rss_mib();
    let points = args.shape.points()?;
    let (took, found) = args.shape.timed(|| dbscan(&points, args.eps, args.min_samples, Metric::Euclidean));
    let found = found.map_err(|error| CliError::User(error.to_string()))?;
    let noise = found.labels.iter().filter(|label| **label == crate::segment::dbscan::NOISE).count();
    let more = serde_json::json!({"clusters": found.clusters, "cores": found.cores.len(), "noise": noise});
    args.shape.print("dbscan", took, before, more);
    Ok(())
}

/// A whole clustering: preparation, k from 3 to 10, the fit on all rows, names, assignments, figures.
pub(super) fn whole(shape: &Shape) -> Result<(), CliError> {
    let before = super::rss_mib();
    let columns = shape.points()?.into_columns().into_iter().enumerate();
    let columns: Vec<(String, Column)> =
        columns.map(|(number, values)| (format!("f{number}"), Column::Numeric(values))).collect();
    let features = columns.iter().map(|(name, _)| Feature(FeatureSpec::named(name))).collect();
    let k = K(KSpec { on_no_k: crate::segment::spec::OnNoK::Relax, ..KSpec::default() });
    let spec = ClusterSpec { features, k, ..ClusterSpec::default() };
    assert_eq!(spec.algorithm.name, AlgorithmName::Kmeans, "the default algorithm is k-means");
    let input = ClusterInput {
        model: "bench".into(),
        keys: (0..shape.n).map(|row| Arc::from(format!("c{row:09}"))).collect(),
        columns,
        spec,
        previous: None,
        given: None,
        kernel: Kernel::Auto,
    };
    let (began, cpu) = (Instant::now(), cpu_seconds());
    let found = cluster(input).map_err(|error| CliError::User(error.to_string()))?;
    let took = Took { seconds: began.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds() - cpu };
    let silhouette = found.metrics.silhouette.map(|figure| figure.value);
    let more = serde_json::json!({
        "chosen_k": found.k_report.k, "inertia": found.metrics.inertia, "silhouette": silhouette,
    });
    shape.print("cluster", took, before, more);
    Ok(())
}

/// k-means from its own starts, as the task runs it.
pub(super) fn kmeans_fit(shape: &Shape) -> Result<(), CliError> {
    let before = super::rss_mib();
    let points = shape.points()?;
    let options = KMeansOptions { runs: 1, precision: Precision::F32, ..KMeansOptions::new(shape.k) };
    let (took, fit) = shape.timed(|| kmeans(&points, &options));
    let fit = fit.map_err(|error| CliError::User(error.to_string()))?;
    let more = serde_json::json!({"iterations": fit.iterations, "inertia": fit.inertia});
    shape.print("kmeans_fit", took, before, more);
    Ok(())
}
