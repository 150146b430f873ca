"""Latent scores, distances of codes to those of healthy brains; and conformal p-values.

Fitted on training brains, calibrated on validation brains, which the weights were never fitted
to. A high score means unusual.

scikit-learn is imported where something is fitted: it takes a second, which scores without a model
do without.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.preprocessing.core.errors import InputError

Codes = NDArray[np.float32]
ScoreVector = NDArray[np.float64]
N_NEIGHBOURS = 5
MIN_TRAINING = 3  # brains; a centre and a spread of fewer mean nothing


class LatentScore(Protocol):
    """A score of codes that is fitted on healthy ones."""

    def fit(self, codes: Codes) -> "LatentScore":
        """Fit on (N, d) training codes."""

    def score(self, codes: Codes) -> ScoreVector:
        """Scores of (M, d) codes, (M,)."""


@dataclass
class CentreDistance:
    """Euclidean distance to the mean of the training codes."""

    def fit(self, codes: Codes) -> "CentreDistance":
        """Keep the mean."""
        self.centre_ = codes.mean(axis=0)
        return self

    def score(self, codes: Codes) -> ScoreVector:
        """Distances, (M,)."""
        return np.linalg.norm(codes - self.centre_, axis=1).astype(np.float64)


@dataclass
class Mahalanobis(Fitted):
    """Mahalanobis distance under the Ledoit–Wolf covariance.

    Σ = (1 − δ) S + δ μ I (Ledoit & Wolf 2004, J. Multivariate Analysis 88). S has at most N − 1
    directions; what lies outside them, the orthogonal residual, has variance δ μ and is kept. So
    d can be far above N, and no d × d matrix is made.
    """

    def fit(self, codes: Codes) -> "Mahalanobis":
        """Estimate the covariance of (N, d) codes."""
        from sklearn.covariance import ledoit_wolf_shrinkage

        x = codes.astype(np.float64)
        self.centre_ = x.mean(axis=0)
        x = x - self.centre_
        shrinkage = ledoit_wolf_shrinkage(x, assume_centered=True)
        _, singular, self.axes_ = np.linalg.svd(x, full_matrices=False)  # axes: (min(N, d), d)
        variances = singular**2 / len(x)
        mean_variance = max(float(variances.sum() / x.shape[1]), 1e-12)
        self.rest_ = max(float(shrinkage), 1e-9) * mean_variance
        self.variances_ = (1 - shrinkage) * variances + self.rest_
        return self

    def state_dict(self) -> State:
        """Return mean, axes and variances."""
        return {
            "centre": self.centre_,
            "axes": self.axes_,
            "variances": self.variances_,
            "rest": self.rest_,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.centre_, self.axes_ = state["centre"], state["axes"]
        self.variances_, self.rest_ = state["variances"], state["rest"]
        return self

    def score(self, codes: Codes) -> ScoreVector:
        """Distances, (M,)."""
        x = codes.astype(np.float64) - self.centre_
        along = x @ self.axes_.T
        residual = np.maximum((x**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.sqrt((along**2 / self.variances_).sum(axis=1) + residual / self.rest_)

    def whitened(self, codes: Codes) -> Codes:
        """(M, d) codes along the axes of the training codes, each of variance 1: (M, min(N, d)).

        A last column is the length of what lies outside these axes, in the same units.
        """
        x = codes.astype(np.float64) - self.centre_
        along = x @ self.axes_.T
        residual = np.maximum((x**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        outside = np.sqrt(residual / self.rest_)[:, None]
        return np.hstack([along / np.sqrt(self.variances_), outside]).astype(np.float32)


@dataclass
class NearestHealthy:
    """Mean distance to the k nearest training codes."""

    k: int = N_NEIGHBOURS

    def fit(self, codes: Codes) -> "NearestHealthy":
        """Keep the training codes."""
        from sklearn.neighbors import NearestNeighbors

        self.index_ = NearestNeighbors(n_neighbors=min(self.k, len(codes))).fit(codes)
        return self

    def score(self, codes: Codes) -> ScoreVector:
        """Distances, (M,)."""
        distances, _ = self.index_.kneighbors(codes)
        return distances.mean(axis=1).astype(np.float64)


@dataclass
class WhitenedNearest(NearestHealthy):
    """Mean distance to the nearest training codes, whitened by their Ledoit–Wolf covariance."""

    def fit(self, codes: Codes) -> "WhitenedNearest":
        """Keep the whitened training codes."""
        self.space_ = Mahalanobis().fit(codes)
        super().fit(self.space_.whitened(codes))
        return self

    def score(self, codes: Codes) -> ScoreVector:
        """Distances, (M,)."""
        return super().score(self.space_.whitened(codes))


@dataclass
class OneClass:
    """Distance outside the boundary of a one-class SVM.

    Schölkopf et al. 2001 (doi:10.1162/089976601750264965), by scikit-learn. On codes as they are:
    with more dimensions than brains, whitened ones of brains that nothing was fitted to lie so far
    out that all are the same to its kernel.

    Attributes:
        outside: share of the training codes that may lie outside (ν).
    """

    outside: float = 0.1

    def fit(self, codes: Codes) -> "OneClass":
        """Learn the boundary."""
        from sklearn.svm import OneClassSVM

        self.svm_ = OneClassSVM(nu=self.outside).fit(codes)
        return self

    def score(self, codes: Codes) -> ScoreVector:
        """Minus the signed distances to the boundary, (M,)."""
        return -self.svm_.decision_function(codes).astype(np.float64)


def latent_scores() -> dict[str, LatentScore]:
    """Create the latent scores by name, unfitted."""
    return {
        "centre": CentreDistance(),
        "mahalanobis": Mahalanobis(),
        "knn": NearestHealthy(),
        "knn_whitened": WhitenedNearest(),
        "one_class": OneClass(),
    }


def fit_latent_scores(codes: Codes) -> dict[str, LatentScore]:
    """All latent scores, fitted on (N, d) training codes."""
    if len(codes) < MIN_TRAINING:
        raise InputError(
            f"scores need at least {MIN_TRAINING} training brains, the cohort has {len(codes)}"
        )
    return {name: score.fit(codes) for name, score in latent_scores().items()}


def conformal_p(scores: NDArray[np.floating], calibration: NDArray[np.floating]) -> ScoreVector:
    """Conformal p-values: (1 + #{calibration ≥ score}) / (m + 1).

    Valid for a brain exchangeable with the m calibration brains (Vovk et al. 2005). The smallest
    that can be reached is 1 / (m + 1). NaN is a score that a brain does not have: it has no p-value
    (NaN), and as a calibration brain it does not count.
    """
    if not len(calibration):
        raise InputError("p-values need validation brains, the cohort has none")
    ordered = np.sort(calibration[~np.isnan(calibration)])
    above = len(ordered) - np.searchsorted(ordered, scores, side="left")
    known = ~np.isnan(scores) if len(ordered) else np.zeros(len(scores), dtype=np.bool_)
    return np.where(known, (1 + above) / (len(ordered) + 1), np.nan)
