"""Several volumes of one hemisphere: which acquisition, session or description of it is read."""

import re
from collections.abc import Sequence
from dataclasses import replace

from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.names import bids_label
from foldnorm.preprocessing.io.source_volume import SourceVolume

DEFAULT_ACQUISITION, DEFAULT_ANALYSIS = "default_acquisition", "default_analysis"
SESSION = re.compile(r"_?ses-[A-Za-z0-9]+")
# Of several segmentations of a person in BIDS derivatives, FreeSurfer's go first.
SEGMENTATION_DESCRIPTIONS = ("_desc-aparcaseg_", "_desc-aseg_")


def without_duplicates(
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
        if len(group) == 1:
            single += group
            continue
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
