"""Files for pages about single brains, computed here because they need the healthy brains."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import PAGE_ARRAYS, PAGES_SIDECAR
from foldnorm.pipeline.report.page_files import (
    AXES,
    PageArrays,
    planes_at,
)
from foldnorm.pipeline.scoring.healthy_folds import HealthyFolds
from foldnorm.pipeline.scoring.map_scores import Map, MapScores
from foldnorm.preprocessing.cohort.cohort import Cohort, family_of, row_key
from foldnorm.preprocessing.core.files import write_json

MISSING = 0  # the first direction of all `MapScores`


class PageWriter:
    """Writer of the files of pages, one brain at a time.

    Args:
        scores: fitted.
        folds: of the healthy brains that each brain is shown beside.
        cohort: of the brains.
        method: the run, or how else brains were scored.
        out: folder of the scores.
    """

    def __init__(
        self, scores: MapScores, folds: HealthyFolds, cohort: Cohort, method: str, out: Path
    ) -> None:
        self.scores, self.folds = scores, folds
        self.cohort, self.method, self.out = cohort, method, out
        self.brains: dict[str, dict[str, Any]] = {}

    def add(self, index: int, z: Map, regions: Sequence[NDArray[np.int64]]) -> None:
        """Write the arrays of one brain.

        Args:
            index: in the cohort.
            z: (I, J, K), towards fewer folds.
            regions: (n, 3) voxels of each, the strongest first.
        """
        row = self.cohort.rows[index]
        strongest = tuple(regions[0].T)
        i, j, k = regions[0][int(z[strongest].argmax())].tolist()
        at, peak = (i, j, k), float(z.max())
        counts, number = self.folds.without(family_of(row))
        expected, spread = (own[MISSING] for own in self.scores.healthy_statistics(row))
        shown = self.folds.beside(row)
        share = np.rint(255 * counts / number).astype(np.uint8)
        volume = self.cohort.volumes[index]
        arrays = PageArrays(
            volume=volume,
            z=np.rint(255 * np.clip(z / peak, 0, 1)).astype(np.uint8),
            regions=_ranks(z.shape, regions),
            **_planes(at, share, expected, np.array([b.volume for b in shown] or volume[None][:0])),
        )
        arrays.write(self.out / PAGE_ARRAYS.of(brain=row_key(row)))
        self.brains[row_key(row)] = {
            "participant_id": row["participant_id"],
            "hemi": row["hemi"],
            "site": row.get("site", ""),
            "peak": list(at),
            "largest_z": peak,
            "value": float(expected[at] + z[at] * spread[at]),
            "expected": float(expected[at]),
            "share_with_fold": float(counts[at] / number),
            "compared_with": number,
            "healthy": [
                {"key": row_key(brain.row), "site": brain.row.get("site", "")} for brain in shown
            ],
        }

    def close(self) -> None:
        """Write ``pages.json``."""
        scores, cohort = self.scores, self.cohort
        scheme = cohort.scheme
        write_json(
            self.out / PAGES_SIDECAR,
            {
                "method": self.method,
                "date": date.today().isoformat(),
                "score": f"{scores.PREFIX[scores.directions[MISSING]]}_component",
                "threshold": scores.THRESHOLD,
                "quantity": scores.QUANTITY,
                "unit": scores.UNIT,
                "healthy_hemispheres": self.folds.hemispheres_,
                "healthy_people": self.folds.people_,
                "healthy_sites": self.folds.sites_,
                "classes": list(scheme.names),
                "fill": scheme.fill,
                "void": scheme.void,
                "affine": cohort.affine.tolist(),
                "space": cohort.preparation["space"],
                "mirror_right": bool(cohort.preparation["mirror_right"]),
                "brains": self.brains,
            },
        )


def _ranks(shape: tuple[int, ...], regions: Sequence[NDArray[np.int64]]) -> NDArray[np.uint8]:
    """Rank of each voxel's region, 0 for none."""
    ranks = np.zeros(shape, dtype=np.uint8)
    for rank, voxels in enumerate(regions, start=1):
        ranks[tuple(voxels.T)] = rank
    return ranks


def _planes(
    at: tuple[int, int, int],
    share: NDArray[np.uint8],
    expected: Map,
    beside: NDArray[np.uint8],
) -> dict[str, NDArray[Any]]:
    """Planes through a place, by the names of `PageArrays`; ``beside`` is (n, I, J, K)."""
    i, j, k = at
    found: dict[str, NDArray[Any]] = {}
    for n, axis in enumerate(AXES):
        found[f"share_{axis}"] = planes_at(share, at)[n]
        found[f"expected_{axis}"] = planes_at(expected, at)[n].astype(np.float16)
    healthy = (beside[:, i], beside[:, :, j], beside[:, :, :, k])
    return found | {f"healthy_{axis}": own for axis, own in zip(AXES, healthy, strict=True)}
