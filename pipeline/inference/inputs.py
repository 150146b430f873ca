"""Input of a model of images: a cohort, or files prepared as the images of its training."""

from collections.abc import Sequence
from pathlib import Path

from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, Cohort
from foldnorm.preprocessing.cohort.image_cohort import ImagePreparation, write_image_cohort
from foldnorm.preprocessing.cohort.images import find_images
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.sources import Problem

PREPARED = "prepared"  # cohort in the output folder, of inputs that are none


def cohort_of_input(
    run: RunFolder, source: Path, out: Path, *, splits: Sequence[str], overwrite: bool
) -> tuple[Cohort, list[Problem]]:
    """Open a cohort, or prepare a folder or file of images as the run's were, in ``out``.

    Args:
        run: of the model.
        source: cohort folder, folder of images, or one.
        out: folder to write to.
        splits: asked for, of a cohort.
        overwrite: prepare again.

    Returns:
        The cohort, and what could not be prepared.

    Raises:
        InputError: it was prepared otherwise than the run's cohort, or nothing is there.
    """
    if (source / DESCRIPTION).is_file():
        cohort = Cohort.open(source)
        run.check_cohort(cohort)
        return cohort, []
    if splits:
        raise InputError(f"--split is for a cohort, which this is not: {source}")
    record = run.data["preparation"]
    if "intensities" not in record:
        raise InputError(f"expected a cohort, prepared --layout-from that of the run: {source}")
    images, problems = find_images(source.absolute())
    report = write_image_cohort(
        images,
        problems,
        out / PREPARED,
        ImagePreparation.of_record(record),
        fractions=(0.0, 0.0, 1.0),
        overwrite=overwrite,
    )
    cohort = Cohort.open(out / PREPARED)
    if list(cohort.shape) != run.data["shape"]:
        expected, got = (" × ".join(map(str, s)) for s in (run.data["shape"], cohort.shape))
        raise InputError(f"expected images of {expected} as the model's, got {got}: {source}")
    return cohort, [Problem(failure["volume"], failure["reason"]) for failure in report["failed"]]
