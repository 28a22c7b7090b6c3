"""Makes tests/data/segment/drift.json: what SciPy, scikit-learn and plain NumPy say of two samples and two groupings.

    python3 -m venv venv && venv/bin/pip install scikit-learn==1.9.1 scipy==1.17.1 numpy
    venv/bin/python tests/fixtures_drift.py
"""
import json
import pathlib

import numpy as np
from scipy import stats
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

rng = np.random.default_rng(20260102)


def bins(reference):
    edges = np.unique(np.quantile(reference, np.arange(1, 10) / 10))
    return edges, counted(edges, reference)


def counted(edges, values):
    return np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)


def psi(current, reference):
    p, q = (np.where(x > 0, x, 1e-4) for x in (current, reference))
    p, q = p / p.sum(), q / q.sum()
    return float(((p - q) * np.log(p / q)).sum())


def numbers(current, reference):
    edges, there = bins(reference)
    here = counted(edges, current)
    p, q = here / here.sum(), there / there.sum()
    both = np.array([here, there])
    both = both[:, both.sum(axis=0) > 0]
    chi2 = stats.chi2_contingency(both, correction=False)
    ks = stats.ks_2samp(current, reference, method="asymp")
    return {
        "current": current.tolist(), "reference": reference.tolist(), "edges": edges.tolist(),
        "counts": here.tolist(), "shares": q.tolist(), "psi": psi(p, q),
        "js": float(jensenshannon(p, q, base=2)), "ks": float(ks.statistic),
        "wasserstein": float(stats.wasserstein_distance(current, reference)),
        "chi2": float(chi2.statistic), "chi2_p": float(chi2.pvalue),
    }


def groupings(left, right):
    return {
        "left": left.tolist(), "right": right.tolist(), "ari": float(adjusted_rand_score(left, right)),
        "nmi": float(normalized_mutual_info_score(left, right)),
    }


def main():
    normal = rng.normal(size=300)
    pairs = [
        (rng.normal(size=200), normal),
        (rng.normal(0.5, 1.3, size=200), normal),
        (rng.lognormal(size=150), rng.lognormal(0.3, 1.0, size=250)),
        (rng.poisson(1.2, size=200).astype(float), rng.poisson(1.5, size=300).astype(float)),
        (np.full(50, 9.0), rng.integers(0, 5, size=80).astype(float)),
    ]
    labels = rng.integers(0, 4, size=200)
    noisy = np.where(rng.random(200) < 0.2, rng.integers(0, 4, size=200), labels)
    groups = [(labels, noisy), (labels, (labels + 1) % 4), (labels, rng.integers(0, 6, size=200)),
              (labels, np.zeros(200, dtype=int)), (labels, labels // 2)]
    out = {"numbers": [numbers(*pair) for pair in pairs], "groupings": [groupings(*g) for g in groups]}
    path = pathlib.Path(__file__).parent / "data" / "segment" / "drift.json"
    path.write_text(json.dumps(out, separators=(",", ":")) + "\n")


main()
