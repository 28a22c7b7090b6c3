"""Makes tests/data/segment/*.json: what scikit-learn, SciPy, pandas and kneed say about small data.

    python3 -m venv venv && venv/bin/pip install -r tests/requirements_sklearn.txt
    venv/bin/python tests/fixtures_sklearn.py
"""
import json
import pathlib
import warnings

import numpy as np
import pandas as pd
from kneed import KneeLocator
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import DBSCAN, KMeans, kmeans_plusplus
from sklearn.datasets import load_digits, load_iris, load_wine, make_blobs
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.metrics import (
    adjusted_mutual_info_score, adjusted_rand_score, calinski_harabasz_score, davies_bouldin_score,
    normalized_mutual_info_score, silhouette_samples, silhouette_score,
)
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler

warnings.filterwarnings("ignore")
FOLDER = pathlib.Path(__file__).parent / "data" / "segment"
rng = np.random.default_rng(20260101)


def write(name, value):
    def plain(x):
        return x.tolist() if isinstance(x, (np.ndarray, np.generic)) else x
    (FOLDER / f"{name}.json").write_text(json.dumps(value, default=plain, separators=(",", ":")) + "\n")


def figures(x, labels):
    return {
        "labels": labels, "samples": silhouette_samples(x, labels), "silhouette": silhouette_score(x, labels),
        "sqeuclidean": silhouette_score(x, labels, metric="sqeuclidean"),
        "calinski_harabasz": calinski_harabasz_score(x, labels),
        "davies_bouldin": davies_bouldin_score(x, labels),
    }


def trajectory(x, init, tol=0.0, max_iter=300):
    fit = KMeans(len(init), init=np.asarray(init, float), n_init=1, tol=tol, max_iter=max_iter, algorithm="lloyd").fit(x)
    return {"init": init, "tol": tol, "max_iter": max_iter, "centres": fit.cluster_centers_, "labels": fit.labels_,
            "inertia": fit.inertia_, "iterations": fit.n_iter_}


def best(x, k):
    return min(KMeans(k, n_init=1, random_state=s).fit(x).inertia_ for s in range(50))


def data_set(x, k, others):
    start = x[rng.choice(len(x), k, replace=False)]
    fit = trajectory(x, start)
    return {"points": x, "k": k, "best_inertia": best(x, k), "figures": figures(x, fit["labels"]),
            "fits": [fit, trajectory(x, start, tol=1e-2), trajectory(x, start, max_iter=1), *others(x)]}


def assignment(rows, columns):
    weights = rng.random((rows, columns))
    if rows % 3 == 0:
        weights = weights.round(1)
    a, b = linear_sum_assignment(weights, maximize=True)
    return {"weights": weights, "total": [weights[a, b].sum()]}


def tree_data():
    yield make_blobs(60, 3, centers=4, cluster_std=1.5, random_state=5)[0].round(6)
    yield rng.lognormal(0, 1, (45, 2)).round(6)


def tree(x, method):
    found = linkage(x, method)
    # A centroid tree may have inversions, where "how many are left" is not a cut of it.
    cuts = [] if method == "centroid" else [{"k": k, "labels": fcluster(found, k, "maxclust")} for k in (1, 2, 3, 5, 9)]
    return {"method": method, "points": x, "heights": found[:, 2], "sizes": found[:, 3],
            "pairs": np.sort(found[:, :2], axis=1), "cuts": cuts}


def density_data():
    """Random rows on a grid, so that many are exactly `eps` apart, and blobs with noise."""
    for i in range(30):
        n, d = int(rng.integers(20, 90)), int(rng.integers(1, 5))
        step = [0.1, 0.25, 1.0][i % 3]
        yield rng.integers(0, 8, (n, d)) * step, step * [1, 2, 1.5][i % 3 - 1], int(rng.integers(2, 7))
    blobs = make_blobs(200, 2, centers=3, cluster_std=0.7, random_state=9)[0].round(6)
    yield np.vstack([blobs, rng.uniform(-15, 15, (40, 2)).round(6)]), 0.8, 5


