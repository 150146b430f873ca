"""Thinning: on sheets drawn by hand, its properties on random and on real volumes."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import euler_number

from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.cohort.prepare_volume import prepare_volume
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.io.source_volume import SourceVolume
from foldnorm.preprocessing.topology.thinning import thin
from foldnorm.preprocessing.topology.topology import BORDER, topological_classes

ANY = np.ones((3, 3, 3))
OUTSIDE, INSIDE, SULCUS = 0, 1, 2


def volume_of(sheet):
    return np.where(sheet, SULCUS, INSIDE).astype(np.uint8)


def full_blocks(sheet):
    """Voxels in a full 2×2×2 block."""
    found = np.zeros_like(sheet)
    for i, j, k in np.argwhere(sheet):
        block = np.s_[i : i + 2, j : j + 2, k : k + 2]
        if sheet[block].size == 8 and sheet[block].all():
            found[block] = True
    return found


def check_properties(before):
    after = thin(before, SULCUS)
    old, new = before == SULCUS, after == SULCUS
    assert not (new & ~old).any()
    assert (after[old == new] == before[old == new]).all()
    assert ndimage.label(new, ANY)[1] == ndimage.label(old, ANY)[1]
    assert euler_number(new, connectivity=3) == euler_number(old, connectivity=3)
    within = np.s_[1:-1, 1:-1, 1:-1]
    assert not (full_blocks(new) & (topological_classes(new) == BORDER))[within].any()
    assert (thin(after, SULCUS) == after).all()
    return old, new


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("voxels", [2, 3, 4])
def test_a_thick_sheet_becomes_one_layer_of_the_same_extent(axis, voxels):
    sheet = np.zeros((14, 14, 14), bool)
    sheet[3:11, 2:12, 5 : 5 + voxels] = True
    _, new = check_properties(volume_of(np.moveaxis(sheet, 2, axis)))
    layers = np.moveaxis(new, axis, 2)
    assert layers.sum() == 8 * 10
    assert layers.any(axis=2).sum() == 8 * 10


def test_a_thin_sheet_with_its_rim_and_corners_stays():
    sheet = np.zeros((12, 12, 12), bool)
    sheet[2:10, 2:10, 5] = True
    volume = volume_of(sheet)
    assert (thin(volume, SULCUS) == volume).all()


def test_an_oblique_sheet_keeps_its_extent():
    i, j, _ = np.indices((16, 16, 16))
    sheet = np.abs(i + j - 15) <= 1
    sheet[:, :, :2] = sheet[:, :, 14:] = False
    old, new = check_properties(volume_of(sheet))
    assert (new[4:12, :, 2:14].sum(axis=1) == 1).all()
    assert ndimage.distance_transform_edt(~new)[old].max() <= 2**0.5


def test_a_voxel_taken_away_becomes_the_class_in_front_of_it():
    volume = np.full((8, 8, 8), INSIDE, np.uint8)
    volume[:, :, :3] = OUTSIDE
    volume[:, :, 3:5] = SULCUS
    thinned = thin(volume, SULCUS)
    assert (thinned[:, :, 3] == OUTSIDE).all()
    assert (thinned[:, :, 4] == SULCUS).all()


def test_a_sheet_that_goes_on_beyond_the_volume_is_thinned_up_to_the_border():
    sheet = np.zeros((12, 12, 12), bool)
    sheet[:, :, 5:8] = True
    _, new = check_properties(volume_of(sheet))
    assert (new.sum(axis=2) == 1).all()


def test_a_sheet_along_the_border_is_not_taken_from_beyond():
    volume = np.full((8, 8, 8), INSIDE, np.uint8)
    volume[:, :, :2] = SULCUS
    thinned = thin(volume, SULCUS)
    assert (thinned[:, :, 0] == SULCUS).all()
    assert (thinned[:, :, 1:] == INSIDE).all()


def test_a_crop_full_of_sheet_stays_for_nobody_knows_what_lies_beyond():
    volume = np.full((6, 6, 2), SULCUS, np.uint8)
    assert (thin(volume, SULCUS) == volume).all()


@given(st.integers(0, 9999))
def test_what_a_sheet_keeps_apart_stays_apart(seed):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(12, 12, 12)), 3)
    level = (field - field.mean()) / field.std()
    volume = np.select([level < -0.5, level > 0.5], [OUTSIDE, INSIDE], SULCUS).astype(np.uint8)
    assume(not touching(volume))
    assert not touching(thin(volume, SULCUS))


def touching(volume):
    """Voxels outside that share a face with one inside."""
    return (ndimage.binary_dilation(volume == OUTSIDE) & (volume == INSIDE)).sum()


@given(st.integers(0, 9999), st.sampled_from([0.1, 0.3, 0.5, 0.8, 1.0]))
def test_properties_hold_on_noise(seed, share):
    rng = np.random.default_rng(seed)
    volume = rng.choice(3, (9, 8, 7), p=[(1 - share) / 2, (1 - share) / 2, share]).astype(np.uint8)
    check_properties(volume)


@given(st.integers(0, 9999))
def test_properties_hold_on_thick_curved_sheets(seed):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(16, 16, 16)), 4)
    sheet = np.abs(field - field.mean()) < 0.4 * field.std()
    check_properties(volume_of(sheet))


@pytest.mark.parametrize("voxel_size", [1.0, 2.0])
def test_a_real_skeleton_is_thin_again_after_downsampling(real_skeleton, voxel_size):
    classes = prepare_volume(
        SourceVolume("100206", "L", real_skeleton), Preparation(SKELETON, voxel_size)
    ).classes
    old, new = check_properties(classes)
    assert new.sum() < 0.82 * old.sum()
    distance = ndimage.distance_transform_edt(~new)[old]
    assert distance.max() <= 2**0.5
    assert (distance > 1).mean() < 0.003


def test_a_raw_skeleton_is_thin_already(real_skeleton):
    classes = prepare_volume(
        SourceVolume("100206", "L", real_skeleton), Preparation(SKELETON, None)
    ).classes
    assert (thin(classes, SULCUS) != classes).sum() <= 3


def test_only_what_may_be_taken_is_taken():
    sheet = np.zeros((14, 14, 14), bool)
    sheet[3:11, 2:12, 5:7] = True
    half = np.zeros_like(sheet)
    half[:, :7] = True
    thinned = thin(volume_of(sheet), SULCUS, within=half) == SULCUS
    assert (thinned[:, 7:] == sheet[:, 7:]).all()
    assert thinned[:, :6].sum() == sheet[:, :6].sum() / 2
