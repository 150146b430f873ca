"""Find the volumes of a source: a Morphologist tree, a folder of NIfTI files, one file, a table.

A source is only ever read. What cannot be used is returned as a problem, not raised: the other
subjects go on.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import read_tsv
from foldnorm.preprocessing.volumes import is_nifti, nifti_stem

FOLDS_STEM = "folds"  # fold labels lie beside the skeleton: Lfolds_<subject>.nii.gz
FOLD_NAMES = "fold_names.tsv"  # label and name, at the root of a source
PARTICIPANTS = "participants.tsv"
BIDS_ENTITIES = re.compile(r"sub-(?P<participant>[A-Za-z0-9]+)(?:_.*?hemi-(?P<hemi>[LR]))?")
TABLE_SUFFIXES = (".tsv", ".csv")
TABLE_COLUMNS = ("participant_id", "path", "hemi", "folds", "graph", "transform")
QC_PASS, QC_FAIL = {"", "1", "pass", "ok", "yes"}, {"0", "fail", "exclude", "no"}
DEFAULT_ACQUISITION, DEFAULT_ANALYSIS = "default_acquisition", "default_analysis"


@dataclass(frozen=True)
class Companions:
    """Files that go with a volume.

    Attributes:
        folds: fold labels on the same grid.
        graph: fold graph.
        transform: to MNI space, see `foldnorm.preprocessing.space.voxel_to_mni`.
    """

    folds: Path | None = None
    graph: Path | None = None
    transform: Path | None = None

    @property
    def paths(self) -> list[Path]:
        """Those that there are."""
        return [path for path in (self.folds, self.graph, self.transform) if path is not None]


@dataclass(frozen=True)
class SourceVolume:
    """One volume to preprocess.

    Attributes:
        participant: id, always a string, without the ``sub-`` of BIDS.
        hemi: ``L``, ``R``, or empty where the source does not say.
        path: the label volume.
        companions: what goes with it.
        known: what the source's table says of the participant (family, sex, age, …).
        alternatives: volumes of the same hemisphere that were not chosen.
    """

    participant: str
    hemi: str
    path: Path
    companions: Companions = field(default_factory=Companions)
    known: dict[str, str] = field(default_factory=dict)
    alternatives: tuple[Path, ...] = ()

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
    excluded: Iterable[str] = (),
    prefer: Sequence[str] = (),
) -> tuple[list[SourceVolume], list[Problem]]:
    """List the volumes of ``source``, sorted by participant and hemisphere.

    Args:
        source: a folder, a NIfTI file, or a table with ``participant_id``, ``path`` and
            optionally ``hemi``, ``folds`` and anything else.
        stem: Morphologist name of the volume wanted (``skeleton``, ``grey_white``); may be empty.
        hemis: keep only these sides; all if empty.
        participants: keep only these ids; all if empty.
        excluded: leave these ids out.
        prefer: names of acquisitions, analyses, or fold sessions that are taken before others.

    Raises:
        InputError: nothing is there, or a participant that was asked for is not.
    """
    if not source.exists():
        raise InputError(f"no such file or folder: {source}")
    found = list(_read_source(source, stem, prefer))
    wanted = {bids_label(p.removeprefix("sub-")) for p in participants}
    absent = wanted - {bids_label(v.participant) for v in found}
    if absent:
        raise InputError(f"no volume of participant {', '.join(sorted(absent))} in {source}")
    unwanted = {bids_label(p.removeprefix("sub-")) for p in excluded}
    found = [
        v
        for v in found
        if bids_label(v.participant) not in unwanted
        and (not wanted or bids_label(v.participant) in wanted)
        and (not hemis or not v.hemi or v.hemi in hemis)
    ]
    if not found:
        kind = f"{stem} volume" if stem else "volume"
        raise InputError(f"no {kind} found in {source}")
    return _without_duplicates(sorted(found, key=lambda v: (v.key, str(v.path))), prefer)


def read_fold_names(source: Path) -> dict[int, str]:
    """Fold label → name, from ``fold_names.tsv`` at the root of a source; empty if absent."""
    path = source / FOLD_NAMES
    if not path.is_file():
        return {}
    try:
        return {int(row["label"]): row["name"] for row in read_tsv(path)}
    except (KeyError, ValueError):
        raise InputError(f"expected the columns label (integer) and name: {path}") from None


def read_excluded(path: Path) -> set[str]:
    """Ids that a table of quality control excludes.

    Args:
        path: table with ``participant_id`` and ``qc``: 1, pass, ok or yes keeps a participant; 0,
            fail, exclude or no leaves it out; empty keeps it.

    Raises:
        InputError: other columns or words.
    """
    rows = read_tsv(path)
    if not rows or not {"participant_id", "qc"} <= set(rows[0]):
        raise InputError(f"expected the columns participant_id and qc: {path}")
    excluded = set()
    for number, row in enumerate(rows, start=2):
        verdict = row["qc"].strip().lower()
        if verdict in QC_FAIL:
            excluded.add(row["participant_id"])
        elif verdict not in QC_PASS:
            expected = ", ".join(sorted((QC_PASS | QC_FAIL) - {""}))
            raise InputError(
                f"line {number}: qc is {row['qc']!r}, expected one of {expected}: {path}"
            )
    return excluded


def bids_label(participant: str) -> str:
    """Return the id with only the letters and digits that BIDS allows."""
    return re.sub(r"[^A-Za-z0-9]", "", participant)


def _read_source(source: Path, stem: str, prefer: Sequence[str]) -> Iterator[SourceVolume]:
    if source.is_file() and source.suffix in TABLE_SUFFIXES:
        yield from _read_table(source)
    elif source.is_file():
        yield _from_name(source)
    else:
        yield from _read_tree(source, stem, prefer)


def _read_table(path: Path) -> Iterator[SourceVolume]:
    rows = read_tsv(path)
    for number, row in enumerate(rows, start=2):
        if not row.get("participant_id") or not row.get("path"):
            raise InputError(f"line {number}: expected participant_id and path: {path}")
        hemi = row.get("hemi", "")
        if hemi not in ("", "L", "R"):
            raise InputError(f"line {number}: hemi is L, R or n/a, got {hemi!r}: {path}")
        known = {k: v for k, v in row.items() if k not in TABLE_COLUMNS}
        participant = row["participant_id"].removeprefix("sub-")
        beside = {
            kind: path.parent / row[kind]
            for kind in ("folds", "graph", "transform")
            if row.get(kind)
        }
        yield SourceVolume(
            participant, hemi, path.parent / row["path"], Companions(**beside), known
        )


def _read_tree(source: Path, stem: str, prefer: Sequence[str]) -> Iterator[SourceVolume]:
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
            yield SourceVolume(
                participant,
                hemi,
                path,
                _beside(path, hemi, participant, prefer),
                known.get(bids_label(participant), {}),
            )
        elif path.parent == source:
            plain.append(path)
    if not any_morphologist:
        for path in plain:
            volume = _from_name(path)
            known_here = known.get(bids_label(volume.participant), {})
            yield SourceVolume(volume.participant, volume.hemi, path, Companions(), known_here)


def _beside(path: Path, hemi: str, participant: str, prefer: Sequence[str]) -> Companions:
    """What Morphologist wrote for a volume of ``<acquisition>/<analysis>/segmentation``.

    Of several fold graphs the newest version of the format, and there a session by hand before
    automatic ones, then the first by name. The transform is that of the registration; without
    it, the graph's own.
    """
    folds = path.with_name(f"{hemi}{FOLDS_STEM}_{participant}.nii.gz")
    analysis = path.parent.parent
    graphs = [
        graph
        for graph in analysis.glob(f"folds/*/*/{hemi}{participant}_*.arg")
        if graph.stem == f"{hemi}{participant}_{graph.parent.name}"
    ]
    graphs.sort(key=lambda graph: ("manual" not in graph.parent.name, graph.parent.name))
    graphs.sort(key=lambda graph: _version(graph.parent.parent.name), reverse=True)
    graphs.sort(key=lambda graph: graph.parent.name not in prefer)
    graph = graphs[0] if graphs else None
    registered = sorted(analysis.parent.glob("registration/RawT1-*_TO_Talairach-MNI.trm"))
    return Companions(
        folds if folds.is_file() else None, graph, registered[0] if registered else graph
    )


def _version(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


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
    volumes: list[SourceVolume], prefer: Sequence[str]
) -> tuple[list[SourceVolume], list[Problem]]:
    """One volume a key.

    Of several acquisitions of one subject folder, the default acquisition and analysis, or else
    the first by name, is taken, and the others are kept in mind. Volumes of one key in different
    places are a problem: nothing says which is right.
    """
    by_key: dict[str, list[SourceVolume]] = {}
    for volume in volumes:
        by_key.setdefault(volume.key, []).append(volume)
    single, problems = [], []
    for key, group in by_key.items():
        if len({_subject_folder(volume) for volume in group}) > 1:
            paths = ", ".join(str(volume.path) for volume in group)
            problems.append(Problem(key, f"several volumes of the same id: {paths}"))
            continue
        chosen, *others = sorted(group, key=lambda v: _acquisition_order(v, prefer))
        single.append(replace(chosen, alternatives=tuple(volume.path for volume in others)))
    return single, problems


def _subject_folder(volume: SourceVolume) -> Path:
    """Folder of a subject in a database: above it, nothing belongs to one subject alone."""
    for folder in volume.path.parents:
        if bids_label(folder.name.removeprefix("sub-")) == bids_label(volume.participant):
            return folder
    return volume.path


def _acquisition_order(volume: SourceVolume, prefer: Sequence[str]) -> tuple[int, bool, bool, str]:
    names = {folder.name for folder in volume.path.parents}
    return (
        -len(names & set(prefer)),
        DEFAULT_ACQUISITION not in names,
        DEFAULT_ANALYSIS not in names,
        str(volume.path),
    )
