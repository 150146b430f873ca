"""All scores of brains at once: what the model says of them, and the baselines."""

from collections.abc import Sequence
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
from foldnorm.pipeline.recognition_scores import RecognitionScores
from foldnorm.pipeline.scores import Mahalanobis, fit_latent_scores
from foldnorm.pipeline.scoring.baselines import Baselines, Volumes
from foldnorm.pipeline.scoring.evidence import EvidenceScores
from foldnorm.pipeline.scoring.map_scores import MIN_HEALTHY, MapScores, OnMap
from foldnorm.pipeline.scoring.reconstruction import ReconstructionScores
from foldnorm.pipeline.scoring.void import VoidScores
from foldnorm.pipeline.sulcus_measures import AtlasTemplate, Recognition
from foldnorm.pipeline.trained_model import Brains, TrainedModel
from foldnorm.preprocessing.cohort import Cohort, CohortView
from foldnorm.preprocessing.errors import InputError

FITTED = 1000  # training brains at most that scores of network levels are fitted to
Scores = dict[str, NDArray[np.float64]]


class Scorer:
    """Scores of brains, fitted on healthy ones.

    Latent scores and baselines are fitted on the training split of the reference. Maps (evidence of
    missing folds, distance to the nearest fold) are compared with healthy brains that the model has
    not seen, the brain's own participant left out: all of the validation split, and the controls.
    Sulci are compared with every other brain of the validation split, the rest of which calibrate.

    Args:
        trained: the model; None scores brains without any, by `VoidScores` and the baselines.
        reference: the training cohort; without a model, healthy brains.
        controls: healthy brains of the site or scanner of those that will be scored. The normative
            maps are moved towards them, and they calibrate.
        covariates: columns of ``participants.tsv`` that the healthy mean of a map depends on.

    Attributes:
        has_model: whether there is one.
        edits: kinds that the model learned from.
        sulci: that it names.
        calibration: healthy brains that p-values are counted in.
        map_scores: scores by maps; that of the model first.
        recognition: of the sulci, if the model names them.

    Raises:
        InputError: the model neither encodes nor restores nor recognises.
    """

    def __init__(
        self,
        trained: TrainedModel | None,
        reference: Cohort,
        *,
        controls: Cohort | None = None,
        covariates: Sequence[str] = (),
    ) -> None:
        model = None if trained is None else trained.model
        self.has_model = trained is not None
        self.edits = tuple(model.edits) if isinstance(model, LearnsFromEdits) else ()
        self.sulci = tuple(model.sulci) if isinstance(model, Recognises) else ()
        indices = reference.indices("train")
        training: Brains = lambda: reference.brains(indices)  # noqa: E731
        local = CohortView([]) if controls is None else controls.view(controls.indices())
        unseen = reference.view(reference.indices("validation"))
        self.calibration = local if len(local) else unseen
        self.families: list[_Family] = []
        self.map_scores: list[MapScores] = []
        self.recognition: RecognitionScores | None = None
        if trained is not None:
            self._fit_model(trained, reference, controls)
        if trained is not None and isinstance(model, Restores):
            evidence = EvidenceScores(trained, reference.scheme, covariates)
            self.map_scores.append(evidence.fit(unseen + local, len(local)))
        if trained is not None and not self.families and not self.map_scores:
            raise InputError(
                f"{type(model).__name__} cannot be used for scoring: it has no latent space, "
                "restores nothing, names no sulci"
            )
        # Without a network nothing has been learned by heart: all healthy brains will do.
        every = reference.view(reference.indices())
        healthy = every if trained is None else reference.view(indices)
        if trained is None:
            self.calibration = local if len(local) else every
        if len(healthy) + len(local) >= MIN_HEALTHY:
            void = VoidScores(reference.scheme, reference.voxel_size, covariates)
            self.map_scores.append(void.fit(healthy + local, len(local)))
        elif trained is None:
            raise InputError(
                f"brains are compared with at least {MIN_HEALTHY} healthy ones, got "
                f"{len(healthy) + len(local)}: {reference.folder}"
            )
        self.baselines = Baselines(reference.scheme).fit(
            _volumes(training if len(indices) else lambda: iter(every))
        )

    def _fit_model(
        self,
        trained: TrainedModel,
        reference: Cohort,
        controls: Cohort | None,
    ) -> None:
        """Fit the scores of the model that are no maps."""
        indices = reference.indices("train")
        training: Brains = lambda: reference.brains(indices)  # noqa: E731
        if isinstance(trained.model, Encodes):
            self.families.append(_Latent(trained).fit(training))
        if isinstance(trained.model, ShowsDepths):
            self.families.append(_Depths(trained).fit(lambda: reference.brains(thinned(indices))))
        if isinstance(trained.model, Decodes):
            self.families.append(ReconstructionScores(trained, reference.scheme).fit(training))
        if isinstance(trained.model, Recognises):
            compared, others = held_out_halves(reference)
            if controls is None:
                self.calibration = reference.view(others)
            healthy: Brains = lambda: reference.brains(compared)  # noqa: E731
            recognition = Recognition(trained, reference.scheme)
            self.recognition = RecognitionScores(recognition, reference.affine).fit(healthy)
            atlas = AtlasTemplate(reference, recognition.sulci)
            self.families.append(self.recognition)
            self.families.append(
                RecognitionScores(atlas, reference.affine, "baseline_atlas").fit(healthy)
            )

    def score(self, brains: Brains, on_map: OnMap | None = None) -> Scores:
        """Scores by name, (N,) each; ``brains()`` gives the brains anew at each call.

        Args:
            brains: gives them.
            on_map: called with each brain's map of `map_scores[0]`, if there is any.
        """
        found: Scores = {}
        for n, own in enumerate(self.map_scores):
            found |= own.score(brains(), on_map if n == 0 else None)
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