def density(x, eps, min_samples, metric):
    labels = DBSCAN(eps=eps, min_samples=min_samples, metric=metric, algorithm="kd_tree").fit(x).labels_
    return {"points": x, "eps": eps, "min_samples": min_samples, "metric": metric, "labels": labels}


def components(x):
    fit = PCA().fit(x)
    return {"points": x, "ratio": fit.explained_variance_ratio_, "directions": fit.components_}


def gap_case():
    """Log dispersions of data and of references, and the gap as Tibshirani et al. define it."""
    x = make_blobs(150, 2, centers=4, cluster_std=0.5, random_state=1)[0]
    low, high = x.min(axis=0), x.max(axis=0)
    ks = list(range(1, 8))

    def logs(points):
        return [np.log(KMeans(k, n_init=3, random_state=0).fit(points).inertia_) for k in ks]
    data = logs(x)
    references = np.array([logs(rng.uniform(low, high, x.shape)) for _ in range(12)])
    gap = references.mean(axis=0) - data
    error = references.std(axis=0) * np.sqrt(1 + 1 / len(references))
    best = next(k for i, k in enumerate(ks[:-1]) if gap[i] >= gap[i + 1] - error[i + 1])
    return {"data": data, "references": references, "gap": gap, "error": error, "k": best}


