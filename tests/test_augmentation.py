"""Training volumes turned, stretched and moved: both of a pair alike, and sheets stay whole."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import euler_number

from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.augmentation import Augmentation, AugmentationOptions, draw_affine
from foldnorm.pipeline.data.batches import Batches, Draws
from foldnorm.preprocessing.cohort.preparation import Preparation
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.io.schemes import load_scheme
from foldnorm.preprocessing.spatial.space import resample_nearest, resample_sheets
from foldnorm.preprocessing.spatial.warp import smooth_displacement, warp_nearest, warp_sheets

THIN = Preparation(load_scheme("skeleton"), thin=True, pair=load_scheme("grey-white"))
FULL = np.ones((3, 3, 3))


def plane(side=24):
    """A sheet that ends within the volume, with inside all around."""
    volume = np.ones((1, side, side, side), np.uint8)
    volume[0, side // 2, 4:-4, 4:-4] = 2
    return volume


def slope(side=24):
    """A sheet whose voxels meet at edges only."""
    volume = np.ones((1, side, side, side), np.uint8)
    for n in range(4, side - 4):
        volume[0, n, n, 4:-4] = 2
    return volume


@pytest.mark.parametrize("thin", [True, False])
def test_a_shift_moves_whole_voxels_and_what_is_at_the_border_goes_on(thin):
    volume = np.random.default_rng(0).integers(0, 2, (1, 9, 8, 7)).astype(np.uint8)
    volume[0, 4, :, :] = 2
    moved = Augmentation(AugmentationOptions(shift=2), replace(THIN, thin=thin), 0)
    shifts = set()
    for draw in range(20):
        found = moved(volume, draw)[0]
        around = np.pad(volume[0], 2, mode="edge")
        (at,) = (
            s for s in np.ndindex(5, 5, 5)
            if (around[s[0]:s[0] + 9, s[1]:s[1] + 8, s[2]:s[2] + 7] == found).all()
        )  # fmt: skip
        shifts.add(at)
    assert len(shifts) > 10


def test_a_draw_is_the_same_every_time_and_others_differ():
    moved = Augmentation(AugmentationOptions(10, 0.1, 2), THIN, 0)
    assert (moved(plane(), 3) == moved(plane(), 3)).all()
    assert (moved(plane(), 3) != moved(plane(), 4)).any()
    assert (moved(plane(), 3) != replace(moved, seed=1)(plane(), 3)).any()


def test_both_volumes_of_a_pair_are_moved_alike():
    """The second volume is the sheet's neighbourhood, so it must lie around the moved sheet."""
    sheet = plane()
    near = ndimage.binary_dilation(sheet[0] == 2, iterations=2).astype(np.uint8)
    pair = np.stack([sheet[0], near])
    moved = Augmentation(AugmentationOptions(20, 0.1, 3), THIN, 0)
    for draw in range(10):
        first, second = moved(pair, draw)
        assert (second[first == 2] == 1).mean() > 0.99
        assert (first == 2).any()


def test_sheets_stay_whole_where_nearest_neighbour_tears_them():
    turned = Augmentation(AugmentationOptions(rotation=15), THIN, 0)
    torn = Augmentation(AugmentationOptions(rotation=15), replace(THIN, thin=False), 0)
    holes = {"ours": 0, "nearest": 0}
    for draw in range(20):
        for name, way in (("ours", turned), ("nearest", torn)):
            sheet = way(slope(), draw)[0] == 2
            assert ndimage.label(sheet, FULL)[1] >= 1
            holes[name] += abs(ndimage.label(sheet, FULL)[1] - euler_number(sheet, connectivity=3))
    assert holes["ours"] == 0
    assert holes["nearest"] > 20


def test_sheets_of_the_same_grid_do_not_grow():
    volume = plane()[0]
    assert (resample_sheets(volume, np.eye(4), volume.shape, 0) == volume).all()
    shifted = np.eye(4)
    shifted[0, 3] = 1
    expected = resample_nearest(volume, shifted, volume.shape, 0)
    assert (resample_sheets(volume, shifted, volume.shape, 0) == expected).all()


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"rotation": 90}, "0 to 45, got 90"), ({"stretch": -0.1}, "0 to 0.5, got -0.1"),
     ({"shift": -1}, "0 to inf, got -1"), ({"rotation": float("nan")}, "got nan")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        AugmentationOptions(**options)


