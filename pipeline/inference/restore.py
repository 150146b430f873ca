"""Images repaired by a trained model, and how well, where what they were is known."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import inpaint_biharmonic

from foldnorm.models.noise import seed_of
from foldnorm.models.protocols import DamageKind, FindsDamage, Inpaints, RestoresImages
from foldnorm.pipeline.artifacts import RESTORED, RESTORED_IMAGE, RESTORED_SHEET, RESTORED_SIDECAR
from foldnorm.pipeline.data.damage import LIKELY, came_damaged, degradation_of, degraded
from foldnorm.pipeline.inference.results import Row, VolumeResult
from foldnorm.pipeline.metrics.images import RANGE, iou, repair_figures
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.each_volume import each_volume
from foldnorm.preprocessing.cohort.images import write_image
from foldnorm.preprocessing.cohort.pictures import contact_sheet, image_slices, png
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_bytes, write_json, write_tsv

N_SHOWN = 10  # images of the contact sheet
METRICS = ("psnr", "ssim", "psnr_gain", "psnr_inside", "mask_iou")
ORDER = ("given", "degraded", "found", "restored", "clean")  # of the contact sheet, downwards
Method = Literal["model", "biharmonic", "true-mask", "diffusion"]
Image = NDArray[np.float32]
Slices = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class RestoreOptions:
    """Options of the repair of images.

    Attributes:
        splits: of the cohort; all if empty.
        degrade: degrade the images first, as in training: what they were is then known.
        damage: kinds of it, instead of the model's own.
        widths: of strokes, smallest and largest, pixels, likewise.
        method: ``model``: what the model makes of the image; ``biharmonic``: biharmonic inpainting
            (Damelin & Hoang 2018) where the model finds damage; ``true-mask``: where there is
            damage, which only who degraded the image knows; ``diffusion``: what ``prior`` draws
            where the model finds damage, given the rest.
        prior: run folder of a diffusion model of images of the same preparation.
        draws: how often it draws. The mean of all is what is restored: nearer to what was there
            than each of them, and smoother.
        seed: of the degradation, and of what is drawn.
    """

    splits: tuple[str, ...] = ()
    degrade: bool = False
    damage: tuple[DamageKind, ...] = ()
    widths: tuple[float, float] | None = None
    method: Method = "model"
    prior: Path | None = None
    draws: int = 4
    seed: int = 0


@dataclass(frozen=True)
class RestoredImage:
    """An image, and what was made of it.

    Attributes:
        key: of the image, ``sub-…_image-…``.
        images: see `restore_image`.
        row: of ``restored.tsv``.
    """

    key: str
    images: dict[str, Image]
    row: Row

    @property
    def rows(self) -> list[Row]:
        """Row of the table about this image."""
        return [self.row]


@dataclass
class RestorationResult(VolumeResult[RestoredImage]):
    """Restored images of a cohort, made one at a time.

    Attributes:
        trained: the model.
        cohort: the images.
        indices: which of them.
        options: how they are restored.
        about: more of ``restored.json``.
        prior: model that draws what is damaged, if one does.
    """

    trained: TrainedModel
    cohort: Cohort
    indices: NDArray[np.int64]
    options: RestoreOptions
    about: Mapping[str, Any]
    prior: TrainedModel | None = None

    def _make(self) -> Iterator[RestoredImage]:
        indices = self.indices.tolist()
        for _, made in each_volume(self.cohort, indices, partial(map, self._restore), self.failed):
            yield made

    def _restore(self, index: int) -> RestoredImage:
        model, options, brain = self.trained.model, self.options, self.cohort[index]
        degradation = None
        if options.degrade:
            degradation = degradation_of(model, options.damage, options.widths)
        key = row_key(brain.row)
        parts = brain.volume[None]
        if degradation is not None and not came_damaged([brain.row], model)[0]:
            parts = degraded(brain.volume, degradation, key, options.seed)
        images = restore_image(self.trained, parts, options, self.prior, brain.row)
        row: Row = {n: brain.row.get(n, "") for n in ("participant_id", "image")}
        if "clean" in images:
            row |= restoration_metrics(images)
        return RestoredImage(key, images, row)

    @cached_property
    def metrics(self) -> dict[str, float | None]:
        """Means of `METRICS` over the images that were degraded first; empty if none was."""
        if not self.options.degrade:
            return {}
        return {name: _mean(self.table, name) for name in METRICS}

    @property
    def sidecar(self) -> Row:
        """Content of ``restored.json``."""
        return {**self.about, **self.metrics}

    def _write(self, out: Path) -> None:
        """Write an image each, ``restored.tsv``, ``restored.json`` and ``contact_sheet.png``.

        2-D images are PNG of the bits that the cohort has, volumes NIfTI float32 from −1 to 1;
        masks of damage are −1 and 1. Where images are degraded first, that image, the true mask
        and what it was lie beside it.
        """
        bits = int(self.cohort.preparation["intensities"]["bits"])
        shown: list[dict[str, Slices]] = []
        for made in self:
            for name, image in made.images.items():
                write_image(out / RESTORED_IMAGE.of(image=made.key, what=name), image, bits)
            if len(shown) < N_SHOWN:
                shown.append({n: image_slices(made.images[n]) for n in ORDER if n in made.images})
        write_tsv(out / RESTORED, self.table, tuple(RESTORED.columns))
        write_bytes(out / RESTORED_SHEET, png(contact_sheet(_sheet_rows(shown))))
        write_json(out / RESTORED_SIDECAR, self.sidecar)


def restore(
    run: RunFolder, trained: TrainedModel, cohort: Cohort, options: RestoreOptions
) -> RestorationResult:
    """Restore the images of a cohort.

    Args:
        run: folder of the model.
        trained: its model.
        cohort: of images, prepared as the run's.
        options: how.

    Raises:
        InputError: the model does not repair images, or there is no such image.
    """
    _check(trained.model, options)
    prior = _prior(options.prior, cohort, trained.device)
    indices = cohort.some_indices(*options.splits)
    known = run.trained_on({cohort.rows[i]["participant_id"] for i in indices})
    about = {
        "run": str(run.folder.resolve()),
        "cohort": str(cohort.folder.resolve()),
        "phantom": cohort.is_phantom,
        "images": len(indices),
        "degraded": options.degrade,
        "damage": list(options.damage),
        "widths": options.widths and list(options.widths),
        "method": options.method,
        "prior": options.prior and str(options.prior.resolve()),
        "draws": options.draws if options.prior else None,
        "seed": options.seed,
        "known_to_the_model": len(known),
    }
    return RestorationResult(trained, cohort, indices, options, about, prior)


def _check(model: object, options: RestoreOptions) -> None:
    """Refuse what a model cannot do.

    Raises:
        InputError: with what.
    """
    if not isinstance(model, RestoresImages):
        raise InputError(f"{type(model).__name__} does not repair images")
    if (options.damage or options.widths) and not options.degrade:
        raise InputError("--damage and --widths say how to --degrade")
    if options.widths and not 0 < options.widths[0] <= options.widths[1]:
        low, high = options.widths
        raise InputError(f"--widths: expected two above 0, the smaller first, got {low:g} {high:g}")
    if options.method != "model" and not isinstance(model, FindsDamage):
        raise InputError(f"{type(model).__name__} finds no damage that could be inpainted")
    if options.method == "true-mask" and not options.degrade:
        raise InputError("--method true-mask: the true mask is known with --degrade only")
    if (options.method == "diffusion") != (options.prior is not None):
        raise InputError("--method diffusion and --prior, whose it is, go together")


def _prior(run: Path | None, cohort: Cohort, device: torch.device) -> TrainedModel | None:
    """Load a model that draws what is damaged.

    Raises:
        InputError: it cannot, or is one of other images.
    """
    if run is None:
        return None
    prior = RunFolder.open(run).load(device)
    prior.check_cohort(cohort)
    if not isinstance(prior.model, Inpaints):
        raise InputError(f"--prior: {type(prior.model).__name__} cannot inpaint images")
    return prior


def restore_image(
    trained: TrainedModel,
    parts: Image,
    options: RestoreOptions,
    prior: TrainedModel | None = None,
    row: Mapping[str, str] | None = None,
) -> dict[str, Image]:
    """Repair an image; return it as given, repaired and as it was, with its masks, by name.

    Args:
        trained: that repairs.
        parts: (1, *sides), or what `degraded` makes of an image.
        options: by which method.
        prior: model that draws what is damaged, if one does.
        row: of ``participants.tsv``, of which it may be told.

    Returns:
        ``given`` or ``degraded``, ``restored``; ``clean`` and ``mask`` if they are known; ``found``
        if the model finds damage; (*sides) each, masks −1 and 1.
    """
    model = trained.model
    given = torch.from_numpy(parts[:1]).to(trained.device)
    images = {"given": parts[0]}
    if len(parts) > 1:
        images |= {"degraded": images.pop("given"), "clean": parts[-1]}
    if len(parts) == 3:
        images["mask"] = 2 * parts[1] - 1
    with trained.computing():
        if isinstance(model, FindsDamage):
            found = model.find_damage(given)[0].float().cpu().numpy() > LIKELY
            images["found"] = np.where(found, 1, -1).astype(np.float32)
        if options.method == "model":
            assert isinstance(model, RestoresImages)
            images["restored"] = model.repair(given)[0].float().cpu().numpy()
            return images
    mask = parts[1] > 0 if options.method == "true-mask" else found
    if prior is None:
        images["restored"] = inpaint(parts[0], mask)
    else:
        images["restored"] = _drawn(prior, parts[0], mask, row or {}, options)
    return images


def _drawn(
    prior: TrainedModel,
    image: Image,
    mask: NDArray[np.bool_],
    row: Mapping[str, str],
    options: RestoreOptions,
) -> Image:
    """Draw what a mask covers by a diffusion model, the same whatever else is restored."""
    if not mask.any():
        return image
    assert isinstance(prior.model, Inpaints)
    generator = prior.generator(seed_of(options.seed, "inpaint", row_key(row) if row else ""))
    given, missing = (
        torch.from_numpy(a).to(prior.device).expand(options.draws, *a.shape) for a in (image, mask)
    )
    condition = prior.condition([row] * options.draws)
    with prior.computing():
        drawn = prior.model.inpaint(given, missing, generator, condition).float().mean(dim=0)
    return np.where(mask, drawn.cpu().numpy(), image)


def inpaint(image: Image, mask: NDArray[np.bool_]) -> Image:
    """Biharmonic inpainting of what a mask covers, from −1 to 1; (*sides) each."""
    if not mask.any():
        return image
    return np.clip(inpaint_biharmonic(image, mask), -1, 1).astype(np.float32)


def restoration_metrics(images: Mapping[str, Image]) -> dict[str, float]:
    """Restoration metrics for one degraded image.

    Args:
        images: as `restore_image` gives them.

    Returns:
        Those of `METRICS` that are defined for it.
    """
    clean, given, restored = images["clean"], images["degraded"], images["restored"]
    found = repair_figures(restored, given, clean)
    if "mask" not in images:
        return found
    mask = images["mask"] > 0
    if "found" in images:
        found["mask_iou"] = iou(images["found"] > 0, mask)
    if mask.any():
        error = float(np.mean((restored[mask] - clean[mask]) ** 2))
        found["psnr_inside"] = 10 * float(np.log10(RANGE**2 / max(error, 1e-12)))
    return found


def _sheet_rows(shown: Sequence[dict[str, Slices]]) -> list[Slices]:
    """Rows of a sheet: an image a column, in the order of `ORDER`; blank where there is nothing."""
    names = [name for name in ORDER if any(name in column for column in shown)]
    blank = [np.full_like(picture, 255) for picture in next(iter(shown[0].values()))]
    return [
        [column.get(name, blank)[n] for column in shown]
        for name in names
        for n in range(len(blank))
    ]


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if name in row and np.isfinite(row[name])]
    return float(np.mean(values)) if values else None
