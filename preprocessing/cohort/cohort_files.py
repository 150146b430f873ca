"""Writers of what every cohort folder holds: packed volumes, participants, description."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, FIRST_COLUMNS, PARTICIPANTS
from foldnorm.preprocessing.core.files import atomic_path, write_json, write_tsv

BIDS_VERSION = "1.10.0"


def write_packed(
    folder: Path,
    name: str,
    volumes: Iterable[NDArray[Any]],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> None:
    """Write volumes one after the other into one ``.npy``, never holding more than one.

    Args:
        folder: the cohort folder.
        name: file name.
        volumes: as many as ``shape[0]``.
        shape: (N, I, J, K).
        dtype: of the voxels.
    """
    with atomic_path(folder / name) as temporary, temporary.open("wb") as stream:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
        np.lib.format.write_array_header_2_0(stream, {**header, "shape": shape})
        for volume in volumes:
            stream.write(np.ascontiguousarray(volume, dtype=dtype).data)


def write_participants(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write ``participants.tsv``: id, hemisphere, split, then what else is known."""
    others = sorted({key for row in rows for key in row} - set(FIRST_COLUMNS))
    write_tsv(folder / PARTICIPANTS, rows, [*FIRST_COLUMNS, *others])


def write_description(folder: Path, name: str, cohort: Mapping[str, Any]) -> None:
    """Write ``dataset_description.json``; key ``Cohort`` holds what is ours."""
    write_json(
        folder / DESCRIPTION,
        {
            "Name": name,
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "foldnorm", "Version": version("foldnorm")}],
            "Cohort": dict(cohort),
        },
    )
