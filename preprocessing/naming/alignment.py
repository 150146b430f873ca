"""Alignment of a brain with an atlas of sulci: an affine map that makes names of its folds likely.

The likelihood of a fold is that of the geometric mean over its points of P(place | sulcus),
whichever sulcus it is: folds keep together, so that half a sulcus over the line is no reason to
move. It is maximised over affine maps by L-BFGS with its exact gradient, under a Gaussian prior
around the given position: brains in MNI space lie within millimetres of it, and free affine maps
leave that for little. A map that shrinks a brain pays for it by its determinant, as densities do:
else it would crowd all folds into one place where any sulcus is likely. Fits from where a search
from further away ends find brains that lie 20 mm and 20° off; the likelier one is taken.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.naming.atlas import AtlasSide
from foldnorm.preprocessing.spatial.space import Matrix

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Prior:
    """Gaussian prior of an affine map, and how many points it is held against.

    Attributes:
        rotation: sd in rad.
        translation: sd in mm.
        scale: sd of a side's factor.
        shear: sd.
        weight: of its log density against that of the folds, whose points depend on one another.
        points: of a hemisphere that are looked at.
    """

    rotation: float = 0.08
    translation: float = 6.0
    scale: float = 0.06
    shear: float = 0.04
    weight: float = 6.0
    points: int = 4000

    @property
    def spread(self) -> NDArray[np.float64]:
        """Sd of the 12 parameters."""
        return np.repeat([self.rotation, self.translation, self.scale, self.shear], 3)


NEAR = Prior()
FAR = Prior(rotation=0.3, translation=20.0, scale=0.1, shear=0.03, weight=1.0, points=1500)
MAX_STEPS = 60
RENEWALS = 3  # fits, each with the prior around where the one before ended
DOUBTFUL = 10.0  # mm that a fit moves a brain: its given position is no guide, and fits are renewed
TINY = 1e-3  # determinant
# Density of the likeliest sulcus, as a share of the atlas's peak, below which a fold is none that
# the atlas knows: less than one brain in fifty. Folds of ventricles lie there.
LEAST_DENSITY = 0.02
BETTER = 0.1  # in mean log likelihood of a fold: less is no reason to leave the given position


@dataclass(frozen=True)
class Alignment:
    """An affine map of a brain onto an atlas.

    Attributes:
        matrix: (4, 4), mm of the brain → mm of the atlas.
        moved: mm by which it moves points of the brain, on average.
        likelihood: mean log likelihood of a fold under it, relative to the peak of the atlas.
    """

    matrix: Matrix
    moved: float
    likelihood: float


def align(side: AtlasSide, points: Points, folds: NDArray[np.integer]) -> Alignment:
    """Find where the folds of a hemisphere lie in an atlas.

    Args:
        side: of the atlas.
        points: (N, 3), mm, of voxels of folds; where the brain was given.
        folds: (N,), label of each point's fold.
    """
    near = align_near(side, points, folds)
    far = _fitted(side.coarse, points, folds, FAR, np.eye(4))
    far = _renewed(side, points, folds, far)
    if far.likelihood > near.likelihood + BETTER:
        return far
    return near if near.moved < DOUBTFUL else _renewed(side, points, folds, near)


def align_near(side: AtlasSide, points: Points, folds: NDArray[np.integer]) -> Alignment:
    """Fit around where a hemisphere was given, in MNI space; for arguments see `align`."""
    return _fitted(side, points, folds, NEAR, np.eye(4))


def _renewed(
    side: AtlasSide, points: Points, folds: NDArray[np.integer], found: Alignment
) -> Alignment:
    """Fit anew, the prior around where the fit before ended."""
    for _ in range(RENEWALS):
        found = _fitted(side, points, folds, NEAR, found.matrix)
    return found


def roughly_placed(side: AtlasSide, points: Points) -> Matrix:
    """Return a map of points without a known position: their box onto that of the atlas.

    Args:
        side: of the atlas.
        points: (N, 3), mm, x to the right, y forwards, z upwards.
    """
    ends = np.quantile(points, (0.02, 0.98), axis=0)
    places = np.argwhere(side.counts.max(axis=0) > side.peak / 5)
    wanted = np.quantile(transformed(places, side.affine), (0.02, 0.98), axis=0)
    scale = float(np.prod(np.ptp(wanted, axis=0) / np.ptp(ends, axis=0)) ** (1 / 3))
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[:3, 3] = wanted.mean(axis=0) - scale * ends.mean(axis=0)
    return matrix


def transformed(points: NDArray[Any], matrix: Matrix) -> Points:
    """Apply a (4, 4) matrix to (N, 3) points."""
    moved: Points = points @ matrix[:3, :3].T + matrix[:3, 3]
    return moved


def _fitted(
    side: AtlasSide, points: Points, folds: NDArray[np.integer], prior: Prior, start: Matrix
) -> Alignment:
    """Maximise likelihood and prior around a map; returns the whole map."""
    chosen = np.arange(0, len(points), max(len(points) // prior.points, 1))
    # Anywhere in their voxels: on a common grid they would sit on the bends of the interpolation.
    jitter = np.random.default_rng(0).uniform(-0.5, 0.5, (len(chosen), 3))
    given = points[chosen] + jitter
    some = transformed(given, start)
    _, numbers = np.unique(folds[chosen], return_inverse=True)
    sizes = np.bincount(numbers).astype(np.float32)
    weights = np.sqrt(sizes / sizes.mean())
    centre = some.mean(axis=0)
    spread, to_voxel = prior.spread, side.to_voxel
    slope = np.empty((len(some), 3), dtype=np.float32)
    total, begun = float(weights.sum()), float(np.log(np.linalg.det(start[:3, :3])))
    none = np.log(LEAST_DENSITY) - begun

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        linear, shift = _affine(parameters * spread)
        shrinking = -np.log(max(np.linalg.det(linear), TINY))
        voxels = transformed((some - centre) @ linear.T + centre + shift, to_voxel)
        value, known = _likelihood(
            side.log_density, voxels.astype(np.float32), numbers, weights, none + shrinking, slope
        )
        own = slope.astype(np.float64) @ to_voxel[:3, :3]
        outer = own.T @ (some - centre) + known * np.linalg.inv(linear).T
        gradient = _gradient(outer, own.sum(axis=0)) * spread
        cost = 0.5 * prior.weight * float(parameters @ parameters)
        return cost + total * shrinking - value, prior.weight * parameters - gradient

    found = optimize.minimize(
        loss, np.zeros(12), jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS}
    )
    linear, shift = _affine(found.x * spread)
    own = np.eye(4)
    own[:3, :3], own[:3, 3] = linear, centre + shift - linear @ centre
    matrix = own @ start
    likelihood = (0.5 * prior.weight * float(found.x @ found.x) - float(found.fun)) / total
    moved = float(np.linalg.norm(transformed(given, matrix) - given, axis=1).mean())
    return Alignment(matrix, moved, likelihood + begun)


def _affine(parameters: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Linear part (3, 3), and translation in mm; rotation, scale and shear to first order."""
    (rx, ry, rz), shift, (sx, sy, sz), (hxy, hxz, hyz) = parameters.reshape(4, 3)
    linear = np.array(
        [
            [1 + sx, hxy - rz, hxz + ry],
            [hxy + rz, 1 + sy, hyz - rx],
            [hxz - ry, hyz + rx, 1 + sz],
        ]
    )
    return linear, shift


