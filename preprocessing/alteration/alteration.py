"""Altered cohorts: one alteration a subject, drawn from a seed, written like any other cohort."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.alteration.deletion import (
    HALF_WAY,
    Deletion,
    Refilling,
    SizeRange,
    subject_rng,
)
from foldnorm.preprocessing.alteration.kinds import DEFORMING, KINDS, AlterationKind
from foldnorm.preprocessing.cohort.cohort import (
    FOLD_COLUMNS,
    FOLD_TABLE,
    FOLDS,
    VOLUMES,
    Cohort,
    row_key,
)
from foldnorm.preprocessing.cohort.cohort_files import (
    refuse_other_cohort,
    remove_cohort,
    write_description,
    write_participants,
)
from foldnorm.preprocessing.cohort.quality import COLUMNS as QC_COLUMNS
from foldnorm.preprocessing.cohort.quality import QC_TABLE
from foldnorm.preprocessing.core.arrays import read_array, write_array
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import number, read_tsv, whole_number, write_tsv
from foldnorm.preprocessing.core.isolation import isolated_map
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.volumes import write_labels

FOLDLESS = ("ball", "add", "random", "asymmetry")  # kinds that need no fold of the subject
# Kinds after which sheets are not where their fold labels are.
REARRANGING = ("random", "asymmetry", "displace", *DEFORMING)
DELETIONS = "deletions.tsv"
DELETION_COLUMNS = (
    "participant_id", "hemi", "kind", "label", "name", "size", "voxels",
    "i", "j", "k", "x", "y", "z", "donor", "shift",
    "reach", "share", "mm",
)  # fmt: skip


@dataclass(frozen=True)
class Altered:
    """One volume after an alteration.

    Attributes:
        index: of the volume in the cohort.
        deletion: what was done.
        volume: (I, J, K) class numbers.
        voxels: how many changed.
        centre: (3,) voxel, their centre of mass; None where none did.
    """

    index: int
    deletion: Deletion
    volume: NDArray[np.uint8]
    voxels: int
    centre: NDArray[np.float64] | None


def alter(
    cohort: Cohort,
    indices: Sequence[int] | NDArray[np.int64],
    sizes: SizeRange,
    *,
    kind: str = "fold",
    seed: int = 0,
    refilling: Refilling = HALF_WAY,
) -> Iterator[Altered]:
    """Alter volumes one by one; those with nothing eligible are left out.

    Args:
        cohort: healthy volumes.
        indices: which of them.
        sizes: eligible sizes; 0 is the control.
        kind: one of `KINDS`.
        seed: of the draws, together with each subject's own key.
        refilling: how far neighbours are drawn, where the kind draws any.

    Raises:
        InputError: the cohort cannot be altered so.
    """
    altered = altering(cohort, sizes, kind=kind, seed=seed, refilling=refilling)
    for index in indices:
        made = altered(int(index))
        if made is not None:
            yield made


def altering(
    cohort: Cohort,
    sizes: SizeRange,
    *,
    kind: str = "fold",
    seed: int = 0,
    refilling: Refilling = HALF_WAY,
) -> Callable[[int], Altered | None]:
    """Return what alters the volume of an index, see `alter`; None if nothing in it is eligible.

    Raises:
        InputError: the cohort cannot be altered so.
    """
    way = _way(kind, cohort, refilling)

    def altered(index: int) -> Altered | None:
        deletion = _draw(way, cohort, index, sizes, seed)
        return None if deletion is None else _altered(way, cohort, index, deletion)

    return altered


def write_altered_cohort(
    cohort: Cohort,
    indices: NDArray[np.int64],
    out: Path,
    sizes: SizeRange,
    *,
    kind: str,
    seed: int,
    n_procs: int = 1,
    refilling: Refilling = HALF_WAY,
) -> tuple[int, list[Problem]]:
    """Write an altered cohort folder.

    What is known of the volumes goes along: fold labels of what is left of them, unless the kind
    is one of `REARRANGING`, and what quality control said before the alteration.

    Returns:
        How many volumes had nothing eligible, and those that could not be altered, and why.

    Raises:
        InputError: no volume can be altered so; or the folder is a cohort that was not altered.
    """
    refuse_other_cohort(out, "deletion", "altered")
    _way(kind, cohort, refilling)  # refused here, before workers start
    folder = cohort.folder
    draw = partial(_draw_of_folder, folder, kind, refilling, sizes, seed)
    drawn = list(isolated_map(draw, [int(i) for i in indices], n_procs, in_order=True))
    plan = [(o.item, o.made) for o in drawn if o.made is not None]
    problems = [Problem(row_key(cohort.rows[o.item]), o.reason) for o in drawn if o.reason]
    if not plan and problems:
        raise InputError(problems[0].reason)
    if not plan:
        what = f"anything of size {sizes}" if kind in FOLDLESS else f"a fold of size {sizes}"
        raise InputError(f"no volume has {what} to alter: {folder}")
    apply = partial(_altered_of_folder, folder, kind, refilling)
    altered = (outcome.result for outcome in isolated_map(apply, plan, n_procs, in_order=True))
    kept = [index for index, _ in plan]
    _remove_altered(out)
    table: list[dict[str, Any]] = []
    shape = (len(kept), *cohort.shape)
    volumes = _with_files(cohort, altered, out, table)
    write_array(out / VOLUMES, volumes, shape=shape, dtype=np.dtype("u1"))
    rows = [cohort.rows[index] for index in kept]
    if sizes.is_control or kind not in REARRANGING:
        _write_folds(cohort, plan, out)
    _write_quality(cohort, rows, out)
    write_participants(out, rows)
    write_tsv(out / DELETIONS, table, DELETION_COLUMNS)
    done = _record(sizes, kind, seed) | (asdict(refilling) if kind in DEFORMING else {})
    record = {**cohort.description["Cohort"], "deletion": done}
    write_description(out, "foldnorm altered cohort", record)
    return len(indices) - len(kept) - len(problems), problems


def _way(kind: str, cohort: Cohort, refilling: Refilling) -> AlterationKind:
    if kind not in KINDS:
        raise InputError(f"--kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    return KINDS[kind](cohort, refilling) if kind in DEFORMING else KINDS[kind](cohort)


def _draw(
    way: AlterationKind, cohort: Cohort, index: int, sizes: SizeRange, seed: int
) -> Deletion | None:
    return way.draw(index, sizes, subject_rng(seed, row_key(cohort.rows[index])))


def _altered(way: AlterationKind, cohort: Cohort, index: int, deletion: Deletion) -> Altered:
    volume = way.apply(index, deletion)
    changed = np.argwhere(volume != cohort.volumes[index])
    centre = changed.mean(axis=0) if len(changed) else None
    return Altered(index, deletion, volume, len(changed), centre)


@lru_cache(maxsize=1)
def _opened(
    folder: Path, kind: str, refilling: Refilling, stamp: int
) -> tuple[AlterationKind, Cohort]:
    """Open a cohort, once a worker; ``stamp`` tells a rewritten cohort apart."""
    cohort = Cohort.open(folder)
    return _way(kind, cohort, refilling), cohort


def _draw_of_folder(
    folder: Path, kind: str, refilling: Refilling, sizes: SizeRange, seed: int, index: int
) -> Deletion | None:
    way, cohort = _opened(folder, kind, refilling, (folder / VOLUMES).stat().st_mtime_ns)
    return _draw(way, cohort, index, sizes, seed)


def _altered_of_folder(
    folder: Path, kind: str, refilling: Refilling, planned: tuple[int, Deletion]
) -> Altered:
    way, cohort = _opened(folder, kind, refilling, (folder / VOLUMES).stat().st_mtime_ns)
    return _altered(way, cohort, *planned)


def _remove_altered(out: Path) -> None:
    """Remove the volumes of an altered cohort that was here before, and what makes it a cohort."""
    with suppress(InputError):  # of one that cannot be read, nobody knows what is its own
        for row in Cohort.open(out).rows:
            (out / _file_of(row)).unlink(missing_ok=True)
    remove_cohort(out)


def _file_of(row: Mapping[str, str]) -> Path:
    """Path of a volume as NIfTI in the cohort."""
    return Path(row["participant_id"], "anat", f"{row_key(row)}_dseg.nii.gz")


def _with_files(
    cohort: Cohort, altered: Iterator[Altered], out: Path, table: list[dict[str, Any]]
) -> Iterator[NDArray[np.uint8]]:
    """Write each volume as NIfTI too, and its row, as it passes."""
    for a in altered:
        row = cohort.rows[a.index]
        write_labels(
            out / _file_of(row),
            a.volume,
            cohort.affine_of(row),
            description="foldnorm altered, synthetic deletion",
        )
        table.append(_row(cohort, a))
        yield a.volume


def _write_folds(cohort: Cohort, plan: Sequence[tuple[int, Deletion]], out: Path) -> None:
    """Write fold labels and their table, if the cohort has them, of what the volumes still hold.

    An erased fold has none: its voxels in the hull, which stay, belong to no fold.
    """
    if cohort.folds is None:
        return
    healthy, volumes = cohort.folds, read_array(out / VOLUMES)
    of_volume: dict[str, list[dict[str, str]]] = {}
    for row in cohort.fold_table:
        of_volume.setdefault(row_key(row), []).append(row)
    table: list[dict[str, Any]] = []

    def labels() -> Iterator[NDArray[np.uint16]]:
        for volume, (index, deletion) in zip(volumes, plan, strict=True):
            left = np.where(volume == cohort.scheme.top, healthy[index], np.uint16(0))
            if deletion.kind == "fold":
                left[left == deletion.label] = 0
            table.extend(_fold_rows(of_volume.get(row_key(cohort.rows[index]), []), left))
            yield left

    write_array(out / FOLDS, labels(), shape=volumes.shape, dtype=np.dtype("u2"))
    write_tsv(out / FOLD_TABLE, table, FOLD_COLUMNS)


def _fold_rows(
    rows: Sequence[dict[str, str]], labels: NDArray[np.uint16]
) -> Iterator[dict[str, Any]]:
    """Rows of the fold table of one volume, after its alteration: only folds that it still holds.

    Args:
        rows: before.
        labels: (I, J, K), after.
    """
    counts = np.bincount(labels.ravel(), minlength=int(np.iinfo(labels.dtype).max) + 1)
    for row in rows:
        voxels, before = int(counts[whole_number(row, "label")]), whole_number(row, "voxels")
        if voxels == before:
            yield row
        elif voxels:
            yield {**row, "voxels": voxels, "size": number(row, "size") * voxels / before}


def _write_quality(cohort: Cohort, rows: Sequence[dict[str, str]], out: Path) -> None:
    """Write ``qc.tsv`` of these volumes as it was before, if the cohort has one."""
    if (cohort.folder / QC_TABLE).is_file():
        keys = {row_key(row) for row in rows}
        known = [row for row in read_tsv(cohort.folder / QC_TABLE) if row_key(row) in keys]
        write_tsv(out / QC_TABLE, known, QC_COLUMNS)


def _row(cohort: Cohort, altered: Altered) -> dict[str, Any]:
    row, deletion = cohort.rows[altered.index], altered.deletion
    place: dict[str, Any] = {}
    if altered.centre is not None:
        world = (cohort.affine_of(row) @ np.append(altered.centre, 1))[:3]
        place = dict(zip("ijkxyz", [*map(float, altered.centre), *map(float, world)], strict=True))
    return {
        "participant_id": row["participant_id"],
        "hemi": row["hemi"],
        "kind": deletion.kind,
        "label": deletion.label or None,
        "name": deletion.name,
        "size": deletion.size,
        "voxels": altered.voxels,
        **place,
        "donor": deletion.donor,
        "shift": ",".join(map(str, deletion.shift)) if any(deletion.shift) else None,
        "reach": deletion.reach or None,
        "share": deletion.share or None,
        "mm": deletion.mm or None,
    }


def _record(sizes: SizeRange, kind: str, seed: int) -> dict[str, Any]:
    return {"size": str(sizes), "kind": "none" if sizes.is_control else kind, "seed": seed}
