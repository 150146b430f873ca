"""Folds without a fold graph: a skeleton cut into simple surfaces, and how deep it reaches.

Two neighbouring surface points belong to one simple surface if each lies between the same two
parts of the rest (Malandain, Bertrand & Ayache 1993): at a junction of sheets that fails, so sheets
part there. Surfaces that hang together by a neck, narrower than three voxels, are parted too: what
Morphologist's graphs cut as junctions and buried gyri.
"""

import heapq

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.topology.homotopy import Mask
from foldnorm.preprocessing.topology.topology import (
    EDGES_TOO,
    FACES,
    SURFACE,
    grow_6,
    neighbours,
    topological_classes,
)

AHEAD = tuple(range(14, 27))  # bits of the 13 neighbours that come later in memory


def simple_surfaces(skeleton: Mask, hull: Mask) -> NDArray[np.uint16]:
    """Label the folds of a skeleton.

    Args:
        skeleton: (I, J, K) bool, one voxel thick.
        hull: (I, J, K) bool, its part that is no fold.

    Returns:
        (I, J, K) uint16: every skeleton voxel off the hull has the label of its fold, 1 for the
        largest; bottom lines and junctions go to the nearest surface, along the skeleton.
    """
    padded = np.pad(skeleton, 1)
    folds = padded & ~np.pad(hull, 1)
    surface = folds & (np.pad(topological_classes(skeleton), 1) == SURFACE)
    places = np.argwhere(folds)
    if len(places) == 0:
        return np.zeros(skeleton.shape, dtype=np.uint16)
    index = np.full(padded.shape, -1, dtype=np.int32)
    index[folds] = np.arange(len(places), dtype=np.int32)
    labels = _label(padded, surface, index, places, _SHIFTED)
    order = np.argsort(-np.bincount(labels), kind="stable")
    rank = np.empty(len(order), dtype=np.uint16)
    rank[order] = np.arange(1, len(order) + 1)
    found = np.zeros(padded.shape, dtype=np.uint16)
    found[folds] = rank[labels]
    return found[1:-1, 1:-1, 1:-1].copy()


