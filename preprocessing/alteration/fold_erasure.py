"""Voxels that are erased with a fold, and voxels that lie around it.

Fold labels are 0 at voxels that folds share with each other or with the hull. Erasing the labelled
voxels alone leaves these junctions in the air, a trace of the erasure and none of the anatomy.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.topology.homotopy import Mask

TOUCHING = np.ones((3, 3, 3), dtype=np.bool_)  # 26 neighbours, the connectivity of sheets
FACES = ndimage.generate_binary_structure(3, 1)
MARGIN = 8  # voxels around a fold within which its junctions are followed


def hull_voxels(sheet: Mask, outside: Mask) -> Mask:
    """Sheet voxels that touch the outside by a face, (I, J, K)."""
    return sheet & ndimage.binary_dilation(outside, FACES)


def fold_and_junctions(sheet: Mask, folds: NDArray[np.uint16], label: int, hull: Mask) -> Mask:
    """Voxels that go with a fold: its own, off the hull, and the junctions that it leaves alone.

    The hull stays closed: a brain without the fold has its hull there all the same.

    Args:
        sheet: (I, J, K) bool.
        folds: (I, J, K) fold labels.
        label: of the fold.
        hull: (I, J, K) bool.

    Returns:
        (I, J, K) bool.
    """
    return with_junctions(sheet & (folds == label) & ~hull, sheet, folds, hull)


def with_junctions(cut: Mask, sheet: Mask, folds: NDArray[np.uint16], hull: Mask) -> Mask:
    """Add the unlabelled voxels that a cut leaves without a fold.

    These are the junction voxels beside the cut that touch no other fold, and groups of them that
    touch none either. The hull is kept.

    Args:
        cut: (I, J, K) bool, voxels that are taken out.
        sheet: (I, J, K) bool.
        folds: (I, J, K) fold labels.
        hull: (I, J, K) bool.

    Returns:
        (I, J, K) bool, ``cut`` among it.
    """
    erased = cut.copy()
    if not cut.any():
        return erased
    box = around(cut, (MARGIN,) * 3)
    taken, labelled = cut[box], (folds[box] > 0) & sheet[box] & ~cut[box]
    junctions = sheet[box] & ~hull[box] & ~taken & (folds[box] == 0)
    beside_fold = ndimage.binary_dilation(labelled, TOUCHING)
    beside_cut = ndimage.binary_dilation(taken, TOUCHING)
    lone = junctions & beside_cut & ~beside_fold
    groups, _ = ndimage.label(junctions & ~lone, TOUCHING)
    freed = np.unique(groups[ndimage.binary_dilation(taken | lone, TOUCHING)])
    held = np.union1d(
        np.unique(groups[beside_fold]), np.unique(groups[_cut_open(box, sheet.shape)])
    )
    floating = np.isin(groups, np.setdiff1d(freed, np.union1d(held, [0])))
    erased[box] |= lone | floating
    return erased


def scar_voxels(
    fold: Mask, others: Mask, voxel_size: tuple[float, float, float], mm: float
) -> Mask:
    """Sheet voxels at most ``mm`` from a fold that are not its own, (I, J, K)."""
    if not fold.any():
        return np.zeros_like(fold)
    box = around(fold, tuple(int(np.ceil(mm / side)) + 1 for side in voxel_size))
    near = np.zeros_like(fold)
    near[box] = ndimage.distance_transform_edt(~fold[box], sampling=voxel_size) <= mm
    return near & others & ~fold


def rim_voxels(fold: Mask, others: Mask) -> Mask:
    """Sheet voxels that touch a fold, by a face, an edge or a corner, and are not its own."""
    if not fold.any():
        return np.zeros_like(fold)
    box, near = around(fold, (1, 1, 1)), np.zeros_like(fold)
    near[box] = ndimage.binary_dilation(fold[box], TOUCHING)
    return near & others & ~fold


def around(mask: Mask, margin: tuple[int, ...]) -> tuple[slice, slice, slice]:
    """Box of a mask and ``margin`` voxels more on every side, within the volume."""
    i, j, k = (
        slice(max(int(places.min()) - more, 0), int(places.max()) + more + 1)
        for places, more in zip(np.nonzero(mask), margin, strict=True)
    )
    return i, j, k


def _cut_open(box: tuple[slice, ...], shape: tuple[int, ...]) -> Mask:
    """Voxels at those sides of a box where the volume of ``shape`` goes on, (A, B, C) bool."""
    closed = tuple(
        slice(int(part.start > 0), -1 if part.stop < side else None)
        for part, side in zip(box, shape, strict=True)
    )
    border = np.ones([len(range(side)[part]) for part, side in zip(box, shape, strict=True)], bool)
    border[closed] = False
    return border
