"""Runs the numerics of this program and scikit-learn's on the same rows, one after the other, and prints a table.

    cargo build --release
    python3 -m venv venv && venv/bin/pip install -r tests/requirements_sklearn.txt
    venv/bin/python tests/compare_sklearn.py target/release/mainspring [ROW ...]

Wall seconds and CPU seconds of all threads, the least of three runs each; both sides may use all cores. On a busy
machine only CPU seconds can be compared. k-means starts from the same centres
and makes the same number of iterations, so that its inertia can be compared.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

import numpy as np
from sklearn.cluster import DBSCAN, AgglomerativeClustering, KMeans
from sklearn.metrics import silhouette_samples

PROGRAM, ROWS = sys.argv[1], sys.argv[2:]
FOLDER = tempfile.mkdtemp()
REPEATS = 3


def data(n, d, k, skewed=False):
    rng = np.random.default_rng(20260101)
    centres = rng.random((k, d))
    x = centres[rng.integers(0, k, n)] + rng.normal(0, 0.12, (n, d))
    if skewed:
        x = np.exp(1.5 * x)
        x = (x - x.min(axis=0)) / (x.max(axis=0) - x.min(axis=0))
    return x, x[rng.choice(n, k, replace=False)]


def ours(command, x, *more, centres=None):
    path = os.path.join(FOLDER, "rows")
    x.astype("<f8").tofile(path)
    words = [PROGRAM, "bench", command, "--n", str(len(x)), "--d", str(x.shape[1]), "--data", path, *more]
    if centres is not None:
        centres.astype("<f8").tofile(path + ".centres")
        words += ["--centres", path + ".centres"]
    home = os.path.join(FOLDER, "home")
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "MAINSPRING_HOME": home})
    return json.loads(done.stdout)


def timed(work):
    best, least = float("inf"), float("inf")
    for _ in range(REPEATS):
        began, cpu = time.perf_counter(), time.process_time()
        result = work()
        best, least = min(best, time.perf_counter() - began), min(least, time.process_time() - cpu)
    return (best, least), result


def row(name, mine, theirs, note):
    wall, cpu = theirs
    print(f"| {name} | {mine['seconds']:.3f} | {wall:.3f} | {wall / mine['seconds']:.1f} | "
          f"{mine['cpu_seconds']:.2f} | {cpu:.2f} | {cpu / max(mine['cpu_seconds'], 0.01):.1f} | "
          f"{mine['times_matrix']:.2f} | {note} |", flush=True)


def kmeans(n, d, k, precision):
    x, centres = data(n, d, k, skewed=k > 8)
    mine = ours("kmeans", x, "--k", str(k), "--precision", precision, "--iterations", "20", centres=centres)
    kind = np.float32 if precision == "f32" else np.float64
    rows, start = x.astype(kind), centres.astype(kind)
    # `copy_x=False` would change the rows between repeats.
    theirs, fit = timed(lambda: KMeans(k, init=start, n_init=1, max_iter=20, tol=0, algorithm="lloyd").fit(rows))
    exact = ((x - fit.cluster_centers_.astype(float)[fit.labels_]) ** 2).sum()
    apart = abs(mine["inertia"] - exact) / exact
    row(f"kmeans {n} x {d}, k {k}, {precision}", mine, theirs,
        f"{mine['iterations']} and {fit.n_iter_} iterations, {mine['ms_per_iteration']:.2f} ms each, inertia apart {apart:.1e}")


def silhouette(n, d, k):
    x, centres = data(n, d, k)
    mine = ours("silhouette", x, "--k", str(k))
    start = x[[i * (n // k) for i in range(k)]]
    labels = ((x[:, None] - start) ** 2).sum(axis=2).argmin(axis=1)
    theirs, values = timed(lambda: silhouette_samples(x, labels))
    row(f"silhouette {n} x {d}, k {k}", mine, theirs, f"apart {abs(mine['silhouette'] - values.mean()):.1e}")


def hierarchical(n, d, linkage):
    x, _ = data(n, d, 8)
    mine = ours("hierarchical", x, "--linkage", linkage)
    theirs, fit = timed(lambda: AgglomerativeClustering(8, linkage=linkage, compute_distances=True).fit(x))
    apart = abs(mine["heights"] - fit.distances_.sum()) / mine["heights"]
    row(f"hierarchical {n} x {d}, {linkage}", mine, theirs, f"heights apart {apart:.1e}")


def dbscan(n, d, eps, min_samples):
    x, _ = data(n, d, 8)
    mine = ours("dbscan", x, "--eps", str(eps), "--min-samples", str(min_samples))
    theirs, fit = timed(lambda: DBSCAN(eps=eps, min_samples=min_samples, n_jobs=-1).fit(x))
    same = (fit.labels_.max() + 1 == mine["clusters"] and len(fit.core_sample_indices_) == mine["cores"]
            and (fit.labels_ < 0).sum() == mine["noise"])
    row(f"dbscan {n} x {d}, eps {eps}", mine, theirs,
        f"{mine['clusters']} clusters, {mine['noise']} noise, {'equal' if same else 'NOT EQUAL'}")


TABLE = {
    "kmeans-8": lambda: [kmeans(1_000_000, 8, 8, p) for p in ("f32", "f64")],
    "kmeans-16": lambda: [kmeans(1_000_000, 16, 16, p) for p in ("f32", "f64")],
    "kmeans-32": lambda: [kmeans(200_000, 32, 64, p) for p in ("f32", "f64")],
    "dbscan": lambda: [dbscan(100_000, 4, eps, 8) for eps in (0.02, 0.05)],
    "silhouette": lambda: silhouette(20_000, 8, 8),
    "hierarchical": lambda: [hierarchical(10_000, 8, linkage) for linkage in ("ward", "average", "complete", "single")],
}

print("| | wall s | scikit-learn | times | CPU s | scikit-learn | times | memory / rows in f64 | |")
print("|---|---|---|---|---|---|---|---|---|")
for name in ROWS or TABLE:
    TABLE[name]()
