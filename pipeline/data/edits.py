"""Random edits of folds, which a network learns to undo, as MONAI transforms."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.models.protocols import ADDING, OF_FOLDS, EditKind
from foldnorm.pipeline.data.items import GeneratorTransform, class_numbers, fold_numbers, like
from foldnorm.preprocessing.alteration.fold_erasure import fold_and_junctions
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import LabelScheme, load_scheme
from foldnorm.preprocessing.io.volumes import voxel_size_of

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


class RandEditFolds(GeneratorTransform):
    """Erase structure (sulcus, in a skeleton) from a label volume at random, or add some.

    Args:
        kinds: one is drawn for each volume. Erased: whole ``folds`` with their junctions, what lies
            in ``balls`` or ``slabs``, or part of a ball (``noise``); added: ``copies`` of folds,
            moved, and plane ``sheets``.
        most: edits of a volume; from one on.
        radii: smallest and largest of balls, sheets, and what slabs and noise are cut from, mm.
        voxel_size: (3,) mm; None: as the affine of the volume says, 1 mm if it has none.
        scheme: label scheme of the volume, its name, or a YAML file.
        has_hull: whether what touches the outside is the hull, which stays.
        untouched: share of the volumes that stay as they are.

    Example:
        >>> import numpy as np
        >>> volume = np.ones((1, 24, 24, 24), np.uint8)  # inside
        >>> volume[0, 8, 4:20, 4:20] = 2  # a fold of 256 mm²
        >>> folds = np.where(volume == 2, 7, 0)
        >>> erase = RandEditFolds(["folds"], untouched=0).set_random_state(seed=0)
        >>> bool((erase(volume, folds) == 1).all())
        True
    """

    stream = "edit"

    def __init__(
        self,
        kinds: Sequence[EditKind] = ("folds",),
        most: int = 1,
        radii: tuple[float, float] = (4.0, 16.0),
        *,
        voxel_size: Sequence[float] | None = None,
        scheme: LabelScheme | str = "skeleton",
        has_hull: bool = True,
        untouched: float = UNTOUCHED,
    ) -> None:
        super().__init__()
        self.kinds, self.most, self.radii = tuple(kinds), most, radii
        self.voxel_size, self.has_hull, self.untouched = voxel_size, has_hull, untouched
        self.scheme = load_scheme(scheme) if isinstance(scheme, str) else scheme

    def __call__(self, volume: Any, folds: Any = None) -> Any:
        """Edit a volume.

        Args:
            volume: (1, I, J, K) class numbers.
            folds: (1, I, J, K) fold labels, 0 where there is none; only for edits of whole folds.

        Returns:
            The edited volume, of the same shape, dtype and type, array or tensor.

        Raises:
            InputError: whole folds are to be edited, and there are no labels.
        """
        classes = class_numbers(volume)
        labels = None if folds is None else fold_numbers(folds).astype(np.uint16, copy=False)
        if labels is None and OF_FOLDS.intersection(self.kinds):
            raise InputError("expected fold labels: edits of kind folds and copies need them")
        rng = self.rng
        if rng.random() < self.untouched:
            return volume
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        hull = self._hull(classes)  # no edit alters what lies outside
        size = self._voxel_size(volume)
        edits = _Edits(self.scheme, size, self.radii, classes, labels, hull, classes.copy(), rng)
        for _ in range(int(rng.integers(1, self.most + 1))):
            (edits.add if kind in ADDING else edits.erase)(kind)
        return like(volume, edits.edited[None])

    def _hull(self, volume: Labels) -> Mask:
        """Return the mask of voxels that touch the outside, of no fold; empty without a hull."""
        if self.scheme.void == self.scheme.fill or not self.has_hull:
            return np.zeros(volume.shape, dtype=np.bool_)
        return ndimage.binary_dilation(volume == self.scheme.fill)

    def _voxel_size(self, volume: Any) -> tuple[float, ...]:
        """Sides of a voxel in mm."""
        if self.voxel_size is not None:
            return tuple(self.voxel_size)
        affine = volume.affine if isinstance(volume, MetaTensor) else np.eye(4)
        return voxel_size_of(np.asarray(affine, dtype=np.float64))


class RandEditFoldsd(GeneratorTransform, MapTransform):
    """Dictionary version of `RandEditFolds`; each key is edited in another way.

    To keep what the volume was, put MONAI's ``CopyItemsd`` before it.

    Args:
        keys: of (1, I, J, K) label volumes.
        kinds: as of `RandEditFolds`, and the others likewise.
        most: likewise.
        radii: likewise.
        voxel_size: likewise.
        scheme: likewise.
        has_hull: likewise.
        untouched: likewise.
        folds_key: of (1, I, J, K) fold labels of these volumes; None: there are none.
        allow_missing_keys: whether a dictionary may lack a key.

    Example:
        >>> import numpy as np
        >>> volume = np.ones((1, 24, 24, 24), np.uint8)
        >>> volume[0, 8, 4:20, 4:20] = 2
        >>> edit = RandEditFoldsd("image", ["balls", "slabs"], untouched=0).set_random_state(seed=0)
        >>> edited = edit({"image": volume})["image"]
        >>> bool((edited[volume == 2] == 1).any())
        True
    """

    stream = "edit"

    def __init__(
        self,
        keys: KeysCollection,
        kinds: Sequence[EditKind] = ("folds",),
        most: int = 1,
        radii: tuple[float, float] = (4.0, 16.0),
        *,
        voxel_size: Sequence[float] | None = None,
        scheme: LabelScheme | str = "skeleton",
        has_hull: bool = True,
        untouched: float = UNTOUCHED,
        folds_key: Hashable | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        GeneratorTransform.__init__(self)
        self.folds_key = folds_key
        self.array = RandEditFolds(
            kinds, most, radii, voxel_size=voxel_size, scheme=scheme, has_hull=has_hull,
            untouched=untouched,
        )  # fmt: skip

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the dictionary with the volumes edited."""
        changed = dict(data)
        folds = None if self.folds_key is None else changed[self.folds_key]
        self.array.set_random_state(state=self.R)
        for key in self.key_iterator(changed):
            changed[key] = self.array(changed[key], folds)
        return changed


