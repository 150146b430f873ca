"""Folds of volumes that come without fold labels."""

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.topology.simple_surfaces import simple_surfaces


def cut_into_folds(volume: NDArray[np.uint8], scheme: LabelScheme) -> NDArray[np.uint16]:
    """Cut the structure of a volume (the sulci of a skeleton) into simple surfaces.

    What touches the outside of the brain, or the end of the volume, is taken for hull.

    Args:
        volume: (I, J, K) class numbers.
        scheme: of them.

    Returns:
        (I, J, K) uint16: the number of each voxel's fold, 1 for the largest; 0 for none.
    """
    structure = scheme.foreground(volume)
    outside = np.pad(scheme.outside(volume), 1, constant_values=True)
    inner = (slice(1, -1),) * 3
    touched = np.zeros(structure.shape, dtype=np.bool_)
    for axis in range(3):
        for step in (-1, 1):
            touched |= np.roll(outside, step, axis)[inner]
    return simple_surfaces(structure, structure & touched)
