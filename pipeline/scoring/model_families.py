"""Families of scores that look at what a model makes of brains."""

from collections.abc import Sequence

from foldnorm.models.protocols import (
    Decodes,
    Encodes,
    EncodesPlaces,
    Expects,
    HasFeatureMaps,
    LearnsFromEdits,
    Recognises,
    Restores,
)
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.pipeline.scoring.evidence import EvidenceScores
from foldnorm.pipeline.scoring.families import EVIDENCE, LATENT_MAP, SHORTFALL, ScoreFamily
from foldnorm.pipeline.scoring.latent import FeatureScores, LatentScores
from foldnorm.pipeline.scoring.latent_maps import LatentMapScores
from foldnorm.pipeline.scoring.network_labeller import NetworkLabeller
from foldnorm.pipeline.scoring.recognition import AtlasScores, RecognitionScores
from foldnorm.pipeline.scoring.reconstruction import ReconstructionScores
from foldnorm.pipeline.scoring.shortfall import ShortfallScores
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError


def unfitted_model_families(
    trained: TrainedModel, cohort: Cohort, covariates: Sequence[str]
) -> dict[str, ScoreFamily]:
    """Every family that suits a model: name of its folder → family; those by maps first.

    Args:
        trained: the model.
        cohort: says how brains were prepared, and, when they are fitted, what the sulci are.
        covariates: columns that the healthy mean of a map depends on.
    """
    model, scheme = trained.model, cohort.scheme
    found: dict[str, ScoreFamily] = {}
    if isinstance(model, Expects):  # what it restores is drawn: no evidence of its own
        found[SHORTFALL] = ShortfallScores(trained, scheme, cohort.voxel_size, covariates)
    elif isinstance(model, Restores):
        found[EVIDENCE] = EvidenceScores(trained, scheme, cohort.voxel_size, covariates)
    if isinstance(model, EncodesPlaces) and model.healthy_grid:
        found[LATENT_MAP] = LatentMapScores(trained, scheme, covariates)
    if isinstance(model, Encodes):
        found["latent"] = LatentScores(trained)
    if isinstance(model, HasFeatureMaps):
        found["features"] = FeatureScores(trained)
    if isinstance(model, Decodes):
        found["reconstruction"] = ReconstructionScores(trained, scheme)
    if isinstance(model, Recognises):
        recognition = NetworkLabeller(trained, scheme)
        found["sulci"] = RecognitionScores(recognition, cohort.affine)
        found["atlas"] = AtlasScores(recognition.sulci, cohort)
    return found


def edits_of(trained: TrainedModel) -> tuple[str, ...]:
    """Kinds of edits that a model learned from."""
    return tuple(trained.model.edits) if isinstance(trained.model, LearnsFromEdits) else ()


def sulci_of(trained: TrainedModel) -> tuple[str, ...]:
    """Sulci that a model names."""
    return tuple(trained.model.sulci) if isinstance(trained.model, Recognises) else ()


def check_scores(trained: TrainedModel) -> None:
    """Refuse a model that scores no brain.

    Raises:
        InputError: it neither encodes nor restores nor recognises.
    """
    if not isinstance(trained.model, Encodes | Restores | Recognises):
        raise InputError(
            f"{type(trained.model).__name__} cannot be used for scoring: it has no latent space, "
            "restores nothing, names no sulci"
        )
