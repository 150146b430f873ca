"""Find the volumes of a source: a Morphologist tree, a folder of NIfTI files, one file, a table.

A source is only ever read. What cannot be used is returned as a problem, not raised: the other
subjects go on; and everything else that a source holds is returned with the reason why it is not.
"""

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_json, read_tsv, whole_number
from foldnorm.preprocessing.io.fold_graph import BRAINVISA
from foldnorm.preprocessing.io.fold_sidecar import FoldSidecar
from foldnorm.preprocessing.io.layouts import (
    NOT_CHOSEN,
    SEGMENTATION,
    Located,
    locate_file,
    locate_volumes,
)
from foldnorm.preprocessing.io.names import MORPHOLOGIST, STEMS, bids_label
from foldnorm.preprocessing.io.people import (
    DECIDED,
    FAMILY,
    People,
    columns_passed_over,
    participant_ids,
    perhaps_one_person,
    read_people,
    refuse_pointer,
    refuse_unknown,
    require_columns,
    with_known_values,
)
from foldnorm.preprocessing.io.scan import (
    NOT_ASKED,
    PARTICIPANTS,
    Scan,
    Unused,
    fault_of,
    is_cohort,
    is_image,
    not_used,
    scan,
    unused_line,
    unused_record,
)
from foldnorm.preprocessing.io.volumes import NIFTI_SUFFIXES, sidecar_path, volume_stem

LOG = logging.getLogger(__name__)
FOLDS_STEM = "folds"  # fold labels lie beside the skeleton: Lfolds_<subject>.nii.gz
FOLD_NAMES = "fold_names.tsv"  # label and name, at the root of a source
SEGMENTATION_FOLDER = Path("t1mri/default_acquisition/default_analysis/segmentation")
TABLE_SUFFIXES = (".tsv", ".csv")
COMPANIONS = ("folds", "graph", "transform", "pair")
TABLE_COLUMNS = ("participant_id", "path", "hemi", *COMPANIONS)
RIGHT_LABELS = 10_000  # what fold labels of the right are moved up by in a whole brain
NAMED_SOURCE = re.compile(r"(?P<name>[A-Za-z0-9]+)=(?P<path>.+)")
DEFAULT_ACQUISITION, DEFAULT_ANALYSIS = "default_acquisition", "default_analysis"
SESSION = re.compile(r"_?ses-[A-Za-z0-9]+")
# Of several segmentations of a person in BIDS derivatives, FreeSurfer's go first.
SEGMENTATION_DESCRIPTIONS = ("_desc-aparcaseg_", "_desc-aseg_")
Item = TypeVar("Item")


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


@dataclass(frozen=True)
class Problem:
    """A volume that cannot be used, and why, in one line."""

    key: str
    reason: str


