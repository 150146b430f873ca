"""Files that go with a volume: its fold labels, and the second volume of a pair."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.discretise import discretise
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.fold_graph import BRAINVISA, graph_fold_numbers, read_fold_graph
from foldnorm.preprocessing.io.fold_sidecar import FoldSidecar
from foldnorm.preprocessing.io.source_volume import SourceVolume
from foldnorm.preprocessing.io.volumes import LabelVolume, read_labels
from foldnorm.preprocessing.spatial.crop import Box, shape_of
from foldnorm.preprocessing.spatial.target_grid import TargetGrid
from foldnorm.preprocessing.topology.hull import graph_matches, transfer_labels

Shift = tuple[float, float, float]  # mm
MAX_FOLD_LABEL = 2**16 - 1  # fold labels are kept as uint16
SAME_GRID = 1e-3  # mm: affines closer than this are equal


@dataclass(frozen=True)
class FoldLabels:
    """Fold labels on the whole grid of a volume, what they are called, and where they are from."""

    labels: NDArray[np.uint16] | None = None
    names: dict[int, str] = field(default_factory=dict)
    vocabulary: str = ""
    source: str = "none"
    graph: NDArray[np.bool_] | None = None  # voxels of a graph made of this skeleton
    warnings: tuple[str, ...] = ()  # of the file that they were read from
    gyri: dict[int, str] = field(default_factory=dict)  # of folds that lie inside one


def fold_labels(volume: LabelVolume, preparation: Preparation, source: SourceVolume) -> FoldLabels:
    """Read the fold labels of a volume, from the label volume beside it or from its fold graph.

    Raises:
        InputError: a file of them cannot be used; the message names it.
    """
    companions = source.companions
    wants_graph = preparation.hull == "remove" or (
        preparation.fold_labels == "auto" and companions.folds is None
    )
    graph, voxels, numbers = None, None, None
    if wants_graph and companions.graph is not None and preparation.scheme.is_skeleton:
        graph = read_fold_graph(companions.graph)
        numbers = graph_fold_numbers(graph, shape_of(volume.data))[::-1, ::-1, ::-1]
        voxels = numbers > 0 if graph_matches(volume.data, numbers > 0) else None
    if preparation.fold_labels == "none":
        return FoldLabels(graph=voxels)
    if companions.folds is not None:
        folds = read_labels(companions.folds, assume=source.assume)
        said = tuple(f"its fold labels: {line}" for line in folds.warnings)
        sidecar = FoldSidecar.beside(companions.folds)
        known = sidecar or FoldSidecar(companions.folds, ())
        return FoldLabels(
            _checked_folds(folds, volume),
            known.names,
            known.vocabulary,
            "label volume",
            voxels,
            said,
            known.gyri,
        )
    if graph is None:
        return FoldLabels()
    names = {fold.number: fold.sulcus for fold in graph.folds}
    if voxels is not None:
        return FoldLabels(numbers, names, BRAINVISA, "fold graph", voxels)
    assert numbers is not None
    moved = transfer_labels(volume.data, numbers)
    if moved is None:
        return FoldLabels(source="none: the fold graph is of another brain")
    source_of_labels = "fold graph of another skeleton, moved to the nearest voxels"
    return FoldLabels(moved, names, BRAINVISA, source_of_labels)


def _checked_folds(folds: LabelVolume, volume: LabelVolume) -> NDArray[np.uint16]:
    if folds.data.shape != volume.data.shape:
        raise InputError(
            f"fold labels of shape {folds.data.shape}, the skeleton's is {volume.data.shape}: "
            f"{folds.path}"
        )
    if folds.data.min() < 0 or folds.data.max() > MAX_FOLD_LABEL:
        raise InputError(f"fold labels must lie in 0…{MAX_FOLD_LABEL}: {folds.path}")
    return folds.data.astype(np.uint16)


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


def read_pair(
    volume: LabelVolume, box: Box, source: SourceVolume, preparation: Preparation
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
        _refuse_folds_on_white(volume, box, second, preparation)
    x, y, z = (float(mm) for mm in np.round((second.affine - volume.affine)[:3, 3], 2))
    return second, (x, y, z)


def _refuse_folds_on_white(
    volume: LabelVolume, box: Box, second: LabelVolume, preparation: Preparation
) -> None:
    assert preparation.pair is not None
    white = preparation.pair.classes[preparation.pair.top].values
    first_scheme = preparation.scheme
    sulcus = discretise(volume.data[box.slices], first_scheme, path=volume.path) == first_scheme.top
    on_white = int(np.count_nonzero(np.isin(second.data[box.slices][sulcus], white)))
    if on_white:
        raise InputError(
            f"{on_white} of {np.count_nonzero(sulcus)} fold voxels lie on white matter, so this is "
            f"no pair with {volume.path}: {second.path}"
        )
