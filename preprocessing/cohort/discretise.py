"""Raw values of a volume become classes: which, and the box outside which there is only fill."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.kernels import compiled
from foldnorm.preprocessing.io.schemes import BUILT_IN, LabelScheme
from foldnorm.preprocessing.spatial.crop import Box, bounding_box

MAX_SHOWN = 5  # values that a message names
UNKNOWN = 255  # look-up table entry of a value that no class claims
LOWEST, HIGHEST = -(2**15), 2**15 - 1  # the look-up table covers int16; labels beyond are clipped


def discretise(
    data: NDArray[np.integer], scheme: LabelScheme, *, path: Path | None = None
) -> NDArray[np.uint8]:
    """Replace raw values by class numbers, by look-up table in one pass.

    Args:
        data: (I, J, K) integers in any memory order, which is kept.
        scheme: the classes.
        path: named in the error.

    Returns:
        uint8 class numbers, same shape.

    Raises:
        InputError: under rule ``exact``, a value that no class lists; it names value and count.

    Example:
        >>> discretise(np.int16([[[11, 0, 60, 30]]]), BUILT_IN["skeleton"]).tolist()
        [[[0, 1, 2, 2]]]
    """
    offset = 0 if data.dtype.itemsize == 1 and data.dtype.kind in "ub" else LOWEST
    table = lookup_table(scheme, offset)
    index = data if offset == 0 else _as_int16(data).view(np.uint16)
    if offset:
        table = np.roll(table, offset)  # entry of value v at v modulo 2**16
    # The kernel walks memory in order, whatever the order of the axes.
    axes = np.argsort([-abs(stride) for stride in index.strides], kind="stable")
    classes = _look_up(index.transpose(axes), table).transpose(np.argsort(axes))
    if scheme.rule == "exact" and (classes == UNKNOWN).any():
        _refuse_unknown(data, classes, scheme, path)
    return classes


def check_values(
    data: NDArray[np.integer], classes: NDArray[np.uint8], scheme: LabelScheme, path: Path
) -> list[str]:
    """Check that what rule ``topological`` takes for sulcus is; returns warnings.

    The rule takes any value, so that it makes sulcus of a segmentation, a mask or an intensity.

    Args:
        data: (I, J, K) raw values.
        classes: what `discretise` made of them.
        scheme: the classes.
        path: named in the error.

    Raises:
        InputError: most of it has values that no class of a built-in scheme lists.
    """
    if scheme.rule != "topological":
        return []
    values, counts = np.unique(data[classes == scheme.top], return_counts=True)
    listed = scheme.classes[scheme.top].values
    is_strange = ~np.isin(values, listed)
    strange, total = int(counts[is_strange].sum()), int(counts.sum())
    if not strange:
        return []
    shown = ", ".join(str(value) for value in values[is_strange][:MAX_SHOWN])
    if 2 * strange > total and BUILT_IN.get(scheme.name) == scheme:
        raise InputError(
            f"{strange} of {total} voxels that would be sulcus have values that no skeleton of "
            f"Morphologist has ({shown}); expected 0 inside, 11 outside and {sorted(listed)}; of a "
            f"segmentation, foldnorm skeletonise makes a skeleton: {path}"
        )
    return [f"{strange} of {total} voxels of sulcus have unusual values ({shown})"]


def lookup_table(scheme: LabelScheme, lowest: int = LOWEST) -> NDArray[np.uint8]:
    """Class number of every raw value from ``lowest`` on: 2**16 entries, or 2**8 from 0 on."""
    values = np.arange(lowest, HIGHEST + 1) if lowest else np.arange(2**8)
    if scheme.rule == "nearest":
        order = np.argsort(scheme.canonical_values)
        canonical = scheme.canonical_values[order]
        middles = (canonical[1:] + canonical[:-1]) / 2
        return order[np.searchsorted(middles, values)].astype(np.uint8)
    rest = scheme.top if scheme.rule == "topological" else UNKNOWN
    table = np.full(len(values), rest, dtype=np.uint8)
    for number, label in enumerate(scheme.classes):
        table[np.isin(values, label.values)] = number
    return table


def foreground_box(data: NDArray[np.integer], scheme: LabelScheme) -> Box | None:
    """Smallest box outside which every raw value belongs to the fill class; None if empty."""
    fill_values = scheme.classes[scheme.fill].values
    if len(fill_values) != 1 or scheme.rule == "nearest":
        return bounding_box(discretise(data, scheme) != scheme.fill)
    # The axis that lies contiguous in memory goes first: the kernel works along it.
    axes = np.argsort([abs(stride) for stride in data.strides], kind="stable")
    low, high = _extent(data.transpose(axes), fill_values[0])
    if high[0] < 0:
        return None
    back = np.argsort(axes)
    (i, j, k), (end_i, end_j, end_k) = low[back].tolist(), (high[back] + 1).tolist()
    return Box((i, j, k), (end_i, end_j, end_k))


@compiled()
def _look_up(index, table):  # type: ignore[no-untyped-def]  # numba infers
    """``table[index]`` for (I, J, K) indices, twice as fast as numpy's."""
    sides = index.shape
    classes = np.empty(sides, np.uint8)
    for i in range(sides[0]):
        for j in range(sides[1]):
            for k in range(sides[2]):
                classes[i, j, k] = table[index[i, j, k]]
    return classes


@compiled()
def _extent(data, background):  # type: ignore[no-untyped-def]  # numba infers
    """First and last index along each axis, (3,) each, of what is not ``background``."""
    sides = data.shape
    low, high = np.array([sides[0], sides[1], sides[2]]), np.array([-1, -1, -1])
    for k in range(sides[2]):
        for j in range(sides[1]):
            count = 0
            for i in range(sides[0]):  # no early end: so it runs over many voxels at once
                count += data[i, j, k] != background
            if count == 0:
                continue
            first, last = 0, sides[0] - 1
            while data[first, j, k] == background:
                first += 1
            while data[last, j, k] == background:
                last -= 1
            low[0], high[0] = min(low[0], first), max(high[0], last)
            low[1], high[1] = min(low[1], j), max(high[1], j)
            low[2], high[2] = min(low[2], k), max(high[2], k)
    return low, high


def _as_int16(data: NDArray[np.integer]) -> NDArray[np.int16]:
    if data.dtype != np.int16:
        data = np.clip(data, LOWEST, HIGHEST)
    return data.astype(np.int16, copy=False)


def _refuse_unknown(
    data: NDArray[np.integer], classes: NDArray[np.uint8], scheme: LabelScheme, path: Path | None
) -> None:
    values, counts = np.unique(data[classes == UNKNOWN], return_counts=True)
    shown = ", ".join(
        f"{v} ({counted(c, 'voxel')})"
        for v, c in list(zip(values, counts, strict=True))[:MAX_SHOWN]
    )
    known = sorted(value for label in scheme.classes for value in label.values)
    raise InputError(
        f"scheme {scheme.name!r} does not know the value {shown}; expected {known}: {path}"
    )
