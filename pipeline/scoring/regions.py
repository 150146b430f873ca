"""Regions of a map: what is shown of the places where a brain departs from healthy ones.

A component (see `foldnorm.pipeline.scoring.map_scores`) decides how unusual a brain is. Around a
high peak it is many times as large as what is missing there, since a smoothed map falls off slowly,
so what is shown of it is a *region*: its strongest part.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.map_scores import component_masses, label_components
from foldnorm.preprocessing.spatial.space import Matrix

N_LISTED = 3  # regions of a brain and direction
OUTLINE = 0.5  # of the peak: the isocontour at half the maximum, as lesions are outlined in PET


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
