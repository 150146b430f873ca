"""What is mended of a drawn skeleton: pinholes, a torn hull, pieces that hang on nothing."""

import numpy as np
import pytest
import torch
from conftest import write_nifti
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import euler_number

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.runs.config import resolve, resolve_for
from foldnorm.pipeline.runs.predict import drawn
from foldnorm.preprocessing.cohort.cohort import Cohort
from foldnorm.preprocessing.cohort.discretise import discretise
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.io.schemes import SKELETON
from foldnorm.preprocessing.io.volumes import read_labels
from foldnorm.preprocessing.topology.mending import (
    close_hull,
    close_pinholes,
    drop_loose_pieces,
    mend_sheets,
)
from foldnorm.preprocessing.topology.thinning import thin

TOUCHING = np.ones((3, 3, 3))


def at_border(volume):
    """Mask of the outermost layer of voxels."""
    inner = np.zeros(volume.shape, np.bool_)
    inner[1:-1, 1:-1, 1:-1] = True
    return ~inner


def ball(radius):
    """Classes of a brain in a hull: 0 outside, 1 inside, 2 sulcus."""
    middle = np.indices((15, 15, 15)) - 7
    inside = (middle**2).sum(axis=0) <= radius**2
    return np.where(inside, 1, np.where(ndimage.binary_dilation(inside), 2, 0)).astype(np.uint8)


def test_a_whole_hull_stays_as_it_is():
    volume = ball(5)
    volume[7, 7, 3:8] = 2  # a fold
    assert (close_hull(volume, 2, outside=0, inside=1) == volume).all()


def test_holes_of_a_hull_are_closed_and_nothing_lies_outside_within_the_brain():
    whole = ball(5)
    holed = whole.copy()
    holed[1, 7, 7] = 0  # of the hull, above one voxel inside
    holed[7, 7, 7] = 0
    closed = close_hull(holed, 2, outside=0, inside=1)
    assert not (ndimage.binary_dilation(closed == 0) & (closed == 1)).any()
    assert ndimage.label(closed == 0)[1] == 1
    assert closed[7, 7, 7] == 2
    assert ((closed == 2) | (closed == holed)).all()
    assert (closed != holed).sum() == 2


def test_what_lies_outside_may_reach_the_border_of_a_crop():
    crop = ball(5)[7:]
    assert (close_hull(crop, 2, outside=0, inside=1) == crop).all()
    crop[0, 6:8, 7] = 0  # the crop begins in it
    closed = close_hull(crop, 2, outside=0, inside=1)
    assert (closed[0, 6:8, 7] == 0).all()
    assert closed[1, 7, 7] == closed[0, 5, 7] == 2


def drawn_as(volume, preparation):
    """Return what becomes of a volume that a model draws with thick sheets."""

    class Draws:
        sheet_margin = 1.0

        def sample(self, count, generator, condition=None):
            return torch.from_numpy(np.stack([volume] * count))

    (made,) = drawn(Draws(), 1, torch.Generator(), None, lambda: preparation)
    return made


def test_the_hull_of_what_is_drawn_with_thick_sheets_is_closed():
    holed = ball(5)
    holed[1, 7, 7] = 0
    made = drawn_as(holed, Preparation(SKELETON, 2.0))
    assert not (ndimage.binary_dilation(made == 0) & (made == 1)).any()


def test_folds_that_were_prepared_without_a_hull_are_drawn_without_one():
    volume = np.where(ball(5) == 2, 0, ball(5)).astype(np.uint8)
    volume[7, 4:11, 5] = volume[7, 4:11, 9] = 2  # two folds, and nothing that they hang on
    assert (drawn_as(volume, Preparation(SKELETON, 2.0, hull="remove")) == volume).all()
    assert (drawn_as(volume, Preparation(SKELETON, 2.0)) != volume).any()


def margin_of(config, *words, is_skeleton):
    """Sheet margin of what a shipped configuration draws of such volumes."""
    size = {"shape": (16,) * 3, "n_classes": 3, "void": 1, "is_skeleton": is_skeleton}
    return resolve(config, list(words), **size)["model"]["init_args"]["sheet_margin"]


@pytest.mark.parametrize("config", ["wgan_gp", "distance_autoencoder", "vqvae_transformer"])
def test_only_skeletons_are_drawn_with_thick_sheets(config):
    assert margin_of(config, is_skeleton=True) > 0
    assert margin_of(config, is_skeleton=False) == 0
    told = "--model.init_args.sheet_margin=0.7"
    assert margin_of(config, told, is_skeleton=False) == 0.7


def test_what_is_drawn_of_codes_of_volumes_that_are_no_skeletons_is_not_thinned():
    assert margin_of("latent_flow", is_skeleton=True) is None  # that of the first stage
    assert margin_of("latent_flow", is_skeleton=False) == 0


def test_a_cohort_of_hippocampi_or_grey_matter_is_no_skeleton(small_cohort, tmp_path):
    assert resolve_for(small_cohort, "wgan_gp", [])["model"]["init_args"]["sheet_margin"] > 0
    volume = np.zeros((16,) * 3, np.int16)
    volume[4:12, 4:12, 4:12], volume[6:10, 6:10, 6:10] = 100, 200
    write_nifti(tmp_path / "source/Lgrey_white_s1.nii.gz", volume)
    words = ["--scheme", "grey-white", "--n-procs", "1", "--quiet"]
    out = tmp_path / "cohort"
    assert main(["preprocess", str(tmp_path / "source"), "-o", str(out), *words]) == 0
    config = resolve_for(Cohort.open(out), "wgan_gp", [])
    assert config["model"]["init_args"]["sheet_margin"] == 0


