"""An atlas of sulci: how often each of them runs through each place, in one file."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.core.arrays import read_npz, read_row
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import atomic_path
from foldnorm.preprocessing.io.volumes import as_integers, is_volume, read_labels, volume_stem
from foldnorm.preprocessing.naming.named_folds import (
    names_by_label,
    vocabulary_of,
    with_families,
)
from foldnorm.preprocessing.spatial.crop import bounding_box, shifted_affine
from foldnorm.preprocessing.spatial.space import Matrix

if TYPE_CHECKING:
    from foldnorm.preprocessing.naming.learned_names import LearnedNames

SIDES = {"L": "left", "R": "right"}
SMOOTHING = 1.0  # voxels: sd of the Gaussian by which counts are smoothed
# What no brain of the atlas shows: of all sulci together, as a share of the highest count; each
# sulcus has of it what it has of all counts.
FLOOR = 0.005
MARGIN = 4  # voxels kept around what the counts fill: beyond, smoothed counts are the floor
FORMAT = 1
# Grid of atlases that are made of cohorts: all of a brain in MNI space, in voxels of 2 mm or, where
# they are larger, in those of the cohort.
LEAST_MM = 2.0
FIRST, LAST = np.array([-96.0, -132, -78]), np.array([96.0, 96, 114])  # corners, mm
# Masks of a folder that name no sulcus of the nomenclature: of another species, or a region.
NO_SULCI = re.compile(r"chimps_|paracingular")
Counts = NDArray[Any]


@dataclass(frozen=True)
class SulcusAtlas:
    """Counts of brains in which a sulcus runs through a voxel.

    Attributes:
        names: of the sulci, n of them.
        counts: (n, I, J, K) by side, ``L`` or ``R``.
        affine: (4, 4), voxel → MNI mm, of both sides.
        about: ``vocabulary``, ``brains`` (number, or None if unknown), ``sources``.
        learned: namer of folds that was learned with it, None without one.
    """

    names: tuple[str, ...]
    counts: Mapping[str, Counts] = field(repr=False)
    affine: Matrix = field(repr=False)
    about: Mapping[str, Any] = field(default_factory=dict)
    learned: "LearnedNames | None" = field(default=None, repr=False)

    @property
    def sides(self) -> tuple[str, ...]:
        """Sides that it knows."""
        return tuple(self.counts)

    @classmethod
    def from_masks(cls, folder: Path, vocabulary: str = "brainvisa") -> "SulcusAtlas":
        """Read a folder of maps, ``L/NAME_left.nii.gz`` and ``R/NAME_right.nii.gz``.

        Each map holds, per voxel, in how many brains, or with what probability, the sulcus is
        there; all lie in one grid. A sulcus without any voxel, and masks of what is no sulcus of
        the nomenclature (of chimpanzees, the paracingular region) are left out.

        Raises:
            InputError: there is none, or they lie in different grids.
        """
        found: dict[str, dict[str, NDArray[Any]]] = {}
        first: tuple[Path, tuple[int, ...], Matrix] | None = None
        left_out = []
        for side, name, path in _masks(folder):
            volume = read_labels(path)
            place = (path, volume.data.shape, volume.affine)
            first = first or place
            if place[1] != first[1] or not np.allclose(place[2], first[2], atol=1e-3):
                raise InputError(f"expected one grid, that of {first[0]}, got another: {path}")
            if NO_SULCI.match(name) or not volume.data.any():
                left_out.append(f"{name}_{SIDES[side]}")
            else:
                found.setdefault(name, {})[side] = _small(as_integers(volume.data))
        if first is None or not found:
            raise InputError(
                f"expected maps of sulci as L/NAME_left.nii.gz and R/NAME_right.nii.gz: {folder}"
            )
        names = tuple(sorted(found))
        sides = [side for side in SIDES if any(side in own for own in found.values())]
        empty = np.zeros(first[1], dtype=np.uint8)
        counts = {
            side: np.stack([found[name].get(side, empty) for name in names]) for side in sides
        }
        about = {
            "vocabulary": vocabulary,
            "brains": None,
            "sources": [str(folder.absolute())],
            "left_out": left_out,
        }
        return cls(names, counts, first[2], about)._cropped()

    def _cropped(self) -> "SulcusAtlas":
        """Cut to the box that the counts of all sides fill."""
        held = bounding_box(sum(own.max(axis=0) for own in self.counts.values()) > 0)
        assert held is not None  # a sulcus without any voxel is left out
        counts = {
            side: np.ascontiguousarray(own[(slice(None), *held.slices)])
            for side, own in self.counts.items()
        }
        return replace(self, counts=counts, affine=shifted_affine(self.affine, held.start))

    @classmethod
    def from_cohort(cls, cohort: Cohort, without: Sequence[str] = ()) -> "SulcusAtlas":
        """Count the named folds of a cohort that lies in MNI space.

        Args:
            cohort: of hemispheres, whose table of folds has names.
            without: participants to leave out, with all of their families.

        Raises:
            InputError: it lies elsewhere, its folds have no names, or it has not such participants.
        """
        if cohort.preparation["space"] != "mni" or cohort.preparation["whole_brain"]:
            raise InputError(
                "expected hemispheres in MNI space (preprocess --space mni, without "
                f"--whole-brain): {cohort.folder}"
            )
        left_out = with_families(cohort, without)
        tables = names_by_label(cohort)
        names = tuple(sorted({name for own in tables.values() for name in own.values()}))
        if not names or cohort.folds is None:
            raise InputError(f"the folds of this cohort have no names: {cohort.folder}")
        grid, shape = mni_grid(cohort.voxel_size)
        counts: dict[str, Counts] = {}
        used = set()
        for index, row in enumerate(cohort.rows):
            if row["participant_id"] not in left_out:
                used.add(row["participant_id"])
                empty = np.zeros((len(names), *shape), dtype=np.uint16)
                own = counts.setdefault(row["hemi"], empty)
                numbers = {label: names.index(name) for label, name in tables[row_key(row)].items()}
                to_grid = np.linalg.inv(grid) @ cohort.affine_of(row)
                labels = read_row(cohort.folds, index)
                count_brain(own, *_sulci_and_points(labels, numbers, to_grid))
        counts = {side: counts[side] for side in SIDES if side in counts}
        about = {
            "vocabulary": vocabulary_of(cohort),
            "brains": len(used),
            "sources": [str(cohort.folder.absolute())],
            "without": sorted(left_out),
        }
        if not any(own.any() for own in counts.values()):
            raise InputError(f"no named fold is left: {cohort.folder}")
        counts = {side: _small(own) for side, own in counts.items()}
        return cls(names, counts, grid, about)._cropped()

    @classmethod
    def open(cls, path: Path) -> "SulcusAtlas":
        """Read what `save` wrote.

        Raises:
            InputError: it is none.
        """
        arrays = read_npz(path)
        try:
            about = json.loads(str(arrays["about"]))
            is_other = about.pop("format") != FORMAT
            names = tuple(map(str, about.pop("names")))
            counts = {side: arrays[side] for side in SIDES if side in arrays}
            affine = arrays["affine"].astype(np.float64)
            is_right = affine.shape == (4, 4) and all(
                own.ndim == 4 and len(own) == len(names) for own in counts.values()
            )
        except (KeyError, ValueError, TypeError, AttributeError):
            is_right = is_other = False
        if is_other:
            raise InputError(f"atlas of another release of foldnorm: {path}")
        if not is_right or not counts or not np.isfinite(affine).all():
            raise InputError(f"not an atlas of sulci, as foldnorm atlas writes it: {path}")
        from foldnorm.preprocessing.naming.learned_names import LearnedNames  # it lies in an atlas

        learned = LearnedNames.in_arrays(arrays, names, about, path)
        return cls(names, counts, affine, about, learned)

    def save(self, path: Path) -> None:
        """Write one compressed file, without any pickled object."""
        about = {**self.about, "format": FORMAT, "names": self.names}
        text = np.array(json.dumps({**about, "foldnorm": version("foldnorm")}))
        arrays: dict[str, Any] = {"about": text, "affine": self.affine, **self.counts}
        if self.learned is not None:
            arrays |= self.learned.arrays()
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    def side(self, hemi: str) -> "AtlasSide":
        """Return one side of it, mirrored from the other one if it is not there."""
        is_there = hemi in self.counts
        counts = self.counts[hemi] if is_there else next(iter(self.counts.values()))
        known = [n for n, own in enumerate(counts) if own.any()]
        mirror = np.diag([1.0 if is_there else -1.0, 1, 1, 1])
        names = tuple(self.names[n] for n in known)
        return AtlasSide(names, counts[known], mirror @ self.affine).cropped()


@dataclass(frozen=True)
class AtlasSide:
    """One side of an atlas, with the sulci that are known there.

    Attributes:
        names: of the sulci, n of them.
        counts: (n, I, J, K), without empty borders.
        affine: (4, 4), voxel of them → MNI mm.
    """

    names: tuple[str, ...]
    counts: Counts = field(repr=False)
    affine: Matrix = field(repr=False)

    def cropped(self) -> "AtlasSide":
        """Cut to the box that the counts fill."""
        held = bounding_box(self.counts.max(axis=0) > 0)
        assert held is not None  # a sulcus without any voxel is left out
        counts = np.ascontiguousarray(self.counts[(slice(None), *held.slices)])
        return replace(self, counts=counts, affine=shifted_affine(self.affine, held.start))

    @cached_property
    def to_voxel(self) -> Matrix:
        """(4, 4), MNI mm → voxel of `log_density`."""
        inner: Any = np.linalg.inv(shifted_affine(self.affine, (-MARGIN,) * 3))
        return inner

    @cached_property
    def peak(self) -> float:
        """Highest count of any sulcus, about the number of brains."""
        return float(self.counts.max())

    @cached_property
    def coarse(self) -> "AtlasSide":
        """This side of the atlas in voxels of twice the side, which is seen from further away."""
        margins = [(0, 0), *((0, side % 2) for side in self.counts.shape[1:])]
        even = np.pad(self.counts, margins)
        n, i, j, k = even.shape
        blocks = even.reshape(n, i // 2, 2, j // 2, 2, k // 2, 2).mean(axis=(2, 4, 6))
        to_fine = np.diag([2.0, 2, 2, 1])
        to_fine[:3, 3] = 0.5
        return AtlasSide(self.names, blocks.astype(np.float32), self.affine @ to_fine)

    @cached_property
    def expected(self) -> float:
        """Mean of `log_density` over the counts: about that of the folds of another brain."""
        inner = self.log_density[(slice(MARGIN, -MARGIN),) * 3]
        weighted = sum(
            float((own * inner[..., n]).sum(dtype=np.float64)) for n, own in enumerate(self.counts)
        )
        return weighted / float(self.counts.sum(dtype=np.float64))

    @cached_property
    def log_density(self) -> NDArray[np.float32]:
        """(I, J, K, n), a `MARGIN` around: log of how often a sulcus runs there.

        As a share of the `peak`, smoothed, with a floor.
        """
        shape = np.array(self.counts.shape[1:]) + 2 * MARGIN
        smooth = np.empty((*shape, len(self.names)), dtype=np.float32)
        total = self.counts.sum(dtype=np.float64)
        for n, own in enumerate(self.counts):
            padded = np.pad(own.astype(np.float32) / np.float32(self.peak), MARGIN)
            smooth[..., n] = ndimage.gaussian_filter(padded, SMOOTHING)
            smooth[..., n] += FLOOR * max(own.sum(), 1) / total  # no brain may have it
        np.log(smooth, out=smooth)
        return smooth


def mni_grid(voxel_size: Sequence[float]) -> tuple[Matrix, NDArray[np.int64]]:
    """Grid of an atlas that is made of brains with such voxels: its affine, and its sides."""
    size = max(LEAST_MM, *voxel_size)
    grid = np.diag([size, size, size, 1])
    grid[:3, 3] = FIRST + size / 2
    return grid, np.ceil((LAST - FIRST) / size).astype(np.int64)


def _small(counts: NDArray[np.integer]) -> NDArray[np.unsignedinteger[Any]]:
    """Return counts in as few bytes as they need."""
    return counts.astype(np.uint8 if counts.max(initial=0) < 256 else np.uint16)


def count_brain(counts: Counts, sulci: NDArray[np.integer], points: NDArray[np.floating]) -> None:
    """Count a brain in each voxel that each of its sulci runs through; in each of them once.

    Args:
        counts: (n, I, J, K), added to.
        sulci: (M,) numbers of the sulci that the points are of, from 0.
        points: (M, 3) in voxels of the grid; those outside are of no voxel.
    """
    voxels = np.rint(points).astype(np.int64)
    inside = ((voxels >= 0) & (voxels < counts.shape[1:])).all(axis=1)
    present = np.column_stack([sulci, voxels])[inside]
    counts[tuple(np.unique(present, axis=0).T)] += 1


def _sulci_and_points(
    labels: NDArray[np.integer], numbers: Mapping[int, int], to_grid: Matrix
) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """Return the sulcus of each voxel of named folds, (M,), and its place, (M, 3) in a grid."""
    table = np.full(int(labels.max()) + 1, -1)
    for label, number in numbers.items():
        if label < len(table):
            table[label] = number
    sulci = table[labels[labels > 0]]
    places = np.argwhere(labels > 0)[sulci >= 0]
    return sulci[sulci >= 0], places @ to_grid[:3, :3].T + to_grid[:3, 3]


def _masks(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Side, name and path of every map in a folder, in their order."""
    for side, word in SIDES.items():
        for path in sorted((folder / side).glob("*")):
            stem = volume_stem(path)
            if is_volume(path) and stem.endswith(f"_{word}"):
                yield side, stem.removesuffix(f"_{word}"), path
