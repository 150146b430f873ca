"""Scores of what a restoring model adds to a brain: evidence of missing folds.

Evidence is the probability of structure (sulcus, in a skeleton) where the brain has none. Healthy
brains give some everywhere a fold could be, so it is compared with theirs, voxel by voxel. Those
brains must be held out: the network knows the ones that it was trained on.
"""

from collections.abc import Iterator
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from foldnorm.models.protocols import Restores
from foldnorm.pipeline.baselines import top_mean
from foldnorm.pipeline.scores import Mahalanobis
from foldnorm.pipeline.trained_model import Brains, TrainedModel
from foldnorm.pipeline.validation import structure_probability
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.schemes import LabelScheme

MIN_SPREAD = 0.02  # of a voxel's evidence over brains, so that a voxel never filled is no division
LEAST_Z = 3.0  # of the voxels of a region
POOLED = 5  # blocks along each axis of the coarse grid
FEWEST = 8  # brains to compare with
Evidence = NDArray[np.float32]


class EvidenceScores:
    """Scores of volumes by what a model restores in them; a high score means unusual.

    ``evidence_top``: mean of the largest 0.2 % of the z of the evidence.
    ``evidence_component``: sum of that z over the heaviest 26-connected region of voxels that reach
    `LEAST_Z`.
    ``evidence_pooled``: Mahalanobis distance (Ledoit–Wolf) of the evidence averaged in `POOLED`³
    blocks.
    ``evidence_sum``: of all evidence.

    Args:
        trained: the model; it restores.
        scheme: label scheme of the volumes; *structure* is what a deletion can take.
    """

    NAMES = ("evidence_top", "evidence_component", "evidence_pooled", "evidence_sum")

    def __init__(self, trained: TrainedModel, scheme: LabelScheme) -> None:
        assert isinstance(trained.model, Restores)
        self.trained, self.model, self.scheme = trained, trained.model, scheme

    def fit(self, brains: Brains) -> Self:
        """Learn what healthy brains that the model was not trained on give.

        Args:
            brains: gives them.

        Raises:
            InputError: there are too few.
        """
        evidence = list(self.evidence(brains))
        if len(evidence) < FEWEST:
            raise InputError(
                f"evidence is compared with that of at least {FEWEST} validation brains, got "
                f"{len(evidence)}"
            )
        self.mean = np.mean(evidence, axis=0)
        self.sd = np.std(evidence, axis=0) + MIN_SPREAD
        self.pooled = Mahalanobis().fit(np.stack([_pooled(own) for own in evidence]))
        return self

    def score(self, brains: Brains) -> dict[str, NDArray[np.float64]]:
        """Scores of each brain by name, (N,) each."""
        found = [self._scores(evidence) for evidence in self.evidence(brains)]
        values = np.array(found, dtype=np.float64).reshape(-1, len(self.NAMES))
        return dict(zip(self.NAMES, values.T, strict=True))

    def maps(self, brains: Brains) -> Iterator[Evidence]:
        """Evidence of each brain in standard deviations of healthy ones, (I, J, K) float32."""
        for evidence in self.evidence(brains):
            yield ((evidence - self.mean) / self.sd).astype(np.float32)

    def evidence(self, brains: Brains) -> Iterator[Evidence]:
        """Probability of structure where each brain has none, (I, J, K) float32."""
        for volumes, _ in self.trained.batches(brains()):
            yield from self._restored(volumes).cpu().numpy()

    @torch.no_grad()
    def _restored(self, volumes: Tensor) -> Tensor:
        likely = structure_probability(self.model.restore(volumes), self.scheme)
        return likely * (volumes <= self.scheme.void)

    def _scores(self, evidence: Evidence) -> tuple[float, ...]:
        z = (evidence - self.mean) / self.sd
        labels, count = regions_of(z)
        masses = ndimage.sum_labels(z, labels, np.arange(1, count + 1)) if count else [0.0]
        pooled = self.pooled.score(_pooled(evidence)[None])[0]
        return float(top_mean(z.reshape(1, -1))[0]), float(np.max(masses)), pooled, evidence.sum()


def regions_of(z: NDArray[np.floating]) -> tuple[NDArray[np.int32], int]:
    """Number of the 26-connected region above `LEAST_Z` that a voxel belongs to; and how many."""
    labels, count = ndimage.label(z >= LEAST_Z, np.ones((3, 3, 3)))
    return labels, int(count)


def _pooled(evidence: Evidence) -> NDArray[np.float32]:
    """Means of `POOLED` blocks along each axis, flattened."""
    for axis in range(3):
        parts = np.array_split(evidence, POOLED, axis=axis)
        evidence = np.stack([part.mean(axis=axis) for part in parts], axis=axis)
    return evidence.astype(np.float32).ravel()
