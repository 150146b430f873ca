"""Deformations around a fold: what moves, how far, and that no sheet is torn."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import ndimage

from foldnorm.preprocessing.alteration.sheet_deformation import (
    SUPPORT,
    fall_off,
    pocket_walls,
    pull_towards,
    push_sheets,
    sheet_points,
    shift_along,
    without_overlap,
)

ONE_MM = (1.0, 1.0, 1.0)
NOWHERE = np.zeros((24, 24, 24), dtype=np.bool_)


def plane(at, side=24):
    mask = np.zeros((side, side, side), dtype=np.bool_)
    mask[at] = True
    return mask


def compartments(classes):
    """Parts of the inside that sheets keep apart, and their sizes."""
    labels, number = ndimage.label(classes == 1)
    return number, np.bincount(labels.ravel())[1:]


def test_the_pull_has_the_stated_length_and_direction():
    pulled = pull_towards(plane(12), NOWHERE, ONE_MM, reach=8, share=0.5)
    middle = pulled[:, :, 12, 12]
    distance = np.arange(24) - 12.0
    expected = -0.5 * distance * np.exp(-(distance**2) / 128)
    assert np.abs(middle[0] - expected)[6:19].max() < 0.2
    assert np.abs(middle[1:]).max() < 1e-6


def test_the_pull_knows_the_voxel_size():
    pulled = pull_towards(plane(12), NOWHERE, (2.0, 1.0, 1.0), reach=16, share=0.5)
    assert pulled[0, 9, 12, 12] == pytest.approx(0.5 * 6, abs=0.3)


def test_nothing_is_pulled_beyond_the_support():
    pulled = pull_towards(plane(12), NOWHERE, ONE_MM, reach=2, share=0.5)
    assert (pulled[:, 12 + int(np.ceil(2 * SUPPORT)) :] == 0).all()
    assert fall_off(np.array([0.0, 2 * SUPPORT]), 2).tolist() == [1, 0]


def test_without_a_fold_nothing_moves():
    assert (pull_towards(NOWHERE, NOWHERE, ONE_MM, reach=8, share=0.5) == 0).all()
    assert (shift_along(NOWHERE, NOWHERE, ONE_MM, vector=(5, 0, 0), reach=8) == 0).all()


def test_near_the_outside_sheets_slide_along_it():
    outside = np.zeros((24, 24, 24), dtype=np.bool_)
    outside[:, :, 20:] = True
    shifted = shift_along(plane(12), outside, ONE_MM, vector=(3, 0, -2), reach=6)
    assert shifted[0, 12, 12, 19] == pytest.approx(3, abs=0.01)
    assert np.abs(shifted[2, 12, 12, 19]) < 0.05
    assert shifted[2, 12, 12, 2] == pytest.approx(-2, abs=0.01)


def test_a_displacement_that_would_fold_is_made_gentler():
    wild = np.zeros((3, 12, 12, 12))
    wild[0] = -3 * np.maximum(np.arange(12) - 6, 0)[:, None, None]
    gentle = without_overlap(wild, np.zeros((12,) * 3, dtype=np.bool_), ONE_MM)
    assert (np.diff(gentle[0] + np.arange(12)[:, None, None], axis=0) > 0).all()
    assert np.abs(gentle).max() > 0


@pytest.mark.parametrize("way", [(3, 0, 0), (0, -2, 1)])
def test_a_plane_moved_by_whole_voxels_is_that_plane_there(way):
    classes = np.ones((24, 24, 24), dtype=np.uint8)
    classes[8, 6:18, 6:18] = 2
    everywhere = np.zeros((3, 24, 24, 24)) + np.array(way, dtype=float).reshape(3, 1, 1, 1)
    moved = push_sheets(classes, everywhere, ONE_MM, void=1, fixed=NOWHERE)
    assert (moved == np.roll(classes, way, axis=(0, 1, 2))).all()


def test_what_is_fixed_stays_and_what_hangs_on_it_stays_attached():
    classes = np.ones((24, 24, 24), dtype=np.uint8)
    classes[:, :, 20] = 2
    classes[12, :, 10:20] = 2
    fixed = plane(12) & False
    fixed[:, :, 20] = True
    everywhere = np.zeros((3, 24, 24, 24))
    everywhere[0] = 4
    moved = push_sheets(classes, everywhere, ONE_MM, void=1, fixed=fixed)
    assert (moved[:, :, 20] == 2).all()
    assert (moved[16, :, 10:20] == 2).all()
    assert (moved == 2).sum() == (classes == 2).sum()


def test_points_lie_a_quarter_of_a_voxel_apart_on_the_sheet():
    moving = np.zeros((4, 4, 4), dtype=np.bool_)
    moving[1, 1, 1] = moving[2, 2, 1] = True
    points, are_centres = sheet_points(moving, moving & False)
    steps = np.arange(0, 1.01, 0.25)
    expected = np.stack([1 + steps, 1 + steps, np.ones(5)], axis=1)
    assert sorted(map(tuple, points)) == sorted(map(tuple, expected))
    assert are_centres.sum() == 2


@given(st.integers(0, 10_000))
def test_planes_never_tear(seed):
    """A digital plane parts a volume in two; so it does wherever it has been pulled."""
    rng = np.random.default_rng(seed)
    side, normal = 26, rng.normal(size=3)
    normal /= np.abs(normal).max()
    places = np.indices((side,) * 3)
    height = np.tensordot(normal, places - side / 2, axes=1) + rng.uniform(-4, 4)
    classes = np.where(np.abs(height) <= 0.5, 2, 1).astype(np.uint8)
    number, sizes = compartments(classes)
    assume(number == 2 and sizes.min() > 500)
    ball = ((places - rng.uniform(6, 20, 3).reshape(3, 1, 1, 1)) ** 2).sum(axis=0) < 30
    fold = ball & (np.abs(places[rng.integers(3)] - 13) < 1)
    pulled = pull_towards(
        fold, classes == 0, ONE_MM, reach=rng.uniform(2, 10), share=rng.uniform(0.2, 0.9)
    )
    # At the border of the volume the plane stays, as the hull does.
    inner = ndimage.distance_transform_edt(np.pad(np.ones((side - 2,) * 3), 1)) / 6
    pulled = without_overlap(pulled * np.clip(inner, 0, 1), NOWHERE_26, ONE_MM)
    moved = push_sheets(classes, pulled, ONE_MM, void=1, fixed=NOWHERE_26)
    labels, _ = ndimage.label(moved == 1)
    # Opposite sides are apart; a pocket may be closed off where the plane is squeezed.
    far = [np.unravel_index(flat, classes.shape) for flat in (height.argmin(), height.argmax())]
    assert labels[far[0]] != labels[far[1]]
    assert not ndimage.binary_opening(moved == 2, np.ones((2, 2, 2))).any()


NOWHERE_26 = np.zeros((26, 26, 26), dtype=np.bool_)


def test_a_pocket_is_opened_to_one_side_only():
    sheet = np.zeros((9, 9, 9), dtype=bool)
    sheet[4] = True  # parts two halves
    sheet[3:6, 3:6, 3:6] = True
    sheet[4, 4, 4] = False  # a pocket within the wall
    walls = pocket_walls(sheet, sheet)
    assert walls.sum() == 1
    assert ndimage.label(~(sheet & ~walls))[1] == 2
    assert not pocket_walls(sheet, sheet & False).any()