def geodesic_depth(
    skeleton: Mask, hull: Mask, voxel_size: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Length of the shortest way along the skeleton to the hull.

    Args:
        skeleton: (I, J, K) bool.
        hull: (I, J, K) bool, part of it.
        voxel_size: mm.

    Returns:
        (I, J, K) float32, mm, by steps between 26-neighbours; 0 on the hull and off the skeleton.
    """
    padded = np.pad(skeleton, 1)
    places = np.argwhere(padded)
    index = np.full(padded.shape, -1, dtype=np.int32)
    index[padded] = np.arange(len(places), dtype=np.int32)
    depth = np.zeros(padded.shape, dtype=np.float32)
    starts = np.pad(hull, 1)[padded]
    depth[padded] = _shortest(index, places, starts, np.array(voxel_size))
    return depth[1:-1, 1:-1, 1:-1].copy()


def _shift_table() -> NDArray[np.int64]:
    """[offset bit, bit around a voxel] → bit around the voxel at that offset; −1 if too far."""
    cells = [(b // 9 - 1, b // 3 % 3 - 1, b % 3 - 1) for b in range(27)]
    table = np.full((27, 27), -1, dtype=np.int64)
    for o, offset in enumerate(cells):
        for b, cell in enumerate(cells):
            moved = tuple(c - d for c, d in zip(cell, offset, strict=True))
            if moved in cells:
                table[o, b] = cells.index(moved)
    return table


_SHIFTED = _shift_table()


@compiled()
def _label(padded, surface, index, places, shifted):  # type: ignore[no-untyped-def]
    """Label of each place, from 0."""
    one, other, sheet, inner = _sides(padded, surface, places)
    label = np.full(len(places), -1, np.int64)
    # What touches neither bottom, junction nor hull: so necks are left out, and surfaces part.
    _join(label, inner, index, places, one, other, shifted)
    _spread(label, sheet, index, places, one, other, shifted)
    # Surfaces too narrow to have an inside, each for itself.
    _join(label, sheet & (label < 0), index, places, one, other, shifted)
    anywhere = np.zeros(len(places), np.bool_)
    _spread(label, anywhere, index, places, one, other, shifted)
    for v in range(len(places)):
        if label[v] < 0:  # curves that touch no surface
            label[v] = v
            _spread(label, anywhere, index, places, one, other, shifted)
    return _consecutive(label)


@compiled()
def _sides(padded, surface, places):  # type: ignore[no-untyped-def]
    """Find both sides of each place, whether it is surface, and whether only among surface."""
    number = len(places)
    one, other = np.zeros(number, np.int64), np.zeros(number, np.int64)
    sheet, inner = np.zeros(number, np.bool_), np.zeros(number, np.bool_)
    for v in range(number):
        i, j, k = places[v]
        sheet[v] = surface[i, j, k]
        if sheet[v]:
            bits = neighbours(padded, i, j, k)
            one[v], other[v] = _two_sides(bits)
            inner[v] = bits & ~neighbours(surface, i, j, k) == 0
    return one, other, sheet, inner


@compiled()
def _join(label, chosen, index, places, one, other, shifted):  # type: ignore[no-untyped-def]
    """Label chosen places by the simple surface that they make among themselves."""
    parent = np.arange(len(places))
    for v in range(len(places)):
        if chosen[v]:
            i, j, k = places[v]
            for bit in AHEAD:
                u = index[i + bit // 9 - 1, j + bit // 3 % 3 - 1, k + bit % 3 - 1]
                if u >= 0 and chosen[u] and _same(one, other, v, u, bit, shifted):
                    a, b = _root(parent, v), _root(parent, u)
                    parent[max(a, b)] = min(a, b)
    for v in range(len(places)):
        if chosen[v]:
            label[v] = _root(parent, v)


@compiled()
def _consecutive(label):  # type: ignore[no-untyped-def]
    number = np.full(len(label), -1, np.int64)
    count = 0
    for v in range(len(label)):
        if number[label[v]] < 0:
            number[label[v]] = count
            count += 1
        label[v] = number[label[v]]
    return label


@compiled()
def _spread(label, sheet, index, places, one, other, shifted):  # type: ignore[no-untyped-def]
    """Labels spread over neighbours step by step.

    Within simple surfaces where any place is ``sheet``, and anywhere where none is.
    """
    within = sheet.any()
    front = np.flatnonzero(label >= 0)
    while len(front):
        following = []
        for v in front:
            i, j, k = places[v]
            for bit in range(27):
                u = index[i + bit // 9 - 1, j + bit // 3 % 3 - 1, k + bit % 3 - 1]
                if u < 0 or label[u] >= 0:
                    continue
                if within and not (sheet[u] and _same(one, other, v, u, bit, shifted)):
                    continue
                label[u] = label[v]
                following.append(u)
        front = np.array(following, dtype=np.int64)


@compiled()
def _two_sides(bits):  # type: ignore[no-untyped-def]
    """Both components of the rest that a surface point touches, as bits."""
    free = ~bits & EDGES_TOO
    faces = free & FACES
    first = _filled(faces & -faces, free)
    faces &= ~first
    return first, _filled(faces & -faces, free)


@compiled()
def _filled(part, free):  # type: ignore[no-untyped-def]
    while True:
        grown = grow_6(part) & free
        if grown == part:
            return part
        part = grown


@compiled()
def _same(one, other, v, u, offset, shifted):  # type: ignore[no-untyped-def]
    """Return whether two neighbouring surface points lie between the same two parts of the rest."""
    first, second = np.int64(0), np.int64(0)
    for bit in range(27):
        there = shifted[offset, bit]
        if there >= 0:
            first |= (one[v] >> bit & 1) << there
            second |= (other[v] >> bit & 1) << there
    return (first & one[u] != 0 and second & other[u] != 0) or (
        first & other[u] != 0 and second & one[u] != 0
    )


@compiled()
def _root(parent, v):  # type: ignore[no-untyped-def]
    while parent[v] != v:
        parent[v] = parent[parent[v]]
        v = parent[v]
    return v


@compiled()
def _shortest(index, places, starts, size):  # type: ignore[no-untyped-def]
    """Dijkstra's distances from ``starts`` over 26-neighbours; 0 where none leads."""
    distance = np.full(len(places), np.inf)
    waiting = [(0.0, np.int64(-1))]
    for v in range(len(places)):
        if starts[v]:
            distance[v] = 0.0
            heapq.heappush(waiting, (0.0, np.int64(v)))
    while len(waiting):
        reached, v = heapq.heappop(waiting)
        if v < 0 or reached > distance[v]:
            continue
        i, j, k = places[v]
        for bit in range(27):
            di, dj, dk = bit // 9 - 1, bit // 3 % 3 - 1, bit % 3 - 1
            u = index[i + di, j + dj, k + dk]
            if u >= 0:
                step = np.sqrt((di * size[0]) ** 2 + (dj * size[1]) ** 2 + (dk * size[2]) ** 2)
                if reached + step < distance[u]:
                    distance[u] = reached + step
                    heapq.heappush(waiting, (reached + step, np.int64(u)))
    return np.where(np.isfinite(distance), distance, 0.0)
