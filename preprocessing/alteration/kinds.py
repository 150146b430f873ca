"""The ways in which one volume of a cohort can be altered.

A kind *draws* what is to be done from a generator of the subject's own, and *applies* it, the
same every time. Applying the control takes the very code path of an alteration.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.alteration.deforming_kinds import Deform, Displace, Refill
from foldnorm.preprocessing.alteration.deletion import (
    CONTROL,
    Deletion,
    SizeRange,
    apply_deletion,
    sample_ball,
    sample_fold,
)
from foldnorm.preprocessing.alteration.fold_kinds import Interrupt, Rim, Scar, fold_rows
from foldnorm.preprocessing.alteration.lab_protocols import (
    AcpcBox,
    erased_voxels,
    graph_candidates,
    raw_candidates,
)
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.layout import Layout
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepare_volume import prepare_volume
from foldnorm.preprocessing.cohort.prepared_index import PreparedVolume, prepared_volume
from foldnorm.preprocessing.core.arrays import read_row
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.fold_graph import FoldGraph, GraphFold, Points, read_fold_graph
from foldnorm.preprocessing.spatial.crop import Box
from foldnorm.preprocessing.spatial.crop_spec import CropSpec
from foldnorm.preprocessing.spatial.space import graph_to_mni
from foldnorm.preprocessing.topology.thinning import thin

Volume = NDArray[np.uint8]
DRAWS = 200  # of a place for a crop, before it is said that there is none
MIN_STRUCTURE = 0.5  # of the structure voxels that the crop itself holds


class AlterationKind(Protocol):
    """One way to alter; made for one cohort."""

    def draw(self, index: int, sizes: SizeRange, rng: np.random.Generator) -> Deletion | None:
        """Draw the alteration of a volume; None if nothing in it is eligible."""

    def apply(self, index: int, deletion: Deletion) -> Volume:
        """Return the altered volume, (I, J, K) class numbers."""


class FoldDeletion:
    """A labelled fold of the packed volume becomes void."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort, self.rows = cohort, fold_rows(cohort)

    def draw(self, index: int, sizes: SizeRange, rng: np.random.Generator) -> Deletion | None:
        """Draw one of the subject's folds, by size within the box."""
        return sample_fold(rng, self.rows.get(row_key(self.cohort.rows[index]), []), sizes)

    def apply(self, index: int, deletion: Deletion) -> Volume:
        """Erase the fold."""
        assert self.cohort.folds is not None
        volume, folds = self.cohort.volumes[index], read_row(self.cohort.folds, index)
        return apply_deletion(
            volume, deletion, self.cohort.scheme, folds=folds, has_hull=self.cohort.has_hull
        )


class BallDeletion:
    """A ball becomes void."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort

    def draw(self, index: int, sizes: SizeRange, rng: np.random.Generator) -> Deletion | None:
        """Draw a ball centred on a voxel above void."""
        return sample_ball(rng, self.cohort.volumes[index], self.cohort.scheme, sizes)

    def apply(self, index: int, deletion: Deletion) -> Volume:
        """Erase the ball."""
        volume, size = self.cohort.volumes[index], self.cohort.voxel_size
        return apply_deletion(volume, deletion, self.cohort.scheme, voxel_size=size)


class _Reprepared(ABC):
    """Alteration of the raw volume, which is then prepared as the cohort was."""

    kind: Callable[..., Deletion]
    junctions: bool

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        # Neither fold labels nor the second volume of a pair change what is altered.
        preparation = Preparation.from_dict(cohort.preparation)
        self.preparation = replace(preparation, fold_labels="none", pair=None)
        self.crop = CropSpec.from_record(cohort.preparation)
        self.layout = Layout.from_cohort(cohort.folder)
        if self.preparation.whole_brain:
            raise InputError(
                f"folds are deleted from hemispheres, not whole brains: {cohort.folder}"
            )
        if self.crop.may_cut and self.preparation.space != "mni":
            raise InputError(
                "the lab's protocols choose folds in MNI space; prepare the cohort with "
                f"--space mni: {cohort.folder}"
            )

    @abstractmethod
    def candidates(
        self, volume: PreparedVolume, graph: FoldGraph, sizes: SizeRange
    ) -> list[tuple[GraphFold, int]]:
        """Eligible folds and their sizes."""

    def draw(self, index: int, sizes: SizeRange, rng: np.random.Generator) -> Deletion | None:
        """Draw one of the eligible folds of the subject's graph."""
        volume = prepared_volume(self.cohort.folder, self.cohort.rows[index])
        if not volume.source.path.is_file():
            raise InputError(f"no such file: {volume.source.path}")
        if sizes.is_control:
            return CONTROL
        found = self.candidates(volume, self._graph(volume), sizes)
        if not found:
            return None
        fold, size = found[int(rng.integers(len(found)))]
        return self.kind(label=fold.number, name=fold.sulcus, size=float(size))

    def apply(self, index: int, deletion: Deletion) -> Volume:
        """Erase the fold at full resolution and prepare the volume anew."""
        volume = prepared_volume(self.cohort.folder, self.cohort.rows[index])
        erase: Points | None = None
        if deletion.kind != "none":
            graph = self._graph(volume)
            erase = erased_voxels(graph, graph.folds[deletion.label - 1], junctions=self.junctions)
        prepared = prepare_volume(volume.source, self.preparation, erase=erase)
        target = self.layout.target(volume, self.crop)
        off_mask = self.cohort.preparation["off_mask"]
        return self.layout.packed(
            prepared.classes, prepared.bounds, target, self.preparation.scheme, off_mask
        )

    def _graph(self, volume: PreparedVolume) -> FoldGraph:
        path = volume.source.companions.graph
        if path is None:
            raise InputError(f"no fold graph beside it: {volume.source.path}")
        return read_fold_graph(path)


