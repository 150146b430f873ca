"""Missing folds by a brain's own other side: places that are farther from a fold on one side."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Self

import numpy as np

from foldnorm.pipeline.scoring.map_scores import MIN_HEALTHY, Map
from foldnorm.pipeline.scoring.void import VoidScores, distance_to_folds
from foldnorm.preprocessing.cohort.cohort import Brain, CohortView
from foldnorm.preprocessing.core.errors import InputError


class AsymmetryScores(VoidScores):
    """Scores of hemispheres against the other one of the same brain, and against healthy ones.

    ``asymmetry_…``: how much farther from a fold or the hull each place is than the same place of
    the other side, in standard deviations of healthy brains, whose sides differ too.
    ``asymmetric_void_…``: the mean of that z and of the z of `VoidScores`: places that are far from
    a fold for a hemisphere, and for this brain. Folding that both sides share says nothing there.

    Only what is farther counts, so the side that lacks a fold stands out and not the other one; but
    a fold too many on one side makes the other unusual as well. A hemisphere without the other one
    has no score (NaN).

    Args:
        scheme: label scheme of the volumes.
        voxel_size: mm.
        covariates: see `MapScores`.
    """

    PREFIX: ClassVar = {"missing": "asymmetric_void", "difference": "asymmetry"}
    directions = ("missing", "difference")

    def fit(self, healthy: Sequence[Brain], n_local: int = 0) -> Self:
        """Learn how far from folds healthy brains are, and how much their sides differ.

        Args:
            healthy: see `MapScores.fit`; hemispheres without the other one are left out.
            n_local: so many of them, the last ones, are of the site of those to score.

        Raises:
            InputError: there are fewer than `MIN_HEALTHY` with both sides.
        """
        kept = with_other_side(healthy)
        if len(kept) < MIN_HEALTHY:
            raise InputError(
                f"asymmetry is compared with that of at least {MIN_HEALTHY} healthy hemispheres "
                f"whose other one is there and in the same layout, got {len(kept)}"
            )
        paired = (
            CohortView([healthy.places[n] for n in kept])
            if isinstance(healthy, CohortView)
            else [healthy[n] for n in kept]
        )
        return super().fit(paired, sum(n >= len(healthy) - n_local for n in kept))

    def raw_maps(self, brains: Iterable[Brain]) -> Iterator[Map]:
        """Distance to the nearest fold, and how much larger it is than the other side's.

        (2, I, J, K) float32, mm; the second is NaN without the other side.
        """
        for brain in brains:
            own = distance_to_folds(brain.volume, self.scheme, self.voxel_size)
            difference = np.full_like(own, np.nan)
            if brain.other_side is not None:
                other = distance_to_folds(brain.other_side(), self.scheme, self.voxel_size)
                difference = own - other
            yield np.stack([own, difference])

    def _compared(self, brains: Iterable[Brain]) -> Iterator[tuple[str, Map, Map]]:
        for family, (own, difference), raw in super()._compared(brains):
            yield family, np.stack([(own + difference) / 2, difference]), raw

    def _scores(self, z: Map, raw: Map, direction: int, family: str) -> list[float]:
        if np.isnan(z).any():
            return [np.nan] * len(self.KINDS)
        return super()._scores(z, raw, direction, family)


def with_other_side(brains: Sequence[Brain]) -> list[int]:
    """List the indices of brains whose other hemisphere is at hand; a view reads no volume."""
    if isinstance(brains, CohortView):
        places = enumerate(brains.places)
        return [n for n, (cohort, index) in places if cohort.other_side(index) is not None]
    return [n for n, brain in enumerate(brains) if brain.other_side is not None]
