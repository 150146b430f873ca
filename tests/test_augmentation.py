"""Training volumes turned, stretched and moved: both of a pair alike, and sheets stay whole."""

from dataclasses import asdict

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import euler_number

from foldnorm.datasets import phantoms
from foldnorm.models.noise import seed_of
from foldnorm.pipeline.cli import main
from foldnorm.pipeline.data.augmentation import AugmentationOptions, draw_affine
from foldnorm.pipeline.data.batches import Batches, Draws
from foldnorm.pipeline.data.items import GeneratorTransform, transformed
from foldnorm.pipeline.data.sheet_affine import (
    RandCubeDropoutd,
    RandSheetAffine,
    RandSheetAffined,
)
from foldnorm.pipeline.runs.config import resolve_for, training_options
from foldnorm.pipeline.runs.options import TrainingOptions
from foldnorm.pipeline.training.distributed import launch
from foldnorm.pipeline.training.setup import set_up
from foldnorm.preprocessing.core.errors import InputError
from foldnorm.preprocessing.spatial.space import resample_nearest, resample_sheets
from foldnorm.preprocessing.spatial.warp import (
    BESIDE,
    smooth_displacement,
    warp_nearest,
    warp_sheets,
)

FULL = np.ones((3, 3, 3))


def at_draw(transform, given, draw, seed=0):
    """What a transform makes of a volume, or of an item, in a draw."""
    return transformed(given, [transform], seed, draw)


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
    moved = RandSheetAffine(shift=2, thin=thin)
    shifts = set()
    for draw in range(20):
        found = at_draw(moved, volume, draw)[0]
        around = np.pad(volume[0], 2, mode="edge")
        (at,) = (
            s for s in np.ndindex(5, 5, 5)
            if (around[s[0]:s[0] + 9, s[1]:s[1] + 8, s[2]:s[2] + 7] == found).all()
        )  # fmt: skip
        shifts.add(at)
    assert len(shifts) > 10


def test_a_draw_is_the_same_every_time_and_others_differ():
    moved = RandSheetAffine(10, 0.1, 2)
    first = at_draw(moved, plane(), 3)
    assert (first != at_draw(moved, plane(), 4)).any()
    assert (first != at_draw(moved, plane(), 3, seed=1)).any()
    assert (first == at_draw(moved, plane(), 3)).all()


def test_both_volumes_of_a_pair_are_moved_alike():
    """The second volume is the sheet's neighbourhood, so it must lie around the moved sheet."""
    sheet = plane()
    near = ndimage.binary_dilation(sheet[0] == 2, iterations=2).astype(np.uint8)
    moved = RandSheetAffined("image", 20, 0.1, 3, nearest_keys="pair")
    for draw in range(10):
        found = at_draw(moved, {"image": sheet, "pair": near[None]}, draw)
        assert (found["pair"][found["image"] == 2] == 1).mean() > 0.99
        assert (found["image"] == 2).any()


