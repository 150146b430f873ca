"""Figures with bootstrap intervals, for `anomaly.py`."""

import numpy as np

from foldnorm.pipeline.metrics.bootstrap import INTERVAL

BOOTSTRAPS = 1000


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    order = np.sort(negative)
    below = np.searchsorted(order, positive, "left")
    ties = np.searchsorted(order, positive, "right") - below
    return float((below + 0.5 * ties).mean() / len(negative))


def interval_of(values: np.ndarray) -> list[float]:
    """Mean over brains, with its bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = [rng.choice(values, len(values)).mean() for _ in range(BOOTSTRAPS)]
    return [float(values.mean()), *map(float, np.percentile(drawn, INTERVAL))]
