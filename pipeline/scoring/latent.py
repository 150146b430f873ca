"""Scores of codes, and of what each level of a network makes of brains."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.fitted import Fitted, State
from foldnorm.pipeline.scoring.healthy import Group
from foldnorm.pipeline.scoring.latent_distance import Mahalanobis, fit_latent_scores
from foldnorm.pipeline.scoring.map_scores import ScoreTable
from foldnorm.preprocessing.cohort.cohort import Brain


class LatentScores(Fitted):
    """Scores ``latent_…``: distances of the code of a brain from those of the training brains.

    Saved, they hold the code of each training brain: neighbours are looked for among these. With
    the decoder of the model, a code gives an image of that brain.

    Args:
        trained: the model; it encodes.

    Attributes:
        codes_: (N, d) float32 of the training brains.
    """

    FITTED_ON: ClassVar[Group] = "training"

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained

    def fit(self, healthy: Sequence[Brain]) -> Self:
        """Fit on training brains."""
        return self.load_state_dict({"codes": self.trained.encode(healthy)})

    def score(self, brains: Iterable[Brain]) -> ScoreTable:
        """Scores of each brain by name, (N,) each."""
        codes = self.trained.encode(brains)
        return {f"latent_{name}": own.score(codes) for name, own in self.distances_.items()}

    def state_dict(self) -> State:
        """Return the codes of the training brains, from which all that is fitted follows."""
        return {"codes": self.codes_}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Fit to codes."""
        self.codes_ = state["codes"]
        self.distances_ = fit_latent_scores(self.codes_)
        return self


class FeatureScores(Fitted):
    """``features…_mahalanobis``: distances of a brain's features at each level of the network.

    Levels are counted from 1.

    Args:
        trained: the model; it has feature maps.
    """

    FITTED_ON: ClassVar[Group] = "some_training"

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained

    def fit(self, healthy: Sequence[Brain]) -> Self:
        """Fit on training brains."""
        self.levels_ = [Mahalanobis().fit(codes) for codes in self.trained.features(healthy)]
        return self

    def score(self, brains: Iterable[Brain]) -> ScoreTable:
        """Scores of each brain by name, (N,) each."""
        names = [f"features{n}_mahalanobis" for n in range(1, len(self.levels_) + 1)]
        features = self.trained.features(brains)
        if not features:  # no brains, or no levels
            return {name: np.zeros(0) for name in names}
        found = zip(names, self.levels_, features, strict=True)
        return {name: own.score(codes) for name, own, codes in found}

    def state_dict(self) -> State:
        """Mean and axes of each level."""
        return {str(n): own.state_dict() for n, own in enumerate(self.levels_)}

    def load_state_dict(self, state: Mapping[str, Any]) -> Self:
        """Take what `state_dict` gave."""
        states = (state[str(n)] for n in range(len(state)))
        self.levels_ = [Mahalanobis().load_state_dict(own) for own in states]
        return self
