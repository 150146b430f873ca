"""Scores of healthy brains that the scores of others are compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.runs.leakage import refuse_leak
from foldnorm.pipeline.scoring.brain_scores import BrainScores
from foldnorm.pipeline.scoring.design import large_sites
from foldnorm.pipeline.scoring.fitted import State
from foldnorm.pipeline.scoring.map_scores import Map, ScoreTable
from foldnorm.pipeline.scoring.old_names import current_score
from foldnorm.pipeline.scoring.sulcus_scores import MIN_OF_SITE
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import UNKNOWN_CELLS, hashed

PSEUDONYM = 12  # hexadecimal digits


@dataclass(frozen=True)
class Calibration:
    """Healthy brains that scores are compared with.

    Attributes:
        scores: by name, (m,) each.
        peaks: (m, directions) largest z of each brain's map; none where there are no maps.
        rows: ``participant_id`` and ``hemi`` of each.
        sites: that they are of, where that is known; to compare sulci, `MIN_OF_SITE` of each.
        are_local: whether they are controls of the site, not validation brains.
    """

    scores: ScoreTable
    peaks: NDArray[np.float64]
    rows: Sequence[Mapping[str, str]]
    sites: tuple[str, ...]
    are_local: bool

    @classmethod
    def from_scores(
        cls, scores: BrainScores, reference: Cohort, controls: Cohort | None
    ) -> "Calibration":
        """Score the brains that are set aside for it.

        Raises:
            InputError: there are none, or controls are brains that the model was trained on.
        """
        calibrating = scores.calibration
        if not len(calibrating):
            raise InputError(f"no brains to calibrate with: {reference.folder}")
        rows = calibrating.rows
        if controls is not None and scores.trained is not None:
            _refuse_trained_on(rows, reference, controls)
        peaks: list[list[float]] = []

        def on_map(z: Map) -> None:
            peaks.append([float(own.max()) for own in z])

        found = scores.score(calibrating, on_map)
        least = MIN_OF_SITE if scores.named_sulci is not None else 1
        return cls(found, np.array(peaks), rows, large_sites(rows, least), controls is not None)

    @property
    def smallest_p(self) -> float:
        """Smallest p-value that can be reached, 1 / (m + 1)."""
        return 1 / (len(self.rows) + 1)

    def without_site(self, row: Mapping[str, str]) -> str:
        """Why a brain's site keeps it from being judged; empty where it does not, or none is known.

        Skeletons of two sites differ in ways that scores take for anomalies, so the p-value of a
        brain holds among brains of its own site.
        """
        site = row.get("site", "")
        if site in UNKNOWN_CELLS or not self.sites or site in self.sites:
            return ""
        return (
            f"is of site {site}, the calibration brains of {', '.join(self.sites)}: give "
            "--controls of its site, or --across-sites"
        )

    def state_dict(self, salt: str) -> State:
        """Return the scores, and the brains under salted hashes."""
        return {
            "scores": dict(self.scores),
            "peaks": self.peaks,
            "participants": [hashed(row["participant_id"], salt)[:PSEUDONYM] for row in self.rows],
            "hemis": [row["hemi"] for row in self.rows],
            "sites": list(self.sites),
            "are_local": self.are_local,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Calibration":
        """Take what `state_dict` gave."""
        rows = [
            {"participant_id": name, "hemi": hemi}
            for name, hemi in zip(state["participants"], state["hemis"], strict=True)
        ]
        sites = tuple(state["sites"])
        scores = {current_score(name): values for name, values in state["scores"].items()}
        return cls(scores, state["peaks"], rows, sites, state["are_local"])


def _refuse_trained_on(
    rows: Sequence[Mapping[str, str]], reference: Cohort, controls: Cohort
) -> None:
    split_of = {row["participant_id"]: row["split"] for row in reference.rows}
    names = [row["participant_id"] for row in rows]
    trained_on = [name for name in names if split_of.get(name) == "train"]
    refuse_leak(trained_on, "controls", controls.folder)
