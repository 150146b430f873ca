"""Find the volumes of a source: a Morphologist tree, a folder of NIfTI files, one file, a table.

A source is only ever read. What cannot be used is returned as a problem, not raised: the other
subjects go on.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import read_tsv
from foldnorm.preprocessing.volumes import is_nifti, nifti_stem

FOLDS_STEM = "folds"  # fold labels lie beside the skeleton: Lfolds_<subject>.nii.gz
FOLD_NAMES = "fold_names.tsv"  # label and name, at the root of a source
PARTICIPANTS = "participants.tsv"
BIDS_ENTITIES = re.compile(r"sub-(?P<participant>[A-Za-z0-9]+)(?:_.*?hemi-(?P<hemi>[LR]))?")
TABLE_SUFFIXES = (".tsv", ".csv")


@dataclass(frozen=True)
class SourceVolume:
    """One volume to preprocess.

    Attributes:
        participant: id, always a string, without the ``sub-`` of BIDS.
        hemi: ``L``, ``R``, or empty where the source does not say.
        path: the label volume.
        folds: fold-label volume on the same grid, where there is one.
        known: what the source's table says of the participant (family, sex, age, …).
    """

    participant: str
    hemi: str
    path: Path
    folds: Path | None = None
    known: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of the volume in a cohort: ``sub-100206_hemi-L``."""
        return f"sub-{bids_label(self.participant)}" + (f"_hemi-{self.hemi}" if self.hemi else "")


@dataclass(frozen=True)
class Problem:
    """A volume that cannot be used, and why, in one line."""

    key: str
    reason: str


def find_volumes(
    source: Path,
    stem: str,
    *,
    hemis: Sequence[str] = (),
    participants: Iterable[str] = (),
) -> tuple[list[SourceVolume], list[Problem]]:
    """List the volumes of ``source``, sorted by participant and hemisphere.

    Args:
        source: a folder, a NIfTI file, or a table with ``participant_id``, ``path`` and
            optionally ``hemi``, ``folds`` and anything else.
        stem: Morphologist name of the volume wanted (``skeleton``, ``grey_white``); may be empty.
        hemis: keep only these sides; all if empty.
        participants: keep only these ids; all if empty.

    Raises:
        InputError: nothing is there, or a participant that was asked for is not.
    """
    if not source.exists():
        raise InputError(f"no such file or folder: {source}")
    found = list(_read_source(source, stem))
    wanted = {bids_label(p.removeprefix("sub-")) for p in participants}
    absent = wanted - {bids_label(v.participant) for v in found}
    if absent:
        raise InputError(f"no volume of participant {', '.join(sorted(absent))} in {source}")
    found = [
        v
        for v in found
        if (not wanted or bids_label(v.participant) in wanted)
        and (not hemis or not v.hemi or v.hemi in hemis)
    ]
    if not found:
        kind = f"{stem} volume" if stem else "volume"
        raise InputError(f"no {kind} found in {source}")
    return _without_duplicates(sorted(found, key=lambda v: (v.key, str(v.path))))


def read_fold_names(source: Path) -> dict[int, str]:
    """Fold label → name, from ``fold_names.tsv`` at the root of a source; empty if absent."""
    path = source / FOLD_NAMES
    if not path.is_file():
        return {}
    try:
        return {int(row["label"]): row["name"] for row in read_tsv(path)}
    except (KeyError, ValueError):
        raise InputError(f"expected the columns label (integer) and name: {path}") from None


def bids_label(participant: str) -> str:
    """Return the id with only the letters and digits that BIDS allows."""
    return re.sub(r"[^A-Za-z0-9]", "", participant)


def _read_source(source: Path, stem: str) -> Iterator[SourceVolume]:
    if source.is_file() and source.suffix in TABLE_SUFFIXES:
        yield from _read_table(source)
    elif source.is_file():
        yield _from_name(source)
    else:
        yield from _read_tree(source, stem)


def _read_table(path: Path) -> Iterator[SourceVolume]:
    rows = read_tsv(path)
    for number, row in enumerate(rows, start=2):
        if not row.get("participant_id") or not row.get("path"):
            raise InputError(f"line {number}: expected participant_id and path: {path}")
        hemi = row.get("hemi", "")
        if hemi not in ("", "L", "R"):
            raise InputError(f"line {number}: hemi is L, R or n/a, got {hemi!r}: {path}")
        known = {
            k: v for k, v in row.items() if k not in ("participant_id", "path", "hemi", "folds")
        }
        participant = row["participant_id"].removeprefix("sub-")
        folds = path.parent / row["folds"] if row.get("folds") else None
        yield SourceVolume(participant, hemi, path.parent / row["path"], folds, known)


def _read_tree(source: Path, stem: str) -> Iterator[SourceVolume]:
    """Morphologist volumes if there are any, every NIfTI file that is in the folder otherwise."""
    known = _known_participants(source)
    morphologist = (
        re.compile(rf"(?P<hemi>[LR]){re.escape(stem)}_(?P<participant>.+)") if stem else None
    )
    plain = []
    any_morphologist = False
    for path in _nifti_files(source):
        match = morphologist.fullmatch(nifti_stem(path)) if morphologist else None
        if match and path.parent.name == "segmentation":
            any_morphologist = True
            participant, hemi = match["participant"], match["hemi"]
            folds = path.with_name(f"{hemi}{FOLDS_STEM}_{participant}.nii.gz")
            yield SourceVolume(
                participant,
                hemi,
                path,
                folds if folds.is_file() else None,
                known.get(bids_label(participant), {}),
            )
        elif path.parent == source:
            plain.append(path)
    if not any_morphologist:
        for path in plain:
            volume = _from_name(path)
            known_here = known.get(bids_label(volume.participant), {})
            yield SourceVolume(volume.participant, volume.hemi, path, None, known_here)


def _nifti_files(source: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(source):
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if is_nifti(path) and not name.startswith("."):
                yield path


def _from_name(path: Path) -> SourceVolume:
    match = BIDS_ENTITIES.match(nifti_stem(path))
    if match:
        return SourceVolume(match["participant"], match["hemi"] or "", path)
    return SourceVolume(nifti_stem(path), "", path)


def _known_participants(source: Path) -> dict[str, dict[str, str]]:
    path = source / PARTICIPANTS
    if not path.is_file():
        return {}
    rows = read_tsv(path)
    if rows and "participant_id" not in rows[0]:
        raise InputError(f"expected a column participant_id: {path}")
    return {
        bids_label(row["participant_id"].removeprefix("sub-")): {
            k: v for k, v in row.items() if k != "participant_id"
        }
        for row in rows
    }


def _without_duplicates(
    volumes: list[SourceVolume],
) -> tuple[list[SourceVolume], list[Problem]]:
    """Two volumes under one key: neither is used, for nothing says which is right."""
    by_key: dict[str, list[SourceVolume]] = {}
    for volume in volumes:
        by_key.setdefault(volume.key, []).append(volume)
    single = [v[0] for v in by_key.values() if len(v) == 1]
    problems = [
        Problem(key, "several volumes of the same id: " + ", ".join(str(v.path) for v in group))
        for key, group in by_key.items()
        if len(group) > 1
    ]
    return single, problems
