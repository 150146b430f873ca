"""Find the volumes of a source: a Morphologist tree, a folder of NIfTI files, one file, a table.

A source is only ever read. What cannot be used is returned as a problem, not raised: the other
subjects go on.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv
from foldnorm.preprocessing.io.volumes import NIFTI_SUFFIXES, is_volume, volume_stem

FOLDS_STEM = "folds"  # fold labels lie beside the skeleton: Lfolds_<subject>.nii.gz
FOLD_NAMES = "fold_names.tsv"  # label and name, at the root of a source
PARTICIPANTS = "participants.tsv"
SEGMENTATION = "segmentation"  # asked for as a stem: grey and white matter of any origin
SEGMENTATION_FOLDER = Path("t1mri/default_acquisition/default_analysis/segmentation")
# Of a FreeSurfer or FastSurfer subject, the first that is there: cortex from surfaces before
# cortex from voxels.
FREESURFER_VOLUMES = (
    "aparc+aseg.mgz",
    "aparc.DKTatlas+aseg.deep.mgz",
    "aparc.a2009s+aseg.mgz",
    "wmparc.mgz",
    "aseg.mgz",
    "ribbon.mgz",
)
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
N_INSPECTED = 100  # files, for what a folder without volumes holds
BIDS_ENTITIES = re.compile(r"sub-(?P<participant>[A-Za-z0-9]+)(?:_.*?hemi-(?P<hemi>[LR]))?")
TABLE_SUFFIXES = (".tsv", ".csv")
COMPANIONS = ("folds", "graph", "transform", "pair")
TABLE_COLUMNS = ("participant_id", "path", "hemi", *COMPANIONS)
RIGHT_LABELS = 10_000  # what fold labels of the right are moved up by in a whole brain
NAMED_SOURCE = re.compile(r"(?P<name>[A-Za-z0-9]+)=(?P<path>.+)")
QC_PASS, QC_FAIL = {"", "1", "pass", "ok", "yes"}, {"0", "fail", "exclude", "no"}
DEFAULT_ACQUISITION, DEFAULT_ANALYSIS = "default_acquisition", "default_analysis"


@dataclass(frozen=True)
class Companions:
    """Files that go with a volume.

    Attributes:
        folds: fold labels on the same grid.
        graph: fold graph.
        transform: to MNI space, see `foldnorm.preprocessing.spatial.space.voxel_to_mni`.
        pair: another volume of the same hemisphere on the same voxel grid.
    """

    folds: Path | None = None
    graph: Path | None = None
    transform: Path | None = None
    pair: Path | None = None

    def as_dict(self) -> dict[str, str]:
        """Return the paths of the companions that exist, by kind."""
        paths = {kind: getattr(self, kind) for kind in COMPANIONS}
        return {kind: str(path) for kind, path in paths.items() if path is not None}


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
        right: of a whole brain, the right hemisphere; this is then the left one, and ``hemi``
            is empty.
        assume: directions that voxels run in, where the header of a file does not say.
    """

    participant: str
    hemi: str
    path: Path
    companions: Companions = field(default_factory=Companions)
    known: dict[str, str] = field(default_factory=dict)
    alternatives: tuple[Path, ...] = ()
    right: "SourceVolume | None" = None
    assume: Orientation | None = None

    @property
    def key(self) -> str:
        """Name of the volume in a cohort: ``sub-100206_hemi-L``."""
        return f"sub-{bids_label(self.participant)}" + (f"_hemi-{self.hemi}" if self.hemi else "")

    def assuming(self, assume: Orientation | None) -> "SourceVolume":
        """Return the volume, and its right one, with these directions where a file has none."""
        right = None if self.right is None else self.right.assuming(assume)
        return replace(self, assume=assume, right=right)


@dataclass(frozen=True)
class Problem:
    """A volume that cannot be used, and why, in one line."""

    key: str
    reason: str


