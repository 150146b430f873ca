"""Missing folds without a network: places that are farther from a fold than in healthy brains."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.pipeline.scoring.conditional import ConditionalNormativeMap
from foldnorm.pipeline.scoring.healthy import Group
from foldnorm.pipeline.scoring.map_scores import Map, MapScores
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.io.schemes import LabelScheme

MAX_DISTANCE = 10.0  # mm; healthy brains are hardly ever farther from a fold or the hull
# All four settled on one site (MMRR-21 of Mindboggle-101) and on no other.
FLOOR = 1.0  # mm, half a voxel of 2 mm: by so much the sheets of two like brains differ
SMOOTHING = 2.0  # mm, sd; less than the distance between two folds
THRESHOLD = 2.5  # standard deviations


class VoidScores(MapScores):
    """Scores of brains by the distance of each place from the nearest fold or the hull.

    Where the hull is open, as at the face of a brain that was cut, the border of the brain takes
    its place: otherwise all that lies behind the cut would be far from any fold.

    Where a fold is missing, and nothing has taken its place, the middle of the void is too far from
    any other. No network, no training: the baseline that every model must beat.

    Args:
        scheme: label scheme of the volumes; a *fold* is what a deletion can take.
        voxel_size: mm.
        covariates: see `MapScores`.
    """

    FITTED_ON: ClassVar[Group] = "all_known"
    PREFIX: ClassVar = {"missing": "void"}
    THRESHOLD: ClassVar = THRESHOLD
    QUANTITY: ClassVar = "distance to the nearest fold"
    UNIT: ClassVar = "mm"

    def __init__(
        self, scheme: LabelScheme, voxel_size: Sequence[float], covariates: Sequence[str] = ()
    ) -> None:
        super().__init__(covariates)
        self.scheme, self.voxel_size = scheme, tuple(voxel_size)
        self.normative = ConditionalNormativeMap(
            FLOOR, [SMOOTHING / side for side in self.voxel_size]
        )

    def raw_maps(self, brains: Iterable[Brain]) -> Iterator[Map]:
        """Distance to the nearest fold or hull, mm, (1, I, J, K) float32; 0 outside the brain."""
        for brain in brains:
            yield distance_to_folds(brain.volume, self.scheme, self.voxel_size)[None]


def distance_to_folds(
    volume: NDArray[np.uint8], scheme: LabelScheme, voxel_size: Sequence[float]
) -> Map:
    """Distance of each voxel inside to the nearest fold, hull or border, at most `MAX_DISTANCE`.

    Args:
        volume: (I, J, K) class numbers.
        scheme: of the volume.
        voxel_size: mm.

    Returns:
        (I, J, K) float32, mm; 0 outside the brain.
    """
    inside = ~(scheme.foreground(volume) | scheme.outside(volume))
    if inside.all():
        return np.full(volume.shape, MAX_DISTANCE, dtype=np.float32)
    distance = ndimage.distance_transform_edt(inside, sampling=voxel_size)
    return np.minimum(distance, MAX_DISTANCE).astype(np.float32)
