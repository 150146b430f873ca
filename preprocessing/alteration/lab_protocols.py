"""Deletion of folds as the lab of the 2021 study does it, on fold graphs.

*raw*, the protocol of 2021: simple surfaces of more than so many native voxels, wholly inside a
box; surface and bottom line become inside. *graph*, the later one: simple surfaces by their voxel
count at 1 mm in MNI space within a mask; surface, bottom line and the junctions of every incident
relation become inside. Both are reproduced to the voxel by the tests.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.alteration.deletion import SizeRange
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.fold_graph import FoldGraph, GraphFold, Points
from foldnorm.preprocessing.spatial.space import ACPC_TO_MNI, Matrix

# (n, 3) MNI mm → (n,) bool: which lie in a region.
InRegion = Callable[[NDArray[np.float64]], NDArray[np.bool_]]


@dataclass(frozen=True)
class AcpcBox:
    """A box in AC-PC millimetres of AIMS, in which graphs give the boxes of their folds.

    Attributes:
        low: (3,) corner.
        high: (3,) corner.
    """

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    @classmethod
    def from_mni(cls, low: NDArray[np.float64], high: NDArray[np.float64]) -> "AcpcBox":
        """Smallest box that holds a box of MNI mm."""
        choice = np.array(list(np.ndindex(2, 2, 2)), dtype=np.bool_)
        corners = np.where(choice, high, low)
        back = np.linalg.inv(ACPC_TO_MNI)
        there = corners @ back[:3, :3].T + back[:3, 3]
        return cls(_three(there.min(axis=0)), _three(there.max(axis=0)))

    def holds(self, fold: GraphFold, graph: FoldGraph) -> bool:
        """Return whether the bounding box of a fold lies wholly inside.

        Raises:
            InputError: the graph gives no box of the fold.
        """
        try:
            low, high = (
                np.array([float(n) for n in fold.attributes[f"Tal_boundingbox_{end}"].split()])
                for end in ("min", "max")
            )
        except (KeyError, ValueError):
            raise InputError(
                f"fold {fold.number} has no Tal_boundingbox_min and _max: {graph.path}"
            ) from None
        return bool((low >= self.low).all() and (high <= self.high).all())


def raw_candidates(
    graph: FoldGraph, box: AcpcBox | None, sizes: SizeRange
) -> list[tuple[GraphFold, int]]:
    """Folds that the protocol of 2021 may delete, and their sizes.

    Args:
        graph: of the hemisphere.
        box: that holds them; None is everywhere.
        sizes: number of native voxels of the simple surface.
    """
    return [
        (fold, len(fold.surface))
        for fold in graph.folds
        if sizes.holds(len(fold.surface)) and (box is None or box.holds(fold, graph))
    ]


def graph_candidates(
    graph: FoldGraph, to_mni: Matrix, in_region: InRegion | None, sizes: SizeRange
) -> list[tuple[GraphFold, int]]:
    """Folds that the later protocol may delete, and their sizes.

    Args:
        graph: of the hemisphere.
        to_mni: (4, 4), voxel in AIMS order → MNI mm.
        in_region: the region; None is everywhere.
        sizes: number of 1 mm MNI voxels of the simple surface within the region.
    """
    found = []
    for fold in graph.folds:
        mm = fold.surface @ to_mni[:3, :3].T + to_mni[:3, 3]
        voxels = np.unique(np.rint(mm), axis=0)
        size = len(voxels) if in_region is None else int(in_region(voxels).sum())
        if sizes.holds(size):
            found.append((fold, size))
    return found


def erased_voxels(graph: FoldGraph, fold: GraphFold, *, junctions: bool) -> Points:
    """Voxels in AIMS order, (n, 3), that become inside when a fold is deleted.

    Args:
        graph: of the hemisphere.
        fold: to delete.
        junctions: those of every incident relation too, as the later protocol has it.
    """
    relations = graph.relations_of(fold) if junctions else []
    return np.concatenate([fold.surface, fold.bottom, *(r.points for r in relations)])


def _three(values: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(n) for n in values)
    return x, y, z
