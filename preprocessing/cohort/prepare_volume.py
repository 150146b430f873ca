"""One volume: read, discretise, cut to what it holds, bring to its final grid, thin."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.discretise import check_values, discretise, foreground_box
from foldnorm.preprocessing.cohort.duplicates import as_text as signature_as_text
from foldnorm.preprocessing.cohort.duplicates import signature_of
from foldnorm.preprocessing.cohort.hemisphere_volume import HemisphereVolume, join, mirrored
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.quality import measure, touched_sides
from foldnorm.preprocessing.cohort.volume_companions import (
    FoldLabels,
    downsample_folds,
    fold_labels,
    fold_sizes,
    read_pair,
)
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.fold_graph import Points
from foldnorm.preprocessing.io.schemes import LabelScheme
from foldnorm.preprocessing.io.source_volume import SourceVolume
from foldnorm.preprocessing.io.volumes import LabelVolume, read_labels, voxel_size_of
from foldnorm.preprocessing.spatial.crop import (
    Box,
    Index,
    lattice_start,
    shape_of,
    shifted_affine,
)
from foldnorm.preprocessing.spatial.downsample import NativeTarget, ResamplingPlan
from foldnorm.preprocessing.spatial.space import voxel_to_mni
from foldnorm.preprocessing.spatial.target_grid import MniTarget, TargetGrid
from foldnorm.preprocessing.topology.hull import hull_of
from foldnorm.preprocessing.topology.thinning import thin

# Voxels that the longest side may have afterwards: a wrong voxel size must neither allocate
# terabytes nor leave a whole brain in one voxel.
MIN_SIDE, MAX_SIDE = 2, 4096


@dataclass(frozen=True)
class PreparedArrays:
    """Volume at its final voxel size, cut to what it holds, in memory.

    Attributes:
        classes: (I, J, K) uint8 class numbers.
        affine: (4, 4) of ``classes``.
        bounds: the box that ``classes`` occupies on the lattice.
        field_of_view: the box that the whole field of view occupies on the lattice.
        source: what it was made of, at full resolution.
        folds: (I, J, K) uint16 fold labels, or None.
        fold_sizes: label → mm² of sheet (the number of 1 mm voxels), measured at full resolution.
        pair: (I, J, K) uint8 class numbers of the second volume, or None.
        quality: see `foldnorm.preprocessing.cohort.quality.measure`, and the sides it ``touches``.
        signature: of the structure as it came, see `foldnorm.preprocessing.cohort.duplicates`.
    """

    classes: NDArray[np.uint8]
    affine: NDArray[np.float64]
    bounds: Box
    field_of_view: Box
    source: HemisphereVolume
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
) -> PreparedArrays:
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
    hemisphere = read_hemisphere(source, preparation, erase)
    if source.right is not None:
        right = read_hemisphere(source.right, preparation)
        hemisphere = join(hemisphere, right, scheme, preparation.pair)
    touches = touched_sides(hemisphere.box, hemisphere.volume.data.shape)
    native, affine = hemisphere.classes, hemisphere.volume.affine
    signature = signature_of(native == scheme.top, shifted_affine(affine, hemisphere.box.start))
    is_mirrored = preparation.mirror_right and source.hemi == "R"
    target: TargetGrid
    if preparation.space == "mni":
        target = _mni_target(hemisphere, preparation, source, is_mirrored)
    else:
        if is_mirrored:
            hemisphere = mirrored(hemisphere)
        target = NativeTarget(
            hemisphere.volume,
            _resampling_plan(hemisphere.volume, preparation, hemisphere.box.start),
        )
    prepared = _on_grid(hemisphere, target, preparation)
    quality = measure(native, affine, prepared.classes, prepared.affine, scheme)
    quality["touches"] = touches
    return replace(prepared, quality=quality, signature=signature_as_text(signature))


def read_hemisphere(
    source: SourceVolume, preparation: Preparation, erase: Points | None = None
) -> HemisphereVolume:
    """Read one volume and what goes with it, and discretise both.

    Args:
        source: the label volume, and what goes with it; not its right one.
        preparation: scheme, hull, folds, pair.
        erase: (n, 3) voxels in AIMS order, as fold graphs list them: those above the scheme's
            void class become void.

    Raises:
        InputError: anything about the files that cannot be used; the message names one.
    """
    path = source.path
    volume = read_labels(path, assume=source.assume)
    known = fold_labels(volume, preparation, source)
    warnings = [*volume.warnings, *known.warnings]
    scheme = preparation.scheme
    box = _foreground(volume, scheme)
    pair, shift = None, None
    if preparation.pair is not None:
        second, shift = read_pair(volume, box, source, preparation)
        warnings += [f"its pair: {line}" for line in second.warnings]
        box = box.union(_foreground(second, preparation.pair))
        pair = discretise(second.data[box.slices], preparation.pair, path=second.path)
    classes = discretise(volume.data[box.slices], scheme, path=path)
    warnings += check_values(volume.data[box.slices], classes, scheme, path)
    hull = "kept"
    if preparation.hull == "remove":
        hull = _remove_hull(classes, volume, box, scheme, known)
    if erase is not None and len(erase):
        _erase(classes, volume, box, scheme, erase)
    if not (classes == scheme.top).any():
        raise InputError(f"no voxel of class {scheme.names[scheme.top]!r}: {path}")
    labels = known.labels
    if labels is not None:
        labels = np.where(classes == scheme.top, labels[box.slices], 0)
    return HemisphereVolume(
        volume,
        box,
        classes,
        labels,
        pair,
        known.names,
        known.gyri,
        known.vocabulary,
        known.source,
        hull,
        shift,
        tuple(warnings),
    )


def _foreground(volume: LabelVolume, scheme: LabelScheme) -> Box:
    box = foreground_box(volume.data, scheme)
    if box is None:
        raise InputError(
            f"empty volume: every voxel is {scheme.names[scheme.fill]!r} under scheme "
            f"{scheme.name!r}: {volume.path}"
        )
    return box


def _remove_hull(
    classes: NDArray[np.uint8],
    volume: LabelVolume,
    box: Box,
    scheme: LabelScheme,
    known: FoldLabels,
) -> str:
    """Turn the hull into fill, in place; says how it was found."""
    folds = None if known.graph is None else known.graph[box.slices]
    classes[hull_of(volume.data[box.slices], folds)] = scheme.fill
    return "removed by " + ("face neighbours" if folds is None else "fold graph")


def _erase(
    classes: NDArray[np.uint8], volume: LabelVolume, box: Box, scheme: LabelScheme, erase: Points
) -> None:
    """Turn voxels in AIMS order into void, in place, where they are above it."""
    places = np.array(volume.data.shape) - 1 - erase - np.array(box.start)
    inside = ((places >= 0) & (places < classes.shape)).all(axis=1)
    index = tuple(places[inside].T.astype(np.intp))
    classes[index] = np.where(classes[index] > scheme.void, scheme.void, classes[index])


def _on_grid(
    hemisphere: HemisphereVolume, target: TargetGrid, preparation: Preparation
) -> PreparedArrays:
    scheme = preparation.scheme
    resampled, start = target.resample(
        hemisphere.classes,
        method=preparation.resampling,
        canonical_values=scheme.canonical_values,
        fill=scheme.fill,
    )
    small = resampled.astype(np.uint8, copy=False)
    if preparation.thin:
        small = thin(small, scheme.top)
    folds, sizes = None, dict[int, float]()
    if hemisphere.labels is not None:
        folds = downsample_folds(hemisphere.labels, hemisphere.classes == scheme.top, target)
        folds[small != scheme.top] = 0
        sizes = fold_sizes(hemisphere.labels, hemisphere.volume.voxel_size)
    pair = None
    if hemisphere.pair is not None and preparation.pair is not None:
        # Nearest, not by priority: white and grey are no sheets, and none may grow over the other.
        found, _ = target.resample(hemisphere.pair, method="nearest", fill=preparation.pair.fill)
        pair = found.astype(np.uint8, copy=False)
    whole = Box((0, 0, 0), target.shape).shifted(lattice_start(target.affine))
    bounds = Box((0, 0, 0), shape_of(small)).shifted(start).shifted(whole.start)
    affine = shifted_affine(target.affine, start)
    return PreparedArrays(small, affine, bounds, whole, hemisphere, folds, sizes, pair)


def _mni_target(
    hemisphere: HemisphereVolume, preparation: Preparation, source: SourceVolume, mirrored: bool
) -> MniTarget:
    volume, transform = hemisphere.volume, source.companions.transform
    if transform is None:
        raise InputError(f"no transform to MNI space beside it: {volume.path}")
    assert preparation.voxel_size is not None
    matrix = voxel_to_mni(transform, shape_of(volume.data), volume.affine, volume.voxel_size)
    matrix = shifted_affine(matrix, hemisphere.box.start)
    return MniTarget(matrix, preparation.voxel_size, mirrored, volume.path)


def _resampling_plan(volume: LabelVolume, preparation: Preparation, start: Index) -> ResamplingPlan:
    if preparation.factor is not None:
        return ResamplingPlan.by_factor(preparation.factor, start)
    if preparation.voxel_size is None:
        return ResamplingPlan((1.0, 1.0, 1.0), start)
    plan = ResamplingPlan.to_voxel_size(volume.affine, preparation.voxel_size, start)
    longest = max(n * s for n, s in zip(volume.data.shape, plan.scale, strict=True))
    if longest > MAX_SIDE or longest < MIN_SIDE <= max(volume.data.shape):
        size = " × ".join(f"{s:.3g}" for s in volume.voxel_size)
        bound = f"more than {MAX_SIDE}" if longest > MAX_SIDE else f"less than {MIN_SIDE}"
        said = f" ({'; '.join(volume.warnings)})" if volume.warnings else ""
        raise InputError(
            f"voxels of {size} mm would make a longest side of {bound} voxels of "
            f"{preparation.voxel_size:g} mm{said}; expected voxels of a brain in mm: {volume.path}"
        )
    return plan
