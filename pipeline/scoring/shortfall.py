"""Scores of how much less sulcus a brain has at each place than the rest of it lets expect."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np

from foldnorm.models.protocols import Expects
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.conditional import ConditionalNormativeMap
from foldnorm.pipeline.scoring.map_scores import Map, MapScores
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.io.schemes import LabelScheme

# All three were chosen on validation crops of MMRR-21 and NKI of Mindboggle-101, HLN left out.
FLOOR = 0.01
SMOOTHING = 5.0  # mm, sd
THRESHOLD = 2.5  # standard deviations, as of `LatentMapScores`


class ShortfallScores(MapScores):
    """Scores of volumes by the structure that a model expects less what is there, smoothed.

    Where a fold should lie is expected to a few voxels only, and no voxel is likelier in it than
    out of it: a volume without the fold is likelier, voxel for voxel, than most with it. How much
    there should be nearby is known well. So it is amounts that are compared: what is expected where
    nothing is, less what is there where less was expected.

    ``shortfall_…``: less than expected, a missing fold; ``surplus_…``: more.

    Args:
        trained: the model; it says what it expects.
        scheme: label scheme of the volumes; *structure* is what a deletion can take.
        voxel_size: mm.
        covariates: see `MapScores`.
    """

    PREFIX: ClassVar = {"missing": "shortfall", "unexpected": "surplus"}
    THRESHOLD: ClassVar = THRESHOLD
    QUANTITY: ClassVar = "share of sulcus that is missing"
    UNIT: ClassVar = ""

    directions = ("missing", "unexpected")

    def __init__(
        self,
        trained: TrainedModel,
        scheme: LabelScheme,
        voxel_size: Sequence[float],
        covariates: Sequence[str] = (),
    ) -> None:
        super().__init__(covariates)
        assert isinstance(trained.model, Expects)
        self.trained, self.scheme = trained, scheme
        self.normative = ConditionalNormativeMap(FLOOR, [SMOOTHING / side for side in voxel_size])

    def raw_maps(self, brains: Iterable[Brain]) -> Iterator[Map]:
        """Subtract what is there from what is expected, and the reverse, (2, I, J, K) float32."""
        for few in self.trained.passes(brains):
            likely = few.expected[:, self.scheme.void + 1 :].sum(dim=1)
            fewer = likely - (few.volumes > self.scheme.void).to(likely.dtype)
            for own in fewer.cpu().numpy():
                yield np.stack([own, -own])
