"""Report sections of run folders: what was trained, its curves, figures and pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from foldnorm.pipeline.artifacts import RUN_METRICS, RUN_SAMPLE
from foldnorm.pipeline.report import figures
from foldnorm.pipeline.runs.metrics_log import MetricsLog
from foldnorm.pipeline.runs.run_folder import RunFolder
from foldnorm.preprocessing.cohort.pictures import inline_png
from foldnorm.preprocessing.core.counts import counted

SAMPLE_NOTES = {
    "volume_ratio": "voxels, drawn / real",
    "components_ratio": "26-connected pieces, drawn / real; far above 1 folds are fragments",
    "opening_excess": "share of voxels inside full 2×2×2 blocks, above that of real volumes",
    "mean_difference": "of intensities, drawn − real; they go from −1 to 1",
    "spread_ratio": "standard deviation of intensities, drawn / real",
}
PANEL_NOTES = {
    "dice": "1 is perfect; one voxel's shift of a sheet already gives about 0",
    "precision": "share of the predicted voxels that are right",
    "recall": "share of the true voxels that are found",
    "volume_ratio": "predicted / true voxels; 0.8–1.25 is what we ask for",
    "opening": "share of the predicted voxels inside full 2×2×2 blocks",
    "opening_excess": "that share above the target's own; above 0.05 the sheets have thickened",
    "surface_dice": "share of both sheets within 1 voxel of the other; blind to thickening",
    "assd": "mean distance between the sheets, voxels",
    "components": "26-connected pieces of the prediction",
    "euler_number": "of the prediction",
    "loss": "of validation brains (nats) or images",
    "sulcus_dice": "mean over sulci; of the voxels that are sulcus",
    "restored": "mean probability of structure where some was erased",
    "invented": "the same where there never was any",
    "accuracy": "share that is told right",
    "psnr": "dB, of intensities from −1 to 1",
    "psnr_gain": "dB above that of what the model is shown",
    "ssim": "structural similarity; 1 is the same image",
}


def run_section(path: Path) -> dict[str, Any]:
    """Build the report section of a run folder."""
    run = RunFolder.open(path)
    metrics = MetricsLog(path / RUN_METRICS, up_to=2**62)
    best, panel = run.best_metrics(metrics)
    _, samples = run.best_metrics(metrics, prefix="samples")
    pictures = sorted(path.glob(RUN_SAMPLE.pattern))
    warnings = []
    if metrics.rows and max(metrics.rows) < run.config["training"]["steps"]:
        warnings.append(f"{path.name} stopped at step {max(metrics.rows)}, before its end")
    if panel and not 0.8 <= panel.get("volume_ratio", 1.0) <= 1.25:
        warnings.append(f"{path.name}: volume ratio {panel['volume_ratio']:.2f}")
    if panel and panel.get("opening_excess", 0.0) > 0.05:
        warnings.append(f"{path.name}: reconstructions are thicker than their targets")
    return {
        "title": f"Model: {path.name}",
        "phantom": run.data["phantom"],
        "warnings": warnings,
        "facts": {
            "class": run.config["model"]["class_path"],
            "trained on": counted(run.participants["train"], "participant"),
            "validated on": counted(run.participants["validation"], "other"),
            "best checkpoint": f"step {best}",
        },
        "panel": [(name, value, PANEL_NOTES.get(name, "")) for name, value in panel.items()],
        "samples": [(name, value, SAMPLE_NOTES.get(name, "")) for name, value in samples.items()],
        "curves": figures.training_curves(metrics),
        "words": _words(metrics),
        "picture": inline_png(pictures[-1].read_bytes()) if pictures else None,
        "settings": yaml.safe_dump(run.config, sort_keys=False),
        "environment": run.environment,
    }


@dataclass(frozen=True)
class _Words:
    """Captions of the curves, the table and the picture of a kind of model."""

    curves: str
    table: str
    picture: str


TRANSLATION = _Words(
    "Cross entropy on training batches and on validation brains; what the critics, if there "
    "are any, make of the difference between real and generated; Dice of each class of the "
    "translations of validation brains.",
    "Held-out translations",
    "A validation brain (left three slices), its translation, and the true other volume.",
)
RECOGNITION = _Words(
    "Cross entropy of the names of sulcus voxels on training batches and on validation "
    "brains; mean Dice of the sulci of validation brains.",
    "Held-out sulci",
    "A validation brain with its sulci as recognised (left three slices) and as named. Grey "
    "is any other sulcus, and the hull.",
)
RESTORATION = _Words(
    "Cross entropy on training batches and on validation brains; mean probability of "
    "structure where some was erased (restored) and where there never was any (invented).",
    "Held-out restorations",
    "A validation brain out of which something was erased (left three slices), as it was "
    "restored, and as it was.",
)
SEPARATION = _Words(
    "Cross entropy of telling altered places from others, on training batches and on "
    "validation brains; 1.39 is chance.",
    "Held-out brains",
    "",
)
RECONSTRUCTION = _Words(
    "Reconstruction loss on training batches and on validation brains; what the critic, if "
    "there is one, makes of the difference between real and generated, and its gradient "
    "penalty; reconstructions of validation brains. The band is where the volume ratio "
    "should be (0.8–1.25). The last are of the classes that a deletion can take: sulcus in "
    "a skeleton.",
    "Held-out reconstructions",
    "First rows: a validation brain (left three slices) beside its reconstruction (right "
    "three). Last rows, if the model draws: volumes drawn from it, two a row.",
)


REPAIR = _Words(
    "Mean squared error on training batches and on validation images (intensities from −1 to "
    "1); PSNR of what is made of validation images.",
    "Held-out images",
    "A validation image as the model is shown it, what it makes of it, and as it was; four of "
    "them.",
)
CLASSIFICATION = _Words(
    "Cross entropy and accuracy on training batches (with dropout) and on validation images.",
    "Held-out images",
    "",
)
DIFFUSION = _Words(
    "Mean squared error of the noise on training batches, at steps drawn at random, and on "
    "validation images, at eight fixed steps.",
    "Held-out images",
    "First rows: validation images, and what is left of them after 25, 50, 75 and 100 % of the "
    "steps. Then an image as it comes out of noise. Last rows: drawn images.",
)
LATENT_DIFFUSION = _Words(
    "In the first stage, reconstruction loss; in the second, mean squared error of the noise on "
    "codes; on training batches and on validation brains. Reconstructions of validation brains.",
    "Held-out reconstructions",
    "First rows: a validation brain (left three slices), its reconstruction, and what is decoded "
    "after 25, 50, 75 and 100 % of the steps to noise. Then a volume as it comes out of noise. "
    "Last rows: drawn volumes, two a row.",
)
IMAGES = _Words(
    "Reconstruction loss on training batches and mean squared error on validation images "
    "(intensities from −1 to 1); what the critic, if there is one, makes of the difference between "
    "real and generated; PSNR of reconstructions of validation images.",
    "Held-out reconstructions",
    "First rows: a validation image, and what its code brings back. Last rows: drawn images.",
)
LABELLED = {  # by a phase that only they have
    "recognition": RECOGNITION,
    "separation": SEPARATION,
    "classification": CLASSIFICATION,
    "translation": TRANSLATION,
    "generators": TRANSLATION,
}


def _words(metrics: MetricsLog) -> _Words:
    """Choose the captions of a model by the phases of its training and its validation figures."""
    phases, figures = ({c.split("/")[n] for c in metrics.columns if "/" in c} for n in (0, 1))
    for phase, words in LABELLED.items():
        if phase in phases:
            return words
    if "diffusion" in phases:
        return LATENT_DIFFUSION if "dice" in figures else DIFFUSION
    if "restoration" in phases:
        return RESTORATION if "restored" in figures else REPAIR
    if "psnr" in figures:
        return IMAGES if "spread_ratio" in figures else REPAIR
    return RECONSTRUCTION
