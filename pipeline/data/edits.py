"""Edits of healthy training volumes that a network learns to undo.

What is keyed by the number of a draw is the same in a resumed run, and on one process or many.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.models.noise import seed_of
from foldnorm.models.protocols import ADDING, EditKind
from foldnorm.preprocessing.alteration.fold_erasure import fold_and_junctions
from foldnorm.preprocessing.io.schemes import LabelScheme

UNTOUCHED = 0.15  # share of the volumes that stay as they are
# mm² of sheet. Smaller folds come and go from brain to brain: a network that is asked for them
# learns to answer everywhere. 100 is half the smallest fold that the benchmark deletes.
MIN_FOLD_AREA = 100.0
SLAB = 0.4  # of a radius at most, half the thickness of a slab
NEARBY = 5.0  # mm around a voxel whose sulcus says how a slab lies
DROPPED = 0.4, 1.0  # share of the sulcus that noise takes
MOVED = 5.0, 15.0  # mm that a copy of a fold is moved by
Labels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class TrainingEdits:
    """Erases structure (sulcus, in a skeleton) from volumes, or adds some.

    Attributes:
        kinds: one is drawn for each volume.
        most: edits of a volume.
        scheme: of the volumes.
        voxel_size: mm.
        radii: smallest and largest of balls, sheets, and what slabs and noise are cut from, mm.
        seed: of the draws.
        has_hull: whether what touches the outside is the hull, which stays.
    """

    kinds: Sequence[EditKind]
    most: int
    scheme: LabelScheme
    voxel_size: tuple[float, ...]
    radii: tuple[float, float]
    seed: int
    has_hull: bool = True

    def __call__(self, volumes: NDArray[np.integer], draw: int) -> Labels:
        """Edit a volume.

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
            hull = self._hull(healthy)  # no edit alters what lies outside
            for _ in range(int(rng.integers(1, self.most + 1))):
                edit = self._add if kind in ADDING else self._erase
                edit(edited, volumes, hull, kind, rng)
        return np.stack([edited, healthy])

    def _erase(
        self,
        edited: Labels,
        volumes: NDArray[np.integer],
        hull: Mask,
        kind: EditKind,
        rng: np.random.Generator,
    ) -> None:
        if kind == "folds":
            edited[self._fold(volumes[1], edited, hull, rng)] = self.scheme.void
            return
        sulcus = self.scheme.foreground(edited)
        places = np.argwhere(sulcus & ~hull)
        if not len(places):
            return
        apart = (places - places[rng.integers(len(places))]) * self.voxel_size
        distance = np.linalg.norm(apart, axis=1)
        radius = rng.uniform(*self.radii)
        inside = distance <= radius
        if kind == "slabs":
            thickness = max(SLAB * rng.random() * radius, max(self.voxel_size))
            inside &= np.abs(apart @ _normal(apart[distance <= NEARBY], rng)) <= thickness
        if kind == "noise":
            inside &= rng.random(len(places)) < rng.uniform(*DROPPED)
        edited[tuple(places[inside].T)] = self.scheme.void

    def _fold(
        self, labels: NDArray[np.integer], volume: Labels, hull: Mask, rng: np.random.Generator
    ) -> Mask:
        """Mask of one fold with its junctions, drawn ∝ √size; empty if all are too small.

        The square root lies between drawing by fold, where small ones are nearly all, and drawing
        by voxel, where the few largest are.
        """
        sulcus = self.scheme.foreground(volume)
        hull = sulcus & hull
        counts = np.bincount(labels[sulcus & ~hull], minlength=1).astype(np.float64)
        counts[0] = 0  # no fold
        face = float(np.prod(self.voxel_size)) ** (2 / 3)
        weights = np.sqrt(np.where(counts * face >= MIN_FOLD_AREA, counts, 0))
        if not weights.any():
            return np.zeros_like(sulcus)
        label = int(rng.choice(len(weights), p=weights / weights.sum()))
        return fold_and_junctions(sulcus, labels.astype(np.uint16, copy=False), label, hull)

    def _hull(self, volume: Labels) -> Mask:
        """Return the mask of voxels that touch the outside, of no fold; empty without a hull."""
        if self.scheme.void == self.scheme.fill or not self.has_hull:
            return np.zeros(volume.shape, dtype=np.bool_)
        return ndimage.binary_dilation(volume == self.scheme.fill)

    def _add(
        self,
        edited: Labels,
        volumes: NDArray[np.integer],
        hull: Mask,
        kind: EditKind,
        rng: np.random.Generator,
    ) -> None:
        """Structure where there is none; what lies outside the brain stays as it is."""
        if kind == "copies":
            places = np.argwhere(self._fold(volumes[1], volumes[0].astype(np.uint8), hull, rng))
            moved = _direction(rng) * rng.uniform(*MOVED) / self.voxel_size
            places = places + np.rint(moved).astype(int)
        else:
            inside = np.argwhere(edited == self.scheme.void)
            if not len(inside):
                return
            apart = inside - inside[rng.integers(len(inside))]
            normal = _direction(rng)
            thin = np.abs(apart @ normal) <= 0.5 * np.abs(normal).max()  # a naive digital plane
            near = np.linalg.norm(apart * self.voxel_size, axis=1) <= rng.uniform(*self.radii)
            places = inside[thin & near]
        places = places[((places >= 0) & (places < edited.shape)).all(axis=1)]
        free = edited[tuple(places.T)] == self.scheme.void
        edited[tuple(places[free].T)] = self.scheme.top


def _normal(places: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Compute the unit normal of the sheet that (n, 3) places lie on; any, if they are too few."""
    if len(places) < 4:
        return _direction(rng)
    return np.linalg.svd(places - places.mean(axis=0), full_matrices=False)[2][-1]


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a unit vector of any direction."""
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)
