"""Places where brains have fewer folds than healthy ones, out of a folder of scores."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import PAGE_ARRAYS, PAGES_SIDECAR, REGIONS
from foldnorm.pipeline.report.page_files import PageArrays
from foldnorm.preprocessing.cohort.cohort import row_key
from foldnorm.preprocessing.core.files import number, read_json, read_tsv


class Departures:
    """Regions and maps of the brains of a folder that `foldnorm score --maps` has written.

    Args:
        folder: of the scores; without maps it knows of no brain.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def _about(self) -> dict[str, Any]:
        path = self.folder / PAGES_SIDECAR
        return read_json(path) if path.is_file() else {"brains": {}}

    @cached_property
    def _regions(self) -> dict[str, list[dict[str, str]]]:
        found: dict[str, list[dict[str, str]]] = {}
        if self._about["brains"]:
            for row in read_tsv(self.folder / REGIONS):
                found.setdefault(row_key(row), []).append(row)
        return found

    def knows(self, key: str) -> bool:
        """Return whether a region is known for a brain."""
        return key in self._about["brains"]

    def path(self, key: str) -> Path:
        """Return the path of the arrays of a brain."""
        return self.folder / PAGE_ARRAYS.of(brain=key)

    def peak(self, key: str) -> list[int]:
        """Voxel of the largest z of the strongest region."""
        return [int(n) for n in self._about["brains"][key]["peak"]]

    def regions(self, key: str) -> list[list[str]]:
        """Sulcus, place in mm, size, largest z and p of each region; no p if the brain has none."""
        rows = []
        for row in self._regions.get(key, []):
            mni = "_mni" if row["x_mni"] else ""
            place = ", ".join(str(round(number(row, axis + mni))) for axis in "xyz")
            numbers = f"{number(row, 'mm3'):.0f}", f"{number(row, 'peak_z'):.1f}"
            rows.append([row["sulcus"], place, *numbers, row["p"]])
        return rows

    def layer(self, key: str) -> NDArray[np.uint8]:
        """Layer of z of a brain where it reaches the threshold, (I, J, K), 255 for the largest."""
        z = PageArrays.read(self.path(key)).z
        threshold = self._about["threshold"] / self._about["brains"][key]["largest_z"]
        return np.where(z >= 255 * threshold, z, 0).astype(np.uint8)
