"""The mean brain: the decoded mean code, and the class probabilities of the decoded cohort."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.latent.space import LatentSpace


@dataclass(frozen=True)
class MeanBrain:
    """Result of `mean_brain`.

    Attributes:
        of_mean_code: (I, J, K) uint8, the decoded mean of all codes; of images, intensities.
        average: (C, I, J, K) float32, mean over brains of the class probabilities of their
            reconstructions: where folds always, sometimes, never are; of images, (1, *sides) mean
            intensities.
    """

    of_mean_code: NDArray[Any]
    average: NDArray[np.float32]


def mean_brain(space: LatentSpace) -> MeanBrain:
    """Decode the mean code, and average what all codes decode to.

    A mean code is no brain's: what differs between brains blurs or vanishes in it. The second is
    the honest average.
    """
    (decoded,) = space.decode(space.codes.mean(axis=0, keepdims=True))
    total = np.zeros(decoded.shape, dtype=np.float64)
    for row, code in zip(space.rows, space.codes, strict=True):
        (own,) = space.decode(code[None], row)
        total += own
    return MeanBrain(space.volume_of(decoded), (total / len(space.codes)).astype(np.float32))
