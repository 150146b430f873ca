"""One self-contained HTML page about any of the folders that foldnorm writes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import yaml

from foldnorm.pipeline import benchmark as benchmark_module
from foldnorm.pipeline import compare as compare_module
from foldnorm.pipeline import fusion, recognise, search_space
from foldnorm.pipeline import report_figures as figures
from foldnorm.pipeline.latent import outputs as latent_outputs
from foldnorm.pipeline.metrics_table import MetricsTable
from foldnorm.pipeline.report_comparisons import comparison_section, search_section, titles_of
from foldnorm.pipeline.report_latent import latent_section
from foldnorm.pipeline.report_scores import fusion_section, recognition_section, scores_section
from foldnorm.pipeline.report_viewers import cohort_viewer, plotly_script, static
from foldnorm.pipeline.run_folder import METRICS, RunFolder
from foldnorm.pipeline.score_cohort import SCORES
from foldnorm.preprocessing.cohort import DESCRIPTION, Cohort
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import read_json, read_tsv, write_text
from foldnorm.preprocessing.pictures import inline_png
from foldnorm.preprocessing.preprocess import RUN_REPORT
from foldnorm.preprocessing.quality import QC_TABLE

TEMPLATE = "report.html.jinja"
LISTED_BRAINS = 15
SAMPLE_NOTES = {
    "volume_ratio": "voxels, drawn / real",
    "components_ratio": "26-connected pieces, drawn / real; far above 1 folds are fragments",
    "opening_excess": "share of voxels inside full 2×2×2 blocks, above that of real volumes",
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
    "loss": "of validation brains, nats",
    "sulcus_dice": "mean over sulci; of the voxels that are sulcus",
    "restored": "mean probability of structure where some was erased",
    "invented": "the same where there never was any",
}


def write_report(paths: Sequence[Path], out: Path) -> None:
    """Write the report of some folders.

    Args:
        paths: cohort, run, score, sulci, benchmark, comparison, search folders, in any order.
        out: the ``.html`` file.

    Raises:
        InputError: a folder is none of these.
    """
    sections = [_section(path) for path in paths]
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: (files("foldnorm.pipeline") / name).read_text(encoding="utf-8")
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    volumes = any(section.get("volumes") for section in sections)
    points = any(section.get("points") for section in sections)
    scripts = []
    if volumes or points:
        scripts += [static("niivue.umd.js"), static("volumes.js")]
    if points:
        scripts += [plotly_script(), static("points.js")]
    page = environment.get_template(TEMPLATE).render(
        titles_of=titles_of,
        sections=sections,
        scripts=scripts,
        version=version("foldnorm"),
        is_phantom=any(section["phantom"] for section in sections),
        warnings=[warning for section in sections for warning in section["warnings"]],
    )
    write_text(out, page)


def _section(path: Path) -> dict[str, Any]:
    for name, build in (
        (DESCRIPTION, _cohort_section),
        ("config.yaml", _run_section),
        (SCORES, scores_section),
        (fusion.TABLE, fusion_section),
        (recognise.TABLE, recognition_section),
        (benchmark_module.TABLE, _benchmark_section),
        (compare_module.TABLE, comparison_section),
        (search_space.TABLE, search_section),
        (latent_outputs.SIDECAR, latent_section),
    ):
        if (path / name).is_file():
            kind = build.__name__.removeprefix("_").removesuffix("_section")
            return {"kind": kind, "path": str(path), "warnings": [], **build(path)}
    raise InputError(
        f"neither a cohort, a run, scores, sulci, a benchmark, a comparison, a search nor a latent "
        f"analysis: {path}"
    )


def _cohort_section(path: Path) -> dict[str, Any]:
    cohort = Cohort.open(path)
    warnings = []
    failed = []
    if (path / RUN_REPORT).is_file():
        failed = read_json(path / RUN_REPORT)["failed"]
    if failed:
        warnings.append(f"{len(failed)} volumes of {path.name} could not be prepared")
    counts = {split: len(cohort.indices(split)) for split in ("train", "validation", "test")}
    deletion = cohort.description["Cohort"].get("deletion")
    flagged = []
    if (path / QC_TABLE).is_file():
        flagged = [row for row in read_tsv(path / QC_TABLE) if row["flags"]]
    origins = cohort.description["Cohort"]["origins"]
    if len(origins) > 1:
        warnings.append(
            f"{path.name} mixes volumes of different makers, whose counts differ systematically"
        )
    for split, count in counts.items():
        if not count and deletion is None:  # altered cohorts are of one split on purpose
            warnings.append(f"{path.name} has no volume in its {split} split")
    return {
        "title": f"Cohort: {path.name}",
        "phantom": cohort.is_phantom,
        "warnings": warnings,
        "facts": {
            "volumes": len(cohort.rows),
            "split": ", ".join(f"{n} {split}" for split, n in counts.items()),
            "box": " × ".join(map(str, cohort.shape)) + " voxels",
            "voxel size": " × ".join(f"{size:.3g}" for size in cohort.voxel_size) + " mm",
            "classes": ", ".join(cohort.scheme.names),
            "made by": ", ".join(f"{origin} ({n})" for origin, n in origins.items()),
            "crop": cohort.preparation["crop"],
            "downsampling": cohort.preparation["method"],
        },
        "deletion": deletion,
        "failed": failed[:LISTED_BRAINS],
        "flagged": flagged[:LISTED_BRAINS],
        "slices": figures.cohort_slices(cohort),
        "volumes": {"cohort": cohort_viewer(cohort)},
        "shown": ", ".join(cohort.keys()[: figures.SHOWN_BRAINS]),
        "counts": figures.class_counts(cohort),
        "settings": json.dumps(cohort.description["Cohort"], indent=2, ensure_ascii=False),
    }


def _run_section(path: Path) -> dict[str, Any]:
    run = RunFolder.open(path)
    metrics = MetricsTable(path / METRICS, up_to=2**62)
    best, panel = run.best_panel(metrics)
    _, samples = run.best_panel(metrics, of="samples")
    pictures = sorted(run.samples.glob("step-*.png"))
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
            "trained on": f"{run.participants['train']} participants",
            "validated on": f"{run.participants['validation']} others",
            "best checkpoint": f"step {best}",
        },
        "panel": [(name, value, PANEL_NOTES.get(name, "")) for name, value in panel.items()],
        "samples": [(name, value, SAMPLE_NOTES.get(name, "")) for name, value in samples.items()],
        "curves": figures.training_curves(metrics),
        "words": _words(panel),
        "picture": inline_png(pictures[-1].read_bytes()) if pictures else None,
        "settings": yaml.safe_dump(run.config, sort_keys=False),
        "environment": run.environment,
    }


@dataclass(frozen=True)
class _Words:
    """What is said of the curves, the table and the picture of a kind of model."""

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


def _words(panel: Mapping[str, float]) -> _Words:
    """By the figures that its validation gives."""
    if any(name.startswith("dice_") for name in panel):
        return TRANSLATION
    if "sulcus_dice" in panel:
        return RECOGNITION
    if "restored" in panel:
        return RESTORATION
    return RECONSTRUCTION if "dice" in panel else SEPARATION


# What the kinds of alteration of `benchmark` do to a brain.
DONE = {
    "fold": "a fold taken out of each brain",
    "fold-raw": "a fold taken out of each raw skeleton",
    "fold-graph": "a fold taken out of each fold graph",
    "ball": "a ball taken out of each brain",
    "add": "a fold of another brain added to each",
    "random": "each crop taken elsewhere",
    "asymmetry": "each crop taken from the other side",
}
UNITS = {"ball": "mm³", "random": "", "asymmetry": ""}


def _benchmark_section(path: Path) -> dict[str, Any]:
    rows = read_tsv(path / benchmark_module.TABLE)
    sidecar = read_json(path / benchmark_module.SIDECAR)
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    scores = list(dict.fromkeys(row["score"] for row in rows))
    cell = {(row["score"], row["size"]): row for row in rows}
    missed = [
        f"{row['score']}: the interval of the size-0 control leaves 0.5 out"
        for row in rows
        if row["size"] == "0" and not float(row["auroc_low"]) <= 0.5 <= float(row["auroc_high"])
    ]
    return {
        "title": f"Deletion benchmark: {path.name}",
        "phantom": sidecar["phantom"],
        "warnings": missed,
        "facts": {
            "brains": sidecar["brains"],
            "split": ", ".join(sidecar["splits"]),
            "altered": DONE[sidecar["kind"]],
            "learned from": sidecar.get("track", "not recorded"),
            "draws": sidecar["draws"],
        },
        "sizes": sizes,
        "scores": scores,
        "cell": cell,
        "unit": UNITS.get(sidecar["kind"], "mm² of sheet (voxels at 1 mm)"),
        "note": sidecar["note"],
        "roc": figures.roc_by_size(read_tsv(path / benchmark_module.SUBJECTS)),
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }
