"""New volumes and images, drawn from a trained model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foldnorm.models.protocols import Diffuses, Samples
from foldnorm.pipeline.artifacts import SYNTHETIC_SHEET, SYNTHETIC_SIDECAR, SYNTHETIC_VOLUME
from foldnorm.pipeline.inference.criteria import Criterion
from foldnorm.pipeline.metrics.structure import microstructure_statistics, sheet_statistics
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.images import write_image
from foldnorm.preprocessing.cohort.pictures import contact_sheet, image_slices, middle_slices, png
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_bytes, write_json
from foldnorm.preprocessing.io.schemes import scheme_from_dict
from foldnorm.preprocessing.io.volumes import write_labels

TRIES = 50  # as many as asked for may be drawn, to keep some
SHEET_PICTURES = 64  # of the contact sheet


@dataclass(frozen=True)
class GenerateOptions:
    """Options of `generate`.

    Attributes:
        number: how many.
        seed: of everything drawn.
        given: columns that a conditioned model is told; the others are drawn as in training.
        sampler: of a diffusion model, ``ddpm`` or ``ddim``; None: the run's own.
        steps: of ddim; None: the run's own.
        keep_if: a condition on the statistics of a volume; those of which it is false are drawn
            again, up to `TRIES` times as many as asked for.
    """

    number: int = 16
    seed: int = 0
    given: Mapping[str, str] = field(default_factory=dict)
    sampler: Literal["ddpm", "ddim"] | None = None
    steps: int | None = None
    keep_if: Criterion | None = None


def generate(
    run: RunFolder, trained: TrainedModel, out: Path, options: GenerateOptions
) -> tuple[int, int]:
    """Draw volumes or images; writes a file each, `SYNTHETIC_SHEET` and `SYNTHETIC_SIDECAR`.

    Label volumes are NIfTI, 2-D images PNG, 3-D ones NIfTI from −1 to 1.

    Returns:
        How many were kept, and how many were not.

    Raises:
        InputError: the model draws none, or is told what it does not take.
    """
    _set_sampler(trained.samples, options)
    trained.conditions.draw(1, np.random.default_rng(0), options.given)  # refused before the work
    record = run.data["preparation"]
    affine = np.diag([*run.data["voxel_size"], 1.0])
    shown: list[list[NDArray[np.uint8]]] = []
    width = max(4, len(str(options.number - 1)))
    statistics = _statistics(record)
    kept = rejected = 0
    most = options.number * (1 if options.keep_if is None else TRIES)
    for volume in trained.draw(most, options.seed, options.given):
        if options.keep_if is not None and not options.keep_if.holds(statistics(volume)):
            rejected += 1
            continue
        n, kept = kept, kept + 1
        path = out / SYNTHETIC_VOLUME.of(n=f"{n:0{width}d}")
        if "intensities" in record:
            stem = path.with_name(path.name.removesuffix("_dseg.nii.gz"))
            write_image(stem, volume, int(record["intensities"]["bits"]))
            slices = image_slices(volume)
        else:
            write_labels(path, volume, affine, description="foldnorm SYNTHETIC, not a brain")
            slices = middle_slices(volume, len(record["scheme"]["classes"]))
        if n < SHEET_PICTURES:
            shown.append(slices)
        if kept == options.number:
            break
    if not shown:
        assert options.keep_if is not None
        raise InputError(f"none of {rejected} drawn volumes keeps {options.keep_if.text!r}")
    columns = 8 if len(shown[0]) == 1 else 2
    rows = [[s for slices in shown[n : n + columns] for s in slices]
            for n in range(0, len(shown), columns)]  # fmt: skip
    write_bytes(out / SYNTHETIC_SHEET, png(contact_sheet(rows)))
    write_json(out / SYNTHETIC_SIDECAR, _sidecar(run, trained, options) | {
        "kept": kept, "rejected": rejected,
    })  # fmt: skip
    return kept, rejected


def _statistics(record: Mapping[str, Any]) -> Callable[[NDArray[Any]], dict[str, float]]:
    """Choose the statistics of a volume: of its sheets, or of bright grains (above 0)."""
    if "intensities" in record:
        return lambda image: microstructure_statistics(image, 0.0)
    scheme = scheme_from_dict(dict(record["scheme"]))
    return lambda volume: sheet_statistics(volume, scheme)


def _set_sampler(model: Samples, options: GenerateOptions) -> None:
    if options.sampler is None and options.steps is None:
        return
    if not isinstance(model, Diffuses):
        raise InputError(f"--scheduler and --steps: {type(model).__name__} draws in one step")
    sampler = options.sampler or model.sampler
    if options.steps is not None and (
        sampler == "ddpm" or not 1 <= options.steps <= model.diffusion_steps
    ):
        raise InputError(
            f"--steps: expected 1 to {model.diffusion_steps}, of ddim (ddpm takes every step), got "
            f"{options.steps} of {sampler}"
        )
    model.sampler = sampler
    model.sampling_steps = options.steps or model.sampling_steps


def _sidecar(run: RunFolder, trained: TrainedModel, options: GenerateOptions) -> dict[str, Any]:
    of_diffusion = {}
    if isinstance(trained.model, Diffuses):
        of_diffusion = {"sampler": trained.model.sampler, "steps": trained.model.steps_taken}
    return {
        "run": str(run.folder.resolve()),
        "synthetic": True,
        "number": options.number,
        "seed": options.seed,
        "given": dict(options.given),
        "keep_if": None if options.keep_if is None else options.keep_if.text,
        **of_diffusion,
    }
