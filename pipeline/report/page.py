"""One self-contained HTML page about any of the folders that foldnorm writes."""

import json
import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import (
    BENCHMARK,
    BENCHMARK_SIDECAR,
    BENCHMARK_SUBJECTS,
    CLASSES,
    COMPARISON,
    FUSED,
    LATENT_SIDECAR,
    QUALITY,
    RESTORED,
    RUN_CONFIG,
    SCORES,
    SULCI,
    TRIALS,
)
from foldnorm.pipeline.report import figures
from foldnorm.pipeline.report.brain_page import PageChoice, brain_pages
from foldnorm.pipeline.report.comparisons import comparison_section, search_section, titles_of
from foldnorm.pipeline.report.gallery import hemisphere_gallery, shows_sheets
from foldnorm.pipeline.report.images import (
    classes_section,
    image_cohort_section,
    quality_section,
    restored_section,
)
from foldnorm.pipeline.report.latent import latent_section
from foldnorm.pipeline.report.overview import answers, compared_scores
from foldnorm.pipeline.report.runs import run_section
from foldnorm.pipeline.report.scores import fusion_section, scores_section
from foldnorm.pipeline.report.sulci import recognition_section
from foldnorm.pipeline.report.viewers import cohort_viewer, plotly_script, static
from foldnorm.preprocessing.cohort.cohort import DESCRIPTION, Cohort, row_key
from foldnorm.preprocessing.cohort.each_volume import each_read
from foldnorm.preprocessing.cohort.quality import QC_TABLE
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError, making_sense_of
from foldnorm.preprocessing.core.file_names import RUN_REPORT
from foldnorm.preprocessing.core.files import (
    number,
    read_json,
    read_tsv,
    refuse_missing,
    write_text,
)
from foldnorm.preprocessing.core.problems import Problem

TEMPLATES = files("foldnorm.pipeline.report") / "templates"
TEMPLATE = "report.html.jinja"
MAX_LISTED = 15  # brains of a list
LOG = logging.getLogger(__name__)


def write_report(paths: Sequence[Path], out: Path, choice: PageChoice | None = None) -> None:
    """Write the report of some folders.

    Args:
        paths: cohort, run, score, sulci, benchmark, comparison, search folders, in any order.
        out: the ``.html`` file.
        choice: brains of score folders that get a page of their own.

    Raises:
        InputError: a folder is none of these.
    """
    sections = [_section(path) for path in paths]
    for section, path in zip(sections, paths, strict=True):
        section["pages"] = []
        if section["kind"] == "scores":
            with making_sense_of(path):
                section["pages"] = brain_pages(path, choice or PageChoice())
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (TEMPLATES / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["cell"] = _cell
    volumes = any(section.get("volumes") or section["pages"] for section in sections)
    points = any(section.get("points") for section in sections)
    scripts = []
    if volumes or points:
        scripts += [static("niivue.umd.js"), static("volumes.js")]
    if points:
        scripts += [plotly_script(), static("points.js")]
    if any(section["kind"] == "recognition" for section in sections):
        scripts.append(static("sulci_table.js"))
    page = environment.get_template(TEMPLATE).render(
        titles_of=titles_of,
        sections=sections,
        scripts=scripts,
        version=version("foldnorm"),
        answers=answers(sections),
        compared=compared_scores(sections),
        is_phantom=any(section["phantom"] for section in sections),
        warnings=dict.fromkeys(w for section in sections for w in section["warnings"]),
    )
    write_text(out, page)


def _cell(row: Mapping[str, str], column: str, form: str) -> str:
    """Format a number of a table as text; a dash where there is none."""
    return form % number(row, column) if row[column] else "–"


def _section(path: Path) -> dict[str, Any]:
    for name, build in (
        (DESCRIPTION, _cohort_section),
        (RUN_CONFIG, run_section),
        (SCORES, scores_section),
        (FUSED, fusion_section),
        (SULCI, recognition_section),
        (BENCHMARK, _benchmark_section),
        (COMPARISON, comparison_section),
        (TRIALS, search_section),
        (CLASSES, classes_section),
        (RESTORED, restored_section),
        (QUALITY, quality_section),
        (LATENT_SIDECAR, latent_section),
    ):
        if (path / name).is_file():
            kind = build.__name__.removeprefix("_").removesuffix("_section")
            with making_sense_of(path):
                return {"kind": kind, "path": str(path), "warnings": [], **build(path)}
    refuse_missing(path)
    raise InputError(
        "neither a cohort, a run, scores, sulci, classes, restored images, quality, a benchmark, a "
        f"comparison, a search nor a latent analysis: {path}"
    )


def _cohort_section(path: Path) -> dict[str, Any]:
    cohort = Cohort.open(path)
    if cohort.holds_images:
        return image_cohort_section(cohort)
    warnings = []
    failed = []
    if (path / RUN_REPORT).is_file():
        failed = read_json(path / RUN_REPORT)["failed"]
    if failed:
        warnings.append(f"{counted(len(failed), 'volume')} of {path.name} could not be prepared")
    unreadable: list[Problem] = []
    shares = _foreground_shares(cohort, unreadable)
    indices = np.array(list(shares))
    for problem in unreadable:
        LOG.warning("%s: %s", problem.key, problem.reason)
    if unreadable:
        warnings.append(f"{counted(len(unreadable), 'volume')} of {path.name} cannot be read")
        failed += [{"volume": own.key, "reason": own.reason} for own in unreadable]
    full = [n for n, share in shares.items() if share]
    counts = {split: len(cohort.indices(split)) for split in ("train", "validation", "test")}
    deletion = cohort.description["Cohort"].get("deletion")
    one_split = deletion is not None or "synthetic" in cohort.description["Cohort"]  # on purpose
    flagged = []
    if (path / QC_TABLE).is_file():
        # Without the column: a table of an earlier version.
        flagged = [{"warnings": ""} | row for row in read_tsv(path / QC_TABLE) if row["flags"]]
    origins = cohort.description["Cohort"]["origins"]
    named = cohort.description["Cohort"].get("fold_vocabularies", {})
    if len(origins) > 1:
        warnings.append(
            f"{path.name} mixes volumes of different makers, whose counts differ systematically"
        )
    for split, count in counts.items():
        if not count and not one_split:
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
            "made by": _numbers_of(origins),
            **({"sulci named by": _numbers_of(named)} if named else {}),
            "crop": cohort.preparation["crop"],
            "downsampling": cohort.preparation["method"],
        },
        "deletion": deletion,
        "failed": failed[:MAX_LISTED],
        "flagged": flagged[:MAX_LISTED],
        "gallery": hemisphere_gallery(cohort, full) if full and shows_sheets(cohort) else "",
        "slices": figures.cohort_slices(cohort, indices),
        "volumes": {"cohort": cohort_viewer(cohort, indices)},
        "shown": ", ".join(row_key(cohort.rows[n]) for n in indices[: figures.N_BRAINS]),
        "counts": figures.class_counts(cohort, shares),
        "settings": json.dumps(cohort.description["Cohort"], indent=2, ensure_ascii=False),
    }


