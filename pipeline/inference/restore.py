"""Images repaired by a trained model, and how well, where what they were is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import inpaint_biharmonic

from foldnorm.models.protocols import DamageKind, FindsDamage, Repairs
from foldnorm.pipeline.artifacts import RESTORED, RESTORED_IMAGE, RESTORED_SHEET, RESTORED_SIDECAR
from foldnorm.pipeline.data.damage import LIKELY, came_damaged, degradation_of, degraded
from foldnorm.pipeline.metrics.images import RANGE, iou, repair_figures
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.pipeline.runs.trained_model import TrainedModel
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.images import write_image
from foldnorm.preprocessing.cohort.pictures import contact_sheet, image_slices, png
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_bytes, write_json, write_tsv

SHOWN = 10  # images of the contact sheet
FIGURES = ("psnr", "ssim", "psnr_gain", "psnr_inside", "mask_iou")
ORDER = ("given", "degraded", "found", "restored", "clean")  # of the contact sheet, downwards
Method = Literal["model", "biharmonic", "true-mask"]
Image = NDArray[np.float32]


@dataclass(frozen=True)
class RestoreOptions:
    """Options of the repair of images.

    Attributes:
        splits: of the cohort; all if empty.
        degrade: degrade the images first, as in training: what they were is then known.
        damage: kinds of it, instead of the model's own.
        method: ``model``: what the model makes of the image; ``biharmonic``: biharmonic inpainting
            (Damelin & Hoang 2018) where the model finds damage; ``true-mask``: where there is
            damage, which only who degraded the image knows.
        seed: of the degradation.
    """

    splits: tuple[str, ...] = ()
    degrade: bool = False
    damage: tuple[DamageKind, ...] = ()
    method: Method = "model"
    seed: int = 0


def restore(
    run: RunFolder, trained: TrainedModel, cohort: Cohort, out: Path, options: RestoreOptions
) -> dict[str, Any]:
    """Repair the images of a cohort; writes an image each, a table, its sidecar, a contact sheet.

    2-D images are PNG of the bits that the cohort has, volumes NIfTI float32 from −1 to 1; masks of
    damage are −1 and 1. Where images are degraded first, that image, the true mask and what it was
    lie beside it.

    Returns:
        What the sidecar holds: means of `FIGURES`, if images are degraded.

    Raises:
        InputError: the model repairs nothing, or there is nothing to repair.
    """
    _check(trained.model, options)
    indices = cohort.some_indices(*options.splits)
    degradation = degradation_of(trained.model, options.damage) if options.degrade else None
    rows, shown = [], list[dict[str, list[NDArray[np.uint8]]]]()
    bits = int(cohort.preparation["intensities"]["bits"])
    for index in indices:
        (brain,) = cohort.brains([index])
        key = row_key(brain.row)
        parts = brain.volume[None]
        if degradation is not None and not came_damaged([brain.row], trained.model)[0]:
            parts = degraded(brain.volume, degradation, key, options.seed)
        images = repaired(trained, parts, options)
        row: dict[str, Any] = {n: brain.row.get(n, "") for n in ("participant_id", "image")}
        if "clean" in images:
            row |= figures_of(images)
        for name, image in images.items():
            write_image(out / RESTORED_IMAGE.of(image=key, what=name), image, bits)
        rows.append(row)
        if len(shown) < SHOWN:
            shown.append({name: image_slices(images[name]) for name in ORDER if name in images})
    write_tsv(out / RESTORED, rows, tuple(RESTORED.columns))
    write_bytes(out / RESTORED_SHEET, png(contact_sheet(_columns(shown))))
    sidecar = {
        "run": str(run.folder.resolve()),
        "cohort": str(cohort.folder.resolve()),
        "phantom": cohort.is_phantom,
        "images": len(rows),
        "degraded": options.degrade,
        "damage": list(options.damage),
        "method": options.method,
        "seed": options.seed,
        "known_to_the_model": len(
            run.trained_on({cohort.rows[i]["participant_id"] for i in indices})
        ),
        **({name: _mean(rows, name) for name in FIGURES} if options.degrade else {}),
    }
    write_json(out / RESTORED_SIDECAR, sidecar)
    return sidecar


def _check(model: object, options: RestoreOptions) -> None:
    """Refuse what a model cannot do.

    Raises:
        InputError: with what.
    """
    if not isinstance(model, Repairs):
        raise InputError(f"{type(model).__name__} repairs no images")
    if options.method != "model" and not isinstance(model, FindsDamage):
        raise InputError(f"{type(model).__name__} finds no damage that could be inpainted")
    if options.method == "true-mask" and not options.degrade:
        raise InputError("--method true-mask: the true mask is known with --degrade only")


def repaired(trained: TrainedModel, parts: Image, options: RestoreOptions) -> dict[str, Image]:
    """Repair an image; return it as given, repaired and as it was, with its masks, by name.

    Args:
        trained: that repairs.
        parts: (1, *sides), or what `degraded` makes of an image.
        options: by which method.

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
    with torch.no_grad():
        if isinstance(model, FindsDamage):
            found = model.find_damage(given)[0].float().cpu().numpy() > LIKELY
            images["found"] = np.where(found, 1, -1).astype(np.float32)
        if options.method == "model":
            assert isinstance(model, Repairs)
            images["restored"] = model.repair(given)[0].float().cpu().numpy()
            return images
    mask = parts[1] > 0 if options.method == "true-mask" else found
    images["restored"] = inpainted(parts[0], mask)
    return images


def inpainted(image: Image, mask: NDArray[np.bool_]) -> Image:
    """Biharmonic inpainting of what a mask covers, from −1 to 1; (*sides) each."""
    if not mask.any():
        return image
    return np.clip(inpaint_biharmonic(image, mask), -1, 1).astype(np.float32)


def figures_of(images: dict[str, Image]) -> dict[str, float]:
    """Compute those of `FIGURES` that are defined for what `repaired` gives of a degraded image."""
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


def _columns(
    shown: Sequence[dict[str, list[NDArray[np.uint8]]]],
) -> list[list[NDArray[np.uint8]]]:
    """Rows of a sheet: an image a column, in the order of `ORDER`; blank where there is nothing."""
    names = [name for name in ORDER if any(name in column for column in shown)]
    blank = [np.full_like(picture, 255) for picture in next(iter(shown[0].values()))]
    return [
        [column.get(name, blank)[n] for column in shown]
        for name in names
        for n in range(len(blank))
    ]


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if name in row and np.isfinite(row[name])]
    return float(np.mean(values)) if values else None
