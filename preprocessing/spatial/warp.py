"""Elastic deformation of label volumes that keeps thin sheets whole.

A deformation is a matrix and then a smooth displacement: target voxel y shows what lies at source
voxel M⁻¹ (y + e(y)). Pulling by that tears thin sheets, so sheets are pushed: the place y where
source voxel x comes out solves y = M x − e(y), by fixed-point steps (e changes by less than a voxel
a voxel, or the deformation would fold).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.spatial.space import Matrix

Displacement = NDArray[np.float64]  # (3, I, J, K) on the target grid, voxels
BESIDE = 0.1  # voxels; a little more than for a rotation, since space is stretched here and there
STEPS = 8  # of the fixed point at most: where e changes by .5 a voxel, each halves the error
CLOSE = 0.01  # voxels: a step that moves a point by less is the last


def smooth_displacement(
    rng: np.random.Generator, shape: tuple[int, int, int], most: float, spacing: float
) -> Displacement:
    """Draw a displacement: uniform at control points, cubic splines between them.

    Args:
        rng: draws.
        shape: of the target grid.
        most: voxels along each axis, at control points.
        spacing: of the control points, voxels; at least four times ``most``, so that nothing folds.

    Example:
        >>> field = smooth_displacement(np.random.default_rng(0), (8, 8, 8), most=1.0, spacing=4.0)
        >>> field.shape
        (3, 8, 8, 8)
    """
    counts = [int(np.ceil(side / spacing)) + 3 for side in shape]  # one beyond either end
    control = rng.uniform(-most, most, (3, *counts))
    along = [_spline(side, count, spacing) for side, count in zip(shape, counts, strict=True)]
    return np.einsum("eabc,ia,jb,kc->eijk", control, *along, optimize=True)


def _spline(side: int, count: int, spacing: float) -> NDArray[np.float64]:
    """Share of each control point in each voxel along an axis, (side, count)."""
    start = 1 - (side - 1) / spacing / 2 + (count - 3) / 2
    places = (start + np.arange(side) / spacing)[None]
    return np.stack(
        [ndimage.map_coordinates(p, places, order=3, mode="nearest") for p in np.eye(count)], axis=1
    )


def warp_nearest(
    classes: NDArray[np.integer], matrix: Matrix, displacement: Displacement, fill: int
) -> NDArray[np.integer]:
    """Deform labels: each target voxel takes the source voxel nearest to what it shows.

    Args:
        classes: (I, J, K) uint8.
        matrix: (4, 4), source voxel index → target voxel index.
        displacement: (3, *shape) of the target.
        fill: class beyond the source.

    Returns:
        Labels of the target's shape, same dtype.
    """
    target = np.full(displacement.shape[1:], fill, dtype=classes.dtype)
    _pull(classes, np.linalg.inv(matrix), displacement, target)
    return target


def warp_sheets(
    classes: NDArray[np.integer], matrix: Matrix, displacement: Displacement, fill: int, top: int
) -> NDArray[np.integer]:
    """Deform labels without a hole in the sheets: what is ``top`` or higher.

    As `foldnorm.preprocessing.spatial.space.resample_sheets`: each source voxel goes where it comes
    out, with eight points around it where it is sheet, and the highest class that lands stays.

    The other arguments are those of `warp_nearest`.
    """
    target = warp_nearest(classes, matrix, displacement, fill)
    _push(classes, matrix, displacement, top, target, np.zeros(target.shape, dtype=np.bool_))
    return target


@compiled(nogil=True)
def _pull(classes, back, displacement, target):  # type: ignore[no-untyped-def]  # numba infers
    """Give each target voxel the source voxel nearest to what it shows."""
    sides, ends = classes.shape, target.shape
    for a in range(ends[0]):
        for b in range(ends[1]):
            for c in range(ends[2]):
                x = a + displacement[0, a, b, c]
                y = b + displacement[1, a, b, c]
                z = c + displacement[2, a, b, c]
                i = int(np.rint(back[0, 0] * x + back[0, 1] * y + back[0, 2] * z + back[0, 3]))
                j = int(np.rint(back[1, 0] * x + back[1, 1] * y + back[1, 2] * z + back[1, 3]))
                k = int(np.rint(back[2, 0] * x + back[2, 1] * y + back[2, 2] * z + back[2, 3]))
                if 0 <= i < sides[0] and 0 <= j < sides[1] and 0 <= k < sides[2]:
                    target[a, b, c] = classes[i, j, k]


@compiled(nogil=True)
def _push(classes, matrix, displacement, top, target, landed):  # type: ignore[no-untyped-def]
    """Push source voxels to where they come out; the highest class that lands stays.

    Among its like, a voxel lands where it was pulled to, so only those beside another class move.
    """
    sides = classes.shape
    apart = (0.0, 0.0, 0.0)  # −e of the last voxel: near to that of the next
    for i in range(sides[0]):
        for j in range(sides[1]):
            for k in range(sides[2]):
                if _among_its_like(classes, i, j, k):
                    continue
                value = classes[i, j, k]
                apart = _pushed(matrix, displacement, i, j, k, apart, value, target, landed)
                if value >= top:
                    for corner in range(8):
                        x = i + BESIDE * (2 * (corner >> 2) - 1)
                        y = j + BESIDE * (2 * (corner >> 1 & 1) - 1)
                        z = k + BESIDE * (2 * (corner & 1) - 1)
                        _pushed(matrix, displacement, x, y, z, apart, value, target, landed)


@compiled(nogil=True)
def _among_its_like(classes, i, j, k):  # type: ignore[no-untyped-def]
    """Return whether a voxel off the border has the class of all 26 around it."""
    sides, value = classes.shape, classes[i, j, k]
    if not (0 < i < sides[0] - 1 and 0 < j < sides[1] - 1 and 0 < k < sides[2] - 1):
        return False
    for a in range(i - 1, i + 2):
        for b in range(j - 1, j + 2):
            for c in range(k - 1, k + 2):
                if classes[a, b, c] != value:
                    return False
    return True


@compiled(nogil=True)
def _pushed(  # type: ignore[no-untyped-def]
    matrix, displacement, x, y, z, apart, value, target, landed
):
    """Push a source point, ``apart`` from M x as a first guess; returns how far apart it is."""
    p = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] * z + matrix[0, 3]
    q = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] * z + matrix[1, 3]
    r = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2] * z + matrix[2, 3]
    for _ in range(STEPS):
        e, f, g = _displacement_at(displacement, p + apart[0], q + apart[1], r + apart[2])
        step = max(abs(e + apart[0]), abs(f + apart[1]), abs(g + apart[2]))
        apart = (-e, -f, -g)
        if step < CLOSE:
            break
    _land(p + apart[0], q + apart[1], r + apart[2], value, target, landed)
    return apart


@compiled(inline="always")
def _displacement_at(displacement, x, y, z):  # type: ignore[no-untyped-def]
    """Interpolate the displacement between voxels; beyond them lies what is at the border."""
    _, n_i, n_j, n_k = displacement.shape
    x, y, z = min(max(x, 0.0), n_i - 1.0), min(max(y, 0.0), n_j - 1.0), min(max(z, 0.0), n_k - 1.0)
    i, j, k = int(x), int(y), int(z)
    u, v, w = min(i + 1, n_i - 1), min(j + 1, n_j - 1), min(k + 1, n_k - 1)
    f, g, h = x - i, y - j, z - k
    weights = (
        (1 - f) * (1 - g) * (1 - h), (1 - f) * (1 - g) * h, (1 - f) * g * (1 - h), (1 - f) * g * h,
        f * (1 - g) * (1 - h), f * (1 - g) * h, f * g * (1 - h), f * g * h,
    )  # fmt: skip
    return (
        _weighted(displacement, 0, weights, i, j, k, u, v, w),
        _weighted(displacement, 1, weights, i, j, k, u, v, w),
        _weighted(displacement, 2, weights, i, j, k, u, v, w),
    )


@compiled(inline="always")
def _weighted(displacement, n, weights, i, j, k, u, v, w):  # type: ignore[no-untyped-def]
    """Sum the corners of a cell by their weights."""
    return (
        weights[0] * displacement[n, i, j, k] + weights[1] * displacement[n, i, j, w]
        + weights[2] * displacement[n, i, v, k] + weights[3] * displacement[n, i, v, w]
        + weights[4] * displacement[n, u, j, k] + weights[5] * displacement[n, u, j, w]
        + weights[6] * displacement[n, u, v, k] + weights[7] * displacement[n, u, v, w]
    )  # fmt: skip


@compiled(nogil=True)
def _land(x, y, z, value, target, landed):  # type: ignore[no-untyped-def]
    """Put a class onto the voxel nearest to a place, unless a higher one landed there."""
    a, b, c = int(np.rint(x)), int(np.rint(y)), int(np.rint(z))
    ends = target.shape
    if (
        0 <= a < ends[0]
        and 0 <= b < ends[1]
        and 0 <= c < ends[2]
        and (not landed[a, b, c] or value > target[a, b, c])
    ):
        target[a, b, c] = value
        landed[a, b, c] = True
