"""All scores of brains at once: latent distances, reconstructions, and the baselines."""

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.baselines import Baselines, Volumes
from foldnorm.pipeline.reconstruction_scores import ReconstructionScores
from foldnorm.pipeline.scores import fit_latent_scores
from foldnorm.pipeline.trained_model import Brains, TrainedModel
from foldnorm.preprocessing.cohort import Cohort

Scores = dict[str, NDArray[np.float64]]


class Scorer:
    """Scores of brains, fitted on the training split of a cohort.

    Args:
        trained: the model.
        reference: the training cohort, on whose training split everything is fitted.
    """

    def __init__(self, trained: TrainedModel, reference: Cohort) -> None:
        self.trained = trained
        indices = reference.indices("train")
        training: Brains = lambda: reference.brains(indices)  # noqa: E731
        self.latent = fit_latent_scores(trained.encode(training()))
        self.reconstruction = ReconstructionScores(trained, reference.scheme).fit(training)
        self.baselines = Baselines(reference.scheme).fit(_volumes(training))

    def score(self, brains: Brains) -> Scores:
        """Scores by name, (N,) each; ``brains()`` gives the brains anew at each call."""
        codes = self.trained.encode(brains())
        latent = {f"latent_{name}": score.score(codes) for name, score in self.latent.items()}
        return {
            **latent,
            **self.reconstruction.score(brains),
            **self.baselines.score(_volumes(brains)),
        }


def _volumes(brains: Brains) -> Volumes:
    return lambda: (brain.volume for brain in brains())
