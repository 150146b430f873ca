"""Alterations of one labelled fold of a packed volume that are harder to see than a void, and controls.

A fold that never grew leaves no hole: its neighbours fill the place. `Refill` imitates that,
`Deform` does the same around a fold that stays, so that a score can be shown to see the missing
fold and not the deformation. `Scar` and `Rim` take what surrounds a fold and leave the fold: a score
that sees these sees the traces of an erasure.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort import Cohort, row_key
from foldnorm.preprocessing.deletion import (
    CONTROL,
    HALF_WAY,
    Deletion,
    Kind,
    Refilling,
    SizeRange,
    sample_fold,
)
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.fold_axes import fold_axes, interruption
from foldnorm.preprocessing.fold_erasure import (
    around,
    hull_voxels,
    rim_voxels,
    scar_voxels,
    with_junctions,
)
from foldnorm.preprocessing.homotopy import Mask
from foldnorm.preprocessing.schemes import LabelScheme
from foldnorm.preprocessing.sheet_deformation import (
    SUPPORT,
    Displacement,
    Size,
    pull_towards,
    push_sheets,
    shift_along,
)

Volume = NDArray[np.uint8]
GAP = 5.0, 15.0  # mm of an interruption
LEFT = 5.0  # mm of fold, at least, on either side of it
NEARBY = 15.0  # mm around the middle of an interruption, whose direction counts
PLACES = 20  # tries for one in a fold
DISPLACED = 4.0, 10.0  # mm
SCAR = 2.0  # mm around a fold


@dataclass(frozen=True)
class Parts:
    """What a volume of sheets consists of; all (I, J, K).

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
    def of(
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
    """Something done to one labelled fold, which is drawn by size."""

    kind: ClassVar[Kind]

    def __init__(self, cohort: Cohort) -> None:
        self.cohort, self.rows = cohort, fold_rows(cohort)
        self.scheme = cohort.scheme
        self.voxel_size: Size = cohort.voxel_size
        if self.scheme.void != self.scheme.top - 1:
            raise InputError(
                f"--kind {self.kind} needs volumes of thin sheets (skeletons), got scheme "
                f"{self.scheme.name!r}: {cohort.folder}"
            )

    def draw(self, index: int, sizes: SizeRange, rng: np.random.Generator) -> Deletion | None:
        """Draw one of the subject's folds, by size within the box."""
        rows = self.rows.get(row_key(self.cohort.rows[index]), [])
        drawn = sample_fold(rng, rows, sizes)
        if drawn is None or drawn == CONTROL:
            return drawn
        return self.planned(replace(drawn, kind=self.kind), index, rng)

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
        return Parts.of(
            np.array(self.cohort.volumes[index]),
            np.array(self.cohort.folds[index]),
            self.scheme,
            has_hull=self.cohort.preparation.get("hull") != "remove",
        )

    def without(self, parts: Parts, cut: Mask) -> Parts:
        """Take a cut out, and the junctions that it leaves without a fold."""
        taken = with_junctions(cut, parts.sheet, parts.folds, parts.hull)
        return parts.without(taken)


class Deform(FoldAlteration):
    """Draw the neighbours of a fold towards it; the fold stays. The control of `Refill`."""

    kind: ClassVar[Kind] = "deform"

    def __init__(self, cohort: Cohort, refilling: Refilling = HALF_WAY) -> None:
        super().__init__(cohort)
        self.refilling = refilling

    def planned(self, drawn: Deletion, index: int, rng: np.random.Generator) -> Deletion | None:
        """Note how far and how much is drawn together."""
        return replace(drawn, reach=self.refilling.reach, share=self.refilling.share)

    def altered(self, parts: Parts, deletion: Deletion) -> Volume:
        """Deform around the fold."""
        fold = parts.fold(deletion.label)
        return self.drawn_together(parts, fold, deletion, parts.hull | fold)

    def drawn_together(self, parts: Parts, fold: Mask, deletion: Deletion, fixed: Mask) -> Volume:
        """Draw what is not ``fixed`` towards a fold."""
        pull = partial(
            pull_towards, voxel_size=self.voxel_size, reach=deletion.reach, share=deletion.share
        )
        return deformed(parts, fold, pull, self.voxel_size, deletion.reach, fixed)


class Refill(Deform):
    """Erase a fold and draw its neighbours to where it was."""

    kind: ClassVar[Kind] = "refill"

    def altered(self, parts: Parts, deletion: Deletion) -> Volume:
        """Erase the fold, then deform as `Deform` does."""
        fold = parts.fold(deletion.label)
        return self.drawn_together(self.without(parts, fold), fold, deletion, parts.hull)


class Displace(FoldAlteration):
    """Move a fold sideways along the hull; its neighbours make way."""

    kind: ClassVar[Kind] = "displace"

    def planned(self, drawn: Deletion, index: int, rng: np.random.Generator) -> Deletion | None:
        """Draw how far, and to which side."""
        mm, side = float(rng.uniform(*DISPLACED)), float(rng.choice([-1.0, 1.0]))
        parts = self.parts(index)
        fold = parts.fold(drawn.label)
        if not fold.any():
            return None
        i, j, k = side * mm * fold_axes(fold, parts.outside, self.voxel_size).across
        return replace(drawn, mm=mm, vector=(float(i), float(j), float(k)), reach=mm)

    def altered(self, parts: Parts, deletion: Deletion) -> Volume:
        """Move the fold."""
        fold, reach = parts.fold(deletion.label), deletion.reach
        shift = partial(
            shift_along, voxel_size=self.voxel_size, vector=deletion.vector, reach=reach
        )
        return deformed(parts, fold, shift, self.voxel_size, reach, parts.hull)


class Interrupt(FoldAlteration):
    """Cut a piece out of a fold, across its whole depth."""

    kind: ClassVar[Kind] = "interrupt"

    def planned(self, drawn: Deletion, index: int, rng: np.random.Generator) -> Deletion | None:
        """Draw the gap and its place, so that fold is left on either side."""
        gap, parts = float(rng.uniform(*GAP)), self.parts(index)
        fold, size = parts.fold(drawn.label), np.array(self.voxel_size)
        voxels = np.argwhere(fold)
        for centre in rng.permutation(voxels)[:PLACES]:
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
        """Take it."""
        fold, others = parts.fold(deletion.label), parts.sheet & ~parts.hull
        scar = scar_voxels(fold, others, self.voxel_size, SCAR)
        return parts.without(scar).classes


class Rim(FoldAlteration):
    """Take the sheet voxels that touch a fold, and leave the fold: a control."""

    kind: ClassVar[Kind] = "rim"

    def altered(self, parts: Parts, deletion: Deletion) -> Volume:
        """Take them."""
        fold, others = parts.fold(deletion.label), parts.sheet & ~parts.hull
        return parts.without(rim_voxels(fold, others)).classes


def deformed(
    parts: Parts,
    fold: Mask,
    displacement_of: Callable[[Mask, Mask], Displacement],
    voxel_size: Size,
    reach: float,
    fixed: Mask,
) -> Volume:
    """Move the sheets around a fold.

    Args:
        parts: of the volume.
        fold: (I, J, K) bool; if it is empty, nothing moves.
        displacement_of: displacement, mm, from a fold and the outside, both (A, B, C).
        voxel_size: mm.
        reach: mm, of the displacement.
        fixed: (I, J, K) bool, sheet voxels that stay.

    Returns:
        (I, J, K) classes. What lies beyond the volume counts as outside: along it sheets slide.
    """
    void = parts.void
    padded = np.pad(parts.classes, 1, constant_values=void)
    if not fold.any():
        return parts.classes.copy()
    fold, fixed = np.pad(fold, 1), np.pad(fixed, 1)
    outside = np.pad(parts.outside, 1, constant_values=True)
    box = around(fold, tuple(int(np.ceil(SUPPORT * reach / side)) + 2 for side in voxel_size))
    displacement = displacement_of(fold[box], outside[box])
    padded[box] = push_sheets(padded[box], displacement, voxel_size, void=void, fixed=fixed[box])
    return padded[1:-1, 1:-1, 1:-1].copy()


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
