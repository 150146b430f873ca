"""One p-value out of those of several scores, such as missing folds and missing names.

P-values of the same brains are not independent, so what joins them has no known distribution: the
joined figure is calibrated once more on the same healthy brains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import (
    BRAIN,
    CALIBRATION,
    FUSED,
    FUSED_SIDECAR,
    SCORES,
    SCORES_SIDECAR,
    USUAL_SCORES,
)
from foldnorm.pipeline.scoring.latent_distance import conformal_p
from foldnorm.pipeline.scoring.score_cohort import discovery_rates
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import number, read_json, read_tsv, write_json, write_tsv

Method = Literal["fisher", "harmonic"]
MIN_CALIBRATION = 8  # calibration brains
Key = tuple[str, ...]


@dataclass(frozen=True)
class FusedScores:
    """Scores of the same brains, joined.

    Attributes:
        table: a row a brain: the p-values that were joined, ``p_fused`` and ``q_fused``; of brains
            that can be judged.
        folders: name of each score → the folder that it is from; of a score that several folders
            have, the name is ``score@folder``.
        method: of joining.
        calibrated_on: number of healthy brains.
        is_phantom: whether any of them was drawn.
    """

    table: list[dict[str, Any]]
    folders: dict[str, Path]
    method: Method
    calibrated_on: int
    is_phantom: bool

    def save(self, out: Path) -> None:
        """Write ``fused.tsv`` and ``fused.json``."""
        columns = [*BRAIN, *(f"p_{name}" for name in self.folders), "p_fused", "q_fused"]
        write_tsv(out / FUSED, self.table, columns)
        write_json(
            out / FUSED_SIDECAR,
            {
                "scores": {name: str(folder) for name, folder in self.folders.items()},
                "method": self.method,
                "phantom": self.is_phantom,
                "calibrated_on": self.calibrated_on,
                "smallest_p": 1 / (self.calibrated_on + 1),
                "note": "brains that took part in training or calibration, or have a flag, have no "
                "p",
            },
        )


def fuse(
    folders: Sequence[Path], names: Sequence[str] = (), method: Method = "fisher"
) -> FusedScores:
    """Join scores of the same brains.

    Args:
        folders: that `score` has written.
        names: of the scores, each of all folders that have it, such as runs at two resolutions;
            where none is given, one of each folder (`USUAL_SCORES`).
        method: ``fisher``, the sum of −log p (Fisher 1925), or ``harmonic``, the harmonic mean of p
            (Wilson 2019, doi:10.1073/pnas.1814092116).

    Raises:
        InputError: a score is nowhere, or too few brains are in all of the folders.
    """
    chosen = _chosen(folders, names)
    calibration = [_table(folder / CALIBRATION) for folder, _ in chosen]
    brains = [_table(folder / SCORES, ("used_for", "flag")) for folder, _ in chosen]
    scores = [name for _, name in chosen]
    healthy, asked = _in_all(calibration, scores), _in_all(brains, scores)
    if len(healthy) < MIN_CALIBRATION:
        raise InputError(
            f"expected at least {MIN_CALIBRATION} brains that calibrate every score, got "
            f"{len(healthy)}: "
            f"{', '.join(map(str, folders))}"
        )
    own_p, their_p = [], []
    for (_, name), of_healthy, of_asked in zip(chosen, calibration, brains, strict=True):
        values = _values(of_healthy, healthy, name)
        own_p.append(_rank_p(values))
        their_p.append(conformal_p(_values(of_asked, asked, name), values))
    joined = conformal_p(_join(np.array(their_p), method), _join(np.array(own_p), method))
    judged = [
        not any(table[key]["used_for"] or table[key]["flag"] for table in brains) for key in asked
    ]
    labels = _labels(chosen)
    return FusedScores(
        table=_rows(asked, judged, labels, their_p, joined),
        folders={label: folder for label, (folder, _) in zip(labels, chosen, strict=True)},
        method=method,
        calibrated_on=len(healthy),
        is_phantom=any(read_json(folder / SCORES_SIDECAR)["phantom"] for folder in folders),
    )


def _rows(
    keys: Sequence[Key],
    judged: Sequence[bool],
    names: Sequence[str],
    p: Sequence[NDArray[np.float64]],
    joined: NDArray[np.float64],
) -> list[dict[str, Any]]:
    """Make the row of each brain; one that cannot be judged has no p-values."""
    q = discovery_rates(joined, judged)
    rows = []
    for n, key in enumerate(keys):
        row: dict[str, Any] = dict(zip(BRAIN, key, strict=True))
        if judged[n]:
            row |= {f"p_{name}": float(own[n]) for name, own in zip(names, p, strict=True)}
            row |= {"p_fused": float(joined[n]), "q_fused": float(q[n])}
        rows.append(row)
    return rows


def _chosen(folders: Sequence[Path], names: Sequence[str]) -> list[tuple[Path, str]]:
    """Folder and name of each score that is joined."""
    held = {}
    for folder in folders:
        if not (folder / CALIBRATION).is_file() or not (folder / SCORES).is_file():
            raise InputError(f"not a folder of scores (no {SCORES} and {CALIBRATION}): {folder}")
        rows = read_tsv(folder / CALIBRATION)
        columns = rows[0] if rows else {}
        held[folder] = [c.removeprefix("score_") for c in columns if c.startswith("score_")]
    if not names:
        found = [(f, next((n for n in USUAL_SCORES if n in own), "")) for f, own in held.items()]
        lacking = [str(folder) for folder, name in found if not name]
        if lacking:
            raise InputError(f"say which --scores to join: {', '.join(lacking)}")
        return found
    chosen = []
    for name in names:
        having = [folder for folder, own in held.items() if name in own]
        if not having:
            known = sorted({score for own in held.values() for score in own})
            raise InputError(
                f"--scores: {name} is in none of the folders; there are {', '.join(known)}"
            )
        chosen += [(folder, name) for folder in having]
    return chosen


def _labels(chosen: Sequence[tuple[Path, str]]) -> list[str]:
    """Name each score: with its folder, where another has a score of that name."""
    labels = []
    for folder, name in chosen:
        same = [other.name for other, own in chosen if own == name]
        whose = folder.name if same.count(folder.name) == 1 else str(folder)
        labels.append(name if len(same) == 1 else f"{name}@{whose}")
    return labels


def _table(path: Path, needed: Sequence[str] = ()) -> dict[Key, dict[str, str]]:
    """Read a table by brain; its scores are numbers, and it has the columns that are needed."""
    rows = read_tsv(path)
    for row in rows:
        _ = [row[name] for name in needed]
        _ = [number(row, name) for name, cell in row.items() if name.startswith("score_") and cell]
    return {tuple(row[key] for key in BRAIN): row for row in rows}


def _in_all(tables: Sequence[dict[Key, dict[str, str]]], names: Sequence[str]) -> list[Key]:
    """Brains that every table has a score of."""
    return [
        key
        for key in tables[0]
        if all(
            table.get(key, {}).get(f"score_{name}")
            for table, name in zip(tables, names, strict=True)
        )
    ]


def _values(
    table: dict[Key, dict[str, str]], keys: Sequence[Key], name: str
) -> NDArray[np.float64]:
    return np.array([number(table[key], f"score_{name}") for key in keys])


def _rank_p(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """P-value of each calibration brain among the others, 1 added above and below."""
    above = len(values) - np.searchsorted(np.sort(values), values, side="left")
    return above / len(values)  # it counts itself


def _join(p: NDArray[np.float64], method: Method) -> NDArray[np.float64]:
    """Join (K, N) p-values into scores (N,), high where these are low."""
    if method == "fisher":
        return -np.log(p).sum(axis=0)
    return -len(p) / (1 / p).sum(axis=0)
