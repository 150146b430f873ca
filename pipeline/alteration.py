"""Altered cohorts: one deletion a subject, drawn from a seed, written like any other cohort."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort import (
    FOLD_COLUMNS,
    FOLD_TABLE,
    FOLDS,
    VOLUMES,
    Cohort,
    row_key,
    write_description,
    write_packed,
    write_participants,
)
from foldnorm.preprocessing.deletion import (
    Deletion,
    SizeRange,
    apply_deletion,
    deleted_voxels,
    sample_ball,
    sample_fold,
    subject_rng,
)
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import write_tsv
from foldnorm.preprocessing.volumes import write_labels

DELETIONS = "deletions.tsv"
DELETION_COLUMNS = (
    "participant_id", "hemi", "kind", "label", "name", "size", "voxels",
    "i", "j", "k", "x", "y", "z",
)  # fmt: skip
AlterationKind = Literal["fold", "ball"]


@dataclass(frozen=True)
class Altered:
    """One volume after a deletion.

    Attributes:
        index: of the volume in the cohort.
        deletion: what was done.
        volume: (I, J, K) class numbers.
        voxels: how many changed.
        centre: (3,) voxel, their centre of mass; None for the control.
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
    kind: AlterationKind = "fold",
    seed: int = 0,
) -> Iterator[Altered]:
    """Alter volumes one by one; those without an eligible fold are left out.

    Args:
        cohort: healthy volumes.
        indices: which of them.
        sizes: eligible sizes; 0 is the control.
        kind: delete a labelled fold, or a ball.
        seed: of the draws, together with each subject's own key.
    """
    if kind == "fold" and cohort.folds is None:
        raise InputError(
            f"cohort has no fold labels; delete balls instead (--kind ball): {cohort.folder}"
        )
    rows_of: dict[str, list[Mapping[str, str]]] = {}
    for row in cohort.fold_table:
        rows_of.setdefault(row_key(row), []).append(row)
    for index in indices:
        key = row_key(cohort.rows[index])
        volume = np.array(cohort.volumes[index])
        rng = subject_rng(seed, key)
        if kind == "fold":
            deletion = sample_fold(rng, rows_of.get(key, []), sizes)
        else:
            deletion = sample_ball(rng, volume, cohort.scheme, sizes)
        if deletion is not None:
            yield _altered(cohort, int(index), volume, deletion)


def write_altered_cohort(
    cohort: Cohort,
    indices: NDArray[np.int64],
    out: Path,
    sizes: SizeRange,
    *,
    kind: AlterationKind,
    seed: int,
) -> tuple[int, int]:
    """Write an altered cohort folder.

    Returns:
        How many volumes it holds, and how many had no eligible fold.
    """
    altered = list(_light(alter(cohort, indices, sizes, kind=kind, seed=seed)))
    if not altered:
        raise InputError(f"no volume has a fold of size {sizes} to delete: {cohort.folder}")
    kept = [a.index for a in altered]
    again = (a.volume for a in alter(cohort, kept, sizes, kind=kind, seed=seed))
    shape = (len(kept), *cohort.shape)
    write_packed(
        out, VOLUMES, _with_files(cohort, kept, again, out), shape=shape, dtype=np.dtype("u1")
    )
    rows = [cohort.rows[index] for index in kept]
    if cohort.folds is not None:
        folds = (np.array(cohort.folds[index]) for index in kept)
        write_packed(out, FOLDS, folds, shape=shape, dtype=np.dtype("u2"))
        keys = {row_key(row) for row in rows}
        table = [row for row in cohort.fold_table if row_key(row) in keys]
        write_tsv(out / FOLD_TABLE, table, FOLD_COLUMNS)
    write_participants(out, rows)
    write_tsv(out / DELETIONS, [_row(cohort, a) for a in altered], DELETION_COLUMNS)
    record = {**cohort.description["Cohort"], "deletion": _record(sizes, kind, seed)}
    write_description(out, "foldnorm altered cohort", record)
    return len(kept), len(indices) - len(kept)


def _altered(cohort: Cohort, index: int, volume: NDArray[np.uint8], deletion: Deletion) -> Altered:
    scheme, size = cohort.scheme, cohort.voxel_size
    folds = None if cohort.folds is None else np.array(cohort.folds[index])
    mask = deleted_voxels(volume, deletion, scheme, folds=folds, voxel_size=size)
    changed = np.argwhere(mask)
    return Altered(
        index,
        deletion,
        apply_deletion(volume, deletion, scheme, folds=folds, voxel_size=size),
        len(changed),
        changed.mean(axis=0) if len(changed) else None,
    )


def _light(altered: Iterator[Altered]) -> Iterator[Altered]:
    """Drop the volumes: the table needs only what was done."""
    nothing = np.empty((0, 0, 0), dtype=np.uint8)
    for a in altered:
        yield Altered(a.index, a.deletion, nothing, a.voxels, a.centre)


def _with_files(
    cohort: Cohort, kept: list[int], volumes: Iterator[NDArray[np.uint8]], out: Path
) -> Iterator[NDArray[np.uint8]]:
    """Write each volume as NIfTI too, as it passes."""
    for index, volume in zip(kept, volumes, strict=True):
        row = cohort.rows[index]
        name = f"{row_key(row)}_dseg.nii.gz"
        write_labels(
            out / row["participant_id"] / "anat" / name,
            volume,
            cohort.affine,
            description="foldnorm altered, synthetic deletion",
        )
        yield volume


def _row(cohort: Cohort, altered: Altered) -> dict[str, Any]:
    row, deletion = cohort.rows[altered.index], altered.deletion
    place: dict[str, Any] = {}
    if altered.centre is not None:
        world = cohort.affine[:3, :3] @ altered.centre + cohort.affine[:3, 3]
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
    }


def _record(sizes: SizeRange, kind: AlterationKind, seed: int) -> dict[str, Any]:
    return {"size": str(sizes), "kind": "none" if sizes.is_control else kind, "seed": seed}
