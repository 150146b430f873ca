"""One volume: read, discretise, cut to what it holds, downsample."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.crop import (
    Box,
    Index,
    foreground_box,
    lattice_start,
    shifted_affine,
)
from foldnorm.preprocessing.downsample import METHODS, Grid, Method, downsample
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.schemes import LabelScheme, discretise, scheme_from_dict
from foldnorm.preprocessing.volumes import (
    LabelVolume,
    mirror_left_right,
    read_labels,
    voxel_size_of,
)

MAX_FOLD_LABEL = 2**16 - 1  # fold labels are kept as uint16


@dataclass(frozen=True)
class Preparation:
    """What is done to every volume of a cohort, the crop excepted.

    Attributes:
        scheme: label scheme.
        voxel_size: mm, or None for that of the input.
        factor: input voxels a side that become one, instead of a voxel size.
        method: of downsampling.
        mirror_right: store right hemispheres in left-hemisphere voxel order.
    """

    scheme: LabelScheme
    voxel_size: float | None = 1.0
    method: Method = "sulcus-priority"
    mirror_right: bool = False
    factor: int | None = None

    def __post_init__(self) -> None:
        if self.voxel_size is not None and not 0 < self.voxel_size < float("inf"):
            raise InputError(f"expected a voxel size above 0 mm, got {self.voxel_size:g}")
        if self.method not in METHODS:
            raise InputError(f"method {self.method!r} is none of {', '.join(METHODS)}")
        if self.factor is not None and self.voxel_size is not None:
            raise InputError("give a voxel size or a factor, not both")

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "scheme": self.scheme.as_dict(),
            "voxel_size": self.voxel_size,
            "method": self.method,
            "mirror_right": self.mirror_right,
            "factor": self.factor,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Preparation":
        """Inverse of `as_dict`."""
        return cls(
            scheme_from_dict(content["scheme"]),
            content["voxel_size"],
            content["method"],
            content["mirror_right"],
            content["factor"],
        )


@dataclass(frozen=True)
class Prepared:
    """A volume at its final voxel size, cut to what it holds.

    Attributes:
        classes: (I, J, K) uint8 class numbers.
        affine: (4, 4) of ``classes``.
        at: the box that ``classes`` occupies on the lattice.
        grid: the box that the whole field of view occupies on the lattice.
        folds: (I, J, K) uint16 fold labels, or None.
        fold_sizes: label → mm² of sheet (the number of 1 mm voxels), measured at full resolution.
        sha256: of the input file.
    """

    classes: NDArray[np.uint8]
    affine: NDArray[np.float64]
    at: Box
    grid: Box
    sha256: str
    folds: NDArray[np.uint16] | None = None
    fold_sizes: dict[int, float] = field(default_factory=dict)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Sides of a voxel in mm."""
        return voxel_size_of(self.affine)


def prepare_volume(
    path: Path, preparation: Preparation, *, hemi: str = "", folds_path: Path | None = None
) -> Prepared:
    """Read one volume and bring it to its final voxel size.

    Raises:
        InputError: anything about the file that cannot be used; the message names it.
    """
    volume = read_labels(path)
    labels = None if folds_path is None else _read_folds(folds_path, volume)
    if preparation.mirror_right and hemi == "R":
        volume = mirror_left_right(volume)
        labels = None if labels is None else labels[::-1]
    scheme = preparation.scheme
    box = foreground_box(volume.data, scheme)
    if box is None:
        raise InputError(
            f"empty volume: every voxel is {scheme.names[scheme.fill]!r} under scheme "
            f"{scheme.name!r}: {path}"
        )
    classes = discretise(volume.data[box.slices], scheme, path=path)
    if not (classes == scheme.top).any():
        raise InputError(f"no voxel of class {scheme.names[scheme.top]!r}: {path}")
    grid = _grid(volume, preparation, box.start)
    small, start = downsample(
        classes, grid, method=preparation.method, canonical_values=scheme.canonical_values
    )
    affine = grid.target_affine(volume.affine)
    whole = Box((0, 0, 0), _whole_shape(volume, grid)).shifted(lattice_start(affine))
    at = Box((0, 0, 0), _shape(small)).shifted(start).shifted(whole.start)
    prepared_folds, sizes = None, dict[int, float]()
    if labels is not None:
        labels = np.where(classes == scheme.top, labels[box.slices], 0)
        prepared_folds = downsample_folds(labels, classes == scheme.top, grid)
        sizes = fold_sizes(labels, volume.voxel_size)
    return Prepared(
        small.astype(np.uint8, copy=False),
        shifted_affine(affine, start),
        at,
        whole,
        volume.sha256,
        prepared_folds,
        sizes,
    )


def downsample_folds(
    labels: NDArray[np.uint16], sulcus: NDArray[np.bool_], grid: Grid
) -> NDArray[np.uint16]:
    """Bring fold labels to the target grid: a voxel has a label only if all its sulcus has it.

    So deleting a fold after downsampling gives what deleting it before would: a voxel that it
    shares with the hull or with another fold stays sulcus.
    """
    highest, _ = downsample(labels, grid)
    turned, _ = downsample(np.where(sulcus, MAX_FOLD_LABEL - labels, 0).astype(np.uint16), grid)
    return np.where(turned == MAX_FOLD_LABEL - highest, highest, 0).astype(np.uint16)


def fold_sizes(
    labels: NDArray[np.integer], voxel_size: tuple[float, float, float]
) -> dict[int, float]:
    """Size of each fold: voxels × mean voxel face, mm², which is its voxel count at 1 mm."""
    counts = np.bincount(labels.ravel(order="K"))
    face = float(np.prod(voxel_size)) ** (2 / 3)
    return {int(n): float(counts[n]) * face for n in np.flatnonzero(counts) if n}


def _grid(volume: LabelVolume, preparation: Preparation, start: Index) -> Grid:
    if preparation.factor is not None:
        return Grid.by_factor(preparation.factor, start)
    if preparation.voxel_size is None:
        return Grid((1.0, 1.0, 1.0), start)
    return Grid.to_voxel_size(volume.affine, preparation.voxel_size, start)


def _whole_shape(volume: LabelVolume, grid: Grid) -> Index:
    whole = Grid(grid.scale)
    i, j, k = (int(whole.target_index(a, n)[-1]) + 1 for a, n in enumerate(volume.data.shape))
    return i, j, k


def _shape(volume: NDArray[Any]) -> Index:
    i, j, k = volume.shape
    return i, j, k


def _read_folds(path: Path, volume: LabelVolume) -> NDArray[np.uint16]:
    folds = read_labels(path)
    if folds.data.shape != volume.data.shape:
        raise InputError(
            f"fold labels of shape {folds.data.shape}, the skeleton's is {volume.data.shape}: "
            f"{path}"
        )
    if folds.data.min() < 0 or folds.data.max() > MAX_FOLD_LABEL:
        raise InputError(f"fold labels must lie in 0…{MAX_FOLD_LABEL}: {path}")
    return folds.data.astype(np.uint16)
