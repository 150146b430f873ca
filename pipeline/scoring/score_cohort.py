"""Scores of the brains of a cohort: ``scores.tsv`` with a p-value for each score."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from foldnorm.pipeline.artifacts import (
    BOTH_SIDES,
    BRAIN,
    CALIBRATION,
    MISSING_SULCUS,
    SCORES,
    SCORES_SIDECAR,
    SULCUS_SCORES,
)
from foldnorm.pipeline.scoring.both_sides import join_both_sides
from foldnorm.pipeline.scoring.calibration import Calibration
from foldnorm.pipeline.scoring.evidence_maps import EvidenceMaps, MapWriter, remove_map_tables
from foldnorm.pipeline.scoring.latent_distance import conformal_p
from foldnorm.pipeline.scoring.map_scores import Map, ScoreTable
from foldnorm.pipeline.scoring.out_of_distribution import MIN_TRAINING
from foldnorm.preprocessing.core.counts import counted
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import write_json, write_tsv
from foldnorm.preprocessing.core.locks import held
from foldnorm.preprocessing.core.problems import Problem

FALSE_DISCOVERIES = 0.05  # share of the brains called unusual that may be healthy
MIN_CONTROLS = 19  # for a p-value of 0.05
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class ScoreResult:
    """Scores of the brains of a cohort, with p-values.

    A brain that the weights were fitted to, or that calibrates the p-values, gets scores but no
    p-value: its own is not one. Nor does a brain with a flag, which cannot be judged.

    Attributes:
        table: a row a brain, of `BRAIN`, ``used_for``, ``flag``, ``warning``, and, of each score,
            ``score_…`` and, where the brain has them, ``p_…`` and ``q_…``.
        names: of the scores.
        calibration: brains that the p-values are counted in.
        about: how scores were made; more of ``scores.json``.
        fitted_on: number of healthy brains that scores were fitted on.
        evidence: maps, where there are any.
        failed: brains that could not be scored, and why.
        sulci: rows of ``sulcus_scores.tsv``, where an atlas names them.
    """

    table: Rows
    names: tuple[str, ...]
    calibration: Calibration
    about: Mapping[str, Any]
    fitted_on: int
    evidence: EvidenceMaps | None
    failed: Sequence[Problem] = ()
    sulci: Rows = field(default_factory=list)

    @property
    def problems(self) -> list[Problem]:
        """Brains that could not be scored, and those that cannot be judged."""
        unjudged = [
            Problem(f"{row['participant_id']} {row['hemi']}".strip(), f"{row['flag']}; no p-value")
            for row in self.table
            if row["flag"]
        ]
        return [*self.failed, *unjudged]

    @property
    def both_sides(self) -> Rows:
        """Table of the participants both of whose hemispheres were scored; see `join_both_sides`.

        Empty if no calibration participant has both.
        """
        return self._both_sides[0]

    @cached_property
    def _both_sides(self) -> tuple[Rows, int]:
        """Rows of participants, and the number of healthy ones that they are compared with."""
        scores = {n: np.array([row[f"score_{n}"] for row in self.table]) for n in self.names}
        rows, joined, healthy = join_both_sides(self.table, scores, self.calibration)
        if not rows or not healthy.rows:
            return [], len(healthy.rows)
        add_p_values(rows, joined, healthy)
        return rows, len(healthy.rows)

    def maps(self) -> Iterator[Map]:
        """Map of each brain in standard deviations of healthy ones, (directions, I, J, K) float32.

        They are made anew, one at a time: they are too large to be kept. `Scorer.score` hands each
        to ``on_map`` when it makes it for the score.

        Raises:
            InputError: there are too few healthy brains for maps.
        """
        if self.evidence is None:
            raise InputError("there are no maps: they need at least 8 healthy brains")
        yield from self.evidence

    def save(self, out: Path, *, maps: bool = False) -> None:
        """Write ``scores.tsv``, ``calibration.tsv`` and ``scores.json``.

        And ``both_sides.tsv``, if there is anything to say there.

        Args:
            out: folder.
            maps: write maps, ``regions.tsv`` and what pages need as well; see `MapWriter`.
        """
        columns = [*BRAIN, "used_for", "flag", "warning"]
        columns += [MISSING_SULCUS] if self.sulci else []
        columns += [f"{what}_{name}" for what in ("score", "p", "q") for name in self.names]
        with held(out):
            remove_map_tables(out)
            write_tsv(out / SCORES, self.table, columns)
            self._save_calibration(out)
            self._save_both_sides(out)
            (out / SULCUS_SCORES).unlink(missing_ok=True)  # of earlier scores
            if self.sulci:
                write_tsv(out / SULCUS_SCORES, self.sulci, tuple(SULCUS_SCORES.columns))
            write_json(out / SCORES_SIDECAR, self.sidecar)
            if maps:
                found = self.maps()
                assert self.evidence is not None
                writer = MapWriter(self.evidence, out)
                for index, z in zip(self.evidence.indices, found, strict=True):
                    writer.add(index, z)
                writer.close()

    def _save_both_sides(self, out: Path) -> None:
        (out / BOTH_SIDES).unlink(missing_ok=True)  # of earlier scores
        if self.both_sides:
            columns = ["participant_id", "used_for", "flag"]
            columns += [f"{w}_{name}" for w in ("score", "side", "p", "q") for name in self.names]
            write_tsv(out / BOTH_SIDES, self.both_sides, columns)

    def _save_calibration(self, out: Path) -> None:
        """Write the scores behind the p-values, so that p-values of several runs can be joined."""
        scores = self.calibration.scores
        rows = [
            {
                **{key: row[key] for key in BRAIN},
                **{f"score_{name}": float(scores[name][n]) for name in self.names},
            }
            for n, row in enumerate(self.calibration.rows)
        ]
        write_tsv(out / CALIBRATION, rows, [*BRAIN, *(f"score_{name}" for name in self.names)])

    @property
    def sidecar(self) -> dict[str, Any]:
        """Content of ``scores.json``."""
        return {
            **self.about,
            "brains": len(self.table),
            "failed": len(self.failed),
            "flagged": sum(bool(row["flag"]) for row in self.table),
            "warned": sum(bool(row["warning"]) for row in self.table),
            "fitted_on": self.fitted_on,
            "calibrated_on": len(self.calibration.rows),
            "both_sides_calibrated_on": self._both_sides[1],
            "calibrated_on_local_controls": self.calibration.are_local,
            "smallest_p": self.calibration.smallest_p,
            "unusual_at_q": {"q": FALSE_DISCOVERIES, "brains": self._unusual()},
            "sentence": self.sentence,
            "columns": dict(SCORES.columns),
        }

    @property
    def sentence(self) -> str:
        """Sentences on how p-values were computed, and on the smallest that is possible."""
        m, smallest = len(self.calibration.rows), self.calibration.smallest_p
        judged = sum(not row["flag"] and not row["used_for"] for row in self.table)
        whose = "others"
        if self.about["precision"] is None:  # no model: what is compared with calibrates as well
            whose = "of them, each compared with those of other families"
        if self.calibration.are_local:
            whose = "local controls"
        sentence = (
            f"Scores were fitted on {counted(self.fitted_on, 'healthy brain')} and turned into "
            f"conformal p-values with {m} {whose}; no p-value can be below {smallest:.3g}. "
            f"q-values are p-values corrected for the {counted(judged, 'brain')} with one "
            "(Benjamini–Hochberg), not for the number of scores."
        )
        if m < MIN_CONTROLS:
            sentence += (
                f" {counted(m, 'brain')} cannot give a p-value below 0.05: that takes "
                f"{MIN_CONTROLS}."
            )
        elif judged and smallest * judged > FALSE_DISCOVERIES:
            alone = int(np.ceil(judged / FALSE_DISCOVERIES)) - 1
            sentence += (
                f" A brain that is alone in being unusual cannot reach q = {FALSE_DISCOVERIES:g}: "
                f"that would take {counted(alone, 'calibration brain')}."
            )
        if not self.about["knows_unlike_brains"]:
            sentence += (
                f" Fewer than {MIN_TRAINING} of them are of the training split: it is not known "
                "which brains cannot be judged (cut off, shifted, of another population): their "
                "p-values mean nothing."
            )
        return sentence

    def _unusual(self) -> dict[str, int]:
        """Brains whose q is at most `FALSE_DISCOVERIES`, by score."""
        return {
            name: sum(row.get(f"q_{name}", 1) <= FALSE_DISCOVERIES for row in self.table)
            for name in self.names
        }


def is_judged(row: Mapping[str, Any]) -> bool:
    """Say if a brain gets p-values: it has no flag, and took part in nothing."""
    return not row["flag"] and not row["used_for"]


def add_p_values(rows: Rows, scores: ScoreTable, calibration: Calibration) -> None:
    """Add scores to the rows of brains, and p and q to those that have neither flag nor role.

    Args:
        rows: with ``flag`` and ``used_for``.
        scores: by name, (N,) each.
        calibration: that p-values are counted in.
    """
    judged = np.array([is_judged(row) for row in rows], dtype=np.bool_)
    for name, values in scores.items():
        p = conformal_p(values, calibration.scores[name])
        q = discovery_rates(p, judged)
        for row, score, own_p, own_q, kept in zip(rows, values, p, q, judged, strict=True):
            row[f"score_{name}"] = float(score)
            if kept:
                row[f"p_{name}"], row[f"q_{name}"] = float(own_p), float(own_q)


def discovery_rates(
    p: NDArray[np.float64], judged: Sequence[bool] | NDArray[np.bool_]
) -> NDArray[np.float64]:
    """P-values corrected for the number of brains (Benjamini–Hochberg); NaN for others, (N,)."""
    kept = np.asarray(judged, dtype=np.bool_) & ~np.isnan(p)
    q = np.full(len(p), np.nan)
    if kept.any():
        q[kept] = false_discovery_control(p[kept])
    return q
