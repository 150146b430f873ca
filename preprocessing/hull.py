"""The hull of a raw skeleton: the sheet between brain and outside, no fold.

About half of a raw skeleton is hull. A fold graph made of that skeleton says exactly which half;
without one, hull is what touches the outside by a face.
"""

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.topology import MORPHOLOGIST_INSIDE, MORPHOLOGIST_OUTSIDE

# Share of a graph's voxels that must be skeleton; below, the graph was made of another one.
SAME_SKELETON = 0.99


def hull_of(raw: NDArray[np.integer], folds: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Find the hull, (I, J, K) bool.

    Args:
        raw: (I, J, K) values of Morphologist; beyond lies outside.
        folds: (I, J, K) voxels of the fold graph; None where there is no graph that `agrees`.
    """
    skeleton = is_skeleton(raw)
    if folds is not None:
        return skeleton & ~folds
    outside = np.pad(raw == MORPHOLOGIST_OUTSIDE, 1, constant_values=True)
    touched = np.zeros(raw.shape, dtype=np.bool_)
    middle = slice(1, -1)
    for axis in range(3):
        for side in (slice(None, -2), slice(2, None)):
            index = [middle, middle, middle]
            index[axis] = side
            touched |= outside[tuple(index)]
    return skeleton & touched


def agrees(raw: NDArray[np.integer], folds: NDArray[np.bool_]) -> bool:
    """Whether a graph's voxels lie on this skeleton, so that it was made of it."""
    return bool(is_skeleton(raw)[folds].mean() >= SAME_SKELETON) if folds.any() else False


def is_skeleton(raw: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Voxels that are neither inside nor outside."""
    return (raw != MORPHOLOGIST_INSIDE) & (raw != MORPHOLOGIST_OUTSIDE)
