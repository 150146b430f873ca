"""Places of a map where a brain departs from healthy ones: components, and the regions in them.

A *component* is what is connected and reaches a threshold; it decides how unusual a brain is.
Around a high peak it is many times as large as what is missing there, since a smoothed map falls
off slowly, so what is shown of it is a *region*: its strongest part.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.spatial.space import Matrix

NEIGHBOURS = np.ones((3, 3, 3), dtype=np.bool_)  # 26-connected: a diagonal sheet is one component
N_LISTED = 3  # regions of a brain and direction
OUTLINE = 0.5  # of the peak: the isocontour at half the maximum, as lesions are outlined in PET


def label_components(z: NDArray[np.floating], threshold: float) -> tuple[NDArray[np.int32], int]:
    """Label the 26-connected components of voxels that reach a threshold.

    Returns:
        (I, J, K) number of each voxel's component, 0 for none; and how many there are.
    """
    labels, count = ndimage.label(z >= threshold, NEIGHBOURS)
    return labels, int(count)


def component_masses(
    z: NDArray[np.floating], labels: NDArray[np.int32], count: int, threshold: float
) -> NDArray[np.float64]:
    """Mass of each component: the sum of what its voxels have above the threshold, (count,).

    The cluster mass of Bullmore et al. 1999 (doi:10.1109/42.750253): a large component just above
    the threshold weighs as little as a small one far above it.
    """
    if not count:
        return np.zeros(0)
    numbers = np.arange(1, count + 1)
    return np.asarray(ndimage.sum_labels(z - threshold, labels, numbers), dtype=np.float64)


def largest_mass(z: NDArray[np.floating], threshold: float) -> float:
    """Mass of the heaviest component, 0 where there is none."""
    return float(component_masses(z, *label_components(z, threshold), threshold).max(initial=0.0))


def outline(z: NDArray[np.floating], component: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Region of a component: what reaches half of its peak and is connected with the peak there.

    Args:
        z: (I, J, K) of a brain.
        component: (I, J, K), the voxels of the component.

    Returns:
        (n, 3) voxels.
    """
    inside = np.where(component, z, 0)
    peak = np.unravel_index(int(inside.argmax()), z.shape)
    parts, _ = label_components(inside, OUTLINE * float(inside[peak]))
    return np.argwhere(parts == parts[peak])


def strongest_regions(
    z: NDArray[np.floating], affine: Matrix, threshold: float, to_mni: Matrix | None = None
) -> list[dict[str, Any]]:
    """Find the regions of the heaviest components of a map, at most `N_LISTED`, one of each.

    Args:
        z: (I, J, K) of a brain.
        affine: (4, 4), voxel index → world mm.
        threshold: above 0; that voxels of a component reach.
        to_mni: (4, 4), voxel index → MNI mm, if that is known.

    Returns:
        ``voxels`` (n, 3) of the region, see `outline`; ``x``, ``y``, ``z`` of its weighted middle
        in mm, the same in MNI mm; ``mm3``, ``peak_z``; and ``mass`` of the whole component.
    """
    labels, count = label_components(z, threshold)
    masses = component_masses(z, labels, count, threshold)
    voxel = abs(np.linalg.det(affine[:3, :3]))
    found = []
    for number in np.argsort(-masses, kind="stable")[:N_LISTED]:
        inside = outline(z, labels == number + 1)
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
