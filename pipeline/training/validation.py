"""Figures and pictures of validation volumes while a model trains."""

from dataclasses import dataclass, field

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray

from foldnorm.models.protocols import Generates, Trainable
from foldnorm.pipeline.runs.predict import drawn
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.training.messages import dealt, gathered, share_buffers
from foldnorm.pipeline.training.task import Slices, Task
from foldnorm.preprocessing.cohort.pictures import contact_sheet
from foldnorm.preprocessing.cohort.preparation import Preparation

N_PICTURED = 4  # validation volumes in a sample picture
N_SAMPLES = 8  # volumes drawn from the model at a validation
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Validation:
    """Findings of a validation: of all of it, of one volume, or of what the model draws.

    Attributes:
        figures: by their names.
        rows: of slices.
    """

    figures: dict[str, float] = field(default_factory=dict)
    rows: list[Slices] = field(default_factory=list)

    @property
    def picture(self) -> Labels | None:
        """An (H, W, 3) picture of the rows; None if there is none."""
        rows = [row for row in self.rows if row]
        return contact_sheet(rows) if rows else None


@torch.no_grad()
def validate(
    task: Task, trained: TrainedModel, at_most: int, *, fabric: Fabric, name: str
) -> Validation:
    """Compute figures of validation volumes, and picture the first of them.

    What there is to do is dealt to all processes; what is found does not depend on who did what.

    Args:
        task: of its kind, with the cohort whose validation split is looked at.
        trained: its model is put in evaluation mode.
        at_most: volumes that figures are of.
        fabric: of this process.
        name: of this validation, another each time.

    Returns:
        Of the first process; the others get an empty one. Figures are under ``validation/…`` means
        of the loss and of the figures of the model's task; and under ``samples/…`` drawn volumes
        beside real ones, if it draws. There are none if there is no validation volume. Rows of
        slices are validation volumes beside what the model makes of them, then drawn ones.
    """
    model = trained.model.eval()
    share_buffers(fabric, model)
    task = task.with_model(model)
    volumes = task.validation_indices()[: max(at_most, N_PICTURED)]
    n_draws = int(isinstance(model, Generates))  # comes first, because it takes longest
    made = {
        number: _of_drawn(task, trained, at_most)
        if number < n_draws
        else _of_volume(task, trained, volumes, number - n_draws, at_most)
        for number in dealt(fabric, n_draws + len(volumes), name)
    }
    parts = [part for _, part in sorted(gathered(fabric, made).items())]
    drawn, own = parts[:n_draws], parts[n_draws:]
    figures = _means([part.figures for part in own])
    if figures:
        figures |= {name: value for part in drawn for name, value in part.figures.items()}
    return Validation(figures, [row for part in (*own, *drawn) for row in part.rows])


def _of_volume(
    task: Task, trained: TrainedModel, volumes: NDArray[np.int64], place: int, at_most: int
) -> Validation:
    """Look at one of the validation volumes."""
    model = trained.model
    assert isinstance(model, Trainable)
    volume, row = task.validation_volume(int(volumes[place]))
    batch = torch.from_numpy(volume)[None].to(trained.device)
    condition = trained.condition([row])
    figures, rows = {}, []
    if place < at_most:
        loss = {"loss": float(model.validation_loss(batch, condition))}
        figures = {**loss, **task.figures(batch, condition)}
    if place < N_PICTURED:
        rows = [task.picture(batch, condition)]
    return Validation(figures, rows)


def _of_drawn(task: Task, trained: TrainedModel, at_most: int) -> Validation:
    """Look at volumes that the model draws.

    They are the same at every validation: progress is then seen. A conditioned model is told what
    the cohort's first volumes are.
    """
    assert isinstance(trained.model, Generates)
    known, figures = task.cohort.rows, {}
    rows = [known[n % len(known)] for n in range(N_SAMPLES)]
    volumes = drawn(
        trained.model,
        N_SAMPLES,
        trained.generator(0),
        trained.condition(rows),
        lambda: Preparation.from_dict(task.cohort.preparation),
    )
    if len(task.cohort.indices("validation")[:at_most]):
        compared = task.drawn_figures(volumes, at_most)
        figures = {f"samples/{name}": value for name, value in compared.items()}
    return Validation(figures, task.drawn_pictures(volumes))


def _means(figures: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each figure over the volumes that have it and where it is known."""
    found: dict[str, list[float]] = {}
    for each in figures:
        for name, value in each.items():
            found.setdefault(f"validation/{name}", []).append(value)
    return {name: _mean_of_known(values) for name, values in found.items()}


def _mean_of_known(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
