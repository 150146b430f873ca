"""Classes of images or volumes, as a trained classifier predicts them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foldnorm.models.protocols import Classifies
from foldnorm.pipeline.artifacts import CLASSES, CLASSES_SIDECAR
from foldnorm.pipeline.inference.results import Row
from foldnorm.pipeline.metrics.bootstrap import bootstrap_interval
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import Cohort, family_of
from foldnorm.preprocessing.cohort.each_volume import each_volume
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import UNKNOWN_CELLS, write_json, write_tsv
from foldnorm.preprocessing.core.locks import held
from foldnorm.preprocessing.core.problems import Problem

BOOTSTRAPS = 2000


@dataclass(frozen=True)
class ClassificationResult:
    """Predicted classes of volumes.

    Attributes:
        table: a row a volume: whose it is, ``used_for``, its class ``true`` where that is known,
            ``predicted``, and the probability ``p_…`` of each level.
        levels: classes.
        about: how they were predicted; more of ``classes.json``.
        failed: volumes that could not be classified, and why.
    """

    table: list[Row]
    levels: tuple[str, ...]
    about: Mapping[str, Any]
    failed: Sequence[Problem] = ()

    @cached_property
    def metrics(self) -> Row:
        """Accuracy with its interval over families, and so on; see `classification_metrics`."""
        return classification_metrics(
            [row for row in self.table if not row["used_for"]], self.levels
        )

    @property
    def sidecar(self) -> Row:
        """Content of ``classes.json``."""
        levels = list(self.levels)
        return {**self.about, "volumes": len(self.table), "levels": levels, **self.metrics}

    def save(self, out: Path) -> None:
        """Write ``classes.tsv`` and ``classes.json``."""
        known = [name for name in CLASSES.columns if any(name in row for row in self.table)]
        columns = [*known, *(f"p_{level}" for level in self.levels)]
        with held(out):
            write_tsv(out / CLASSES, self.table, columns)
            write_json(out / CLASSES_SIDECAR, self.sidecar)


def classify(
    run: RunFolder, trained: TrainedModel, cohort: Cohort, splits: Sequence[str] = ()
) -> ClassificationResult:
    """Predict the class of each volume of a cohort.

    Args:
        run: folder of the model.
        trained: its model.
        cohort: prepared as the run's.
        splits: of the cohort; all if empty.

    Raises:
        InputError: the model is not a classifier, or there is no such volume.
    """
    target = check_classifier(trained.model).target
    indices = cohort.some_indices(*splits)
    (column,) = trained.conditions.columns
    rows, failed = classified_rows(trained, cohort, indices)
    used = set(run.trained_on({row["participant_id"] for row in rows}))
    for row in rows:
        row["used_for"] = "training" if row["participant_id"] in used else ""
    about = {
        "run": str(run.folder.resolve()),
        "cohort": str(cohort.folder.resolve()),
        "phantom": cohort.is_phantom,
        "target": target,
        "splits": list(splits),
    }
    return ClassificationResult(rows, tuple(column.levels), about, failed)


def check_classifier(model: object) -> Classifies:
    """Return a model as a classifier.

    Raises:
        InputError: it is none.
    """
    if not isinstance(model, Classifies):
        raise InputError(f"{type(model).__name__} is not a classifier")
    return model


def classified_rows(
    trained: TrainedModel, cohort: Cohort, indices: NDArray[np.int64]
) -> tuple[list[Row], list[Problem]]:
    """Classify volumes of a cohort: a row each, with the probability of each level.

    Returns:
        The rows, and the volumes that could not be classified.
    """
    model = check_classifier(trained.model)
    (column,) = trained.conditions.columns
    work, failed = partial(probabilities, trained, model, cohort), list[Problem]()
    found = each_volume(cohort, indices.tolist(), work, failed, together=cohort.n_together)
    rows = [_row(cohort.rows[n], p, column.levels, model.target) for n, p in found]
    return rows, failed


def probabilities(
    trained: TrainedModel, model: Classifies, cohort: Cohort, indices: Sequence[int]
) -> NDArray[np.float64]:
    """Probability of each level, (N, levels); the column need not be there."""
    # Without its conditions: the column is what it predicts, not what it is conditioned on.
    unconditioned = TrainedModel(trained.model, trained.device)
    with trained.computing():
        found = [
            torch.softmax(model.classify(volumes).double(), dim=1).cpu().numpy()
            for volumes, _ in unconditioned.batches(cohort.brains(indices))
        ]
    return np.concatenate(found)


def _row(known: dict[str, str], p: NDArray[np.float64], levels: Sequence[str], target: str) -> Row:
    return {
        "participant_id": known["participant_id"],
        "family": known.get("family", ""),
        "hemi": known.get("hemi", ""),
        "image": known.get("image", ""),
        "true": true_class(known, target),
        "predicted": levels[int(p.argmax())],
        **{f"p_{level}": float(value) for level, value in zip(levels, p, strict=True)},
    }


def true_class(row: Mapping[str, str], target: str) -> str:
    """Class of a volume in a column of ``participants.tsv``; empty where it is not known."""
    value = row.get(target, "")
    return "" if value in UNKNOWN_CELLS else value


def classification_metrics(rows: Sequence[Row], levels: Sequence[str]) -> Row:
    """Accuracy and confusion of volumes that were not trained on, where their class is known."""
    known = [row for row in rows if row["true"] in levels]
    if not known:
        return {"tested": 0}
    right = np.array([row["true"] == row["predicted"] for row in known], dtype=float)
    families = [family_of(row) for row in known]
    confusion = np.zeros((len(levels), len(levels)), dtype=int)
    for row in known:
        confusion[levels.index(row["true"]), levels.index(row["predicted"])] += 1
    low, high = bootstrap_interval(lambda w: w @ right / w.sum(), families, BOOTSTRAPS)
    return {
        "tested": len(known),
        "participants": len({row["participant_id"] for row in known}),
        "accuracy": float(right.mean()),
        "accuracy_low": float(low),
        "accuracy_high": float(high),
        "commonest_class": float(confusion.sum(axis=1).max() / len(known)),
        "balanced_accuracy": float(np.nanmean(_recalls(confusion))),
        "confusion": confusion.tolist(),
    }


def _recalls(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each class that is predicted right; NaN for a class that is not there."""
    total = confusion.sum(axis=1)
    return np.where(total > 0, np.diag(confusion) / np.maximum(total, 1), np.nan)
