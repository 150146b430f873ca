"""Score the brains of a cohort: ``scores.tsv`` with a p-value for each score."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control

from foldnorm.pipeline.artifacts import BRAIN, CALIBRATION, SCORES, SCORES_SIDECAR
from foldnorm.pipeline.scorer import Scorer, Scores
from foldnorm.pipeline.scores import conformal_p
from foldnorm.pipeline.scoring.setup import ScoringSetup
from foldnorm.pipeline.suitability import Suitability
from foldnorm.pipeline.tracks import learned_from
from foldnorm.preprocessing.cohort import Cohort, row_key
from foldnorm.preprocessing.errors import InputError
from foldnorm.preprocessing.files import write_json, write_tsv
from foldnorm.preprocessing.quality import read_warnings
from foldnorm.preprocessing.sources import Problem

UNKNOWN = {"", "n/a"}  # values of a column that say nothing
FALSE_DISCOVERIES = 0.05  # share of the brains called unusual that may be healthy
FEWEST_CONTROLS = 19  # for a p-value of 0.05
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Calibration:
    """Healthy brains that scores are compared with.

    Attributes:
        scores: by name, (m,) each.
        rows: who they are.
        are_local: whether they are controls of the site, not validation brains.
    """

    scores: Scores
    rows: list[dict[str, str]]
    are_local: bool

    @classmethod
    def of(cls, scorer: Scorer, reference: Cohort, controls: Cohort | None) -> "Calibration":
        """Scores of the brains that the scorer sets aside for it.

        Raises:
            InputError: there are none, or controls are brains that the model was trained on.
        """
        calibrating = scorer.calibration
        if not len(calibrating):
            raise InputError(f"no brains to calibrate with: {reference.folder}")
        rows = calibrating.rows
        if controls is not None and scorer.has_model:
            split_of = {row["participant_id"]: row["split"] for row in reference.rows}
            seen = [
                r["participant_id"] for r in rows if split_of.get(r["participant_id"]) == "train"
            ]
            if seen:
                raise InputError(
                    f"{len(seen)} controls are brains that the model was trained on (such as "
                    f"{seen[0]}): {controls.folder}"
                )
        return cls(scorer.score(lambda: iter(calibrating)), rows, controls is not None)

    @property
    def smallest_p(self) -> float:
        """That can be reached."""
        return 1 / (len(self.rows) + 1)

    def without_site(self, row: dict[str, str]) -> str:
        """Why a brain's site keeps it from being judged; empty where it does not, or none is known.

        Skeletons of two sites differ in ways that scores take for anomalies, so the p-value of a
        brain holds among brains of its own site.
        """
        site = row.get("site", "")
        known = {own.get("site", "") for own in self.rows} - UNKNOWN
        if site in UNKNOWN or not known or site in known:
            return ""
        return (
            f"is of site {site}, the calibration brains of {', '.join(sorted(known))}: give "
            "--controls of its site, or --across-sites"
        )

    def role(self, row: dict[str, str], reference: Cohort) -> str:
        """What a brain was used for: ``training``, ``calibration``, or nothing."""
        return self._roles(reference).get(row["participant_id"], "")

    def _roles(self, reference: Cohort) -> dict[str, str]:
        roles = {"train": "training", "validation": "calibration"}
        known = {row["participant_id"]: roles.get(row["split"], "") for row in reference.rows}
        return {**known, **{row["participant_id"]: "calibration" for row in self.rows}}


def score_cohort(
    setup: ScoringSetup,
    out: Path,
    *,
    splits: tuple[str, ...],
    across_sites: bool = False,
) -> tuple[Rows, list[Problem]]:
    """Score volumes; writes ``scores.tsv``, ``calibration.tsv`` and ``scores.json``.

    A brain that the weights were fitted to, or that calibrates the p-values, gets scores but no
    p-value: its own is not one. Nor does a brain that cannot be judged: see `Suitability`, and,
    unless ``across_sites``, one of a site (column ``site``) that no calibration brain is of.
    One that its source warns of keeps its p-value, with the warning beside it.

    Args:
        setup: fitted scorer, healthy brains, and the brains to score.
        out: folder to write to.
        splits: of the cohort to score; all if empty.
        across_sites: judge brains of sites without controls too.

    Returns:
        The rows, and the brains that cannot be judged.
    """
    scorer, reference, cohort = setup.scorer, setup.reference, setup.cohort
    calibration = Calibration.of(scorer, reference, setup.controls)
    indices = cohort.indices(*splits)
    if not len(indices):
        raise InputError(f"no brain of split {'+'.join(splits)}: {cohort.folder}")
    scores = scorer.score(lambda: cohort.brains(indices))
    known = [cohort.rows[index] for index in indices]
    flags = Suitability(reference, setup.controls).reasons(cohort.brains(indices))
    if not across_sites:
        strangers = [calibration.without_site(row) for row in known]
        flags = [flag or stranger for flag, stranger in zip(flags, strangers, strict=True)]
    used = [calibration.role(row, reference) for row in known]
    warnings = read_warnings(cohort.folder)
    judged = np.array([not flag and not role for flag, role in zip(flags, used, strict=True)])
    rows: Rows = [
        {
            "participant_id": row["participant_id"],
            "hemi": row["hemi"],
            "used_for": role,
            "flag": flag,
            "warning": warnings.get(row_key(row), ""),
        }
        for row, role, flag in zip(known, used, flags, strict=True)
    ]
    unusual = {}
    for name, values in scores.items():
        p = conformal_p(values, calibration.scores[name])
        q = np.full(len(p), np.nan)
        if judged.any():
            q[judged] = false_discovery_control(p[judged])
        unusual[name] = int((q[judged] <= FALSE_DISCOVERIES).sum())
        for row, score, own_p, own_q, kept in zip(rows, values, p, q, judged, strict=True):
            row[f"score_{name}"] = float(score)
            if kept:
                row[f"p_{name}"], row[f"q_{name}"] = float(own_p), float(own_q)
    columns = [*BRAIN, "used_for", "flag", "warning"]
    columns += [f"{what}_{name}" for what in ("score", "p", "q") for name in scores]
    write_tsv(out / SCORES, rows, columns)
    _write_calibration(out, calibration)
    sidecar = _sidecar(reference, cohort, calibration, rows, unusual)
    write_json(
        out / SCORES_SIDECAR, {**sidecar, "learned_from": learned_from(scorer.edits, scorer.sulci)}
    )
    problems = [
        Problem(f"{row['participant_id']} {row['hemi']}".strip(), f"{row['flag']}; no p-value")
        for row in rows
        if row["flag"]
    ]
    return rows, problems


def _write_calibration(out: Path, calibration: Calibration) -> None:
    """The scores behind the p-values, so that p-values of several runs can be joined."""
    names = list(calibration.scores)
    rows = [
        {
            **{key: row[key] for key in BRAIN},
            **{f"score_{name}": float(calibration.scores[name][n]) for name in names},
        }
        for n, row in enumerate(calibration.rows)
    ]
    write_tsv(out / CALIBRATION, rows, [*BRAIN, *(f"score_{name}" for name in names)])


def _sidecar(
    reference: Cohort,
    cohort: Cohort,
    calibration: Calibration,
    rows: Rows,
    unusual: dict[str, int],
) -> dict[str, Any]:
    train, m = len(reference.indices("train")), len(calibration.rows)
    judged = sum(not row["flag"] and not row["used_for"] for row in rows)
    whose = "local controls" if calibration.are_local else "others"
    sentence = (
        f"Scores were fitted on {train} healthy brains and turned into conformal p-values with "
        f"{m} {whose}; no p-value can be below {calibration.smallest_p:.3g}. q-values are p-values "
        f"corrected for the {judged} brains that have one (Benjamini–Hochberg), not for the number "
        "of scores."
    )
    if m < FEWEST_CONTROLS:
        sentence += (
            f" {m} brains are too few for any p-value below 0.05: {FEWEST_CONTROLS} are not."
        )
    elif judged and calibration.smallest_p * judged > FALSE_DISCOVERIES:
        alone = int(np.ceil(judged / FALSE_DISCOVERIES)) - 1
        sentence += (
            f" A brain that is alone in being unusual cannot reach q = {FALSE_DISCOVERIES:g}: that "
            f"would take {alone} calibration brains."
        )
    return {
        "cohort": str(cohort.folder),
        "reference": str(reference.folder),
        "phantom": cohort.is_phantom,
        "brains": len(rows),
        "flagged": sum(bool(row["flag"]) for row in rows),
        "warned": sum(bool(row["warning"]) for row in rows),
        "fitted_on": train,
        "calibrated_on": m,
        "calibrated_on_local_controls": calibration.are_local,
        "smallest_p": calibration.smallest_p,
        "unusual_at_q": {"q": FALSE_DISCOVERIES, "brains": unusual},
        "sentence": sentence,
        "columns": dict(SCORES.columns),
    }
