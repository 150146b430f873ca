"""The hull of a skeleton: the sheet between brain and outside, no fold.

About half of a raw skeleton is hull. A fold graph made of that skeleton says exactly which half;
without one, hull is what touches the outside by a face. It keeps apart what is inside and outside:
hardly a voxel of one shares a face with one of the other.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.topology.topology import MORPHOLOGIST_INSIDE, MORPHOLOGIST_OUTSIDE

# Share of a graph's voxels that must be skeleton; below, the graph was made of another one.
SAME_SKELETON = 0.99
# The same of voxels that have skeleton among their 26 neighbours; below, it is of another brain.
SAME_BRAIN = 0.97


def hull_of(raw: NDArray[np.integer], folds: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Find the hull, (I, J, K) bool.

    Args:
        raw: (I, J, K) values of Morphologist; beyond lies outside.
        folds: (I, J, K) voxels of the fold graph; None where no graph passes `graph_matches`.
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


def graph_matches(raw: NDArray[np.integer], folds: NDArray[np.bool_]) -> bool:
    """Return whether a graph's voxels lie on this skeleton: the graph was made of it."""
    return bool(is_skeleton(raw)[folds].mean() >= SAME_SKELETON) if folds.any() else False


def transfer_labels(
    raw: NDArray[np.integer], labels: NDArray[np.uint16]
) -> NDArray[np.uint16] | None:
    """Labels of a graph that was made of another skeleton of the same brain, on this one.

    A voxel of the skeleton takes the label that lies nearest among itself and its 26 neighbours;
    hull only where the graph has it.

    Args:
        raw: (I, J, K) values of Morphologist.
        labels: (I, J, K) of the graph, 0 where it has none.

    Returns:
        (I, J, K), or None if fewer than `SAME_BRAIN` of the graph lie so near: it is of another
        brain, or has moved.
    """
    skeleton, graph = is_skeleton(raw), labels > 0
    if not graph.any():
        return None
    box = tuple(
        slice(max(int(axis.min()) - 1, 0), int(axis.max()) + 2) for axis in np.nonzero(graph)
    )
    near = ndimage.binary_dilation(skeleton[box], np.ones((3, 3, 3)))
    if near[graph[box]].mean() < SAME_BRAIN:
        return None
    away, nearest = ndimage.distance_transform_edt(~graph[box], return_indices=True)
    inner = skeleton[box] & ~hull_of(raw)[box]
    taken = (skeleton[box] & graph[box]) | (inner & (away < 2))
    moved = np.zeros_like(labels)
    moved[box] = np.where(taken, labels[box][tuple(nearest)], 0)
    return moved


def is_skeleton(raw: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Voxels that are neither inside nor outside."""
    return (raw != MORPHOLOGIST_INSIDE) & (raw != MORPHOLOGIST_OUTSIDE)
