"""Shifts of single sulci from where an affine map of the whole hemisphere puts them.

Two hemispheres differ by more than an affine map: each sulcus lies some millimetres from where that
map expects it. A shift of each is found that makes the folds likely which may belong to it, as in
the local registration of Perrot, Rivière & Mangin (2011), "Cortical sulci recognition and spatial
normalization", Medical Image Analysis 15(4). All shifts are found together, with every fold's name
left open, by L-BFGS with the exact gradient.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.naming.alignment import LEAST_DENSITY, NEAR, Points
from foldnorm.preprocessing.naming.atlas import AtlasSide

BAND = 5.0  # of log likelihood below the likeliest name of a fold: less likely ones are left out
LEAST_FOLDS = 0.1  # mean folds that may belong to a sulcus: what has fewer hardly moves
MAX_STEPS = 40


def shifted_means(
    side: AtlasSide, voxels: Points, folds: NDArray[np.integer], means: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Means of log densities over folds, after each sulcus has moved to where folds make it likely.

    A shift has the prior that the translation of the affine map has, whose weight is that of the
    folds which may belong to the sulcus: as if each sulcus had been seen once, however large it is.

    Args:
        side: of the atlas.
        voxels: (N, 3), coordinates of points of folds in its ``log_density``.
        folds: (N,) from 0.
        means: (F, n) of the folds without shifts, see `fold_means`.

    Returns:
        (F, n) means, and (n, 3) shifts of the sulci, mm.
    """
    order = np.argsort(folds, kind="stable")
    count = np.bincount(folds, minlength=len(means))
    starts = np.concatenate([[0], np.cumsum(count)])
    points = voxels[order].astype(np.float32)
    none = float(np.log(LEAST_DENSITY))
    likeliest = np.maximum(means.max(axis=1, keepdims=True), none)
    fold, sulcus = np.nonzero(means > likeliest - BAND)
    new = means.copy()
    if not len(fold):
        return new, np.zeros((means.shape[1], 3))
    weights = (count / count.mean())[fold]
    first = np.flatnonzero(np.diff(fold, prepend=-1))
    place = np.cumsum(np.diff(fold, prepend=fold[0]) > 0)  # of each pair's fold among those
    slope = np.empty((len(fold), 3), dtype=np.float32)
    to_voxel = side.to_voxel[:3, :3]

    def likelihood(own: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log likelihood of each fold, and probability of each pair."""
        value = np.logaddexp(np.logaddexp.reduceat(own.astype(np.float64), first), none)
        return value, np.exp(own - value[place])

    _, given = likelihood(means[fold, sulcus])
    seen = np.bincount(sulcus, weights * given, minlength=means.shape[1])
    precision = np.maximum(seen, LEAST_FOLDS)[:, None] / NEAR.translation**2

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        shifts = parameters.reshape(-1, 3)
        own = _pair_means(
            side.log_density, points, starts, fold, sulcus, shifts @ to_voxel.T, slope
        )
        value, likely = likelihood(own)
        pull = np.zeros_like(shifts)
        np.add.at(pull, sulcus, (weights * likely)[:, None] * slope)
        cost = 0.5 * float((precision * shifts**2).sum()) - float(weights[first] @ value)
        return cost, (precision * shifts - pull @ to_voxel).ravel()

    found = optimize.minimize(
        loss,
        np.zeros(3 * means.shape[1]),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_STEPS},
    )
    shifts = found.x.reshape(-1, 3)
    new[fold, sulcus] = _pair_means(
        side.log_density, points, starts, fold, sulcus, shifts @ to_voxel.T, slope
    )
    return new, shifts


@compiled(nogil=True, fastmath=True)
def _pair_means(log_density, points, starts, folds, sulci, shifts, slope):  # type: ignore[no-untyped-def]
    """Mean log density of a fold's points under a sulcus that has moved; fills its slope.

    Points of fold f are those from ``starts[f]`` to ``starts[f + 1]``; shifts are in voxels.
    """
    means = np.empty(len(folds), dtype=np.float32)
    last = np.array(log_density.shape[:3]) - 1.001
    corner, part = np.empty(3, dtype=np.int64), np.empty(3, dtype=np.float32)
    for n in range(len(folds)):
        s, begin, end = sulci[n], starts[folds[n]], starts[folds[n] + 1]
        total = np.float32(0)
        slope[n] = 0
        for p in range(begin, end):
            for axis in range(3):
                inside = min(max(points[p, axis] + shifts[s, axis], 0.0), last[axis])
                corner[axis] = int(inside)
                part[axis] = inside - corner[axis]
            for c in range(8):
                a, b, d = c >> 2, (c >> 1) & 1, c & 1
                value = log_density[corner[0] + a, corner[1] + b, corner[2] + d, s]
                x = part[0] if a else 1 - part[0]
                y = part[1] if b else 1 - part[1]
                z = part[2] if d else 1 - part[2]
                total += value * x * y * z
                slope[n, 0] += value * y * z * (2 * a - 1)
                slope[n, 1] += value * x * z * (2 * b - 1)
                slope[n, 2] += value * x * y * (2 * d - 1)
        means[n] = total / (end - begin)
        for axis in range(3):
            slope[n, axis] /= end - begin
    return means
