"""Scores of codes that are maps: how far from the healthy centre a brain is at each place."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from foldnorm.models.protocols import EncodesPlaces
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.conditional import ConditionalNormativeMap
from foldnorm.pipeline.scoring.map_scores import Map, MapScores
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.io.schemes import LabelScheme

# Both settled on one site (MMRR-21 of Mindboggle-101) and on no other.
FLOOR = 0.2  # about twice the median spread of healthy brains
THRESHOLD = 2.5  # standard deviations


class LatentMapScores(MapScores):
    """Scores of brains by the distance of their codes from the centre, place by place.

    The distance of a whole code from those of healthy brains is a sum over all places, and the
    spread of a thousand healthy ones hides the one where a fold is missing. Here each place is
    compared with the same place of healthy brains that the model was not trained on.

    Args:
        trained: the model; its code is a map.
        scheme: label scheme of the volumes; says what is outside.
        covariates: see `MapScores`.

    Source:
        Liznerski et al. 2021 (arXiv:2007.01760) for maps of such distances; they compare no places.
    """

    PREFIX: ClassVar = {"missing": "latent_map"}
    THRESHOLD: ClassVar = THRESHOLD
    QUANTITY: ClassVar = "deviation from healthy folding"
    UNIT: ClassVar = ""

    def __init__(
        self, trained: TrainedModel, scheme: LabelScheme, covariates: Sequence[str] = ()
    ) -> None:
        super().__init__(covariates)
        assert isinstance(trained.model, EncodesPlaces)
        self.trained, self.scheme = trained, scheme
        self._grid = trained.model.healthy_grid
        self.normative = ConditionalNormativeMap(FLOOR)

    def raw_maps(self, brains: Iterable[Brain]) -> Iterator[Map]:
        """Distance from the centre in the grid of the volume, (1, I, J, K) float32 each."""
        for few in self.trained.passes(brains):
            codes = few.codes.unflatten(1, (-1, *self._grid))
            yield from distance_from_centre(codes, few.volumes.shape[1:]).cpu().numpy()


def distance_from_centre(codes: Tensor, sides: Sequence[int]) -> Tensor:
    """Length of the code at each place, trilinear between the middles of its blocks.

    Args:
        codes: (B, channels, *grid); the centre is 0.
        sides: of the volume, each a multiple of the grid's.

    Returns:
        (B, 1, *sides) float32.
    """
    length = torch.linalg.vector_norm(codes.float(), dim=1, keepdim=True)
    return F.interpolate(length, size=tuple(sides), mode="trilinear", align_corners=False)
