"""Brains of a cohort, a few at a time."""

import numpy as np
import pytest

from foldnorm.preprocessing.cohort.cohort import FEW, FEW_VOXELS, Brain, few_at_a_time


@pytest.mark.parametrize(
    ("voxels", "number", "sizes"),
    [
        (8, 2 * FEW + 3, [FEW, FEW, 3]),
        (FEW_VOXELS // 3, 7, [3, 3, 1]),
        (FEW_VOXELS + 1, 2, [1, 1]),
        (8, 0, []),
    ],
)
def test_large_volumes_are_fewer_at_a_time(voxels, number, sizes):
    volume = np.broadcast_to(np.uint8(0), (voxels, 1, 1))  # takes no memory
    brains = [Brain(volume, {"participant_id": str(n)}) for n in range(number)]
    parts = list(few_at_a_time(brain for brain in brains))
    assert [len(part) for part in parts] == sizes
    names = [brain.row["participant_id"] for part in parts for brain in part]
    assert names == [str(n) for n in range(number)]
