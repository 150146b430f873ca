"""Names of fold labels: of one volume in its sidecar, with measures; of a source in its table."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import json_or_nothing, read_tsv, whole_number, write_json
from foldnorm.preprocessing.io.volumes import sidecar_path

LOG = logging.getLogger(__name__)
FOLD_NAMES = "fold_names.tsv"  # label and name, at the root of a source


@dataclass(frozen=True)
class FoldSidecar:
    """Content of a sidecar of fold labels.

    Attributes:
        path: of it.
        folds: measures of each fold: ``fold`` is its label, ``name`` its sulcus with the side,
            empty if it has none; without ``name`` where nothing names folds.
        vocabulary: of the names; empty if there are none.
    """

    path: Path
    folds: Sequence[Mapping[str, Any]]
    vocabulary: str = ""

    @classmethod
    def beside(cls, labels: Path) -> "FoldSidecar | None":
        """Read the sidecar of a volume of fold labels; None if it has none of ours."""
        path = sidecar_path(labels)
        content = json_or_nothing(path) if path.is_file() else {}
        folds, vocabulary = content.get("Folds"), content.get("Vocabulary", "")
        if not isinstance(folds, list) or not all(_is_fold(fold) for fold in folds):
            return None
        return cls(path, folds, str(vocabulary))

    def write(self) -> None:
        """Write it."""
        said = {"Vocabulary": self.vocabulary} if self.vocabulary else {}
        write_json(self.path, {**said, "Folds": list(self.folds)})

    @property
    def names(self) -> dict[int, str]:
        """Fold label → sulcus, of the folds that have a name."""
        return {int(f["fold"]): str(f["name"]) for f in self.folds if f.get("name")}

    @property
    def gyri(self) -> dict[int, str]:
        """Fold label → gyrus, of the folds without a name that lie inside one gyrus."""
        return {
            int(f["fold"]): str(f["between"][0])
            for f in self.folds
            if not f.get("name") and len(f.get("between", ())) == 1
        }


def read_fold_names(sources: Iterable[Path]) -> dict[int, str]:
    """Fold label → name, from ``fold_names.tsv`` at the root of sources; empty if absent.

    Raises:
        InputError: a table is not readable, or two give one label two names.
    """
    names: dict[int, str] = {}
    for source in sources:
        path = source / FOLD_NAMES
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


def _is_fold(fold: Any) -> bool:
    return isinstance(fold, dict) and isinstance(fold.get("fold"), int)
