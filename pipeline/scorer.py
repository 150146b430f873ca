"""All scores of volumes at once: latent distances, reconstructions, and the baselines."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from foldnorm.pipeline.baselines import Baselines, Volumes
from foldnorm.pipeline.embedding import encode_volumes
from foldnorm.pipeline.reconstruction_scores import ReconstructionScores
from foldnorm.pipeline.scores import fit_latent_scores
from foldnorm.preprocessing.cohort import Cohort, iterate

Scores = dict[str, NDArray[np.float64]]


class Scorer:
    """Scores of volumes, fitted on the training split of a cohort.

    Args:
        model: in evaluation mode.
        device: where it is.
        reference: the training cohort, on whose training split everything is fitted.
    """

    def __init__(self, model: nn.Module, device: torch.device, reference: Cohort) -> None:
        self.model, self.device = model, device
        indices = reference.indices("train")
        training: Volumes = lambda: iterate(reference.volumes, indices)  # noqa: E731
        self.latent = fit_latent_scores(encode_volumes(model, training(), device))
        reconstruction = ReconstructionScores(model, device, reference.scheme)
        self.reconstruction = reconstruction.fit(training)
        self.baselines = Baselines(reference.scheme).fit(training)

    def score(self, volumes: Volumes) -> Scores:
        """Scores by name, (N,) each; ``volumes()`` gives the volumes anew at each call."""
        codes = encode_volumes(self.model, volumes(), self.device)
        latent = {f"latent_{name}": score.score(codes) for name, score in self.latent.items()}
        return {
            **latent,
            **self.reconstruction.score(volumes),
            **self.baselines.score(volumes),
        }
