"""Localisation of deletions: the strongest region of a map against what was deleted."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.regions import strongest_regions
from foldnorm.preprocessing.cohort.cohort import Cohort


def localisation(
    cohort: Cohort,
    index: int,
    altered: NDArray[np.uint8],
    z: NDArray[np.floating],
    threshold: float,
) -> dict[str, Any]:
    """Measure how well the strongest region of an altered brain meets what was deleted from it.

    Args:
        cohort: the healthy volumes.
        index: which of them was altered.
        altered: (I, J, K) class numbers, after something was taken away.
        z: (I, J, K) evidence of missing folds in it.
        threshold: z that the voxels of a component reach.

    Returns:
        `LOCALISATION_FIGURES`: ``hit``, 1 if the strongest region holds a deleted voxel; ``rank``
        of the first region that does, 0 if none of those listed does; ``dice`` of all voxels that
        reach the threshold and the deleted ones; ``error_mm`` from the middle of the strongest
        region to that of the deletion, NaN without a region.
    """
    void = cohort.scheme.void
    deleted = (np.asarray(cohort.volumes[index]) > void) & (altered <= void)
    strongest = strongest_regions(z, cohort.affine, threshold)
    hits = [bool(deleted[tuple(region["voxels"].T)].any()) for region in strongest]
    error = float("nan")
    if strongest:
        middle = np.append(np.argwhere(deleted).mean(axis=0), 1)
        apart = (cohort.affine @ middle)[:3] - [strongest[0][axis] for axis in "xyz"]
        error = float(np.linalg.norm(apart))
    both = (z >= threshold) & deleted
    return {
        "hit": int(bool(hits) and hits[0]),
        "rank": hits.index(True) + 1 if any(hits) else 0,
        "dice": float(2 * both.sum() / ((z >= threshold).sum() + deleted.sum())),
        "error_mm": error,
    }
