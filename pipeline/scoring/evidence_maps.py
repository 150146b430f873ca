"""Maps of where a brain departs from healthy ones, and the regions where it does most."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import PAGES_SIDECAR, REGIONS, REGIONS_SIDECAR, SCORE_MAP
from foldnorm.pipeline.data.sulcus_labels import NamesPlaces
from foldnorm.pipeline.scoring.brain_pages import PageWriter
from foldnorm.pipeline.scoring.calibration import Calibration
from foldnorm.pipeline.scoring.healthy_folds import HealthyFolds
from foldnorm.pipeline.scoring.latent_distance import conformal_p
from foldnorm.pipeline.scoring.map_scores import Map, MapScores
from foldnorm.pipeline.scoring.regions import strongest_regions
from foldnorm.preprocessing.cohort.cohort import Cohort, row_key
from foldnorm.preprocessing.cohort.input_space import InputSpace
from foldnorm.preprocessing.core.files import write_json, write_tsv
from foldnorm.preprocessing.io.volumes import write_map


@dataclass(frozen=True)
class EvidenceMaps:
    """Maps of the brains of a cohort, and what is needed to write them.

    Attributes:
        scores: fitted, that the maps are of.
        calibration: that the p-values are counted in.
        folds: gives the folds of the healthy brains; asked for when maps are written.
        sulci: gives the names of places; likewise.
        cohort: the brains.
        indices: which of them.
        judged: whether each gets p-values.
        method: the run, or how else they were scored.
    """

    scores: MapScores
    calibration: Calibration
    folds: Callable[[], HealthyFolds]
    sulci: Callable[[], NamesPlaces]
    cohort: Cohort
    indices: Sequence[int]
    judged: Sequence[bool]
    method: str

    def __iter__(self) -> Iterator[Map]:
        """Map of each brain in standard deviations of healthy brains, (directions, I, J, K)."""
        return self.scores.maps(self.cohort.brains(self.indices))

    def masses(self, direction: str) -> NDArray[np.float64]:
        """Largest mass of each calibration brain, (m,)."""
        return self.calibration.scores[f"{self.scores.PREFIX[direction]}_component"]


def remove_map_tables(out: Path) -> None:
    """Remove the tables of maps of earlier scores."""
    for stale in (REGIONS, REGIONS_SIDECAR, PAGES_SIDECAR):
        (out / stale).unlink(missing_ok=True)


class MapWriter:
    """Writer of maps, one brain at a time, and of ``regions.tsv``: where each departs most.

    ``…_desc-missing_z.nii.gz`` (and ``unexpected``) is the map in standard deviations of healthy
    brains, ``…_p.nii.gz`` the share of calibration brains that reach as much anywhere, of brains
    that get p-values. They lie in
    the grid of the brain's input where that is still there, else in that of the cohort;
    ``regions.json`` says which. Beside them what a page about the brain needs, see `PageWriter`.

    Args:
        maps: of which brains, and what they are compared with.
        out: folder.

    Attributes:
        inputs: ``sub-…_hemi-…`` → the file in whose grid its maps lie, or None.
    """

    def __init__(self, maps: EvidenceMaps, out: Path) -> None:
        self.maps, self.out, self.sulci = maps, out, maps.sulci()
        self.pages = PageWriter(maps.scores, maps.folds(), maps.cohort, maps.method, out)
        self.rows: list[dict[str, Any]] = []
        self.inputs: dict[str, str | None] = {}
        self._judged = dict(zip(maps.indices, maps.judged, strict=True))

    def add(self, index: int, z: Map) -> None:
        """Write the maps of a brain.

        Args:
            index: in the cohort.
            z: (directions, I, J, K) float32.
        """
        judged, cohort = self._judged[index], self.maps.cohort
        row = cohort.rows[index]
        space, threshold = InputSpace.from_row(cohort, row), self.maps.scores.THRESHOLD
        self.inputs[row_key(row)] = None if space.path is None else str(space.path)
        for n, (direction, own) in enumerate(zip(self.maps.scores.directions, z, strict=True)):
            peaks = self.maps.calibration.peaks[:, n] if judged else None
            self._write(row, direction, own, peaks, space)
            found = strongest_regions(own, space.to_world, threshold, space.to_mni)
            if direction == "missing" and found:
                self.pages.add(index, own, [region["voxels"] for region in found])
            self._add_regions(row, direction, found, judged=judged)

    def close(self) -> None:
        """Write what is of all brains: ``regions.tsv``, ``regions.json`` and ``pages.json``."""
        self.pages.close()
        write_tsv(self.out / REGIONS, self.rows, tuple(REGIONS.columns))
        about = {"columns": dict(REGIONS.columns), "maps_in_grid_of": self.inputs}
        write_json(self.out / REGIONS_SIDECAR, about)

    def _write(
        self,
        row: Mapping[str, str],
        direction: str,
        z: Map,
        peaks: NDArray[np.float64] | None,
        space: InputSpace,
    ) -> None:
        """Write one map of a brain, as z, and as p where there are peaks to count it in."""
        forms: list[tuple[str, NDArray[np.floating], float]] = [("z", z, 0.0)]
        if peaks is not None:
            forms.append(("p", conformal_p(z.ravel(), peaks).reshape(z.shape), 1.0))
        (self.out / SCORE_MAP.of(brain=row_key(row), direction=direction, what="p")).unlink(
            missing_ok=True  # of earlier scores
        )
        for what, values, fill in forms:
            path = self.out / SCORE_MAP.of(brain=row_key(row), direction=direction, what=what)
            description = f"foldnorm {direction} fold, {what}"
            write_map(
                path, space.to_input_grid(values, fill), space.affine, description=description
            )

    def _add_regions(
        self,
        row: Mapping[str, str],
        direction: str,
        found: Sequence[dict[str, Any]],
        *,
        judged: bool,
    ) -> None:
        """Rows of ``regions.tsv``, the heaviest region first."""
        masses = self.maps.masses(direction)
        for rank, region in enumerate(found, start=1):
            sulcus, share = self.sulci.likeliest(region["voxels"])
            figures = {name: value for name, value in region.items() if name != "voxels"}
            self.rows.append(
                {
                    "participant_id": row["participant_id"],
                    "hemi": row["hemi"],
                    "direction": direction,
                    "rank": rank,
                    "sulcus": sulcus,
                    "sulcus_share": share,
                    **figures,
                    "p": float(conformal_p(np.array([region["mass"]]), masses)[0])
                    if judged
                    else None,
                }
            )