@dataclass
class _Edits:
    """Edits of one volume.

    Attributes:
        scheme: of the volume.
        voxel_size: mm.
        radii: smallest and largest, mm.
        healthy: (I, J, K) class numbers, as it was.
        folds: (I, J, K) fold labels, if any kind needs them.
        hull: (I, J, K), what stays.
        edited: (I, J, K) class numbers, as edited so far.
        rng: draws.
    """

    scheme: LabelScheme
    voxel_size: tuple[float, ...]
    radii: tuple[float, float]
    healthy: Labels
    folds: NDArray[np.uint16] | None
    hull: Mask
    edited: Labels
    rng: np.random.Generator

    def erase(self, kind: EditKind) -> None:
        """Take structure away."""
        rng = self.rng
        if kind == "folds":
            self.edited[self._fold(self.edited)] = self.scheme.void
            return
        sulcus = self.scheme.foreground(self.edited)
        places = np.argwhere(sulcus & ~self.hull)
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
        self.edited[tuple(places[inside].T)] = self.scheme.void

    def add(self, kind: EditKind) -> None:
        """Structure where there is none; what lies outside the brain stays as it is."""
        rng, edited = self.rng, self.edited
        if kind == "copies":
            places = np.argwhere(self._fold(self.healthy))
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

    def _fold(self, volume: Labels) -> Mask:
        """Mask of one fold with its junctions, drawn ∝ √size; empty if all are too small.

        The square root lies between drawing by fold, where small ones are nearly all, and drawing
        by voxel, where the few largest are.
        """
        assert self.folds is not None
        sulcus = self.scheme.foreground(volume)
        hull = sulcus & self.hull
        counts = np.bincount(self.folds[sulcus & ~hull], minlength=1).astype(np.float64)
        counts[0] = 0  # no fold
        face = float(np.prod(self.voxel_size)) ** (2 / 3)
        weights = np.sqrt(np.where(counts * face >= MIN_FOLD_AREA, counts, 0))
        if not weights.any():
            return np.zeros_like(sulcus)
        label = int(self.rng.choice(len(weights), p=weights / weights.sum()))
        return fold_and_junctions(sulcus, self.folds, label, hull)


def _normal(places: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Compute the unit normal of the sheet that (n, 3) places lie on; any, if they are too few."""
    if len(places) < 4:
        return _direction(rng)
    return np.linalg.svd(places - places.mean(axis=0), full_matrices=False)[2][-1]


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a unit vector of any direction."""
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)
