"""Every fold of a size taken out of its brain, one at a time: does the brain's own score rise?

The paired part of the deletion benchmark, without a draw: where brains are few, their folds are
many. Also where evidence points, of a model that restores. Folds of one participant are not
independent, nor are those of relatives, so intervals are drawn over families.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import (
    EVERY_FOLD,
    EVERY_FOLD_PLACES,
    EVERY_FOLD_SUMMARY,
    LOCALISATION_FIGURES,
)
from foldnorm.pipeline.metrics.bootstrap import Weights, bootstrap_interval
from foldnorm.pipeline.metrics.detection import rises
from foldnorm.pipeline.scoring.brain_scores import BrainScores
from foldnorm.pipeline.scoring.localisation import localisation
from foldnorm.preprocessing.alteration.deletion import Deletion, SizeRange, apply_deletion
from foldnorm.preprocessing.cohort.cohort import Brain, Cohort, family_of, row_key
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.files import number, whole_number, write_tsv

BOOTSTRAPS = 1000
MIN_SHARE = 0.5  # of a fold that lies in the box; of less, hardly anything is taken out


@dataclass(frozen=True)
class FoldScores:
    """Scores of brains before and after each of their folds was taken out.

    Attributes:
        rows: a fold each: ``participant_id``, ``volume``, ``label``, ``name``, ``size`` (mm²),
            ``voxels`` that were erased; and, where there are maps, the columns of `localisation`.
        before: score name → (n,), of the whole brain.
        after: the same without the fold.
    """

    rows: list[dict[str, Any]]
    before: dict[str, NDArray[np.float64]]
    after: dict[str, NDArray[np.float64]]

    def filter_by_size(self, sizes: SizeRange) -> "FoldScores":
        """Return the scores of folds of a size."""
        kept = [n for n, row in enumerate(self.rows) if sizes.holds(row["size"])]
        return FoldScores(
            [self.rows[n] for n in kept],
            {name: values[kept] for name, values in self.before.items()},
            {name: values[kept] for name, values in self.after.items()},
        )

    def join(self, other: "FoldScores") -> "FoldScores":
        """Join the scores of two models that were each tested on other brains."""
        return FoldScores(
            self.rows + other.rows,
            {name: np.append(values, other.before[name]) for name, values in self.before.items()},
            {name: np.append(values, other.after[name]) for name, values in self.after.items()},
        )

    def summary(self, *, seed: int = 0) -> list[dict[str, Any]]:
        """Share of folds without which the score rises, by score, with its interval.

        Returns:
            Rows of ``score``, ``paired``, ``paired_low``, ``paired_high`` (95 %, bootstrap over
            participants), ``folds``, ``participants``.
        """
        families = [family_of(row) for row in self.rows]
        rows = []
        for name, after in self.after.items():
            risen = rises(after, self.before[name])
            low, high = bootstrap_interval(
                partial(_weighted_mean, risen), families, BOOTSTRAPS, seed=seed
            )
            rows.append(
                {
                    "score": name, "paired": float(risen.mean()), "paired_low": float(low),
                    "paired_high": float(high), "folds": len(self.rows),
                    "participants": len({row["participant_id"] for row in self.rows}),
                }
            )  # fmt: skip
        return rows

    def save(self, out: Path, *, seed: int = 0) -> None:
        """Write ``every_fold.tsv``, a row a fold and score, and ``every_fold_summary.tsv``.

        Of a model that restores, ``every_fold_places.tsv`` has a row a fold: where evidence points.

        Args:
            out: folder.
            seed: of the bootstrap of the summary.
        """
        if "hit" in self.rows[0]:
            write_tsv(out / EVERY_FOLD_PLACES, self.rows, tuple(EVERY_FOLD_PLACES.columns))
        known = [
            {k: v for k, v in row.items() if k not in LOCALISATION_FIGURES} for row in self.rows
        ]
        rows = [
            {**row, "score": name, "before": self.before[name][n], "after": after[n]}
            for name, after in self.after.items()
            for n, row in enumerate(known)
        ]
        write_tsv(out / EVERY_FOLD, rows, tuple(EVERY_FOLD.columns))
        summary = self.summary(seed=seed)
        write_tsv(out / EVERY_FOLD_SUMMARY, summary, tuple(EVERY_FOLD_SUMMARY.columns))


def leave_one_fold_out(
    scorer: BrainScores,
    cohort: Cohort,
    indices: Sequence[int] | NDArray[np.int64],
    sizes: SizeRange,
) -> FoldScores:
    """Score brains without each of their folds of a size, one at a time.

    Args:
        scorer: fitted on other brains.
        cohort: with fold labels.
        indices: volumes of it.
        sizes: of folds, mm² of sheet. At least half of a fold must lie in the cohort's box.

    Raises:
        InputError: the cohort has no fold labels, or no such fold.
    """
    if cohort.folds is None:
        raise InputError(f"a fold can be deleted only where there are fold labels: {cohort.folder}")
    by_volume = _eligible(cohort, sizes)
    plan = [(int(i), fold) for i in indices for fold in by_volume.get(row_key(cohort.rows[i]), [])]
    if not plan:
        raise InputError(f"no volume has a fold of size {sizes}: {cohort.folder}")
    folds, scheme = cohort.folds, cohort.scheme

    def without(index: int, fold: dict[str, Any]) -> NDArray[np.uint8]:
        deletion = Deletion("fold", fold["label"])
        volume = cohort.volumes[index]
        return apply_deletion(
            volume, deletion, scheme, folds=folds[index], has_hull=cohort.has_hull
        )

    def altered() -> Iterator[Brain]:
        for n, (index, fold) in enumerate(plan):
            volume = without(index, fold)
            erased[n] = int(np.count_nonzero(volume != cohort.volumes[index]))
            yield cohort.brain(index, volume)

    def on_map(z: NDArray[np.floating]) -> None:
        index, fold = plan[len(places)]
        threshold = scorer.map_scores[0].THRESHOLD
        places.append(localisation(cohort, index, without(index, fold), z[0], threshold))

    places: list[dict[str, Any]] = []
    erased: dict[int, int] = {}

    whole = sorted({index for index, _ in plan})
    place = {index: n for n, index in enumerate(whole)}
    at = [place[index] for index, _ in plan]
    healthy = scorer.score(cohort.brains(whole))
    before = {name: values[at] for name, values in healthy.items()}
    after = scorer.score(altered(), on_map)
    rows: list[dict[str, Any]] = [
        {
            "volume": row_key(cohort.rows[index]),
            "family": cohort.rows[index].get("family", ""),
            **fold,
            "voxels": erased[n],
        }
        for n, (index, fold) in enumerate(plan)
    ]
    for row, found in zip(rows, places, strict=False):  # none without evidence
        row.update(found)
    return FoldScores(rows, before, after)


def _eligible(cohort: Cohort, sizes: SizeRange) -> dict[str, list[dict[str, Any]]]:
    """Folds by volume."""
    face = float(np.prod(cohort.voxel_size)) ** (2 / 3)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in cohort.fold_table:
        size, voxels = number(row, "size"), whole_number(row, "voxels")
        if sizes.holds(size) and voxels * face >= MIN_SHARE * size:
            fold = {
                "participant_id": row["participant_id"], "label": whole_number(row, "label"),
                "name": row["name"], "size": size, "voxels": voxels,
            }  # fmt: skip
            found.setdefault(row_key(row), []).append(fold)
    return found


def _weighted_mean(values: NDArray[np.float64], weights: Weights) -> float:
    return float(weights @ values / weights.sum())
