"""Metrics of detecting altered brains by a score, with weights for the bootstrap."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
TRUE_POSITIVE_RATE = 0.95
ROUNDING = 1e-5  # relative


@dataclass(frozen=True)
class Detection:
    """Area under the ROC curve, average precision, false-positive rate at 95 % sensitivity."""

    auroc: float
    ap: float
    fpr95: float


def detection(positive: Array, negative: Array, *, w_pos: Array, w_neg: Array) -> Detection:
    """Figures of one score; a high score should mean positive.

    Args:
        positive: scores of the altered brains, (P,).
        negative: scores of the healthy ones, (N,).
        w_pos: weight of each altered brain, (P,): how often a bootstrap drew it.
        w_neg: likewise, (N,).

    Example:
        >>> once = np.ones(2)
        >>> detection(np.array([2.0, 3.0]), np.array([1.0, 2.5]), w_pos=once, w_neg=once).auroc
        0.75
    """
    scores = np.concatenate([positive, negative])
    order = np.argsort(-scores, kind="stable")
    tp = np.concatenate([w_pos, np.zeros(len(negative))])[order].cumsum()
    fp = np.concatenate([np.zeros(len(positive)), w_neg])[order].cumsum()
    last = np.append(np.diff(scores[order]) != 0, True)  # one point where scores tie
    tp, fp = tp[last], fp[last]
    n_pos, n_neg = max(tp[-1], 1e-12), max(fp[-1], 1e-12)
    tpr, fpr = np.append(0, tp) / n_pos, np.append(0, fp) / n_neg
    auroc = float(((tpr[1:] + tpr[:-1]) / 2 * np.diff(fpr)).sum())
    precision = tp / np.maximum(tp + fp, 1e-12)
    ap = float((np.diff(tpr) * precision).sum())
    reached = np.flatnonzero(tpr >= TRUE_POSITIVE_RATE - 1e-12)
    return Detection(auroc, ap, float(fpr[reached[0]]) if len(reached) else 1.0)


def roc_curve(positive: Array, negative: Array) -> tuple[Array, Array]:
    """Compute false- and true-positive rates at every threshold.

    Example:
        >>> fpr, tpr = roc_curve(np.array([2.0, 3.0]), np.array([1.0]))
        >>> fpr.tolist(), tpr.tolist()
        ([0.0, 0.0, 0.0, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    thresholds = np.unique(np.concatenate([positive, negative]))[::-1]
    fpr = np.array([0.0, *[(negative >= t).mean() for t in thresholds]])
    tpr = np.array([0.0, *[(positive >= t).mean() for t in thresholds]])
    return fpr, tpr


def paired_share(altered: Array, healthy: Array) -> float:
    """Share of subjects whose score rises with the alteration, ties counted half; see `rises`.

    Example:
        >>> paired_share(np.array([2.0, 3.0, 1.0]), np.array([1.0, 3.0, 2.0]))
        0.5
    """
    return float(rises(altered, healthy).mean())


def rises(altered: Array, healthy: Array) -> Array:
    """Mark the subjects whose score rises with the alteration by 1, others by 0, ties by ½, (N,).

    Scores that differ by rounding tie: a network's outputs depend a little on the rest of a batch.

    Example:
        >>> rises(np.array([2.0, 3.0, 1.0]), np.array([1.0, 3.0 + 1e-7, 2.0])).tolist()
        [1.0, 0.5, 0.0]
    """
    ties = np.isclose(altered, healthy, rtol=ROUNDING, atol=0)
    return np.where(ties, 0.5, altered > healthy)