@dataclass(frozen=True)
class Findings(Generic[Item]):
    """Contents of sources: volumes, or images.

    Attributes:
        items: to be used, sorted.
        problems: those that were to be used, and cannot.
        unused: everything else that lies there.
        warnings: on tables, a line each.
        where: the sources, for messages.
    """

    items: list[Item]
    problems: list[Problem]
    unused: list[Unused] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    where: str = ""

    def log(self) -> None:
        """Log the warnings, and in one line how many files are not used and why."""
        for line in [*self.warnings, unused_line(self.unused, self.where)]:
            if line:
                LOG.warning("%s", line)

    def record(self) -> dict[str, Any]:
        """Return what a run report says of the sources beside its failures."""
        return {"unused": unused_record(self.unused), "source_warnings": self.warnings}


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
    assume: Orientation | None = None,
) -> Findings[SourceVolume]:
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
        assume: directions that voxels run in, where the header of a file does not say.

    Raises:
        InputError: nothing is there, or a participant that was named is not.
    """
    wanted, unwanted = ({bids_label(p) for p in asked} for asked in (participants, excluded))
    found, problems, ids = [], list[Problem](), set[str]()
    unused, warnings = list[Unused](), list[str]()
    where = ", ".join(str(source.path) for source in sources)
    for source in sources:
        read = _read_source(source.path, stem, pair_stem, prefer)
        here, unclear = _with_clear_ids(read.volumes, source)
        problems += read.problems + unclear
        label = {v.participant: bids_label(source.name + v.participant) for v in here}
        ids.update(label.values())
        kept = [
            v
            for v in here
            if label[v.participant] not in unwanted
            and (not wanted or label[v.participant] in wanted)
            and (not hemis or not v.hemi or v.hemi in hemis)
        ]
        readable, faulty = _without_faults(kept)
        single, twice = _without_duplicates(readable, prefer)
        problems += faulty + twice
        found += [replace(_named(v, source), assume=assume) for v in single]
        unused += read.not_used(kept, single)
        warnings += read.warnings
    refuse_unknown(wanted, ids, where)
    refuse_unknown(unwanted, ids, where, what="of those to be left out: ")
    if not found and not problems:
        raise InputError(_nothing_found(sources, stem, unused, bool(ids), where))
    single, twice = _without_duplicates(found, prefer)
    problems += twice
    warnings += perhaps_one_person({v.participant: v.known.get(FAMILY, "") for v in single})
    if whole_brain:
        single, lonely = _whole_brains(single)
        problems += lonely
    return Findings(single, problems, unused, warnings, where)


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
        found: dict[int, str] = {}
        rows = read_tsv(path)
        if not rows:
            LOG.warning("no row, so that it names no fold: %s", path)
        for row in rows:
            label, name = whole_number(row, "label"), row["name"]
            if found.setdefault(label, name) != name:
                raise InputError(f"label {label} is {found[label]!r} and {name!r}: {path}")
        for label in found.keys() & names.keys():
            if found[label] != names[label]:
                raise InputError(
                    f"label {label} is {names[label]!r} in another source and {found[label]!r} "
                    f"here: {path}"
                )
        names |= found
    return names


def origin_of(volume: SourceVolume) -> str:
    """Return who made a volume: ``phantom``, its sidecar's ``Origin``, Morphologist or unknown.

    Skeletons of different makers differ in their counts, so they must not be mixed unnoticed.
    """
    if is_phantom(volume.known):
        return "phantom"
    said = _sidecar_of(volume).get("Origin")
    if isinstance(said, str):
        return said
    in_tree = volume.path.parent.name == SEGMENTATION_FOLDER.name
    return "Morphologist" if in_tree else "unknown"


def is_phantom(known: Mapping[str, Any]) -> bool:
    """Return whether a table says of a volume that a program drew it, as `foldnorm phantom` does.

    Tables of people may have such a column too, of what was scanned: ``0``, ``no``.
    """
    return str(known.get("phantom", "")).lower() == "true"


def vocabulary_of(volume: SourceVolume) -> str:
    """Return whose names the folds of a volume have; empty if nothing beside it names them."""
    beside = volume.companions
    if beside.folds is not None:
        sidecar = FoldSidecar.beside(beside.folds)
        return "" if sidecar is None else sidecar.vocabulary
    return "" if beside.graph is None else BRAINVISA


def source_warnings(volume: SourceVolume) -> list[str]:
    """Warnings that a volume's own sidecar holds, as `skeletonise` writes them."""
    said = _sidecar_of(volume).get("Warnings")
    warnings = [str(line) for line in said] if isinstance(said, list) else []
    if volume.right is None:
        return warnings
    right = source_warnings(volume.right)
    return [f"left: {line}" for line in warnings] + [f"right: {line}" for line in right]


def _sidecar_of(volume: SourceVolume) -> dict[str, Any]:
    path = sidecar_path(volume.path)
    return read_json(path) if path.is_file() else {}


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


@dataclass(frozen=True)
class _Read:
    """One source, as it was found."""

    volumes: list[SourceVolume]
    problems: list[Problem] = field(default_factory=list)
    others: list[Unused] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    scanned: Scan = field(default_factory=Scan)
    tables: frozenset[Path] = frozenset()

    def not_used(
        self, kept: Sequence[SourceVolume], single: Sequence[SourceVolume]
    ) -> list[Unused]:
        """List what is not used, once it is known which volumes are."""
        asked = {v.path for v in kept}
        reasons = [Unused(v.path, NOT_ASKED) for v in self.volumes if v.path not in asked]
        reasons += [Unused(path, NOT_CHOSEN) for v in single for path in v.alternatives]
        rejected = asked - {v.path for v in single} - {one.path for one in reasons}
        used = {v.path for v in single} | rejected  # the latter are problems
        for volume in single:
            used.update(Path(path) for path in volume.companions.as_dict().values())
            used.add(sidecar_path(volume.path))
        refused = {Path(problem.key) for problem in self.problems}
        used |= {path for path in self.scanned.files if path in refused or path in self.tables}
        return not_used(self.scanned, used, [*self.others, *reasons])


