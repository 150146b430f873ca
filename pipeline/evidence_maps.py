"""Maps of evidence, and the regions where it is strongest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.pipeline.evidence_scores import EvidenceScores, regions_of
from foldnorm.preprocessing.cohort import Cohort, row_key
from foldnorm.preprocessing.files import write_tsv
from foldnorm.preprocessing.volumes import write_map

REGIONS = "regions.tsv"
COLUMNS = ("participant_id", "hemi", "rank", "x", "y", "z", "mm3", "peak_z", "sum_z")
LISTED = 3  # regions of a brain


def write_evidence_maps(
    scores: EvidenceScores, cohort: Cohort, indices: Sequence[int], out: Path
) -> None:
    """Write a map of each brain, and ``regions.tsv``: where its evidence is strongest.

    Maps lie in the grid of the cohort, so at most half a voxel from the brain's own place.

    Args:
        scores: fitted.
        cohort: the brains.
        indices: which of them.
        out: folder.
    """
    rows = []
    brains = zip(indices, scores.maps(lambda: cohort.brains(indices)), strict=True)
    for index, z in brains:
        row = cohort.rows[index]
        name = f"{row_key(row)}_desc-missing_z.nii.gz"
        write_map(out / "maps" / name, z, cohort.affine, description="foldnorm missing fold, z")
        for rank, region in enumerate(regions(z, cohort.affine), start=1):
            known = {key: row[key] for key in ("participant_id", "hemi")}
            rows.append({**known, "rank": rank, **region})
    write_tsv(out / REGIONS, rows, COLUMNS)


def regions(z: NDArray[np.floating], affine: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The strongest 26-connected regions (see `regions_of`), by the sum of their z.

    Args:
        z: (I, J, K) of a brain.
        affine: (4, 4), voxel index → world mm.

    Returns:
        At most `LISTED`: ``x``, ``y``, ``z`` of the weighted middle in mm, ``mm3``, ``peak_z``,
        ``sum_z``.
    """
    labels, count = regions_of(z)
    if not count:
        return []
    numbers = np.arange(1, count + 1)
    sums = ndimage.sum_labels(z, labels, numbers)
    voxel = abs(np.linalg.det(affine[:3, :3]))
    found = []
    for number in numbers[np.argsort(-sums, kind="stable")][:LISTED]:
        inside = np.argwhere(labels == number)
        weights = z[tuple(inside.T)]
        middle = np.average(inside, axis=0, weights=weights) @ affine[:3, :3].T + affine[:3, 3]
        place = dict(zip("xyz", map(float, middle), strict=True))
        found.append(
            {
                **place,
                "mm3": float(len(inside) * voxel),
                "peak_z": float(weights.max()),
                "sum_z": float(weights.sum()),
            }
        )
    return found
