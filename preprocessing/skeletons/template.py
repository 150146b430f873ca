"""A template for alignment: the tissue that most brains have at each place of MNI space.

It is an ordinary grey-white volume, so it is looked at and read as any segmentation.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foldnorm.preprocessing.core.choices import Orientation
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.core.isolation import isolated_map
from foldnorm.preprocessing.core.problems import Problem
from foldnorm.preprocessing.io.source_volume import SourceVolume
from foldnorm.preprocessing.io.sources import Source, find_volumes
from foldnorm.preprocessing.io.volumes import read_labels, write_labels
from foldnorm.preprocessing.skeletons.alignment import tissue_of
from foldnorm.preprocessing.skeletons.segmentation import GREY_WHITE, hemispheres
from foldnorm.preprocessing.skeletons.skeletons import GREY, WHITE
from foldnorm.preprocessing.spatial.crop import shape_of
from foldnorm.preprocessing.spatial.space import mni_grid, resample_nearest, voxel_to_mni

VOXEL_MM = 1.0


def make_template(
    sources: Sequence[Source], out: Path, *, assume: Orientation | None = None
) -> tuple[int, list[Problem]]:
    """Write the template of all grey-white volumes of Morphologist trees that lead to MNI space.

    Args:
        sources: trees that Morphologist or `foldnorm.preprocessing.skeletons.skeletons` wrote.
        out: NIfTI file to write.
        assume: directions that voxels run in, where a header does not say.

    Returns:
        Hemispheres that went into it, and those that could not.

    Raises:
        InputError: not one could.
    """
    shape, affine = mni_grid(VOXEL_MM)
    counts = np.zeros((2, 3, *shape), dtype=np.uint32)
    found = find_volumes(sources, "grey_white", assume=assume)
    found.log()
    problems = found.problems
    done = 0
    for outcome in isolated_map(_tissue_in_mni, found.items, 1, in_order=True):
        if outcome.reason:
            problems.append(Problem(outcome.item.key, outcome.reason))
            continue
        for number in range(3):
            counts["LR".index(outcome.item.hemi), number] += outcome.result == number
        done += 1
    if not done:
        first = f"; {problems[0].key}: {problems[0].reason}" if problems else ""
        raise InputError(f"no grey-white volume with a transform to MNI space{first}")
    write_labels(out, _most_frequent(counts), affine, description=f"foldnorm template of {done}")
    return done, problems


def _tissue_in_mni(source: SourceVolume) -> NDArray[np.integer]:
    """Outside, grey and white (0, 1, 2) of one hemisphere on the grid of the template, (I, J, K).

    Raises:
        InputError: its side or its way to MNI space is not known, or it cannot be read.
    """
    if not source.hemi or source.companions.transform is None:
        missing = "side" if source.companions.transform else "transform to MNI space"
        raise InputError(f"no {missing} known: {source.path}")
    shape, affine = mni_grid(VOXEL_MM)
    volume = read_labels(source.path, assume=source.assume)
    to_mni = voxel_to_mni(
        source.companions.transform, shape_of(volume.data), volume.affine, volume.voxel_size
    )
    tissue = tissue_of(hemispheres(volume, GREY_WHITE, side=source.hemi)).astype(np.uint8)
    return resample_nearest(tissue, np.linalg.inv(affine) @ to_mni, shape, 0)


def _most_frequent(counts: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Grey-white values (I, J, K) of the commonest tissue, from (2, 3, I, J, K) counts.

    Brain where half of the hemispheres of a side have brain; there the more frequent tissue.
    """
    tissue = np.zeros(counts.shape[2:], dtype=np.uint8)
    for outside, grey, white in counts:
        brain = (grey + white >= outside) & (grey + white > 0)
        tissue[brain] = np.where(white > grey, WHITE, GREY)[brain]
    return tissue