def _read_source(source: Path, stem: str, pair_stem: str, prefer: Sequence[str]) -> _Read:
    if not source.exists():
        fault = f" ({fault_of(source)})" if source.is_symlink() else ""
        raise InputError(f"no such file or folder{fault}: {source}")
    if source.is_file() and source.suffix.lower() in TABLE_SUFFIXES:
        volumes, warnings = _read_table(source)
        return _Read(volumes, warnings=warnings)
    if source.is_file():
        return _Read([_volume_of(locate_file(source), {}, "", prefer)])
    return _read_tree(source, stem, pair_stem, prefer)


def _read_table(path: Path) -> tuple[list[SourceVolume], list[str]]:
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


def _read_tree(source: Path, stem: str, pair_stem: str, prefer: Sequence[str]) -> _Read:
    """Find the volumes of a folder.

    Raises:
        InputError: it is a cohort already.
    """
    if is_cohort(path.name for path in source.iterdir()):
        raise InputError(f"a cohort of foldnorm already, no source of one: {source}")
    table = source / PARTICIPANTS
    people = read_people(table) if os.path.lexists(table) else People(table, {})
    scanned = scan(source, trees=stem != SEGMENTATION)
    contents = locate_volumes(scanned, source, stem)
    volumes = [_volume_of(one, people.known, pair_stem, prefer) for one in contents.volumes]
    problems = [Problem(str(one.path), one.reason) for one in contents.refused]
    joined = people.join_warnings([bids_label(v.participant) for v in volumes])
    warnings = [*people.warnings, *(joined if os.path.lexists(table) else [])]
    tables = frozenset({table, source / FOLD_NAMES})
    return _Read(volumes, problems, contents.others, warnings, scanned, tables)


def _volume_of(
    located: Located,
    known: Mapping[str, dict[str, str]],
    pair_stem: str,
    prefer: Sequence[str],
) -> SourceVolume:
    """Return a volume with what goes with it."""
    path, name = located.path, located.name
    companions = Companions()
    if name.of_morphologist:
        companions = _beside(path, name.hemi, pair_stem, prefer)
    elif located.freesurfer:
        transform = path.parent / "transforms" / "talairach.xfm"
        companions = Companions(transform=transform if transform.is_file() else None)
    of_table = known.get(bids_label(name.participant), {})
    return SourceVolume(name.participant, name.hemi, path, companions, of_table)


def _with_clear_ids(
    volumes: Sequence[SourceVolume], source: Source
) -> tuple[list[SourceVolume], list[Problem]]:
    """Keep the volumes whose ids are told apart by letters and digits."""
    written: dict[str, set[str]] = {}
    for volume in volumes:
        written.setdefault(bids_label(volume.participant), set()).add(volume.participant)
    clear, problems = [], []
    for volume in volumes:
        label = bids_label(volume.participant)
        if not bids_label(source.name + volume.participant) or not label:
            reason = f"an id needs a letter or a digit: {volume.path}"
            problems.append(Problem(repr(volume.participant), reason))
        elif len(written[label]) > 1:
            alike = " and ".join(sorted(written[label]))
            reason = f"{alike} are one id by their letters and digits; rename one: {volume.path}"
            problems.append(Problem(volume.key, reason))
        else:
            clear.append(volume)
    return clear, problems


def _without_faults(
    volumes: Sequence[SourceVolume],
) -> tuple[list[SourceVolume], list[Problem]]:
    """Keep the volumes whose files are there."""
    faults = {volume.path: fault_of(volume.path) for volume in volumes}
    problems = [Problem(v.key, f"{faults[v.path]}: {v.path}") for v in volumes if faults[v.path]]
    return [v for v in volumes if not faults[v.path]], problems


def _nothing_found(
    sources: Sequence[Source], stem: str, unused: Sequence[Unused], has_ids: bool, where: str
) -> str:
    """Say that there is no volume of the kind, what there is, and what reads it."""
    if has_ids:
        return f"every volume is left out as asked (side, participants, quality control): {where}"
    hints = list(dict.fromkeys(hint for source in sources for hint in other_kinds(source, stem)))
    if line := unused_line(unused, where):
        hints.append(line.removesuffix(f": {where}"))
    kind = f"{stem} volume" if stem else "volume"
    return "; ".join([f"no {kind} found in {where}", *hints])


