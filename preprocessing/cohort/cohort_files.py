"""Writers of what every cohort folder holds beside its volumes: participants, description."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from foldnorm.preprocessing.cohort.cohort import (
    DESCRIPTION,
    FIRST_COLUMNS,
    FOLD_TABLE,
    FOLDS,
    PAIRS,
    PARTICIPANTS,
    VOLUMES,
    Cohort,
)
from foldnorm.preprocessing.cohort.quality import QC_TABLE
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_json, write_tsv

BIDS_VERSION = "1.10.0"
# What makes a folder a cohort; the first says that the rest is there.
OF_COHORT = (DESCRIPTION, VOLUMES, PAIRS, FOLDS, FOLD_TABLE, QC_TABLE)


def refuse_other_cohort(folder: Path, mark: str, made: str) -> None:
    """Refuse a folder that is a cohort made in another way than it is to be written now.

    Args:
        folder: that is to be written.
        mark: key of its description that says how it was made.
        made: how, in a word.

    Raises:
        InputError: it is one, which would be lost.
    """
    if Cohort.is_in(folder) and mark not in Cohort.describe(folder)["Cohort"]:
        raise InputError(f"--out is a cohort that was not {made}, which would be lost: {folder}")


def remove_cohort(folder: Path) -> None:
    """Remove what makes a folder a cohort, before other volumes are written there."""
    for name in OF_COHORT:
        (folder / name).unlink(missing_ok=True)


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
