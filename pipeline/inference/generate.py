"""New volumes and images, drawn from a trained model."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.models.protocols import Diffuses, Generates
from foldnorm.pipeline.artifacts import SYNTHETIC_SHEET, SYNTHETIC_SIDECAR, SYNTHETIC_VOLUME
from foldnorm.pipeline.inference.filters import VolumeFilter
from foldnorm.pipeline.inference.synthetic_cohort import (
    side_of,
    write_synthetic_cohort,
)
from foldnorm.pipeline.metrics.structure import microstructure_statistics, sheet_statistics
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.cohort_files import refuse_other_cohort, remove_cohort
from foldnorm.preprocessing.cohort.images import write_image
from foldnorm.preprocessing.cohort.pictures import contact_sheet, image_slices, middle_slices, png
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_bytes, write_json
from foldnorm.preprocessing.core.locks import held
from foldnorm.preprocessing.io.schemes import scheme_from_dict
from foldnorm.preprocessing.io.volumes import write_labels

OF_LABELS = "_dseg.nii.gz"  # end of the names of label volumes
MAX_TRIES = 50  # times as many as asked for may be drawn, to keep some
SHEET_PICTURES = 64  # of the contact sheet


@dataclass(frozen=True)
class GenerateOptions:
    """Options of `generate`.

    Attributes:
        number: how many.
        seed: of everything drawn.
        given: columns that a conditioned model is told; the others are drawn as in training.
        sampler: of a diffusion model, one of those that it knows; None: the run's own.
        sampling_steps: of any but ddpm; None: the run's own.
        guidance: of a conditioned diffusion model; None: the run's own.
        keep_if: a condition on the statistics of a volume; those of which it is false are drawn
            again, up to `MAX_TRIES` times as many as asked for.
        cohort: that the model was trained on, as which label volumes are laid out; with it, the
            folder that they are saved to is a cohort folder as well.
    """

    number: int = 16
    seed: int = 0
    given: Mapping[str, str] = field(default_factory=dict)
    sampler: str | None = None
    sampling_steps: int | None = None
    guidance: float | None = None
    keep_if: VolumeFilter | None = None
    cohort: Cohort | None = None


@dataclass
class GenerationResult:
    """New volumes or images, drawn while it is iterated over; each pass draws the same.

    Attributes:
        run: folder of the model.
        trained: its model.
        options: what is drawn.
        kept: number of volumes of the last pass that were kept.
        rejected: number that were not.
    """

    run: RunFolder
    trained: TrainedModel
    options: GenerateOptions
    kept: int = field(default=0, init=False)
    rejected: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        """Draw volumes, and yield those that are kept.

        Raises:
            InputError: none was kept.
        """
        options, keep_if = self.options, self.options.keep_if
        statistics = _statistics(self.run.data["preparation"])
        self.kept = self.rejected = 0
        most = options.number * (1 if keep_if is None else MAX_TRIES)
        for volume in self.trained.draw(most, options.seed, options.given):
            if keep_if is not None and not keep_if.holds(statistics(volume)):
                self.rejected += 1
                continue
            self.kept += 1
            yield volume
            if self.kept == options.number:
                return
        if not self.kept:
            assert keep_if is not None
            raise InputError(f"none of {self.rejected} drawn volumes keeps {keep_if.text!r}")

    def save(self, out: Path) -> None:
        """Write a file each, ``contact_sheet.png`` and ``synthetic.json``.

        Label volumes are NIfTI, 2-D images PNG, 3-D ones NIfTI from −1 to 1. With the option
        ``cohort``, what makes the folder a cohort is written, too.

        Raises:
            InputError: none was kept, or the folder is a cohort that was not drawn.
        """
        refuse_other_cohort(out, "synthetic", "drawn")
        with held(out):
            width = max(4, len(str(self.options.number - 1)))
            shown: list[list[NDArray[np.uint8]]] = []
            files = []
            for n, volume in enumerate(self):
                if not n:
                    _remove_drawn(out)
                files.append(out / SYNTHETIC_VOLUME.of(n=f"{n:0{width}d}"))
                slices = self._write(files[-1], volume)
                if n < SHEET_PICTURES:
                    shown.append(slices)
            columns = 8 if len(shown[0]) == 1 else 2
            rows = [[s for slices in shown[n : n + columns] for s in slices]
                    for n in range(0, len(shown), columns)]  # fmt: skip
            write_bytes(out / SYNTHETIC_SHEET, png(contact_sheet(rows)))
            write_json(out / SYNTHETIC_SIDECAR, self.sidecar)
            options = self.options
            if options.cohort is not None:
                write_synthetic_cohort(files, options.cohort, out, options.given, self.sidecar)

    def _write(self, path: Path, volume: NDArray[Any]) -> list[NDArray[np.uint8]]:
        """Write a volume, and return its middle slices."""
        record = self.run.data["preparation"]
        if "intensities" in record:
            stem = path.with_name(path.name.removesuffix(OF_LABELS))
            write_image(stem, volume, int(record["intensities"]["bits"]))
            return image_slices(volume)
        cohort, affine = self.options.cohort, np.diag([*self.run.data["voxel_size"], 1.0])
        if cohort is not None:
            affine = cohort.affine_of({"hemi": side_of(cohort, self.options.given)})
        write_labels(path, volume, affine, description="foldnorm SYNTHETIC, not a brain")
        return middle_slices(volume, len(record["scheme"]["classes"]))

    @property
    def sidecar(self) -> dict[str, Any]:
        """Content of ``synthetic.json``, when the volumes have been drawn."""
        options, model, of_diffusion = self.options, self.trained.model, {}
        if isinstance(model, Diffuses):
            of_diffusion = {
                "sampler": model.sampler,
                "steps": model.num_inference_steps,
                "guidance": model.guidance,
            }
        return {
            "run": str(self.run.folder.resolve()),
            "synthetic": True,
            "number": options.number,
            "seed": options.seed,
            "given": dict(options.given),
            "keep_if": None if options.keep_if is None else options.keep_if.text,
            **of_diffusion,
            "kept": self.kept,
            "rejected": self.rejected,
        }


def generate(run: RunFolder, trained: TrainedModel, options: GenerateOptions) -> GenerationResult:
    """Draw volumes or images.

    Raises:
        InputError: the model draws none, or is told what it does not take; or the cohort is not
            prepared as the one it was trained on, or holds images.
    """
    if options.cohort is not None:
        trained.check_cohort(options.cohort)
        if options.cohort.holds_images:
            raise InputError(
                f"--cohort: expected label volumes, got images: {options.cohort.folder}"
            )
    _set_sampler(trained.samples, options)
    trained.conditions.draw(1, np.random.default_rng(0), options.given)  # refused before the work
    return GenerationResult(run, trained, options)


def _remove_drawn(out: Path) -> None:
    """Remove volumes that were drawn into a folder before, and what made it a cohort."""
    remove_cohort(out)
    stem = SYNTHETIC_VOLUME.pattern.removesuffix(OF_LABELS)
    for suffix in (OF_LABELS, ".nii.gz", ".png"):
        for path in out.glob(stem.replace("*", "[0-9]*") + suffix):
            path.unlink()


def _statistics(record: Mapping[str, Any]) -> Callable[[NDArray[Any]], dict[str, float]]:
    """Choose the statistics of a volume: of its sheets, or of bright grains (above 0)."""
    if "intensities" in record:
        return lambda image: microstructure_statistics(image, 0.0)
    scheme = scheme_from_dict(dict(record["scheme"]))
    return lambda volume: sheet_statistics(volume, scheme)


def _set_sampler(model: Generates, options: GenerateOptions) -> None:
    if options.sampler is None and options.sampling_steps is None and options.guidance is None:
        return
    name = type(model).__name__
    if not isinstance(model, Diffuses):
        raise InputError(f"--scheduler, --sampling-steps and --guidance: {name} is no diffusion")
    sampler = options.sampler or model.sampler
    if sampler not in model.samplers:
        raise InputError(f"--scheduler: {name} knows {', '.join(model.samplers)}, got {sampler}")
    if options.sampling_steps is not None and (
        sampler == "ddpm" or not 1 <= options.sampling_steps <= model.diffusion_steps
    ):
        raise InputError(
            f"--sampling-steps: expected 1 to {model.diffusion_steps}, of ddim, euler or heun "
            f"(ddpm takes every step), got {options.sampling_steps} of {sampler}"
        )
    if options.guidance is not None:
        if not model.condition_dropout or not getattr(model, "condition", ()):
            raise InputError(
                f"--guidance: {name} was trained without a condition, or always told it "
                "(condition_dropout 0)"
            )
        model.guidance = options.guidance
    model.sampler = sampler
    model.sampling_steps = options.sampling_steps or model.sampling_steps
