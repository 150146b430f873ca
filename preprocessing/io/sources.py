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
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.acquisitions import without_duplicates
from foldnorm.preprocessing.io.fold_sidecar import FOLD_NAMES
from foldnorm.preprocessing.io.layouts import (
    NOT_CHOSEN,
    SEGMENTATION,
    Located,
    locate_file,
    locate_volumes,
    other_kinds,
)
from foldnorm.preprocessing.io.names import bids_label
from foldnorm.preprocessing.io.people import (
    FAMILY,
    People,
    perhaps_one_person,
    read_people,
    refuse_unknown,
)
from foldnorm.preprocessing.io.scan import (
    NOT_ASKED,
    PARTICIPANTS,
    Scan,
    Unused,
    fault_of,
    is_cohort,
    not_used,
    scan,
    unused_line,
    unused_record,
)
from foldnorm.preprocessing.io.source_table import read_table
from foldnorm.preprocessing.io.source_volume import (
    Companions,
    SourceVolume,
    companions_beside,
)
from foldnorm.preprocessing.io.volumes import sidecar_path

LOG = logging.getLogger(__name__)
TABLE_SUFFIXES = (".tsv", ".csv")
NAMED_SOURCE = re.compile(r"(?P<name>[A-Za-z0-9]+)=(?P<path>.+)")
Item = TypeVar("Item")


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


def refuse_own_source(paths: Iterable[Path], out: Path) -> None:
    """Refuse to write a cohort or a tree into a folder that it is made of.

    Args:
        paths: of sources, folders or files, and of tables.
        out: folder to write.

    Raises:
        InputError: it is one of them, or a table is where its own is to be.
    """
    for path in paths:
        if path.resolve() in (out.resolve(), (out / PARTICIPANTS).resolve()):
            raise InputError(f"--out is the source, which is only read; give another folder: {out}")


@dataclass(frozen=True)
class SourceContents:
    """Contents of one source, as they were found.

    Attributes:
        volumes: of the kind that was asked for.
        problems: files that would be such volumes, and cannot be used.
        others: files and folders that are not used, where the reason is known.
        warnings: on tables, a line each.
        scanned: everything that lies there.
        tables: of people and of names of folds, which are used beside the volumes.
    """

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
        single, twice = without_duplicates(readable, prefer)
        problems += faulty + twice
        found += [replace(_named(v, source), assume=assume) for v in single]
        unused += read.not_used(kept, single)
        warnings += read.warnings
    refuse_unknown(wanted, ids, where)
    refuse_unknown(unwanted, ids, where, what="of those to be left out: ")
    if not found and not problems:
        raise InputError(_nothing_found(sources, stem, unused, bool(ids), where))
    single, twice = without_duplicates(found, prefer)
    problems += twice
    warnings += perhaps_one_person({v.participant: v.known.get(FAMILY, "") for v in single})
    if whole_brain:
        single, lonely = _whole_brains(single)
        problems += lonely
    return Findings(single, problems, unused, warnings, where)


def _read_source(source: Path, stem: str, pair_stem: str, prefer: Sequence[str]) -> SourceContents:
    """Read a folder, a table or one file, without deciding yet which of its volumes are used.

    Args:
        source: of these.
        stem: Morphologist name of the volume wanted; may be empty.
        pair_stem: that of the volume to pair it with; none if empty.
        prefer: names of fold sessions that are taken before others.

    Raises:
        InputError: it is not there, or a cohort already; or a table cannot be read.
    """
    if not source.exists():
        fault = f" ({fault_of(source)})" if source.is_symlink() else ""
        raise InputError(f"no such file or folder{fault}: {source}")
    if source.is_file() and source.suffix.lower() in TABLE_SUFFIXES:
        volumes, warnings = read_table(source)
        return SourceContents(volumes, warnings=warnings)
    if source.is_file():
        return SourceContents([_volume_of(locate_file(source), {}, "", prefer)])
    return _read_tree(source, stem, pair_stem, prefer)


def _read_tree(source: Path, stem: str, pair_stem: str, prefer: Sequence[str]) -> SourceContents:
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
    return SourceContents(volumes, problems, contents.others, warnings, scanned, tables)


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
        companions = companions_beside(path, name.hemi, pair_stem, prefer)
    elif located.freesurfer:
        transform = path.parent / "transforms" / "talairach.xfm"
        companions = Companions(transform=transform if transform.is_file() else None)
    of_table = known.get(bids_label(name.participant), {})
    return SourceVolume(name.participant, name.hemi, path, companions, of_table)


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
    hints = list(
        dict.fromkeys(hint for source in sources for hint in other_kinds(source.path, stem))
    )
    if line := unused_line(unused, where):
        hints.append(line.removesuffix(f": {where}"))
    kind = f"{stem} volume" if stem else "volume"
    return "; ".join([f"no {kind} found in {where}", *hints])
