"""Report sections of cohorts of images."""

import json
from collections import Counter
from typing import Any

from foldnorm.pipeline import report_figures as figures
from foldnorm.preprocessing.cohort import Cohort
from foldnorm.preprocessing.files import read_json
from foldnorm.preprocessing.images import CLASS
from foldnorm.preprocessing.preprocess import RUN_REPORT
from foldnorm.preprocessing.split import SPLITS

LISTED = 15  # images of a list


def image_cohort_section(cohort: Cohort) -> dict[str, Any]:
    """What the report shows of a cohort of images."""
    failed = []
    if (cohort.folder / RUN_REPORT).is_file():
        failed = read_json(cohort.folder / RUN_REPORT)["failed"]
    counts = {split: len(cohort.indices(split)) for split in SPLITS}
    name = cohort.folder.name
    warnings = [f"{name} has no image in its {s} split" for s, n in counts.items() if not n]
    if failed:
        warnings.append(f"{len(failed)} images of {name} could not be prepared")
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
        "failed": failed[:LISTED],
        "images": figures.first_images(cohort, names),
        "settings": json.dumps(cohort.description["Cohort"], indent=2, ensure_ascii=False),
    }
