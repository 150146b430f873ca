"""What `score` and `benchmark` share: the model, if any, healthy brains, and the fitted scorer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foldnorm.pipeline.devices import choose_device
from foldnorm.pipeline.run_folder import RunFolder
from foldnorm.pipeline.scorer import Scorer
from foldnorm.preprocessing.cohort import Cohort, same_preparation
from foldnorm.preprocessing.errors import InputError

VOID = "void"  # in the place of a run: no model, only distances to the nearest fold


@dataclass(frozen=True)
class ScoringSetup:
    """Everything that is needed to score.

    Attributes:
        scorer: fitted on ``reference`` and ``controls``.
        reference: the run's training cohort; without a run, healthy brains.
        cohort: the brains to score.
        controls: healthy brains of their site, if there are any.
    """

    scorer: Scorer
    reference: Cohort
    cohort: Cohort
    controls: Cohort | None = None


def set_up_scoring(
    run_folder: Path,
    cohort_folder: Path,
    reference_folder: Path | None,
    device_name: str,
    *,
    controls_folder: Path | None = None,
    covariates: Sequence[str] = (),
) -> ScoringSetup:
    """Open run and cohorts, refuse what does not belong together, and fit the scorer.

    Args:
        run_folder: of the model, or `VOID`.
        cohort_folder: brains to score.
        reference_folder: training cohort, if it has moved; with `VOID`, healthy brains.
        device_name: where the model runs.
        controls_folder: healthy brains of the site of those to score.
        covariates: columns that the healthy mean of a map depends on.
    """
    cohort = Cohort.open(cohort_folder)
    controls = None if controls_folder is None else Cohort.open(controls_folder)
    if str(run_folder) == VOID:
        if reference_folder is None:
            raise InputError(f"{VOID} compares brains with healthy ones; give --healthy COHORT")
        reference = Cohort.open(reference_folder)
        for other in (cohort, controls):
            if other is not None:
                _check_alike(reference, other)
        scorer = Scorer(None, reference, controls=controls, covariates=covariates)
        return ScoringSetup(scorer, reference, cohort, controls)
    device = choose_device(device_name)
    run = RunFolder.open(run_folder)
    for other in (cohort, controls):
        if other is not None:
            run.check_cohort(other)
    reference = run.training_cohort(reference_folder)
    _check_same_training(run, reference)
    scorer = Scorer(run.load(device), reference, controls=controls, covariates=covariates)
    return ScoringSetup(scorer, reference, cohort, controls)


def _check_alike(healthy: Cohort, cohort: Cohort) -> None:
    """Refuse brains that were not prepared as the healthy ones were."""
    differing = same_preparation(healthy.preparation, cohort.preparation)
    differing = [name for name in differing if name != "folds"]  # labels change no volume
    if differing or healthy.shape != cohort.shape:
        detail = ", ".join(differing) or f"shape, {cohort.shape} not {healthy.shape}"
        raise InputError(
            f"cohort was prepared otherwise than the healthy one ({detail}); preprocess it with "
            f"--like {healthy.folder}: {cohort.folder}"
        )


def _check_same_training(run: RunFolder, reference: Cohort) -> None:
    """Calibration brains must not be among those that the weights were fitted to."""
    held_out = {
        reference.rows[i]["participant_id"] for i in reference.indices("validation", "test")
    }
    leaked = run.trained_on(held_out)
    if leaked:
        raise InputError(
            f"{len(leaked)} brains that the model was trained on are held out in the reference "
            f"(such as {leaked[0]}): {reference.folder}"
        )
