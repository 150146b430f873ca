"""Figures by which brains of a projection are coloured: scores, and sizes of sulci."""

from collections.abc import Mapping
from pathlib import Path

from foldnorm.pipeline.artifacts import (
    SCORES,
    SCORES_SIDECAR,
    SULCI,
    SULCI_SIDECAR,
    SULCUS_SIZE,
)
from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import Record, number, read_json, read_tsv
from foldnorm.preprocessing.naming.sulcus_names import NOT_NAMES, sulcus_name

Key = tuple[str, str]  # participant and hemisphere


def cohort_of(folder: Path) -> Path:
    """Return the cohort whose brains a folder has figures of.

    Args:
        folder: what `score` or `label-sulci` wrote, or a cohort whose folds have names.

    Raises:
        InputError: it is none of these.
    """
    for sidecar in (SCORES_SIDECAR, SULCI_SIDECAR):
        if (folder / sidecar).is_file():
            return Path(str(read_json(folder / sidecar)["cohort"])).resolve()
    if (folder / DESCRIPTION).is_file():
        return folder.resolve()
    raise InputError(
        f"neither scores, named sulci nor a cohort, so nothing to colour brains by: {folder}"
    )


def figures_by_brain(folder: Path) -> Mapping[Key, Mapping[str, str]]:
    """Read the figures of each brain of a folder, see `cohort_of`.

    Returns:
        ``score_…`` and ``p_…`` of scores; of sulci ``size_mm2@NAME``, mm² of each of them.

    Raises:
        InputError: the folds of a cohort have no names.
    """
    if (folder / SCORES).is_file():
        return by_brain(folder / SCORES, ("score_", "p_"))
    if (folder / SULCI).is_file():
        sizes: dict[Key, dict[str, str]] = {}
        for row in read_tsv(folder / SULCI):
            own = sizes.setdefault((row["participant_id"], row["hemi"]), {})
            own[SULCUS_SIZE + row["sulcus"]] = row["size_mm2"]
        return sizes
    return _sizes_of_folds(Cohort.open(folder))


def by_brain(path: Path, columns: tuple[str, ...]) -> dict[Key, dict[str, str]]:
    """Columns of a table whose names start so, by participant and hemisphere; {} if it is none."""
    if not path.is_file():
        return {}
    return {
        (row["participant_id"], row["hemi"]): Record(
            {k: v for k, v in row.items() if k.startswith(columns)}, path
        )
        for row in read_tsv(path)
    }


def _sizes_of_folds(cohort: Cohort) -> dict[Key, dict[str, str]]:
    """Mm² of each sulcus of the brains that have any name; 0 if no fold of it has that one."""
    both = not cohort.holds_images and bool(cohort.preparation["whole_brain"])
    sizes: dict[Key, dict[str, float]] = {}
    for row in cohort.fold_table:
        if row["name"] not in NOT_NAMES:
            own = sizes.setdefault((row["participant_id"], row["hemi"]), {})
            name = SULCUS_SIZE + sulcus_name(row["name"], both_sides=both)
            own[name] = own.get(name, 0.0) + number(row, "size")
    names = sorted({name for own in sizes.values() for name in own})
    if not names:
        raise InputError(f"the folds of this cohort have no names: {cohort.folder}")
    return {key: {n: repr(own.get(n, 0.0)) for n in names} for key, own in sizes.items()}