class RawFoldDeletion(_Reprepared):
    """Deletion by the protocol of 2021: see `foldnorm.preprocessing.alteration.lab_protocols`."""

    kind, junctions = partial(Deletion, "fold-raw"), False

    def candidates(
        self, volume: PreparedVolume, graph: FoldGraph, sizes: SizeRange
    ) -> list[tuple[GraphFold, int]]:
        """Folds wholly inside the cohort's box."""
        box = None
        if self.crop.may_cut:
            ends = np.array([self.layout.box.start, self.layout.box.stop]) - [[0], [1]]
            mm = ends * np.array(self.cohort.voxel_size)
            if volume.is_mirrored:
                mm[:, 0] *= -1
            box = AcpcBox.from_mni(mm.min(axis=0), mm.max(axis=0))
        return raw_candidates(graph, box, sizes)


class GraphFoldDeletion(_Reprepared):
    """Deletion by the later protocol: see `foldnorm.preprocessing.alteration.lab_protocols`."""

    kind, junctions = partial(Deletion, "fold-graph"), True

    def candidates(
        self, volume: PreparedVolume, graph: FoldGraph, sizes: SizeRange
    ) -> list[tuple[GraphFold, int]]:
        """Folds by their voxels in the cohort's region, or in its box where it has none."""
        source = volume.source
        to_mni = graph_to_mni(graph, source.companions.transform, source.path, assume=source.assume)
        region = partial(self._in_region, volume) if self.crop.may_cut else None
        return graph_candidates(graph, to_mni, region, sizes)

    def _in_region(self, volume: PreparedVolume, mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        if volume.is_mirrored:
            mm = mm * [-1, 1, 1]
        box = self.layout.box
        places = np.rint(mm / np.array(self.cohort.voxel_size)).astype(np.int64) - box.start
        inside = ((places >= 0) & (places < box.shape)).all(axis=1)
        if self.layout.region is not None:
            inside[inside] = self.layout.region[tuple(places[inside].T)]
        return np.asarray(inside)


class FoldAddition:
    """A fold of another subject of the same side and split is written in."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort, self.rows = cohort, fold_rows(cohort)
        self.index = {key: n for n, key in enumerate(cohort.keys())}

    def draw(self, index: int, sizes: SizeRange, rng: np.random.Generator) -> Deletion | None:
        """Draw a donor that has an eligible fold, and one of its folds."""
        if sizes.is_control:
            return CONTROL
        rows = self.cohort.rows
        own = rows[index]
        donors = [
            n
            for n, row in enumerate(rows)
            if row["participant_id"] != own["participant_id"]
            and (row["hemi"], row["split"]) == (own["hemi"], own["split"])
        ]
        for n in rng.permutation(donors) if donors else ():
            donor = row_key(rows[int(n)])
            fold = sample_fold(rng, self.rows.get(donor, []), sizes)
            if fold is not None:
                return Deletion("add", fold.label, fold.name, fold.size, donor=donor)
        return None

    def apply(self, index: int, deletion: Deletion) -> Volume:
        """Write the fold where the volume is void; nothing is written outside the brain.

        Where it lands beside a sheet of the subject, it is thinned: two sheets would be a block.
        """
        volume, scheme = self.cohort.volumes[index], self.cohort.scheme
        if deletion.kind != "none":
            assert self.cohort.folds is not None
            fold = read_row(self.cohort.folds, self.index[deletion.donor]) == deletion.label
            written = fold & (volume == scheme.void)
            volume[written] = scheme.top
            thinned = thin(volume, scheme.top, within=written)
            volume[written & (thinned != scheme.top)] = scheme.void
        return volume


class RandomCrop:
    """Crop of the same brain at another place."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        self.crop = CropSpec.from_record(cohort.preparation)
        self.layout = Layout.from_cohort(cohort.folder)
        if not self.crop.may_cut:
            raise InputError(f"the cohort is no crop, so it has no elsewhere: {cohort.folder}")

    def draw(self, index: int, sizes: SizeRange, rng: np.random.Generator) -> Deletion | None:
        """Draw a place half a side away or more, with at least half of the crop's structure."""
        if sizes.is_control:
            return CONTROL
        volume = prepared_volume(self.cohort.folder, self.cohort.rows[index])
        bounds, target = volume.bounds, self.layout.target(volume, self.crop)
        classes, top = volume.read("_dseg").data, self.cohort.scheme.top
        enough = MIN_STRUCTURE * np.count_nonzero(self.cohort.volumes[index] == top)
        low = np.minimum(np.array(bounds.start) - target.start, 0)
        high = np.maximum(np.array(bounds.stop) - target.stop, 0)
        for _ in range(DRAWS):
            shift = rng.integers(low, high + 1)
            if (np.abs(shift) < np.array(target.shape) / 2).all():
                continue
            i, j, k = (int(n) for n in shift)
            found = self._cropped(classes, bounds, target.shifted((i, j, k)))
            if np.count_nonzero(found == top) >= enough:
                return Deletion("random", shift=(i, j, k))
        return None

    def apply(self, index: int, deletion: Deletion) -> Volume:
        """Crop at the place that was drawn."""
        volume = prepared_volume(self.cohort.folder, self.cohort.rows[index])
        target = self.layout.target(volume, self.crop).shifted(deletion.shift)
        return self._cropped(volume.read("_dseg").data, volume.bounds, target)

    def _cropped(self, classes: NDArray[np.integer], bounds: Box, target: Box) -> Volume:
        off_mask = self.cohort.preparation["off_mask"]
        return self.layout.packed(
            classes.astype(np.uint8, copy=False), bounds, target, self.cohort.scheme, off_mask
        )


class OtherSide:
    """The crop of the subject's other hemisphere, in the layout of this one."""

    def __init__(self, cohort: Cohort) -> None:
        self.cohort = cohort
        if not cohort.preparation["mirror_right"]:
            raise InputError(
                "sides can be exchanged where both have one layout; prepare the cohort with "
                f"--mirror-right: {cohort.folder}"
            )

    def draw(self, index: int, sizes: SizeRange, rng: np.random.Generator) -> Deletion | None:
        """Name the other hemisphere as donor; None if the cohort does not have it."""
        if sizes.is_control:
            return CONTROL
        other = self.cohort.other_side(index)
        return (
            None if other is None else Deletion("asymmetry", donor=row_key(self.cohort.rows[other]))
        )

    def apply(self, index: int, deletion: Deletion) -> Volume:
        """Return the volume of the other hemisphere."""
        other = None if deletion.kind == "none" else self.cohort.other_side(index)
        return self.cohort.volumes[index if other is None else other]


KINDS: Mapping[str, Callable[..., AlterationKind]] = {
    "fold": FoldDeletion,
    "ball": BallDeletion,
    "fold-raw": RawFoldDeletion,
    "fold-graph": GraphFoldDeletion,
    "add": FoldAddition,
    "random": RandomCrop,
    "asymmetry": OtherSide,
    "refill": Refill,
    "deform": Deform,
    "interrupt": Interrupt,
    "displace": Displace,
    "scar": Scar,
    "rim": Rim,
}
DEFORMING = ("refill", "deform")  # kinds that are told how far
