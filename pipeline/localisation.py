"""Where evidence points, against where something was deleted."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.evidence_maps import regions
from foldnorm.pipeline.evidence_scores import LEAST_Z, EvidenceScores
from foldnorm.preprocessing.alteration import alter
from foldnorm.preprocessing.cohort import Brain, Cohort, row_key
from foldnorm.preprocessing.deletion import SizeRange

COLUMNS = ("size", "volume", "name", "mm2", "hit", "rank", "dice", "error_mm")


def localise(
    scores: EvidenceScores,
    cohort: Cohort,
    indices: Sequence[int] | NDArray[np.int64],
    size: SizeRange,
    *,
    kind: str,
    seed: int,
) -> list[dict[str, Any]]:
    """How well the strongest region of each altered brain meets what was deleted from it.

    Args:
        scores: fitted.
        cohort: healthy volumes.
        indices: which of them.
        size: of the deletions.
        kind: of deletion, one that only takes away.
        seed: of the draws.

    Returns:
        A row a brain: ``hit``, 1 if the strongest region holds a deleted voxel; ``rank`` of the
        first region that does, 0 if none of those listed does; ``dice`` of all voxels that reach
        `LEAST_Z` and the deleted ones; ``error_mm`` from the middle of the strongest region to that
        of the deletion, NaN without a region.
    """
    found: list[dict[str, Any]] = []
    waiting: list[tuple[Any, NDArray[np.bool_]]] = []

    def altered() -> Iterator[Brain]:
        for a in alter(cohort, indices, size, kind=kind, seed=seed):
            healthy = np.asarray(cohort.volumes[a.index])
            waiting.append((a, (healthy > cohort.scheme.void) & (a.volume <= cohort.scheme.void)))
            yield Brain(a.volume, cohort.rows[a.index])

    for maps in scores.maps(altered):
        a, deleted = waiting.pop(0)
        found.append(
            {
                "size": str(size),
                "volume": row_key(cohort.rows[a.index]),
                "name": a.deletion.name,
                "mm2": a.deletion.size,
                **_meeting(maps[0], deleted, cohort),
            }
        )
    return found


def _meeting(
    z: NDArray[np.floating], deleted: NDArray[np.bool_], cohort: Cohort
) -> dict[str, float]:
    strongest = regions(z, cohort.affine)
    hits = [bool(deleted[tuple(region["voxels"].T)].any()) for region in strongest]
    error = float("nan")
    if strongest:
        middle = np.append(np.argwhere(deleted).mean(axis=0), 1)
        apart = (cohort.affine @ middle)[:3] - [strongest[0][axis] for axis in "xyz"]
        error = float(np.linalg.norm(apart))
    both = (z >= LEAST_Z) & deleted
    return {
        "hit": int(bool(hits) and hits[0]),
        "rank": hits.index(True) + 1 if any(hits) else 0,
        "dice": float(2 * both.sum() / ((z >= LEAST_Z).sum() + deleted.sum())),
        "error_mm": error,
    }
