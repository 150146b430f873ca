"""Elastic deformation of label volumes that keeps thin sheets whole.

A deformation is a matrix and then a smooth displacement: target voxel y shows what lies at source
voxel M⁻¹ (y + e(y)). Pulling by that tears thin sheets, so sheets are pushed: the place y where
source voxel x comes out solves y = M x − e(y), by fixed-point steps (e changes by less than a voxel
a voxel, or the deformation would fold).
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.spatial.space import Matrix

Displacement = NDArray[np.float64]  # (3, I, J, K) on the target grid, voxels
BESIDE = 0.1  # voxels; a little more than for a rotation, since space is stretched here and there
STEPS = 6  # of the fixed point; where e changes by 0.5 a voxel, what is left is under 2 % of e


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
    start = 1 - (np.array(shape) - 1) / spacing / 2 + (np.array(counts) - 3) / 2
    places = np.meshgrid(
        *[s + np.arange(side) / spacing for s, side in zip(start, shape, strict=True)],
        indexing="ij",
    )
    return np.stack([ndimage.map_coordinates(c, places, order=3, mode="nearest") for c in control])


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
    shape = displacement.shape[1:]
    shown = np.indices(shape, dtype=np.float64) + displacement
    back = np.linalg.inv(matrix)
    places = np.tensordot(back[:3, :3], shown, axes=1) + back[:3, 3].reshape(3, 1, 1, 1)
    voxels = np.rint(places).astype(np.intp)
    sides = np.array(classes.shape).reshape(3, 1, 1, 1)
    within = ((voxels >= 0) & (voxels < sides)).all(axis=0)
    target = np.full(shape, fill, dtype=classes.dtype)
    target[within] = classes[tuple(voxels[:, within])]
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
    centres = np.argwhere(np.ones(classes.shape, dtype=np.bool_)).astype(np.float64)
    is_sheet = classes >= top
    sheet = np.argwhere(is_sheet).astype(np.float64)
    corners = BESIDE * (2.0 * np.array(list(np.ndindex(2, 2, 2))) - 1)
    around = (sheet[:, None] + corners).reshape(-1, 3)
    landed = np.zeros(target.shape, dtype=np.int64)  # label + 1; 0 where nothing lands
    for points, values in (
        (centres, classes.ravel().astype(np.int64) + 1),
        (around, np.repeat(classes[is_sheet].astype(np.int64) + 1, len(corners))),
    ):
        voxels = np.rint(_pushed(points, matrix, displacement)).astype(np.intp)
        within = ((voxels >= 0) & (voxels < target.shape)).all(axis=1)
        np.maximum.at(landed, tuple(voxels[within].T), values[within])
    return np.where(landed > 0, (landed - 1).astype(classes.dtype), target)


def _pushed(
    points: NDArray[np.float64], matrix: Matrix, displacement: Displacement
) -> NDArray[np.float64]:
    """Push source points (n, 3) to where they come out in the target, (n, 3) voxels."""
    plain = points @ matrix[:3, :3].T + matrix[:3, 3]
    found = plain
    for _ in range(STEPS):
        moved = [ndimage.map_coordinates(e, found.T, order=1, mode="nearest") for e in displacement]
        found = plain - np.stack(moved, axis=1)
    return found
