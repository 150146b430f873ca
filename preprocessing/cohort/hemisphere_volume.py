"""Volume of a hemisphere at full resolution, with what goes with it; both joined, or mirrored."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.volume_companions import Shift
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.source_volume import RIGHT_LABELS
from foldnorm.preprocessing.io.volumes import LabelVolume, mirror_left_right
from foldnorm.preprocessing.spatial.crop import Box


@dataclass(frozen=True)
class HemisphereVolume:
    """Discretised volume of a hemisphere, or of both, cut to what it holds.

    Attributes:
        volume: as read, RAS+.
        box: of the arrays below, in ``volume``.
        classes: (I, J, K) uint8 class numbers.
        labels: (I, J, K) uint16 fold labels where ``classes`` is highest, or None.
        pair: (I, J, K) uint8 class numbers of the second volume, or None.
        fold_names: label → sulcus, from a fold graph or from gyri.
        fold_gyri: label → gyrus, of folds without a name that lie inside one.
        fold_vocabulary: whose names these are; empty if there are none.
        folds_from: where fold labels come from, or why there are none.
        hull: what was done to it.
        pair_shift: mm by which the affines of the two volumes of a pair differ, (3,).
        warnings: of the files that were read, a line each.
    """

    volume: LabelVolume
    box: Box
    classes: NDArray[np.uint8]
    labels: NDArray[np.uint16] | None = None
    pair: NDArray[np.uint8] | None = None
    fold_names: dict[int, str] = field(default_factory=dict)
    fold_gyri: dict[int, str] = field(default_factory=dict)
    fold_vocabulary: str = ""
    folds_from: str = "none"
    hull: str = "kept"
    pair_shift: Shift | None = None
    warnings: tuple[str, ...] = ()


def join(
    left: HemisphereVolume,
    right: HemisphereVolume,
    scheme: LabelScheme,
    pair_scheme: LabelScheme | None,
) -> HemisphereVolume:
    """Join both hemispheres of a participant on the grid that they share.

    Where they overlap the higher class stays. Fold labels of the right are moved up by
    `RIGHT_LABELS`.

    Raises:
        InputError: their grids differ, or the names of their folds are of two vocabularies.
    """
    vocabularies = sorted({left.fold_vocabulary, right.fold_vocabulary} - {""})
    if len(vocabularies) > 1:
        raise InputError(
            f"the folds of the two hemispheres have names of {' and '.join(vocabularies)}: "
            f"{left.volume.path}, {right.volume.path}"
        )
    first, second = left.volume, right.volume
    if first.data.shape != second.data.shape or np.abs(first.affine - second.affine).max() > 1e-3:
        raise InputError(
            f"the two hemispheres lie on different grids, {first.data.shape} and "
            f"{second.data.shape}: {first.path}, {second.path}"
        )
    box = left.box.union(right.box)

    def joined(which: str, fill: int) -> NDArray[Any]:
        arrays = []
        for hemisphere in (left, right):
            array = getattr(hemisphere, which)
            whole = np.full(box.shape, fill, dtype=array.dtype)
            whole[hemisphere.box.shifted([-n for n in box.start]).slices] = array
            arrays.append(whole)
        return np.maximum(*arrays)

    labels, names, gyri = None, dict[int, str](), dict[int, str]()
    if left.labels is not None and right.labels is not None:
        moved = np.where(right.labels > 0, right.labels + RIGHT_LABELS, 0).astype(np.uint16)
        right = replace(right, labels=moved)
        labels = joined("labels", 0)
        names = {**left.fold_names, **{n + RIGHT_LABELS: s for n, s in right.fold_names.items()}}
        gyri = {**left.fold_gyri, **{n + RIGHT_LABELS: s for n, s in right.fold_gyri.items()}}
    return replace(
        left,
        box=box,
        classes=joined("classes", scheme.fill),
        labels=labels,
        pair=None if pair_scheme is None else joined("pair", pair_scheme.fill),
        fold_names=names,
        fold_gyri=gyri,
        fold_vocabulary=vocabularies[0] if names else "",
        folds_from=_both(left.folds_from, right.folds_from),
        pair_shift=_larger(left.pair_shift, right.pair_shift),
        hull=_both(left.hull, right.hull),
        warnings=(
            *(f"left: {line}" for line in left.warnings),
            *(f"right: {line}" for line in right.warnings),
        ),
    )


def mirrored(hemisphere: HemisphereVolume) -> HemisphereVolume:
    """Reverse the first axis of a volume; in the world nothing moves."""
    side, box = hemisphere.volume.data.shape[0], hemisphere.box
    return replace(
        hemisphere,
        volume=mirror_left_right(hemisphere.volume),
        box=Box((side - box.stop[0], *box.start[1:]), (side - box.start[0], *box.stop[1:])),
        classes=hemisphere.classes[::-1],
        labels=None if hemisphere.labels is None else hemisphere.labels[::-1],
        pair=None if hemisphere.pair is None else hemisphere.pair[::-1],
    )


def _larger(left: Shift | None, right: Shift | None) -> Shift | None:
    if left is None or right is None:
        return left or right
    return max(left, right, key=lambda shift: max(map(abs, shift)))


def _both(left: str, right: str) -> str:
    return left if left == right else f"left: {left}; right: {right}"
