"""Names of sulci by place, for a scorer that is sent without its brains."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.data.sulcus_labels import SulciByPlace
from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.preprocessing.cohort.cohort import Cohort


class SulcusCounts(Fitted):
    """Number of training brains with a sulcus at each voxel: `SulciByPlace` without the brains.

    Attributes:
        sulci_: names.
        counts_: (n, I, J, K) uint8, of the brains that `SulciByPlace` looks at.
        brains_: how many were looked at.
    """

    def fit(self, cohort: Cohort) -> Self:
        """Count sulci in the training split of a cohort; none without fold labels."""
        places = SulciByPlace(cohort)
        self.brains_ = len(places.indices)
        self.sulci_: Sequence[str] = places.sulci if self.brains_ else []
        self.counts_ = np.zeros((len(self.sulci_), *cohort.shape), dtype=np.uint8)
        for index in places.indices:
            assert places.folds is not None
            names = places.tables[index][places.folds[index]]
            at = np.nonzero(names)
            self.counts_[(names[at] - 1, *at)] += 1
        return self

    def likeliest(self, places: NDArray[np.int64]) -> tuple[str, float]:
        """Sulcus that lies there in most brains, and the share that have it at its commonest voxel.

        Args:
            places: (n, 3) voxels.

        Returns:
            An empty name if none of them has any.
        """
        if not self.brains_:
            return "", float("nan")
        here = self.counts_[(slice(None), *places.T)]  # (sulci, n)
        best = int(here.sum(axis=1, dtype=np.int64).argmax())
        most = int(here[best].max())
        return (self.sulci_[best], most / self.brains_) if most else ("", 0.0)

    def state_dict(self) -> State:
        """Return the counts, without any brain."""
        return {"sulci": list(self.sulci_), "counts": self.counts_, "brains": self.brains_}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.sulci_, self.counts_ = state["sulci"], state["counts"]
        self.brains_ = state["brains"]
        return self
