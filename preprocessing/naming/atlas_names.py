"""Names of the folds of a hemisphere, by where they lie in an atlas of sulci."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from foldnorm.preprocessing.naming.alignment import (
    LEAST_DENSITY,
    Alignment,
    Points,
    align,
    fold_means,
    roughly_placed,
    transformed,
)
from foldnorm.preprocessing.naming.atlas import AtlasSide
from foldnorm.preprocessing.naming.learned_names import LearnedNames
from foldnorm.preprocessing.naming.sulcus_shifts import shifted_means
from foldnorm.preprocessing.spatial.space import Matrix

# Power of P(place | sulcus) at which a posterior of .9 is right in nine of ten voxels: set on the
# four hemispheres of two people whose names are at hand.
SHARPNESS = 1.5


@dataclass(frozen=True)
class AtlasFoldNames:
    """Folds of a hemisphere and what each may be named.

    Attributes:
        sulci: names, n of them.
        labels: (F,) of the folds.
        posterior: (F, n), probability of each name; a row of zeros where a fold is unknown: no
            sulcus of the atlas runs there. What a row lacks to 1 is the probability of no name.
        alignment: of the hemisphere with the atlas, from where it was placed.
        to_atlas: (4, 4), mm of the points as they were given → mm of the atlas.
    """

    sulci: tuple[str, ...]
    labels: NDArray[np.integer]
    posterior: NDArray[np.float64] = field(repr=False)
    alignment: Alignment
    to_atlas: Matrix = field(repr=False)

    def names(self, rank: int = 0) -> list[str]:
        """Name of each fold, or the next likely one; empty where none is likelier."""
        return [self.sulci[n] if p else "" for n, p in zip(*self._ranked(rank), strict=True)]

    def probabilities(self, rank: int = 0) -> NDArray[np.float64]:
        """Posterior of `names`, (F,); 0 where there is none."""
        return self._ranked(rank)[1]

    def _ranked(self, rank: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the number of the name of a rank, or of none, and its probability, 0 of none."""
        none = np.maximum(1 - self.posterior.sum(axis=1), 0)
        order = np.argsort(-np.column_stack([self.posterior, none]), axis=1, kind="stable")[:, rank]
        named = np.column_stack([self.posterior, np.zeros(len(none))])
        return order, named[np.arange(len(order)), order]


def name_by_atlas(
    side: AtlasSide,
    points: Points,
    folds: NDArray[np.integer],
    *,
    is_placed: bool = True,
    learned: LearnedNames | None = None,
    hemi: str = "",
    alignment: Alignment | None = None,
    shifts: bool = True,
) -> AtlasFoldNames:
    """Align a hemisphere with an atlas, shift each sulcus to its folds, and name these.

    Args:
        side: of the atlas.
        points: (N, 3), mm, of voxels of folds.
        folds: (N,), label of each point's fold.
        is_placed: the points lie in the space of the atlas, or near; else they are brought there
            by their extent first.
        learned: what names the folds where they lie in the atlas; else it is their density there.
        hemi: ``L`` or ``R``, of the hemisphere that is named by what was learned.
        alignment: from there on, if it is known already.
        shifts: shift sulci where nothing was learned, see `shifted_means`.
    """
    start = np.eye(4) if is_placed else roughly_placed(side, points)
    alignment = alignment or align(side, transformed(points, start), folds)
    to_atlas = alignment.matrix @ start
    placed = transformed(points, to_atlas)
    voxels = transformed(placed, side.to_voxel)
    labels, numbers = np.unique(folds, return_inverse=True)
    density = fold_means(side.log_density, voxels.astype(np.float32), numbers, len(labels))
    if learned is None:
        if shifts:
            density, _ = shifted_means(side, voxels, numbers, density)
        names, posterior = side.names, softmax(SHARPNESS * density.astype(np.float64), axis=1)
    else:
        names, posterior = learned.names, learned.posterior(placed, numbers, hemi)
    posterior[density.max(axis=1) < np.log(LEAST_DENSITY)] = 0
    return AtlasFoldNames(names, labels, posterior, alignment, to_atlas)
