"""Digital topology of a skeleton voxel: simple points and Morphologist's classes.

The 26 neighbours of a voxel are the bits of one integer, so components among them are found by
shifting bits. The object (skeleton) is 26-connected, its complement 6-connected.

Bertrand & Malandain 1994 (Pattern Recognition Letters 15, 169–175); Malandain, Bertrand & Ayache
1993 (International Journal of Computer Vision 10, 183–197).
"""

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.kernels import compiled

# Bit 9 (di + 1) + 3 (dj + 1) + (dk + 1) stands for the neighbour (di, dj, dk).
_OFFSETS = [(b // 9 - 1, b // 3 % 3 - 1, b % 3 - 1) for b in range(27)]


def _bits(condition: "list[bool]") -> np.int64:
    return np.int64(sum(1 << b for b, wanted in enumerate(condition) if wanted))


FACES = _bits([sum(map(abs, o)) == 1 for o in _OFFSETS])
EDGES_TOO = _bits([1 <= sum(map(abs, o)) <= 2 for o in _OFFSETS])  # the 18-neighbourhood
ALL = _bits([o != (0, 0, 0) for o in _OFFSETS])
# Where a bit may go up or down along an axis without leaving the 3×3×3 cube.
_UP = tuple(_bits([o[axis] < 1 for o in _OFFSETS]) for axis in range(3))
_DOWN = tuple(_bits([o[axis] > -1 for o in _OFFSETS]) for axis in range(3))
_UP_I, _UP_J, _UP_K = _UP
_DOWN_I, _DOWN_J, _DOWN_K = _DOWN

# Morphologist's values by (C*, C̄), each at most 3; see `topological_classes`.
VOLUME, ISOLATED, BORDER, CURVE, CURVES_JUNCTION = 10, 20, 30, 40, 50
SURFACE, SURFACE_CURVE_JUNCTION, SURFACES_JUNCTION, SURFACES_CURVES_JUNCTION = 60, 70, 80, 90
MORPHOLOGIST_INSIDE, MORPHOLOGIST_OUTSIDE = 0, 11


def _class_table() -> NDArray[np.uint8]:
    table = np.zeros((4, 4), dtype=np.uint8)  # [C*, C̄]
    table[1, 1] = BORDER
    table[2, 1], table[3, 1] = CURVE, CURVES_JUNCTION
    table[1, 2], table[1, 3] = SURFACE, SURFACES_JUNCTION
    table[2:, 2] = SURFACE_CURVE_JUNCTION
    table[2:, 3] = SURFACES_CURVES_JUNCTION
    table[0, :] = ISOLATED
    table[:, 0] = VOLUME
    return table


_CLASSES = _class_table()


def topological_classes(skeleton: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Topological class of each skeleton voxel, as Morphologist writes it; 0 elsewhere.

    C* is the number of 26-connected components of skeleton among the 26 neighbours; C̄ that of
    6-connected components of its complement, within the 18-neighbourhood, that touch the voxel by
    a face. 10 volume (C̄ = 0), 20 isolated (C* = 0), 30 border (1, 1), 40 curve (2, 1),
    50 curves junction (≥ 3, 1), 60 surface (1, 2), 70 surface–curve junction (≥ 2, 2),
    80 surfaces junction (1, ≥ 3), 90 surfaces–curves junction (≥ 2, ≥ 3).

    Args:
        skeleton: (I, J, K) bool; beyond the volume lies no skeleton.

    Returns:
        (I, J, K) uint8.
    """
    return _classify(np.pad(skeleton, 1), _CLASSES)


@compiled(nogil=True)
def _classify(padded, table):  # type: ignore[no-untyped-def]  # numba infers
    sides = padded.shape
    found = np.zeros((sides[0] - 2, sides[1] - 2, sides[2] - 2), np.uint8)
    for i in range(1, sides[0] - 1):
        for j in range(1, sides[1] - 1):
            for k in range(1, sides[2] - 1):
                if padded[i, j, k]:
                    mask = neighbours(padded, i, j, k)
                    inner = min(object_components(mask), 3)
                    outer = min(background_components(mask), 3)
                    found[i - 1, j - 1, k - 1] = table[inner, outer]
    return found


@compiled(nogil=True)
def neighbours(padded, i, j, k):  # type: ignore[no-untyped-def]
    """Bits of the true voxels among the 26 neighbours of (i, j, k); it lies on no border."""
    mask = np.int64(0)
    bit = np.int64(1)
    for a in range(i - 1, i + 2):
        for b in range(j - 1, j + 2):
            for c in range(k - 1, k + 2):
                if padded[a, b, c]:
                    mask |= bit
                bit <<= 1
    return mask & ALL


@compiled(nogil=True)
def object_components(mask):  # type: ignore[no-untyped-def]
    """C*: number of 26-connected components of the bits of ``mask``."""
    count = 0
    while mask:
        part = mask & -mask
        while True:
            grown = _grow_26(part) & mask
            if grown == part:
                break
            part = grown
        mask &= ~part
        count += 1
    return count


@compiled(nogil=True)
def background_components(mask):  # type: ignore[no-untyped-def]
    """C̄: 6-connected components, in the 18-neighbourhood, of what is not in ``mask``; by face."""
    free = ~mask & EDGES_TOO
    faces = free & FACES
    count = 0
    while faces:
        part = faces & -faces
        while True:
            grown = grow_6(part) & free
            if grown == part:
                break
            part = grown
        faces &= ~part
        count += 1
    return count


@compiled(nogil=True)
def is_simple(mask):  # type: ignore[no-untyped-def]
    """Return whether a voxel with these neighbours is a simple point (C* = 1 and C̄ = 1)."""
    return background_components(mask) == 1 and object_components(mask) == 1


@compiled(inline="always")
def _grow_26(bits):  # type: ignore[no-untyped-def]
    bits |= ((bits & _UP_K) << 1) | ((bits & _DOWN_K) >> 1)
    bits |= ((bits & _UP_J) << 3) | ((bits & _DOWN_J) >> 3)
    bits |= ((bits & _UP_I) << 9) | ((bits & _DOWN_I) >> 9)
    return bits


@compiled(inline="always")
def grow_6(bits):  # type: ignore[no-untyped-def]
    """Bits and their face neighbours within the cube."""
    along_k = ((bits & _UP_K) << 1) | ((bits & _DOWN_K) >> 1)
    along_j = ((bits & _UP_J) << 3) | ((bits & _DOWN_J) >> 3)
    along_i = ((bits & _UP_I) << 9) | ((bits & _DOWN_I) >> 9)
    return bits | along_k | along_j | along_i
