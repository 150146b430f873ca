"""Choice of a model's training task, by what it reads."""

from collections.abc import Mapping

from torch import nn

from foldnorm.models.protocols import InputKind, Trainable
from foldnorm.pipeline.training.image_tasks import ClassificationTask, DegradationTask, ImageTask
from foldnorm.pipeline.training.label_tasks import EditTask, SulcusTask, TranslationTask
from foldnorm.pipeline.training.task import Task
from foldnorm.preprocessing.cohort.cohort import Cohort

TASKS: Mapping[InputKind, type[Task]] = {
    "volumes": Task,
    "pairs": TranslationTask,
    "unpaired": TranslationTask,
    "edits": EditTask,
    "sulci": SulcusTask,
    "images": ImageTask,
    "noisy": DegradationTask,
    "damaged": DegradationTask,
    "classified": ClassificationTask,
}


def task_of(model: nn.Module, cohort: Cohort) -> Task:
    """Create the training task of a model.

    Raises:
        InputError: the cohort lacks what the model reads.
    """
    assert isinstance(model, Trainable)
    return TASKS[model.input_kind](model, cohort)
