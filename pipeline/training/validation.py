"""Figures and pictures of validation volumes while a model trains."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from foldnorm.models.protocols import Generates, Trainable
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.training.task import Task
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.pictures import contact_sheet

N_PICTURED = 4  # validation volumes in a sample picture
N_SAMPLES = 8  # volumes drawn from the model at a validation
Labels = NDArray[np.uint8]


@torch.no_grad()
def validate(task: Task, trained: TrainedModel, at_most: int) -> dict[str, float]:
    """Compute the loss and the metrics of a model on validation volumes.

    Args:
        task: of its kind, with the cohort whose validation split is looked at.
        trained: its model is put in evaluation mode.
        at_most: volumes.

    Returns:
        Under ``validation/…`` means of the loss and of the figures of the model's task; and under
        ``samples/…`` drawn volumes beside real ones, if it draws. Empty if there is no validation
        volume.
    """
    model = trained.model.eval()
    assert isinstance(model, Trainable)
    task, cohort = task.with_model(model), task.cohort
    found: dict[str, list[float]] = {}
    for volumes, row in task.validation_volumes(at_most):
        batch = torch.from_numpy(volumes)[None].to(trained.device)
        condition = trained.condition([row])
        loss = {"loss": float(model.validation_loss(batch, condition))}
        for name, value in {**loss, **task.figures(batch, condition)}.items():
            found.setdefault(name, []).append(value)
    if not found:
        return {}
    figures = {f"validation/{name}": _mean_of_known(values) for name, values in found.items()}
    if isinstance(model, Generates):
        compared = task.drawn_figures(_samples(trained, cohort), at_most)
        figures |= {f"samples/{name}": value for name, value in compared.items()}
    return figures


@torch.no_grad()
def sample_picture(task: Task, trained: TrainedModel) -> Labels | None:
    """Rows of slices: validation volumes beside what the model makes of them, then drawn ones.

    Returns:
        An (H, W, 3) picture; None if the model makes nothing.
    """
    task, cohort = task.with_model(trained.model.eval()), task.cohort
    rows = []
    for volumes, row in task.validation_volumes(N_PICTURED):
        batch = torch.from_numpy(volumes)[None].to(trained.device)
        rows.append(task.picture(batch, trained.condition([row])))
    if isinstance(trained.model, Generates):
        rows += task.drawn_pictures(_samples(trained, cohort))
    rows = [row for row in rows if row]
    return contact_sheet(rows) if rows else None


def _mean_of_known(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _samples(trained: TrainedModel, cohort: Cohort) -> NDArray[Any]:
    """Draw the same volumes at every validation, (DRAWN, *sides): progress is then seen.

    A conditioned model is told what the cohort's first volumes are.
    """
    assert isinstance(trained.model, Generates)
    rows = [cohort.rows[n % len(cohort.rows)] for n in range(N_SAMPLES)]
    generator = torch.Generator().manual_seed(0)
    return trained.model.sample(N_SAMPLES, generator, trained.condition(rows)).cpu().numpy()
