"""Maps of where a brain departs from healthy ones, and the regions where it does most."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foldnorm.pipeline.artifacts import REGIONS, REGIONS_SIDECAR, SCORE_MAP
from foldnorm.pipeline.scores import conformal_p
from foldnorm.pipeline.scoring.brain_pages import PageWriter
from foldnorm.pipeline.scoring.map_scores import MapScores
from foldnorm.pipeline.scoring.regions import largest_mass, strongest_regions
from foldnorm.pipeline.sulci import SulciByPlace
from foldnorm.preprocessing.cohort import Brain, Cohort, row_key
from foldnorm.preprocessing.files import write_json, write_tsv
from foldnorm.preprocessing.input_space import InputSpace
from foldnorm.preprocessing.volumes import write_map


def write_evidence_maps(
    scores: MapScores,
    reference: Cohort,
    calibration: Sequence[Brain],
    cohort: Cohort,
    indices: Sequence[int],
    out: Path,
    *,
    method: str,
) -> None:
    """Write maps of each brain, and ``regions.tsv``: where it departs most from healthy ones.

    ``…_desc-missing_z.nii.gz`` (and ``unexpected``) is the map in standard deviations of healthy
    brains, ``…_p.nii.gz`` the share of calibration brains that reach as much anywhere. They lie in
    the grid of the brain's input where that is still there, else in that of the cohort;
    ``regions.json`` says which. Beside them what a page about the brain needs, see `PageWriter`.

    Args:
        scores: fitted.
        reference: cohort whose folds name the places.
        calibration: healthy brains that the p-values are counted in.
        cohort: the brains.
        indices: which of them.
        out: folder.
        method: the run, or how else they were scored.
    """
    peaks, masses = _strongest(scores, calibration)
    names = SulciByPlace(reference)
    pages = PageWriter(scores, cohort, method, out)
    rows, inputs = [], {}
    brains = zip(indices, scores.maps(cohort.brains(indices)), strict=True)
    for index, maps in brains:
        row = cohort.rows[index]
        space = InputSpace.of(cohort, row)
        inputs[row_key(row)] = None if space.path is None else str(space.path)
        for n, (direction, z) in enumerate(zip(scores.directions, maps, strict=True)):
            p = conformal_p(z.ravel(), peaks[:, n]).reshape(z.shape)
            for what, values, fill in (("z", z, 0.0), ("p", p, 1.0)):
                path = out / SCORE_MAP.of(brain=row_key(row), direction=direction, what=what)
                description = f"foldnorm {direction} fold, {what}"
                write_map(path, space.spread(values, fill), space.affine, description=description)
            known = {key: row[key] for key in ("participant_id", "hemi")}
            found = strongest_regions(z, space.to_world, scores.THRESHOLD, space.to_mni)
            if direction == "missing" and found:
                pages.add(index, z, [region["voxels"] for region in found])
            for rank, region in enumerate(found, start=1):
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
                        "p": float(conformal_p(np.array([region["mass"]]), masses[:, n])[0]),
                    }
                )
    pages.close()
    write_tsv(out / REGIONS, rows, tuple(REGIONS.columns))
    write_json(out / REGIONS_SIDECAR, {"columns": dict(REGIONS.columns), "maps_in_grid_of": inputs})


def _strongest(
    scores: MapScores, calibration: Sequence[Brain]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest z of each calibration brain, and its largest mass, by direction."""
    peaks, masses = [], []
    for maps in scores.maps(calibration):
        peaks.append([float(z.max()) for z in maps])
        masses.append([largest_mass(z, scores.THRESHOLD) for z in maps])
    return np.array(peaks), np.array(masses)
