"""Growing and shrinking: topology is kept, and the order is that of the priorities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import euler_number

from foldnorm.preprocessing.topology.homotopy import grow, shrink
from foldnorm.preprocessing.topology.topology import BORDER, topological_classes

FULL = np.ones((3, 3, 3))


def topology(mask):
    """Components, components of the rest, Euler number, with a border of rest around."""
    padded = np.pad(mask, 2)
    return (
        ndimage.label(padded, FULL)[1],
        ndimage.label(~padded)[1],
        euler_number(padded, connectivity=3),
    )


def blob(seed, share=0.4):
    return np.random.default_rng(seed).random((8, 8, 8)) < share


@settings(max_examples=60)
@given(st.integers(0, 10_000))
def test_shrinking_and_growing_keep_the_topology(seed):
    rng = np.random.default_rng(seed)
    mask = blob(seed, rng.uniform(0.1, 0.7))
    priority = rng.integers(0, 5, mask.shape)
    surface = rng.random(mask.shape) < 0.3
    for moved in (
        shrink(mask, rng.random(mask.shape) < 0.8, priority, surface),
        grow(mask, rng.random(mask.shape) < 0.8, priority),
    ):
        assert topology(moved) == topology(mask)


@given(st.integers(0, 10_000))
def test_nothing_is_left_that_could_still_go(seed):
    mask, rng = blob(seed), np.random.default_rng(seed)
    removable = rng.random(mask.shape) < 0.7
    left = shrink(mask, removable, np.zeros(mask.shape, np.int32))
    assert not ((topological_classes(left) == BORDER) & removable).any()
    assert (left <= mask).all()
    assert (left[~removable] == mask[~removable]).all()


def test_a_ball_shrinks_to_one_voxel_and_one_voxel_grows_to_the_ball():
    grids = np.indices((11, 11, 11)) - 5
    ball = (grids**2).sum(axis=0) <= 16
    distance = (grids**2).sum(axis=0)
    left = shrink(ball, ball, distance.max() - distance)
    assert np.argwhere(left).tolist() == [[5, 5, 5]]
    assert (grow(left, ball, distance) == ball).all()


def test_a_ring_stays_a_ring():
    ring = np.zeros((9, 9, 5), bool)
    ring[1:8, 1:8, 1:4] = True
    ring[4, 4] = False
    left = shrink(ring, ring, np.zeros(ring.shape, np.int32))
    assert topology(left) == (1, 1, 0)
    assert left.sum() < 20


def test_lower_priorities_go_first():
    bar = np.zeros((3, 3, 9), bool)
    bar[1, 1] = True
    priority = np.broadcast_to(np.arange(9), bar.shape)
    left = shrink(bar, bar, priority)
    assert np.argwhere(left).tolist() == [[1, 1, 8]]
    assert np.argwhere(shrink(bar, bar, 8 - priority)).tolist() == [[1, 1, 0]]


def test_a_thick_sheet_is_thinned_to_its_middle_and_keeps_its_extent():
    slab = np.zeros((20, 20, 9), bool)
    slab[3:17, 3:17, 2:7] = True
    inner = ndimage.distance_transform_edt(slab)
    left = shrink(slab, slab, np.rint(inner * 10).astype(np.int32), inner >= 2)
    assert set(np.argwhere(left[6:14, 6:14])[:, 2]) == {4}
    assert left.sum() >= 10 * 10
    assert topology(left) == (1, 1, 1)


def test_negative_priorities_are_refused():
    mask = np.ones((3, 3, 3), bool)
    with pytest.raises(ValueError, match="levels from 0"):
        shrink(mask, mask, np.full(mask.shape, -1))
