//! The kernels of segmentation: `cargo bench --no-default-features --features ml --bench kmeans`.

#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mainspring::segment::dbscan::dbscan;
use mainspring::segment::hierarchical::tree;
use mainspring::segment::silhouette::silhouette_samples;
use mainspring::segment::spec::{Linkage, Metric, Precision};
use mainspring::segment::{KMeansOptions, Matrix, kmeans_from, nearest};

const ITERATIONS: usize = 10;

/// Reproducible values in [0, 1).
fn chance(number: usize) -> f64 {
    let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 32)) >> 11) as f64 / (1_u64 << 53) as f64
}

fn points(rows: usize, width: usize) -> Matrix {
    let column = |column: usize| (0..rows).map(|row| chance(row * width + column)).collect();
    Matrix::from_columns((0..width).map(column).collect()).expect("all have the same rows")
}

/// Ten iterations, laying out and the last assignment included.
fn lloyd(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lloyd, 10 iterations");
    for (rows, width, clusters) in [(1_000_000, 8, 8), (1_000_000, 16, 16), (200_000, 32, 64)] {
        let points = points(rows, width);
        let start: Vec<Vec<f64>> = (0..clusters).map(|row| points.row(row)).collect();
        group.sample_size(10).throughput(Throughput::Elements((rows * ITERATIONS) as u64));
        for (precision, name) in [(Precision::F32, "f32"), (Precision::F64, "f64")] {
            let options = KMeansOptions {
                max_iterations: ITERATIONS,
                tolerance: 0.0,
                precision,
                ..KMeansOptions::new(clusters)
            };
            group.bench_function(format!("{rows} x {width}, k={clusters}, {name}"), |bencher| {
                bencher.iter(|| kmeans_from(&points, &start, &options).expect("the points are finite"));
            });
        }
    }
    group.finish();
}

fn others(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment");
    group.sample_size(10);
    let flat = points(100_000, 4);
    group.bench_function("dbscan 100000 x 4", |bencher| {
        bencher.iter(|| dbscan(&flat, 0.05, 8, Metric::Euclidean).expect("the points are finite"));
    });
    let middle = points(20_000, 8);
    let start: Vec<Vec<f64>> = (0..8).map(|row| middle.row(row)).collect();
    let (labels, _) = nearest(&middle, &start);
    group.bench_function("silhouette 20000 x 8", |bencher| {
        bencher.iter(|| silhouette_samples(&middle, &labels).expect("there are eight clusters"));
    });
    let small = points(10_000, 8);
    group.bench_function("ward 10000 x 8", |bencher| {
        bencher.iter(|| tree(&small, Linkage::Ward).expect("the points are finite"));
    });
    group.finish();
}

criterion_group!(benches, lloyd, others);
criterion_main!(benches);