def rfm_case():
    """Quintiles of data without ties; with ties, five times the share of strictly worse customers."""
    free, tied = rng.permutation(137).astype(float), rng.integers(0, 12, 137).astype(float)
    worse = (tied[None, :] < tied[:, None]).sum(axis=1)
    return {"free": free, "free_scores": pd.Series(free).rank().sub(1).mul(5).floordiv(137).add(1).astype(int).tolist(),
            "tied": tied, "tied_scores": 1 + 5 * worse // 137}


def bar_data():
    """Twelve data sets on which the default settings must reach the best of fifty starts."""
    def blobs(spread, seed):
        return make_blobs(300, 3, centers=6, cluster_std=spread, random_state=seed)[0]
    shear = np.array([[0.6, -0.6], [-0.4, 0.8]])
    uneven = np.vstack([rng.normal(0, 1, (500, 2)), rng.normal(6, 0.5, (5, 2))])
    shoppers = np.log1p(rng.lognormal([3, 1, 4], [1.0, 0.8, 1.2], (400, 3)))
    return {
        "blobs_far": (blobs(0.3, 1), 6), "blobs_near": (blobs(1.0, 2), 6), "blobs_touching": (blobs(2.0, 3), 6),
        "blobs_mixed": (blobs(4.0, 4), 6),
        "anisotropic": (make_blobs(300, 2, centers=4, random_state=7)[0] @ shear, 4),
        "unbalanced": (uneven, 2), "lognormal": (shoppers, 5), "uniform": (rng.random((300, 3)), 5),
        "iris": (load_iris().data, 3), "wine": (StandardScaler().fit_transform(load_wine().data), 3),
        "digits": (load_digits().data[:300], 10),
        "duplicates": (np.repeat(rng.normal(size=(20, 2)), 12, axis=0), 6),
    }


def bar(x, k):
    seeding = [kmeans_plusplus(x, k, random_state=s)[0] for s in range(4000)]
    costs = [((x[:, None, :] - c[None]) ** 2).sum(axis=2).min(axis=1).sum() for c in seeding]
    least = best(x, k)
    tens = [KMeans(k, n_init=10, random_state=s).fit(x).inertia_ / least for s in range(200)]
    return {"points": x, "k": k, "best_inertia": least, "seeding_cost": np.mean(costs), "worst_of_tens": max(tens)}


def main():
    column = rng.lognormal(2, 1.5, 101)
    shares = [0, 0.005, 0.1, 0.25, 0.333, 0.5, 0.75, 0.9, 0.995, 1]
    holes = np.where(rng.random(101) < 0.2, np.nan, np.round(column))
    levels = rng.choice(["fr", "de", "pt", "it"], 60, p=[0.4, 0.3, 0.2, 0.1])
    one_hot = OneHotEncoder(sparse_output=False).fit(levels[:, None])
    write("prepare", {
        "column": column, "shares": shares, "quantiles": np.quantile(column, shares),
        "scaled": {name: scaler.fit_transform(column[:, None])[:, 0] for name, scaler in
                   [("minmax", MinMaxScaler()), ("standard", StandardScaler()), ("robust", RobustScaler())]},
        "holes": [None if np.isnan(v) else v for v in holes],
        "imputed": {mine: SimpleImputer(strategy=theirs).fit_transform(holes[:, None])[:, 0] for mine, theirs in
                    [("median", "median"), ("mean", "mean"), ("mode", "most_frequent")]},
        "levels": levels, "one_hot": {level: one_hot.transform(levels[:, None])[:, i] for i, level in
                                      enumerate(one_hot.categories_[0])},
    })
    iris = load_iris().data
    wine = StandardScaler().fit_transform(load_wine().data).round(6)
    blobs = make_blobs(300, 2, centers=5, cluster_std=0.6, random_state=3)[0].round(6)
    # Duplicates and far centres: empty clusters must be filled.
    lumps = np.repeat(np.array([[0.0, 0], [0, 1], [5, 5], [9, 1], [30, 30]]), [9, 4, 7, 1, 2], axis=0)
    far = [[[0.0, 0], [1000, 1000], [2000, 2000], [5, 5]], [[0.1, 0.2], [0.3, 0.1], [99, 99], [-99, 50]]]
    write("kmeans", {
        "iris": data_set(iris, 3, lambda x: []),
        "wine": data_set(wine, 3, lambda x: []),
        "blobs": data_set(blobs, 5, lambda x: [trajectory(x, [*x[:3].tolist(), [500.0, 500], [600.0, -500]])]),
        "lumps": {"points": lumps, "k": 4, "best_inertia": best(lumps, 4),
                  "figures": figures(lumps, np.repeat([0, 1, 2, 3, 0], [9, 4, 7, 1, 2])),
                  "fits": [trajectory(lumps, start) for start in far]},
    })
    pairs = [(rng.integers(0, a, 80), rng.integers(0, b, 80)) for a, b in [(2, 2), (3, 5), (8, 8), (1, 4), (80, 80), (1, 1)]]
    pairs += [(a, np.where(rng.random(80) < 0.1, 0, a)) for a, _ in pairs[:4]]
    write("metrics", {
        "rand": [{"left": a, "right": b, "value": adjusted_rand_score(a, b),
                  "nmi": normalized_mutual_info_score(a, b), "ami": adjusted_mutual_info_score(a, b)} for a, b in pairs],
        "pairs": [assignment(a, b) for a, b in [(1, 1), (3, 3), (8, 8), (12, 12), (5, 9), (9, 5), (20, 20), (1, 6)]],
        "degenerate": [{"points": x, **figures(np.array(x, float), np.array(labels))} for x, labels in [
            ([[0], [0], [1], [1]], [0, 0, 1, 1]),
            ([[0], [0], [0], [0]], [0, 0, 1, 1]),
            ([[-1], [1], [-1], [1]], [0, 0, 1, 1]),
            ([[0], [1], [10]], [0, 0, 1]),
            ([[1, 1], [1, 1], [1, 1], [4, 5]], [0, 0, 1, 2]),
        ]],
    })
    write("hierarchical", [tree(x, method) for x in tree_data() for method in
                           ["single", "complete", "average", "ward", "centroid"]])
    write("dbscan", [density(x, eps, n, metric) for x, eps, n in density_data() for metric in
                     ["euclidean", "manhattan"]])
    write("principal", [components(x) for x in [iris, wine, rng.normal(size=(40, 6)) @ rng.normal(size=(6, 6))]])
    write("gap", gap_case())
    write("rfm", rfm_case())
    write("bars", {name: bar(x.round(6), k) for name, (x, k) in bar_data().items()})
    curves = []
    while len(curves) < 50:
        n = int(rng.integers(6, 14))
        x = np.arange(2, 2 + n).astype(float)
        bend = rng.uniform(0.5, 2.5)
        y = np.sort(1000 * x ** -bend + rng.uniform(0, 8, n))[::-1].round(6)
        knee = KneeLocator(x, y, S=1.0, curve="convex", direction="decreasing").knee
        curves.append({"x": x, "y": y, "knee": None if knee is None else float(knee)})
    write("knees", curves)


main()