def volumes(number):
    """(number, 2, 2, 2) volumes and second volumes, each filled with its own row's number."""
    rows = np.arange(number, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(rows, (number, 2, 2, 2)).copy()


@pytest.mark.parametrize("world_size", [1, 2])
def test_pairs_are_of_one_row_whatever_the_batch_epoch_and_rank(world_size):
    first = volumes(10)
    indices = np.array([1, 3, 4, 7, 8, 9])
    for rank in range(world_size):
        draws = Draws(first, indices, second=first + 100)
        batches = Batches(draws, 4, rank=rank, world_size=world_size)
        for number in (0, 5, 1, 2, 17):
            batch = batches.batch(number)
            assert batch.shape == (4 // world_size, 2, 2, 2, 2)
            assert (batch[:, 1] == batch[:, 0] + 100).all()
            assert set(batch[:, 0].flatten().tolist()) <= set(indices.tolist())


def test_unpaired_volumes_are_drawn_apart():
    first = volumes(40)
    draws = Draws(first, np.arange(40), second=first, paired=False)
    batch = Batches(draws, 40).batch(0)
    same = (batch[:, 0] == batch[:, 1]).flatten(1).all(1)
    assert same.float().mean() < 0.2
    for n in range(2):
        assert sorted(batch[:, n, 0, 0, 0].tolist()) == list(range(40))


def test_every_draw_of_every_process_is_augmented_by_its_own_number():
    seen = []

    def note(volume, draw):
        seen.append(draw)
        return volume

    for rank in range(2):
        draws = Draws(volumes(6), np.arange(6), augment=note)
        Batches(draws, 4, rank=rank, world_size=2).batch(3)
    assert sorted(seen) == [12, 13, 14, 15]


def test_an_elastic_deformation_without_displacement_changes_nothing():
    volume = np.random.default_rng(0).integers(0, 3, (9, 8, 7)).astype(np.uint8)
    still = np.zeros((3, 9, 8, 7))
    assert (warp_nearest(volume, np.eye(4), still, 0) == volume).all()
    assert (warp_sheets(volume, np.eye(4), still, 0, 2) == volume).all()


def test_both_ways_of_an_elastic_deformation_put_a_voxel_at_the_same_place():
    """Sheets are pushed, all else is pulled: the push must invert the pull."""
    rng = np.random.default_rng(0)
    displacement = smooth_displacement(rng, (24, 24, 24), 3.0, 16.0)
    assert 1 < np.abs(displacement).max() < 4.5  # splines may overshoot their control points
    matrix = draw_affine(rng, AugmentationOptions(rotation=10, stretch=0.1), (24, 24, 24))
    ball = ((np.indices((24, 24, 24)) - 12) ** 2).sum(axis=0) < 49
    pulled = warp_nearest(ball.astype(np.uint8), matrix, displacement, 0) == 1
    pushed = warp_sheets(ball.astype(np.uint8), matrix, displacement, 0, 1) == 1
    assert (pulled != pushed).sum() < 0.2 * pulled.sum()  # half a layer all around
    assert ndimage.binary_dilation(pulled, FULL)[pushed].all()
    assert ndimage.binary_dilation(pushed, FULL)[pulled].all()


def test_elastic_sheets_stay_whole_where_nearest_neighbour_tears_them():
    options = AugmentationOptions(elastic=2)
    ours, torn = (Augmentation(options, replace(THIN, thin=thin), 0) for thin in (True, False))
    holes = {"ours": 0, "nearest": 0}
    for draw in range(20):
        for name, way in (("ours", ours), ("nearest", torn)):
            sheet = way(slope(), draw)[0] == 2
            holes[name] += abs(1 - euler_number(sheet, connectivity=3))
    assert holes["ours"] < 0.1 * holes["nearest"], holes


def test_elastic_pairs_are_deformed_alike():
    sheet = plane()
    near = ndimage.binary_dilation(sheet[0] == 2, iterations=2).astype(np.uint8)
    moved = Augmentation(AugmentationOptions(elastic=3), THIN, 0)
    for draw in range(10):
        first, second = moved(np.stack([sheet[0], near]), draw)
        assert (second[first == 2] == 1).mean() > 0.99


@pytest.mark.parametrize("source", [0, 1])
def test_only_what_is_translated_has_holes(source):
    pair = np.stack([plane()[0], np.full((24, 24, 24), 2, np.uint8)])
    dropped = Augmentation(AugmentationOptions(dropout=9, dropout_side=6), THIN, 0, source=source)
    void, touched = 1 if source == 0 else 0, 0
    for draw in range(10):
        found = dropped(pair, draw)
        assert (found[1 - source] == pair[1 - source]).all()
        gone = found[source] != pair[source]
        assert (found[source][gone] == void).all()
        touched += gone.any()
    assert touched > 5


def test_a_model_that_would_learn_holes_is_refused(small_cohort, tmp_path, capsys):
    code = main(["train", "beta_vae", str(small_cohort.folder), "-o",
                 str(tmp_path / "run"), "--training.augmentation.dropout", "2"])  # fmt: skip
    assert code == 2
    assert "BetaVAE reads no pairs, so it would learn that holes are healthy" in (
        capsys.readouterr().err
    )


def two_folds(side=24):
    """Two sheets that meet, with labels 3 and 5; where they meet there is none."""
    volume, folds = np.ones((side,) * 3, np.uint16), np.zeros((side,) * 3, np.uint16)
    volume[12, 5:-5, 5:-5], folds[12, 5:-5, 5:-5] = 2, 3
    volume[13:19, 12, 5:-5], folds[13:19, 12, 5:-5] = 2, 5
    folds[12, 12] = 0
    return np.stack([volume, folds])


def test_fold_labels_move_with_their_sheets():
    volumes = two_folds()
    thick = replace(THIN, thin=False)
    still = Augmentation(AugmentationOptions(rotation=1e-6), thick, 0).with_folds(volumes, 0)
    assert np.array_equal(still[0], volumes[0])
    assert np.array_equal(still[1], np.where(volumes[0] == 2, volumes[1], 0))
    moved = Augmentation(AugmentationOptions(8, 0.06, 2), THIN, 0)
    for draw in range(6):
        classes, labels = moved.with_folds(volumes, draw)
        assert np.array_equal(classes, moved(volumes[:1].astype(np.uint8), draw)[0])
        assert not labels[classes != 2].any()
        counts = [(labels == n).sum() for n in (3, 5)]
        assert counts[0] > 0.8 * (volumes[1] == 3).sum()
        assert counts[1] > 0.7 * (volumes[1] == 5).sum()
        # The junction parts the first sheet in two; nothing else comes apart.
        assert [ndimage.label(labels == n, FULL)[1] for n in (3, 5)] == [2, 1]
    bent = Augmentation(AugmentationOptions(elastic=2.0), THIN, 0).with_folds(volumes, 1)
    assert set(np.unique(bent[1])) == {0, 3, 5}
    assert not bent[1][bent[0] != 2].any()
