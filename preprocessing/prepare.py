"""One volume: read, discretise, cut to what it holds, bring to its final grid, thin."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.crop import (
    Box,
    Index,
    foreground_box,
    lattice_start,
    shifted_affine,
)
from foldnorm.preprocessing.downsample import METHODS, Grid, Method
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.fold_graph import graph_fold_numbers, read_fold_graph
from foldnorm.preprocessing.hull import agrees, hull_of
from foldnorm.preprocessing.quality import measure, touched_sides
from foldnorm.preprocessing.schemes import SKELETON, LabelScheme, discretise, scheme_from_dict
from foldnorm.preprocessing.sources import Companions
from foldnorm.preprocessing.space import voxel_to_mni
from foldnorm.preprocessing.target_grid import MniTarget, NativeTarget, TargetGrid
from foldnorm.preprocessing.thinning import thin
from foldnorm.preprocessing.volumes import (
    LabelVolume,
    mirror_left_right,
    read_labels,
    voxel_size_of,
)

MAX_SIDE = 4096  # voxels: a wrong voxel size must not allocate terabytes
MAX_FOLD_LABEL = 2**16 - 1  # fold labels are kept as uint16


@dataclass(frozen=True)
class Preparation:
    """What is done to every volume of a cohort, the crop excepted.

    Attributes:
        scheme: label scheme.
        voxel_size: mm, or None for that of the input.
        factor: input voxels a side that become one, instead of a voxel size.
        space: ``native``, or ``mni``: the ICBM2009c grid at ``voxel_size``.
        hull: ``keep``, or ``remove``: the sheet between brain and outside becomes outside.
        thin: thin the sheets of the highest class after downsampling.
        folds: ``auto``: label folds where there is a label volume, or a fold graph of this very
            skeleton; ``none``: leave labels out.
        method: of downsampling.
        mirror_right: store right hemispheres in left-hemisphere voxel order.
    """

    scheme: LabelScheme
    voxel_size: float | None = 1.0
    method: Method = "sulcus-priority"
    mirror_right: bool = False
    factor: int | None = None
    space: Literal["native", "mni"] = "native"
    hull: Literal["keep", "remove"] = "keep"
    thin: bool = False
    folds: Literal["auto", "none"] = "auto"

    def __post_init__(self) -> None:
        if self.space == "mni" and self.voxel_size is None:
            raise InputError("--space mni needs a --voxel-size in mm: its grid is not the input's")
        if self.hull == "remove" and self.scheme.stem != SKELETON.stem:
            raise InputError(f"--hull remove is for skeletons, not for scheme {self.scheme.name!r}")
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
            "space": self.space,
            "hull": self.hull,
            "thin": self.thin,
            "folds": self.folds,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Preparation":
        """Inverse of `as_dict`."""
        others = {key: value for key, value in content.items() if key in cls.__dataclass_fields__}
        return cls(**{**others, "scheme": scheme_from_dict(content["scheme"])})


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
        hull: what was done to it.
        fold_names: label → sulcus, from a fold graph; labels of a label volume are named by its
            source.
        folds_from: where fold labels come from, or why there are none.
        quality: see `foldnorm.preprocessing.quality.measure`, and the sides it ``touches``.
    """

    classes: NDArray[np.uint8]
    affine: NDArray[np.float64]
    at: Box
    grid: Box
    sha256: str
    folds: NDArray[np.uint16] | None = None
    fold_sizes: dict[int, float] = field(default_factory=dict)
    hull: str = "kept"
    fold_names: dict[int, str] = field(default_factory=dict)
    folds_from: str = "none"
    quality: dict[str, Any] = field(default_factory=dict)

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Sides of a voxel in mm."""
        return voxel_size_of(self.affine)


def prepare_volume(
    path: Path,
    preparation: Preparation,
    *,
    hemi: str = "",
    companions: Companions = Companions(),  # noqa: B008  # frozen
) -> Prepared:
    """Read one volume and bring it to its final grid.

    Raises:
        InputError: anything about the files that cannot be used; the message names one.
    """
    volume = read_labels(path)
    known = _fold_labels(volume, preparation, companions)
    labels = known.labels
    scheme = preparation.scheme
    box = foreground_box(volume.data, scheme)
    if box is None:
        raise InputError(
            f"empty volume: every voxel is {scheme.names[scheme.fill]!r} under scheme "
            f"{scheme.name!r}: {path}"
        )
    classes = discretise(volume.data[box.slices], scheme, path=path)
    touches = touched_sides(box, volume.data.shape)
    hull = "kept"
    if preparation.hull == "remove":
        hull = _remove_hull(classes, volume, box, preparation, known)
    if not (classes == scheme.top).any():
        raise InputError(f"no voxel of class {scheme.names[scheme.top]!r}: {path}")
    if labels is not None:
        labels = np.where(classes == scheme.top, labels[box.slices], 0)
    mirrored = preparation.mirror_right and hemi == "R"
    target: TargetGrid
    if preparation.space == "mni":
        target = _mni_target(volume, preparation, box.start, mirrored, companions.transform)
    else:
        if mirrored:
            volume, box = mirror_left_right(volume), _mirrored(box, volume)
            classes = classes[::-1]
            labels = None if labels is None else labels[::-1]
        target = NativeTarget(volume, _grid(volume, preparation, box.start))
    prepared = _on_grid(classes, labels, target, preparation, volume)
    quality = measure(classes, volume.affine, prepared.classes, prepared.affine, scheme)
    return replace(
        prepared,
        hull=hull,
        fold_names=known.names,
        folds_from=known.source,
        quality={**quality, "touches": touches},
    )


def _on_grid(
    classes: NDArray[np.uint8],
    labels: NDArray[np.uint16] | None,
    target: TargetGrid,
    preparation: Preparation,
    volume: LabelVolume,
) -> Prepared:
    scheme = preparation.scheme
    resampled, start = target.resample(
        classes,
        method=preparation.method,
        canonical_values=scheme.canonical_values,
        fill=scheme.fill,
    )
    small = resampled.astype(np.uint8, copy=False)
    if preparation.thin:
        small = thin(small, scheme.top, scheme.fill)
    folds, sizes = None, dict[int, float]()
    if labels is not None:
        folds = downsample_folds(labels, classes == scheme.top, target)
        folds[small != scheme.top] = 0
        sizes = fold_sizes(labels, volume.voxel_size)
    whole = Box((0, 0, 0), target.shape).shifted(lattice_start(target.affine))
    at = Box((0, 0, 0), _shape(small)).shifted(start).shifted(whole.start)
    affine = shifted_affine(target.affine, start)
    return Prepared(small, affine, at, whole, volume.sha256, folds, sizes)


def _mni_target(
    volume: LabelVolume,
    preparation: Preparation,
    start: Index,
    mirrored: bool,
    transform: Path | None,
) -> MniTarget:
    if transform is None:
        raise InputError(f"no transform to MNI space beside it: {volume.path}")
    assert preparation.voxel_size is not None
    matrix = voxel_to_mni(transform, _shape(volume.data), volume.affine, volume.voxel_size)
    matrix = shifted_affine(matrix, start)
    return MniTarget(matrix, preparation.voxel_size, mirrored, volume.path)


@dataclass(frozen=True)
class _FoldLabels:
    """Fold labels on the whole grid of a volume, what they are called, and where they are from."""

    labels: NDArray[np.uint16] | None = None
    names: dict[int, str] = field(default_factory=dict)
    source: str = "none"
    graph: NDArray[np.bool_] | None = None  # voxels of a graph made of this skeleton


def _fold_labels(
    volume: LabelVolume, preparation: Preparation, companions: Companions
) -> _FoldLabels:
    wants_graph = preparation.hull == "remove" or (
        preparation.folds == "auto" and companions.folds is None
    )
    graph, voxels, numbers = None, None, None
    if wants_graph and companions.graph is not None and preparation.scheme.stem == SKELETON.stem:
        graph = read_fold_graph(companions.graph)
        numbers = graph_fold_numbers(graph, _shape(volume.data))[::-1, ::-1, ::-1]
        voxels = numbers > 0 if agrees(volume.data, numbers > 0) else None
    if preparation.folds == "none":
        return _FoldLabels(graph=voxels)
    if companions.folds is not None:
        return _FoldLabels(_read_folds(companions.folds, volume), {}, "label volume", voxels)
    if graph is None:
        return _FoldLabels()
    if voxels is None:
        return _FoldLabels(source="none: the fold graph was made of another skeleton")
    names = {fold.number: fold.sulcus for fold in graph.folds}
    return _FoldLabels(numbers, names, "fold graph", voxels)


def _remove_hull(
    classes: NDArray[np.uint8],
    volume: LabelVolume,
    box: Box,
    preparation: Preparation,
    known: _FoldLabels,
) -> str:
    """Turn the hull into fill, in place; says how it was found."""
    folds = None if known.graph is None else known.graph[box.slices]
    classes[hull_of(volume.data[box.slices], folds)] = preparation.scheme.fill
    return "removed by " + ("face neighbours" if folds is None else "fold graph")


def _mirrored(box: Box, volume: LabelVolume) -> Box:
    side = volume.data.shape[0]
    return Box(
        (side - box.stop[0], *box.start[1:]),
        (side - box.start[0], *box.stop[1:]),
    )


def downsample_folds(
    labels: NDArray[np.uint16], sulcus: NDArray[np.bool_], target: TargetGrid
) -> NDArray[np.uint16]:
    """Bring fold labels to the target grid: a voxel has a label only if all its sulcus has it.

    So deleting a fold after downsampling gives what deleting it before would: a voxel that it
    shares with the hull or with another fold stays sulcus.
    """
    highest, _ = target.resample(labels)
    complement = np.where(sulcus, MAX_FOLD_LABEL - labels, 0).astype(np.uint16)
    turned, _ = target.resample(complement)
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
    grid = Grid.to_voxel_size(volume.affine, preparation.voxel_size, start)
    if max(n * s for n, s in zip(volume.data.shape, grid.scale, strict=True)) > MAX_SIDE:
        size = " × ".join(f"{s:.3g}" for s in volume.voxel_size)
        raise InputError(
            f"voxels of {size} mm would make a side of more than {MAX_SIDE} voxels of "
            f"{preparation.voxel_size:g} mm: {volume.path}"
        )
    return grid


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
