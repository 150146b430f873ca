"""Voids by sulcus: evidence that one is missing which does not rest on the names of folds."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.map_scores import Map
from foldnorm.preprocessing.naming.alignment import fold_means, transformed
from foldnorm.preprocessing.naming.atlas import AtlasSide
from foldnorm.preprocessing.spatial.space import Matrix

# Settled on one site (MMRR-21 of Mindboggle-101), and on no other.
LEAST_Z = 1.5  # standard deviations beyond which a place counts as void


def void_by_sulcus(
    z: Map, side: AtlasSide, to_atlas: Matrix, sulci: Sequence[str]
) -> NDArray[np.float64]:
    """Sum up what is void where an atlas has each sulcus, in the space of the atlas.

    With z the departure of a place's distance to the nearest fold, and P(n) the share of brains
    whose sulcus n runs there, Σ max(z − `LEAST_Z`, 0) · P(n) · mm³.

    Args:
        z: (I, J, K), standard deviations of healthy brains, see `VoidScores.maps`.
        side: of the atlas.
        to_atlas: (4, 4), voxel → mm of the atlas.
        sulci: n names, those of the side among them.

    Returns:
        (n,) standard deviations × mm³; 0 of a sulcus that the side lacks.
    """
    found = np.zeros(len(sulci))
    places = np.argwhere(z > LEAST_Z)
    if len(places):
        voxels = transformed(places, side.to_voxel @ to_atlas).astype(np.float32)
        numbers = np.arange(len(places))
        density = np.exp(fold_means(side.log_density, voxels, numbers, len(places)))
        beyond = (z[tuple(places.T)] - LEAST_Z).astype(np.float64)
        mm3 = abs(float(np.linalg.det(to_atlas[:3, :3])))
        found[[sulci.index(name) for name in side.names]] = beyond @ density * mm3
    return found