@dataclass(frozen=True)
class Source:
    """A database, folder, file or table.

    Attributes:
        path: of it.
        name: put before its ids, so that two databases may hold the same; may be empty.
    """

    path: Path
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Read ``PATH`` or ``NAME=PATH``; NAME is of letters and digits."""
        match = NAMED_SOURCE.fullmatch(text)
        if match and not Path(text).exists():
            return cls(Path(match["path"]).absolute(), match["name"])
        return cls(Path(text).absolute())


def find_volumes(
    sources: Sequence[Source],
    stem: str,
    *,
    pair_stem: str = "",
    hemis: Sequence[str] = (),
    participants: Iterable[str] = (),
    excluded: Iterable[str] = (),
    prefer: Sequence[str] = (),
    whole_brain: bool = False,
) -> tuple[list[SourceVolume], list[Problem]]:
    """List the volumes of ``sources``, sorted by participant and hemisphere.

    Args:
        sources: each a folder, a NIfTI file, or a table with ``participant_id``, ``path`` and
            optionally ``hemi``, `COMPANIONS` and anything else.
        stem: Morphologist name of the volume wanted (``skeleton``, ``grey_white``); may be empty.
        pair_stem: that of the volume to pair it with; none if empty.
        hemis: keep only these sides; all if empty.
        participants: keep only these ids; all if empty.
        excluded: leave these ids out.
        prefer: names of acquisitions, analyses, or fold sessions that are taken before others.
        whole_brain: join the hemispheres of a participant.

    Raises:
        InputError: nothing is there, or a participant that was asked for is not.
    """
    wanted = {bids_label(p.removeprefix("sub-")) for p in participants}
    unwanted = {bids_label(p.removeprefix("sub-")) for p in excluded}
    found, problems, ids = [], list[Problem](), set[str]()
    for source in sources:
        if not source.path.exists():
            raise InputError(f"no such file or folder: {source.path}")
        here = list(_read_source(source.path, stem, pair_stem, prefer))
        label = {v.participant: bids_label(source.name + v.participant) for v in here}
        problems += [
            Problem(repr(v.participant), f"an id needs a letter or a digit: {v.path}")
            for v in here
            if not label[v.participant]
        ]
        ids.update(label.values())
        kept = [
            v
            for v in here
            if label[v.participant]
            and label[v.participant] not in unwanted
            and (not wanted or label[v.participant] in wanted)
            and (not hemis or not v.hemi or v.hemi in hemis)
        ]
        single, unclear = _without_duplicates(kept, prefer)
        found += [_named(v, source) for v in single]
        problems += unclear
    where = ", ".join(str(source.path) for source in sources)
    if wanted - ids:
        raise InputError(f"no volume of participant {', '.join(sorted(wanted - ids))} in {where}")
    if not found and not problems:
        kind = f"{stem} volume" if stem else "volume"
        hint = "; foldnorm images takes pictures" if _has_pictures(sources) else ""
        raise InputError(f"no {kind} found in {where}{hint}")
    single, unclear = _without_duplicates(found, prefer)
    problems += unclear
    if whole_brain:
        single, lonely = _whole_brains(single)
        problems += lonely
    return single, problems


def read_fold_names(sources: Sequence[Source]) -> dict[int, str]:
    """Fold label → name, from ``fold_names.tsv`` at the root of sources; empty if absent.

    Raises:
        InputError: a table is not readable, or two give one label two names.
    """
    names: dict[int, str] = {}
    for source in sources:
        path = source.path / FOLD_NAMES
        if not path.is_file():
            continue
        rows = read_tsv(path)
        try:
            found = {int(row["label"]): row["name"] for row in rows}
        except (KeyError, ValueError):
            raise InputError(f"expected the columns label (integer) and name: {path}") from None
        for label in found.keys() & names.keys():
            if found[label] != names[label]:
                raise InputError(
                    f"label {label} is {names[label]!r} in another source and {found[label]!r} "
                    f"here: {path}"
                )
        names |= found
    return names


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


def origin_of(volume: SourceVolume) -> str:
    """Return who made a volume: ``phantom``, its sidecar's ``Origin``, Morphologist or unknown.

    Skeletons of different makers differ in their counts, so they must not be mixed unnoticed.
    """
    if volume.known.get("phantom"):
        return "phantom"
    said = _sidecar_of(volume).get("Origin")
    if isinstance(said, str):
        return said
    in_tree = volume.path.parent.name == SEGMENTATION_FOLDER.name
    return "Morphologist" if in_tree else "unknown"


def source_warnings(volume: SourceVolume) -> list[str]:
    """Warnings that a volume's own sidecar holds, as `skeletonise` writes them."""
    said = _sidecar_of(volume).get("Warnings")
    warnings = [str(line) for line in said] if isinstance(said, list) else []
    if volume.right is None:
        return warnings
    right = source_warnings(volume.right)
    return [f"left: {line}" for line in warnings] + [f"right: {line}" for line in right]


