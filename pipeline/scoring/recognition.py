"""Scores of named sulci: which of them is missing, or unlike that of healthy brains.

Deleting a fold leaves a void. Where a sulcus never formed, its neighbours fill the place, and
nothing but its name is missing: a network that looks for voids does not see it. Each sulcus of a
brain is compared with the same sulcus of healthy brains that the network was not trained on.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.pipeline.scoring.healthy import Group
from foldnorm.pipeline.scoring.sulcus_measures import MEASURES, AtlasTemplate, Measures, NamesVoxels
from foldnorm.pipeline.scoring.sulcus_norms import SulcusNorms, check_enough
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort
from foldnorm.preprocessing.spatial.space import Matrix


class RecognitionScores(Fitted):
    """Scores of brains by their named sulci; a high score means unusual.

    A brain's score is that of its most unusual sulcus, see `SulcusNorms`; ``…_panel`` looks only at
    those whose size varies little among healthy brains.

    Args:
        names: what names the voxels.
        affine: (4, 4) of the volumes, voxel index → mm.
        prefix: of the names of the scores.

    Attributes:
        norms: what sulci of healthy brains are like.
    """

    FITTED_ON: ClassVar[Group] = "compared"

    def __init__(self, names: NamesVoxels, affine: Matrix, prefix: str = "sulci") -> None:
        self.names, self.affine, self.prefix = names, affine, prefix
        self.norms = SulcusNorms(len(names.sulci))

    def fit(self, healthy: Sequence[Brain]) -> Self:
        """Learn what healthy brains that the model was not trained on are like.

        Raises:
            InputError: there are too few.
        """
        measures = self.measures(healthy)
        check_enough(len(measures), "validation")
        self.norms.fit(measures)
        return self

    def state_dict(self) -> State:
        """Return sums over the healthy brains, sulcus by sulcus."""
        return self.norms.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.norms.load_state_dict(state)
        return self

    def measures(self, brains: Iterable[Brain]) -> Measures:
        """(N, n, `len(MEASURES)`) of brains; see `NamedBrain.measure`."""
        found = [brain.measure(self.affine) for brain in self.names.named(brains)]
        return np.array(found).reshape(-1, len(self.names.sulci), len(MEASURES))

    def score(self, brains: Iterable[Brain]) -> dict[str, NDArray[np.float64]]:
        """Scores of each brain by name, (N,) each."""
        found = self.norms.scores(self.norms.departures(self.measures(brains)))
        return {f"{self.prefix}_{kind}": own for kind, own in found.items()}


class AtlasScores(RecognitionScores):
    """Scores of sulci named by an atlas of the training brains: the baseline to beat.

    Args:
        sulci: names.
        cohort: whose training split the atlas is fitted on.
    """

    def __init__(self, sulci: tuple[str, ...], cohort: Cohort) -> None:
        self.atlas, self.cohort = AtlasTemplate(sulci, cohort.scheme), cohort
        super().__init__(self.atlas, cohort.affine, "baseline_atlas")

    def fit(self, healthy: Sequence[Brain]) -> Self:
        """Fit the atlas on the training split, and compare with healthy brains."""
        self.atlas.fit(self.cohort)
        return super().fit(healthy)

    def state_dict(self) -> State:
        """Return sums over the healthy brains, and the atlas."""
        return {**super().state_dict(), "atlas": self.atlas.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.atlas.load_state_dict(state["atlas"])
        return super().load_state_dict(state)
