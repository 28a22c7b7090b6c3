//! Lloyd's iterations on a million rows: `cargo bench --no-default-features --features ml --bench kmeans`.

#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mainspring::segment::{KMeansOptions, Matrix, kmeans_from};

const ROWS: usize = 1_000_000;
const WIDTH: usize = 8;
const CLUSTERS: usize = 8;
const ITERATIONS: usize = 10;

/// Reproducible values in [0, 1).
fn chance(number: usize) -> f64 {
    let mixed = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 32)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Ten iterations of 1M × 8 with k = 8, laying out and the last assignment included.
fn lloyd(criterion: &mut Criterion) {
    let column = |column: usize| (0..ROWS).map(|row| chance(row * WIDTH + column)).collect();
    let points = Matrix::from_columns((0..WIDTH).map(column).collect()).expect("all have the same rows");
    let start: Vec<Vec<f64>> = (0..CLUSTERS).map(|row| points.row(row)).collect();
    let options =
        KMeansOptions { max_iterations: ITERATIONS, tolerance: 0.0, ..KMeansOptions::new(CLUSTERS) };
    let mut group = criterion.benchmark_group("kmeans");
    group.sample_size(10).throughput(Throughput::Elements((ROWS * ITERATIONS) as u64));
    group.bench_function("lloyd 1M x 8, k=8, 10 iterations", |bencher| {
        bencher.iter(|| kmeans_from(&points, &start, &options).expect("the points are finite"));
    });
    group.finish();
}

criterion_group!(benches, lloyd);
criterion_main!(benches);
