"""Evidence for clusters among codes: k-means, silhouettes, gap statistic, stability.

k-means always finds clusters. Whether there are any is asked three times. Is the *gap* between the
spread within clusters and that of data without any largest for one cluster (Tibshirani, Walther &
Hastie 2001, doi:10.1111/1467-9868.00293)? Do two clusterings of bootstrapped brains agree (Hennig
2007; adjusted Rand index)? Are the best clusters tighter than those that the same method finds in
one normal cloud of the same covariance (SigClust; Liu et al. 2008,
doi:10.1198/016214508000000454)?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from foldnorm.pipeline.latent.space import Codes, principal_axes
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError

N_STARTS = 10  # of k-means, each from other centres
N_REFERENCES = 20  # draws of data without clusters
N_NULL_DRAWS = 100  # of a normal cloud
N_BOOTSTRAPS = 20
SEPARATE, STABLE = 0.25, 0.75  # silhouettes and Rand indices above which clusters are said to be so
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Clustering:
    """One clustering into k.

    Attributes:
        k: clusters.
        labels: (N,) cluster of each brain, 0 the largest.
        silhouettes: (N,) of each brain: 1 deep within its cluster, 0 between two; NaN for k = 1.
        gap: how much tighter than data without clusters, in the logarithm.
        gap_sd: standard error of that (s_k of the paper).
        stability: mean adjusted Rand index of clusterings of bootstrapped brains; NaN for k = 1.
    """

    k: int
    labels: NDArray[np.int64]
    silhouettes: NDArray[np.float64]
    gap: float
    gap_sd: float
    stability: float

    def as_row(self) -> dict[str, Any]:
        """Return a row of the table of clusterings, without the brains."""
        return {
            "k": self.k,
            "silhouette": float(np.mean(self.silhouettes)),
            "gap": self.gap,
            "gap_sd": self.gap_sd,
            "stability": self.stability,
            "sizes": ", ".join(str(n) for n in np.bincount(self.labels)),
        }


@dataclass(frozen=True)
class ClusterAnalysis:
    """Result of `find_clusters`.

    Attributes:
        clusterings: for k = 1 … K.
        best: of at least two clusters, the one with the largest mean silhouette.
        gap_k: number of clusters by the gap statistic.
        p_one_cloud: share of normal clouds of the same covariance, 1 added above and below, whose
            clusters, as many as of ``best``, are as tight as those of the brains.
    """

    clusterings: tuple[Clustering, ...]
    best: Clustering
    gap_k: int
    p_one_cloud: float

    @property
    def sentence(self) -> str:
        """Sentence that states whether there is more than one cluster, and the figures for it."""
        best = self.best
        silhouette = float(np.mean(best.silhouettes))
        separate, stable = silhouette > SEPARATE, best.stability > STABLE
        one_cloud = self.p_one_cloud > SIGNIFICANT
        figures = (
            f"best silhouette {silhouette:.2f} at k = {best.k}, stability {best.stability:.2f}, "
            f"gap statistic k = {self.gap_k}, p = {self.p_one_cloud:.2g} for one normal cloud"
        )
        if not one_cloud and separate and stable:
            return f"The brains fall into {best.k} clusters ({figures})."
        if one_cloud and not (separate and stable):
            return f"There is no sign of more than one cluster ({figures})."
        return f"Whether there is more than one cluster is not clear ({figures})."


def find_clusters(codes: Codes, most: int = 5, *, seed: int = 0) -> ClusterAnalysis:
    """Cluster codes into 1 … ``most`` and ask whether that means anything.

    Args:
        codes: (N, d).
        most: clusters.
        seed: of everything drawn.

    Raises:
        InputError: too few brains for so many clusters.
    """
    if len(codes) < 2 * most + 1 or most < 2:
        raise InputError(f"expected at least 2 clusters and more than twice as many brains, got "
                         f"k = {most} and {counted(len(codes), 'brain')}")  # fmt: skip
    rng = np.random.default_rng(seed)
    points = principal_axes(codes)
    low, high = points.min(axis=0), points.max(axis=0)
    references = [rng.uniform(low, high, points.shape) for _ in range(N_REFERENCES)]
    found = tuple(_clustering(points, k, references, rng) for k in range(1, most + 1))
    # The smallest k whose gap is within one standard error of that of the next.
    enough = [a.k for a, b in pairwise(found) if a.gap >= b.gap - b.gap_sd]
    best = max(found[1:], key=lambda c: float(np.mean(c.silhouettes)))
    p = _one_cloud(points, best.k, rng)
    return ClusterAnalysis(found, best, enough[0] if enough else most, p)


def _clustering(
    points: Codes, k: int, references: Sequence[Codes], rng: np.random.Generator
) -> Clustering:
    labels, spread = _k_means(points, k, rng)
    logs = np.array([np.log(_k_means(r, k, rng)[1]) for r in references])
    gap = float(logs.mean() - np.log(spread))
    gap_sd = float(logs.std() * np.sqrt(1 + 1 / len(references)))
    if k == 1:
        nothing = np.full(len(points), np.nan)
        return Clustering(k, labels, nothing, gap, gap_sd, float("nan"))
    silhouettes = np.asarray(silhouette_samples(points, labels), dtype=np.float64)
    return Clustering(k, labels, silhouettes, gap, gap_sd, _stability(points, k, rng))


def _k_means(points: Codes, k: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], float]:
    """Labels, the largest cluster first, and the sum of squares within clusters."""
    fitted = KMeans(k, n_init=N_STARTS, random_state=int(rng.integers(2**31))).fit(points)
    order = np.argsort(np.argsort(-np.bincount(fitted.labels_, minlength=k), kind="stable"))
    return order[fitted.labels_].astype(np.int64), max(float(fitted.inertia_), 1e-12)


def _stability(points: Codes, k: int, rng: np.random.Generator) -> float:
    """Mean agreement of two clusterings, each fitted to bootstrapped brains and applied to all."""
    agreements = []
    for _ in range(N_BOOTSTRAPS):
        pair = []
        for _ in range(2):
            drawn = points[rng.integers(len(points), size=len(points))]
            fitted = KMeans(k, n_init=N_STARTS, random_state=int(rng.integers(2**31))).fit(drawn)
            pair.append(fitted.predict(points))
        agreements.append(adjusted_rand_score(*pair))
    return float(np.mean(agreements))


def _one_cloud(points: Codes, k: int, rng: np.random.Generator) -> float:
    """p-value, under one normal cloud, of the spread within k clusters over that of all."""

    def index(cloud: Codes) -> float:
        _, within = _k_means(cloud, k, rng)
        return within / float(((cloud - cloud.mean(axis=0)) ** 2).sum())

    # Points lie along their principal axes, so the cloud of their covariance has these spreads.
    spreads = points.std(axis=0)
    own = index(points)
    drawn = [index(rng.standard_normal(points.shape) * spreads) for _ in range(N_NULL_DRAWS)]
    return (1 + sum(value <= own for value in drawn)) / (1 + len(drawn))
