"""Features of the folds of a hemisphere by which a learned namer tells sulci apart."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.special import softmax

from foldnorm.preprocessing.naming.alignment import Points

Floats = NDArray[np.float32]

TOUCHING_MM = 3.0  # between points of two folds that touch: neighbours in voxels of up to 2 mm
NEAR_MM = 15.0  # sd of the Gaussian by which the folds around another one count
CELL_MM = 3.0  # a fold is as large as the cells of this side that it fills, whatever its voxels are
LEAST_LOG = -8.0  # log density below which places are alike
# Lengths and log densities are brought to the order of one.
FAR_SCALE, WIDE_SCALE, LOG_SCALE = 40.0, 10.0, 3.0
UPPER = np.triu_indices(3)


@dataclass(frozen=True)
class FoldFeatures:
    """Folds of a hemisphere and their neighbours.

    Attributes:
        values: (F, 3 k), of each fold k features: log densities and posterior of the names, place,
            extent, normal, size, side; then their mean over the folds that touch it, and over
            those around, 0 where there are none.
        sizes: (F,), cells of `CELL_MM` that it fills.
    """

    values: Floats = field(repr=False)
    sizes: NDArray[np.float64] = field(repr=False)


def fold_features(
    density: Floats, points: Points, folds: NDArray[np.integer], *, is_right: bool
) -> FoldFeatures:
    """Describe the folds of a hemisphere, each with its neighbours.

    Means over neighbours take the place of the layers of a graph network (Frasca et al. 2020,
    arXiv:2004.11198).

    Args:
        density: (F, n), mean log density of each name over the points of each fold.
        points: (N, 3), mm of a left side of an atlas: a right hemisphere is mirrored.
        folds: (N,), fold of each point, from 0 to F − 1; none is without points.
        is_right: the hemisphere is a right one.
    """
    n_folds = len(density)
    sizes = _sizes(points, folds, n_folds)
    centres, shapes = _shapes(points, folds, n_folds)
    log = np.maximum(density.astype(np.float64), LEAST_LOG) / LOG_SCALE + 1
    side = np.full((n_folds, 1), float(is_right))
    parts = [log, softmax(density, axis=1), shapes, np.log(sizes)[:, None], side]
    own = np.concatenate(parts, axis=1, dtype=np.float32)
    touching, near = _touching(points, folds, n_folds), _near(centres, sizes)
    return FoldFeatures(np.concatenate([own, touching @ own, near @ own], axis=1), sizes)


def _sizes(points: Points, folds: NDArray[np.integer], n_folds: int) -> NDArray[np.float64]:
    cells = np.floor(points / CELL_MM).astype(np.int64)
    filled = np.unique(np.column_stack([folds, cells]), axis=0)[:, 0]
    return np.bincount(filled, minlength=n_folds).astype(np.float64)


def _shapes(
    points: Points, folds: NDArray[np.integer], n_folds: int
) -> tuple[Points, NDArray[np.float64]]:
    """Return centres (F, 3) in mm; and centre, corners, axes, normal and covariance, (F, 24)."""
    count = np.bincount(folds, minlength=n_folds)
    centres = np.stack([np.bincount(folds, own, n_folds) / count for own in points.T], axis=1)
    away = points - centres[folds]
    covariance = np.stack(
        [np.bincount(folds, away[:, i] * away[:, j], n_folds) / count
         for i, j in zip(*UPPER, strict=True)], axis=1,
    )  # fmt: skip
    full = np.empty((n_folds, 3, 3))
    full[:, UPPER[0], UPPER[1]] = full[:, UPPER[1], UPPER[0]] = covariance
    values, axes = np.linalg.eigh(full)
    normals = axes[:, :, 0]  # eigenvalues ascend; its sign means nothing: products of components do
    outer = (normals[:, :, None] * normals[:, None, :])[:, UPPER[0], UPPER[1]]
    low, high = np.full((n_folds, 3), np.inf), np.full((n_folds, 3), -np.inf)
    np.minimum.at(low, folds, points)
    np.maximum.at(high, folds, points)
    far = np.concatenate([centres, low, high], axis=1) / FAR_SCALE
    wide = np.sqrt(np.maximum(values, 0)) / WIDE_SCALE
    return centres, np.concatenate([far, wide, outer, covariance / WIDE_SCALE**2], axis=1)


def _touching(points: Points, folds: NDArray[np.integer], n_folds: int) -> Floats:
    """Share of the contacts of a fold (row) that another one (column) has, (F, F)."""
    pairs = folds[cKDTree(points).query_pairs(TOUCHING_MM, output_type="ndarray")]
    one, other = pairs[pairs[:, 0] != pairs[:, 1]].T
    contacts = np.zeros((n_folds, n_folds))
    np.add.at(contacts, (one, other), 1)
    return _shares(contacts + contacts.T)


def _near(centres: Points, sizes: NDArray[np.float64]) -> Floats:
    """Weights of the folds (columns) around each (row), (F, F)."""
    squared = ((centres[:, None] - centres[None]) ** 2).sum(axis=-1)
    weights = np.exp(-squared / (2 * NEAR_MM**2)) * np.sqrt(sizes)
    np.fill_diagonal(weights, 0)
    return _shares(weights)


def _shares(weights: NDArray[np.float64]) -> Floats:
    """Rows that sum to 1, or to 0 where nothing is."""
    total = weights.sum(axis=1, keepdims=True)
    shares = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return shares.astype(np.float32)
