"""Scores of what a restoring model adds to a brain or takes away: evidence of unusual folds.

Evidence of a *missing* fold is the probability of structure (sulcus, in a skeleton) where the brain
has none; of an *unexpected* one, that of none where it has some. Healthy brains give a little
everywhere a fold could be, so a brain is compared with them, place by place. Those brains must be
held out: the network knows the ones that it was trained on.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldnorm.models.protocols import ADDING, LearnsFromEdits, Restores
from foldnorm.pipeline.runs.forward_pass import ForwardPass
from foldnorm.pipeline.runs.predict import structure_probability
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.conditional import ConditionalNormativeMap
from foldnorm.pipeline.scoring.fitted import State
from foldnorm.pipeline.scoring.latent_distance import Mahalanobis
from foldnorm.pipeline.scoring.map_scores import Map, MapScores
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.io.schemes import LabelScheme

FLOOR = 0.02
SMOOTHING = 2.0  # mm, sd
THRESHOLD = 3.0
N_BLOCKS = 5  # along each axis of the coarse grid


class EvidenceScores(MapScores):
    """Scores of volumes by what a model restores in them; a high score means unusual.

    ``evidence_component`` and ``evidence_top`` as of all `MapScores`.
    ``evidence_pooled``: Mahalanobis distance (Ledoit–Wolf) of the evidence averaged in `N_BLOCKS`³
    blocks.
    ``evidence_sum``: of all evidence. Both count what lies inside the brain, as maps do.
    The same as ``unexpected_…``, if the model has learned to take away what was added, or from no
    edits at all.

    Args:
        trained: the model; it restores.
        scheme: label scheme of the volumes; *structure* is what a deletion can take.
        voxel_size: mm.
        covariates: see `MapScores`.
    """

    PREFIX: ClassVar = {"missing": "evidence", "unexpected": "unexpected"}
    THRESHOLD: ClassVar = THRESHOLD
    KINDS: ClassVar = (*MapScores.KINDS, "pooled", "sum")
    QUANTITY: ClassVar = "probability of a missing fold"
    UNIT: ClassVar = ""

    def __init__(
        self,
        trained: TrainedModel,
        scheme: LabelScheme,
        voxel_size: Sequence[float],
        covariates: Sequence[str] = (),
    ) -> None:
        super().__init__(covariates)
        assert isinstance(trained.model, Restores)
        self.trained, self.scheme = trained, scheme
        learned = trained.model.edits if isinstance(trained.model, LearnsFromEdits) else ADDING
        adds = ADDING.intersection(learned)
        self.directions = ("missing", "unexpected") if adds else ("missing",)
        self.normative = ConditionalNormativeMap(FLOOR, [SMOOTHING / side for side in voxel_size])

    def fit(self, healthy: Sequence[Brain], n_local: int = 0) -> Self:
        """Learn what healthy brains that the model was not trained on give."""
        super().fit(healthy, n_local)
        self._blocks = np.array(self._pooled)  # (N, directions, N_BLOCKS³)
        self.pooled_ = [self._fit_blocks(n, "") for n in range(len(self.directions))]
        self._blocks_without = lru_cache(maxsize=2)(self._fit_blocks)
        return self

    def state_dict(self) -> State:
        """Return sums over the healthy brains."""
        pooled = {str(n): own.state_dict() for n, own in enumerate(self.pooled_)}
        return {**super().state_dict(), "pooled": pooled}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        super().load_state_dict(state)
        states = (state["pooled"][str(n)] for n in range(len(self.directions)))
        self.pooled_ = [Mahalanobis().load_state_dict(own) for own in states]
        return self

    def _healthy_maps(self) -> Iterator[Map]:
        self._pooled: list[list[NDArray[np.float32]]] = []
        for brain, raw in zip(self._healthy, super()._healthy_maps(), strict=True):
            self._pooled.append([block_means(own) for own in self._inside(raw, brain)])
            yield raw

    def raw_maps(self, brains: Iterable[Brain]) -> Iterator[Map]:
        """Evidence of each brain, (directions, I, J, K) float32, from 0 to 1."""
        for few in self.trained.passes(brains):
            yield from self._evidence(few).cpu().numpy()

    def _evidence(self, few: ForwardPass) -> Tensor:
        likely = structure_probability(few.restored, self.scheme)
        void = few.volumes <= self.scheme.void
        both = {"missing": likely * void, "unexpected": (1 - likely) * ~void}
        return torch.stack([both[direction] for direction in self.directions], dim=1)

    def _scores(self, z: Map, raw: Map, direction: int, family: str) -> list[float]:
        known = family in self._known
        usual = self._blocks_without(direction, family) if known else self.pooled_[direction]
        pooled = float(usual.score(block_means(raw)[None])[0])
        return [*super()._scores(z, raw, direction, family), pooled, float(raw.sum())]

    def _fit_blocks(self, direction: int, family: str) -> Mahalanobis:
        """Distance of block means from those of all healthy brains but a family's."""
        others = [n for n, owner in enumerate(self._owners) if not owner or owner != family]
        return Mahalanobis().fit(self._blocks[others, direction])


def block_means(evidence: Map) -> NDArray[np.float32]:
    """Means in `N_BLOCKS` blocks along each axis, flattened, (N_BLOCKS³,)."""
    for axis in range(3):
        parts = np.array_split(evidence, N_BLOCKS, axis=axis)
        evidence = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    return evidence.astype(np.float32).ravel()
