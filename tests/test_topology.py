"""Topological classes on shapes drawn by hand, against a slow count, and on real skeletons."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.topology.topology import BORDER, topological_classes

FACE = ndimage.generate_binary_structure(3, 1)


def drawn(*parts):
    """Object in a 7³ volume: the union of index expressions."""
    volume = np.zeros((7, 7, 7), bool)
    for part in parts:
        volume[part] = True
    return volume


PLANE = np.s_[1:6, 1:6, 3]
SHAPES = {
    "isolated voxel": (drawn(np.s_[3, 3, 3]), 20),
    "end of a line": (drawn(np.s_[3, 3, 3:6]), 30),
    "line": (drawn(np.s_[3, 3, 1:6]), 40),
    "three lines": (drawn(np.s_[3, 3, 3:6], np.s_[2, 2, 2], np.s_[4, 4, 2], np.s_[3, 3, 3]), 50),
    "inside of a plane": (drawn(PLANE), 60),
    "edge of a plane": (drawn(np.s_[1:6, 3:6, 3]), 30),
    "three planes that meet, a Y": (
        drawn(np.s_[1:6, 3, 3:6], np.s_[1:6, 2, 2], np.s_[1:6, 4, 2]),
        80,
    ),
    # Morphologist's 10: no background touches the voxel by a face.
    "crossing planes": (drawn(PLANE, np.s_[1:6, 3, 1:6]), 10),
    "inside of a cube": (drawn(np.s_[2:5, 2:5, 2:5]), 10),
}


@pytest.mark.parametrize("name", SHAPES)
def test_class_of_the_middle_voxel(name):
    volume, expected = SHAPES[name]
    assert topological_classes(volume)[3, 3, 3] == expected


def slow_counts(cube):
    """C* and C̄ of the middle of a 3×3×3 cube, by labelling components."""
    around = cube.copy()
    around[1, 1, 1] = False
    inner = ndimage.label(around, np.ones((3, 3, 3)))[1]
    free = ~cube & ndimage.generate_binary_structure(3, 2)
    free[1, 1, 1] = False
    labels, _ = ndimage.label(free, FACE)
    faces = FACE.copy()
    faces[1, 1, 1] = False
    return inner, len(set(labels[faces & free]))


TABLE = {
    (1, 1): 30, (2, 1): 40, (3, 1): 50, (1, 2): 60, (2, 2): 70, (3, 2): 70,
    (1, 3): 80, (2, 3): 90, (3, 3): 90,
}  # fmt: skip


@given(st.integers(0, 2**26 - 1))
def test_classes_equal_a_slow_count(bits):
    cube = np.array([bits >> b & 1 for b in range(26)], bool)
    cube = np.insert(cube, 13, True).reshape(3, 3, 3)
    inner, outer = slow_counts(cube)
    expected = 10 if outer == 0 else 20 if inner == 0 else TABLE[min(inner, 3), min(outer, 3)]
    assert topological_classes(cube)[1, 1, 1] == expected


@given(st.integers(0, 999))
def test_removing_a_simple_point_keeps_the_numbers_of_components(seed):
    volume = np.random.default_rng(seed).random((5, 5, 5)) < 0.5
    counts = (
        ndimage.label(volume, np.ones((3, 3, 3)))[1],
        ndimage.label(np.pad(~volume, 1, constant_values=True), FACE)[1],
    )
    for place in np.argwhere(topological_classes(volume) == BORDER)[:5]:
        without = volume.copy()
        without[tuple(place)] = False
        outside = np.pad(~without, 1, constant_values=True)
        assert counts == (
            ndimage.label(without, np.ones((3, 3, 3)))[1],
            ndimage.label(outside, FACE)[1],
        )


def test_real_skeletons_are_classified_as_morphologist_did(real_data):
    paths = sorted(real_data.glob("morphologist/**/segmentation/?skeleton_*.nii.gz"))
    assert paths
    for path in paths:
        raw = np.asarray(read_labels(path).data)
        skeleton = (raw != 0) & (raw != 11)
        assert (topological_classes(skeleton)[skeleton] == raw[skeleton]).all(), path
