"""Training volumes in which a named sulcus never formed, and others have filled its place.

A network that has only seen healthy brains finds each of its sulci in any brain: it names what lies
in the place of one that is missing. So some are taken out of training volumes, and their place is
filled with small folds of the same brain, mirrored and moved there, that are no named sulcus.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldnorm.models.noise import seed_of
from foldnorm.preprocessing.io.schemes import LabelScheme

FEWEST_VOXELS = 20  # of a sulcus that is taken out, and of a fold that takes its place
FILLERS = 2, 6  # folds that fill a place
NEAR = 3.0  # voxels from the old course at most, at which a filler is centred
UNNAMED = 0


@dataclass(frozen=True)
class Substitutions:
    """Takes sulci out of volumes, and fills their place.

    Attributes:
        share: of the volumes that it is done to.
        scheme: of the volumes.
        seed: of the draws.
    """

    share: float
    scheme: LabelScheme
    seed: int

    def __call__(
        self,
        volume: NDArray[np.uint8],
        named: NDArray[np.uint8],
        folds: NDArray[np.uint8],
        draw: int,
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Alter one volume, or leave it as it is.

        Args:
            volume: (I, J, K) class numbers.
            named: (I, J, K) numbers of sulci.
            folds: (I, J, K) numbers of folds.
            draw: its number; the same draw gives the same.

        Returns:
            The volume, and what its voxels are named.
        """
        rng = np.random.default_rng(seed_of(self.seed, "substitution", draw))
        if rng.random() >= self.share:
            return volume, named
        sulcus = self.scheme.foreground(volume)
        counts = np.bincount(named[sulcus], minlength=1)
        counts[UNNAMED] = 0
        large = np.flatnonzero(counts >= FEWEST_VOXELS)
        if not len(large):
            return volume, named
        old = sulcus & (named == rng.choice(large))
        volume, named = volume.copy(), named.copy()
        volume[old], named[old] = self.scheme.void, UNNAMED
        course = np.argwhere(old)
        fillers = _unnamed_folds(self.scheme.foreground(volume) & (named == UNNAMED), folds)
        for _ in range(int(rng.integers(*FILLERS)) if fillers else 0):
            places = fillers[int(rng.integers(len(fillers)))]
            places = (places - places.mean(axis=0)) * rng.choice([-1, 1], 3)
            middle = course[rng.integers(len(course))] + rng.uniform(-NEAR, NEAR, 3)
            places = np.rint(places + middle).astype(int)
            places = places[((places >= 0) & (places < volume.shape)).all(axis=1)]
            free = volume[tuple(places.T)] == self.scheme.void
            volume[tuple(places[free].T)] = self.scheme.top
        return volume, named


def _unnamed_folds(unnamed: NDArray[np.bool_], folds: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Voxels of each fold, (n, 3), that is no named sulcus and no part of the hull."""
    numbers = folds[unnamed]
    places = np.argwhere(unnamed)
    order = np.argsort(numbers, kind="stable")
    cuts = np.flatnonzero(np.diff(numbers[order])) + 1
    groups = np.split(order, cuts)
    return [places[g] for g in groups if numbers[g[0]] and len(g) >= FEWEST_VOXELS]
