"""Thinning of sheets: one voxel thick again, the same topology, the same extent.

Downsampling thickens a sulcus where its sheet crosses the new grid. Voxels are taken away one at
a time, and only simple points (`foldnorm.preprocessing.topology.topology`), so components, holes
and cavities stay. What keeps the shape is *where* they are taken: only along the axis on which the
sheet is thinnest there. The rim of a sheet is thin across and long inwards, so it stays.
"""

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.topology.homotopy import in_block, take_simple
from foldnorm.preprocessing.topology.topology import is_simple, neighbours

MAX_RUN = 8  # voxels: beyond, along all axes, there is no sheet to speak of
BEYOND = 255  # stands for the class of what lies beyond the volume, which nobody knows


def thin(
    classes: NDArray[np.uint8],
    top: int,
    within: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint8]:
    """Thin the voxels of class ``top`` to sheets one voxel thick.

    In each round, from each of the six directions: the voxels that have no sheet in front, sheet
    behind, and a run of sheet in that direction no longer than along the other axes. Then, in
    full 2×2×2 blocks, any simple point. A voxel taken away becomes the class in front of it: never
    one beyond the volume, for a crop may end within the brain.

    Args:
        classes: (I, J, K) uint8.
        top: class of the sheets.
        within: (I, J, K) bool, voxels that may be taken away; all by default.

    Returns:
        A thinned copy, (I, J, K) uint8. Numbers of 26-connected components of the sheets and of
        6-connected components of the rest, and the Euler number, are those of ``classes``;
        thinning again changes nothing.
    """
    padded = np.pad(classes, 1, constant_values=BEYOND)
    sheet, continued = padded == top, np.pad(classes == top, 1, mode="edge")
    places = np.argwhere(sheet if within is None else sheet & np.pad(within, 1))
    while _peel(padded, sheet, continued, places) or _break(padded, sheet, continued, places):
        places = places[sheet[tuple(places.T)]]
    return padded[1:-1, 1:-1, 1:-1].copy()


@compiled(nogil=True)
def _peel(classes, sheet, continued, places):  # type: ignore[no-untyped-def]  # numba infers
    """Peel one layer from each direction; returns how many voxels went."""
    removed = 0
    facing = np.empty(len(places), np.int64)
    for axis in range(3):
        for side in (-1, 1):
            step = np.zeros(3, np.int64)
            step[axis] = side
            count = 0
            for n in range(len(places)):
                i, j, k = places[n]
                if (
                    sheet[i, j, k]
                    and classes[i + step[0], j + step[1], k + step[2]] != BEYOND
                    and not sheet[i + step[0], j + step[1], k + step[2]]
                    and sheet[i - step[0], j - step[1], k - step[2]]
                    and _is_thinnest_along(sheet, i, j, k, axis)
                ):
                    facing[count] = n
                    count += 1
            for m in range(count):
                i, j, k = places[facing[m]]
                if _take(sheet, continued, i, j, k):
                    classes[i, j, k] = classes[i + step[0], j + step[1], k + step[2]]
                    removed += 1
    return removed


@compiled(nogil=True)
def _break(classes, sheet, continued, places):  # type: ignore[no-untyped-def]
    """Take simple points out of full 2×2×2 blocks; returns how many went."""
    removed = 0
    for n in range(len(places)):
        i, j, k = places[n]
        if not in_block(sheet, i, j, k):
            continue
        front = _class_in_front(classes, sheet, i, j, k)
        if front != BEYOND and _take(sheet, continued, i, j, k):
            classes[i, j, k] = front
            removed += 1
    return removed


@compiled(nogil=True)
def _take(sheet, continued, i, j, k):  # type: ignore[no-untyped-def]
    """Take a voxel if it is a simple point, of the sheet as it ends and as it may go on beyond."""
    if not is_simple(neighbours(continued, i, j, k)) or not take_simple(sheet, i, j, k):
        return False
    continued[i, j, k] = False
    return True


@compiled(nogil=True)
def _is_thinnest_along(sheet, i, j, k, axis):  # type: ignore[no-untyped-def]
    one, two = (axis + 1) % 3, (axis + 2) % 3
    across = min(_run(sheet, i, j, k, one), _run(sheet, i, j, k, two))
    return _run(sheet, i, j, k, axis) <= across


@compiled(nogil=True)
def _run(sheet, i, j, k, axis):  # type: ignore[no-untyped-def]
    """Length of the run of sheet through a voxel along an axis, counted up to `MAX_RUN`."""
    di, dj, dk = np.int64(axis == 0), np.int64(axis == 1), np.int64(axis == 2)
    length = 1
    for side in (-1, 1):
        a, b, c = i + side * di, j + side * dj, k + side * dk
        while length < MAX_RUN and sheet[a, b, c]:
            length += 1
            a, b, c = a + side * di, b + side * dj, c + side * dk
    return length


@compiled(nogil=True)
def _class_in_front(classes, sheet, i, j, k):  # type: ignore[no-untyped-def]
    """Class of a face neighbour that is no sheet and in the volume; `BEYOND` if there is none."""
    for axis in range(3):
        for side in (-1, 1):
            a = i + side * np.int64(axis == 0)
            b = j + side * np.int64(axis == 1)
            c = k + side * np.int64(axis == 2)
            if not sheet[a, b, c] and classes[a, b, c] != BEYOND:
                return classes[a, b, c]
    return BEYOND
