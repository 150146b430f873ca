"""Images repaired by a trained model, and how well, where what they were is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray

from foldnorm.models.noise import seed_of
from foldnorm.models.protocols import Repairs
from foldnorm.pipeline.image_tasks import repair_figures, with_noise
from foldnorm.pipeline.run_folder import RunFolder
from foldnorm.pipeline.trained_model import TrainedModel
from foldnorm.preprocessing.cohort import Cohort, row_key
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import replacing, write_bytes, write_json, write_tsv
from foldnorm.preprocessing.pictures import contact_sheet, grey_png, image_slices, png

TABLE, SIDECAR, SHEET = "restored.tsv", "restored.json", "contact_sheet.png"
SHOWN = 10  # images of the contact sheet
FIGURES = ("psnr", "ssim", "psnr_gain")
Image = NDArray[np.float32]


@dataclass(frozen=True)
class RestoreOptions:
    """What is repaired.

    Attributes:
        splits: of the cohort; all if empty.
        degrade: degrade the images first, as in training: what they were is then known.
        seed: of that.
    """

    splits: tuple[str, ...] = ()
    degrade: bool = False
    seed: int = 0


def restore(
    run: RunFolder, trained: TrainedModel, cohort: Cohort, out: Path, options: RestoreOptions
) -> dict[str, Any]:
    """Repair the images of a cohort; writes an image each, `TABLE`, `SIDECAR` and `SHEET`.

    2-D images are PNG of the bits that the cohort has, volumes NIfTI float32 from −1 to 1. Where
    images are degraded first, that image and what it was lie beside it.

    Returns:
        What the sidecar holds: means of PSNR, SSIM and of what PSNR gained, if images are degraded.

    Raises:
        InputError: the model repairs nothing, or there is nothing to repair.
    """
    model = trained.model
    if not isinstance(model, Repairs):
        raise InputError(f"{type(model).__name__} repairs no images")
    indices = cohort.indices(*options.splits)
    if not len(indices):
        raise InputError(f"no image of the split {', '.join(options.splits)}: {cohort.folder}")
    rows, shown = [], list[list[NDArray[np.uint8]]]()
    bits = int(cohort.preparation["intensities"]["bits"])
    for index in indices:
        (brain,) = cohort.brains([index])
        given, key = brain.volume, row_key(brain.row)
        if options.degrade:
            rng = np.random.default_rng(seed_of(options.seed, "degrade", key))
            given = with_noise(brain.volume, model.noise_factor, rng)
        with torch.no_grad():
            tensor = torch.from_numpy(given)[None].to(trained.device)
            repaired = model.repair(tensor)[0].float().cpu().numpy()
        row: dict[str, Any] = {
            name: brain.row.get(name, "") for name in ("participant_id", "image")
        }
        images = {"restored": repaired}
        if options.degrade:
            images |= {"degraded": given, "clean": brain.volume}
            row |= repair_figures(repaired, given, brain.volume)
        for name, image in images.items():
            write_image(out / f"{key}_desc-{name}", image, bits)
        rows.append(row)
        if len(shown) < SHOWN:
            order = [given, repaired, *([brain.volume] if options.degrade else [])]
            shown.append([s for image in order for s in image_slices(image)])
    write_tsv(out / TABLE, rows, ("participant_id", "image", *FIGURES))
    write_bytes(out / SHEET, png(contact_sheet(_columns(shown))))
    sidecar = {
        "run": str(run.folder.resolve()),
        "cohort": str(cohort.folder.resolve()),
        "phantom": cohort.is_phantom,
        "images": len(rows),
        "degraded": options.degrade,
        "seed": options.seed,
        "known_to_the_model": len(
            run.trained_on({cohort.rows[i]["participant_id"] for i in indices})
        ),
        **({name: _mean(rows, name) for name in FIGURES} if options.degrade else {}),
    }
    write_json(out / SIDECAR, sidecar)
    return sidecar


def write_image(stem: Path, image: Image, bits: int) -> None:
    """Write an image from −1 to 1: PNG of so many bits in 2-D, NIfTI float32 in 3-D.

    Args:
        stem: of the file, without a suffix.
        image: (I, J) or (I, J, K).
        bits: 8 or 16.
    """
    if image.ndim == 2:
        highest = 2**bits - 1
        grey = np.rint((np.clip(image, -1, 1) + 1) / 2 * highest)
        dtype = np.uint8 if bits == 8 else np.uint16
        write_bytes(stem.with_name(f"{stem.name}.png"), grey_png(grey.astype(dtype)))
        return
    with replacing(stem.with_name(f"{stem.name}.nii.gz")) as temporary:
        whole = nibabel.Nifti1Image(image.astype(np.float32), np.eye(4))
        temporary.write_bytes(whole.to_bytes())


def _columns(shown: Sequence[Sequence[NDArray[np.uint8]]]) -> list[list[NDArray[np.uint8]]]:
    """An image a column: as given, repaired, and as it was, from above."""
    return [list(column) for column in zip(*shown, strict=True)]


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows if name in row and np.isfinite(row[name])]
    return float(np.mean(values)) if values else None
