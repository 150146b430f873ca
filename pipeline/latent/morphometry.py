"""Quantities of a hemisphere from a table of folds, as columns to probe.

The table is that of `foldnorm folds`, or the ``folds.tsv`` of a cohort.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import number
from foldnorm.preprocessing.io.names import bids_label

LOG = logging.getLogger(__name__)

# Of the folds of a hemisphere, or of those of one sulcus.
QUANTITIES: Mapping[str, Callable[[Sequence[float]], float]] = {
    "surface_mm2": sum,
    "bottom_mm": sum,
    "depth_mm": max,
    "voxels": sum,
    "size": sum,  # mm² of sheet, of a cohort's own table
}


def with_morphometry(
    rows: Iterable[Mapping[str, str]],
    folds: Sequence[Mapping[str, str]],
    columns: Sequence[str],
) -> list[dict[str, str]]:
    """Rows of brains with quantities of their folds.

    ``surface_mm2``, ``bottom_mm``, ``voxels`` and ``size`` are sums over folds, ``depth_mm`` is
    that of the deepest; ``surface_mm2@S.T.s.`` of the folds of that sulcus only. A hemisphere
    without folds in the table, or without that sulcus, has no value.

    Args:
        rows: of ``participants.tsv``.
        folds: rows of ``folds.tsv``.
        columns: asked for; those that are none of these quantities are left alone.

    Raises:
        InputError: no hemisphere of the table has a fold of a sulcus that is asked for, or none of
            the brains is in the table.
    """
    by_brain: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for fold in folds:
        by_brain.setdefault(_brain(fold), []).append(fold)
    found = [dict(row) for row in rows]
    without = sum(_brain(row) not in by_brain for row in found)
    if without:
        LOG.warning("%d of %d brains are not in the table of folds", without, len(found))
    for column in columns:
        quantity, at, sulcus = column.partition("@")
        if quantity not in QUANTITIES:
            continue
        if folds and quantity not in folds[0]:
            raise InputError(f"the table of folds has no column {quantity!r}, got {list(folds[0])}")
        for row in found:
            own = by_brain.get(_brain(row), [])
            values = [
                number(fold, quantity)
                for fold in own
                if fold[quantity] and (not at or fold["name"] == sulcus)
            ]
            row[column] = repr(float(QUANTITIES[quantity](values))) if values else ""
        if not any(row[column] for row in found):
            raise InputError(f"no brain has a value of {column!r}: the table of folds holds "
                             f"{counted(len(by_brain), 'hemisphere')} and sulci such as "
                             f"{sorted({f['name'] for f in folds if f['name']})[:5]}")  # fmt: skip
    return found


def _brain(row: Mapping[str, str]) -> tuple[str, str]:
    """Id in letters and digits, without the ``sub-`` that cohorts write, and side."""
    return bids_label(row["participant_id"]), row["hemi"]