def test_sheets_stay_whole_where_nearest_neighbour_tears_them():
    turned, torn = RandSheetAffine(15), RandSheetAffine(15, thin=False)
    holes = {"ours": 0, "nearest": 0}
    for draw in range(20):
        for name, way in (("ours", turned), ("nearest", torn)):
            sheet = at_draw(way, slope(), draw)[0] == 2
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
    [({"rotation": 90}, "rotation: expected 0 to 45, got 90"),
     ({"stretch": -0.1}, "stretch: expected 0 to 0.5, got -0.1"),
     ({"shift": -1}, "shift: expected 0 or more, got -1"),
     ({"rotation": float("nan")}, "rotation: expected 0 to 45, got nan")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_by_the_name_that_the_user_gave(options, reason):
    with pytest.raises(InputError, match=f"^{reason}$"):
        RandSheetAffine(**options)
    config = {"training": {**asdict(TrainingOptions()), "augmentation": options}}
    with pytest.raises(InputError, match=f"^training.augmentation.{reason}$"):
        training_options(config)


def volumes(number):
    """(number, 2, 2, 2) volumes and second volumes, each filled with its own row's number."""
    rows = np.arange(number, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(rows, (number, 2, 2, 2)).copy()


@pytest.mark.parametrize("world_size", [1, 2])
def test_pairs_are_of_one_row_whatever_the_batch_epoch_and_rank(world_size):
    first = volumes(10)
    indices = np.array([1, 3, 4, 7, 8, 9])
    for rank in range(world_size):
        draws = Draws(first, indices, auxiliary={"pair": first + 100})
        batches = Batches(draws, 4, rank=rank, world_size=world_size)
        for number in (0, 5, 1, 2, 17):
            batch = batches.batch(number)
            assert batch.shape == (4 // world_size, 2, 2, 2, 2)
            assert (batch[:, 1] == batch[:, 0] + 100).all()
            assert set(batch[:, 0].flatten().tolist()) <= set(indices.tolist())


def test_unpaired_volumes_are_drawn_apart():
    first = volumes(40)
    draws = Draws(first, np.arange(40), auxiliary={"pair": first}, paired=False)
    batch = Batches(draws, 40).batch(0)
    same = (batch[:, 0] == batch[:, 1]).flatten(1).all(1)
    assert same.float().mean() < 0.2
    for n in range(2):
        assert sorted(batch[:, n, 0, 0, 0].tolist()) == list(range(40))


def test_every_draw_of_every_process_is_augmented_by_its_own_number():
    seen = []

    class Note(GeneratorTransform):
        stream = "note"

        def __call__(self, item):
            seen.append(self.rng.random())
            return item

    for rank in range(2):
        draws = Draws(volumes(6), np.arange(6), seed=5, transforms=[Note()])
        Batches(draws, 4, rank=rank, world_size=2).batch(3)
    assert seen == [np.random.default_rng(seed_of(5, "note", n)).random() for n in (12, 13, 14, 15)]


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


def drawn_deformation(side=20, elastic=3.0):
    """A matrix and a displacement of a volume."""
    rng = np.random.default_rng(1)
    matrix = draw_affine(rng, AugmentationOptions(rotation=10, stretch=0.1), (side,) * 3)
    return matrix, smooth_displacement(rng, (side,) * 3, elastic, 16.0)


def test_what_is_pulled_is_the_nearest_voxel_to_what_is_shown():
    volume = np.random.default_rng(0).integers(0, 3, (20, 20, 20)).astype(np.uint8)
    matrix, displacement = drawn_deformation()
    back = np.linalg.inv(matrix)
    expected = np.zeros_like(volume)
    for place in np.ndindex(volume.shape):
        shown = back @ [*(np.array(place) + displacement[:, *place]), 1]
        i, j, k = np.rint(shown[:3]).astype(int)
        if min(i, j, k) >= 0 and max(i, j, k) < 20:
            expected[place] = volume[i, j, k]
    assert np.array_equal(warp_nearest(volume, matrix, displacement, 0), expected)


def test_every_point_that_is_pushed_solves_the_equation_of_the_deformation():
    """Against all points of all voxels, each solved by many steps from far away."""
    volume = np.ones((20, 20, 20), np.uint8)
    volume[:, :, :5], volume[4:-4, 9, 4:-4] = 0, 2
    matrix, displacement = drawn_deformation()
    corners = np.array(
        [(0, 0, 0), *(BESIDE * (2.0 * np.array(c) - 1) for c in np.ndindex(2, 2, 2))]
    )
    places = np.argwhere(volume < 3)
    landed = np.full(volume.shape, -1)
    for corner in corners:
        plain = (places + corner) @ matrix[:3, :3].T + matrix[:3, 3]
        found = plain
        for _ in range(40):
            found = plain - np.stack(
                [
                    ndimage.map_coordinates(e, found.T, order=1, mode="nearest")
                    for e in displacement
                ],
                axis=1,
            )
        at = np.rint(found).astype(int)
        lands = ((at >= 0) & (at < 20)).all(axis=1) & ((volume.ravel() == 2) | ~corner.any())
        np.maximum.at(landed, tuple(at[lands].T), volume.ravel()[lands])
    expected = np.where(landed >= 0, landed, warp_nearest(volume, matrix, displacement, 0))
    pushed = warp_sheets(volume, matrix, displacement, 0, 2)
    # A point within .01 of half-way between two voxels may land on either: 2 % of them, an axis.
    assert (pushed != expected).sum() <= 0.02 * (expected == 2).sum()
    assert (expected == 2).sum() > 200


def test_a_displacement_is_a_cubic_spline_of_its_control_points():
    found = smooth_displacement(np.random.default_rng(0), (9, 20, 14), 2.0, 8.0)
    control = np.random.default_rng(0).uniform(-2, 2, (3, 5, 6, 5))
    middle = np.array([4.0, 9.5, 6.5])
    for place in [(0, 0, 0), (4, 10, 7), (8, 19, 13)]:
        at = (np.array(place) - middle) / 8 + (np.array([5, 6, 5]) - 1) / 2
        for one, drawn in zip(found, control, strict=True):
            (expected,) = ndimage.map_coordinates(drawn, at[:, None], order=3, mode="nearest")
            assert one[place] == pytest.approx(expected)


def test_elastic_sheets_lie_where_a_warp_of_three_times_the_resolution_brings_them():
    """Sheets three voxels thick are not torn by nearest neighbour: where they lie is known."""
    volume, fine = slope(20)[0], np.ones((3, 3, 3), np.uint8)
    for draw in range(3):
        move = RandSheetAffine(elastic=2).set_random_state(seed=draw)
        motion = move.draw(move.rng, volume.shape)
        sheet = move.moved(volume, motion) == 2
        displacement = np.stack([ndimage.zoom(e, 3, order=1, grid_mode=True, mode="nearest")
                                 for e in motion.elastic])  # fmt: skip
        truth = warp_nearest(np.kron(volume, fine), np.eye(4), 3 * displacement, 0) == 2
        share = truth.reshape(20, 3, 20, 3, 20, 3).mean(axis=(1, 3, 5))
        assert (share[sheet] > 0).mean() > 0.97
        assert ndimage.binary_dilation(sheet, FULL)[share > 0].mean() > 0.99
        assert 0.85 < sheet.sum() / (volume == 2).sum() < 1.25
        assert ndimage.label(sheet, FULL)[1] == 1


def test_elastic_sheets_stay_whole_where_nearest_neighbour_tears_them():
    ours, torn = (RandSheetAffine(elastic=2, thin=thin) for thin in (True, False))
    holes = {"ours": 0, "nearest": 0}
    for draw in range(20):
        for name, way in (("ours", ours), ("nearest", torn)):
            sheet = at_draw(way, slope(), draw)[0] == 2
            holes[name] += abs(1 - euler_number(sheet, connectivity=3))
    assert holes["ours"] < 0.1 * holes["nearest"], holes


def test_elastic_pairs_are_deformed_alike():
    sheet = plane()
    near = ndimage.binary_dilation(sheet[0] == 2, iterations=2).astype(np.uint8)
    moved = RandSheetAffined("image", elastic=3, nearest_keys="pair")
    for draw in range(10):
        found = at_draw(moved, {"image": sheet, "pair": near[None]}, draw)
        assert (found["pair"][found["image"] == 2] == 1).mean() > 0.99


@pytest.mark.parametrize(
    ("key", "scheme", "void"), [("image", "skeleton", 1), ("pair", "grey-white", 0)]
)
def test_cubes_become_void_in_the_volume_of_the_key_alone(key, scheme, void):
    item = {"image": plane(), "pair": np.full((1, 24, 24, 24), 2, np.uint8)}
    drop, touched = RandCubeDropoutd(key, 9, 6, scheme=scheme), 0
    for draw in range(10):
        found = at_draw(drop, item, draw)
        (other,) = item.keys() - {key}
        assert found[other] is item[other]
        gone = found[key] != item[key]
        assert (found[key][gone] == void).all()
        touched += gone.any()
    assert touched > 5


@pytest.mark.parametrize("reverse", [False, True])
def test_only_what_is_translated_has_holes(reverse, tmp_path):
    cohort = phantoms(4, tmp_path, voxel_size=8.0, pair="grey-white", split_fractions=(1, 0, 0))
    words = [f"--model.init_args.reverse={reverse}", "--model.init_args.channels=[4]",
             "--model.init_args.convolutions=[1]", "--training.augmentation.dropout=9",
             "--training.batch_size=1"]  # fmt: skip
    config = resolve_for(cohort, "vnet", words)
    batches = set_up(config, cohort, tmp_path / "run", fabric=launch("cpu"), resume=False).batches
    touched = 0
    for number in range(4):
        (index,), (found,) = batches.indices_of(number), batches.batch(number).numpy()
        pair = np.stack([cohort.volumes[index], cohort.pairs[index]])
        assert np.array_equal(found[1 - reverse], pair[1 - reverse])
        touched += (found[int(reverse)] != pair[int(reverse)]).any()
    batches.close()
    assert touched > 2


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
    item = {"image": volumes[:1].astype(np.uint8), "folds": volumes[1:]}

    def moved_with_folds(draw, *limits, **options):
        move = RandSheetAffined("image", *limits, folds_key="folds", **options)
        found = at_draw(move, item, draw)
        return found["image"][0], found["folds"][0]

    still = moved_with_folds(0, 1e-6, thin=False)
    assert np.array_equal(still[0], volumes[0])
    assert np.array_equal(still[1], np.where(volumes[0] == 2, volumes[1], 0))
    for draw in range(6):
        classes, labels = moved_with_folds(draw, 8, 0.06, 2)
        alone = at_draw(RandSheetAffine(8, 0.06, 2), item["image"], draw)
        assert np.array_equal(classes, alone[0])
        assert not labels[classes != 2].any()
        counts = [(labels == n).sum() for n in (3, 5)]
        assert counts[0] > 0.8 * (volumes[1] == 3).sum()
        assert counts[1] > 0.7 * (volumes[1] == 5).sum()
        # The junction parts the first sheet in two; nothing else comes apart.
        assert [ndimage.label(labels == n, FULL)[1] for n in (3, 5)] == [2, 1]
    classes, labels = moved_with_folds(1, elastic=2.0)
    assert set(np.unique(labels)) == {0, 3, 5}
    assert not labels[classes != 2].any()
