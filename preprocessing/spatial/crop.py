"""Boxes of voxels: what a volume fills, what a cohort fills, and cutting to it.

Boxes of a cohort live on one *lattice*: voxels of the cohort's size, counted from the world's
origin. A volume sits on it at `lattice_start`, at most half a voxel from its exact place, so that
subjects with different fields of view land where they belong.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError

Index = tuple[int, int, int]


@dataclass(frozen=True)
class Box:
    """Half-open box of voxels: ``start`` is inside, ``stop`` is not.

    Example:
        >>> box = Box((0, 0, 0), (4, 4, 5))
        >>> box.padded("multiple:4").shape
        (4, 4, 8)
        >>> str(box.grown(1))
        '-1,5,-1,5,-1,6'
    """

    start: Index
    stop: Index

    def __post_init__(self) -> None:
        if any(b <= a for a, b in zip(self.start, self.stop, strict=True)):
            raise InputError(f"expected a box with voxels in it, got {self}")

    def __str__(self) -> str:
        return ",".join(f"{a},{b}" for a, b in zip(self.start, self.stop, strict=True))

    @classmethod
    def parse(cls, text: str) -> "Box":
        """Inverse of ``str``: six numbers ``i0,i1,j0,j1,k0,k1``."""
        numbers = [int(number) for number in text.split(",")]
        return cls(_index(numbers[::2]), _index(numbers[1::2]))

    @property
    def shape(self) -> Index:
        """Number of voxels along each axis."""
        return _index(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Slices that index an array whose first voxel is (0, 0, 0)."""
        i, j, k = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return i, j, k

    def shifted(self, by: Sequence[int]) -> "Box":
        """Return the box moved by whole voxels."""
        return Box(
            _index(a + d for a, d in zip(self.start, by, strict=True)),
            _index(b + d for b, d in zip(self.stop, by, strict=True)),
        )

    def grown(self, margin: int) -> "Box":
        """Return the box with ``margin`` voxels more on every side."""
        return Box(_index(a - margin for a in self.start), _index(b + margin for b in self.stop))

    def union(self, other: "Box") -> "Box":
        """Smallest box that holds both."""
        return Box(
            _index(min(a, b) for a, b in zip(self.start, other.start, strict=True)),
            _index(max(a, b) for a, b in zip(self.stop, other.stop, strict=True)),
        )

    def padded(self, pad: str) -> "Box":
        """Grow evenly on both sides to a shape; the odd voxel goes to the end.

        Args:
            pad: ``none``, ``cubic``, ``multiple:N`` or ``I,J,K``.

        Raises:
            InputError: not understood, or a side of the box is already longer.
        """
        shape = pad_shape(self.shape, pad)
        extra = [target - side for target, side in zip(shape, self.shape, strict=True)]
        if min(extra) < 0:
            raise InputError(f"cannot pad a box of {self.shape} voxels to the smaller {shape}")
        return Box(
            _index(a - e // 2 for a, e in zip(self.start, extra, strict=True)),
            _index(b + e - e // 2 for b, e in zip(self.stop, extra, strict=True)),
        )


def pad_shape(shape: Index, pad: str) -> Index:
    """Shape that ``pad`` asks for: ``none``, ``cubic``, ``multiple:N`` or ``I,J,K``.

    Example:
        >>> pad_shape((5, 6, 7), "cubic"), pad_shape((5, 6, 7), "multiple:4")
        ((7, 7, 7), (8, 8, 8))
    """
    if pad == "none":
        return shape
    if pad == "cubic":
        return (max(shape),) * 3
    kind, _, number = pad.partition(":")
    try:
        if kind == "multiple" and int(number) > 0:
            return _index(-(-side // int(number)) * int(number) for side in shape)
        return _index(int(side) for side in pad.split(","))
    except ValueError:
        raise InputError(f"pad: expected cubic, multiple:N or I,J,K, got {pad!r}") from None


def shape_of(volume: NDArray[Any]) -> Index:
    """Shape of a 3-D array."""
    i, j, k = volume.shape
    return i, j, k


def bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """Smallest box that holds every true voxel of a 3-D mask; None if there is none.

    Example:
        >>> mask = np.zeros((4, 4, 4), bool)
        >>> mask[1, 2, 1:4] = True
        >>> bounding_box(mask)
        Box(start=(1, 2, 1), stop=(2, 3, 4))
    """
    start, stop = [], []
    for others in ((1, 2), (0, 2), (0, 1)):
        filled = np.flatnonzero(mask.any(axis=others))
        if not len(filled):
            return None
        start.append(int(filled[0]))
        stop.append(int(filled[-1]) + 1)
    return Box(_index(start), _index(stop))


def union_box(boxes: Iterable[Box]) -> Box:
    """Smallest box that holds all of at least one.

    Example:
        >>> union_box([Box((0, 0, 0), (1, 1, 1)), Box((2, 2, 2), (3, 3, 3))])
        Box(start=(0, 0, 0), stop=(3, 3, 3))
    """
    every = list(boxes)
    whole = every[0]
    for box in every[1:]:
        whole = whole.union(box)
    return whole


def lattice_start(affine: NDArray[np.float64]) -> Index:
    """Lattice index of voxel (0, 0, 0) of a RAS+ or LAS+ grid: its position over the voxel size.

    On a LAS+ grid the lattice runs from right to left, so mirrored hemispheres overlap.

    Example:
        >>> affine = np.diag([2.0, 2.0, 2.0, 1.0])
        >>> affine[:3, 3] = (-10, 4, 6.4)
        >>> lattice_start(affine)
        (-5, 2, 3)
    """
    return _index(int(n) for n in np.rint(affine[:3, 3] / np.diag(affine)[:3]))


def shifted_affine(affine: NDArray[np.float64], start: Sequence[int]) -> NDArray[np.float64]:
    """Affine of a crop that begins at voxel ``start`` of the grid of ``affine``.

    Example:
        >>> shifted_affine(np.diag([2.0, 2.0, 2.0, 1.0]), (1, 2, 3))[:3, 3].tolist()
        [2.0, 4.0, 6.0]
    """
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ np.asarray(start, dtype=np.float64) + affine[:3, 3]
    return moved


def missing_sides(inner: Box, outer: Box) -> str:
    """Say where ``inner`` sticks out of ``outer``, and by how much; empty if it does not.

    Example:
        >>> missing_sides(Box((-2, 0, 0), (4, 4, 4)), Box((0, 0, 0), (4, 4, 4)))
        '2 voxels left'
    """
    sides = ("left", "right"), ("posterior", "anterior"), ("inferior", "superior")
    parts = []
    for axis, (low, high) in enumerate(sides):
        if inner.start[axis] < outer.start[axis]:
            parts.append(f"{counted(outer.start[axis] - inner.start[axis], 'voxel')} {low}")
        if inner.stop[axis] > outer.stop[axis]:
            parts.append(f"{counted(inner.stop[axis] - outer.stop[axis], 'voxel')} {high}")
    return ", ".join(parts)


def paste(data: NDArray[np.integer], bounds: Box, target: Box, *, fill: int) -> NDArray[np.integer]:
    """Copy ``data``, which occupies ``bounds``, into a new array that occupies ``target``.

    What lies outside ``target`` is left out: callers that must not lose voxels ask
    `missing_sides` first. What ``data`` does not reach is ``fill``.

    Example:
        >>> data, target = np.uint8([[[1, 2]]]), Box((0, 0, 1), (1, 1, 4))
        >>> paste(data, Box((0, 0, 0), (1, 1, 2)), target, fill=9).tolist()
        [[[2, 9, 9]]]
    """
    placed = np.full(target.shape, fill, dtype=data.dtype)
    start = _index(max(a, b) for a, b in zip(bounds.start, target.start, strict=True))
    stop = _index(min(a, b) for a, b in zip(bounds.stop, target.stop, strict=True))
    if all(b > a for a, b in zip(start, stop, strict=True)):
        common = Box(start, stop)
        source = common.shifted([-a for a in bounds.start])
        placed[common.shifted([-a for a in target.start]).slices] = data[source.slices]
    return placed


def _index(values: Iterable[int]) -> Index:
    numbers = tuple(values)
    if len(numbers) != 3:
        raise ValueError(f"expected 3 numbers, got {len(numbers)}")
    return numbers[0], numbers[1], numbers[2]
