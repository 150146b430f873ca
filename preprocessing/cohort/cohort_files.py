"""Writers of what every cohort folder holds beside its volumes: participants, description."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, FIRST_COLUMNS, PARTICIPANTS
from foldnorm.preprocessing.core.files import write_json, write_tsv

BIDS_VERSION = "1.10.0"


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