def sheet(side=9):
    """Classes within a brain that a flat sheet crosses, but for a layer at each end of it."""
    volume = np.ones((side, side, side), np.uint8)
    volume[side // 2, 1:-1, 1:-1] = 2
    return volume


def oblique(side=9):
    """The same, of a sheet along all three diagonals."""
    total = np.indices((side, side, side)).sum(axis=0)
    volume = np.where(total == 12, 2, 1).astype(np.uint8)
    volume[at_border(volume)] = 1
    return volume


def euler(volume):
    return euler_number(np.pad(volume == 2, 1), connectivity=3)


@pytest.mark.parametrize("whole", [sheet(), oblique()], ids=["flat", "oblique"])
def test_a_pinhole_is_closed(whole):
    assert (close_pinholes(whole, 2) == whole).all()
    holed = whole.copy()
    holed[4, 4, 4] = 1
    assert euler(holed) == euler(whole) - 1
    assert (close_pinholes(holed, 2) == whole).all()


def test_a_wider_hole_and_what_alone_joins_two_parts_stay():
    holed = sheet()
    holed[4, 4:6, 4:6] = 1
    assert (close_pinholes(holed, 2) == holed).all()
    alone = np.ones((11, 11, 11), np.uint8)
    alone[5] = 2  # from border to border, beyond which it goes on
    alone[5, 5, 5] = 1
    assert (close_pinholes(alone, 2) == alone).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 0.7))
def test_each_pinhole_that_is_closed_ends_a_tunnel_and_joins_nothing(seed, share):
    volume = np.ones((14, 14, 14), np.uint8)
    volume[3:-3, 3:-3, 3:-3][np.random.default_rng(seed).random((8, 8, 8)) < share] = 2
    closed = close_pinholes(volume, 2)
    assert ((closed == volume) | (volume == 1)).all()
    fewer_cavities = ndimage.label(volume == 1)[1] - ndimage.label(closed == 1)[1]
    assert fewer_cavities >= 0
    pinholes = (closed != volume).sum() - fewer_cavities
    # Pieces − tunnels + cavities; where three sides meet, two tunnels end.
    assert euler(closed) - euler(volume) + fewer_cavities >= pinholes
    assert ndimage.label(closed == 2, TOUCHING)[1] == ndimage.label(volume == 2, TOUCHING)[1]


def test_a_cavity_of_one_voxel_is_closed():
    volume = np.ones((9, 9, 9), np.uint8)
    volume[3:6, 3:6, 3:6] = 2
    volume[4, 4, 4] = 1
    assert close_pinholes(volume, 2)[4, 4, 4] == 2


def test_a_piece_that_hangs_on_nothing_goes_and_what_is_around_comes():
    volume = ball(5)
    volume[7, 7, 7] = volume[6, 6, 6] = 2  # one piece: they touch by a corner
    volume[0, 0, 1] = 2  # at the border, and the brain is whole
    volume[13, 13, 13] = 2  # outside
    kept = drop_loose_pieces(volume, 2, outside=0)
    assert kept[7, 7, 7] == kept[6, 6, 6] == 1
    assert kept[13, 13, 13] == kept[0, 0, 1] == 0
    assert (kept != volume).sum() == 4
    crop = volume[2:13, 2:13, :9].copy()
    crop[0, 0, 1] = 2
    kept = drop_loose_pieces(crop, 2, outside=0)
    assert kept[5, 5, 7] == 1
    assert kept[0, 0, 1] == 2
    assert (kept != crop).sum() == 2
    assert (drop_loose_pieces(np.zeros((3, 3, 3), np.uint8), 2, outside=0) == 0).all()


def test_what_lies_apart_from_a_brain_goes_with_its_hull():
    volume = np.zeros((24, 24, 24), np.uint8)
    volume[6:21, 6:21, 6:21] = ball(6)
    alone = volume.copy()
    alone[:3, :3, :3] = 2
    alone[:2, :2, :2] = 1  # a corner of another brain
    assert (drop_loose_pieces(alone, 2, outside=0) == volume).all()
    both = np.concatenate([volume, volume[::-1]])  # hemispheres that lie apart
    assert (drop_loose_pieces(both, 2, outside=0) == both).all()
    crop = ball(6)[:, :, 7:].copy()
    crop[:3, :3, -3:] = 2
    assert (drop_loose_pieces(crop, 2, outside=0) == crop).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.6))
def test_what_is_mended_obeys_what_holds_in_skeletons(seed, share):
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(12, 12, 12)), 1.5)
    volume = (smooth > np.median(smooth)).astype(np.uint8)
    volume[rng.random(volume.shape) < share] = 2
    mended = mend_sheets(volume, 2, outside=0, inside=1)
    assert (thin(mended, 2) == mended).all()
    assert not (ndimage.binary_dilation(mended == 0) & (mended == 1)).any()
    parts, number = ndimage.label(mended == 0)
    assert set(parts[at_border(parts)]) >= set(range(1, number + 1))
    pieces, number = ndimage.label(mended == 2, TOUCHING)
    within = set(range(1, number + 1)) - set(pieces[at_border(pieces)])
    sizes = np.bincount(pieces.ravel())[1:]
    assert all(sizes[label - 1] >= 0.1 * sizes.max() for label in within)


def test_a_real_skeleton_hardly_changes(real_skeleton):
    """Of a real skeleton at 1 mm nothing is loose, and hardly a hole is one voxel wide."""
    volume = discretise(np.asarray(read_labels(real_skeleton).data), SKELETON)
    assert (drop_loose_pieces(volume, 2, outside=0) == volume).all()
    changed = close_pinholes(volume, 2) != volume
    assert changed.sum() < 0.005 * (volume == 2).sum()
