"""Maps of evidence, and the regions where it is strongest."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from foldnorm.pipeline.evidence_scores import EvidenceScores, regions_of
from foldnorm.pipeline.scores import conformal_p
from foldnorm.pipeline.sulci import SulciByPlace
from foldnorm.preprocessing.cohort import Cohort, row_key
from foldnorm.preprocessing.files import write_json, write_tsv
from foldnorm.preprocessing.input_space import InputSpace
from foldnorm.preprocessing.space import Matrix
from foldnorm.preprocessing.volumes import write_map

REGIONS, SIDECAR = "regions.tsv", "regions.json"
COLUMNS = {
    "participant_id": "",
    "hemi": "",
    "direction": "missing or unexpected",
    "rank": "1 is the region of most evidence",
    "sulcus": "that most training brains have there, if the training cohort names its folds",
    "sulcus_share": "of the training brains that have it there",
    **dict.fromkeys("xyz", "weighted middle, world mm of the cohort"),
    **{f"{axis}_mni": "the same, MNI mm, where a transform is known" for axis in "xyz"},
    "mm3": "size",
    "peak_z": "largest evidence, in standard deviations of healthy brains",
    "sum_z": "evidence of the region",
    "p": "share of calibration brains whose strongest region has at least as much, with 1 added "
    "above and below: corrected for the places looked at, not for the brains",
}
LISTED = 3  # regions of a brain and direction


def write_evidence_maps(
    scores: EvidenceScores,
    reference: Cohort,
    calibration: Sequence[int],
    cohort: Cohort,
    indices: Sequence[int],
    out: Path,
) -> None:
    """Write maps of each brain, and ``regions.tsv``: where its evidence is strongest.

    ``…_desc-missing_z.nii.gz`` (and ``unexpected``) is the evidence in standard deviations of
    healthy brains, ``…_p.nii.gz`` the share of calibration brains that reach as much anywhere. They
    lie in the grid of the brain's input where that is still there, else in that of the cohort;
    ``regions.json`` says which.

    Args:
        scores: fitted.
        reference: the training cohort.
        calibration: brains of it that nothing was fitted to.
        cohort: the brains.
        indices: which of them.
        out: folder.
    """
    peaks, masses = _strongest(scores, reference, calibration)
    names = SulciByPlace(reference)
    rows, inputs = [], {}
    brains = zip(indices, scores.maps(lambda: cohort.brains(indices)), strict=True)
    for index, maps in brains:
        row = cohort.rows[index]
        space = InputSpace.of(cohort, row)
        inputs[row_key(row)] = None if space.path is None else str(space.path)
        for n, (direction, z) in enumerate(zip(scores.directions, maps, strict=True)):
            p = conformal_p(z.ravel(), peaks[:, n]).reshape(z.shape)
            for what, values, fill in (("z", z, 0.0), ("p", p, 1.0)):
                path = out / "maps" / f"{row_key(row)}_desc-{direction}_{what}.nii.gz"
                description = f"foldnorm {direction} fold, {what}"
                write_map(path, space.spread(values, fill), space.affine, description=description)
            known = {key: row[key] for key in ("participant_id", "hemi")}
            for rank, region in enumerate(regions(z, cohort.affine, space.to_mni), start=1):
                inside = region.pop("voxels")
                sulcus, share = names.likeliest(inside)
                rows.append(
                    {
                        **known,
                        "direction": direction,
                        "rank": rank,
                        "sulcus": sulcus,
                        "sulcus_share": share,
                        **region,
                        "p": float(conformal_p(np.array([region["sum_z"]]), masses[:, n])[0]),
                    }
                )
    write_tsv(out / REGIONS, rows, tuple(COLUMNS))
    write_json(out / SIDECAR, {"columns": COLUMNS, "maps_in_grid_of": inputs})


def _strongest(
    scores: EvidenceScores, reference: Cohort, calibration: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest z of each calibration brain, and evidence of its strongest region, by direction."""
    peaks, masses = [], []
    for maps in scores.maps(lambda: reference.brains(calibration)):
        peaks.append([float(z.max()) for z in maps])
        found = [regions(z, np.eye(4)) for z in maps]
        masses.append([own[0]["sum_z"] if own else 0.0 for own in found])
    return np.array(peaks), np.array(masses)


def regions(
    z: NDArray[np.floating], affine: Matrix, to_mni: Matrix | None = None
) -> list[dict[str, Any]]:
    """The strongest 26-connected regions (see `regions_of`), by the sum of their z.

    Args:
        z: (I, J, K) of a brain.
        affine: (4, 4), voxel index → world mm.
        to_mni: likewise → MNI mm, if that is known.

    Returns:
        At most `LISTED`: ``voxels`` (n, 3), ``x``, ``y``, ``z`` of the weighted middle in mm, the
        same in MNI mm, ``mm3``, ``peak_z``, ``sum_z``.
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
        middle = np.append(np.average(inside, axis=0, weights=weights), 1)
        place = dict(zip("xyz", map(float, affine @ middle), strict=False))
        if to_mni is not None:
            place |= {f"{a}_mni": float(v) for a, v in zip("xyz", to_mni @ middle, strict=False)}
        found.append(
            {
                "voxels": inside,
                **place,
                "mm3": float(len(inside) * voxel),
                "peak_z": float(weights.max()),
                "sum_z": float(weights.sum()),
            }
        )
    return found
