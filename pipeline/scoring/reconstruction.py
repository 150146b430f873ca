"""Scores of what a model's reconstruction of a brain holds and the brain does not.

A model that knows healthy brains brings back part of what is missing. The plain loss points the
wrong way (fewer sulci are easier to reconstruct), so evidence is taken of one side only: structure
that is expected and not there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foldnorm.models.losses import class_cross_entropy
from foldnorm.pipeline.runs.predict import structure_probability
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.pipeline.scoring.healthy import Group
from foldnorm.pipeline.scoring.map_scores import Map, ScoreTable, top_share_mean
from foldnorm.pipeline.scoring.normative import NormativeMap
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.io.schemes import LabelScheme

EVIDENCE_SIDE = 5  # voxels: a missing sheet is wider than the voxel by which one may be shifted
FLOOR = 0.05  # of local evidence: by so much healthy brains differ where they mostly agree
_MEAN_FILTERS = {2: F.avg_pool2d, 3: F.avg_pool3d}


class ReconstructionScores(Fitted):
    """Scores of volumes beside their reconstructions; a high score means unusual.

    ``reconstruction_loss``: class cross entropy, nats a voxel.
    ``reconstruction_missing``: sum over voxels of P(structure) of the reconstruction − structure
    of the brain, so how many more voxels the model expects.
    ``reconstruction_missing_local``: the positive part of that difference, averaged over cubes of
    `EVIDENCE_SIDE`, z-scored per voxel against training brains, mean of the largest 0.2 %.

    Args:
        trained: the model.
        scheme: label scheme of the volumes; *structure* is what a deletion can take (sulcus).
    """

    FITTED_ON: ClassVar[Group] = "training"
    NAMES: ClassVar = (
        "reconstruction_loss",
        "reconstruction_missing",
        "reconstruction_missing_local",
    )

    def __init__(self, trained: TrainedModel, scheme: LabelScheme) -> None:
        _ = trained.decodes  # refuses a model that makes no volumes
        self.trained, self.scheme = trained, scheme
        self.normative = NormativeMap(FLOOR)

    def fit(self, healthy: Sequence[Brain]) -> Self:
        """Learn how much evidence training brains give at each voxel."""
        self.normative.fit(lambda: self._local_maps(healthy))
        return self

    def state_dict(self) -> State:
        """Return sums over the training brains."""
        return {"normative": self.normative.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.normative.load_state_dict(state["normative"])
        return self

    def _local_maps(self, brains: Iterable[Brain]) -> Iterator[Map]:
        """Local evidence of each brain, (I, J, K) float32."""
        for _, missing in self._reconstructed(brains):
            yield from _local(missing).cpu().numpy()

    def score(self, brains: Iterable[Brain]) -> ScoreTable:
        """Scores of each brain by name, (N,) each."""
        found: list[list[NDArray[np.float64]]] = [[], [], []]
        for loss, missing in self._reconstructed(brains):
            z = [self.normative.z(own) for own in _local(missing).cpu().numpy()]
            found[0].append(loss.double().cpu().numpy())
            found[1].append(missing.flatten(1).double().sum(dim=1).cpu().numpy())
            found[2].append(np.array([top_share_mean(own) for own in z]))
        values = (np.concatenate(parts) if parts else np.empty(0) for parts in found)
        return dict(zip(self.NAMES, values, strict=True))

    def _reconstructed(self, brains: Iterable[Brain]) -> Iterator[tuple[Tensor, Tensor]]:
        """Loss (B,), and P(structure) of the reconstruction − structure (B, I, J, K)."""
        first = self.scheme.void + 1
        for few in self.trained.passes(brains):
            expected = structure_probability(few.reconstructed, self.scheme)
            loss = class_cross_entropy(few.reconstructed, few.volumes)
            yield loss, expected - (few.volumes >= first).float()


def _local(missing: Tensor) -> Tensor:
    """Positive part averaged over cubes, (B, I, J, K); cubes are cut at the border."""
    mean = _MEAN_FILTERS[missing.ndim - 1]
    positive = missing.clamp(min=0).unsqueeze(1)
    margin = EVIDENCE_SIDE // 2
    return mean(positive, EVIDENCE_SIDE, 1, margin, count_include_pad=False).squeeze(1)
