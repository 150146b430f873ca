"""Shifts of single sulci from where an affine map of the whole hemisphere puts them.

Two hemispheres differ by more than an affine map: each sulcus lies some millimetres from where that
map expects it. A shift of each is found that makes the folds likely which may belong to it, as in
the local registration of Perrot, Rivière & Mangin (2011), "Cortical sulci recognition and spatial
normalization", Medical Image Analysis 15(4). All shifts are found together, with every fold's name
left open, by L-BFGS with the exact gradient.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.naming.alignment import LEAST_DENSITY, NEAR, Points
from foldnorm.preprocessing.naming.atlas import AtlasSide

BAND = 5.0  # of log likelihood below the likeliest name of a fold: less likely ones are left out
LEAST_FOLDS = 0.1  # mean folds that may belong to a sulcus: what has fewer hardly moves
MAX_STEPS = 40
NOWHERE = float(np.log(LEAST_DENSITY))  # mean log density of a fold that belongs to no sulcus


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
    pairs = _Pairs.likely(side, voxels, folds, means)
    new = means.copy()
    if not len(pairs.fold):
        return new, np.zeros((means.shape[1], 3))
    own = pairs.fold, pairs.sulcus
    _, given = pairs.likelihoods(means[own])
    seen = np.bincount(pairs.sulcus, pairs.weights * given, minlength=means.shape[1])
    precision = np.maximum(seen, LEAST_FOLDS)[:, None] / NEAR.translation**2
    found = optimize.minimize(
        _loss,
        np.zeros(3 * means.shape[1]),
        args=(pairs, precision),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_STEPS},
    )
    shifts = found.x.reshape(-1, 3)
    new[own], _ = pairs.means_and_slopes(shifts)
    return new, shifts


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a fold and a sulcus that it may belong to, sorted by fold.

    Attributes:
        side: of the atlas.
        points: (N, 3) float32, voxels of its ``log_density``, sorted by fold.
        starts: (F + 1,) first point of each fold, and the end of the last.
        fold: (P,) of each pair.
        sulcus: (P,) of each pair.
        weights: (P,) points of the fold, as a multiple of the mean over folds.
    """

    side: AtlasSide
    points: NDArray[np.float32]
    starts: NDArray[np.integer]
    fold: NDArray[np.integer]
    sulcus: NDArray[np.integer]
    weights: NDArray[np.float64]

    @classmethod
    def likely(
        cls,
        side: AtlasSide,
        voxels: Points,
        folds: NDArray[np.integer],
        means: NDArray[np.float32],
    ) -> "_Pairs":
        """Find the pairs within `BAND` of the likeliest of their fold; see `shifted_means`."""
        points = voxels[np.argsort(folds, kind="stable")].astype(np.float32)
        count = np.bincount(folds, minlength=len(means))
        starts = np.concatenate([[0], np.cumsum(count)])
        likeliest = np.maximum(means.max(axis=1, keepdims=True), NOWHERE)
        fold, sulcus = np.nonzero(means > likeliest - BAND)
        return cls(side, points, starts, fold, sulcus, (count / count.mean())[fold])

    @cached_property
    def first(self) -> NDArray[np.integer]:
        """First pair of each fold that has any."""
        return np.flatnonzero(np.diff(self.fold, prepend=-1))

    @cached_property
    def place(self) -> NDArray[np.integer]:
        """Number of each pair's fold among those that have any, (P,)."""
        return np.cumsum(np.diff(self.fold, prepend=self.fold[0]) > 0)

    def likelihoods(
        self, own: NDArray[np.floating]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the log likelihood of each fold, and the probability of each pair.

        Args:
            own: (P,) mean log density of each pair.
        """
        value = np.logaddexp.reduceat(own.astype(np.float64), self.first)
        value = np.logaddexp(value, NOWHERE)
        return value, np.exp(own - value[self.place])

    def means_and_slopes(
        self, shifts: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean log density of each pair after shifts of the sulci, (n, 3) mm, and its slope.

        Returns:
            (P,) means, and (P, 3) slopes a voxel.
        """
        slope = np.empty((len(self.fold), 3), dtype=np.float32)
        moved = shifts @ self.side.to_voxel[:3, :3].T
        means = _pair_means(
            self.side.log_density, self.points, self.starts, self.fold, self.sulcus, moved, slope
        )
        return means, slope


def _loss(
    parameters: NDArray[np.float64], pairs: _Pairs, precision: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Negative log posterior of shifts, and its gradient.

    Args:
        parameters: (3 n,) shifts, mm.
        pairs: of folds and sulci.
        precision: (n, 1) of the prior of each sulcus's shift, 1 / mm².
    """
    shifts = parameters.reshape(-1, 3)
    own, slope = pairs.means_and_slopes(shifts)
    value, likely = pairs.likelihoods(own)
    pull = np.zeros_like(shifts)
    np.add.at(pull, pairs.sulcus, (pairs.weights * likely)[:, None] * slope)
    cost = 0.5 * float((precision * shifts**2).sum()) - float(pairs.weights[pairs.first] @ value)
    return cost, (precision * shifts - pull @ pairs.side.to_voxel[:3, :3]).ravel()


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
