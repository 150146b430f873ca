"""Scores of participants both of whose hemispheres were scored: the more unusual one speaks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.scoring.calibration import Calibration
from foldnorm.pipeline.scoring.map_scores import ScoreTable

SIDES = ("L", "R")
Row = Mapping[str, Any]


def join_both_sides(
    rows: Sequence[Row], scores: ScoreTable, calibration: Calibration
) -> tuple[list[dict[str, Any]], ScoreTable, Calibration]:
    """One score a participant, the higher of the two sides'; others are left out.

    What a fold that is missing on one side does to a brain is seen in the larger score, not in
    their mean. Of two sides the larger is larger than one by chance as well, so it is compared with
    the larger of healthy participants: no further correction for two sides is needed.

    Args:
        rows: of hemispheres, with ``flag`` and ``used_for``.
        scores: by name, (N,) each.
        calibration: healthy hemispheres.

    Returns:
        Rows of participants, with ``side_…`` of each score; scores, (n,) each; and healthy
        participants both of whose sides were scored.
    """
    left, right = _pairs(rows)
    joined = {name: np.maximum(own[left], own[right]) for name, own in scores.items()}
    brains = []
    for n, (one, other) in enumerate(zip(left, right, strict=True)):
        both = rows[one], rows[other]
        flags = [f"{row['hemi']} {row['flag']}" for row in both if row["flag"]]
        brains.append(
            {
                "participant_id": rows[one]["participant_id"],
                "used_for": next((row["used_for"] for row in both if row["used_for"]), ""),
                "flag": "; ".join(flags),
                **{
                    f"side_{name}": SIDES[int(own[other] > own[one])]
                    for name, own in scores.items()
                    if not np.isnan(joined[name][n])
                },
            }
        )
    left, right = _pairs(calibration.rows)
    healthy = replace(
        calibration,
        scores={n: np.maximum(own[left], own[right]) for n, own in calibration.scores.items()},
        rows=[calibration.rows[n] for n in left],
    )
    return brains, joined, healthy


def _pairs(rows: Sequence[Row]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Left and right hemisphere of each participant that has both, as indices."""
    places = {(row["participant_id"], row["hemi"]): n for n, row in enumerate(rows)}
    names = dict.fromkeys(row["participant_id"] for row in rows)
    found = [
        [places[name, side] for side in SIDES]
        for name in names
        if all((name, side) in places for side in SIDES)
    ]
    left, right = np.array(found, dtype=np.intp).reshape(-1, 2).T
    return left, right
