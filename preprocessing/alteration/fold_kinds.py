"""Alterations of one labelled fold of a packed volume: a base class, interruptions, controls.

`Scar` and `Rim` take what surrounds a fold and leave the fold: a score that sees these sees the
traces of an erasure.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.alteration.deletion import (
    CONTROL,
    Deletion,
    Kind,
    SizeRange,
    sample_fold,
)
from foldnorm.preprocessing.alteration.fold_axes import fold_axes, interruption
from foldnorm.preprocessing.alteration.fold_erasure import (
    hull_voxels,
    rim_voxels,
    scar_voxels,
    with_junctions,
)
from foldnorm.preprocessing.alteration.sheet_deformation import Size
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.core.arrays import read_row
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import whole_number
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.topology.homotopy import Mask

Volume = NDArray[np.uint8]
GAP = 5.0, 15.0  # mm of an interruption
LEFT = 5.0  # mm of fold, at least, on either side of it
NEARBY = 15.0  # mm around the middle of an interruption, whose direction counts
MIDDLE = 25, 75  # percentiles of its length between which the middle of the gap lies
PLACES = 20  # tries for one in a fold
SCAR = 2.0  # mm around a fold


@dataclass(frozen=True)
class Parts:
    """Parts of a volume of sheets; arrays are (I, J, K).

    Attributes:
        classes: uint8.
        folds: uint16 labels.
        sheet: bool, the highest class.
        hull: bool, the sheet that touches the outside; empty where it was removed.
        outside: bool, classes below void.
        void: class around the sheets.
    """

    classes: Volume
    folds: NDArray[np.uint16]
    sheet: Mask
    hull: Mask
    outside: Mask
    void: int

    @classmethod
    def from_volume(
        cls,
        classes: Volume,
        folds: NDArray[np.uint16],
        scheme: LabelScheme,
        *,
        has_hull: bool = True,
    ) -> "Parts":
        """Tell sheet, hull and outside apart."""
        sheet, outside = classes == scheme.top, classes < scheme.void
        hull = hull_voxels(sheet, outside) if has_hull else np.zeros_like(sheet)
        return cls(classes, folds, sheet, hull, outside, scheme.void)

    def fold(self, label: int) -> Mask:
        """Sheet voxels of a fold, off the hull; none for label 0."""
        return (self.folds == label) & self.sheet & ~self.hull & (label > 0)

    def without(self, taken: Mask) -> "Parts":
        """Take voxels out of the sheet."""
        classes = np.where(taken, np.uint8(self.void), self.classes)
        return replace(self, classes=classes, sheet=self.sheet & ~taken)


class FoldAlteration(ABC):
    """Alteration of one labelled fold, which is drawn by size."""

    kind: ClassVar[Kind]

    def __init__(self, cohort: Cohort) -> None:
        self.cohort, self.rows = cohort, fold_rows(cohort)
        self.scheme = cohort.scheme
        i, j, k = cohort.voxel_size
        self.voxel_size: Size = (i, j, k)
        if self.scheme.void != self.scheme.top - 1:
            raise InputError(
                f"--kind {self.kind} needs volumes of thin sheets (skeletons), got scheme "
                f"{self.scheme.name!r}: {cohort.folder}"
            )

    def draw(self, index: int, sizes: SizeRange, rng: np.random.Generator) -> Deletion | None:
        """Draw one of the subject's folds, by size within the box, of which it can be done."""
        rows = self.rows.get(row_key(self.cohort.rows[index]), [])
        while (drawn := sample_fold(rng, rows, sizes)) not in (None, CONTROL):
            assert drawn is not None
            planned = self.planned(replace(drawn, kind=self.kind), index, rng)
            if planned is not None:
                return planned
            rows = [row for row in rows if whole_number(row, "label") != drawn.label]
        return drawn

    def planned(self, drawn: Deletion, index: int, rng: np.random.Generator) -> Deletion | None:
        """Draw what else there is to say of the alteration of a fold; None if it cannot be."""
        return drawn

    def apply(self, index: int, deletion: Deletion) -> Volume:
        """Alter the volume."""
        return self.altered(self.parts(index), deletion)

    @abstractmethod
    def altered(self, parts: Parts, deletion: Deletion) -> Volume:
        """Return the classes after the alteration; after the control, as they were."""

    def parts(self, index: int) -> Parts:
        """Read a volume of the cohort."""
        assert self.cohort.folds is not None
        return Parts.from_volume(
            self.cohort.volumes[index],
            read_row(self.cohort.folds, index),
            self.scheme,
            has_hull=self.cohort.has_hull,
        )

    def without(self, parts: Parts, cut: Mask) -> Parts:
        """Take a cut out, and the junctions that it leaves without a fold."""
        taken = with_junctions(cut, parts.sheet, parts.folds, parts.hull)
        return parts.without(taken)


