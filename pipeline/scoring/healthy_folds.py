"""Prevalence of folds in healthy brains, which a brain is shown beside."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.pipeline.scoring.map_scores import MapScores
from foldnorm.preprocessing.cohort.cohort import Brain, CohortView, family_of
from foldnorm.preprocessing.core.files import UNKNOWN_CELLS
from foldnorm.preprocessing.io.schemes import LabelScheme

N_SHOWN = 5  # healthy brains beside each


class HealthyFolds(Fitted):
    """Number of healthy brains with a fold at each place, of those that maps are compared with.

    Args:
        scheme: of the volumes.

    Attributes:
        counts_: (I, J, K) int64, hemispheres with a fold.
        hemispheres_: how many there are.
        people_: likewise.
        sites_: that they are of, where that is known.
    """

    def __init__(self, scheme: LabelScheme) -> None:
        self.scheme = scheme

    def fit(self, scores: MapScores) -> Self:
        """Count folds in the healthy brains of scores that were fitted, not loaded."""
        healthy = scores.healthy
        rows = healthy.rows if isinstance(healthy, CohortView) else [b.row for b in healthy]
        self._know(healthy, rows, scores.families)
        self.hemispheres_ = len(rows)
        self.people_ = len({row["participant_id"] for row in rows})
        self.sites_ = sorted({row.get("site", "") for row in rows} - UNKNOWN_CELLS)
        folds = (self.scheme.foreground(brain.volume) for brain in healthy)
        counts: NDArray[np.int64] = next(folds).astype(np.int64)
        for own in folds:
            counts += own
        self.counts_ = counts
        return self

    def without(self, family: str) -> tuple[NDArray[np.int64], int]:
        """Return counts of folds and number of the healthy brains that are not of a family."""
        own = [n for n, owner in enumerate(self._families) if owner == family]
        counts = self.counts_.copy()
        for n in own:
            counts -= self.scheme.foreground(self._brains[n].volume)
        return counts, self.hemispheres_ - len(own)

    def beside(self, row: Mapping[str, str]) -> list[Brain]:
        """Healthy brains to show beside one: each of another person, of its side if that will do.

        None of scores that were loaded: a saved scorer holds no brain.
        """
        family = family_of(row)
        others = [n for n, owner in enumerate(self._families) if owner != family]
        for candidates in ([n for n in others if self._rows[n]["hemi"] == row["hemi"]], others):
            people = list({self._rows[n]["participant_id"]: n for n in candidates}.values())
            if len(people) >= N_SHOWN:
                break
        count = min(N_SHOWN, len(people))
        places = np.linspace(0, len(people) - 1, count).round().astype(int)
        return [self._brains[people[place]] for place in places]

    def state_dict(self) -> State:
        """Return the counts, without any brain."""
        return {
            "counts": self.counts_,
            "hemispheres": self.hemispheres_,
            "people": self.people_,
            "sites": self.sites_,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.counts_, self.hemispheres_ = state["counts"], state["hemispheres"]
        self.people_, self.sites_ = state["people"], state["sites"]
        self._know((), (), ())
        return self

    def _know(
        self,
        brains: Sequence[Brain],
        rows: Sequence[Mapping[str, str]],
        families: Sequence[str],
    ) -> None:
        """Keep the healthy brains, where they are at hand."""
        self._brains, self._rows, self._families = brains, rows, families
