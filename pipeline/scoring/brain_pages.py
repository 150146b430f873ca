"""What a page about one brain needs and the report cannot compute without the healthy brains."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import PAGE_ARRAYS, PAGES_SIDECAR
from foldnorm.pipeline.scoring.map_scores import Map, MapScores
from foldnorm.pipeline.scoring.page_files import (
    AXES,
    PageArrays,
    planes_at,
)
from foldnorm.preprocessing.cohort import Cohort, CohortView, family_of, row_key
from foldnorm.preprocessing.files import write_json

N_HEALTHY = 5  # healthy brains shown beside each
MISSING = 0  # the first direction of all `MapScores`
UNKNOWN = {"", "n/a"}  # values of a column that say nothing


class PageWriter:
    """Writer of the files of pages, one brain at a time.

    Args:
        scores: fitted; its healthy brains are those that each brain is shown beside.
        cohort: of the brains.
        method: the run, or how else brains were scored.
        out: folder of the scores.
    """

    def __init__(self, scores: MapScores, cohort: Cohort, method: str, out: Path) -> None:
        self.scores, self.cohort, self.method, self.out = scores, cohort, method, out
        healthy = scores.healthy
        self.rows = healthy.rows if isinstance(healthy, CohortView) else [b.row for b in healthy]
        self.brains: dict[str, dict[str, Any]] = {}
        self._counts = np.zeros(cohort.shape, dtype=np.int64)
        for brain in healthy:
            self._counts += cohort.scheme.foreground(brain.volume)

    def add(self, index: int, z: Map, regions: Sequence[NDArray[np.int64]]) -> None:
        """Write the arrays of one brain.

        Args:
            index: in the cohort.
            z: (I, J, K), towards fewer folds.
            regions: (n, 3) voxels of each, the strongest first.
        """
        row = self.cohort.rows[index]
        family, strongest = family_of(row), tuple(regions[0].T)
        i, j, k = regions[0][int(z[strongest].argmax())].tolist()
        at, peak = (i, j, k), float(z.max())
        others = [n for n, owner in enumerate(self.scores.families) if owner != family]
        counts = self._counts.copy()
        for n in set(range(len(self.rows))).difference(others):
            counts -= self.cohort.scheme.foreground(self.scores.healthy[n].volume)
        expected, spread = (own[MISSING] for own in self.scores.healthy_statistics(row))
        shown = self._beside(row["hemi"], others)
        ranks = np.zeros(z.shape, dtype=np.uint8)
        for rank, voxels in enumerate(regions, start=1):
            ranks[tuple(voxels.T)] = rank
        share = np.rint(255 * counts / len(others)).astype(np.uint8)
        beside = [planes_at(self.scores.healthy[n].volume, at) for n in shown]
        planes: dict[str, Any] = {}
        for n, axis in enumerate(AXES):
            planes[f"share_{axis}"] = planes_at(share, at)[n]
            planes[f"expected_{axis}"] = planes_at(expected, at)[n].astype(np.float16)
            planes[f"healthy_{axis}"] = np.stack([own[n] for own in beside])
        arrays = PageArrays(
            volume=np.array(self.cohort.volumes[index]),
            z=np.rint(255 * np.clip(z / peak, 0, 1)).astype(np.uint8),
            regions=ranks,
            **planes,
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
            "share_with_fold": float(counts[at] / len(others)),
            "compared_with": len(others),
            "healthy": [
                {"key": row_key(self.rows[n]), "site": self.rows[n].get("site", "")} for n in shown
            ],
        }

    def close(self) -> None:
        """Write ``pages.json``."""
        scores, cohort = self.scores, self.cohort
        sites = {row.get("site", "") for row in self.rows} - UNKNOWN
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
                "healthy_hemispheres": len(self.rows),
                "healthy_people": len({row["participant_id"] for row in self.rows}),
                "healthy_sites": sorted(sites),
                "classes": list(scheme.names),
                "fill": scheme.fill,
                "void": scheme.void,
                "affine": cohort.affine.tolist(),
                "space": cohort.preparation["space"],
                "mirror_right": bool(cohort.preparation["mirror_right"]),
                "brains": self.brains,
            },
        )

    def _beside(self, hemi: str, others: Sequence[int]) -> list[int]:
        """Healthy brains to show: each of another person, of the same side if that will do."""
        for candidates in ([n for n in others if self.rows[n]["hemi"] == hemi], others):
            people = list({self.rows[n]["participant_id"]: n for n in candidates}.values())
            if len(people) >= N_HEALTHY:
                break
        count = min(N_HEALTHY, len(people))
        places = np.linspace(0, len(people) - 1, count).round().astype(int)
        return [people[place] for place in places]