def _gradient(outer: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gradient by the parameters of `_affine`, from that by its linear part and its shift."""
    upper, lower = outer[(0, 0, 1), (1, 2, 2)], outer[(1, 2, 2), (0, 0, 1)]
    rotation = np.array([lower[2] - upper[2], upper[1] - lower[1], lower[0] - upper[0]])
    return np.concatenate([rotation, shift, np.diag(outer), upper + lower])


@compiled(nogil=True, fastmath=True)
def _likelihood(log_density, voxels, folds, weights, none, slope):  # type: ignore[no-untyped-def]
    """Σ over folds of weight · log Σ over sulci of P(fold | sulcus); fills its slope by point.

    A fold that is none of them has the log likelihood ``none`` anywhere. Returned as well: the
    weight of the folds that are one of them.
    """
    means = fold_means(log_density, voxels, folds, len(weights))
    count = np.zeros(len(weights), dtype=np.float32)
    for p in range(len(voxels)):
        count[folds[p]] += 1
    total, known = 0.0, 0.0
    for f in range(len(weights)):
        most = max(means[f].max(), none)
        likely = np.exp(means[f] - most)
        norm = likely.sum() + np.exp(none - most)
        total += weights[f] * (most + np.log(norm))
        known += weights[f] * likely.sum() / norm
        means[f] = likely * (weights[f] / norm / max(count[f], 1))  # now: weight in the slope
    shape, n = log_density.shape, log_density.shape[3]
    corner, part = np.empty(3, dtype=np.int64), np.empty(3, dtype=np.float32)
    for p in range(len(voxels)):
        _place(voxels[p], shape, corner, part)
        slope[p] = 0
        for c in range(8):
            a, b, d = c >> 2, (c >> 1) & 1, c & 1
            row = log_density[corner[0] + a, corner[1] + b, corner[2] + d]
            value = np.float32(0)
            for s in range(n):
                value += means[folds[p], s] * row[s]
            x = part[0] if a else 1 - part[0]
            y = part[1] if b else 1 - part[1]
            z = part[2] if d else 1 - part[2]
            slope[p, 0] += value * y * z * (2 * a - 1)
            slope[p, 1] += value * x * z * (2 * b - 1)
            slope[p, 2] += value * x * y * (2 * d - 1)
    return total, known


@compiled(nogil=True, fastmath=True)
def fold_means(log_density, voxels, folds, n_folds):  # type: ignore[no-untyped-def]
    """Mean of trilinearly interpolated log densities over the points of each fold.

    Args:
        log_density: (I, J, K, n) float32.
        voxels: (N, 3) float32, coordinates in it; beyond its border, those of the border.
        folds: (N,) from 0.
        n_folds: their number.

    Returns:
        (n_folds, n) float32; 0 for a fold without points.
    """
    shape, n = log_density.shape, log_density.shape[3]
    means = np.zeros((n_folds, n), dtype=np.float32)
    count = np.zeros(n_folds, dtype=np.float32)
    corner, part = np.empty(3, dtype=np.int64), np.empty(3, dtype=np.float32)
    for p in range(len(voxels)):
        _place(voxels[p], shape, corner, part)
        count[folds[p]] += 1
        for c in range(8):
            a, b, d = c >> 2, (c >> 1) & 1, c & 1
            weight = part[0] if a else 1 - part[0]
            weight *= part[1] if b else 1 - part[1]
            weight *= part[2] if d else 1 - part[2]
            row = log_density[corner[0] + a, corner[1] + b, corner[2] + d]
            for s in range(n):
                means[folds[p], s] += weight * row[s]
    for f in range(n_folds):
        if count[f] > 0:
            means[f] /= count[f]
    return means


@compiled(nogil=True)
def _place(voxel, shape, corner, part):  # type: ignore[no-untyped-def]
    """Corner of the cell that holds a coordinate, and the place within it; clamped to the grid."""
    for axis in range(3):
        inside = min(max(voxel[axis], 0.0), shape[axis] - 1.001)
        corner[axis] = int(inside)
        part[axis] = inside - corner[axis]
