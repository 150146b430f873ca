"""Report sections of images: cohorts, predicted classes, restored and synthetic images."""

import json
from collections import Counter
from math import nan
from pathlib import Path
from typing import Any

from foldnorm.pipeline.artifacts import (
    CLASSES_SIDECAR,
    QUALITY,
    QUALITY_PAIRS,
    QUALITY_SIDECAR,
    RESTORED,
    RESTORED_SHEET,
    RESTORED_SIDECAR,
)
from foldnorm.pipeline.report import figures
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.images import CLASS
from foldnorm.preprocessing.cohort.pictures import inline_png
from foldnorm.preprocessing.cohort.split import SPLITS
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.file_names import RUN_REPORT
from foldnorm.preprocessing.core.files import number, read_json, read_tsv

MAX_LISTED = 15  # images of a list


def image_cohort_section(cohort: Cohort) -> dict[str, Any]:
    """Build the report section of a cohort of images."""
    failed = []
    if (cohort.folder / RUN_REPORT).is_file():
        failed = read_json(cohort.folder / RUN_REPORT)["failed"]
    counts = {split: len(cohort.indices(split)) for split in SPLITS}
    name = cohort.folder.name
    warnings = [f"{name} has no image in its {s} split" for s, n in counts.items() if not n]
    if failed:
        warnings.append(f"{counted(len(failed), 'image')} of {name} could not be prepared")
    people = {row["participant_id"] for row in cohort.rows}
    rule = cohort.preparation["intensities"]
    window = f" {rule['low']:g} to {rule['high']:g}" if rule["rule"] == "window" else ""
    classes = Counter((row.get(CLASS, ""), row["split"]) for row in cohort.rows)
    names = sorted({name for name, _ in classes if name})
    return {
        "kind": "images",
        "title": f"Images: {name}",
        "phantom": False,
        "warnings": warnings,
        "facts": {
            "images": len(cohort.rows),
            "participants": len(people),
            "split": ", ".join(f"{n} {split}" for split, n in counts.items()),
            "size": " × ".join(map(str, cohort.shape)),
            "intensities": f"{rule['rule']}{window}, {rule['bits']} bits stored",
        },
        "splits": SPLITS,
        "classes": [(name, [classes[name, split] for split in SPLITS]) for name in names],
        "failed": failed[:MAX_LISTED],
        "images": figures.first_images(cohort, names),
        "settings": json.dumps(cohort.description["Cohort"], indent=2, ensure_ascii=False),
    }


def classes_section(path: Path) -> dict[str, Any]:
    """Build the report section of the classes that `foldnorm classify` predicted."""
    sidecar = read_json(path / CLASSES_SIDECAR)
    facts = {"volumes": sidecar["volumes"], "column": sidecar["target"]}
    warnings = []
    if sidecar["tested"]:
        low, high = sidecar["accuracy_low"], sidecar["accuracy_high"]
        facts |= {
            "tested": f"{sidecar['tested']} of {counted(sidecar['participants'], 'participant')}",
            "accuracy": f"{sidecar['accuracy']:.3f} [{low:.3f}, {high:.3f}]",
            "commonest class": f"{sidecar['commonest_class']:.3f}, what is right without looking",
            "balanced accuracy": f"{sidecar['balanced_accuracy']:.3f}",
        }
        if low <= sidecar["commonest_class"]:
            warnings.append(
                f"{path.name}: the accuracy may be no better than that of the commonest class"
            )
    return {
        "title": f"Classes: {path.name}",
        "phantom": sidecar["phantom"],
        "warnings": warnings,
        "facts": facts,
        "levels": sidecar["levels"],
        "confusion": sidecar.get("confusion", []),
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }


def restored_section(path: Path) -> dict[str, Any]:
    """Build the report section of images that `foldnorm restore` repaired."""
    sidecar = read_json(path / RESTORED_SIDECAR)
    facts = {"images": sidecar["images"]}
    warnings = []
    if sidecar["degraded"]:
        facts |= {
            "PSNR": "n/a" if sidecar["psnr"] is None else f"{sidecar['psnr']:.2f} dB",
            "SSIM": "n/a" if sidecar["ssim"] is None else f"{sidecar['ssim']:.3f}",
        }
        if sidecar["psnr_gain"] is not None:
            facts["gained"] = f"{sidecar['psnr_gain']:+.2f} dB above what was given"
    if sidecar["known_to_the_model"]:
        warnings.append(
            f"{path.name}: the model was trained on {sidecar['known_to_the_model']} of the "
            "participants"
        )
    rows = read_tsv(path / RESTORED)
    worst = sorted((row for row in rows if row["psnr"]), key=lambda row: number(row, "psnr"))
    return {
        "title": f"Restored images: {path.name}",
        "phantom": sidecar["phantom"],
        "warnings": warnings,
        "facts": facts,
        "degraded": sidecar["degraded"],
        "picture": inline_png((path / RESTORED_SHEET).read_bytes()),
        "worst": worst[:MAX_LISTED],
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }


QUALITY_NOTES = {
    "mmd": "maximum mean discrepancy to training volumes; around 0 is alike",
    "precision": "share of the set that lies among training volumes",
    "recall": "share of the training volumes that lie among the set",
    "coverage": "share of the training volumes that have one of the set near",
    "ms_ssim": "of pairs; far above the floor the set is not varied",
    "nearest_training": "median distance to the nearest training volume; far below the floor they "
    "are copies",
    "memorised": "share that is nearer to a training volume than 99 % of the held-out ones are",
    "two_sample_auroc": "of a CNN that learns to tell the set from training volumes; 0.5 is alike",
    "prevalence_difference": "of structure, mean over blocks of the box",
}


def quality_section(path: Path) -> dict[str, Any]:
    """Build the report section of the quality of synthetic volumes."""
    sidecar = read_json(path / QUALITY_SIDECAR)
    rows = read_tsv(path / QUALITY)
    found = {row["figure"]: row for row in rows}
    warnings = [f"{path.name}: {warning}" for warning in sidecar.get("warnings", [])]
    copies = found["memorised"]
    made, floor = (number(copies, key) if copies[key] else nan for key in ("synthetic", "held_out"))
    if made > max(2 * floor, 0.05):
        warnings.append(f"{path.name}: {made:.0%} are nearly copies of training volumes")
    return {
        "title": f"Synthetic volumes: {path.name}",
        "phantom": sidecar["phantom"],
        "warnings": warnings,
        "facts": {
            "volumes of each set": sidecar["volumes_of_each_set"],
            "compared in": sidecar["features"],
        },
        "rows": [
            (row, QUALITY_NOTES.get(row["figure"], "Kolmogorov–Smirnov distance to training volumes"
                                    if row["figure"].startswith("ks_") else ""))
            for row in rows
        ],
        "picture": inline_png((path / QUALITY_PAIRS).read_bytes()),
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }  # fmt: skip
