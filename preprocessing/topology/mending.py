"""Mending of drawn skeletons: what holds in every real one is made to hold.

A skeleton keeps apart what is inside and outside; it hangs together, by its hull; and its sheets
are hardly frayed. What a model draws voxel by voxel, or block by block, breaks all three.
"""

from typing import Any

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
GRAZED = 0.15  # share of the border of a volume that a brain which is whole may take
APART = 0.5  # of the largest part, below which another is no second hemisphere
SMALL = 0.1  # of the largest piece of sheet, below which another hangs on nothing
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
    return drop_loose_pieces(thin(close_hull(mended, top, outside, inside), top), top, outside)


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


def drop_loose_pieces(classes: NDArray[np.uint8], top: int, outside: int) -> NDArray[np.uint8]:
    """Take away what lies apart from the brain, and pieces of sheet that hang on nothing.

    Small ones only, for both hemispheres of a brain may lie apart. Where the brain takes much of
    the border, the volume is a crop of it, and goes on beyond: what reaches the border stays.

    Args:
        classes: (I, J, K) class numbers.
        top: class of the sheets.
        outside: class of what lies outside the brain.

    Returns:
        A copy in which such a piece has the class that is most frequent around it.
    """
    kept = classes.copy()
    brain = classes != outside
    is_crop = _on_border(brain).mean() > GRAZED
    kept[_loose(brain, APART, is_crop) > 0] = outside
    loose = _loose(kept == top, SMALL, is_crop)
    for label, box in enumerate(ndimage.find_objects(loose), start=1):
        if box is not None:
            near = tuple(slice(max(own.start - 1, 0), own.stop + 1) for own in box)
            piece = loose[near] == label
            around = ndimage.binary_dilation(piece) & ~piece
            kept[near][piece] = np.bincount(kept[near][around]).argmax()
    return kept


def _loose(mask: NDArray[np.bool_], share: float, is_crop: bool) -> NDArray[np.int32]:
    """Label pieces smaller than a share of the largest; of a crop, those that end within it."""
    pieces, _ = ndimage.label(mask, TOUCHING)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0  # what is no piece
    is_loose = sizes < share * sizes.max()
    is_loose[0] = False
    if is_crop:
        is_loose[_on_border(pieces)] = False
    return np.where(is_loose[pieces], pieces, 0).astype(np.int32)


def _on_border(volume: NDArray[Any]) -> NDArray[Any]:
    """Values of the outermost layers of a volume; those of its edges several times."""
    faces = [np.take(volume, end, axis).ravel() for axis in range(volume.ndim) for end in (0, -1)]
    return np.concatenate(faces)


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
