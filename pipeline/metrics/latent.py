"""Figures of a latent space: share of active dimensions, and silhouette of clusters of codes."""

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

Codes = NDArray[np.float32]
ACTIVE_VARIANCE = 0.01  # of a dimension's mean over brains (Burda et al. 2016, section 5.4)
MIN_BRAINS = 4  # for two clusters to mean anything


def active_share(codes: Codes) -> float:
    """Share of the dimensions of (N, d) codes that vary from brain to brain.

    A dimension is active if the variance of its mean over brains is above 0.01 (Burda et al. 2016,
    arXiv:1509.00519): one that is not holds nothing.

    Example:
        >>> active_share(np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]]))
        0.5
    """
    return float((codes.var(axis=0) > ACTIVE_VARIANCE).mean())


def silhouette(codes: Codes, *, clusters: int = 2, seed: int = 0) -> float:
    """Mean silhouette of k-means clusters of (N, d) codes; near 0 there are none. NaN for few.

    Example:
        >>> round(silhouette(np.array([[0.0], [0.1], [9.0], [9.1]])), 2)
        0.99
    """
    if len(codes) < MIN_BRAINS:
        return float("nan")
    labels = KMeans(clusters, n_init=10, random_state=seed).fit_predict(codes)
    return float(silhouette_score(codes, labels)) if len(set(labels)) > 1 else float("nan")
