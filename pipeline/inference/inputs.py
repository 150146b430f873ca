"""Input of a model: a cohort, or files that are prepared as its training cohort was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.image_cohort import write_image_cohort
from foldnorm.preprocessing.cohort.image_preparation import ImagePreparation
from foldnorm.preprocessing.cohort.images import find_images
from foldnorm.preprocessing.cohort.options import PreprocessOptions
from foldnorm.preprocessing.cohort.plan import CohortPlan
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.preprocess import preprocess
from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.sources import Source

PREPARED = "prepared"  # cohort in the output folder, of inputs that are none
ALL_TEST = (0.0, 0.0, 1.0)  # split of that cohort: nobody is trained on


@dataclass(frozen=True)
class ModelInput:
    """Volumes that a model is applied to.

    Attributes:
        cohort: that was given, or that files were prepared to.
        from_files: True if it was prepared for this.
        failed: files that could not be prepared.
    """

    cohort: Cohort
    from_files: bool = False
    failed: tuple[Problem, ...] = ()


def open_input(
    run: RunFolder,
    source: str | Path,
    out: Path,
    *,
    splits: Sequence[str] = (),
    assume: Orientation | None = None,
    reference: Path | None = None,
    uncropped: Preparation | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> ModelInput:
    """Open a cohort; or prepare files as the training cohort was, in ``out``.

    Args:
        run: of the model.
        source: cohort folder; or folder, table or file of label volumes, or of images.
        out: folder to write to.
        splits: asked for, of a cohort.
        assume: directions that voxels run in, where the header of a file does not say.
        reference: training cohort, if it has moved, in whose box label volumes are laid.
        uncropped: preparation of label volumes that keep all that they hold, whatever the box of
            the training cohort is, which then need not be there.
        overwrite: prepare again what is finished.
        quiet: no progress bar.

    Raises:
        InputError: the cohort was prepared otherwise than the run's; or nothing is there, or
            nothing of it can be prepared.
    """
    cohort = _cohort(source, splits, assume)
    if cohort is not None:
        run.check_cohort(cohort)
        return ModelInput(cohort)
    options = PreprocessOptions(
        split_fractions=ALL_TEST, assume=assume, overwrite=overwrite, quiet=quiet
    )
    if "intensities" in run.data["preparation"]:
        report = _prepare_images(run, Path(source), out / PREPARED, options)
    else:
        report = _prepare_volumes(run, str(source), out / PREPARED, options, reference, uncropped)
    return _from_files(out, report)


def open_hemispheres(
    source: str | Path,
    out: Path,
    *,
    splits: Sequence[str] = (),
    assume: Orientation | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> ModelInput:
    """Open a cohort; or prepare skeletons at 1 mm, without hull and with fold labels, in ``out``.

    Args:
        source: cohort folder; or source tree, folder, table or file of skeletons.
        out: folder to write to.
        splits: asked for, of a cohort.
        assume: directions that voxels run in, where the header of a file does not say.
        overwrite: prepare again what is finished.
        quiet: no progress bar.

    Raises:
        InputError: nothing is there, or nothing of it can be prepared.
    """
    cohort = _cohort(source, splits, assume)
    if cohort is not None:
        return ModelInput(cohort)
    options = PreprocessOptions(
        hull="remove", mix_origins=True, split_fractions=ALL_TEST, assume=assume,
        overwrite=overwrite, quiet=quiet,
    )  # fmt: skip
    report = _prepared(str(source), out / PREPARED, CohortPlan.from_options(options))
    return _from_files(out, report)


def _cohort(source: str | Path, splits: Sequence[str], assume: Orientation | None) -> Cohort | None:
    """Open a cohort; None of files, which have no splits.

    Raises:
        InputError: one is given what only the other has.
    """
    if Cohort.is_in(Path(source)):
        if assume is not None:
            raise InputError(f"--assume is of files, got a cohort, which is prepared: {source}")
        return Cohort.open(source)
    if splits:
        raise InputError(f"--split requires a cohort folder, got {source}")
    return None


def _from_files(out: Path, report: Mapping[str, Any]) -> ModelInput:
    failed = tuple(Problem(failure["volume"], failure["reason"]) for failure in report["failed"])
    return ModelInput(Cohort.open(out / PREPARED), from_files=True, failed=failed)


def _prepare_images(
    run: RunFolder, source: Path, prepared: Path, options: PreprocessOptions
) -> Mapping[str, Any]:
    """Prepare images, and return the report.

    Raises:
        InputError: there is none, or they are of another size than the model takes.
    """
    found = find_images(source.absolute(), assume=options.assume)
    preparation = ImagePreparation.from_record(run.data["preparation"])
    report = write_image_cohort(
        found,
        prepared,
        preparation,
        fractions=options.split_fractions,
        overwrite=options.overwrite,
        shape=tuple(run.data["shape"]),
    )
    return report


def _prepare_volumes(
    run: RunFolder,
    source: str,
    prepared: Path,
    options: PreprocessOptions,
    reference: Path | None,
    uncropped: Preparation | None,
) -> Mapping[str, Any]:
    """Prepare label volumes, and return the report.

    Raises:
        InputError: none could be prepared, or the training cohort, whose box they need, has moved.
    """
    if uncropped is not None:
        plan = CohortPlan(replace(options, mix_origins=True), uncropped)
    else:
        like = run.folder if run.is_bundle else run.training_cohort(reference).folder
        plan = CohortPlan.from_options(replace(options, layout_from=like, fold_labels="none"))
    return _prepared(source, prepared, plan)


def _prepared(source: str, prepared: Path, plan: CohortPlan) -> Mapping[str, Any]:
    report = preprocess([Source.parse(source)], prepared, plan)
    if not report["done"]:
        reasons = "; ".join(f"{f['volume']}: {f['reason']}" for f in report["failed"])
        raise InputError(f"no volume of {source} could be prepared: {reasons}")
    return report
