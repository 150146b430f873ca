"""Contents of a source: found, missing and ambiguous, without opening a single volume."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import GREY_WHITE, SKELETON
from foldnorm.preprocessing.io.sources import Problem, Source, SourceVolume, find_volumes

STEMS = (SKELETON.stem, GREY_WHITE.stem)
MAX_LISTED = 20  # keys a line of the summary names at most


@dataclass(frozen=True)
class Inspection:
    """Result of `inspect_source`.

    Attributes:
        volumes: by kind (``skeleton``, ``grey_white``), those that would be used.
        problems: by kind, those that would not, and why.
    """

    volumes: dict[str, list[SourceVolume]]
    problems: dict[str, list[Problem]]

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

    def as_dict(self) -> dict[str, Any]:
        """Return counts, and everything that deserves a look, by key, for ``--json``."""
        return {
            "participants": len({v.participant for group in self.volumes.values() for v in group}),
            "volumes": {
                kind: dict(sorted(Counter(v.hemi or "n/a" for v in group).items()))
                for kind, group in self.volumes.items()
            },
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
        }


def inspect_source(sources: Sequence[Source], prefer: Sequence[str] = ()) -> Inspection:
    """Look through sources as ``preprocess`` would.

    Raises:
        InputError: it holds no volume of any kind.
    """
    volumes: dict[str, list[SourceVolume]] = {}
    problems: dict[str, list[Problem]] = {}
    reasons = []
    for stem in STEMS:
        try:
            volumes[stem], problems[stem] = find_volumes(sources, stem, prefer=prefer)
        except InputError as error:
            volumes[stem], problems[stem] = [], []
            reasons.append(error)
    if len(reasons) == len(STEMS):
        raise reasons[0]
    return Inspection(volumes, problems)


def summary(inspection: Inspection) -> str:
    """Describe an inspection in lines for a terminal."""
    content = inspection.as_dict()
    lines = [counted(content["participants"], "participant")]
    for kind, sides in content["volumes"].items():
        counts = ", ".join(f"{count} {side}" for side, count in sides.items()) or "none"
        lines.append(f"{kind}: {counts}")
    for what, keys in content["lacking"].items():
        if keys:
            lines.append(f"without {what}: {len(keys)} ({_some(keys)})")
    for key, choice in content["ambiguous"].items():
        lines.append(f"{key}: of {1 + len(choice['others'])} taken: {choice['chosen']}")
    lines += [f"{key}: {reason}" for key, reason in content["problems"].items()]
    return "\n".join(lines)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:MAX_LISTED]) + (", …" if len(keys) > MAX_LISTED else "")
