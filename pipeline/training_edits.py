"""What is erased from healthy training volumes, so that a network learns to bring it back.

What is keyed by the number of a draw is the same in a resumed run, and on one process or many.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldnorm.models.noise import seed_of
from foldnorm.models.protocols import EditKind
from foldnorm.preprocessing.schemes import LabelScheme

UNTOUCHED = 0.25  # share of the volumes that stay as they are
FEWEST_VOXELS = 20  # of a fold that is worth restoring
RADII = 2.0, 7.0  # of balls, and of what slabs and noise are cut from, voxels
SLAB = 0.75, 2.5  # half a thickness, voxels
DROPPED = 0.4, 1.0  # share of the sulcus that noise takes
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class TrainingEdits:
    """Erases structure (sulcus, in a skeleton) from volumes.

    Attributes:
        kinds: one is drawn for each volume.
        most: edits of a volume.
        scheme: of the volumes.
        seed: of the draws.
    """

    kinds: Sequence[EditKind]
    most: int
    scheme: LabelScheme
    seed: int

    def __call__(self, volumes: NDArray[np.integer], draw: int) -> Labels:
        """Erase something from a volume.

        Args:
            volumes: (1, I, J, K) class numbers, or with fold labels (2, I, J, K).
            draw: its number.

        Returns:
            (2, I, J, K) uint8: edited, and as it was.
        """
        rng = np.random.default_rng(seed_of(self.seed, "edit", draw))
        healthy = volumes[0].astype(np.uint8)
        edited = healthy.copy()
        if rng.random() >= UNTOUCHED:
            kind = self.kinds[int(rng.integers(len(self.kinds)))]
            for _ in range(int(rng.integers(1, self.most + 1))):
                self._erase(edited, volumes, kind, rng)
        return np.stack([edited, healthy])

    def _erase(
        self, edited: Labels, volumes: NDArray[np.integer], kind: EditKind, rng: np.random.Generator
    ) -> None:
        sulcus = self.scheme.foreground(edited)
        if kind == "folds":
            counts = np.bincount(volumes[1][sulcus])
            counts[:1] = 0  # no fold
            large = np.flatnonzero(counts >= FEWEST_VOXELS)
            if len(large):
                edited[sulcus & (volumes[1] == rng.choice(large))] = self.scheme.void
            return
        places = np.argwhere(sulcus)
        if not len(places):
            return
        apart = places - places[rng.integers(len(places))]
        inside = np.linalg.norm(apart, axis=1) <= rng.uniform(*RADII)
        if kind == "slabs":
            normal = rng.standard_normal(3)
            inside = np.linalg.norm(apart, axis=1) <= 2 * rng.uniform(*RADII)
            inside &= np.abs(apart @ normal) <= rng.uniform(*SLAB) * np.linalg.norm(normal)
        if kind == "noise":
            inside &= rng.random(len(places)) < rng.uniform(*DROPPED)
        edited[tuple(places[inside].T)] = self.scheme.void
