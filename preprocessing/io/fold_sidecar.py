"""Sidecar of fold labels: measures of each fold, and its sulcus where gyri name it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foldnorm.preprocessing.core.files import json_or_nothing, write_json
from foldnorm.preprocessing.io.volumes import sidecar_path


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


def _is_fold(fold: Any) -> bool:
    return isinstance(fold, dict) and isinstance(fold.get("fold"), int)
