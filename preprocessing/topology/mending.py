"""Mending of drawn skeletons: what holds in every real one is made to hold.

A skeleton keeps apart what is inside and outside; it hangs together, by its hull; and its sheets
are hardly frayed. What a model draws voxel by voxel, or block by block, breaks all three.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import clear_border

from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.topology.thinning import thin
from foldnorm.preprocessing.topology.topology import (
    FACES,
    background_components,
    neighbours,
    object_components,
)

TOUCHING = np.ones((3, 3, 3))  # 26 neighbours
FACE_NEIGHBOURS = ndimage.generate_binary_structure(3, 1).astype(np.uint8)
REACH = 6  # voxels within which both sides of a pinhole are joined by another way


def mend_sheets(
    classes: NDArray[np.uint8], top: int, outside: int, inside: int
) -> NDArray[np.uint8]:
    """Mend a volume that was drawn: no pinholes, and with a hull, a skeleton in one piece.

    Args:
        classes: (I, J, K) class numbers; sheets may be thick.
        top: class of the sheets.
        outside: class of what lies outside the hull.
        inside: class of what lies inside; ``outside`` where sheets have no hull to hang on.

    Returns:
        A copy whose sheets are one voxel thick, (I, J, K) uint8.
    """
    mended = close_pinholes(classes, top)
    if outside == inside:
        return thin(mended, top)
    return drop_loose_pieces(thin(close_hull(mended, top, outside, inside), top), top)


def close_hull(
    classes: NDArray[np.uint8], top: int, outside: int, inside: int
) -> NDArray[np.uint8]:
    """Close the holes of a hull that was drawn, and what lies outside within the brain.

    Sheets may be thick afterwards (`foldnorm.preprocessing.topology.thinning.thin`).

    Args:
        classes: (I, J, K) class numbers.
        top: class of the sheets.
        outside: class of what lies outside the hull.
        inside: class of what lies inside.

    Returns:
        A copy in which what lies outside reaches the border of the volume, and shares no face with
        what lies inside: both by voxels that became sheet.
    """
    closed, is_outside = classes.copy(), classes == outside
    closed[is_outside & clear_border(ndimage.label(is_outside)[0]).astype(bool)] = top
    touched = ndimage.binary_dilation(closed == outside)
    closed[touched & (closed == inside)] = top
    return closed


def drop_loose_pieces(classes: NDArray[np.uint8], top: int) -> NDArray[np.uint8]:
    """Take away pieces of sheet that hang on nothing.

    Where the largest piece reaches the border, the volume is a crop, and sheets go on beyond: any
    piece that reaches the border stays. Else the brain is whole, and all of it hangs together.

    Args:
        classes: (I, J, K) class numbers.
        top: class of the sheets.

    Returns:
        A copy in which such a piece has the class that is most frequent around it.
    """
    kept = classes.copy()
    pieces, number = ndimage.label(classes == top, TOUCHING)
    if number == 0:
        return kept
    largest = 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    within = np.unique(clear_border(pieces))
    every = within if largest not in within else np.arange(1, number + 1)
    loose = np.setdiff1d(every, [0, largest])
    boxes = ndimage.find_objects(pieces)
    for label in loose:
        box = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in boxes[label - 1])
        piece = pieces[box] == label
        around = ndimage.binary_dilation(piece) & ~piece
        kept[box][piece] = np.bincount(classes[box][around]).argmax()
    return kept


def close_pinholes(classes: NDArray[np.uint8], top: int) -> NDArray[np.uint8]:
    """Close holes one voxel wide where sheets are frayed, and the cavities of one voxel.

    In a pinhole the sheet would be a surface (C* = 1, C̄ ≥ 2; see `topology`), whose sides another
    way joins, no more than `REACH` voxels from it along each axis: by the rim or by another hole.
    So a voxel that closes one ends a tunnel, joins no pieces and shuts nothing off. A hole far from
    all others stays: skeletons have such, too.

    Args:
        classes: (I, J, K) class numbers; at the border of the volume sheets go on.
        top: class of the sheets.

    Returns:
        A copy. Sheets may be thick afterwards, in places.
    """
    sheet = np.pad(classes == top, REACH, mode="edge")
    faces = ndimage.convolve((classes == top).astype(np.uint8), FACE_NEIGHBOURS, mode="nearest")
    places = np.argwhere(classes != top)
    # First what has most sheet at its faces: a voxel above a hole would leave a bump.
    first = np.argsort(-faces[tuple(places.T)].astype(np.int8), kind="stable")
    _close(sheet, places[first] + REACH)
    closed = classes.copy()
    closed[sheet[tuple(slice(REACH, -REACH) for _ in range(3))]] = top
    return closed


@compiled(nogil=True)
def _close(sheet, places):  # type: ignore[no-untyped-def]  # numba infers
    """Make sheet of those places that are pinholes or cavities, one after the other."""
    for n in range(len(places)):
        i, j, k = places[n]
        around = neighbours(sheet, i, j, k)
        is_cavity = around & FACES == FACES
        if is_cavity or (
            background_components(around) > 1
            and object_components(around) == 1
            and _sides_are_joined(sheet, i, j, k)
        ):
            sheet[i, j, k] = True


@compiled(nogil=True)
def _sides_are_joined(sheet, i, j, k):  # type: ignore[no-untyped-def]
    """Return whether the free faces of a voxel, of which there are some, are joined without it."""
    side = 2 * REACH + 3  # with a layer that is not free
    window = np.zeros((side, side, side), np.bool_)
    window[1:-1, 1:-1, 1:-1] = ~sheet[
        i - REACH : i + REACH + 1, j - REACH : j + REACH + 1, k - REACH : k + REACH + 1
    ]
    free, middle = window.ravel(), side**3 // 2
    free[middle] = False
    steps = (-1, 1, -side, side, -(side**2), side**2)  # to the faces of a voxel
    front = np.empty(side**3, np.int64)
    count = 0
    for step in steps:  # to one of them, from which the others are to be reached
        if free[middle + step]:
            front[0] = middle + step
            count = 1
    free[front[0]] = False
    while count > 0:
        count -= 1
        v = front[count]
        for step in steps:
            if free[v + step]:
                free[v + step] = False
                front[count] = v + step
                count += 1
    missed = False
    for step in steps:
        missed |= free[middle + step]
    return not missed