def other_kinds(source: Source, stem: str) -> list[str]:
    """Say what else a folder holds, and which command reads it."""
    if not source.path.is_dir():
        return []
    hints = []
    for other in (*STEMS, SEGMENTATION):
        scanned = scan(source.path, trees=other != SEGMENTATION)
        located = locate_volumes(scanned, source.path, other).volumes
        if other != SEGMENTATION:
            located = [one for one in located if one.name.of_morphologist]
        if other == stem or not located:
            continue
        command = "preprocess" if other == "skeleton" else "skeletonise"
        hints.append(f"foldnorm {command} takes its {counted(len(located), f'{other} volume')}")
    if images := sum(map(is_image, scanned.files)):
        hints.append(f"foldnorm images takes pictures ({counted(images, 'file')})")
    return hints


def _beside(path: Path, hemi: str, pair_stem: str, prefer: Sequence[str]) -> Companions:
    """Find what Morphologist wrote for a volume of ``<acquisition>/<analysis>/segmentation``.

    Of several fold graphs the newest version of the format, and there a session by hand before
    automatic ones, then the first by name. The transform is that of the registration; without
    it, the graph's own.
    """
    match = MORPHOLOGIST.fullmatch(volume_stem(path))
    participant = match["participant"] if match else volume_stem(path).partition("_")[2]
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
        folds if os.path.lexists(folds) else None,  # a dangling link is said when it is read
        graph,
        registered[0] if registered else graph,
        next((pair for pair in pairs if pair_stem and os.path.lexists(pair)), None),
    )


def _version(name: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", name)]


def _without_duplicates(
    volumes: list[SourceVolume], prefer: Sequence[str]
) -> tuple[list[SourceVolume], list[Problem]]:
    """Keep one volume of each key.

    Of several acquisitions of one subject folder, the default acquisition and analysis, or else
    the first by name, is taken, and the others are kept in mind. Volumes of one key in different
    places, or of one acquisition, are a problem: nothing says which is right.
    """
    by_key: dict[str, list[SourceVolume]] = {}
    for volume in sorted(volumes, key=lambda v: (v.key, str(v.path))):
        by_key.setdefault(volume.key, []).append(volume)
    single, problems = [], []
    for key, group in by_key.items():
        chosen, *others = sorted(group, key=lambda v: _acquisition_order(v, prefer))
        rank = _acquisition_order(chosen, prefer)[:-1], _session_of(chosen), chosen.path.parent
        rivals = [
            v
            for v in others
            if rank == (_acquisition_order(v, prefer)[:-1], _session_of(v), v.path.parent)
        ]
        if rivals or len({_place_of(volume) for volume in group}) > 1:
            paths = ", ".join(str(volume.path) for volume in group)
            reason = f"several volumes of the same id (NAME=PATH sets databases apart): {paths}"
            problems.append(Problem(key, reason))
            continue
        alternatives = chosen.alternatives + tuple(volume.path for volume in others)
        single.append(replace(chosen, alternatives=alternatives))
    return single, problems


def _place_of(volume: SourceVolume) -> str:
    """Place in a database that belongs to one subject alone, whatever the session."""
    for folder in volume.path.parents:
        if bids_label(folder.name) == bids_label(volume.participant):
            return str(folder)
    path = SESSION.sub("", str(volume.path))
    for description in SEGMENTATION_DESCRIPTIONS:
        path = path.replace(description, "_")
    return path


def _session_of(volume: SourceVolume) -> str:
    return next(iter(SESSION.findall(str(volume.path))), "")


def _acquisition_order(
    volume: SourceVolume, prefer: Sequence[str]
) -> tuple[int, int, bool, bool, bool, str]:
    names = {folder.name for folder in volume.path.parents}
    described = [d in volume.path.name for d in SEGMENTATION_DESCRIPTIONS]
    return (
        -len(names & set(prefer)),
        described.index(True) if any(described) else len(described),
        "_space-" in volume.path.name and "_space-T1w" not in volume.path.name,
        DEFAULT_ACQUISITION not in names,
        DEFAULT_ANALYSIS not in names,
        str(volume.path),
    )
