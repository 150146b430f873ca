"""Find the volumes of a source: a Morphologist tree, a folder of NIfTI files, one file, a table.

A source is only ever read. What cannot be used is returned as a problem, not raised: the other
subjects go on; and everything else that a source holds is returned with the reason why it is not.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import read_tsv, whole_number
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.acquisitions import without_duplicates
from foldnorm.preprocessing.io.layouts import SEGMENTATION, locate_volumes
from foldnorm.preprocessing.io.names import STEMS, bids_label
from foldnorm.preprocessing.io.people import FAMILY, perhaps_one_person, refuse_unknown
from foldnorm.preprocessing.io.scan import (
    Unused,
    fault_of,
    is_image,
    scan,
    unused_line,
    unused_record,
)
from foldnorm.preprocessing.io.source_contents import FOLD_NAMES, read_source
from foldnorm.preprocessing.io.source_volume import SourceVolume

LOG = logging.getLogger(__name__)
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
        read = read_source(source.path, stem, pair_stem, prefer)
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
