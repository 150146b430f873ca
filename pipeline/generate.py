"""New volumes and images, drawn from a trained model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foldnorm.models.protocols import Diffuses, Samples
from foldnorm.pipeline.restore import write_image
from foldnorm.pipeline.run_folder import RunFolder
from foldnorm.pipeline.trained_model import TrainedModel
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import write_bytes, write_json
from foldnorm.preprocessing.pictures import contact_sheet, image_slices, middle_slices, png
from foldnorm.preprocessing.volumes import write_labels

SHEET, SIDECAR = "contact_sheet.png", "synthetic.json"
AT_ONCE = 64  # drawn together
SHEET_PICTURES = 64  # of the contact sheet


@dataclass(frozen=True)
class GenerateOptions:
    """What is drawn.

    Attributes:
        number: how many.
        seed: of everything drawn.
        given: columns that a conditioned model is told; the others are drawn as in training.
        sampler: of a diffusion model, ``ddpm`` or ``ddim``; None: the run's own.
        steps: of ddim; None: the run's own.
    """

    number: int = 16
    seed: int = 0
    given: Mapping[str, str] = field(default_factory=dict)
    sampler: Literal["ddpm", "ddim"] | None = None
    steps: int | None = None


def generate(run: RunFolder, trained: TrainedModel, out: Path, options: GenerateOptions) -> None:
    """Draw volumes or images; writes a file each, `SHEET` and `SIDECAR`.

    Label volumes are NIfTI, 2-D images PNG, 3-D ones NIfTI from −1 to 1.

    Raises:
        InputError: the model draws none, or is told what it does not take.
    """
    if not isinstance(trained.model, Samples):
        raise InputError(f"{type(trained.model).__name__} does not draw new volumes")
    _set_sampler(trained.model, options)
    record = run.data["preparation"]
    affine = np.diag([*run.data["voxel_size"], 1.0])
    shown: list[list[NDArray[np.uint8]]] = []
    width = max(4, len(str(options.number - 1)))
    for n, volume in enumerate(drawn(trained, options)):
        stem = out / f"synthetic-{n:0{width}d}"
        if "intensities" in record:
            write_image(stem, volume, int(record["intensities"]["bits"]))
            slices = image_slices(volume)
        else:
            path = stem.with_name(f"{stem.name}_dseg.nii.gz")
            write_labels(path, volume, affine, description="foldnorm SYNTHETIC, not a brain")
            slices = middle_slices(volume, len(record["scheme"]["classes"]))
        if n < SHEET_PICTURES:
            shown.append(slices)
    columns = 8 if len(shown[0]) == 1 else 2
    rows = [[s for slices in shown[n : n + columns] for s in slices]
            for n in range(0, len(shown), columns)]  # fmt: skip
    write_bytes(out / SHEET, png(contact_sheet(rows)))
    write_json(out / SIDECAR, _sidecar(run, trained, options))


def drawn(trained: TrainedModel, options: GenerateOptions) -> Iterator[NDArray[Any]]:
    """Volumes one at a time; never more than `AT_ONCE` in memory."""
    rng = np.random.default_rng(options.seed)
    conditions = trained.conditions.draw(options.number, rng, options.given)
    generator = torch.Generator().manual_seed(options.seed)
    for first in range(0, options.number, AT_ONCE):
        count = min(AT_ONCE, options.number - first)
        condition: Tensor | None = None
        if trained.conditions.size:
            condition = torch.from_numpy(conditions[first : first + count])
        assert isinstance(trained.model, Samples)
        yield from trained.model.sample(count, generator, condition).cpu().numpy()


def _set_sampler(model: Samples, options: GenerateOptions) -> None:
    if options.sampler is None and options.steps is None:
        return
    if not isinstance(model, Diffuses):
        raise InputError(f"--sampler and --steps: {type(model).__name__} draws in one step")
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
        **of_diffusion,
    }
