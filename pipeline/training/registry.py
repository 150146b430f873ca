"""The task of a model: chosen by what it reads."""

from collections.abc import Mapping

from torch import nn

from foldnorm.models.protocols import Reads, Trainable
from foldnorm.pipeline.training.image_tasks import Classification, Degraded, Images
from foldnorm.pipeline.training.label_tasks import Edits, Recognition, Translation
from foldnorm.pipeline.training.task import Task
from foldnorm.preprocessing.cohort.cohort import Cohort

TASKS: Mapping[Reads, type[Task]] = {
    "volumes": Task,
    "pairs": Translation,
    "unpaired": Translation,
    "edits": Edits,
    "sulci": Recognition,
    "images": Images,
    "noisy": Degraded,
    "damaged": Degraded,
    "classified": Classification,
}


def task_of(model: nn.Module, cohort: Cohort) -> Task:
    """Create the training task of a model.

    Raises:
        InputError: the cohort lacks what the model reads.
    """
    assert isinstance(model, Trainable)
    return TASKS[model.reads](model, cohort)
