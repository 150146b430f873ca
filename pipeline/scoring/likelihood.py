"""Scores of how unlikely a brain is at each place, given the rest of it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import torch.nn.functional as F

from foldnorm.models.protocols import JudgesPlaces
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.conditional import ConditionalNormativeMap
from foldnorm.pipeline.scoring.map_scores import Map, MapScores
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.io.schemes import LabelScheme

# The median spread of four crops of MMRR-21 of Mindboggle-101; no other site was looked at.
FLOOR = 1.75  # nats
THRESHOLD = 2.5  # standard deviations, as of `LatentMapScores`


class LikelihoodScores(MapScores):
    """Scores of volumes by −log p of each place, as a model of healthy brains has it.

    A model is surprised everywhere a little, and most where healthy brains differ; each place is
    compared with the same place of healthy brains that the model was not trained on.

    Args:
        trained: the model; it judges places.
        scheme: label scheme of the volumes; says what is outside.
        covariates: see `MapScores`.

    Source:
        Pinaya et al. 2022 (doi:10.1016/j.media.2022.102475), who compare no places.
    """

    PREFIX: ClassVar = {"missing": "likelihood"}
    THRESHOLD: ClassVar = THRESHOLD
    QUANTITY: ClassVar = "nats less likely than expected"
    UNIT: ClassVar = "nats"

    def __init__(
        self, trained: TrainedModel, scheme: LabelScheme, covariates: Sequence[str] = ()
    ) -> None:
        super().__init__(covariates)
        assert isinstance(trained.model, JudgesPlaces)
        self.trained, self.scheme = trained, scheme
        self.normative = ConditionalNormativeMap(FLOOR)

    def raw_maps(self, brains: Iterable[Brain]) -> Iterator[Map]:
        """Surprise in the grid of the volume, trilinear between places, (1, I, J, K) float32."""
        for few in self.trained.passes(brains):
            nats, sides = few.surprise.unsqueeze(1), few.volumes.shape[1:]
            whole = F.interpolate(nats, size=sides, mode="trilinear", align_corners=False)
            yield from whole.cpu().numpy()
