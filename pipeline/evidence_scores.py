"""Scores of what a restoring model adds to a brain or takes away: evidence of unusual folds.

Evidence of a *missing* fold is the probability of structure (sulcus, in a skeleton) where the brain
has none; of an *unexpected* one, that of none where it has some. Healthy brains give a little
everywhere a fold could be, so a brain is compared with them, voxel by voxel. Those brains must be
held out: the network knows the ones that it was trained on.
"""

from collections.abc import Callable, Iterator
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from foldnorm.models.protocols import ADDING, Restores
from foldnorm.pipeline.baselines import top_mean
from foldnorm.pipeline.label_tasks import structure_probability
from foldnorm.pipeline.scores import Mahalanobis
from foldnorm.pipeline.trained_model import Brains, TrainedModel
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.schemes import LabelScheme

MIN_SPREAD = 0.01  # of a voxel's evidence over brains, so that a voxel never filled is no division
LEAST_Z = 3.0  # of the voxels of a region
POOLED = 5  # blocks along each axis of the coarse grid
FEWEST = 8  # brains to compare with
Evidence = NDArray[np.float32]
Look = Callable[[Evidence], None]


class EvidenceScores:
    """Scores of volumes by what a model restores in them; a high score means unusual.

    ``evidence_top``: mean of the largest 0.2 % of the z of the evidence.
    ``evidence_component``: sum of that z over the heaviest 26-connected region of voxels that reach
    `LEAST_Z`.
    ``evidence_pooled``: Mahalanobis distance (Ledoit–Wolf) of the evidence averaged in `POOLED`³
    blocks.
    ``evidence_sum``: of all evidence.
    The same as ``unexpected_…``, if the model has learned to take away what was added.

    Args:
        trained: the model; it restores.
        scheme: label scheme of the volumes; *structure* is what a deletion can take.

    Attributes:
        directions: ``missing``, and perhaps ``unexpected``.
    """

    PREFIX: ClassVar = {"missing": "evidence", "unexpected": "unexpected"}  # of the scores

    def __init__(self, trained: TrainedModel, scheme: LabelScheme) -> None:
        assert isinstance(trained.model, Restores)
        self.trained, self.model, self.scheme = trained, trained.model, scheme
        adds = ADDING.intersection(trained.model.edits)
        self.directions = ("missing", "unexpected") if adds else ("missing",)

    def fit(self, brains: Brains) -> Self:
        """Learn what healthy brains that the model was not trained on give, one at a time.

        Raises:
            InputError: there are too few.
        """
        count = 0
        total: NDArray[np.float64] = np.zeros(())
        squares: NDArray[np.float64] = np.zeros(())
        pooled = []
        for evidence in self.evidence(brains):
            count += 1
            total = total + evidence
            squares = squares + evidence.astype(np.float64) ** 2
            pooled.append([_pooled(own) for own in evidence])
        if count < FEWEST:
            raise InputError(
                f"evidence is compared with that of at least {FEWEST} validation brains, got "
                f"{count}"
            )
        mean: NDArray[np.float64] = total / count
        variance = np.maximum(squares / count - mean**2, 0)
        self.mean = mean.astype(np.float32)
        self.sd = (np.sqrt(variance) + MIN_SPREAD).astype(np.float32)
        blocks = np.array(pooled)  # (N, directions, POOLED³)
        self.pooled = [Mahalanobis().fit(blocks[:, n].copy()) for n in range(len(self.directions))]
        return self

    def score(self, brains: Brains, look: Look | None = None) -> dict[str, NDArray[np.float64]]:
        """Scores of each brain by name, (N,) each.

        Args:
            brains: gives them.
            look: called with the map of each brain, see `maps`, in their order.
        """
        found = []
        for evidence in self.evidence(brains):
            found.append(self._scores(evidence))
            if look is not None:
                look(self._z(evidence))
        return {name: np.array([own[name] for own in found]) for name in self.names}

    @property
    def names(self) -> list[str]:
        """Of the scores."""
        kinds = ("top", "component", "pooled", "sum")
        return [f"{self.PREFIX[d]}_{kind}" for d in self.directions for kind in kinds]

    def maps(self, brains: Brains) -> Iterator[Evidence]:
        """Evidence in standard deviations of healthy brains, (directions, I, J, K) float32."""
        for evidence in self.evidence(brains):
            yield self._z(evidence)

    def _z(self, evidence: Evidence) -> Evidence:
        return (evidence - self.mean) / self.sd

    @torch.no_grad()
    def evidence(self, brains: Brains) -> Iterator[Evidence]:
        """Evidence of each brain, (directions, I, J, K) float32, from 0 to 1."""
        for volumes, _ in self.trained.batches(brains()):
            yield from self._of_batch(volumes).cpu().numpy()

    def _of_batch(self, volumes: Tensor) -> Tensor:
        likely = structure_probability(self.model.restore(volumes), self.scheme)
        void = volumes <= self.scheme.void
        both = {"missing": likely * void, "unexpected": (1 - likely) * ~void}
        return torch.stack([both[direction] for direction in self.directions], dim=1)

    def _scores(self, evidence: Evidence) -> dict[str, float]:
        found = []
        for own, z, pooled in zip(evidence, self._z(evidence), self.pooled, strict=True):
            labels, count = regions_of(z)
            masses = ndimage.sum_labels(z, labels, np.arange(1, count + 1)) if count else [0.0]
            found += [
                float(top_mean(z.reshape(1, -1))[0]),
                float(np.max(masses)),
                float(pooled.score(_pooled(own)[None])[0]),
                float(own.sum()),
            ]
        return dict(zip(self.names, found, strict=True))


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
