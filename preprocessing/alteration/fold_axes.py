"""Directions of a fold: along its length, across its sheet, and down from the hull."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.alteration.fold_erasure import TOUCHING, around
from foldnorm.preprocessing.topology.homotopy import Mask

DEPTH_MARGIN = 30.0  # mm around a fold within which the outside is looked for


class FoldAxes(NamedTuple):
    """Orthonormal directions, (3,) mm each.

    Attributes:
        along: the length of the fold.
        across: from one bank to the other, along the hull.
        down: away from the outside.
    """

    along: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]


def fold_axes(fold: Mask, outside: Mask, voxel_size: tuple[float, float, float]) -> FoldAxes:
    """Axes of a fold, or of a part of one.

    *Down* is the mean gradient of the distance from the outside; among the directions at right
    angles to it, the fold extends most *along* and least *across*.

    Args:
        fold: (I, J, K) bool, at least one voxel.
        outside: (I, J, K) bool; what lies beyond the volume counts as outside.
        voxel_size: mm.
    """
    size = np.array(voxel_size)
    box = around(fold, tuple(int(DEPTH_MARGIN / side) for side in voxel_size))
    depth = ndimage.distance_transform_edt(
        np.pad(~outside[box], 1, constant_values=False), sampling=voxel_size
    )
    smooth = ndimage.gaussian_filter(depth, 1.0)
    inner = (slice(1, -1),) * 3
    down = np.array([part[inner][fold[box]].mean() for part in np.gradient(smooth, *voxel_size)])
    length = np.sqrt((down**2).sum())
    down = down / length if length > 0 else np.array([0.0, 0.0, 1.0])
    points = np.argwhere(fold) * size
    level = points - points.mean(axis=0)
    level = level - np.outer(level @ down, down)
    # The largest eigenvalue is *along*; *down* itself has none, so the cross product is *across*.
    along = np.linalg.eigh(level.T @ level + 1e-9 * np.eye(3))[1][:, -1]
    along = along - (along @ down) * down
    along /= np.sqrt((along**2).sum())
    return FoldAxes(along, np.cross(down, along), down)


def interruption(
    fold: Mask,
    centre: NDArray[np.integer],
    along: NDArray[np.float64],
    gap: float,
    voxel_size: tuple[float, float, float],
) -> Mask:
    """Piece of a fold between two planes at right angles to its length, through its whole depth.

    Args:
        fold: (I, J, K) bool.
        centre: (3,) voxel of the fold in the middle of the piece.
        along: (3,) unit vector, mm.
        gap: mm between the planes.
        voxel_size: mm.

    Returns:
        (I, J, K) bool: what lies between the planes and hangs together with ``centre``.
    """
    places = np.argwhere(fold)
    distance = ((places - centre) * np.array(voxel_size)) @ along
    between = np.zeros_like(fold)
    between[tuple(places[np.abs(distance) <= gap / 2].T)] = True
    pieces, _ = ndimage.label(between, TOUCHING)
    return np.asarray(between & (pieces == pieces[tuple(centre)]))