def _foreground_shares(cohort: Cohort, unreadable: list[Problem]) -> dict[int, float]:
    """Share of the highest classes in each volume, by index; all volumes are read once."""
    scheme = cohort.scheme

    def share(volume: NDArray[np.uint8]) -> float:
        return float(scheme.foreground(volume).mean())

    return dict(each_read(cohort, cohort.indices().tolist(), share, unreadable))


def _numbers_of(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({n})" for name, n in counts.items())


# What the kinds of alteration of `benchmark` do to a brain.
DONE = {
    "fold": "a fold taken out of each brain",
    "fold-raw": "a fold taken out of each raw skeleton",
    "fold-graph": "a fold taken out of each fold graph",
    "ball": "a ball taken out of each brain",
    "add": "a fold of another brain added to each",
    "random": "each crop taken elsewhere",
    "asymmetry": "each crop taken from the other side",
    "refill": "a fold taken out of each brain, and its neighbours drawn to its place",
    "deform": "the neighbours of a fold of each brain drawn towards it (control of refill)",
    "interrupt": "a piece cut out of a fold of each brain",
    "displace": "a fold of each brain moved along the hull",
    "scar": "what surrounds a fold of each brain taken out, the fold left (control)",
    "rim": "what touches a fold of each brain taken out, the fold left (control)",
}
UNITS = {"ball": "mm³", "random": "", "asymmetry": ""}


def _benchmark_section(path: Path) -> dict[str, Any]:
    rows = read_tsv(path / BENCHMARK)
    sidecar = read_json(path / BENCHMARK_SIDECAR)
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    scores = list(dict.fromkeys(row["score"] for row in rows))
    cell = {(row["score"], row["size"]): row for row in rows}
    missed = [
        f"{row['score']}: the interval of the size-0 control leaves 0.5 out"
        for row in rows
        if row["size"] == "0" and not number(row, "auroc_low") <= 0.5 <= number(row, "auroc_high")
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
        "roc": figures.roc_by_size(read_tsv(path / BENCHMARK_SUBJECTS)),
        "settings": json.dumps(sidecar, indent=2, ensure_ascii=False),
    }
