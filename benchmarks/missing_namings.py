"""Hemispheres without one sulcus, named by an atlas, for `missing_sulci.py`; what is there is kept.

A sulcus is what the manual gyri on its banks name so: the folds of a hemisphere with one name. They
are erased with their junctions and the hull stays (void); or the neighbours are drawn half-way to
where they were as well (refill); or the same deformation is made and they stay (deform).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from foldnorm.pipeline.scoring.atlas_labeller import AtlasLabeller
from foldnorm.pipeline.scoring.compared_sulci import Measured
from foldnorm.preprocessing.alteration.deforming_kinds import Deform, Refill, neighbourhood
from foldnorm.preprocessing.alteration.deletion import HALF_WAY, Deletion, subject_rng
from foldnorm.preprocessing.alteration.fold_kinds import Parts
from foldnorm.preprocessing.alteration.sheet_deformation import pull_towards
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, row_key
from foldnorm.preprocessing.core.files import atomic_path
from foldnorm.preprocessing.naming.alignment import Alignment, align, align_near, transformed
from foldnorm.preprocessing.naming.sulcus_names import sulcus_name

HEALTHY, SHAM, VOID, REFILL, DEFORM = "healthy", "sham", "void", "refill", "deform"
SEARCHED = "searched"  # healthy, the search from further away included
SITES = ("MMRR", "HLN", "NKI")  # with manual gyri; settings were chosen on the first
PER_SITE = 42  # hemispheres
SOME = 12  # of these, so many are searched for
# The sixteen largest sulci between gyri of the DKT protocol; one of each is in every hemisphere but
# one of 148.
SULCI = (
    "lateral_fissure", "temporo_parietal", "cingulate", "central", "superior_frontal",
    "intraparietal", "postcentral", "precentral", "calcarine", "occipitotemporal", "collateral",
    "parieto_occipital", "inferior_temporal", "lateral_occipital", "inferior_frontal", "olfactory",
)  # fmt: skip
FAR = 1.5  # voxels between a moved sheet and what it became, at most


class Item(NamedTuple):
    """Alteration of a hemisphere.

    Attributes:
        kind: `HEALTHY`, `SEARCHED`, `SHAM`, `VOID`, `REFILL` or `DEFORM`.
        sulcus: one of `SULCI`, or empty.
    """

    kind: str
    sulcus: str = ""


class Deletions:
    """Deletions of the sulci of a cohort.

    Args:
        cohort: whose folds are named by gyri.
    """

    def __init__(self, cohort: Cohort) -> None:
        self.cohort, self.refill, self.deform = cohort, Refill(cohort), Deform(cohort)

    def parts(self, index: int) -> Parts:
        """Read a hemisphere."""
        return self.refill.parts(index)

    def labels(self, index: int, sulcus: str) -> list[int]:
        """Labels of the folds of a sulcus; none for no sulcus."""
        rows = self.refill.rows[row_key(self.cohort.rows[index])]
        names = {int(row["label"]): sulcus_name(row["name"], both_sides=False) for row in rows}
        return [label for label, name in names.items() if name == sulcus and sulcus]

    def brain(self, index: int, item: Item) -> Brain:
        """Return a hemisphere after a deletion."""
        parts = self.parts(index)
        labels = self.labels(index, item.sulcus)
        fold = np.isin(parts.folds, labels) & parts.sheet & ~parts.hull
        folds = parts.folds.copy()
        if item.kind != DEFORM:
            folds[np.isin(folds, labels)] = 0  # what the hull keeps of it is of no fold
        if item.kind in (REFILL, DEFORM):
            volume = self._deformed(parts, fold, item.kind)
            folds = carried(parts, folds, fold, volume, self.refill.voxel_size)
        else:
            volume = self.refill.without(parts, fold).classes
        return self.cohort.brain(index, volume)._replace(folds=lambda: folds)

    def _deformed(self, parts: Parts, fold: np.ndarray, kind: str) -> np.ndarray:
        how = Deletion("refill", reach=HALF_WAY.reach, share=HALF_WAY.share)
        if kind == DEFORM:
            return self.deform.drawn_together(parts, fold, how, parts.hull | fold)
        left = self.refill.without(parts, fold)
        return self.refill.drawn_together(left, fold, how, parts.hull)


def carried(
    parts: Parts, folds: np.ndarray, fold: np.ndarray, volume: np.ndarray, voxel_size: tuple
) -> np.ndarray:
    """Fold labels of sheets that were drawn towards a fold: of what moved to each voxel.

    Args:
        parts: before.
        folds: (I, J, K) labels before, of what is left.
        fold: (I, J, K) bool, where it was.
        volume: (I, J, K) classes afterwards.
        voxel_size: mm.
    """
    if not fold.any():
        return folds
    near = neighbourhood(fold, parts.outside, voxel_size, HALF_WAY.reach)
    moved = pull_towards(
        near.fold, near.outside, voxel_size, reach=HALF_WAY.reach, share=HALF_WAY.share
    )
    box = near.box  # of volumes padded by a voxel
    old, new = np.pad(folds, 1)[box], np.pad(volume == parts.void + 1, 1)[box]
    places = np.argwhere(np.pad(parts.sheet & ~parts.hull & ~fold, 1)[box])
    at = places + (moved / np.array(voxel_size).reshape(3, 1, 1, 1))[(slice(None), *places.T)].T
    found = np.zeros_like(old)
    wanted = np.argwhere(new)
    distance, nearest = cKDTree(at).query(wanted)
    found[tuple(wanted.T)] = np.where(distance < FAR, old[tuple(places.T)][nearest], 0)
    kept = new & np.pad(parts.hull | fold, 1)[box]  # what never moves
    found[kept] = old[kept]
    every = np.pad(folds, 1)
    every[box] = found
    return np.ascontiguousarray(every[1:-1, 1:-1, 1:-1])


class Namings:
    """Hemispheres and what an atlas names in them, kept in a folder.

    Args:
        labeller: of the cohort.
        folder: a file for each hemisphere and item, of its volume, alignment and measures.
    """

    def __init__(self, labeller: AtlasLabeller, folder: Path) -> None:
        self.labeller, self.folder = labeller, folder
        self.deletions = Deletions(labeller.cohort)

    def measured(self, index: int, item: Item) -> tuple[Measured, int]:
        """Name and measure a hemisphere after a deletion; how many voxels of sheet it has."""
        path = self.path("measures", index, item)
        if not path.is_file():
            brain = self.deletions.brain(index, item)
            named = self.labeller.name(brain, self.alignment(brain, index, item))
            measured = Measured.of(named)
            lost = measured.lost.astype(np.float32) if item.kind == HEALTHY else np.zeros(0)
            save(path, measures=measured.measures, lost=lost, voxels=len(named.places))
        with np.load(path) as kept:
            own = Measured(kept["measures"], kept["lost"].astype(np.float64))
            return own, int(kept["voxels"])

    def volume(self, index: int, item: Item) -> np.ndarray:
        """Class numbers of a hemisphere after a deletion, (I, J, K)."""
        path = self.path("volumes", index, item)
        if not path.is_file():
            save(path, volume=self.deletions.brain(index, item).volume)
        with np.load(path) as kept:
            return np.asarray(kept["volume"])

    def alignment(self, brain: Brain, index: int, item: Item) -> Alignment:
        """Align a hemisphere after a deletion.

        It is fitted anew each time, from the position that MNI space gives. The search from
        further away, four fifths of the time, is left out unless it is asked for: it is for brains
        that lie elsewhere.
        """
        path = self.path("alignments", index, item)
        if not path.is_file():
            assert brain.folds is not None
            cohort, side = self.labeller.cohort, self.labeller.side(brain.row)
            labels = brain.folds() * cohort.scheme.foreground(brain.volume)
            points = transformed(np.argwhere(labels), cohort.affine_of(brain.row))
            folds = labels[labels > 0]
            fit = align if item.kind == SEARCHED else align_near
            found = fit(side, points, folds)
            save(path, matrix=found.matrix, moved=found.moved, likelihood=found.likelihood)
        with np.load(path) as kept:
            return Alignment(kept["matrix"], float(kept["moved"]), float(kept["likelihood"]))

    def path(self, what: str, index: int, item: Item) -> Path:
        """File of what is kept of a hemisphere after a deletion."""
        key = row_key(self.labeller.cohort.rows[index])
        return self.folder / what / key / ("-".join(part for part in item if part) + ".npz")


def save(path: Path, **arrays: Any) -> None:
    """Write arrays to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def planned(cohort: Cohort, rounds: int, per_site: int = PER_SITE) -> Iterator[tuple[int, Item]]:
    """Plan what is done: all hemispheres healthy first, then round by round a sulcus of each.

    Args:
        cohort: of hemispheres of several sites.
        rounds: sulci that are taken out of each, one at a time, in a random order of its own.
        per_site: hemispheres of each site that are altered, at most.
    """
    indices = [n for n, row in enumerate(cohort.rows) if row["site"] in SITES]
    for index in indices:
        yield index, Item(HEALTHY)
    order = np.random.default_rng(0).permutation(indices).tolist()
    altered: list[int] = []
    for site in SITES:
        altered += [n for n in order if cohort.rows[n]["site"] == site][:per_site]
    sulci = {
        index: subject_rng(0, f"missing/{row_key(cohort.rows[index])}").permutation(len(SULCI))
        for index in altered
    }
    for n in range(rounds):
        for number, index in enumerate(altered):
            sulcus = SULCI[sulci[index][n]]
            yield index, Item(VOID, sulcus)
            yield index, Item(REFILL, sulcus)
            if n == 0:
                yield index, Item(DEFORM, sulcus)
                yield index, Item(SHAM)
            if n == 0 and number < SOME:
                yield index, Item(SEARCHED)
