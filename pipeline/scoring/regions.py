"""Regions of a map where a brain departs from healthy ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.space import Matrix

NEIGHBOURS = np.ones((3, 3, 3), dtype=np.bool_)  # 26-connected: a diagonal sheet is one region
N_LISTED = 3  # regions of a brain and direction


def label_regions(z: NDArray[np.floating], threshold: float) -> tuple[NDArray[np.int32], int]:
    """Number the 26-connected regions of voxels that reach a threshold.

    Returns:
        (I, J, K) number of each voxel's region, 0 for none; and how many there are.
    """
    labels, count = ndimage.label(z >= threshold, NEIGHBOURS)
    return labels, int(count)


def region_masses(
    z: NDArray[np.floating], labels: NDArray[np.int32], count: int, threshold: float
) -> NDArray[np.float64]:
    """Mass of each region: the sum of what its voxels have above the threshold, (count,).

    The cluster mass of Bullmore et al. 1999 (doi:10.1109/42.750253): a large region just above the
    threshold weighs as little as a small one far above it.
    """
    if not count:
        return np.zeros(0)
    numbers = np.arange(1, count + 1)
    return np.asarray(ndimage.sum_labels(z - threshold, labels, numbers), dtype=np.float64)


def largest_mass(z: NDArray[np.floating], threshold: float) -> float:
    """Mass of the heaviest region, 0 where there is none."""
    return float(region_masses(z, *label_regions(z, threshold), threshold).max(initial=0.0))


def strongest_regions(
    z: NDArray[np.floating], affine: Matrix, threshold: float, to_mni: Matrix | None = None
) -> list[dict[str, Any]]:
    """The heaviest regions of a map, at most `N_LISTED`.

    Args:
        z: (I, J, K) of a brain.
        affine: (4, 4), voxel index → world mm.
        threshold: that voxels of a region reach.
        to_mni: (4, 4), voxel index → MNI mm, if that is known.

    Returns:
        ``voxels`` (n, 3), ``x``, ``y``, ``z`` of the weighted middle in mm, the same in MNI mm,
        ``mm3``, ``peak_z``, ``mass``.
    """
    labels, count = label_regions(z, threshold)
    masses = region_masses(z, labels, count, threshold)
    voxel = abs(np.linalg.det(affine[:3, :3]))
    found = []
    for number in np.argsort(-masses, kind="stable")[:N_LISTED]:
        inside = np.argwhere(labels == number + 1)
        weights = z[tuple(inside.T)]
        middle = np.append(np.average(inside, axis=0, weights=weights), 1)
        place = dict(zip("xyz", map(float, affine @ middle), strict=False))
        if to_mni is not None:
            place |= {f"{a}_mni": float(v) for a, v in zip("xyz", to_mni @ middle, strict=False)}
        found.append(
            {
                "voxels": inside,
                **place,
                "mm3": float(len(inside) * voxel),
                "peak_z": float(weights.max()),
                "mass": float(masses[number]),
            }
        )
    return found
