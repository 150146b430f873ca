"""Input of one volume of a cohort, at full resolution: a hemisphere, or both joined."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.fold_graph import (
    BRAINVISA,
    Points,
    graph_fold_numbers,
    read_fold_graph,
)
from foldnorm.preprocessing.io.fold_sidecar import FoldSidecar
from foldnorm.preprocessing.io.schemes import SKELETON, LabelScheme, check_values, discretise
from foldnorm.preprocessing.io.source_volume import RIGHT_LABELS, SourceVolume
from foldnorm.preprocessing.io.volumes import LabelVolume, read_labels
from foldnorm.preprocessing.spatial.crop import Box, foreground_box, shape_of
from foldnorm.preprocessing.topology.hull import graph_matches, hull_of, transfer_labels

Shift = tuple[float, float, float]  # mm
MAX_FOLD_LABEL = 2**16 - 1  # fold labels are kept as uint16
SAME_GRID = 1e-3  # mm: affines closer than this are equal


@dataclass(frozen=True)
class HemisphereVolume:
    """Discretised volume of a hemisphere, or of both, cut to what it holds.

    Attributes:
        volume: as read, RAS+.
        box: of the arrays below, in ``volume``.
        classes: (I, J, K) uint8 class numbers.
        labels: (I, J, K) uint16 fold labels where ``classes`` is highest, or None.
        pair: (I, J, K) uint8 class numbers of the second volume, or None.
        fold_names: label → sulcus, from a fold graph or from gyri.
        fold_gyri: label → gyrus, of folds without a name that lie inside one.
        fold_vocabulary: whose names these are; empty if there are none.
        folds_from: where fold labels come from, or why there are none.
        hull: what was done to it.
        pair_shift: mm by which the affines of the two volumes of a pair differ, (3,).
        warnings: of the files that were read, a line each.
    """

    volume: LabelVolume
    box: Box
    classes: NDArray[np.uint8]
    labels: NDArray[np.uint16] | None = None
    pair: NDArray[np.uint8] | None = None
    fold_names: dict[int, str] = field(default_factory=dict)
    fold_gyri: dict[int, str] = field(default_factory=dict)
    fold_vocabulary: str = ""
    folds_from: str = "none"
    hull: str = "kept"
    pair_shift: Shift | None = None
    warnings: tuple[str, ...] = ()


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
    known = _fold_labels(volume, preparation, source)
    warnings = [*volume.warnings, *known.warnings]
    scheme = preparation.scheme
    box = _foreground(volume, scheme)
    pair, shift = None, None
    if preparation.pair is not None:
        second, shift = _read_pair(volume, source, preparation)
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


def join(
    left: HemisphereVolume,
    right: HemisphereVolume,
    scheme: LabelScheme,
    pair_scheme: LabelScheme | None,
) -> HemisphereVolume:
    """Join both hemispheres of a participant on the grid that they share.

    Where they overlap the higher class stays. Fold labels of the right are moved up by
    `RIGHT_LABELS`.

    Raises:
        InputError: their grids differ, or the names of their folds are of two vocabularies.
    """
    vocabularies = sorted({left.fold_vocabulary, right.fold_vocabulary} - {""})
    if len(vocabularies) > 1:
        raise InputError(
            f"the folds of the two hemispheres have names of {' and '.join(vocabularies)}: "
            f"{left.volume.path}, {right.volume.path}"
        )
    first, second = left.volume, right.volume
    if first.data.shape != second.data.shape or np.abs(first.affine - second.affine).max() > 1e-3:
        raise InputError(
            f"the two hemispheres lie on different grids, {first.data.shape} and "
            f"{second.data.shape}: {first.path}, {second.path}"
        )
    box = left.box.union(right.box)

    def joined(which: str, fill: int) -> NDArray[Any]:
        arrays = []
        for hemisphere in (left, right):
            array = getattr(hemisphere, which)
            whole = np.full(box.shape, fill, dtype=array.dtype)
            whole[hemisphere.box.shifted([-n for n in box.start]).slices] = array
            arrays.append(whole)
        return np.maximum(*arrays)

    labels, names, gyri = None, dict[int, str](), dict[int, str]()
    if left.labels is not None and right.labels is not None:
        moved = np.where(right.labels > 0, right.labels + RIGHT_LABELS, 0).astype(np.uint16)
        right = replace(right, labels=moved)
        labels = joined("labels", 0)
        names = {**left.fold_names, **{n + RIGHT_LABELS: s for n, s in right.fold_names.items()}}
        gyri = {**left.fold_gyri, **{n + RIGHT_LABELS: s for n, s in right.fold_gyri.items()}}
    return replace(
        left,
        box=box,
        classes=joined("classes", scheme.fill),
        labels=labels,
        pair=None if pair_scheme is None else joined("pair", pair_scheme.fill),
        fold_names=names,
        fold_gyri=gyri,
        fold_vocabulary=vocabularies[0] if names else "",
        folds_from=_both(left.folds_from, right.folds_from),
        pair_shift=_larger(left.pair_shift, right.pair_shift),
        hull=_both(left.hull, right.hull),
        warnings=(
            *(f"left: {line}" for line in left.warnings),
            *(f"right: {line}" for line in right.warnings),
        ),
    )


def _larger(left: Shift | None, right: Shift | None) -> Shift | None:
    if left is None or right is None:
        return left or right
    return max(left, right, key=lambda shift: max(map(abs, shift)))


def _both(left: str, right: str) -> str:
    return left if left == right else f"left: {left}; right: {right}"


def _foreground(volume: LabelVolume, scheme: LabelScheme) -> Box:
    box = foreground_box(volume.data, scheme)
    if box is None:
        raise InputError(
            f"empty volume: every voxel is {scheme.names[scheme.fill]!r} under scheme "
            f"{scheme.name!r}: {volume.path}"
        )
    return box


def _read_pair(
    volume: LabelVolume, source: SourceVolume, preparation: Preparation
) -> tuple[LabelVolume, Shift]:
    """Read the second volume of a pair, and how far its affine puts it from the first, mm.

    Voxel (i, j, k) of one is voxel (i, j, k) of the other: Morphologist writes both on one grid,
    but not always with one affine.

    Raises:
        InputError: there is none, its grid is another, or a fold lies on white matter.
    """
    assert preparation.pair is not None
    path = source.companions.pair
    if path is None:
        raise InputError(f"no {preparation.pair.stem} volume beside it: {volume.path}")
    second = read_labels(path, assume=source.assume)
    if second.data.shape != volume.data.shape:
        raise InputError(
            f"a pair lies on one voxel grid; got {second.data.shape}, that of {volume.path} is "
            f"{volume.data.shape}: {path}"
        )
    if not np.allclose(second.voxel_size, volume.voxel_size, rtol=SAME_GRID):
        raise InputError(
            f"a pair has voxels of one size; got {second.voxel_size} mm, those of {volume.path} "
            f"are {volume.voxel_size} mm: {path}"
        )
    if preparation.checks_folds_on_white:
        _refuse_folds_on_white(volume, second, preparation)
    x, y, z = (float(mm) for mm in np.round((second.affine - volume.affine)[:3, 3], 2))
    return second, (x, y, z)


def _refuse_folds_on_white(
    volume: LabelVolume, second: LabelVolume, preparation: Preparation
) -> None:
    assert preparation.pair is not None
    white = preparation.pair.classes[preparation.pair.top].values
    first_scheme = preparation.scheme
    box = _foreground(volume, first_scheme)
    sulcus = discretise(volume.data[box.slices], first_scheme, path=volume.path) == first_scheme.top
    on_white = int(np.count_nonzero(np.isin(second.data[box.slices][sulcus], white)))
    if on_white:
        raise InputError(
            f"{on_white} of {np.count_nonzero(sulcus)} fold voxels lie on white matter, so this is "
            f"no pair with {volume.path}: {second.path}"
        )


@dataclass(frozen=True)
class _FoldLabels:
    """Fold labels on the whole grid of a volume, what they are called, and where they are from."""

    labels: NDArray[np.uint16] | None = None
    names: dict[int, str] = field(default_factory=dict)
    vocabulary: str = ""
    source: str = "none"
    graph: NDArray[np.bool_] | None = None  # voxels of a graph made of this skeleton
    warnings: tuple[str, ...] = ()  # of the file that they were read from
    gyri: dict[int, str] = field(default_factory=dict)  # of folds that lie inside one


def _fold_labels(
    volume: LabelVolume, preparation: Preparation, source: SourceVolume
) -> _FoldLabels:
    companions = source.companions
    wants_graph = preparation.hull == "remove" or (
        preparation.fold_labels == "auto" and companions.folds is None
    )
    graph, voxels, numbers = None, None, None
    if wants_graph and companions.graph is not None and preparation.scheme.stem == SKELETON.stem:
        graph = read_fold_graph(companions.graph)
        numbers = graph_fold_numbers(graph, shape_of(volume.data))[::-1, ::-1, ::-1]
        voxels = numbers > 0 if graph_matches(volume.data, numbers > 0) else None
    if preparation.fold_labels == "none":
        return _FoldLabels(graph=voxels)
    if companions.folds is not None:
        folds = read_labels(companions.folds, assume=source.assume)
        said = tuple(f"its fold labels: {line}" for line in folds.warnings)
        sidecar = FoldSidecar.beside(companions.folds)
        known = sidecar or FoldSidecar(companions.folds, ())
        return _FoldLabels(
            _checked_folds(folds, volume),
            known.names,
            known.vocabulary,
            "label volume",
            voxels,
            said,
            known.gyri,
        )
    if graph is None:
        return _FoldLabels()
    names = {fold.number: fold.sulcus for fold in graph.folds}
    if voxels is not None:
        return _FoldLabels(numbers, names, BRAINVISA, "fold graph", voxels)
    assert numbers is not None
    moved = transfer_labels(volume.data, numbers)
    if moved is None:
        return _FoldLabels(source="none: the fold graph is of another brain")
    source_of_labels = "fold graph of another skeleton, moved to the nearest voxels"
    return _FoldLabels(moved, names, BRAINVISA, source_of_labels)


def _remove_hull(
    classes: NDArray[np.uint8],
    volume: LabelVolume,
    box: Box,
    scheme: LabelScheme,
    known: _FoldLabels,
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


def _checked_folds(folds: LabelVolume, volume: LabelVolume) -> NDArray[np.uint16]:
    if folds.data.shape != volume.data.shape:
        raise InputError(
            f"fold labels of shape {folds.data.shape}, the skeleton's is {volume.data.shape}: "
            f"{folds.path}"
        )
    if folds.data.min() < 0 or folds.data.max() > MAX_FOLD_LABEL:
        raise InputError(f"fold labels must lie in 0…{MAX_FOLD_LABEL}: {folds.path}")
    return folds.data.astype(np.uint16)
