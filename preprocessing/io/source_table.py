"""A table as a source: a row a volume, with its file, its side and what goes with it."""

from collections.abc import Sequence
from pathlib import Path

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv
from foldnorm.preprocessing.io.layouts import locate_file
from foldnorm.preprocessing.io.names import bids_label
from foldnorm.preprocessing.io.people import (
    DECIDED,
    FAMILY,
    columns_passed_over,
    participant_ids,
    refuse_pointer,
    require_columns,
    with_known_values,
)
from foldnorm.preprocessing.io.source_volume import COMPANIONS, Companions, SourceVolume

TABLE_COLUMNS = ("participant_id", "path", "hemi", *COMPANIONS)


def read_table(path: Path) -> tuple[list[SourceVolume], list[str]]:
    """Read the volumes of a table, and warnings.

    Raises:
        InputError: rows without id or path, or that contradict each other.
    """
    refuse_pointer(path)
    rows = read_tsv(path)
    if not rows:
        return [], []
    require_columns(rows, ("participant_id", "path"), path)
    ids, warnings = participant_ids(rows, path)
    rows, said = with_known_values(rows, ids, path)
    warnings += said
    warnings += columns_passed_over(rows, DECIDED, path)
    volumes = []
    for number, (participant, row) in enumerate(zip(ids, rows, strict=True), start=2):
        if not participant or not row["path"]:
            raise InputError(f"line {number}: expected participant_id and path: {path}")
        hemi = row.get("hemi", "")
        if hemi not in ("", "L", "R"):
            raise InputError(f"line {number}: hemi is L, R or n/a, got {hemi!r}: {path}")
        known = {k: v for k, v in row.items() if k not in TABLE_COLUMNS}
        beside = {kind: path.parent / row[kind] for kind in COMPANIONS if row.get(kind)}
        volumes.append(
            SourceVolume(participant, hemi, path.parent / row["path"], Companions(**beside), known)
        )
    warnings += _check_rows(volumes, path)
    return list({(v.key, v.path): v for v in volumes}.values()), warnings


def _check_rows(volumes: Sequence[SourceVolume], table: Path) -> list[str]:
    """Refuse rows that contradict each other; warn of what contradicts the names of files.

    Raises:
        InputError: one volume has two accounts, one participant two families, or one file is given
            as both hemispheres.
    """
    owners: dict[Path, set[str]] = {}
    sides: dict[tuple[str, Path], str] = {}
    row: dict[tuple[str, Path], SourceVolume] = {}
    family: dict[str, str] = {}
    for volume in volumes:
        label = bids_label(volume.participant)
        owners.setdefault(volume.path, set()).add(label)
        if row.setdefault((volume.key, volume.path), volume) != volume:
            raise InputError(f"rows of {volume.key} contradict each other: {table}")
        other = sides.setdefault((label, volume.path), volume.hemi)
        if other != volume.hemi:
            raise InputError(
                f"one file is hemisphere {other or 'n/a'} of {label} in one row and "
                f"{volume.hemi or 'n/a'} in another: {volume.path} in {table}"
            )
        said = volume.known.get(FAMILY, "")
        if family.setdefault(label, said) != said:
            raise InputError(
                f"{label} is of family {family[label] or 'n/a'} in one row and of "
                f"{said or 'n/a'} in another: {table}"
            )
    shared = {path: labels for path, labels in owners.items() if len(labels) > 1}
    warnings = [
        f"one file of {len(labels)} participants ({', '.join(sorted(labels))}): {path} in {table}"
        for path, labels in shared.items()
    ]
    return warnings + [line for line in (_against_names(volumes, table),) if line]


def _against_names(volumes: Sequence[SourceVolume], table: Path) -> str:
    """Say which volumes a table gives another side, or another of its people, than their names."""
    people = {bids_label(volume.participant) for volume in volumes}
    against = []
    for volume in volumes:
        named = locate_file(volume.path).name
        given, own = bids_label(volume.participant), bids_label(named.participant)
        if volume.hemi and named.hemi and volume.hemi != named.hemi:
            against.append(f"{volume.path.name} is given as {volume.hemi}")
        elif given != own and own in people:
            against.append(f"{volume.path.name} is given to {given}")
    if not against:
        return ""
    number = counted(len(against), "volume")
    return f"the table is followed against the names of {number}, {against[0]}: {table}"
