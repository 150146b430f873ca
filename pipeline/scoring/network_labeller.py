"""A trained recogniser as the namer of voxels."""

from collections.abc import Iterable, Iterator

import torch

from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.sulcus_measures import NamedBrain
from foldnorm.preprocessing.cohort.cohort import Brain
from foldnorm.preprocessing.io.schemes import LabelScheme


class NetworkLabeller:
    """Trained recogniser, as the namer of voxels of brains.

    Args:
        trained: the model.
        scheme: of the volumes.
    """

    def __init__(self, trained: TrainedModel, scheme: LabelScheme) -> None:
        self.trained, self.model, self.scheme = trained, trained.recognises, scheme
        self.sulci = tuple(self.model.sulci)

    def named(self, brains: Iterable[Brain]) -> Iterator[NamedBrain]:
        """Yield each brain with its voxels named."""
        for few in self.trained.passes(brains):
            probabilities = torch.softmax(few.recognised, dim=1)
            for volume, own in zip(few.volumes, probabilities, strict=True):
                structure = volume > self.scheme.void
                likely = own[:, structure].cpu().numpy()
                yield NamedBrain(volume.cpu().numpy(), likely, self.scheme)