class Interrupt(FoldAlteration):
    """Cut a piece out of a fold, across its whole depth."""

    kind: ClassVar[Kind] = "interrupt"

    def planned(self, drawn: Deletion, index: int, rng: np.random.Generator) -> Deletion | None:
        """Draw the gap and its place, so that fold is left on either side."""
        parts = self.parts(index)
        fold, size = parts.fold(drawn.label), np.array(self.voxel_size)
        voxels = np.argwhere(fold)
        if not len(voxels):
            return None
        length = (voxels * size) @ fold_axes(fold, parts.outside, self.voxel_size).along
        low, high = np.percentile(length, MIDDLE)
        for centre in rng.permutation(voxels[(length >= low) & (length <= high)])[:PLACES]:
            gap = float(rng.uniform(*GAP))
            near = np.zeros_like(fold)
            near[tuple(voxels[_length((voxels - centre) * size) <= NEARBY].T)] = True
            along = fold_axes(near, parts.outside, self.voxel_size).along
            cut = interruption(fold, centre, along, gap, self.voxel_size)
            beyond = ((np.argwhere(fold & ~cut) - centre) * size) @ along
            if len(beyond) and min(-beyond.min(), beyond.max()) >= gap / 2 + LEFT:
                i, j, k = (float(n) for n in centre)
                a, b, c = (float(n) for n in along)
                return replace(drawn, mm=gap, centre=(i, j, k), vector=(a, b, c))
        return None

    def altered(self, parts: Parts, deletion: Deletion) -> Volume:
        """Cut the piece out."""
        fold = parts.fold(deletion.label)
        if deletion.centre is None:
            return self.without(parts, np.zeros_like(fold)).classes
        centre, along = np.rint(deletion.centre).astype(np.intp), np.array(deletion.vector)
        cut = interruption(fold, centre, along, deletion.mm, self.voxel_size)
        return self.without(parts, cut).classes


class Scar(FoldAlteration):
    """Take the sheet within 2 mm around a fold, and leave the fold: a control."""

    kind: ClassVar[Kind] = "scar"

    def altered(self, parts: Parts, deletion: Deletion) -> Volume:
        """Take the sheet near the fold out."""
        fold, others = parts.fold(deletion.label), parts.sheet & ~parts.hull
        scar = scar_voxels(fold, others, self.voxel_size, SCAR)
        return parts.without(scar).classes


class Rim(FoldAlteration):
    """Take the sheet voxels that touch a fold, and leave the fold: a control."""

    kind: ClassVar[Kind] = "rim"

    def altered(self, parts: Parts, deletion: Deletion) -> Volume:
        """Take the voxels that touch the fold out."""
        fold, others = parts.fold(deletion.label), parts.sheet & ~parts.hull
        return parts.without(rim_voxels(fold, others)).classes


def fold_rows(cohort: Cohort) -> dict[str, list[Mapping[str, str]]]:
    """Rows of the fold table, by volume.

    Raises:
        InputError: the cohort has no fold labels.
    """
    if cohort.folds is None:
        raise InputError(
            f"cohort has no fold labels; delete balls instead (--kind ball): {cohort.folder}"
        )
    rows: dict[str, list[Mapping[str, str]]] = {}
    for row in cohort.fold_table:
        rows.setdefault(row_key(row), []).append(row)
    return rows


def _length(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt((vectors**2).sum(axis=-1)))
