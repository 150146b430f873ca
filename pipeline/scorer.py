"""All scores of brains at once: what the model says of them, and the baselines."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foldnorm.models.protocols import (
    Decodes,
    Encodes,
    LearnsFromEdits,
    Recognises,
    Restores,
    ShowsDepths,
)
from foldnorm.pipeline.baselines import Baselines, Volumes
from foldnorm.pipeline.evidence_scores import EvidenceScores, Look
from foldnorm.pipeline.recognition_scores import RecognitionScores
from foldnorm.pipeline.reconstruction_scores import ReconstructionScores
from foldnorm.pipeline.scores import Mahalanobis, fit_latent_scores
from foldnorm.pipeline.sulcus_measures import AtlasTemplate, Recognition
from foldnorm.pipeline.trained_model import Brains, TrainedModel
from foldnorm.preprocessing.cohort import Cohort
from foldnorm.preprocessing.errors import InputError

FITTED = 1000  # training brains at most that scores of network levels are fitted to
Scores = dict[str, NDArray[np.float64]]


class Scorer:
    """Scores of brains, fitted on a training cohort.

    Latent and reconstruction scores, and the baselines, are fitted on its training split. Evidence
    and sulci are compared with brains that the model has not seen: every other brain of the
    validation split, the rest of which calibrate.

    Args:
        trained: the model.
        reference: the training cohort.

    Attributes:
        edits: kinds that the model learned from.
        sulci: that it names.
        calibration: indices of the brains of the reference that nothing was fitted to.
        evidence: of missing folds, if the model restores.
        recognition: of the sulci, if the model names them.

    Raises:
        InputError: the model neither encodes nor restores nor recognises.
    """

    def __init__(self, trained: TrainedModel, reference: Cohort) -> None:
        model = trained.model
        self.edits = tuple(model.edits) if isinstance(model, LearnsFromEdits) else ()
        self.sulci = tuple(model.sulci) if isinstance(model, Recognises) else ()
        self.calibration = reference.indices("validation")
        indices = reference.indices("train")
        training: Brains = lambda: reference.brains(indices)  # noqa: E731
        self.families: list[_Family] = []
        self.evidence: EvidenceScores | None = None
        self.recognition: RecognitionScores | None = None
        if isinstance(trained.model, Encodes):
            self.families.append(_Latent(trained).fit(training))
        if isinstance(trained.model, ShowsDepths):
            self.families.append(_Depths(trained).fit(lambda: reference.brains(thinned(indices))))
        if isinstance(trained.model, Decodes):
            self.families.append(ReconstructionScores(trained, reference.scheme).fit(training))
        if isinstance(trained.model, (Restores, Recognises)):
            compared, self.calibration = held_out_halves(reference)
            healthy: Brains = lambda: reference.brains(compared)  # noqa: E731
        if isinstance(trained.model, Restores):
            self.evidence = EvidenceScores(trained, reference.scheme).fit(healthy)
        if isinstance(trained.model, Recognises):
            recognition = Recognition(trained, reference.scheme)
            self.recognition = RecognitionScores(recognition, reference.affine).fit(healthy)
            atlas = AtlasTemplate(reference, recognition.sulci)
            self.families.append(self.recognition)
            self.families.append(
                RecognitionScores(atlas, reference.affine, "baseline_atlas").fit(healthy)
            )
        if not self.families and self.evidence is None:
            name = type(trained.model).__name__
            raise InputError(
                f"{name} scores no brain: it has no latent space, restores nothing, names no sulci"
            )
        self.baselines = Baselines(reference.scheme).fit(_volumes(training))

    def score(self, brains: Brains, look: Look | None = None) -> Scores:
        """Scores by name, (N,) each; ``brains()`` gives the brains anew at each call.

        Args:
            brains: gives them.
            look: called with each brain's map of evidence, if there is any.
        """
        found: Scores = {}
        if self.evidence is not None:
            found |= self.evidence.score(brains, look)
        for family in self.families:
            found |= family.score(brains)
        return found | self.baselines.score(_volumes(brains))


def held_out_halves(reference: Cohort) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Validation brains that others are compared with, and those that calibrate."""
    held_out = reference.indices("validation")
    return held_out[::2], held_out[1::2]


class _Family(Protocol):
    """Scores that belong together."""

    def score(self, brains: Brains) -> Scores:
        """Scores by name, (N,) each."""


class _Latent:
    """Distances of codes."""

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained

    def fit(self, training: Brains) -> "_Latent":
        self.scores = fit_latent_scores(self.trained.encode(training()))
        return self

    def score(self, brains: Brains) -> Scores:
        codes = self.trained.encode(brains())
        return {f"latent_{name}": score.score(codes) for name, score in self.scores.items()}


class _Depths:
    """Distances of what each level of a network makes of brains, ``depth1`` the first."""

    def __init__(self, trained: TrainedModel) -> None:
        self.trained = trained

    def fit(self, training: Brains) -> "_Depths":
        self.levels = [Mahalanobis().fit(codes) for codes in self.trained.depths(training())]
        return self

    def score(self, brains: Brains) -> Scores:
        levels = zip(self.levels, self.trained.depths(brains()), strict=True)
        return {
            f"depth{n}_mahalanobis": own.score(codes) for n, (own, codes) in enumerate(levels, 1)
        }


def thinned(indices: NDArray[np.int64], at_most: int = FITTED) -> NDArray[np.int64]:
    """So many of them at most, evenly apart."""
    return indices[:: max(-(-len(indices) // at_most), 1)]


def _volumes(brains: Brains) -> Volumes:
    return lambda: (brain.volume for brain in brains())
