"""Set-up that `score` and `benchmark` share: the model, if any, and its healthy brains."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foldnorm.pipeline.runs.leakage import refuse_leak
from foldnorm.pipeline.scoring.alike import check_alike
from foldnorm.pipeline.scoring.brain_scores import BY_SULCI, VOID
from foldnorm.pipeline.scoring.scorer import Scorer
from foldnorm.pipeline.scoring.scorer_files import is_scorer
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.naming.atlas import SulcusAtlas

if TYPE_CHECKING:  # torch takes seconds, and scores without a model do without it
    from foldnorm.pipeline.runs.forward_pass import AskedPrecision
    from foldnorm.pipeline.runs.run_folder import RunFolder
    from foldnorm.pipeline.runs.trained_model import TrainedModel

WITHOUT_MODEL = (VOID, BY_SULCI)  # words in the place of a run folder


@dataclass(frozen=True)
class ScoringSetup:
    """A model and the brains that it is fitted on and scores.

    Attributes:
        trained: the model; None for those of `WITHOUT_MODEL`.
        reference: its training cohort; without a model, healthy brains.
        cohort: the brains to score.
        controls: healthy brains of their site, if there are any.
    """

    trained: "TrainedModel | None"
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
    reference_splits: Sequence[str] = (),
) -> ScoringSetup:
    """Open run and cohorts, and refuse what does not belong together.

    Args:
        run_folder: of the model, or one of `WITHOUT_MODEL`.
        cohort_folder: brains to score.
        reference_folder: training cohort, if it has moved; without a model, healthy brains.
        device_name: where the model runs.
        controls_folder: healthy brains of the site of those to score.
        reference_splits: of the reference that brains are compared with, without a model; all if
            empty.

    Raises:
        InputError: they do not belong together, or nothing is there to compare with.
    """
    cohort = Cohort.open(cohort_folder)
    controls = None if controls_folder is None else Cohort.open(controls_folder)
    others = [other for other in (cohort, controls) if other is not None]
    if str(run_folder) in WITHOUT_MODEL:
        if reference_folder is None:
            raise InputError(
                f"{run_folder} compares brains with healthy ones; give --reference COHORT"
            )
        reference = Cohort.open(reference_folder).restricted(reference_splits)
        for other in others:
            check_alike(reference, reference.shape, reference.folder, other)
        return ScoringSetup(None, reference, cohort, controls)
    if reference_splits:
        raise InputError(
            f"--reference-split goes with the word {' or '.join(WITHOUT_MODEL)}, got {run_folder}: "
            "with a model, brains are compared with those that it was trained and validated on"
        )
    from foldnorm.pipeline.runs.devices import choose_device
    from foldnorm.pipeline.runs.run_folder import RunFolder

    device = choose_device(device_name)
    run = RunFolder.open(run_folder)
    for other in others:
        run.check_cohort(other)
    reference = run.training_cohort(reference_folder)
    _check_same_training(run, reference)
    return ScoringSetup(run.load(device), reference, cohort, controls)


def open_scorer(
    run_folder: Path,
    cohort_folder: Path,
    reference_folder: Path | None,
    device_name: str,
    *,
    controls_folder: Path | None = None,
    covariates: Sequence[str] = (),
    precision: "AskedPrecision" = "auto",
    asymmetry: bool = False,
    atlas: Path | None = None,
    reference_splits: Sequence[str] = (),
) -> tuple[Scorer, Cohort]:
    """Load a scorer that was saved, or fit one; and open the brains to score.

    Args:
        run_folder: of the model, or one of `WITHOUT_MODEL`, or of a saved scorer.
        cohort_folder: see `set_up_scoring`.
        reference_folder: likewise.
        device_name: likewise.
        controls_folder: likewise.
        covariates: columns that the healthy mean of a map depends on.
        precision: see `Scorer`; a saved scorer keeps its own.
        asymmetry: likewise.
        atlas: of sulci, for `BY_SULCI`.
        reference_splits: see `set_up_scoring`.

    Raises:
        InputError: a saved scorer, which is fitted already, is given what scorers are fitted with.
    """
    if is_scorer(run_folder):
        asked = reference_folder or reference_splits or controls_folder or covariates
        if asked or asymmetry or atlas or precision != "auto":
            raise InputError(
                "a saved scorer is fitted already and takes no --reference, --reference-split, "
                f"--controls, --covariates, --asymmetry, --atlas or --precision: {run_folder}"
            )
        cohort = Cohort.open(cohort_folder)
        scorer = Scorer.load(run_folder, device_name)
        scorer.check_prepared(cohort)
        return scorer, cohort
    if (str(run_folder) == BY_SULCI) != (atlas is not None):
        raise InputError(
            f"{BY_SULCI} and --atlas ATLAS (see foldnorm atlas) go together, got "
            f"{run_folder} {'without' if atlas is None else 'with'} an atlas"
        )
    named_by = None if atlas is None else SulcusAtlas.open(atlas)
    setup = set_up_scoring(
        run_folder,
        cohort_folder,
        reference_folder,
        device_name,
        controls_folder=controls_folder,
        reference_splits=reference_splits,
    )
    scorer = Scorer(
        setup.trained,
        precision=precision,
        method=str(run_folder),
        asymmetry=asymmetry,
        atlas=named_by,
    )
    scorer.fit(setup.reference, controls=setup.controls, covariates=covariates)
    return scorer, setup.cohort


def _check_same_training(run: "RunFolder", reference: Cohort) -> None:
    """Calibration brains must not be among those that the weights were fitted to."""
    held_out = {
        reference.rows[i]["participant_id"] for i in reference.indices("validation", "test")
    }
    refuse_leak(run.trained_on(held_out), "held out in the reference", reference.folder)
