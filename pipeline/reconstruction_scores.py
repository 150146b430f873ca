"""Scores of what a model's reconstruction of a brain holds and the brain does not.

A model that knows healthy brains brings back part of what is missing. The plain loss points the
wrong way (fewer sulci are easier to reconstruct), so evidence is taken of one side only: structure
that is expected and not there.
"""

from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foldnorm.models.losses import class_cross_entropy
from foldnorm.pipeline.baselines import top_mean
from foldnorm.pipeline.label_tasks import structure_probability
from foldnorm.pipeline.trained_model import Brains, TrainedModel
from foldnorm.preprocessing.schemes import LabelScheme

EVIDENCE_SIDE = 5  # voxels: a missing sheet is wider than the voxel by which one may be shifted
MIN_SPREAD = 0.02  # of a voxel's evidence over brains, so that a voxel never filled is no division
_MEAN_FILTERS = {2: F.avg_pool2d, 3: F.avg_pool3d}


class ReconstructionScores:
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

    NAMES = ("reconstruction_loss", "reconstruction_missing", "reconstruction_missing_local")

    def __init__(self, trained: TrainedModel, scheme: LabelScheme) -> None:
        self.trained, self.model, self.scheme = trained, trained.decodes, scheme

    def fit(self, brains: Brains) -> Self:
        """Learn how much evidence healthy brains give at each voxel.

        Args:
            brains: gives the training brains.
        """
        number, total, squares = 0, torch.zeros(()), torch.zeros(())
        for _, missing in self._reconstructed(brains):
            evidence = _local(missing).double().cpu()
            number += len(evidence)
            total = total + evidence.sum(dim=0)
            squares = squares + evidence.square().sum(dim=0)
        self.mean = total / number
        self.sd = (squares / number - self.mean.square()).clamp(min=0).sqrt() + MIN_SPREAD
        return self

    def score(self, brains: Brains) -> dict[str, NDArray[np.float64]]:
        """Scores of each brain by name, (N,) each."""
        found: list[list[NDArray[np.float64]]] = [[], [], []]
        for loss, missing in self._reconstructed(brains):
            z = (_local(missing).cpu() - self.mean) / self.sd
            found[0].append(loss.double().cpu().numpy())
            found[1].append(missing.flatten(1).double().sum(dim=1).cpu().numpy())
            found[2].append(top_mean(z.flatten(1).numpy()))
        values = (np.concatenate(parts) if parts else np.empty(0) for parts in found)
        return dict(zip(self.NAMES, values, strict=True))

    @torch.no_grad()
    def _reconstructed(self, brains: Brains) -> Iterator[tuple[Tensor, Tensor]]:
        """Loss (B,), and P(structure) of the reconstruction − structure (B, I, J, K)."""
        first = self.scheme.void + 1
        for batch, condition in self.trained.batches(brains()):
            codes = self.model.encode(batch, condition)
            logits = self.model.decode(codes, condition).float()
            expected = structure_probability(logits, self.scheme)
            yield class_cross_entropy(logits, batch), expected - (batch >= first).float()


def _local(missing: Tensor) -> Tensor:
    """Positive part averaged over cubes, (B, I, J, K); cubes are cut at the border."""
    mean = _MEAN_FILTERS[missing.ndim - 1]
    positive = missing.clamp(min=0).unsqueeze(1)
    margin = EVIDENCE_SIDE // 2
    return mean(positive, EVIDENCE_SIDE, 1, margin, count_include_pad=False).squeeze(1)
