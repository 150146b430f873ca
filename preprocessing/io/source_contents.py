"""Contents of one source: its volumes, each with what Morphologist or FreeSurfer put beside it."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.layouts import (
    NOT_CHOSEN,
    SEGMENTATION,
    Located,
    locate_file,
    locate_volumes,
)
from foldnorm.preprocessing.io.names import MORPHOLOGIST, bids_label
from foldnorm.preprocessing.io.people import People, read_people
from foldnorm.preprocessing.io.scan import (
    NOT_ASKED,
    PARTICIPANTS,
    Scan,
    Unused,
    fault_of,
    is_cohort,
    not_used,
    scan,
)
from foldnorm.preprocessing.io.source_table import read_table
from foldnorm.preprocessing.io.source_volume import FOLDS_STEM, Companions, SourceVolume
from foldnorm.preprocessing.io.volumes import NIFTI_SUFFIXES, sidecar_path, volume_stem

TABLE_SUFFIXES = (".tsv", ".csv")
FOLD_NAMES = "fold_names.tsv"  # label and name, at the root of a source


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


def read_source(source: Path, stem: str, pair_stem: str, prefer: Sequence[str]) -> SourceContents:
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
        companions = _beside(path, name.hemi, pair_stem, prefer)
    elif located.freesurfer:
        transform = path.parent / "transforms" / "talairach.xfm"
        companions = Companions(transform=transform if transform.is_file() else None)
    of_table = known.get(bids_label(name.participant), {})
    return SourceVolume(name.participant, name.hemi, path, companions, of_table)


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
