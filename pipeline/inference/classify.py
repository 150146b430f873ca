"""Classes of images or volumes, as a trained classifier tells them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foldnorm.models.protocols import Classifies
from foldnorm.pipeline.artifacts import CLASSES, CLASSES_SIDECAR
from foldnorm.pipeline.data.conditions import MISSING
from foldnorm.pipeline.metrics.detection import INTERVAL
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_json, write_tsv

BOOTSTRAPS = 2000
Row = dict[str, Any]


def classify(
    run: RunFolder, trained: TrainedModel, cohort: Cohort, out: Path, splits: Sequence[str] = ()
) -> dict[str, Any]:
    """Tell the class of each volume of a cohort; writes `CLASSES` and `CLASSES_SIDECAR`.

    Args:
        run: that the model is of.
        trained: its model.
        cohort: prepared as the run's.
        out: folder to write to.
        splits: of the cohort; all if empty.

    Returns:
        What the sidecar holds: accuracy with its interval over participants, beside that of the
        commonest class, and the confusion matrix, where classes are known; numbers of brains.

    Raises:
        InputError: the model tells no classes, or there is nothing to tell.
    """
    model = trained.model
    if not isinstance(model, Classifies):
        raise InputError(f"{type(model).__name__} tells no classes")
    indices = cohort.some_indices(*splits)
    (column,) = trained.conditions.columns
    rows = rows_of(trained, cohort, indices)
    used = run.trained_on({row["participant_id"] for row in rows})
    for row in rows:
        row["used_for"] = "training" if row["participant_id"] in used else ""
    write_tsv(out / CLASSES, rows, table_columns(column.levels))
    sidecar = {
        "run": str(run.folder.resolve()),
        "cohort": str(cohort.folder.resolve()),
        "phantom": cohort.is_phantom,
        "target": model.target,
        "splits": list(splits),
        "volumes": len(rows),
        "levels": list(column.levels),
        **figures_of([row for row in rows if not row["used_for"]], column.levels),
    }
    write_json(out / CLASSES_SIDECAR, sidecar)
    return sidecar


def table_columns(levels: Sequence[str]) -> list[str]:
    """Return the columns of `CLASSES`."""
    known = ["participant_id", "hemi", "image", "used_for", "true", "told"]
    return [*known, *(f"p_{level}" for level in levels)]


def rows_of(trained: TrainedModel, cohort: Cohort, indices: NDArray[np.int64]) -> list[Row]:
    """Classify volumes of a cohort: a row each, with the probability of each level."""
    model = trained.model
    assert isinstance(model, Classifies)
    (column,) = trained.conditions.columns
    found = probabilities(trained, model, cohort, indices)
    return [
        _row(cohort.rows[n], p, column.levels, model.target)
        for n, p in zip(indices, found, strict=True)
    ]


@torch.no_grad()
def probabilities(
    trained: TrainedModel, model: Classifies, cohort: Cohort, indices: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Probability of each level, (N, levels); the column need not be there."""
    untold = TrainedModel(trained.model, trained.device)  # else it would be told the answer
    return np.concatenate(
        [
            torch.softmax(model.classify(volumes).double(), dim=1).cpu().numpy()
            for volumes, _ in untold.batches(cohort.brains(indices))
        ]
    )


def _row(known: dict[str, str], p: NDArray[np.float64], levels: Sequence[str], target: str) -> Row:
    return {
        "participant_id": known["participant_id"],
        "hemi": known.get("hemi", ""),
        "image": known.get("image", ""),
        "key": row_key(known),
        "true": true_class(known, target),
        "told": levels[int(p.argmax())],
        **{f"p_{level}": float(value) for level, value in zip(levels, p, strict=True)},
    }


def true_class(row: Mapping[str, str], target: str) -> str:
    """Class of a volume in a column of ``participants.tsv``; empty where it is not known."""
    value = row.get(target, "")
    return "" if value in MISSING else value


def figures_of(rows: Sequence[Row], levels: Sequence[str]) -> Row:
    """Accuracy and confusion of volumes that were not trained on, where their class is known."""
    known = [row for row in rows if row["true"] in levels]
    if not known:
        return {"tested": 0}
    right = np.array([row["true"] == row["told"] for row in known], dtype=float)
    people = np.unique([row["participant_id"] for row in known], return_inverse=True)[1]
    confusion = np.zeros((len(levels), len(levels)), dtype=int)
    for row in known:
        confusion[levels.index(row["true"]), levels.index(row["told"])] += 1
    low, high = interval_by_participant(right, people)
    return {
        "tested": len(known),
        "participants": int(people.max()) + 1,
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "commonest_class": float(confusion.sum(axis=1).max() / len(known)),
        "balanced_accuracy": float(np.nanmean(_recalls(confusion))),
        "confusion": confusion.tolist(),
    }


def _recalls(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of each class that is told right; NaN for a class that is not there."""
    total = confusion.sum(axis=1)
    return np.where(total > 0, np.diag(confusion) / np.maximum(total, 1), np.nan)


def interval_by_participant(
    values: NDArray[np.float64], people: NDArray[np.int64]
) -> tuple[float, float]:
    """95 % interval of a mean, by drawing participants with all that is theirs.

    Args:
        values: (N,).
        people: number of the participant of each, (N,).
    """
    sums, counts = np.bincount(people, values), np.bincount(people)
    drawn = np.random.default_rng(0).integers(len(sums), size=(BOOTSTRAPS, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(means, INTERVAL)
    return float(low), float(high)
