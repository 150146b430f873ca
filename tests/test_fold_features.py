"""Features of folds: the same whatever the side and the voxels, and whose neighbour each is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldnorm.preprocessing.naming.atlas import AtlasSide
from foldnorm.preprocessing.naming.fold_features import CELL_MM, fold_features
from foldnorm.preprocessing.naming.learned_names import features_at


def sheet(corner, one, other, step=1.0):
    """Points (N, 3) of a rectangle, mm."""
    a, b = np.meshgrid(np.arange(0, 1, step / np.linalg.norm(one)),
                       np.arange(0, 1, step / np.linalg.norm(other)))  # fmt: skip
    return np.array(corner) + a.reshape(-1, 1) * np.array(one) + b.reshape(-1, 1) * np.array(other)


def folds(step=1.0):
    """Points of a sheet, one that ends on it, one 20 mm off, and a single point far away."""
    parts = [
        sheet((-50, 0, 0), (0, 30, 0), (0, 0, 18), step),
        sheet((-48, 15, 0), (18, 0, 0), (0, 0, 18), step),
        sheet((-50, 50, 0), (0, 30, 0), (0, 0, 18), step),
        np.array([[-20.0, -90, -60]]),
    ]
    return np.concatenate(parts), np.repeat(np.arange(4), [len(own) for own in parts])


def described(points, numbers, *, is_right=False):
    density = np.linspace(-3, 0, 8, dtype=np.float32).reshape(4, 2)
    return fold_features(density, points, numbers, is_right=is_right)


def thirds(found):
    """Features of the folds, their means over those that touch it, and over those around."""
    return np.split(found.values, 3, axis=1)


def test_folds_that_touch_are_told_from_those_around():
    own, touching, near = thirds(described(*folds()))
    assert np.allclose(touching[:2], own[1::-1], atol=1e-6)
    assert not touching[2:].any()
    far, close = (np.abs(near[0] - own[n]).max() for n in (2, 1))
    assert 3 * close < far
    assert near[:3].any(axis=1).all()


def test_a_fold_alone_has_no_neighbours():
    points, numbers = folds()
    alone = points[numbers == 0]
    found = fold_features(np.zeros((1, 2), np.float32), alone, numbers[numbers == 0], is_right=True)
    assert not np.any(thirds(found)[1:])


def test_a_fold_of_one_point_is_described():
    found = described(*folds())
    assert np.isfinite(found.values).all()
    assert found.sizes[3] == 1


@pytest.mark.parametrize("step", [0.7, 1.5, 2.0])
def test_features_do_not_depend_on_voxels(step):
    fine, coarse = described(*folds(1.0)), described(*folds(step))
    assert coarse.sizes == pytest.approx(fine.sizes, rel=0.2)
    assert np.abs(coarse.values - fine.values).max() < 0.25


@given(st.integers(0, 100))
def test_the_order_of_points_does_not_matter(seed):
    points, numbers = folds(3.0)
    order = np.random.default_rng(seed).permutation(len(points))
    one, other = described(points, numbers), described(points[order], numbers[order])
    assert np.allclose(one.values, other.values, atol=1e-4)


def test_size_is_area_and_not_number_of_points():
    points = sheet((0.1, 0.1, 0.1), (0, 30, 0), (0, 0, 30), 0.5)
    density = np.zeros((1, 1), np.float32)
    found = fold_features(density, points, np.zeros(len(points), np.int64), is_right=False)
    assert found.sizes[0] == (30 / CELL_MM) ** 2


def test_the_side_is_one_feature_and_densities_are_those_of_the_place():
    points, numbers = folds()
    counts = np.zeros((2, 40, 60, 40), np.uint8)
    affine = np.diag([3.0, 3, 3, 1])
    affine[:3, 3] = (-80, -60, -40)
    at = np.rint((points - affine[:3, 3]) / 3).astype(int)
    for n in (0, 1):
        counts[(n, *at[numbers == n].T)] = 5
    places = AtlasSide(("one", ""), counts, affine)
    left, right = (
        thirds(features_at(places, points, numbers, is_right=side))[0] for side in (False, True)
    )
    assert (left != right).any(axis=0).sum() == 1
    log = left[:, :2]  # of the fold that is there, and of the other
    assert log[0, 0] > log[0, 1]
    assert log[1, 1] > log[1, 0]
