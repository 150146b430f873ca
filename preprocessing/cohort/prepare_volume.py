"""One volume: read, discretise, cut to what it holds, bring to its final grid, thin."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.duplicates import as_text as signature_as_text
from foldnorm.preprocessing.cohort.duplicates import signature_of
from foldnorm.preprocessing.cohort.hemisphere_volume import MAX_FOLD_LABEL, Part, join, read_part
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.quality import measure, touched_sides
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.fold_graph import Points
from foldnorm.preprocessing.io.sources import SourceVolume
from foldnorm.preprocessing.io.volumes import LabelVolume, mirror_left_right, voxel_size_of
from foldnorm.preprocessing.spatial.crop import Box, Index, lattice_start, shape_of, shifted_affine
from foldnorm.preprocessing.spatial.downsample import Grid
from foldnorm.preprocessing.spatial.space import voxel_to_mni
from foldnorm.preprocessing.spatial.target_grid import MniTarget, NativeTarget, TargetGrid
from foldnorm.preprocessing.topology.thinning import thin

MAX_SIDE = 4096  # voxels: a wrong voxel size must not allocate terabytes


@dataclass(frozen=True)
class Prepared:
    """A volume at its final voxel size, cut to what it holds.

    Attributes:
        classes: (I, J, K) uint8 class numbers.
        affine: (4, 4) of ``classes``.
        at: the box that ``classes`` occupies on the lattice.
        grid: the box that the whole field of view occupies on the lattice.
        source: what it was made of, at full resolution.
        folds: (I, J, K) uint16 fold labels, or None.
        fold_sizes: label → mm² of sheet (the number of 1 mm voxels), measured at full resolution.
        pair: (I, J, K) uint8 class numbers of the second volume, or None.
        quality: see `foldnorm.preprocessing.cohort.quality.measure`, and the sides it ``touches``.
        signature: of the structure as it came, see `foldnorm.preprocessing.cohort.duplicates`.
    """

    classes: NDArray[np.uint8]
    affine: NDArray[np.float64]
    at: Box
    grid: Box
    source: Part
    folds: NDArray[np.uint16] | None = None
    fold_sizes: dict[int, float] = field(default_factory=dict)
    pair: NDArray[np.uint8] | None = None
    quality: dict[str, Any] = field(default_factory=dict)
    signature: str = ""

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Sides of a voxel in mm."""
        return voxel_size_of(self.affine)


def prepare_volume(
    source: SourceVolume, preparation: Preparation, *, erase: Points | None = None
) -> Prepared:
    """Read one volume and bring it to its final grid.

    Args:
        source: the volume and what goes with it; of a whole brain, the left hemisphere with the
            right one in ``right``.
        preparation: what is done to it.
        erase: (n, 3) voxels in AIMS order that become void, before anything is resampled.

    Raises:
        InputError: anything about the files that cannot be used; the message names one.
    """
    scheme = preparation.scheme
    part = read_part(source.path, source.companions, preparation, erase)
    if source.right is not None:
        right = read_part(source.right.path, source.right.companions, preparation)
        part = join(part, right, scheme, preparation.pair)
    touches = touched_sides(part.box, part.volume.data.shape)
    native, affine = part.classes, part.volume.affine
    signature = signature_of(native == scheme.top, shifted_affine(affine, part.box.start))
    mirrored = preparation.mirror_right and source.hemi == "R"
    target: TargetGrid
    if preparation.space == "mni":
        target = _mni_target(part, preparation, source, mirrored)
    else:
        if mirrored:
            part = _mirrored(part)
        target = NativeTarget(part.volume, _grid(part.volume, preparation, part.box.start))
    prepared = _on_grid(part, target, preparation)
    quality = measure(native, affine, prepared.classes, prepared.affine, scheme)
    quality["touches"] = touches
    return replace(prepared, quality=quality, signature=signature_as_text(signature))


def _on_grid(part: Part, target: TargetGrid, preparation: Preparation) -> Prepared:
    scheme = preparation.scheme
    resampled, start = target.resample(
        part.classes,
        method=preparation.method,
        canonical_values=scheme.canonical_values,
        fill=scheme.fill,
    )
    small = resampled.astype(np.uint8, copy=False)
    if preparation.thin:
        small = thin(small, scheme.top, scheme.fill)
    folds, sizes = None, dict[int, float]()
    if part.labels is not None:
        folds = downsample_folds(part.labels, part.classes == scheme.top, target)
        folds[small != scheme.top] = 0
        sizes = fold_sizes(part.labels, part.volume.voxel_size)
    pair = None
    if part.pair is not None and preparation.pair is not None:
        # Nearest, not by priority: white and grey are no sheets, and none may grow over the other.
        found, _ = target.resample(part.pair, method="nearest", fill=preparation.pair.fill)
        pair = found.astype(np.uint8, copy=False)
    whole = Box((0, 0, 0), target.shape).shifted(lattice_start(target.affine))
    at = Box((0, 0, 0), shape_of(small)).shifted(start).shifted(whole.start)
    affine = shifted_affine(target.affine, start)
    return Prepared(small, affine, at, whole, part, folds, sizes, pair)


def _mni_target(
    part: Part, preparation: Preparation, source: SourceVolume, mirrored: bool
) -> MniTarget:
    volume, transform = part.volume, source.companions.transform
    if transform is None:
        raise InputError(f"no transform to MNI space beside it: {volume.path}")
    assert preparation.voxel_size is not None
    matrix = voxel_to_mni(transform, shape_of(volume.data), volume.affine, volume.voxel_size)
    matrix = shifted_affine(matrix, part.box.start)
    return MniTarget(matrix, preparation.voxel_size, mirrored, volume.path)


def _mirrored(part: Part) -> Part:
    """Reverse the first axis of a part; in the world nothing moves."""
    side, box = part.volume.data.shape[0], part.box
    return replace(
        part,
        volume=mirror_left_right(part.volume),
        box=Box((side - box.stop[0], *box.start[1:]), (side - box.start[0], *box.stop[1:])),
        classes=part.classes[::-1],
        labels=None if part.labels is None else part.labels[::-1],
        pair=None if part.pair is None else part.pair[::-1],
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