def _sidecar_of(volume: SourceVolume) -> dict[str, Any]:
    path = volume.path.with_name(f"{volume_stem(volume.path)}.json")
    return read_json(path) if path.is_file() else {}


def bids_label(participant: str) -> str:
    """Return the id with only the letters and digits that BIDS allows."""
    return re.sub(r"[^A-Za-z0-9]", "", participant)


def _named(volume: SourceVolume, source: Source) -> SourceVolume:
    """Put the name of its source before the participant id of a volume."""
    if not source.name:
        return volume
    return replace(
        volume,
        participant=source.name + volume.participant,
        known={**volume.known, "database": source.name},
    )


def _whole_brains(volumes: list[SourceVolume]) -> tuple[list[SourceVolume], list[Problem]]:
    """Join left and right hemisphere of each participant."""
    by_participant: dict[str, dict[str, SourceVolume]] = {}
    for volume in volumes:
        by_participant.setdefault(bids_label(volume.participant), {})[volume.hemi] = volume
    brains, problems = [], []
    for sides in by_participant.values():
        if set(sides) == {"L", "R"}:
            brains.append(replace(sides["L"], hemi="", right=sides["R"]))
            continue
        for volume in sides.values():
            side = f"only side {volume.hemi}" if volume.hemi else "a volume of no known side"
            reason = f"a whole brain needs both hemispheres, there is {side}: {volume.path}"
            problems.append(Problem(volume.key, reason))
    return brains, problems


def _read_source(
    source: Path, stem: str, pair_stem: str, prefer: Sequence[str]
) -> Iterator[SourceVolume]:
    if source.is_file() and source.suffix in TABLE_SUFFIXES:
        yield from _read_table(source)
    elif source.is_file():
        yield _from_name(source)
    elif stem == SEGMENTATION and (subjects := list(_freesurfer_volumes(source))):
        yield from map(_freesurfer_volume, subjects)
    elif stem == SEGMENTATION:
        yield from _read_tree(source, "grey_white", pair_stem, prefer)
    else:
        yield from _read_tree(source, stem, pair_stem, prefer)


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
        beside = {kind: path.parent / row[kind] for kind in COMPANIONS if row.get(kind)}
        yield SourceVolume(
            participant, hemi, path.parent / row["path"], Companions(**beside), known
        )


def _read_tree(
    source: Path, stem: str, pair_stem: str, prefer: Sequence[str]
) -> Iterator[SourceVolume]:
    """Morphologist volumes if there are any, every NIfTI file that is in the folder otherwise."""
    known = _known_participants(source)
    morphologist = (
        re.compile(rf"(?P<hemi>[LR]){re.escape(stem)}_(?P<participant>.+)") if stem else None
    )
    plain = []
    any_morphologist = False
    for path in _volume_files(source):
        match = morphologist.fullmatch(volume_stem(path)) if morphologist else None
        if match and path.parent.name == "segmentation":
            any_morphologist = True
            participant, hemi = match["participant"], match["hemi"]
            yield SourceVolume(
                participant,
                hemi,
                path,
                _beside(path, hemi, participant, pair_stem, prefer),
                known.get(bids_label(participant), {}),
            )
        elif path.parent == source:
            plain.append(path)
    if not any_morphologist:
        for path in plain:
            volume = _from_name(path)
            known_here = known.get(bids_label(volume.participant), {})
            yield SourceVolume(volume.participant, volume.hemi, path, Companions(), known_here)


