"""A cohort folder of drawn volumes, which every command takes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.cohort import (
    FOLD_COLUMNS,
    FOLD_TABLE,
    FOLDS,
    VOLUMES,
    Cohort,
)
from foldnorm.preprocessing.cohort.cohort_files import write_description, write_participants
from foldnorm.preprocessing.cohort.cut_folds import cut_into_folds
from foldnorm.preprocessing.core.arrays import write_array
from foldnorm.preprocessing.core.files import tsv_writer
from foldnorm.preprocessing.io.names import bids_label
from foldnorm.preprocessing.io.volumes import read_labels


def side_of(like: Cohort, given: Mapping[str, str]) -> str:
    """Side of drawn volumes: as told; else the only one there is, or that in whose order all are.

    Args:
        like: cohort that their model was trained on.
        given: columns that the model was told.
    """
    sides = {row.get("hemi", "") for row in like.rows}
    if "hemi" in given:
        return given["hemi"]
    if len(sides) == 1:
        return sides.pop()
    return "L" if like.preparation.get("mirror_right") else ""


def write_synthetic_cohort(
    files: Sequence[Path],
    like: Cohort,
    out: Path,
    given: Mapping[str, str],
    drawn: Mapping[str, Any],
) -> None:
    """Write a cohort folder of drawn volumes, marked as drawn.

    Each volume is a participant of the training split. Folds are the simple surfaces of its
    structure, if the other cohort has folds, and have no names.

    Args:
        files: label volumes of class numbers, on the grid of the other cohort.
        like: cohort that their model was trained on.
        out: folder to write to.
        given: columns that the model was told.
        drawn: what is recorded of how they were drawn.
    """
    shape = (len(files), *like.shape)
    rows = [
        {**given, "hemi": side_of(like, given), "split": "train",
         "participant_id": f"sub-{bids_label(path.name.split('_')[0])}"}
        for path in files
    ]  # fmt: skip
    volumes = (_packed(path, row, like) for path, row in zip(files, rows, strict=True))
    write_array(out / VOLUMES, volumes, shape=shape, dtype=np.dtype(np.uint8))
    if like.folds is not None:
        with tsv_writer(out / FOLD_TABLE, FOLD_COLUMNS) as write_row:

            def folds() -> Iterator[NDArray[np.uint16]]:
                for path, row in zip(files, rows, strict=True):
                    found = cut_into_folds(_packed(path, row, like), like.scheme)
                    for fold in _fold_rows(found, row, like.voxel_size):
                        write_row(fold)
                    yield found

            write_array(out / FOLDS, folds(), shape=shape, dtype=np.dtype(np.uint16))
    write_participants(out, rows)
    record = {
        **like.description["Cohort"],
        "origins": {"foldnorm generate": len(files)},
        "phantom": True,
        "synthetic": dict(drawn),
    }
    write_description(out, "foldnorm synthetic cohort", record)  # last: what it says is then there


def _packed(path: Path, row: Mapping[str, str], like: Cohort) -> NDArray[np.uint8]:
    """Read a drawn volume; voxels of a mirrored right hemisphere in the order of a left one."""
    classes = read_labels(path).data.astype(np.uint8)  # from left to right
    return classes[::-1] if np.linalg.det(like.affine_of(row)) < 0 else classes


def _fold_rows(
    folds: NDArray[np.uint16], row: Mapping[str, str], voxel_size: Sequence[float]
) -> Iterator[dict[str, Any]]:
    """Rows of the fold table of one volume; the size of a voxel of a sheet is its mean face."""
    face = float(np.prod(voxel_size)) ** (2 / 3)
    for label, voxels in enumerate(np.bincount(folds.ravel())[1:].tolist(), start=1):
        yield {
            "participant_id": row["participant_id"],
            "hemi": row["hemi"],
            "label": label,
            "name": "",
            "inside": "",
            "size": voxels * face,
            "voxels": voxels,
        }
