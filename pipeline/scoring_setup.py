"""What `score` and `benchmark` share: the run, its training cohort, and the fitted scorer."""

from dataclasses import dataclass
from pathlib import Path

from foldnorm.pipeline.devices import choose_device
from foldnorm.pipeline.run_folder import RunFolder
from foldnorm.pipeline.scorer import Scorer
from foldnorm.preprocessing.cohort import Cohort
from foldnorm.preprocessing.errors import InputError


@dataclass(frozen=True)
class ScoringSetup:
    """Everything that is needed to score.

    Attributes:
        run: the trained model.
        scorer: fitted on the training split of ``reference``.
        reference: the run's training cohort.
        cohort: the brains to score.
    """

    run: RunFolder
    scorer: Scorer
    reference: Cohort
    cohort: Cohort


def set_up_scoring(
    run_folder: Path, cohort_folder: Path, reference_folder: Path | None, device_name: str
) -> ScoringSetup:
    """Open run and cohorts, refuse what does not belong together, and fit the scorer."""
    device = choose_device(device_name)
    run, cohort = RunFolder.open(run_folder), Cohort.open(cohort_folder)
    run.check_cohort(cohort)
    reference = run.training_cohort(reference_folder)
    _check_same_training(run, reference)
    return ScoringSetup(run, Scorer(run.load(device), reference), reference, cohort)


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
