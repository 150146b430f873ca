"""Contents of a source: found, missing, ambiguous and not used, without opening a single volume."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.layouts import SEGMENTATION
from foldnorm.preprocessing.io.scan import ROUTINE, Scan, Unused, is_image, scan, unused_record
from foldnorm.preprocessing.io.schemes import GREY_WHITE, SKELETON
from foldnorm.preprocessing.io.source_volume import SourceVolume
from foldnorm.preprocessing.io.sources import Findings, Source, find_volumes

# Kind of volume → command that reads it.
COMMANDS = {
    SKELETON.stem: "preprocess",
    GREY_WHITE.stem: "skeletonise",
    SEGMENTATION: "skeletonise",
}
IMAGE_COMMAND = "images"
UNNAMED = "kind_not_named"  # in the place of a kind
READ_AS = (
    "preprocess takes them for what --scheme says (skeletons, if nothing is said), skeletonise for "
    "segmentations"
)
WITHOUT_SIDE = {"n/a": "without a side in the name"}
MAX_LISTED = 20  # keys a line of the summary names at most


@dataclass(frozen=True)
class Inspection:
    """Result of `inspect_source`.

    Attributes:
        volumes: by kind (``skeleton``, ``grey_white``, ``segmentation``), those that would be used;
            one whose name says no kind is among both skeletons and grey-white volumes.
        problems: by kind, those that would not, and why.
        images: number of pictures and idx archives.
        unused: what none of the commands reads, and why.
        warnings: on tables, a line each.
    """

    volumes: dict[str, list[SourceVolume]]
    problems: dict[str, list[Problem]]
    images: int
    unused: list[Unused]
    warnings: list[str]

    @property
    def by_named_kind(self) -> dict[str, list[SourceVolume]]:
        """Volumes by the kind that their names say; `UNNAMED` are those whose names say none."""
        unnamed = {v.path for v in self.volumes[SKELETON.stem]}
        unnamed &= {v.path for v in self.volumes[GREY_WHITE.stem]}
        found = {k: [v for v in own if v.path not in unnamed] for k, own in self.volumes.items()}
        return {**found, UNNAMED: [v for v in self.volumes[SKELETON.stem] if v.path in unnamed]}

    @property
    def lacking(self) -> dict[str, list[str]]:
        """Kind of file, or other hemisphere → keys of the skeletons that lack it."""
        skeletons = self.volumes[SKELETON.stem]
        keys = {v.key for v in skeletons}
        both = {"L": "R", "R": "L"}
        grey_white = {v.key for v in self.volumes[GREY_WHITE.stem]}
        return {
            "fold graph": [v.key for v in skeletons if v.companions.graph is None],
            "transform to MNI": [v.key for v in skeletons if v.companions.transform is None],
            "fold labels": [v.key for v in skeletons if v.companions.folds is None],
            "grey-white volume": [v.key for v in skeletons if v.key not in grey_white],
            "other hemisphere": [
                v.key
                for v in skeletons
                if v.hemi and f"{v.key.removesuffix(v.hemi)}{both[v.hemi]}" not in keys
            ],
        }

    @property
    def commands(self) -> list[str]:
        """Commands that read what is there."""
        found = [command for kind, command in COMMANDS.items() if self.volumes[kind]]
        return list(dict.fromkeys([*found, *([IMAGE_COMMAND] if self.images else [])]))

    def as_dict(self) -> dict[str, Any]:
        """Return counts, and everything that deserves a look, by key, for ``--json``."""
        return {
            "participants": len({v.participant for group in self.volumes.values() for v in group}),
            "volumes": {
                kind: dict(sorted(Counter(v.hemi or "n/a" for v in group).items()))
                for kind, group in self.by_named_kind.items()
            },
            "images": self.images,
            "commands": self.commands,
            "lacking": self.lacking,
            "ambiguous": {
                v.key: {"chosen": str(v.path), "others": [str(path) for path in v.alternatives]}
                for group in self.volumes.values()
                for v in group
                if v.alternatives
            },
            "problems": {
                problem.key: problem.reason for group in self.problems.values() for problem in group
            },
            "unused": unused_record(self.unused),
            "warnings": self.warnings,
        }


def inspect_source(sources: Sequence[Source], prefer: Sequence[str] = ()) -> Inspection:
    """Look through sources as ``preprocess``, ``skeletonise`` and ``images`` would.

    Raises:
        InputError: it holds no volume or image of any kind.
    """
    found: dict[str, Findings[SourceVolume]] = {}
    reasons = []
    for kind in COMMANDS:
        try:
            found[kind] = find_volumes(sources, kind, prefer=prefer)
        except InputError as error:
            found[kind] = Findings([], [])
            reasons.append(error)
    scanned = [scan(source.path) for source in sources if source.path.is_dir()]
    images = sum(is_image(path) for one in scanned for path in one.files)
    if len(reasons) == len(COMMANDS) and not images:
        raise reasons[0]
    listed = {v.path for stem in (SKELETON.stem, GREY_WHITE.stem) for v in found[stem].items}
    if {v.path for v in found[SEGMENTATION].items} <= listed:
        found[SEGMENTATION] = Findings([], [])
    warnings = [line for one in found.values() for line in one.warnings]
    return Inspection(
        {kind: one.items for kind, one in found.items()},
        {kind: one.problems for kind, one in found.items()},
        images,
        _unused_by_all(scanned, list(found.values())),
        list(dict.fromkeys(warnings)),
    )


def _unused_by_all(
    scanned: Sequence[Scan], found: Sequence[Findings[SourceVolume]]
) -> list[Unused]:
    """List what no command reads; a reason that some command has goes before a routine one."""
    reasons: dict[Any, Unused] = {}
    readers = [one for one in found if one.unused or one.items]
    for one in readers or [Findings[SourceVolume]([], [], unused=s.unused) for s in scanned]:
        for unused in one.unused:
            if unused.path not in reasons or reasons[unused.path].reason in ROUTINE:
                reasons[unused.path] = unused
    used = {v.path for one in readers for v in one.items} | {
        path for one in scanned for path in one.files if is_image(path)
    }
    above = {path.parent for path in used}
    used |= above | {folder for own in above for folder in own.parents}
    return [unused for path, unused in sorted(reasons.items()) if path not in used]


def summary(inspection: Inspection) -> str:
    """Describe an inspection in lines for a terminal."""
    content = inspection.as_dict()
    lines = [counted(content["participants"], "participant")]
    for kind, sides in content["volumes"].items():
        counts = ", ".join(f"{n} {WITHOUT_SIDE.get(side, side)}" for side, n in sides.items())
        if kind != UNNAMED:
            lines.append(f"{kind}: {counts or 'none'}")
        elif counts:
            lines.append(f"volumes whose names do not say their kind: {counts}; {READ_AS}")
    if inspection.images:
        lines.append(f"images: {counted(inspection.images, 'file')}")
    for what, keys in content["lacking"].items():
        if keys:
            lines.append(f"without {what}: {len(keys)} ({_some(keys)})")
    for key, choice in content["ambiguous"].items():
        lines.append(f"{key}: of {1 + len(choice['others'])} taken: {choice['chosen']}")
    lines += [f"{key}: {reason}" for key, reason in content["problems"].items()]
    lines += content["warnings"]
    lines += [
        f"not used, {group['reason']}: {group['count']} ({_some(group['files'])})"
        for group in content["unused"]
    ]
    reading = " and ".join(f"foldnorm {command}" for command in inspection.commands)
    return "\n".join([*lines, f"read by {reading or 'no command'}"])


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:MAX_LISTED]) + (", …" if len(keys) > MAX_LISTED else "")
