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

from foldnorm.preprocessing.schemes import LabelScheme

Volumes = Callable[[], Iterable[NDArray[np.uint8]]]
Maps = NDArray[np.float32]

MAX_SIDE = 40  # blocks along the longest side of a distance map
MAX_DISTANCE = 8.0  # voxels; farther is all the same
PCA_COMPONENTS = 32
TOP_SHARE = 0.002  # of the map that a local score looks at
PREVALENCE_PRIOR = 1.0  # pseudo-count a class in the prevalence map


@dataclass
class Baselines:
    """The baselines, fitted together in two passes over the training volumes.

    Attributes:
        scheme: label scheme of the volumes.
    """

    scheme: LabelScheme
    log_prevalence: NDArray[np.float32] = field(init=False)

    NAMES = (
        "baseline_fewer_voxels",
        "baseline_prevalence",
        "baseline_distance_z",
        "baseline_pca_residual",
    )

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
        self.mean, self.sd = maps.mean(axis=0), maps.std(axis=0) + 1e-3
        centred = maps - self.mean
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        self.axes = axes[: min(PCA_COMPONENTS, max(number // 4, 1))]
        residual = centred - (centred @ self.axes.T) @ self.axes
        self.residual_sd = residual.std(axis=0) + 1e-3
        return self

    def score(self, volumes: Volumes) -> dict[str, NDArray[np.float64]]:
        """Scores of each volume by name, (N,) each; one volume in memory at a time."""
        found = [self._scores(volume) for volume in volumes()]
        values = np.array(found, dtype=np.float64).reshape(-1, len(self.NAMES))
        return dict(zip(self.NAMES, values.T, strict=True))

    def _scores(self, volume: NDArray[np.uint8]) -> tuple[float, ...]:
        log_p = np.take_along_axis(self.log_prevalence, volume[None].astype(np.intp), axis=0)
        maps = self.maps([volume])
        return (
            -float(self.scheme.foreground(volume).sum()),
            -float(log_p.mean()),
            float(top_mean((maps - self.mean) / self.sd)[0]),
            float(top_mean(self.residuals(maps))[0]),
        )

    def residuals(self, maps: Maps) -> Maps:
        """Where brains are farther from a sulcus than expected: z of the PCA residual, (N, V).

        Args:
            maps: (N, V) of `maps`; a block of these is a voxel where no side is above `MAX_SIDE`.
        """
        centred = maps - self.mean
        return (centred - (centred @ self.axes.T) @ self.axes) / self.residual_sd

    def maps(self, volumes: Iterable[NDArray[np.uint8]]) -> Maps:
        """Distance to the nearest sulcus, truncated, in blocks: (N, V) float32."""
        return np.stack(
            [distance_map(self.scheme.foreground(volume)).ravel() for volume in volumes]
        )


def distance_map(sulcus: NDArray[np.bool_]) -> Maps:
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


def top_mean(maps: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean of the largest `TOP_SHARE` of each row: local evidence that a sum would hide."""
    count = max(round(TOP_SHARE * maps.shape[1]), 1)
    return np.partition(maps, -count, axis=1)[:, -count:].mean(axis=1).astype(np.float64)
