"""Score the brains of a cohort: ``scores.tsv`` with a p-value for each score."""

from pathlib import Path
from typing import Any

from foldnorm.pipeline.scorer import Scorer
from foldnorm.pipeline.scores import conformal_p
from foldnorm.preprocessing.cohort import Cohort
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import write_json, write_tsv

SCORES, SIDECAR = "scores.tsv", "scores.json"


def score_cohort(
    scorer: Scorer, reference: Cohort, cohort: Cohort, out: Path, *, splits: tuple[str, ...]
) -> list[dict[str, Any]]:
    """Score volumes; writes ``scores.tsv`` and ``scores.json`` and returns the rows.

    A brain that the weights were fitted to, or that calibrates the p-values, gets scores but no
    p-value: its own is not one.

    Args:
        scorer: fitted on ``reference``.
        reference: training cohort, whose validation split calibrates.
        cohort: the brains to score.
        out: folder to write to.
        splits: of ``cohort`` to score; all if empty.
    """
    held_out = scorer.calibration
    if not len(held_out):
        raise InputError(f"no validation brains to calibrate with: {reference.folder}")
    calibration = scorer.score(lambda: reference.brains(held_out))
    indices = cohort.indices(*splits)
    if not len(indices):
        raise InputError(f"no brain of split {'+'.join(splits)}: {cohort.folder}")
    scores = scorer.score(lambda: cohort.brains(indices))
    roles = {row["participant_id"]: row["split"] for row in reference.rows}
    names = list(scores)
    p_values = {name: conformal_p(scores[name], calibration[name]) for name in names}
    rows = []
    for n, index in enumerate(indices):
        row = cohort.rows[index]
        role = roles.get(row["participant_id"], "")
        used = {"train": "training", "validation": "calibration"}.get(role, "")
        figures: dict[str, Any] = {f"score_{name}": float(scores[name][n]) for name in names}
        if not used:
            figures |= {f"p_{name}": float(p_values[name][n]) for name in names}
        rows.append(
            {
                "participant_id": row["participant_id"],
                "hemi": row["hemi"],
                "used_for": used,
                **figures,
            }
        )
    columns = ["participant_id", "hemi", "used_for"]
    columns += [f"score_{name}" for name in names] + [f"p_{name}" for name in names]
    write_tsv(out / SCORES, rows, columns)
    write_json(out / SIDECAR, _sidecar(reference, cohort, len(rows), len(held_out)))
    return rows


def _sidecar(reference: Cohort, cohort: Cohort, scored: int, m: int) -> dict[str, Any]:
    train = len(reference.indices("train"))
    return {
        "cohort": str(cohort.folder),
        "reference": str(reference.folder),
        "phantom": cohort.is_phantom,
        "brains": scored,
        "fitted_on": train,
        "calibrated_on": m,
        "smallest_p": 1 / (m + 1),
        "sentence": f"Scores were fitted on {train} healthy brains and turned into conformal "
        f"p-values with {m} others; no p-value can be below {1 / (m + 1):.3g}, and none is "
        "corrected for the number of brains or of scores.",
        "columns": {
            "score_*": "high means unusual",
            "p_*": "share of the calibration brains at least as unusual, with 1 added above and "
            "below; n/a for brains that took part in training or calibration",
            "used_for": "training or calibration, if the brain took part in it",
        },
    }
