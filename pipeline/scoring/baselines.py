"""Scores without a network: what any model has to beat.

Fitted on the training volumes. A high score means unusual. All work on what a deletion can take
(sulcus in a skeleton), and the maps on blocks no finer than `MAX_SIDE` a side, so that 1 mm
hemispheres fit in memory.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.pipeline.scoring.healthy import Group
from foldnorm.pipeline.scoring.map_scores import Map, ScoreTable, top_share_mean
from foldnorm.pipeline.scoring.normative import NormativeMap
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.io.schemes import LabelScheme

MAX_SIDE = 40  # blocks along the longest side of a distance map
MAX_DISTANCE = 8.0  # voxels; farther is all the same
PCA_COMPONENTS = 32
RESIDUAL_FLOOR = 0.5  # voxels: a sheet is placed no better than that
RESIDUAL_SMOOTHING = 1.0  # blocks, sd
PREVALENCE_PRIOR = 1.0  # pseudo-count a class in the prevalence map


@dataclass
class Baselines(Fitted):
    """The baselines, fitted together in two passes over the training volumes.

    Attributes:
        scheme: label scheme of the volumes.
        log_prevalence_: (classes, I, J, K) float32, log of the share of each class at each voxel.
        mean_: (I, J, K) of the distance maps, in blocks.
        axes_: (k, blocks) their principal components.
        normative: of what these leave over.
    """

    scheme: LabelScheme

    FITTED_ON: ClassVar[Group] = "training"
    NAMES: ClassVar = ("baseline_fewer_voxels", "baseline_prevalence", "baseline_pca_residual")

    def __post_init__(self) -> None:
        self.normative = NormativeMap(RESIDUAL_FLOOR, RESIDUAL_SMOOTHING)

    def fit(self, healthy: Sequence[Brain]) -> Self:
        """Fit on training brains."""
        n_classes = self.scheme.n_classes
        counts: NDArray[np.float32] | None = None
        number = 0
        for brain in healthy:
            classes = np.stack([brain.volume == c for c in range(n_classes)])
            counts = classes.astype(np.float32) if counts is None else counts + classes
            number += 1
        assert counts is not None
        share = (counts + PREVALENCE_PRIOR) / (number + PREVALENCE_PRIOR * n_classes)
        self.log_prevalence_ = np.log(share)
        maps = self.maps(brain.volume for brain in healthy)
        self.mean_ = maps.mean(axis=0)
        centred = (maps - self.mean_).reshape(number, -1)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        self.axes_ = axes[: min(PCA_COMPONENTS, max(number // 4, 1))]
        residuals = [self.residual(own) for own in maps]
        self.normative.fit(lambda: residuals)
        return self

    def state_dict(self) -> State:
        """Return sums over the training brains."""
        return {
            "log_prevalence": self.log_prevalence_,
            "mean": self.mean_,
            "axes": self.axes_,
            "normative": self.normative.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        self.log_prevalence_, self.mean_ = state["log_prevalence"], state["mean"]
        self.axes_ = state["axes"]
        self.normative.load_state_dict(state["normative"])
        return self

    def score(self, brains: Iterable[Brain]) -> ScoreTable:
        """Scores of each brain by name, (N,) each; one volume in memory at a time."""
        found = [self._scores(brain.volume) for brain in brains]
        values = np.array(found, dtype=np.float64).reshape(-1, len(self.NAMES))
        return dict(zip(self.NAMES, values.T, strict=True))

    def _scores(self, volume: NDArray[np.uint8]) -> tuple[float, ...]:
        log_p = np.take_along_axis(self.log_prevalence_, volume[None].astype(np.intp), axis=0)
        residual = self.residual(self.maps([volume])[0])
        return (
            -float(self.scheme.foreground(volume).sum()),
            -float(log_p.mean()),
            top_share_mean(self.normative.z(residual)),
        )

    def residual(self, distances: Map) -> Map:
        """Distances to the nearest sulcus beyond what the principal components explain.

        Args:
            distances: (I, J, K) of `maps`; a block is a voxel where no side is above `MAX_SIDE`.
        """
        centred = (distances - self.mean_).ravel()
        return (centred - (centred @ self.axes_.T) @ self.axes_).reshape(distances.shape)

    def maps(self, volumes: Iterable[NDArray[np.uint8]]) -> Map:
        """Distance to the nearest sulcus, truncated, in blocks: (N, I, J, K) float32."""
        return np.stack([distance_map(self.scheme.foreground(volume)) for volume in volumes])


def distance_map(sulcus: NDArray[np.bool_]) -> Map:
    """Distance in voxels to the nearest true voxel, at most `MAX_DISTANCE`, averaged in blocks."""
    if sulcus.any():
        distance = np.minimum(ndimage.distance_transform_edt(~sulcus), MAX_DISTANCE)
    else:
        distance = np.full(sulcus.shape, MAX_DISTANCE)
    block = -(-max(sulcus.shape) // MAX_SIDE)
    if block == 1:
        return distance.astype(np.float32)
    padded = np.pad(distance, [(0, -side % block) for side in sulcus.shape], mode="edge")
    i, j, k = (side // block for side in padded.shape)
    blocks = padded.reshape(i, block, j, block, k, block)
    return blocks.mean(axis=(1, 3, 5)).astype(np.float32)
