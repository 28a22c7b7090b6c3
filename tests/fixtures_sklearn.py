"""Makes tests/data/segment/*.json: what scikit-learn 1.9.1 and kneed 0.9.0 say about small data.

    python3 -m venv venv && venv/bin/pip install scikit-learn==1.9.1 scipy numpy kneed==0.9.0
    venv/bin/python tests/fixtures_sklearn.py
"""
import json
import pathlib
import warnings

import numpy as np
from kneed import KneeLocator
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris, load_wine, make_blobs
from sklearn.impute import SimpleImputer
from sklearn.metrics import (
    adjusted_rand_score, calinski_harabasz_score, davies_bouldin_score, silhouette_samples, silhouette_score,
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
        "rand": [{"left": a, "right": b, "value": adjusted_rand_score(a, b)} for a, b in pairs],
        "degenerate": [{"points": x, **figures(np.array(x, float), np.array(labels))} for x, labels in [
            ([[0], [0], [1], [1]], [0, 0, 1, 1]),
            ([[0], [0], [0], [0]], [0, 0, 1, 1]),
            ([[-1], [1], [-1], [1]], [0, 0, 1, 1]),
            ([[0], [1], [10]], [0, 0, 1]),
            ([[1, 1], [1, 1], [1, 1], [4, 5]], [0, 0, 1, 2]),
        ]],
    })
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
