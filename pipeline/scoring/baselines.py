"""Scores without a network: what any model has to beat.

Fitted on the training volumes. A high score means unusual. All work on what a deletion can take
(sulcus in a skeleton), and the maps on blocks no finer than `MAX_SIDE` a side, so that 1 mm
hemispheres fit in memory.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.pipeline.scoring.map_scores import Map, top_share_mean
from foldnorm.pipeline.scoring.normative import NormativeMap
from foldnorm.preprocessing.schemes import LabelScheme

Volumes = Callable[[], Iterable[NDArray[np.uint8]]]

MAX_SIDE = 40  # blocks along the longest side of a distance map
MAX_DISTANCE = 8.0  # voxels; farther is all the same
PCA_COMPONENTS = 32
RESIDUAL_FLOOR = 0.5  # voxels: a sheet is placed no better than that
RESIDUAL_SMOOTHING = 1.0  # blocks, sd
PREVALENCE_PRIOR = 1.0  # pseudo-count a class in the prevalence map


@dataclass
class Baselines:
    """The baselines, fitted together in two passes over the training volumes.

    Attributes:
        scheme: label scheme of the volumes.
    """

    scheme: LabelScheme
    log_prevalence: NDArray[np.float32] = field(init=False)

    NAMES = ("baseline_fewer_voxels", "baseline_prevalence", "baseline_pca_residual")

    def fit(self, volumes: Volumes) -> "Baselines":
        """Fit on training volumes; ``volumes()`` gives them anew at each call."""
        n_classes = self.scheme.n_classes
        counts: NDArray[np.float32] | None = None
        number = 0
        for volume in volumes():
            classes = np.stack([volume == c for c in range(n_classes)])
            counts = classes.astype(np.float32) if counts is None else counts + classes
            number += 1
        assert counts is not None
        share = (counts + PREVALENCE_PRIOR) / (number + PREVALENCE_PRIOR * n_classes)
        self.log_prevalence = np.log(share)
        maps = self.maps(volumes())
        self.mean = maps.mean(axis=0)
        centred = (maps - self.mean).reshape(number, -1)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        self.axes = axes[: min(PCA_COMPONENTS, max(number // 4, 1))]
        residuals = [self.residual(own) for own in maps]
        self.normative = NormativeMap(RESIDUAL_FLOOR, RESIDUAL_SMOOTHING).fit(lambda: residuals)
        return self

    def score(self, volumes: Volumes) -> dict[str, NDArray[np.float64]]:
        """Scores of each volume by name, (N,) each; one volume in memory at a time."""
        found = [self._scores(volume) for volume in volumes()]
        values = np.array(found, dtype=np.float64).reshape(-1, len(self.NAMES))
        return dict(zip(self.NAMES, values.T, strict=True))

    def _scores(self, volume: NDArray[np.uint8]) -> tuple[float, ...]:
        log_p = np.take_along_axis(self.log_prevalence, volume[None].astype(np.intp), axis=0)
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
        centred = (distances - self.mean).ravel()
        return (centred - (centred @ self.axes.T) @ self.axes).reshape(distances.shape)

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
