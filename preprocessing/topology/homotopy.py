"""Homotopic growing and shrinking in order of priority: shapes change, topology does not.

Voxels are taken one at a time from a queue of priority levels, first come first served within a
level, and only simple points (`foldnorm.preprocessing.topology.topology`) change sides. The object
is 26-connected, the rest 6-connected, whichever of the two loses voxels.

Bertrand & Malandain 1994 for simple points; Saito & Toriwaki 1995 and Pudney 1998 for thinning
ordered by distance.
"""

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.topology.topology import (
    background_components,
    is_simple,
    neighbours,
    object_components,
)

Mask = NDArray[np.bool_]
STAYS, MAY, WAITS = 0, 1, 2  # of a voxel: for good, may move, is in the queue
SURFACE_SIDES = 2  # components of the rest that a surface point touches (C̄)


def shrink(
    shape: Mask,
    removable: Mask,
    priority: NDArray[np.integer],
    surface: Mask | None = None,
) -> Mask:
    """Take simple points from a 26-connected object, those of the lowest priority first.

    Args:
        shape: (I, J, K) the object; beyond the volume lies the rest.
        removable: (I, J, K) voxels that may go.
        priority: (I, J, K) levels from 0; a level is emptied before the next is begun, but a
            voxel that becomes removable late does not wait for lower ones again.
        surface: (I, J, K) voxels that stay once they are surface points (C* = 1, C̄ = 2); without
            it, an object with no hole and no cavity shrinks to what is not removable.

    Returns:
        (I, J, K) what is left, of the same topology.
    """
    keep = np.zeros(shape.shape, dtype=np.bool_) if surface is None else surface
    return _run(shape, removable & shape, priority, keep, False)


def grow(shape: Mask, addable: Mask, priority: NDArray[np.integer]) -> Mask:
    """Add simple points to a 26-connected object, those of the lowest priority first.

    Args:
        shape: (I, J, K) the object.
        addable: (I, J, K) voxels that may join.
        priority: (I, J, K) levels from 0.

    Returns:
        (I, J, K) the grown object, of the same topology.
    """
    return _run(shape, addable & ~shape, priority, np.zeros(shape.shape, dtype=np.bool_), True)


def _run(
    shape: Mask, movable: Mask, priority: NDArray[np.integer], surface: Mask, joins: bool
) -> Mask:
    padded = [np.pad(a, 1) for a in (shape, movable, surface)]
    levels = np.pad(priority.astype(np.int32), 1)
    if movable.any() and levels.min() < 0:
        raise ValueError(f"priorities are levels from 0, got {levels.min()}")
    _move(padded[0], padded[1], padded[2], levels, int(levels.max()) + 1, joins)
    return padded[0][1:-1, 1:-1, 1:-1].copy()


@compiled(nogil=True)
def take_simple(shape, i, j, k):  # type: ignore[no-untyped-def]  # numba infers
    """Take one voxel, not at the border, from a 26-connected object if it is a simple point.

    What `shrink` does in the order of a queue, thinning and pruning do in an order of their own.
    Returns whether it went.
    """
    if shape[i, j, k] and is_simple(neighbours(shape, i, j, k)):
        shape[i, j, k] = False
        return True
    return False


@compiled(nogil=True)
def in_block(sheet, i, j, k):  # type: ignore[no-untyped-def]
    """Return whether a voxel lies in a full 2×2×2 block."""
    for a in (i - 1, i):
        for b in (j - 1, j):
            for c in (k - 1, k):
                full = True
                for p in range(a, a + 2):
                    for q in range(b, b + 2):
                        for r in range(c, c + 2):
                            full = full and sheet[p, q, r]
                if full:
                    return True
    return False


@compiled(nogil=True)
def _move(shape, movable, surface, levels, n_levels, joins):  # type: ignore[no-untyped-def]
    """Move voxels in place from one side to the other; ``joins`` says to which."""
    inside, keep, level = shape.ravel(), surface.ravel(), levels.ravel()
    state = movable.ravel().astype(np.uint8)
    around = _offsets(shape.shape)
    first, last = np.full(n_levels, -1, np.int64), np.full(n_levels, -1, np.int64)
    following = np.full(shape.size, -1, np.int32)
    _begin(inside, state, level, around, joins, first, last, following)
    at = 0
    while at < n_levels:
        if first[at] < 0:
            at += 1
            continue
        v = _take(at, first, last, following)
        if state[v] == STAYS:
            continue
        state[v] = MAY  # if it is not simple now, it may be when a neighbour has moved
        if is_simple(_bits(inside, v, around)):
            inside[v] = joins
            state[v] = STAYS
            for bit in range(27):
                u = v + around[bit]
                if state[u] == STAYS:
                    continue
                if keep[u] and _is_surface(_bits(inside, u, around)):
                    state[u] = STAYS
                elif state[u] == MAY:
                    _put(u, max(level[u], at), first, last, following)
                    state[u] = WAITS


@compiled(nogil=True)
def _begin(  # type: ignore[no-untyped-def]
    inside, state, level, around, joins, first, last, following
):
    """Queue the voxels that have a face on the side to which they may move."""
    for v in range(len(inside)):
        if state[v] == MAY and _faces(inside, v, around, joins):
            _put(v, level[v], first, last, following)
            state[v] = WAITS


@compiled(nogil=True)
def _offsets(sides):  # type: ignore[no-untyped-def]
    """Return the steps in memory to the 27 voxels around one, in the order of `topology`'s bits."""
    around = np.empty(27, np.int64)
    for bit in range(27):
        i, j, k = bit // 9 - 1, bit // 3 % 3 - 1, bit % 3 - 1
        around[bit] = (i * sides[1] + j) * sides[2] + k
    return around


@compiled(inline="always")
def _faces(inside, v, around, value):  # type: ignore[no-untyped-def]
    """Return whether a face neighbour lies inside (``value`` true) or outside (false)."""
    return (
        inside[v + around[4]] == value
        or inside[v + around[10]] == value
        or inside[v + around[12]] == value
        or inside[v + around[14]] == value
        or inside[v + around[16]] == value
        or inside[v + around[22]] == value
    )


@compiled(inline="always")
def _is_surface(bits):  # type: ignore[no-untyped-def]
    return background_components(bits) == SURFACE_SIDES and object_components(bits) == 1


@compiled(inline="always")
def _put(v, level, first, last, following):  # type: ignore[no-untyped-def]
    """Append a voxel to the queue of its level."""
    if last[level] < 0:
        first[level] = v
    else:
        following[last[level]] = v
    last[level] = v


@compiled(inline="always")
def _take(level, first, last, following):  # type: ignore[no-untyped-def]
    """Take the first voxel out of the queue of a level."""
    v = first[level]
    first[level] = following[v]
    if first[level] < 0:
        last[level] = -1
    following[v] = -1
    return v


@compiled(inline="always")
def _bits(inside, v, around):  # type: ignore[no-untyped-def]
    """Bits of the object among the 26 neighbours of a voxel, as in `topology`."""
    bits = np.int64(0)
    for bit in range(27):
        if bit != 13 and inside[v + around[bit]]:
            bits |= np.int64(1) << bit
    return bits