def _beside(
    path: Path, hemi: str, participant: str, pair_stem: str, prefer: Sequence[str]
) -> Companions:
    """Find what Morphologist wrote for a volume of ``<acquisition>/<analysis>/segmentation``.

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
    registered = [  # of the brain, or of this side alone, which has a grid of its own
        *sorted(analysis.parent.glob("registration/RawT1-*_TO_Talairach-MNI.trm")),
        *sorted(analysis.parent.glob(f"registration/{hemi}RawT1-*_TO_Talairach-MNI.trm")),
    ]
    pairs = [path.with_name(f"{hemi}{pair_stem}_{participant}{s}") for s in NIFTI_SUFFIXES]
    return Companions(
        folds if folds.is_file() else None,
        graph,
        registered[0] if registered else graph,
        next((pair for pair in pairs if pair_stem and pair.is_file()), None),
    )


def _version(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _freesurfer_volume(path: Path) -> SourceVolume:
    """Return a volume of ``<subject>/mri``, with the transform that lies there."""
    transform = path.parent / "transforms" / "talairach.xfm"
    companions = Companions(transform=transform if transform.is_file() else None)
    return SourceVolume(path.parents[1].name, "", path, companions)


def _freesurfer_volumes(source: Path) -> Iterator[Path]:
    """Yield the segmentation of each FreeSurfer subject of a folder, or of the one that it is."""
    for folder in [source / "mri", *sorted(source.glob("*/mri"))]:
        found = [folder / name for name in FREESURFER_VOLUMES if (folder / name).is_file()]
        if found:
            yield found[0]


def _has_pictures(sources: Sequence[Source]) -> bool:
    """Return whether there are pictures among the first files of a folder."""
    return any(
        path.suffix.lower() in PICTURES
        for source in sources
        if source.path.is_dir()
        for path in itertools.islice(source.path.rglob("*"), N_INSPECTED)
    )


def _volume_files(source: Path) -> Iterator[Path]:
    for folder, subfolders, names in os.walk(source):
        subfolders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            if is_volume(path) and not name.startswith("."):
                yield path


def _from_name(path: Path) -> SourceVolume:
    if path.parent.name == "mri" and path.name in FREESURFER_VOLUMES:
        return _freesurfer_volume(path)
    match = BIDS_ENTITIES.match(volume_stem(path))
    if match:
        return SourceVolume(match["participant"], match["hemi"] or "", path)
    return SourceVolume(volume_stem(path), "", path)


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
    """Keep one volume of each key.

    Of several acquisitions of one subject folder, the default acquisition and analysis, or else
    the first by name, is taken, and the others are kept in mind. Volumes of one key in different
    places are a problem: nothing says which is right.
    """
    by_key: dict[str, list[SourceVolume]] = {}
    for volume in sorted(volumes, key=lambda v: (v.key, str(v.path))):
        by_key.setdefault(volume.key, []).append(volume)
    single, problems = [], []
    for key, group in by_key.items():
        if len({_subject_folder(volume) for volume in group}) > 1:
            paths = ", ".join(str(volume.path) for volume in group)
            reason = f"several volumes of the same id (NAME=PATH sets databases apart): {paths}"
            problems.append(Problem(key, reason))
            continue
        chosen, *others = sorted(group, key=lambda v: _acquisition_order(v, prefer))
        alternatives = chosen.alternatives + tuple(volume.path for volume in others)
        single.append(replace(chosen, alternatives=alternatives))
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
