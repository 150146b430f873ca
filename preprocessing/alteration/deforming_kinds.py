"""Alterations that deform what surrounds a fold: refilled and displaced folds, and a control.

A fold that never grew leaves no hole: its neighbours fill the place. `Refill` imitates that.
`Deform` does the same around a fold that stays, which shows whether a score sees the missing fold
or the deformation.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import ClassVar, NamedTuple

import numpy as np

from foldnorm.preprocessing.alteration.deletion import HALF_WAY, Deletion, Kind, Refilling
from foldnorm.preprocessing.alteration.fold_axes import fold_axes
from foldnorm.preprocessing.alteration.fold_erasure import around
from foldnorm.preprocessing.alteration.fold_kinds import FoldAlteration, Parts, Volume
from foldnorm.preprocessing.alteration.sheet_deformation import (
    SUPPORT,
    Displacement,
    Size,
    pull_towards,
    push_sheets,
    shift_along,
)
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.topology.homotopy import Mask

DISPLACED = 4.0, 10.0  # mm


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
        """Draw how far, and to which side; to the other one where there is no room."""
        mm, side = float(rng.uniform(*DISPLACED)), float(rng.choice([-1.0, 1.0]))
        parts = self.parts(index)
        fold = parts.fold(drawn.label)
        if not fold.any():
            return None
        across = fold_axes(fold, parts.outside, self.voxel_size).across
        for way in (side * mm * across, -side * mm * across):
            i, j, k = (float(n) for n in way)
            plan = replace(drawn, mm=mm, vector=(i, j, k), reach=mm)
            near = neighbourhood(fold, parts.outside, self.voxel_size, mm)
            moved = np.sqrt((self._shift(plan)(near.fold, near.outside) ** 2).sum(axis=0))
            plan = replace(plan, mm=float(moved[near.fold].mean()))
            if plan.mm >= DISPLACED[0]:
                return plan
        return None

    def altered(self, parts: Parts, deletion: Deletion) -> Volume:
        """Move the fold."""
        fold, reach = parts.fold(deletion.label), deletion.reach
        return deformed(parts, fold, self._shift(deletion), self.voxel_size, reach, parts.hull)

    def _shift(self, deletion: Deletion) -> Callable[[Mask, Mask], Displacement]:
        return partial(
            shift_along,
            voxel_size=self.voxel_size,
            vector=deletion.vector,
            reach=deletion.reach,
        )


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
    if not fold.any():
        return parts.classes.copy()
    near = neighbourhood(fold, parts.outside, voxel_size, reach)
    padded = np.pad(parts.classes, 1, constant_values=parts.void)
    padded[near.box] = push_sheets(
        padded[near.box],
        displacement_of(near.fold, near.outside),
        voxel_size,
        void=parts.void,
        fixed=np.pad(fixed, 1)[near.box],
    )
    return padded[1:-1, 1:-1, 1:-1].copy()


class Neighbourhood(NamedTuple):
    """Part of a volume that a deformation around a fold can reach.

    Attributes:
        box: its place in the volume padded by one voxel.
        fold: (A, B, C) bool.
        outside: (A, B, C) bool, what lies beyond the volume among it.
    """

    box: tuple[slice, slice, slice]
    fold: Mask
    outside: Mask


def neighbourhood(fold: Mask, outside: Mask, voxel_size: Size, reach: float) -> Neighbourhood:
    """Cut out what lies within the support of ``reach`` mm around a fold."""
    fold, outside = np.pad(fold, 1), np.pad(outside, 1, constant_values=True)
    box = around(fold, tuple(int(np.ceil(SUPPORT * reach / side)) + 2 for side in voxel_size))
    return Neighbourhood(box, fold[box], outside[box])
